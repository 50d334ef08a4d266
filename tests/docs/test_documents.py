"""The pages for operators, against the code that they speak of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import fjmcp
from fjmcp.oauth.grants import TRANSITIONS
from fjmcp.store import migrating
from tests.docs.log_events import Event, in_source

ROOT = Path(fjmcp.__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def cells(line: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def coded(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def in_document() -> list[Event]:
    """The events of the table in docs/operations.md."""
    found = []
    page = (DOCS / "operations.md").read_text("utf-8")
    table = page.partition("\n| component | level | message |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        component, level, message, fields, meaning = cells(line)
        assert meaning, line
        found.append(Event(coded(component)[0], level, message[1:-1], tuple(sorted(coded(fields)))))
    return found


class LogTests(SynchronousTestCase):
    """Log events."""

    def test_every_event_is_explained(self) -> None:
        """Each event of the code has a row, with level and fields, and each row is an event."""
        code, page = in_source(), in_document()
        self.assertEqual([event for event in code if event not in page], [], "not in operations.md")
        self.assertEqual([event for event in page if event not in code], [], "not in the code")
        self.assertEqual(len(page), len(set(page)))

    def test_validation_looks_for_events_that_there_are(self) -> None:
        """Each event and field that docs/validation.md looks for is in the code."""
        fields = {event.message: set(event.fields) for event in in_source()}
        rows = re.findall(r"^\|.*\|$", (DOCS / "validation.md").read_text("utf-8"), re.MULTILINE)
        seen: set[str] = set()
        for row in rows:
            self.assertEqual(len(cells(row)), 3, row)
            current: str | None = None
            for word in coded(cells(row)[2]):
                name, equals, _ = word.partition("=")
                if not equals:
                    current = word
                    seen.add(word)
                    self.assertIn(word, fields, row)
                else:
                    assert current is not None, row
                    self.assertIn(name, fields[current], row)
        self.assertGreater(len(seen), 12)


class StoreTests(SynchronousTestCase):
    """The store."""

    def test_every_table_is_explained(self) -> None:
        """Each table of the schema has a row, and each row is a table."""
        made = {"schema_version"}
        for script in migrating.ours():
            made |= set(re.findall(r"CREATE TABLE (\w+)", script.text))
            made -= set(re.findall(r"DROP TABLE (\w+)", script.text))
        page = (DOCS / "operations.md").read_text("utf-8")
        table = page.partition("\n| table | a row is |")[2].partition("\n\n")[0]
        rows = [coded(cells(line)[0])[0] for line in table.splitlines()[2:]]
        self.assertEqual(sorted(rows), sorted(made))


class ChecklistTests(SynchronousTestCase):
    """docs/security.md."""

    def test_every_item_has_its_test(self) -> None:
        """Each of the 18 items names tests that there are, and each test is of an item."""
        page = (DOCS / "security.md").read_text("utf-8")
        table = page.partition("\n| item | what holds | test |")[2].partition("\n\n")[0]
        named: dict[int, list[str]] = {}
        for row in table.splitlines()[2:]:
            number, _, names = cells(row)
            named[int(number)] = coded(names)
        self.assertEqual(sorted(named), list(range(1, 19)))
        for item, tests in named.items():
            self.assertTrue(all(test.startswith(f"test_item_{item:02}_") for test in tests), item)
        files = (ROOT / "tests" / "checklist").glob("test_*.py")
        written = [
            name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())
        ]
        self.assertEqual(sorted(written), sorted(name for each in named.values() for name in each))


class MadeTests(SynchronousTestCase):
    """What `make docs` makes."""

    def test_current(self) -> None:
        """Quoted files and the table of limits are those of the tree (`make docs`)."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "documents.py"), "--check"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.stdout + done.stderr, "")

    def test_life_of_a_grant(self) -> None:
        """docs/protocol.md has the diagram with all that can happen, and its tables."""
        page = (DOCS / "protocol.md").read_text("utf-8")
        for part in ("diagram", "steps", "lifetimes", "errors"):
            self.assertRegex(page, f"(?s)<!-- {part}: made from .*\n<!-- end of {part} -->")
        drawing = page.partition("stateDiagram-v2")[2].partition("```")[0]
        for (before, event), (after, _) in TRANSITIONS.items():
            arrow = f"{before.value} --> {after.value} : "
            (line,) = [line for line in drawing.splitlines() if arrow in line]
            self.assertIn(event.value, line)

    def test_links(self) -> None:
        """Links between pages lead to files and headings that there are."""
        for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
            for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
                if "://" in target:
                    continue
                path, _, anchor = target.partition("#")
                file = (page.parent / path).resolve() if path else page
                self.assertTrue(file.exists(), f"{page.name}: {target}")
                if anchor:
                    self.assertIn(anchor, anchors(file), f"{page.name}: {target}")


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
