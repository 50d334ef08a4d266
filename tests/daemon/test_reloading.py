"""What SIGHUP changes, and what it leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from attrs import evolve, fields
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.children.profiles import recipe_for
from fjmcp.daemon.reloading import LIVE, Configuration, change, option_of
from fjmcp.daemon.settings import Gathered, Settings
from fjmcp.daemon.sources import Problem
from fjmcp.daemon.table import BY_NAME
from fjmcp.daemon.tap import hang_up
from fjmcp.forge.admission import Admission
from fjmcp.oauth.clientele import Clientele
from fjmcp.store.keys import KeySources
from fjmcp.testing.whole import WholeBroker
from tests.daemon.test_tap import SETTINGS, Inline

OTHER = evolve(
    SETTINGS,
    max_sessions=7,
    debug=True,
    listen="tcp:1",
    keys=KeySources(file=Path("keys")),
    child=recipe_for(["gitea-mcp"]),
    forgejo_oauth_client_secret="another-secret-without-shape",
)


class ReloadingTests(SynchronousTestCase):
    """A configuration, and what is written later."""

    def setUp(self) -> None:
        """What is logged and adopted is kept."""
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.events = stack.enter_context(capturedLogs())
        self.adopted: list[Settings] = []

    def reload(self, again: Callable[[], Gathered]) -> Configuration:
        """The configuration after one reload."""
        configuration = Configuration(SETTINGS, again, self.adopted.append)
        configuration.reload()
        return configuration

    def said(self, level: object = None) -> str:
        """All that was logged, at this level."""
        return "\n".join(
            str(event)
            for event in self.events
            if event.get("log_namespace") == "fjmcp.daemon.reloading.Configuration"
            and level in (None, event["log_level"])
        )

    def test_change(self) -> None:
        """What can change does; the rest stays as it was and is named by its options."""
        found = change(SETTINGS, OTHER)
        self.assertEqual(found.settings, evolve(SETTINGS, max_sessions=7, debug=True))
        self.assertEqual(found.taken, ("max-sessions", "debug"))
        self.assertEqual(
            found.waiting,
            (
                "listen",
                "forgejo-oauth-client-secret or its file",
                "key-file",
                "forgejo-mcp-binary, child-command or child-env",
            ),
        )

    def test_admission(self) -> None:
        """Who may come in changes at once, with scopes by which that can be seen; with others a
        restart is needed, or everybody would be put to sleep."""
        seeing = evolve(SETTINGS, forgejo_oauth_scopes="read:user read:organization")
        ruled = evolve(seeing, allow_orgs=frozenset({"zoo"}), deny_admins=True)
        found = change(seeing, ruled)
        self.assertEqual(found.settings.admission, Admission(orgs=["zoo"], deny_admins=True))
        self.assertEqual((found.taken, found.waiting), (("allow-orgs", "deny-admins"), ()))
        found = change(SETTINGS, ruled)
        self.assertEqual(found.settings, SETTINGS)
        self.assertEqual(found.waiting, ("forgejo-oauth-scopes", "allow-orgs", "deny-admins"))
        self.assertEqual(change(ruled, SETTINGS).settings.admission, Admission())

    def test_every_setting_has_an_option(self) -> None:
        """Whatever changes, an option is named for it."""
        for each in fields(Settings):
            self.assertIn(option_of(each.name).split(" ")[0].rstrip(","), BY_NAME)
        self.assertLessEqual(LIVE, {each.name for each in fields(Settings)})

    def test_reload(self) -> None:
        """The log says what changed and what waits for a restart, and no secret."""
        configuration = self.reload(lambda: Gathered(OTHER, (), ("mend this",)))
        self.assertEqual(self.adopted, [configuration.settings])
        self.assertEqual(configuration.settings.max_sessions, 7)
        self.assertIn("max-sessions", self.said(LogLevel.info))
        for words in ("mend this", "listen", "key-file"):
            self.assertIn(words, self.said(LogLevel.warn))
        self.assertNotIn("secret-without-shape", self.said())

    def test_waits_each_time(self) -> None:
        """What needs a restart is named at each reload until there was one."""
        configuration = self.reload(lambda: Gathered(OTHER, (), ()))
        configuration.reload()
        self.assertEqual(self.said(LogLevel.warn).count("key-file"), 2)
        self.assertIn("'changed': []", self.said(LogLevel.info))

    def test_broken(self) -> None:
        """A configuration that cannot be run changes nothing, and says all that is wrong."""
        problems = (
            Problem("is missing", BY_NAME["public-url"]),
            Problem("'many' is no whole number", BY_NAME["max-sessions"], "max-sessions in x.toml"),
            Problem("'colour' in x.toml is no option"),
        )
        configuration = self.reload(lambda: Gathered(None, problems, ()))
        self.assertEqual((self.adopted, configuration.settings), ([], SETTINGS))
        for words in ("--public-url: is missing", "'many'", "[max-sessions in x.toml]", "'colour'"):
            self.assertIn(words, self.said(LogLevel.error))

    def test_bug(self) -> None:
        """A reload that fails in an unforeseen way changes nothing and is in the log."""

        def again() -> Gathered:
            raise ZeroDivisionError

        configuration = self.reload(again)
        self.assertEqual((self.adopted, configuration.settings), ([], SETTINGS))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AdoptTests(SynchronousTestCase):
    """The parts take what is live."""

    def test_every_live_setting(self) -> None:
        """Whatever can be reloaded reaches the part that works by it."""
        broker = WholeBroker()
        parts = broker.parts
        parts.adopt(
            evolve(
                SETTINGS,
                max_sessions=0,
                token_refresh_lead=1.5,
                unknown_session_status=410,
                require_session_id=True,
                allowed_origins=frozenset({"http://localhost:6274"}),
                allow_users=frozenset({"alice"}),
            )
        )
        self.assertEqual(parts.credentials.admission, Admission(["alice"]))
        self.assertEqual(parts.credentials.lead, 1.5)
        trusted = {"mcp.example.org", "git.example.org"}
        self.assertEqual(parts.registrar.clientele, Clientele(trusted=frozenset(trusted)))
        app = broker.register()
        access = app.tokens()["access_token"]
        unknown = app.call(access, mcp_session_id="none-of-ours")
        nameless = app.call(access)
        parts.mcp.require_session_id = False
        answers = [unknown, nameless, app.call(access)]
        self.assertEqual([visit.status for visit in answers], [410, 400, 503])
        page = {"origin": "http://localhost:6274"}
        parts.mcp.require_session_id = False
        answers = [app.call(access, "ping", **page)]
        parts.adopt(SETTINGS)
        answers.append(app.call(access, "ping", **page))
        self.assertEqual([visit.status for visit in answers], [200, 403])
        named = [visit.header("access-control-allow-origin") for visit in answers]
        self.assertEqual(named, ["http://localhost:6274", None])


class Terminal:
    """A stream that says whether it is a terminal."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)

    def isatty(self) -> bool:
        """The next answer."""
        return self.answers.pop(0)


class HangUpTests(SynchronousTestCase):
    """SIGHUP, by where we run."""

    def hang_up(self, *answers: bool) -> list[str]:
        """What comes of it: a reload, or the signal that ends us."""
        came: list[str] = []
        before = signal.signal(signal.SIGTERM, lambda *_: came.append("end"))
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        received = hang_up(Terminal(*answers), Inline(), lambda: came.append("reload"))  # type: ignore[arg-type]
        received(signal.SIGHUP, None)
        return came

    def test_service(self) -> None:
        """It reloads, off a terminal and on one that is there."""
        self.assertEqual(self.hang_up(False), ["reload"])
        self.assertEqual(self.hang_up(True, True), ["reload"])
        came: list[str] = []
        hang_up(None, Inline(), lambda: came.append("reload"))(signal.SIGHUP, None)
        self.assertEqual(came, ["reload"])

    def test_closed_terminal(self) -> None:
        """It ends us when the terminal that we ran on is gone."""
        self.assertEqual(self.hang_up(True, False), ["end"])
