"""
Documents from hosts that strangers name.

`guard` is the way out, which leads to public addresses only; `documents`
fetches one document over it.  Nothing here remembers anything, and nothing
that was fetched is believed: judging it is `fjmcp.oauth`'s.
"""
