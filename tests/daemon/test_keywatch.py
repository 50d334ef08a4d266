"""A key file that changes under a daemon."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.daemon.keywatch import KeyWatch
from fjmcp.store.holder import Holder
from fjmcp.store.keyfile import KeyFile
from fjmcp.store.keys import KeySources
from fjmcp.store.sqlite import lock_file
from fjmcp.store.vault import Ring, Vault


class KeyWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        self.store = folder / "fjmcp.sqlite3"
        lock_file(self.store).touch()
        path = folder / "fjmcp.keys"
        path.write_text(Ring.generate().to_text())
        path.chmod(0o600)
        self.file = KeyFile(path)
        self.clock = Clock()
        self.clock.advance(1000)
        self.vault = Vault(self.file.read())
        self.watch = self.make(KeySources(default=path))

    def make(self, sources: KeySources) -> KeyWatch:
        watch = KeyWatch(sources, self.vault, self.store, self.clock)
        watch.start()
        self.addCleanup(watch.stop)
        return watch

    def said(self) -> Holder:
        return Holder.from_text(lock_file(self.store).read_bytes())

    def change(self, ring: Ring) -> None:
        self.file.replace(self.file.read(), ring)
        self.clock.advance(limits.KEY_WATCH)

    def test_start(self) -> None:
        """What is known at the start is said at once."""
        said, ring = self.said(), self.vault.ring
        self.assertEqual((said.keys, said.current, said.since), (ring.ids, ring.current, 0.0))
        self.assertEqual(said.source, str(self.file.path))

    def test_changed_before(self) -> None:
        """A change between the start's reading and the first look is not missed."""
        self.vault.ring = Ring.generate()
        self.clock.advance(limits.KEY_WATCH)
        self.assertEqual(self.vault.ring.current, self.file.read().current)

    def test_rotation(self) -> None:
        """A next key is taken in and does not seal; a promoted one seals, and since when is
        said."""
        added = self.file.read().with_next()
        self.change(added)
        self.assertEqual(self.vault.ring.current, added.current)
        self.assertEqual((self.said().keys, self.said().since), (added.ids, 0.0))
        self.change(added.promoted())
        self.assertEqual(self.vault.ring.current, added.upcoming)
        self.assertEqual((self.said().current, self.said().since), (added.upcoming, 1004.0))
        self.change(added.promoted().settled())
        self.assertEqual(self.said().since, 1004.0)

    def test_unchanged(self) -> None:
        """A file that stays as it is is looked at and not read."""
        self.clock.advance(limits.KEY_WATCH)
        ring = self.vault.ring
        self.clock.pump([limits.KEY_WATCH] * 10)
        self.assertIs(self.vault.ring, ring)

    def test_broken(self) -> None:
        """A file that is broken or gone changes nothing, is told of once, and is taken in when
        it is mended."""
        before, text = self.vault.ring, self.file.path.read_text()
        for breaking in (
            lambda: self.file.path.write_text("AAAA"),
            lambda: self.file.path.chmod(0o644),
            lambda: self.file.path.unlink(),
        ):
            with capturedLogs() as events:
                breaking()
                self.clock.pump([limits.KEY_WATCH] * 5)
            told = [event for event in events if event["log_level"].name == "error"]
            self.assertEqual(len(told), 1)
            self.assertNotIn("AAAA", str(told[0].get("problem")))
            self.assertEqual(self.vault.ring.current, before.current)
        self.file.path.write_text(text)
        self.file.path.chmod(0o600)
        added = self.file.read().with_next()
        self.change(added)
        self.assertEqual(self.vault.ring.ids, added.ids)

    def test_unwritable(self) -> None:
        """That the lock file cannot be written stops nothing."""
        lock_file(self.store).unlink()
        with capturedLogs() as events:
            self.change(self.file.read().with_next())
        self.assertEqual(len(self.vault.ring.ids), 2)
        self.assertTrue(any("cannot see which keys" in event["log_format"] for event in events))

    def test_no_file(self) -> None:
        """Keys out of the environment are said, and nothing is looked at."""
        self.watch.stop()
        self.make(KeySources(text="(a ring)"))
        self.assertEqual(self.said().source, "FJMCP_KEYS")
        self.assertEqual(self.clock.getDelayedCalls(), [])
