"""
What the daemon writes: a line for a person on a terminal, else JSON.

An event becomes one line: time, level, component (who said it), message, the
named fields.  On a terminal:

    06:41:02.123 info   broker.pool: child started pid=4711 grant=g_5

else one JSON object, times in UTC:

    {"time": "2026-11-21T06:41:02.123Z", "level": "info",
     "component": "fjmcp.broker.pool", "message": "child started", "pid": 4711}

A traceback is lines of its own on a terminal, the member `traceback` in JSON.
Control characters never reach a terminal; secrets are blanked (`blanking`).
"""

from __future__ import annotations

import json
import math
import re
import syslog
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from string import Formatter
from typing import Any, Final, Protocol

from attrs import frozen
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from fjmcp.daemon.blanking import BLANK, SECRET_NAMES, Blanking

LONGEST: Final = 4096
"""Characters of one field or message; a log is no place for bodies."""

LONGEST_TRACEBACK: Final = 64 * 1024
"""Characters of one traceback, of which the end is kept: the error is there."""

DEEPEST: Final = 4
"""How deep a field's own structure is followed."""

# What the logging system before twisted.logger puts beside the named fields;
# `isError` is always among it.
_MACHINERY: Final = frozenset(
    {"time", "system", "isError", "failure", "why", "format", "message", "logLevel"}
)
_OWN: Final = frozenset({"time", "level", "component", "message", "traceback"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

Write = Callable[[str, LogLevel], None]


@frozen
class Line:
    """An event without secrets, ready to be spelt."""

    time: float
    level: str
    component: str
    message: str
    fields: Mapping[str, Any]
    """JSON-able, every one."""
    shown: frozenset[str]
    """Fields that the message already says."""
    traceback: str | None


def line_of(event: LogEvent, blank: Blanking) -> Line:
    """What of an event is written.  Never raises, whatever its fields hold."""
    failure = event.get("log_failure")
    format_ = event.get("log_format") or ""
    machinery = _MACHINERY if "isError" in event else frozenset()
    fields = {
        name: _plain(value, blank, name)
        for name, value in event.items()
        if not name.startswith("log_") and name not in machinery
    }
    traceback = None
    if isinstance(failure, Failure):
        traceback = blank(_traceback(failure))[-LONGEST_TRACEBACK:]
    return Line(
        time=float(event.get("log_time") or 0.0),
        level=getattr(event.get("log_level"), "name", "info"),
        component=str(event.get("log_namespace") or "-"),
        message=_cut(blank(formatEvent(event)), LONGEST),
        fields=fields,
        shown=_named(format_),
        traceback=traceback,
    )


def json_text(line: Line) -> str:
    """One JSON object, without a line end."""
    moment = datetime.fromtimestamp(line.time, UTC)
    spelt: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": line.level,
        "component": line.component,
        "message": line.message,
    }
    for name, value in line.fields.items():
        spelt[f"field_{name}" if name in _OWN else name] = value
    if line.traceback is not None:
        spelt["traceback"] = line.traceback
    return json.dumps(spelt, ensure_ascii=False, allow_nan=False)


def human_text(line: Line) -> str:
    """One line for a terminal, and a traceback below it, indented."""
    moment = datetime.fromtimestamp(line.time).astimezone()
    component = line.component.removeprefix("fjmcp.")
    rest = "".join(
        f" {name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in line.fields.items()
        if name not in line.shown
    )
    head = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d} {line.level:<6}"
    text = _harmless(f"{head} {component}: {line.message}{rest}")
    for row in (line.traceback or "").splitlines():
        text += f"\n    {_harmless(row)}"
    return text


@implementer(ILogObserver)
@frozen
class Lines:
    """Spells each event and writes it."""

    spell: Callable[[Line], str]
    write: Write
    blank: Blanking

    def __call__(self, event: LogEvent) -> None:
        """Twisted calls it for each event, from any thread."""
        level = event.get("log_level") or LogLevel.info
        text = self.spell(line_of(event, self.blank))
        # Half a surrogate pair, from some peer's JSON, fits in no file.
        self.write(text.encode("utf-8", "backslashreplace").decode("utf-8"), level)


class Threshold(LogLevelFilterPredicate):
    """What is worth a line: from info on, or from debug on; may change at any time."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__()
        self.set_debug(debug)

    def set_debug(self, debug: bool) -> None:
        """Whether debug is worth a line."""
        self.setLogLevelForNamespace("", LogLevel.debug if debug else LogLevel.info)


def observer(
    spell: Callable[[Line], str], write: Write, blank: Blanking, worth: Threshold
) -> ILogObserver:
    """The lines of what is worth a line."""
    return FilteringLogObserver(Lines(spell, write, blank), [worth])


class Stream(Protocol):
    """A file to write to, ours or Twisted's."""

    def write(self, text: str, /) -> object:
        """Append the text."""

    def flush(self) -> object:
        """Hand it to the system."""


def to_stream(stream: Stream) -> Write:
    """Write whole lines, each at once, so that threads do not mix them."""

    def write(text: str, level: LogLevel) -> None:
        stream.write(f"{text}\n")
        stream.flush()

    return write


def to_syslog(prefix: str) -> Write:
    """Write to syslog with the level's priority."""
    syslog.openlog(prefix, syslog.LOG_PID, syslog.LOG_DAEMON)
    priorities = {
        LogLevel.debug: syslog.LOG_DEBUG,
        LogLevel.info: syslog.LOG_INFO,
        LogLevel.warn: syslog.LOG_WARNING,
        LogLevel.error: syslog.LOG_ERR,
        LogLevel.critical: syslog.LOG_CRIT,
    }

    def write(text: str, level: LogLevel) -> None:
        syslog.syslog(priorities.get(level, syslog.LOG_INFO), text)

    return write


def _plain(value: object, blank: Blanking, name: str = "", depth: int = DEEPEST) -> Any:
    """The same as JSON can say it, without secrets."""
    if name.lower().replace("-", "_") in SECRET_NAMES and value is not None:
        return BLANK
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Python refuses to spell very long ones.
        return value if value.bit_length() <= 64 else _cut(hex(value), LONGEST)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _cut(blank(value), LONGEST)
    if isinstance(value, bytes | bytearray):
        return _cut(blank(bytes(value).decode("utf-8", "backslashreplace")), LONGEST)
    if depth and isinstance(value, Mapping):
        return {
            _cut(blank(_text(key)), LONGEST): _plain(item, blank, _text(key), depth - 1)
            for key, item in list(value.items())
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, blank, "", depth - 1) for item in list(value)]
    return _cut(blank(_text(value)), LONGEST)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"


def _traceback(failure: Failure) -> str:
    try:
        return failure.getTraceback()
    except Exception:
        return f"<traceback of {failure.type} that cannot be shown>"


def _named(format_: object) -> frozenset[str]:
    """The fields that a format string shows."""
    try:
        parts = list(Formatter().parse(_text(format_)))
    except ValueError:
        return frozenset()
    return frozenset(re.split(r"[.\[(]", name)[0] for _, name, _, _ in parts if name)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def _harmless(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
