"""
How many connections the process's descriptors are enough for.

A process without a free one can start no child and open no connection, for
nobody.  So clients' connections, which anybody can make, get what is left.
"""

from __future__ import annotations

import resource

from fjmcp import limits


def connections(children: int, descriptors: int) -> int:
    """Connections that there may be beside so many children; a quarter of all at least."""
    left = descriptors - limits.OWN_DESCRIPTORS - children * limits.CHILD_DESCRIPTORS
    return min(limits.CONNECTIONS, max(left, descriptors // 4))


def descriptors() -> int:
    """How many this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limits.CONNECTIONS * 2 if soft == resource.RLIM_INFINITY else soft
