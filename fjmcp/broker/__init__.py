"""
Who is who, and what runs for whom.

Accounts and their credentials, grants and their tokens, sessions and their
children meet here; the rules are `fjmcp.oauth`'s and `fjmcp.mcp`'s, the rows
`fjmcp.store`'s, and HTTP is the floor above.
"""
