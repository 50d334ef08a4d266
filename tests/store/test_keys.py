from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.store import keys
from fjmcp.store.keys import KeySources, KeysUnusable
from fjmcp.store.queries import sealed
from fjmcp.store.transactions import Cursor
from fjmcp.store.vault import Ring
from fjmcp.testing.stores import memory_store

ONE = "00000001 " + "A" * 43 + "=\n"
TWO = "00000002 " + "A" * 43 + "=\n"


def keep_sealed(cursor: Cursor, value: bytes) -> None:
    cursor.execute(
        "INSERT INTO refresh_tokens (token, grant_id, issued_at, successor) VALUES (?, 'g', 0, ?)",
        b"digest",
        value,
    )


class Folder(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.path = self.folder / "fjmcp.keys"

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def refused(self, sources: KeySources) -> str:
        with self.assertRaises(KeysUnusable) as caught:
            keys.find(sources)
        said = str(caught.exception)
        self.assertNotIn("AAAA", said)
        return said


class FindTests(Folder):
    def test_strongest_first(self) -> None:
        """--key-file, then the systemd credential, then FJMCP_KEYS, then the default."""
        self.write("fjmcp.keys", "00000004 " + "A" * 43 + "=")
        option = self.write("option.keys", ONE)
        environ = {"FJMCP_KEYS": "00000003 " + "A" * 43 + "="}
        store = self.folder / "fjmcp.sqlite3"
        credentials = self.folder / "credentials"
        credentials.mkdir()
        with_credential = environ | {"CREDENTIALS_DIRECTORY": str(credentials)}
        found = []
        for key_file, variables in (
            (option, with_credential),
            (None, with_credential),
            (None, environ),
            (None, {}),
        ):
            # As under systemd, which gives the credential to the group of all.
            self.write("credentials/fjmcp.keys", TWO, 0o444)
            ring = keys.find(KeySources.gather(key_file, variables, store))
            assert ring is not None
            found.append(ring.current.hex())
        self.assertEqual(found, ["00000001", "00000002", "00000003", "00000004"])

    def test_other_credentials(self) -> None:
        """A folder of systemd credentials without ours is no source."""
        environ = {"CREDENTIALS_DIRECTORY": str(self.folder)}
        store = self.folder / "sub" / "fjmcp.sqlite3"
        self.assertIsNone(keys.find(KeySources.gather(None, environ, store)))

    def test_named_and_missing(self) -> None:
        """A key file that was named is never made: its absence is an error with its name."""
        path = self.folder / "nowhere.keys"
        self.assertIn(str(path), self.refused(KeySources(file=path)))
        self.assertFalse(path.exists())

    def test_nothing_to_go_by(self) -> None:
        """Without any source the error names the option."""
        self.assertIn("--key-file", self.refused(KeySources()))

    def test_open_to_others(self) -> None:
        """A key file that others may read is refused, with the command that mends it."""
        for mode in (0o644, 0o604, 0o660, 0o602):
            path = self.write("open.keys", ONE, mode)
            self.assertIn(f"chmod 600 {path}", self.refused(KeySources(file=path)))

    def test_given_by_group(self) -> None:
        """A key file that the daemon may read by its group is fine."""
        self.assertIsNotNone(keys.find(KeySources(file=self.write("group.keys", ONE, 0o640))))

    def test_broken(self) -> None:
        """A broken ring is refused with its source and line, and no part of a key."""
        path = self.write("broken.keys", ONE + "nonsense AAAA\n")
        said = self.refused(KeySources(file=path))
        self.assertIn(str(path), said)
        self.assertIn("line 2", said)
        self.assertIn("FJMCP_KEYS", self.refused(KeySources(text="AAAA")))
        path.write_bytes(b"\xff\xfeAAAA")
        self.assertIn("plain text", self.refused(KeySources(file=path)))

    def test_no_key_in_repr(self) -> None:
        """The sources in a log show no key."""
        self.assertNotIn("AAAA", repr(KeySources(text=ONE)))


class LoadTests(Folder):
    def load(self, store_holds: bytes | None = None) -> Deferred[Ring]:
        store = memory_store()
        if store_holds is not None:
            self.successResultOf(Deferred.fromCoroutine(store.write(keep_sealed, store_holds)))
        sources = KeySources.gather(None, {}, self.folder / "fjmcp.sqlite3")
        return Deferred.fromCoroutine(keys.load(sources, store))

    def test_made(self) -> None:
        """The default file is made beside an empty store, private, and read the next time."""
        ring = self.successResultOf(self.load())
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.successResultOf(self.load()), ring)
        self.assertEqual(os.listdir(self.folder), ["fjmcp.keys"])

    def test_lost(self) -> None:
        """With something sealed in the store a missing file is an error that names it."""
        failure = self.failureResultOf(self.load(Ring.generate().seal(b"s", "x")), KeysUnusable)
        self.assertIn(str(self.path), str(failure.value))
        self.assertEqual(os.listdir(self.folder), [])

    def test_key_not_in_the_ring(self) -> None:
        """A ring that cannot open all of the store works, and the log says whose key is lost."""
        self.write("fjmcp.keys", ONE)
        with capturedLogs() as events:
            self.successResultOf(self.load(Ring.parse(TWO).seal(b"s", "x")))
        self.assertEqual([event.get("key_id") for event in events], ["00000002"])

    def test_cannot_be_made(self) -> None:
        """A folder that cannot hold the file is an error that names the file."""
        path = self.folder / "missing" / "fjmcp.keys"
        with self.assertRaises(KeysUnusable) as caught:
            keys.create(path)
        self.assertIn(str(path), str(caught.exception))

    def test_race(self) -> None:
        """Who comes second takes the first one's ring, and leaves nothing behind."""
        first = keys.create(self.path)
        self.assertEqual(keys.create(self.path), first)
        self.assertEqual(os.listdir(self.folder), ["fjmcp.keys"])


class SealedColumnsTests(SynchronousTestCase):
    def test_all_named(self) -> None:
        """Each column that a migration calls sealed is in the list, and no other."""
        found = set()
        for file in (resources.files("fjmcp.store") / "migrations").iterdir():
            table = ""
            for line in file.read_text("utf-8").splitlines():
                if started := re.match(r"CREATE TABLE (\w+)", line):
                    table = started[1]
                if column := re.match(r"\s+(\w+)\s.*-- (.*\b)?sealed\b", line):
                    found.add((table, column[1]))
        self.assertEqual(found, {(column.table, column.name) for column in sealed.COLUMNS})
