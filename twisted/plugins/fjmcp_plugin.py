"""
Tells twistd that there is a daemon `fjmcp`.

Every twistd on the host reads this file, so it names our modules in strings
and imports none of them.  `twisted/` must have no `__init__.py` here: it would
hide Twisted itself.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

fjmcp = ServiceMaker(
    "fjmcp",
    "fjmcp.daemon.tap",
    "The front door between AI assistants and a Forgejo.",
    "fjmcp",
)
