"""
Processes.

A child is one stdio MCP server that runs for one grant: how it is called
(`profiles`), how it is started apart from us (`launch`), and how its pipes are
read, written and closed until it is gone (`process`).
What the lines mean is `fjmcp.mcp`'s; who may talk to which child is
`fjmcp.broker`'s.
"""
