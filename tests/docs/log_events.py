"""The log events of the source, found by reading it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

import fjmcp

PACKAGE: Final = Path(fjmcp.__file__).parent

LEVELS: Final = {
    "debug": "debug",
    "info": "info",
    "warn": "warn",
    "error": "error",
    "critical": "critical",
    # With a traceback; twisted.logger gives them that level.
    "failure": "critical",
    "failuresHandled": "critical",
    "failureHandler": "critical",
}

_REST: Final = "…"
"""Stands for fields that are handed on (`**fields`)."""

_NOT_FIELDS: Final = {"failure"}
"""What `Logger.failure` takes for itself."""


@frozen(order=True)
class Event:
    """One event as a reader of the log sees it; `message` with its fields in braces."""

    component: str
    level: str
    message: str
    fields: tuple[str, ...] = ()


def in_source() -> list[Event]:
    """
    Every event that the daemon and the operator's tool can write.

    One that is written in two places has the fields of both.
    """
    found: dict[tuple[str, str, str], set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in {"demo", "testing"}:
            continue
        for component, level, message, fields in _calls(path, ".".join(parts)):
            found.setdefault((component, level, message), set()).update(fields)
    return sorted(Event(*key, tuple(sorted(fields))) for key, fields in found.items())


def _calls(path: Path, component: str) -> Iterator[tuple[str, str, str, set[str]]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in LEVELS or not _is_log(node.func.value):
            continue
        first = node.args[0] if node.args else None
        if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
            raise AssertionError(f"{path}:{node.lineno}: the message of an event is no constant")
        fields = {word.arg or _REST for word in node.keywords} - _NOT_FIELDS
        yield component, LEVELS[node.func.attr], first.value, fields


def _is_log(value: ast.expr) -> bool:
    name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
    return name.strip("_") == "log"
