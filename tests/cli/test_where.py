"""Where the operator's tool looks."""

from __future__ import annotations

from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.cli.where import find, public_url


class WhereTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.store = self.make("fjmcp.sqlite3")
        self.keys = self.make("fjmcp.keys")

    def make(self, name: str, text: str = "") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def refused(self, flags: dict[str, str], environ: dict[str, str], words: str) -> None:
        with self.assertRaises(click.ClickException) as caught:
            find(flags, environ).key_file()
        self.assertIn(words, caught.exception.message)

    def test_flags(self) -> None:
        """A store by itself has its keys beside it, as for the daemon."""
        where = find({"store": str(self.store), "key_file": None, "config": None}, {})
        self.assertEqual((where.store, where.key_file().path), (self.store, self.keys))

    def test_order(self) -> None:
        """A flag wins over the environment, that over the file, that over the default."""
        other = {name: self.make(f"{name}.sqlite3") for name in ("flag", "variable", "file")}
        config = self.make("fjmcp.toml", f'store = "{other["file"]}"\n')
        environ = {"STATE_DIRECTORY": str(self.folder)}
        self.assertEqual(find({}, environ).store, self.store)
        environ["FJMCP_CONFIG"] = str(config)
        self.assertEqual(find({}, environ).store, other["file"])
        environ["FJMCP_STORE"] = str(other["variable"])
        self.assertEqual(find({}, environ).store, other["variable"])
        self.assertEqual(find({"store": str(other["flag"])}, environ).store, other["flag"])

    def test_public_url(self) -> None:
        """The daemon's URL is what the environment says, else the file; it may be said nowhere."""
        self.assertIsNone(public_url({}, {}))
        config = str(self.make("fjmcp.toml", 'public-url = "https://one.example"\n'))
        self.assertEqual(public_url({"config": config}, {}), "https://one.example")
        environ = {"FJMCP_PUBLIC_URL": "https://two.example/"}
        self.assertEqual(public_url({"config": config}, environ), "https://two.example")
        with self.assertRaises(click.UsageError) as caught:
            public_url({}, {"FJMCP_PUBLIC_URL": "ftp://x"})
        self.assertIn("--public-url", caught.exception.message)

    def test_key_file(self) -> None:
        """A key file that is named is the one."""
        named = self.make("named.keys")
        flags = {"store": str(self.store), "key_file": str(named)}
        self.assertEqual(find(flags, {"FJMCP_KEYS": "(a ring)"}).key_file().path, named)

    def test_nothing_there(self) -> None:
        """What is not there is not made, and the option that would name it is."""
        self.refused({"store": str(self.folder / "other.sqlite3")}, {}, "Name it with --store")
        self.keys.unlink()
        self.refused({"store": str(self.store)}, {}, "Name it with --key-file")

    def test_hidden(self) -> None:
        """What cannot even be looked at is said, with who could."""
        hidden = self.folder / ("x" * 300)
        self.refused({"store": str(hidden)}, {}, "is this the daemon's user?")
        flags = {"store": str(self.store), "key_file": str(hidden)}
        self.refused(flags, {}, "is this the daemon's user?")

    def test_copies(self) -> None:
        """A copy of the keys is not what is rotated."""
        self.refused({"store": str(self.store)}, {"FJMCP_KEYS": "(a ring)"}, "is a copy")
        self.make("fjmcp.keys.credential")
        credentials = self.folder / "credentials"
        credentials.mkdir()
        (credentials / "fjmcp.keys").write_text("")
        environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
        self.refused({"store": str(self.store)}, environ, "is a copy")

    def test_unreadable(self) -> None:
        """A bad word or file is said with its place."""
        self.refused({"store": "postgres://x"}, {}, "--store")
        config = self.make("bad.toml", "store = [")
        self.refused({"config": str(config)}, {}, "is not TOML")
