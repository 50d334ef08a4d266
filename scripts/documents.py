#!/usr/bin/env python3
"""
Writes what is made in docs/: files that a page quotes, the table of limits, the life of a grant.

    python scripts/documents.py            write it
    python scripts/documents.py --check    say what is not as it should be

`make docs` runs it; a test checks.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import grant_life  # noqa: E402

from fjmcp import limits  # noqa: E402

KINDS = {"conf": "nginx", "Caddyfile": "caddyfile", "Containerfile": "dockerfile"}
"""What a quoted file is written in, by its ending or its name."""

BEGIN = "<!-- Made from fjmcp/limits.py by `make docs`; change it there. -->"


def quoted(page: str) -> str:
    """A page with each file in it that a comment names (`<!-- deploy/... -->`)."""

    def quote(match: re.Match[str]) -> str:
        path = ROOT / match[1]
        kind = KINDS.get(path.suffix[1:]) or KINDS.get(path.name, "ini")
        return f"<!-- {match[1]} -->\n\n```{kind}\n{path.read_text('utf-8').rstrip()}\n```\n"

    pattern = r"<!-- (deploy/\S+) -->\n(?:\n```.*?\n```\n)?"
    return re.sub(pattern, quote, page, flags=re.DOTALL)


def with_limits(page: str) -> str:
    """A page that ends with the table of limits."""
    return f"{page.partition(BEGIN)[0]}{BEGIN}\n\n{limits_table()}"


def limits_table() -> str:
    """Every number of `fjmcp.limits`, by its section, with its reason."""
    source = Path(limits.__file__).read_text("utf-8")
    lines = source.splitlines()
    sections = {
        number: match[1]
        for number, line in enumerate(lines, 1)
        if (match := re.match(r"# --- (.+?) -*$", line))
    }
    out: list[str] = []
    seen = 0
    body = ast.parse(source).body
    for statement, reason in itertools.pairwise(body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        for number in [number for number in sections if seen < number < statement.lineno]:
            title = sections[number][0].upper() + sections[number][1:]
            out += ["", f"### {title}", "", "| limit | is | why |", "|---|---|---|"]
            seen = number
        assert isinstance(reason, ast.Expr), statement.target.id
        assert isinstance(reason.value, ast.Constant), statement.target.id
        why = " ".join(str(reason.value.value).split())
        why = re.sub(r" \((?:design )?D\d+\)", "", why)
        name = statement.target.id
        out.append(f"| `{name}` | {words(getattr(limits, name))} | {why} |")
    return "\n".join(out).strip() + "\n"


def words(value: object) -> str:
    """A limit as an operator reads it."""
    match value:
        case float():
            for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
                if value % seconds == 0 and 1 <= value / seconds < 1000:
                    return f"{value / seconds:g} {unit}"
            return f"{value / 86400:.1f} d" if value > 86400 else f"{value:g} s"
        case int() if value >= 8192 and value % 1024 == 0:
            mib = value % (1024 * 1024) == 0
            return f"{value // 1024**2} MiB" if mib else f"{value // 1024} KiB"
        case dict():
            return "; ".join(f"{key}: {words(each)}" for key, each in value.items())
        case (int(at_once), float(every)):
            often = f"one every {every:g} s" if every >= 1 else f"{1 / every:g} a second"
            return f"{at_once} at once, then {often}"
        case tuple():
            return ", ".join(f"`{each}`" for each in value)
        case _:
            return f"{value}"


LIFETIMES = (
    "SIGN_IN",
    "CODE",
    "ACCESS_TOKEN",
    "REFRESH_GRACE",
    "GRANT_IDLE",
    "GRANT_LIFE",
    "GRANTS_PER_ACCOUNT",
    "ENDED_GRANT",
)


def lifetimes() -> str:
    """The limits of a grant's life."""
    found = {row.split("`")[1]: row for row in limits_table().splitlines() if row.startswith("| `")}
    return "\n".join(
        ["| limit | is | why |", "|---|---|---|", *[found[name] for name in LIFETIMES]]
    )


def with_grants(page: str) -> str:
    """A page with each part in it that two comments enclose, named by the first."""
    parts = {
        "diagram": grant_life.diagram,
        "steps": grant_life.steps,
        "lifetimes": lifetimes,
        "errors": grant_life.errors,
    }

    def make(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{parts[match[2]]()}\n\n<!-- end of {match[2]} -->"

    pattern = r"(<!-- (\w+): made from .*? -->)\n.*?<!-- end of \2 -->"
    return re.sub(pattern, make, page, flags=re.DOTALL)


PAGES = {"deployment.md": quoted, "operations.md": with_limits, "protocol.md": with_grants}


def main() -> int:
    """Write the pages, or compare them."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, make in PAGES.items():
        page = ROOT / "docs" / name
        text = page.read_text("utf-8")
        if text != make(text):
            stale.append(name)
            if not check:
                page.write_text(make(text), "utf-8")
    for name in stale:
        print(f"docs/{name}", "is not current: make docs" if check else "written")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
