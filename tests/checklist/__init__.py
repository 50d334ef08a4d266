"""
The checklist of docs/security.md: RFC 9700 and OAuth 2.1 for this server, item by item.

Each test is named after its item and goes over the wire of a whole broker, as
an attacker would.  The details behind it are tested beside the code.
"""
