"""docs/reliability.md, whose table must not promise more than is tried."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import fjmcp

ROOT = Path(fjmcp.__file__).resolve().parent.parent
ROW = re.compile(r"^\| (?P<fault>[^|]+) \| .+ \| `(?P<path>[^`]+\.py)::(?P<name>[^`]+)` \|$")


def rows() -> list[str]:
    """The rows of the tables."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith("| fault |")]


def names(path: Path) -> set[str]:
    """What a file's tests are called, for pytest."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inner = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            found.update(f"{node.name}::{each.name}" for each in inner)
    return {name for name in found if "test_" in name}


class TableTests(SynchronousTestCase):
    """Each row names its test."""

    def test_rows(self) -> None:
        """Every fault in the table has a test, and it exists."""
        self.assertGreater(len(rows()), 25)
        for row in rows():
            match = ROW.match(row)
            assert match is not None, row
            path = ROOT / "tests" / match["path"]
            self.assertTrue(path.exists(), row)
            self.assertIn(match["name"], names(path), row)

    def test_every_fault_has_its_row(self) -> None:
        """No test of a fault with real processes is left out of the table."""
        table = "\n".join(rows())
        for path in sorted((ROOT / "tests" / "faults").glob("test_real_*.py")):
            for name in names(path) - {"test_leaks_are_seen"}:
                self.assertIn(f"`faults/{path.name}::{name}`", table)
