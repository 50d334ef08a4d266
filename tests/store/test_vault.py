from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.store.vault import BadRing, Ring, Unsealable, Vault, key_id

ONE = "00000001 " + "A" * 43 + "="
TWO = "0000000a " + "B" * 42 + "A="
THREE = "0000000b " + "C" * 42 + "A="


class SealingTests(SynchronousTestCase):
    @given(secret=st.binary(max_size=4096), bound=st.text(max_size=60))
    def test_round_trip(self, secret: bytes, bound: str) -> None:
        """What was sealed for a place opens at that place."""
        ring = Ring.generate()
        self.assertEqual(ring.open(ring.seal(secret, bound), bound), secret)

    def test_bound_to_its_place(self) -> None:
        """A sealed value opens in no other row, column or table."""
        ring = Ring.generate()
        sealed = ring.seal(b"secret", "accounts.credential:7")
        for elsewhere in (
            "accounts.credential:8",
            "accounts.credential:77",
            "accounts.other:7",
            "signins.credential:7",
            "",
        ):
            with self.assertRaises(Unsealable):
                ring.open(sealed, elsewhere)

    def test_swapped_rows(self) -> None:
        """Two values that change places both refuse to open."""
        ring = Ring.generate()
        seven = ring.seal(b"of seven", "accounts.credential:7")
        eight = ring.seal(b"of eight", "accounts.credential:8")
        for sealed, bound in ((seven, "accounts.credential:8"), (eight, "accounts.credential:7")):
            with self.assertRaises(Unsealable):
                ring.open(sealed, bound)

    @given(st.data())
    def test_changed(self, data: st.DataObject) -> None:
        """A value with any bit changed, or cut short anywhere, does not open."""
        ring = Ring.generate()
        sealed = ring.seal(b"secret", "t.c:1")
        at = data.draw(st.integers(0, len(sealed) - 1))
        flipped = bytearray(sealed)
        flipped[at] ^= 1 << data.draw(st.integers(0, 7))
        for wrong in (bytes(flipped), sealed[:at]):
            with self.assertRaises(Unsealable):
                ring.open(wrong, "t.c:1")

    def test_fresh_each_time(self) -> None:
        """The same secret never seals to the same bytes."""
        ring = Ring.generate()
        self.assertNotEqual(ring.seal(b"s", "t.c:1"), ring.seal(b"s", "t.c:1"))

    def test_older_key(self) -> None:
        """A key that was added later seals; the one before it still opens."""
        before, after = Ring.parse(ONE), Ring.parse(f"{ONE}\n{TWO}\n")
        old, young = before.seal(b"old", "t.c:1"), after.seal(b"young", "t.c:1")
        self.assertEqual(after.open(old, "t.c:1"), b"old")
        self.assertEqual(key_id(old).hex(), "00000001")
        self.assertEqual(key_id(young).hex(), "0000000a")
        with self.assertRaises(Unsealable):
            before.open(young, "t.c:1")

    def test_other_ring(self) -> None:
        """A ring with another key of the same id opens nothing."""
        sealed = Ring.parse(ONE).seal(b"secret", "t.c:1")
        with self.assertRaises(Unsealable):
            Ring.parse(TWO.replace("0000000a", "00000001")).open(sealed, "t.c:1")


class RingTests(SynchronousTestCase):
    def test_text(self) -> None:
        """A ring survives its text; empty lines and remarks do not matter."""
        ring = Ring.parse(f"# keys of the broker\n\n{ONE}\n  \n{TWO}")
        self.assertEqual(ring.current.hex(), "0000000a")
        self.assertEqual(Ring.parse(ring.to_text()), ring)

    def test_no_key_in_its_repr(self) -> None:
        """A ring in a log or a traceback shows no key."""
        self.assertNotIn("AAAA", repr(Ring.parse(ONE)))

    def test_refused(self) -> None:
        """A text that is not a ring is refused with its line, and without the key."""
        cases = {
            "": "no key",
            "# only a remark": "no key",
            f"{ONE}\n{ONE}": "line 2: the key id 00000001 is there twice",
            "1 " + "A" * 43 + "=": "line 1",
            "0000000g " + "A" * 43 + "=": "not 8 hex digits",
            "00000001 " + "A" * 42 + "!=": "not base64",
            "00000001 QUFBQQ==": "4 bytes, not 32",
            "00000001": "line 1",
            ONE + " more": "line 1",
            ONE + " next": "no key that seals",
            f"{ONE}\n{TWO} next\n{THREE} next": "line 3: two keys cannot both be next",
            ONE + " next rotating": "line 1",
        }
        for text, said in cases.items():
            with self.assertRaises(BadRing) as caught:
                Ring.parse(text)
            self.assertIn(said, str(caught.exception))
            self.assertNotIn("AAAA", str(caught.exception))


class TurningTests(SynchronousTestCase):
    """A ring on its way to another current key."""

    def test_next(self) -> None:
        """The next key opens and does not seal, wherever its line stands."""
        for text in (f"{ONE}\n{TWO} next\n", f"{TWO} next\n{ONE}\n"):
            ring = Ring.parse(text)
            self.assertEqual(ring.current.hex(), "00000001")
            self.assertEqual((ring.upcoming or b"").hex(), "0000000a")
            young = Ring.parse(f"{ONE}\n{TWO}").seal(b"young", "t.c:1")
            self.assertEqual(ring.open(young, "t.c:1"), b"young")
            self.assertEqual(key_id(ring.seal(b"s", "t.c:1")).hex(), "00000001")
            self.assertEqual(Ring.parse(ring.to_text()), ring)

    def test_way(self) -> None:
        """Next, then current while rows follow, then only current; no key is lost on the way."""
        ring = Ring.parse(ONE)
        added = ring.with_next()
        promoted = added.promoted()
        self.assertEqual((added.current, promoted.current), (ring.current, added.upcoming))
        self.assertEqual((promoted.upcoming, promoted.rotating), (None, True))
        self.assertEqual(promoted.settled().rotating, False)
        for each in (added, promoted, promoted.settled()):
            self.assertEqual(len(each.ids), 2)
            self.assertEqual(Ring.parse(each.to_text()), each)

    def test_without(self) -> None:
        """Neither the current nor the next key goes."""
        ring = Ring.parse(f"{THREE}\n{ONE}\n{TWO} next")
        left = ring.without(ring.ids)
        self.assertEqual(left.ids, {ring.current, ring.upcoming})


class VaultTests(SynchronousTestCase):
    def test_adopt(self) -> None:
        """What was read a moment ago still opens with a key that is gone from the file."""
        vault = Vault(Ring.parse(ONE))
        old = vault.seal(b"old", "t.c:1")
        vault.adopt(Ring.parse(TWO))
        self.assertEqual(vault.open(old, "t.c:1"), b"old")
        self.assertEqual(key_id(vault.seal(b"young", "t.c:1")).hex(), "0000000a")

    def test_no_key_in_its_repr(self) -> None:
        """A vault in a log or a traceback shows no key."""
        self.assertNotIn("AAAA", repr(Vault(Ring.parse(ONE))))
