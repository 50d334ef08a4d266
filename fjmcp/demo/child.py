"""
Which real child the demo runs, and how it is had.

In this order: what was asked for, `FORGEJO_MCP_BIN`, `forgejo-mcp` on PATH,
a build of it by Go, and gitea-mcp in an environment of its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from attrs import frozen

from fjmcp.demo.step import Say, run

FORGEJO_MCP: Final = "forgejo-mcp"
GITEA_MCP: Final = "gitea-mcp"

MODULE: Final = "git.b4mad.industries/agentic-forges/forgejo-mcp/v2@v2.34.1"
PACKAGE: Final = "gitea-mcp==0.5.1"


class NoChild(Exception):
    """No real child can be had.  The text says what was tried and what to do."""


@frozen
class RealChild:
    """A child that can be run, and why it is this one."""

    kind: str
    path: Path
    why: str

    @property
    def lists_repositories(self) -> str:
        """The tool that lists the person's repositories."""
        return "list_my_repos" if self.kind == FORGEJO_MCP else "list_repos"

    def options(self) -> dict[str, str]:
        """What `twistd fjmcp` must be told to run it, as environment variables."""
        if self.kind == FORGEJO_MCP:
            return {"FJMCP_FORGEJO_MCP_BINARY": str(self.path)}
        return {
            "FJMCP_CHILD_COMMAND": str(self.path),
            "FJMCP_CHILD_ENV": "GITEA_URL={url} GITEA_TOKEN={token} FASTMCP_SHOW_CLI_BANNER=false",
        }


def find(asked: str | None, home: Path, say: Say) -> RealChild:
    """
    The child to run.

    :param asked: a path, or `forgejo-mcp` or `gitea-mcp` for exactly that one.
    :param home: where what has to be installed goes.
    :raises NoChild: it cannot be had.
    """
    if asked is not None and asked not in (FORGEJO_MCP, GITEA_MCP):
        return _at(Path(asked), "you named it with --child")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        # Two that install into one folder would each spoil the other's work.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _have(asked, home, say)


def _have(asked: str | None, home: Path, say: Say) -> RealChild:
    if asked == GITEA_MCP:
        return _gitea_mcp(home, "you asked for it with --child", say)
    child = _forgejo_mcp(home, say)
    if child is not None:
        return child
    if asked == FORGEJO_MCP:
        raise NoChild(
            "forgejo-mcp cannot be had: FORGEJO_MCP_BIN is not set, it is not on PATH, and Go could"
            " not build it. Build it yourself and set FORGEJO_MCP_BIN, or leave out --child."
        )
    return _gitea_mcp(home, "forgejo-mcp is not here and cannot be built", say)


def _forgejo_mcp(home: Path, say: Say) -> RealChild | None:
    named = os.environ.get("FORGEJO_MCP_BIN")
    if named:
        return _at(Path(named), "FORGEJO_MCP_BIN names it")
    on_path = shutil.which(FORGEJO_MCP)
    if on_path is not None:
        return RealChild(FORGEJO_MCP, Path(on_path), "it is on PATH")
    built = home / "bin" / FORGEJO_MCP
    if built.exists():
        return RealChild(FORGEJO_MCP, built, "Go built it in an earlier run")
    if _build(built, say):
        return RealChild(FORGEJO_MCP, built, "Go built it")
    return None


def _at(path: Path, why: str) -> RealChild:
    if not os.access(path, os.X_OK) or path.is_dir():
        raise NoChild(f"{path} is not a program that can be run ({why}).")
    kind = GITEA_MCP if GITEA_MCP in path.name else FORGEJO_MCP
    return RealChild(kind, path.absolute(), why)


def _build(target: Path, say: Say) -> bool:
    go = shutil.which("go")
    if go is None:
        say("forgejo-mcp is not here, and neither is Go to build it")
        return False
    say("forgejo-mcp is not here; asking Go to build it")
    target.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOBIN": str(target.parent.absolute()), "CGO_ENABLED": "0"}
    failed = run([go, "install", MODULE], environment, "building", say)
    if failed is not None:
        say(f"Go cannot have it here ({failed})")
    return failed is None


def _gitea_mcp(home: Path, why: str, say: Say) -> RealChild:
    place = home / GITEA_MCP
    program = place / "bin" / GITEA_MCP
    # A stamp, and not the program alone: an install that was interrupted is not one.
    stamp = place / f".{PACKAGE}"
    if not stamp.exists():
        say("installing gitea-mcp into an environment of its own (a minute, once)")
        shutil.rmtree(place, ignore_errors=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", PACKAGE]
        for command in ([sys.executable, "-m", "venv", str(place)], pip):
            failed = run(command, dict(os.environ), "installing", say)
            if failed is not None:
                raise NoChild(f"gitea-mcp cannot be installed: {failed}")
        stamp.touch()
    return RealChild(GITEA_MCP, program.absolute(), why)
