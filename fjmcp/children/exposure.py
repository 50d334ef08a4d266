"""
Whether other processes can read a child's environment, where its token stands.

Every process of a user may read `/proc/<pid>/environ` of the others, so one
person's child could read another's token.  The kernel closes that file, and
ptrace and core dumps with it, for a program that whoever started it cannot
read (`would_dump` in fs/exec.c): one that belongs to root and has mode 0711.
That is a matter of how the program was installed; here it is only looked at.

It holds from the child's `execve` on.  The few milliseconds before, `setsid`,
`setpriv` and `sh` run with the same environment and are readable programs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from attrs import frozen

_INTERPRETER: Final = re.compile(
    r"(python|pypy|node|deno|bun|ruby|perl|php|lua|java|dotnet)[0-9.]*\Z"
    r"|(ba|da|z|k)?sh\Z|(env|npx|uvx?|pipx|docker|podman)\Z"
)
"""Programs that run what somebody else wrote: making them unreadable breaks the machine."""


@frozen
class Program:
    """
    What counts of a program's file.

    :ivar path: the file itself, links followed.
    :ivar readable: by this process, so by its children too.
    :ivar ours: whether it belongs to this process's user, who can change its mode.
    :ivar script: it is run by an interpreter, which everybody can read.
    """

    path: str
    readable: bool
    ours: bool
    script: bool


def look(program: str) -> Program:
    """
    Look at a program's file.

    :raises OSError: there is no such file, or it cannot be looked at.
    """
    path = os.path.realpath(program)
    owner = os.stat(path).st_uid
    readable = os.access(path, os.R_OK, effective_ids=True)
    script = _INTERPRETER.match(os.path.basename(path)) is not None
    if readable:
        with Path(path).open("rb") as file:
            script = script or file.read(2) == b"#!"
    return Program(path, readable, owner == os.geteuid(), script)


def exposure(program: Program, uid: int) -> str | None:
    """
    What is exposed by a daemon of user `uid`, and what to do; None if nothing is.
    """
    if uid == 0:
        return (
            "the daemon runs as root, and the MCP servers with it: each can read the environment"
            " of the others, where other people's tokens for Forgejo stand. Run the daemon as a"
            " user of its own"
        )
    if program.script:
        return (
            "every process of the daemon's user can read the environment of an MCP server, where"
            " a person's token for Forgejo stands; each MCP server is such a process."
            f" {program.path} is run by an interpreter, so that no file mode can help: prefer a"
            " compiled server such as forgejo-mcp"
        )
    if program.readable or program.ours:
        return (
            "every process of the daemon's user can read the environment of an MCP server, where"
            " a person's token for Forgejo stands; each MCP server is such a process. As root:"
            f" chown root:root {program.path} && chmod 0711 {program.path}"
            " (the kernel hides the processes of a program that their user cannot read)"
        )
    return None
