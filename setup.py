"""
Writes what was built, and when, into what is built.

Everything declarative is in setup.cfg.  This file exists for `_build.json`:
`fjmcp.daemon.version` reads it, so that `twistd fjmcp --version` names the
revision a wheel was made from.  It is written into the build directory and
into the source archive only, never into a checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
NAME = Path("fjmcp") / "_build.json"
UNKNOWN = "unknown"


def revision() -> str:
    """The commit of this checkout, with `-dirty` for local changes."""
    if not (HERE / ".git").exists():  # unpacked inside a repository of something else
        return UNKNOWN
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return answer.stdout.strip() or UNKNOWN


def build_date() -> str:
    """This moment in UTC, or SOURCE_DATE_EPOCH where a build is to be repeated."""
    moment = time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)


def build_info() -> str:
    """What `_build.json` says; a source archive brings its own."""
    if (HERE / NAME).exists():
        return (HERE / NAME).read_text("utf-8")
    return json.dumps({"revision": revision(), "built": build_date()}) + "\n"


class Build(build_py):
    """Builds the packages, and says from what."""

    def run(self) -> None:
        """After the packages, write the file; not where the checkout itself is installed."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / NAME
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(build_info(), "utf-8")


class SourceArchive(sdist):
    """A source archive that remembers its revision."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """After the files were laid out, write ours beside them."""
        super().make_release_tree(base_dir, files)
        (Path(base_dir) / NAME).write_text(build_info(), "utf-8")


setup(cmdclass={"build_py": Build, "sdist": SourceArchive})
