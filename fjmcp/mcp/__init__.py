"""
What MCP says: bytes and values in, values out.

Between a client and a child pass JSON-RPC messages.  This room reads them no
further than the envelope and the few members that fjmcp acts on; `params`,
`result` and `error` stay the bytes that they were.  Nothing here knows a
process, a socket or a clock.
"""
