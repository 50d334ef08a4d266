"""
What is running: version, revision, build date.

The last two were written into the wheel when it was built (setup.py).  In a
checkout there is no such file and git is asked; else they are unknown.
"""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Final

from attrs import frozen

from fjmcp import __version__
from twisted import __version__ as TWISTED

UNKNOWN: Final = "unknown"

VERSION: Final = __version__.public()
"""As in `fjmcp/0.1.0`, which children and the forge are told."""

_PACKAGE: Final = Path(__file__).resolve().parent.parent

_GIT: Final = 5.0
"""Seconds that git may take; a person waits for `--version`."""


@frozen
class Build:
    """Where this code comes from.  `built` is ISO 8601 in UTC."""

    revision: str = UNKNOWN
    built: str = UNKNOWN


def build(package: Path = _PACKAGE) -> Build:
    """The build of the package in that folder."""
    try:
        found = json.loads((package / "_build.json").read_text("utf-8"))
        return Build(str(found["revision"]), str(found["built"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Build(_revision_of_checkout(package.parent))


def _revision_of_checkout(folder: Path) -> str:
    if not (folder / ".git").exists():
        return UNKNOWN
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *describe],
            capture_output=True,
            text=True,
            timeout=_GIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return answer.stdout.strip() or UNKNOWN


def words(made: Build) -> str:
    """What `--version` prints."""
    return (
        f"fjmcp {VERSION} (revision {made.revision}, built {made.built})\n"
        f"Twisted {TWISTED}, Python {platform.python_version()}"
    )
