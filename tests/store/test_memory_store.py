from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.store.transactions import Store, StoreDown
from fjmcp.testing.stores import memory_store
from tests.store.contract import StoreContract, add, grants


class MemoryStoreTests(StoreContract, SynchronousTestCase):
    """The double keeps the promises of the real one."""

    def open_store(self) -> Store:
        return memory_store()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        self.successResultOf(Deferred.fromCoroutine(work))


class ControlTests(SynchronousTestCase):
    def test_down(self) -> None:
        """A test can take the store down and put it up again."""
        store = memory_store()
        store.fail_all()
        self.failureResultOf(Deferred.fromCoroutine(store.read(grants)), StoreDown)
        store.fail_all(False)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(store.read(grants))), [])

    def test_elsewhere(self) -> None:
        """A test can act as another process, seen as one, whether the store is down or held."""
        store = memory_store()

        def foreign() -> int:
            return self.successResultOf(Deferred.fromCoroutine(store.commits_elsewhere()))

        before = foreign()
        self.assertEqual(store.elsewhere(add, "a"), "a")
        self.assertNotEqual(foreign(), before)
        store.fail_all()
        self.failureResultOf(Deferred.fromCoroutine(store.commits_elsewhere()), StoreDown)
        store.elsewhere(add, "b")
        store.fail_all(False)
        store.hold()
        asked = Deferred.fromCoroutine(store.commits_elsewhere())
        self.assertNoResult(asked)
        store.elsewhere(add, "c")
        store.release()
        self.assertEqual(self.successResultOf(asked), before + 3)
        found = self.successResultOf(Deferred.fromCoroutine(store.read(grants)))
        self.assertEqual(found, ["a", "b", "c"])

    def test_hold(self) -> None:
        """A test can put something between the question and the answer."""
        store = memory_store()
        store.hold()
        first, second = (Deferred.fromCoroutine(store.write(add, each)) for each in "ab")
        self.assertNoResult(first)
        self.assertEqual(store.release(1), 1)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.assertEqual(store.release(), 1)
        self.successResultOf(second)
        found = self.successResultOf(Deferred.fromCoroutine(store.read(grants)))
        self.assertEqual(found, ["a", "b"])

    def test_hold_cancelled(self) -> None:
        """A held write that nobody waits for any more commits all the same."""
        store = memory_store()
        store.hold()
        waiting = Deferred.fromCoroutine(store.write(add, "a"))
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        store.release()
        found = self.successResultOf(Deferred.fromCoroutine(store.read(grants)))
        self.assertEqual(found, ["a"])
