"""One configuration from four sources, or all that is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.daemon.settings import CLIENT_SECRET, Gathered, Settings, gather
from fjmcp.forge import scopes
from fjmcp.forge.admission import Admission

SECRET = "gto_thesecretofthisinstance"


class SettingsTests(SynchronousTestCase):
    """Sources and what comes of them."""

    def setUp(self) -> None:
        """A folder for files, and the smallest environment that can be run."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.environ = {
            "PATH": os.environ["PATH"],
            "STATE_DIRECTORY": str(self.folder),
            "FJMCP_PUBLIC_URL": "https://mcp.example.org",
            "FJMCP_FORGEJO_URL": "https://git.example.org",
            "FJMCP_FORGEJO_OAUTH_CLIENT_ID": "an-id",
            "FJMCP_FORGEJO_OAUTH_CLIENT_SECRET": SECRET,
            "FJMCP_CHILD_COMMAND": "cat {url}",
            "FJMCP_CHILD_ENV": "TOKEN={token}",
        }

    def file(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file with that text."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def gather(self, flags: dict[str, object] | None = None, **environ: str | None) -> Gathered:
        """What comes of the flags and of the environment with those changes."""
        changed = {**self.environ, **environ}
        return gather(flags or {}, {n: text for n, text in changed.items() if text is not None})

    def settings(self, flags: dict[str, object] | None = None, **environ: str | None) -> Settings:
        """The same where it must be good."""
        gathered = self.gather(flags, **environ)
        assert gathered.settings is not None, gathered.problems
        return gathered.settings

    def problems(
        self, flags: dict[str, object] | None = None, **environ: str | None
    ) -> list[tuple[str, str]]:
        """The options that are wrong, and why."""
        gathered = self.gather(flags, **environ)
        self.assertIsNone(gathered.settings)
        return [(p.option.name if p.option else "", p.what) for p in gathered.problems]

    def test_defaults(self) -> None:
        """What is not said is as the table says."""
        settings = self.settings()
        self.assertEqual(settings.listen, "tcp:8080:interface=127.0.0.1")
        self.assertEqual(settings.forgejo_oauth_scopes, scopes.DEFAULT)
        self.assertEqual(settings.store, self.folder / "fjmcp.sqlite3")
        self.assertEqual(settings.keys.default, self.folder / "fjmcp.keys")
        self.assertEqual(settings.max_sessions, limits.CHILDREN)
        self.assertEqual(settings.token_refresh_lead, limits.REFRESH_LEAD)
        self.assertEqual(settings.unknown_session_status, 404)
        self.assertFalse(settings.require_session_id)
        self.assertFalse(settings.debug)
        self.assertEqual(settings.allowed_origins, frozenset())

    def test_strongest_source_wins(self) -> None:
        """A flag wins over the environment, that over the file, that over the default."""
        path = str(self.file("a.toml", "max-sessions = 3"))
        self.assertEqual(self.settings({"config": path}).max_sessions, 3)
        self.assertEqual(self.settings(FJMCP_CONFIG=path).max_sessions, 3)
        both = {"FJMCP_MAX_SESSIONS": "4"}
        self.assertEqual(self.settings({"config": path}, **both).max_sessions, 4)
        flags: dict[str, object] = {"config": path, "max-sessions": "5"}
        self.assertEqual(self.settings(flags, **both).max_sessions, 5)

    def test_a_switch_can_be_switched_off(self) -> None:
        """--no-debug wins over the file's debug = true."""
        path = str(self.file("a.toml", "debug = true"))
        self.assertTrue(self.settings({"config": path}).debug)
        self.assertFalse(self.settings({"config": path, "no-debug": 1}).debug)

    def test_all_problems_at_once(self) -> None:
        """Every problem of every source is reported, not the first one."""
        path = str(self.file("a.toml", "publik-url = 1\nunknown-session-status = 500"))
        found = self.problems(
            {"config": path, "max-sessions": "none"},
            FJMCP_PUBLIC_URL=None,
            FJMCP_FORGEJO_URL="git",
            FJMCP_FORGEJO_OAUTH_CLIENT_SECRET=None,
            FJMCP_CHILD_COMMAND="no-such-program-here",
        )
        self.assertEqual(
            sorted(name for name, _ in found),
            [
                "",
                "child-command",
                "forgejo-oauth-client-secret-file",
                "forgejo-url",
                "max-sessions",
                "public-url",
                "unknown-session-status",
            ],
        )

    def test_nothing_said(self) -> None:
        """Without any word every required option is missing."""
        found = gather({}, {"PATH": os.environ["PATH"]})
        missing = [p.option.name for p in found.problems if p.option and p.what == "is missing"]
        self.assertEqual(
            missing,
            [
                "public-url",
                "forgejo-url",
                "forgejo-oauth-client-id",
                "forgejo-oauth-client-secret-file",
            ],
        )

    def test_config_that_is_wrong(self) -> None:
        """A file that cannot be read is one problem among the others."""
        found = self.problems({"config": str(self.folder / "none.toml")}, FJMCP_PUBLIC_URL=None)
        self.assertEqual([name for name, _ in found], ["config", "public-url"])
        [(name, what)] = self.problems({"config": " "})
        self.assertEqual((name, what), ("config", "the path is empty"))

    def test_strange_variables_warn(self) -> None:
        """A misspelt variable keeps nothing from starting, but is said."""
        gathered = self.gather(FJMCP_MAX_SESSION="3")
        self.assertIsNotNone(gathered.settings)
        [warning] = gathered.warnings
        self.assertIn("FJMCP_MAX_SESSIONS", warning)

    def test_secret_sources(self) -> None:
        """The secret comes from text, a file or a systemd credential, the strongest first."""
        self.assertEqual(self.settings().forgejo_oauth_client_secret, SECRET)
        flags: dict[str, object] = {
            "forgejo-oauth-client-secret-file": str(self.file("s", "from-a-file\n"))
        }
        self.assertEqual(self.settings(flags).forgejo_oauth_client_secret, "from-a-file")
        self.file(CLIENT_SECRET, "from-systemd\n", 0o444)
        settings = self.settings(
            FJMCP_FORGEJO_OAUTH_CLIENT_SECRET=None, CREDENTIALS_DIRECTORY=str(self.folder)
        )
        self.assertEqual(settings.forgejo_oauth_client_secret, "from-systemd")
        settings = self.settings(CREDENTIALS_DIRECTORY=str(self.folder))
        self.assertEqual(settings.forgejo_oauth_client_secret, SECRET)

    def test_secret_said_twice(self) -> None:
        """Text and file in one source contradict one another."""
        [(name, what)] = self.problems(FJMCP_FORGEJO_OAUTH_CLIENT_SECRET_FILE="/x")
        self.assertEqual(name, "forgejo-oauth-client-secret")
        self.assertIn("together with --forgejo-oauth-client-secret-file", what)

    def test_secret_warnings(self) -> None:
        """A secret that others can read is a warning; in the environment it is none."""
        self.assertEqual(self.gather().warnings, ())
        [warning] = self.gather({"forgejo-oauth-client-secret": SECRET}).warnings
        self.assertIn("read by every user", warning)
        path = str(self.file("open", "x", 0o644))
        [warning] = self.gather({"forgejo-oauth-client-secret-file": path}).warnings
        self.assertIn("every user can read it", warning)

    def test_secret_in_the_file(self) -> None:
        """A configuration that holds a secret and that every user can read is a warning."""
        text = (
            f'forgejo-oauth-client-secret = "{SECRET}"\n[[preregistered-client]]\nid = "a"\n'
            f'redirect = "https://a.example/cb"\nsecret = "{SECRET}"\n'
        )
        for mode, count in ((0o640, 0), (0o644, 2)):
            path = str(self.file("a.toml", text, mode))
            found = self.gather({"config": path}, FJMCP_FORGEJO_OAUTH_CLIENT_SECRET=None)
            assert found.settings is not None, found.problems
            self.assertEqual(len(found.warnings), count, found.warnings)
            for warning in found.warnings:
                self.assertIn(path, warning)
                self.assertIn("chmod 640", warning)
                self.assertNotIn(SECRET, warning)
        path = str(self.file("b.toml", "debug = true", 0o644))
        self.assertEqual(self.gather({"config": path}).warnings, ())

    def test_secret_files_that_are_none(self) -> None:
        """A file that is no secret is refused without its content."""
        binary = self.folder / "binary"
        binary.write_bytes(b"\xff\xfe")
        for path, words in (
            (self.folder / "missing", "No such file"),
            (self.folder, "Is a directory"),
            (self.file("empty", "\n"), "empty"),
            (self.file("words", "a secret of many words"), "spaces"),
            (self.file("long", "x" * 5000), "more than a secret"),
            (binary, "not plain text"),
        ):
            [(name, what)] = self.problems({"forgejo-oauth-client-secret-file": str(path)})
            self.assertEqual(name, "forgejo-oauth-client-secret-file")
            self.assertIn(words, what)
            self.assertNotIn("many words", what)

    def test_secrets_are_not_shown(self) -> None:
        """Neither the settings nor a problem shows the secret."""
        self.assertNotIn(SECRET, repr(self.settings(FJMCP_KEYS="0badc0de a-key-of-ours")))
        self.assertNotIn("a-key-of-ours", repr(self.settings(FJMCP_KEYS="0badc0de a-key-of-ours")))
        gathered = self.gather(
            FJMCP_FORGEJO_OAUTH_CLIENT_SECRET=f"{SECRET} and more", FJMCP_PUBLIC_URL=None
        )
        self.assertNotIn(SECRET, repr(gathered))

    def test_child(self) -> None:
        """A child is a program that is there, found on PATH, with its variables."""
        child = self.settings().child
        self.assertTrue(os.path.isabs(child.argv[0]))
        self.assertEqual(child.argv[1:], ("{url}",))
        self.assertEqual(child.env, (("TOKEN", "{token}"),))

    def test_known_child(self) -> None:
        """A binary of a known name needs no variables to be said."""
        self.file("forgejo-mcp", "#!/bin/sh\n", 0o700)
        plain: dict[str, str | None] = {"FJMCP_CHILD_COMMAND": None, "FJMCP_CHILD_ENV": None}
        child = self.settings(None, PATH=str(self.folder), **plain).child
        self.assertEqual(child.kind.name, "forgejo-mcp")
        path = str(self.folder / "forgejo-mcp")
        child = self.settings({"forgejo-mcp-binary": path}, **plain).child
        self.assertEqual(child.argv, (path,))

    def test_child_problems(self) -> None:
        """A child that is not there, or whose token others could read, is refused."""
        for changes, name, words in (
            ({"FJMCP_CHILD_COMMAND": "no-such-program"}, "child-command", "no program"),
            ({"FJMCP_CHILD_COMMAND": "cat '"}, "child-command", "cannot be split"),
            ({"FJMCP_CHILD_COMMAND": "cat {token}"}, "child-command", "read a command line"),
            ({"FJMCP_CHILD_COMMAND": "cat {tokn}"}, "child-command", "{tokn}"),
            ({"FJMCP_FORGEJO_MCP_BINARY": "cat"}, "child-command", "given together"),
            ({"FJMCP_CHILD_ENV": ""}, "child-command", "gets no token"),
            ({"FJMCP_CHILD_ENV": "TOKEN"}, "child-env", "NAME=TEXT"),
            ({"FJMCP_CHILD_ENV": "1T={token}"}, "child-command", "no name of an environment"),
        ):
            [(found, what)] = self.problems(None, **changes)
            self.assertEqual(found, name, changes)
            self.assertIn(words, what)

    def test_store(self) -> None:
        """A store that is said wrongly is one problem, not also that of the default."""
        [(name, _)] = self.problems(FJMCP_STORE="postgresql://x", STATE_DIRECTORY="/no/such/folder")
        self.assertEqual(name, "store")
        [(name, what)] = self.problems(STATE_DIRECTORY="/no/such/folder:/other")
        self.assertEqual((name, what), ("store", "the folder /no/such/folder does not exist"))

    def test_allowed_origins(self) -> None:
        """Origins are said in one text; a bad one among them is named, and none takes all back."""
        path = str(self.file("a.toml", 'allowed-origins = "https://a.example http://[::1]:80"'))
        settings = self.settings({"config": path})
        self.assertEqual(settings.allowed_origins, {"https://a.example", "http://[::1]"})
        none = {"FJMCP_ALLOWED_ORIGINS": "none"}
        self.assertEqual(self.settings({"config": path}, **none).allowed_origins, frozenset())
        [(name, what)] = self.problems(FJMCP_ALLOWED_ORIGINS="https://a.example *")
        self.assertEqual(name, "allowed-origins")
        self.assertIn("'*' would be pages of anybody", what)

    def test_everybody(self) -> None:
        """Without a word about it everybody may come in, and any scopes will do."""
        settings = self.settings(FJMCP_FORGEJO_OAUTH_SCOPES="read:repository")
        self.assertEqual(settings.admission, Admission())

    def test_admission(self) -> None:
        """Who may come in is said in any source, and compared without case."""
        path = str(self.file("a.toml", 'allow-orgs = "Zoo allotment:Keepers"\ndeny-admins = true'))
        settings = self.settings({"config": path}, FJMCP_ALLOW_USERS="Alice bob")
        rule = Admission(["alice", "bob"], ["zoo", "allotment:keepers"], True)
        self.assertEqual(settings.admission, rule)
        self.assertFalse(self.settings({"config": path, "no-deny-admins": 1}).deny_admins)

    def test_nobody_is_not_everybody(self) -> None:
        """A list that names nobody is refused, and no rule comes of it."""
        path = str(self.file("a.toml", 'allow-users = ""\nallow-orgs = " "'))
        found = self.problems({"config": path})
        self.assertEqual([name for name, _ in found], ["allow-users", "allow-orgs"])

    def test_admission_needs_scopes(self) -> None:
        """A rule about people needs scopes to see them; the problem names both."""
        for flags, asked, words in (
            ({"allow-users": "alice"}, "read:issue", "read:user, or"),
            ({"deny-admins": 1}, "openid read:organization", "by --deny-admins"),
            ({"allow-orgs": "zoo"}, "read:user", "read:organization, or"),
            ({"allow-orgs": "zoo:keepers"}, "read:issue", "read:user and read:organization, or"),
            (
                {"allow-users": "alice", "allow-orgs": "zoo"},
                "read:issue",
                "by --allow-users and --allow-orgs",
            ),
        ):
            [(name, what)] = self.problems({**flags, "forgejo-oauth-scopes": asked})
            self.assertEqual(name, "forgejo-oauth-scopes")
            self.assertIn(words, what)
        for asked in ("write:user write:organization", "all"):
            self.settings({"allow-orgs": "zoo", "forgejo-oauth-scopes": asked})
        [(name, _)] = self.problems({"allow-orgs": "zoo", "forgejo-oauth-scopes": "reed:user"})
        self.assertEqual(name, "forgejo-oauth-scopes")

    def test_lead(self) -> None:
        """The lead is less than the life of Forgejo's tokens."""
        self.assertEqual(self.settings({"token-refresh-lead": "10m"}).token_refresh_lead, 600.0)
        [(name, _)] = self.problems({"token-refresh-lead": "1h"})
        self.assertEqual(name, "token-refresh-lead")
