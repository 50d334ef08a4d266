"""The rows of sign-ins, codes, grants and tokens, in memory."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.oauth.tokens import Digest
from fjmcp.store.queries import clients, consents, documents, grants, signins
from fjmcp.store.transactions import Cursor, Store
from fjmcp.testing.reactor import now
from fjmcp.testing.stores import memory_store
from tests.store.consents_contract import ConsentsContract
from tests.store.grants_contract import (
    REQUEST,
    GrantsContract,
    IssuerContract,
    SignInsContract,
)
from tests.store.tokens_contract import PersonalTokensContract


class InMemory(SynchronousTestCase):
    def open_store(self) -> Store:
        return memory_store()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        self.successResultOf(Deferred.fromCoroutine(work))


class GrantsTests(InMemory, GrantsContract):
    """The contract, in memory."""


class PersonalTokensTests(InMemory, PersonalTokensContract):
    """The contract, in memory."""


class SignInsTests(InMemory, SignInsContract):
    """The contract, in memory."""


class IssuerTests(InMemory, IssuerContract):
    """The contract, in memory."""


class ConsentsTests(InMemory, ConsentsContract):
    """The contract, in memory."""


class Watch:
    """A cursor that asks SQLite how it would run each statement."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.plans: list[str] = []

    def many(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        plan = self.cursor.many(f"EXPLAIN QUERY PLAN {sql}", *params)
        self.plans += [f"{row[3]}: {sql}" for row in plan]
        return []

    def one(self, sql: str, *params: object) -> tuple[Any, ...] | None:
        self.many(sql, *params)
        return None

    def execute(self, sql: str, *params: object) -> None:
        self.many(sql, *params)


class PlanTests(InMemory):
    def test_no_scans(self) -> None:
        """What each refresh and each look-up asks is found by index, however long the tables."""
        token = Digest(b"t")

        def ask(cursor: Cursor) -> list[str]:
            watch = Watch(cursor)
            grants.bearer(watch, token)
            grants.code(watch, token)
            grants.refresh_token(watch, token)
            grants.successor_used(watch, token)
            grants.grant(watch, "g")
            grants.touch(watch, {"g": 0.0})
            grants.use_refresh_token(watch, token, token, b"", 0.0)
            grants.forget_graces(watch, 0.0)
            grants.end(watch, "g", "r", 0.0)
            grants.live_of_account(watch, 7)
            grants.over(watch, ["g"])
            grants.add_access_token(watch, token, "g", 0.0, 0.0)
            consents.known_as(watch, token, 0.0)
            consents.know(watch, token, 7, 0.0)
            consents.stands(watch, token, 0.0)
            consents.keep(watch, token, 7, "c", 0.0)
            consents.forget(watch, 7, "c")
            consents.drop_expired(watch, 0.0)
            signins.confirm(watch, token, token, token, 0.0)
            signins.ask(watch, token, token, 7)
            signins.come_back(watch, token, 0.0)
            signins.follow(watch, token, token)
            consents.unknow(watch, token)
            return watch.plans

        plans = now(memory_store().read(ask))
        self.assertGreater(len(plans), 10)
        self.assertEqual([plan for plan in plans if plan.startswith("SCAN")], [])

    def test_strangers(self) -> None:
        """What anybody can ask for at will costs the same however many rows they have made: none
        is read but by an index, and none is sorted."""
        token, metadata = Digest(b"t"), ClientMetadata(("https://client.example/callback",))

        def ask(cursor: Cursor) -> list[str]:
            watch = Watch(cursor)
            clients.find(watch, "c")
            clients.twin(watch, metadata, 0.0)
            clients.register(watch, "c", token, token, 0.0)
            documents.find(watch, "c")
            signins.begin(watch, token, token, REQUEST, 0.0)
            return watch.plans

        plans = now(memory_store().read(ask))
        self.assertGreater(len(plans), 5)
        costly = (
            "SCAN clients",
            "SCAN registrations",
            "SCAN signins:",
            "SCAN codes",
            "SCAN grants",
        )
        self.assertEqual(
            [plan for plan in plans if plan.startswith(costly) or "TEMP B-TREE" in plan], []
        )
