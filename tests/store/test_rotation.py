"""Rotations that go well, that are broken off anywhere, and that cannot go on."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.store.holder import Holder
from fjmcp.store.keyfile import KeyFile
from fjmcp.store.queries import sealed
from fjmcp.store.rotation import Rotation, RotationStuck, Turned
from fjmcp.store.vault import Ring, Vault
from fjmcp.testing.reactor import now
from fjmcp.testing.stores import MemoryStore, memory_store
from tests.store.sealed_contract import ACCOUNTS, SUCCESSORS, put_account, put_successor, values

ACCOUNTS_THERE = 7

STEP = 0.1


@define(eq=False)
class World:
    """A key file, a store, and a daemon that reads the one and writes the other."""

    folder: Path
    clock: Clock = field(factory=Clock)
    store: MemoryStore = field(factory=memory_store)
    file: KeyFile = field(init=False)
    daemon: Vault | None = None
    reads_file: bool = True
    written: int = 0
    told: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        path = self.folder / "fjmcp.keys"
        path.write_text(Ring.generate().to_text())
        path.chmod(0o600)
        self.file = KeyFile(path)
        ring = self.file.read()
        for _ in range(ACCOUNTS_THERE):
            self.write(ring)

    def start_daemon(self) -> None:
        self.daemon = Vault(self.file.read())

    def look(self) -> None:
        """The daemon looks at the file, and writes something of its own."""
        if self.daemon is not None:
            if self.reads_file:
                self.daemon.adopt(self.file.read())
            self.write(self.daemon.ring)

    def write(self, ring: Ring) -> None:
        self.written += 1
        value = ring.seal(b"%d" % self.written, ACCOUNTS.bound(self.written))
        now(self.store.write(put_account, self.written, value))

    def holder(self) -> Holder | None:
        if self.daemon is None:
            return None
        ring = self.daemon.ring
        return Holder(4711, str(self.file.path), ring.ids, ring.current)

    def rotation(self, batch: int = 3) -> Rotation:
        return Rotation(
            self.file, self.store, self.holder, self.clock, self.told.append, batch, STEP
        )

    def run(self, steps: int = 10_000) -> Turned | None:
        """A rotation, broken off after so many steps of time; None if it was."""
        going = Deferred.fromCoroutine(self.rotation().run())
        result: list[Turned] = []
        failed: list[object] = []
        going.addCallbacks(result.append, failed.append)
        for step in range(steps):
            if going.called:
                break
            self.check()
            self.clock.advance(STEP)
            if step % 20 == 19:
                self.look()
        if not going.called:
            going.cancel()
            return None
        if failed:
            failed[0].raiseException()  # type: ignore[attr-defined]
        return result[0]

    def check(self) -> None:
        """Whoever has to open something can."""
        rings = [self.file.read(), *([] if self.daemon is None else [self.daemon.ring])]
        for key, value in now(self.store.read(values, ACCOUNTS)):
            for ring in rings:
                assert ring.open(value, ACCOUNTS.bound(key)) == b"%d" % key

    def keys_used(self) -> set[bytes]:
        return set(now(self.store.read(sealed.census)))


class RotationTests(SynchronousTestCase):
    def world(self) -> World:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        return World(Path(temporary.name))

    def test_alone(self) -> None:
        """Without a daemon all of every column is under a fresh key at once; the old one stays."""
        world = self.world()
        before = world.file.read()
        for token in (b"a" * 32, b"b" * 32):
            value = before.seal(token, SUCCESSORS.bound(token))
            now(world.store.write(put_successor, token, value))
        turned = world.run()
        after = world.file.read()
        assert turned is not None
        self.assertEqual((turned.count, turned.lost, turned.left), (ACCOUNTS_THERE + 2, (), 0))
        self.assertEqual(world.keys_used(), {after.current})
        self.assertEqual(after.ids, before.ids | {after.current})
        self.assertNotEqual(after.current, before.current)
        self.assertEqual((after.upcoming, after.rotating), (None, False))
        self.assertEqual(world.told[0][:8] + world.told[-1][:5], "1/5  key5/5  ")

    def test_twice(self) -> None:
        """Another rotation is another key."""
        world = self.world()
        world.run()
        world.run()
        self.assertEqual(len(world.file.read().ids), 3)

    def test_daemon(self) -> None:
        """The daemon opens with the key before anything is sealed with it, and seals with it
        before the rows are gone through."""
        world = self.world()
        world.start_daemon()
        turned = world.run()
        assert turned is not None and world.daemon is not None
        self.assertEqual(world.daemon.ring.current, world.file.read().current)
        self.assertEqual(turned.left, 0)
        self.assertGreater(turned.count, ACCOUNTS_THERE)
        world.check()

    @settings(max_examples=10)
    @given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from("-sk")), max_size=4))
    def test_broken_off(self, breaks: list[tuple[int, str]]) -> None:
        """Broken off anywhere, with a daemon that starts (s) or is killed (k) in between:
        everything always opens, and going on ends with one fresh key and no row of another."""
        with TemporaryDirectory() as folder:
            world = World(Path(folder))
            world.start_daemon()
            finished = 0
            for steps, change in breaks:
                finished += world.run(steps) is not None
                if change == "s":
                    world.start_daemon()
                elif change == "k":
                    world.daemon = None
                world.check()
            # What was broken off before its first step has left nothing to go on with.
            under_way = world.file.read().upcoming is not None or world.file.read().rotating
            keys = len(world.file.read().ids)
            self.assertIsNotNone(world.run())
            world.check()
            after = world.file.read()
            self.assertEqual(len(after.ids), keys + (not under_way))
            self.assertEqual(len(after.ids), 2 + finished)
            self.assertEqual(world.keys_used(), {after.current})

    def test_stuck(self) -> None:
        """A daemon that does not take the key in is waited for and named; nothing is lost."""
        world = self.world()
        world.start_daemon()
        world.reads_file = False
        error = self.assertRaises(RotationStuck, world.run)
        self.assertIn("The daemon (pid 4711) does not open with the key", str(error))
        self.assertIn("See its log", str(error))
        world.check()
        world.reads_file = True
        self.assertIsNotNone(world.run())
        self.assertEqual(len(world.file.read().ids), 2)

    def test_copied_keys(self) -> None:
        """Who gave the daemon a copy of the keys is told to copy them and to restart it."""
        world = self.world()
        there = Holder(1, "/run/credentials/fjmcp.service/fjmcp.keys", frozenset(), b"none")
        rotation = Rotation(world.file, world.store, lambda: there, world.clock, world.told.append)
        going = Deferred.fromCoroutine(rotation.run())
        world.clock.pump([limits.KEY_POLL] * 200)
        said = str(self.failureResultOf(going, RotationStuck).value)
        self.assertIn("come from /run/credentials/fjmcp.service/fjmcp.keys", said)
        self.assertIn("restart it", said)

    def test_starting(self) -> None:
        """A daemon that has not said yet what it knows is waited for."""
        world = self.world()
        rotation = Rotation(world.file, world.store, Holder, world.clock, world.told.append)
        going = Deferred.fromCoroutine(rotation.run())
        world.clock.advance(limits.KEY_POLL)
        self.assertNoResult(going)
        world.clock.pump([limits.KEY_POLL] * 200)
        self.assertIn("starting", str(self.failureResultOf(going, RotationStuck).value))

    def test_unseen(self) -> None:
        """Whether a daemon runs is not guessed."""
        world = self.world()

        def denied() -> Holder | None:
            raise PermissionError("no")

        rotation = Rotation(world.file, world.store, denied, world.clock, world.told.append)
        going = Deferred.fromCoroutine(rotation.run())
        self.assertIn("as root", str(self.failureResultOf(going, RotationStuck).value))

    def test_store_down(self) -> None:
        """A store that is locked for a while is waited for; one that stays so is named."""
        world = self.world()
        world.store.fail_all()
        going = Deferred.fromCoroutine(world.rotation().run())
        world.clock.advance(limits.PAIR_RETRY)
        self.assertNoResult(going)
        world.clock.pump([limits.PAIR_RETRY] * limits.STORE_RETRIES)
        self.assertIn("cannot be written", str(self.failureResultOf(going, RotationStuck).value))
        world.store.fail_all(False)
        self.assertIsNotNone(world.run())
        self.assertEqual(len(world.file.read().ids), 2)

    def test_lost(self) -> None:
        """Values whose key is lost are named once, and the rest is done."""
        world = self.world()
        value = Ring.generate().seal(b"x", ACCOUNTS.bound(99))
        now(world.store.write(put_account, 99, value))
        going = Deferred.fromCoroutine(world.rotation().run())
        world.clock.pump([STEP] * 20)
        turned = self.successResultOf(going)
        self.assertEqual((turned.count, turned.left, len(turned.lost)), (ACCOUNTS_THERE, 1, 1))
        self.assertIn("accounts.credential:99", turned.lost[0])
