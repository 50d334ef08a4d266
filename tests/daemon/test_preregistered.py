"""Clients that are written in the configuration."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.daemon.preregistered import parse
from fjmcp.daemon.settings import Gathered, gather
from fjmcp.oauth.clients import Presented, Source, authenticate
from fjmcp.oauth.tokens import TokenText, digest

CLAUDE = "https://claude.ai/api/mcp/auth_callback"
CLAUDE_COM = "https://claude.com/api/mcp/auth_callback"


class ParseTests(SynchronousTestCase):
    def test_all(self) -> None:
        """Every part of it is kept; the name is the id where none is given."""
        said = parse(f"id=ours redirect={CLAUDE} redirect={CLAUDE_COM} 'name=Our Claude' secret=s3")
        self.assertEqual(
            (said.client_id, said.redirect_uris, said.name, said.secret, said.secret_file),
            ("ours", (CLAUDE, CLAUDE_COM), "Our Claude", "s3", None),
        )
        self.assertNotIn("s3", repr(said))
        self.assertEqual(parse(f"id=ours redirect={CLAUDE}").name, "ours")
        file = parse(f"id=ours redirect={CLAUDE} secret_file=/etc/x").secret_file
        self.assertEqual(file, Path("/etc/x"))

    def test_wrong(self) -> None:
        """What is wrong is said without the secret."""
        for text in (
            "",
            "id=ours",
            f"redirect={CLAUDE}",
            f"id= redirect={CLAUDE}",
            f"id=fj-1 redirect={CLAUDE}",
            f"id=https://x.example/c redirect={CLAUDE}",
            f"'id=o urs' redirect={CLAUDE}",
            f"id=our+claude redirect={CLAUDE}",
            f"id=our%41claude redirect={CLAUDE}",
            f"id=our:claude redirect={CLAUDE}",
            f"id=ours id=other redirect={CLAUDE}",
            f"id=ours redirect={CLAUDE} secret=hidden secret-file=/x",
            f"id=ours redirect={CLAUDE} secret=hidden secret=hidden",
            f"id=ours redirect={CLAUDE} hidden",
            f"id=ours redirect={CLAUDE} secrets=hidden",
            f"id=ours redirect={CLAUDE} secret=",
            f"id=ours redirect={CLAUDE} secret-file=",
            "id=ours redirect=http://evil.example/cb",
            f"id=ours redirect={CLAUDE} 'name=x",
            "id=ours " + " ".join(f"redirect=https://a.example/{n}" for n in range(11)),
        ):
            with self.assertRaises(ValueError) as caught:
                parse(text)
            self.assertNotIn("hidden", str(caught.exception))

    def test_client(self) -> None:
        """With a secret it is a client that needs it, without one a public one."""
        said = parse(f"id=ours redirect={CLAUDE}")
        public, secret = said.client(None), said.client("s")
        self.assertEqual((public.source, public.auth_methods), (Source.CONFIGURED, {"none"}))
        proof = digest(TokenText("s"))
        self.assertIsNone(authenticate(secret, Presented("ours", proof, "client_secret_basic")))
        self.assertIsNotNone(authenticate(secret, Presented("ours", None, "none")))
        self.assertEqual(secret.metadata.grant_types, ("authorization_code", "refresh_token"))


class SettingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "fjmcp.toml"

    def gather(self, text: str = "", **environ: str) -> Gathered:
        self.file.write_text(text)
        return gather(
            {"config": str(self.file)},
            {
                "PATH": "/usr/bin:/bin",
                "FJMCP_PUBLIC_URL": "http://127.0.0.1:8080",
                "FJMCP_FORGEJO_URL": "http://127.0.0.1:9",
                "FJMCP_FORGEJO_OAUTH_CLIENT_ID": "an-id",
                "FJMCP_FORGEJO_OAUTH_CLIENT_SECRET": "gto_asecret",
                "FJMCP_STORE": str(self.folder / "fjmcp.sqlite3"),
                "FJMCP_CHILD_COMMAND": "cat",
                "FJMCP_CHILD_ENV": "TOKEN={token}",
                **environ,
            },
        )

    def test_tables(self) -> None:
        """In a file each is a table, and its secret may be in a file of its own."""
        secret = self.folder / "secret"
        secret.write_text("from-a-file\n")
        secret.chmod(0o600)
        found = self.gather(
            f"""
            [[preregistered-client]]
            id = "claude"
            name = "Our Claude"
            redirect = ["{CLAUDE}", "{CLAUDE_COM}"]
            secret-file = "{secret}"

            [[preregistered-client]]
            id = "open"
            redirect = "https://app.example.org/cb"
            """
        )
        assert found.settings is not None, found.problems
        claude, public = found.settings.preregistered_clients
        self.assertEqual(claude.metadata.redirect_uris, (CLAUDE, CLAUDE_COM))
        self.assertEqual(claude.metadata.client_name, "Our Claude")
        self.assertEqual(claude.secrets, (digest(TokenText("from-a-file")),))
        self.assertEqual((public.client_id, public.secrets), ("open", ()))
        self.assertEqual(found.warnings, ())

    def test_environment(self) -> None:
        """In the environment each is one word of a shell."""
        found = self.gather(
            FJMCP_PREREGISTERED_CLIENT=f"'id=a redirect={CLAUDE}' 'id=b redirect={CLAUDE}'"
        )
        assert found.settings is not None, found.problems
        ids = [client.client_id for client in found.settings.preregistered_clients]
        self.assertEqual(ids, ["a", "b"])

    def test_problems(self) -> None:
        """Each problem names the option; no secret stands in it."""
        for text in (
            '[[preregistered-client]]\nid = "a"',
            f'preregistered-client = ["id=a redirect={CLAUDE}", "id=a redirect={CLAUDE_COM}"]',
            f'[[preregistered-client]]\nid="a"\nredirect="{CLAUDE}"\nsecret-file="/nowhere/x"',
            "preregistered-client = [1]",
        ):
            found = self.gather(text)
            self.assertIsNone(found.settings, text)
            self.assertEqual(
                {problem.option.name for problem in found.problems if problem.option},
                {"preregistered-client"},
            )

    def test_command_line(self) -> None:
        """A secret on the command line is warned of; nobody else reads the environment."""
        client = f"id=a redirect={CLAUDE} secret=s"
        found = gather({"preregistered-client": [client]}, {})
        self.assertTrue(any("secret-file=" in warning for warning in found.warnings))
        found = self.gather(FJMCP_PREREGISTERED_CLIENT=f"'{client}'")
        self.assertEqual(found.warnings, ())

    def test_clients(self) -> None:
        """`clients` and `registration` are read; by default any client may register itself."""
        found = self.gather()
        assert found.settings is not None
        self.assertTrue(found.settings.registration)
        self.assertIsNone(found.settings.clients.hosts)
        found = self.gather('clients = "known"\nregistration = false')
        assert found.settings is not None
        self.assertFalse(found.settings.registration)
        self.assertTrue(found.settings.clients.assistants)
        self.assertIsNone(self.gather('clients = "https://claude.ai"').settings)
