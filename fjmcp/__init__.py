"""
The front door between AI assistants and a forge.

A client signs a person in at their own Forgejo (OAuth 2.1, `oauth`, `broker`,
`web`), and its MCP traffic goes to a stdio server that works there as that
person (`mcp`, `children`, `broker`).  `daemon` puts it together.

A package is a room on a floor, imports go to a lower floor only; the contract
that checks it is in `.importlinter`.
"""

from __future__ import annotations

from fjmcp._version import __version__

__all__ = ["__version__"]
