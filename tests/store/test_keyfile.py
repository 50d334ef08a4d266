from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.store.keyfile import KeyFile
from fjmcp.store.keys import KeysUnusable
from fjmcp.store.vault import Ring

ONE = "00000001 " + "A" * 43 + "="
TEXT = f"# keys of the broker\n\n{ONE}\n# the last one seals\n"


class KeyFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.path = self.folder / "fjmcp.keys"
        self.path.write_text(TEXT)
        self.path.chmod(0o600)
        self.file = KeyFile(self.path)

    def refused(self, words: str) -> None:
        with self.assertRaises(KeysUnusable) as caught:
            self.file.replace(Ring.parse(ONE), Ring.parse(ONE).with_next())
        self.assertIn(words, str(caught.exception))
        self.assertNotIn("AAAA", str(caught.exception))

    def test_replaced(self) -> None:
        """The text says the new ring, keeps its remarks, and nothing else lies about."""
        ring = self.file.read()
        added = self.file.replace(ring, ring.with_next())
        self.assertEqual(self.file.read(), added)
        promoted = self.file.replace(added, added.promoted())
        settled = self.file.replace(promoted, promoted.settled())
        self.assertEqual(self.file.read(), settled)
        lines = self.path.read_text().splitlines()
        self.assertEqual(lines[:4], TEXT.splitlines())
        self.assertEqual(len(lines), 5)
        self.assertEqual(os.listdir(self.folder), ["fjmcp.keys"])

    def test_pruned(self) -> None:
        """A key goes with its line, and only then."""
        ring = self.file.read()
        turned = ring.with_next().promoted().settled()
        self.file.replace(ring, turned)
        left = self.file.replace(turned, turned.without([bytes.fromhex("00000001")]))
        self.assertEqual(self.file.read(), left)
        self.assertNotIn(ONE, self.path.read_text())
        self.assertIn("# keys of the broker", self.path.read_text())

    def test_mode(self) -> None:
        """Mode and owner stay: the daemon must go on being able to read it."""
        self.path.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(self.path, 0, 65534)
        before = self.path.stat()
        self.file.replace(self.file.read(), self.file.read().with_next())
        after = self.path.stat()
        self.assertEqual(stat.S_IMODE(after.st_mode), 0o640)
        self.assertEqual((after.st_uid, after.st_gid), (before.st_uid, before.st_gid))

    def test_link(self) -> None:
        """Where the name is a link, the file behind it is replaced and the link stays."""
        link = self.folder / "link.keys"
        link.symlink_to(self.path)
        file = KeyFile(link)
        added = file.replace(file.read(), file.read().with_next())
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.file.read(), added)

    def test_changed_meanwhile(self) -> None:
        """A file that somebody else changed is not overwritten: a key might be lost."""
        other = Ring.generate().to_text()
        self.path.write_text(other)
        self.refused("was changed by somebody else")
        self.assertEqual(self.path.read_text(), other)

    def test_unusable(self) -> None:
        """What is no key file, or open to others, is left alone and no key is quoted."""
        self.path.write_text("AAAAAAAA AAAAAAAA")
        self.refused("cannot be used: line 1")
        self.path.write_bytes(b"\xff AAAA")
        self.refused("is not plain text")
        self.path.write_text(TEXT)
        self.path.chmod(0o644)
        self.refused("is open to others")
        self.path.unlink()
        self.refused("cannot be read")

    def test_held(self) -> None:
        """Two tools do not change it at once."""
        with self.file.held():
            with self.assertRaises(KeysUnusable) as caught, KeyFile(self.path).held():
                pass
            self.assertIn("Another fjmcp keys command", str(caught.exception))
        with self.file.held():
            pass
