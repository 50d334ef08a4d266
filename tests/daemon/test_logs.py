"""An event becomes a line."""

from __future__ import annotations

import io
import json
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fjmcp.daemon.blanking import BLANK, blanking
from fjmcp.daemon.logs import (
    LONGEST,
    Lines,
    Threshold,
    human_text,
    json_text,
    line_of,
    observer,
    to_stream,
)

TOKEN = "fja_0123456789abcdefghij"

jsonable: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=8,
)

names = st.text(max_size=12).filter(lambda name: not name.startswith("log_"))


class Stubborn:
    """Something that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class LogsTests(SynchronousTestCase):
    """Both spellings of events that a Logger makes."""

    def setUp(self) -> None:
        """A logger whose events are spelt in both ways."""
        self.events: list[dict[str, Any]] = []
        self.log = Logger(
            namespace="fjmcp.broker.pool", observer=cast(ILogObserver, self.events.append)
        )

    def as_json(self) -> dict[str, Any]:
        """The last event as the JSON object of its line."""
        text = json_text(line_of(self.events[-1], blanking()))
        self.assertNotIn("\n", text)
        found: dict[str, Any] = json.loads(text)
        return found

    def as_human(self) -> str:
        """The last event as a person reads it, without the time."""
        text = human_text(line_of(self.events[-1], blanking()))
        self.assertRegex(text, r"\A\d\d:\d\d:\d\d\.\d{3} ")
        return text[13:]

    def test_named_fields(self) -> None:
        """A line has time, level, component, message and the fields by name."""
        self.log.info("child started", pid=4711, grant="g 5", extra=None)
        self.events[-1]["log_time"] = 1795243262.1234
        self.assertEqual(
            self.as_json(),
            {
                "time": "2026-11-21T06:41:02.123Z",
                "level": "info",
                "component": "fjmcp.broker.pool",
                "message": "child started",
                "pid": 4711,
                "grant": "g 5",
                "extra": None,
            },
        )
        self.assertEqual(
            self.as_human(), "info   broker.pool: child started pid=4711 grant=g 5 extra=null"
        )

    def test_fields_in_the_message(self) -> None:
        """A field that the message shows is not repeated to a person, but stands in JSON."""
        self.log.warn("child {pid} ended: {why.args[0]}", pid=1, why=ValueError("x"), seconds=2.5)
        self.assertEqual(self.as_human(), "warn   broker.pool: child 1 ended: x seconds=2.5")
        self.assertEqual(self.as_json()["pid"], 1)

    def test_failure(self) -> None:
        """A failure is its traceback, without secrets: a member in JSON, lines for a person."""
        try:
            raise RuntimeError(f"refused {TOKEN}\x1b[31m")
        except RuntimeError:
            self.log.failure("while reaping {link}", link="l1")
        found = self.as_json()
        self.assertEqual((found["level"], found["message"]), ("critical", "while reaping l1"))
        self.assertIn("RuntimeError: refused fja_…", found["traceback"])
        human = self.as_human()
        self.assertIn("\n    builtins.RuntimeError: refused fja_…\\x1b[31m", human)
        self.assertNotIn(TOKEN, human + json.dumps(found))

    def test_secrets(self) -> None:
        """Neither a message nor a field, a nested one, or a member's name tells a secret."""
        self.log.info(
            "sent {header}",
            header=f"Bearer {TOKEN}",
            nested={"a": [TOKEN, {"Authorization": "hunter22"}]},
            password="hunter22",
            raw=TOKEN.encode(),
            odd=ValueError(TOKEN),
            client_secret="hunter22",
        )
        for text in (self.as_human(), json.dumps(self.as_json())):
            self.assertNotIn(TOKEN[4:], text)
            self.assertNotIn("hunter22", text)
        self.assertEqual(self.as_json()["nested"], {"a": ["fja_…", {"Authorization": BLANK}]})

    def test_terminal_is_not_played_with(self) -> None:
        """Control characters and line ends of strangers are shown, not obeyed."""
        self.log.info("client {name}", name="evil\n06:00 info forged\x1b[2J\u202e")
        self.assertEqual(
            self.as_human(), "info   broker.pool: client evil\\x0a06:00 info forged\\x1b[2J\\x202e"
        )

    def test_own_members_win(self) -> None:
        """A field with the name of a member of ours does not replace it."""
        self.log.info("x", component="me", message="mine", why="because")
        found = self.as_json()
        self.assertEqual((found["message"], found["field_message"]), ("x", "mine"))
        self.assertEqual(found["field_component"], "me")
        self.assertEqual(found["why"], "because")

    def test_long_texts_are_cut(self) -> None:
        """A field is no place for a body."""
        self.log.info("x", body="y" * (LONGEST + 1))
        self.assertEqual(self.as_json()["body"], "y" * LONGEST + f"… ({LONGEST + 1} characters)")

    def test_what_cannot_be_shown(self) -> None:
        """An event that resists is a line all the same."""
        self.log.info(
            "{thing}", thing=Stubborn(), deep=[[[[[[1]]]]]], number=float("nan"), huge=10**5000
        )
        found = self.as_json()
        self.assertIn("Stubborn", found["thing"])
        self.assertEqual(found["number"], "nan")
        self.assertIn("0x", found["huge"])
        self.as_human()

    def test_events_of_the_old_system(self) -> None:
        """What old code logged has a message and none of the machinery."""
        event = {
            "log_format": "{log_text}",
            "log_text": "Starting factory",
            "log_level": LogLevel.info,
            "log_namespace": "log_legacy",
            "message": ("Starting factory",),
            "time": 1.0,
            "system": "-",
            "isError": 0,
        }
        self.events.append(event)
        self.assertEqual(
            self.as_json(),
            {
                "time": "1970-01-01T00:00:00.000Z",
                "level": "info",
                "component": "log_legacy",
                "message": "Starting factory",
            },
        )

    @given(st.dictionaries(names, jsonable, max_size=5), st.text(max_size=40))
    def test_any_event(self, fields: dict[str, Any], format_: str) -> None:
        """Whatever is logged comes out as one line of JSON and as text without controls."""
        event = {**fields, "log_format": format_, "log_level": LogLevel.error, "log_time": 1.0}
        for spell in (json_text, human_text):
            stream = io.BytesIO()
            text = io.TextIOWrapper(stream, encoding="utf-8")
            Lines(spell, to_stream(text), blanking())(event)
            written = stream.getvalue().decode()
            self.assertEqual(written.find("\n"), len(written) - 1)
            if spell is json_text:
                self.assertEqual(json.loads(written)["level"], "error")

    def test_levels(self) -> None:
        """Debug lines are written only where they were asked for."""
        for debug, expected in ((False, 1), (True, 2)):
            stream = io.StringIO()
            observe = observer(json_text, to_stream(stream), blanking(), Threshold(debug))
            verifyObject(ILogObserver, observe)
            log = Logger(namespace="n", observer=observe)
            log.debug("small")
            log.info("big")
            self.assertEqual(len(stream.getvalue().splitlines()), expected)

    def test_failure_that_cannot_be_shown(self) -> None:
        """A traceback that cannot be made does not lose the line."""
        error = Failure(RuntimeError("x"))
        error.getTraceback = None  # type: ignore[method-assign,assignment]
        self.log.critical("broken", log_failure=error)
        self.assertIn("cannot be shown", self.as_json()["traceback"])
