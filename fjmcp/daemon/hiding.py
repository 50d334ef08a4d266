"""
The daemon's own memory and environment, hidden from its children.

They run as the same user, which may by default read `/proc/<pid>/environ` and
`/proc/<pid>/mem` of the daemon: the keys, the client secret, everybody's
tokens.  A process that is not dumpable belongs to root in `/proc` (proc(5));
children become dumpable again when they execute their program.
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4
"""From linux/prctl.h."""


def hide() -> str | None:
    """
    Hide this process, and let neither it nor its children leave a core.

    Answers what went wrong, or None.  A debugger needs root from here on.
    """
    try:
        # Inherited: a child's core would hold a person's token.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    zero = ctypes.c_ulong(0)
    if prctl(_PR_SET_DUMPABLE, zero, zero, zero, zero) != 0:
        return f"prctl: {os.strerror(ctypes.get_errno())}"
    return None
