"""What the rows of personal tokens, and accounts by their login, promise on every engine."""

from __future__ import annotations

from fjmcp.store.queries import accounts, grants, personal_tokens
from fjmcp.store.queries.accounts import SealedPair
from fjmcp.store.transactions import Cursor, Store
from tests.store.contract import _Contract, promise
from tests.store.grants_contract import AT, secret


def sign_in(cursor: Cursor, account_id: int, login: str, at: float) -> None:
    pair = SealedPair(b"sealed", None, None, at, at)
    accounts.admit(cursor, secret(), account_id, login, pair, at)


def put(cursor: Cursor, grant_id: str, account_id: int, at: float, name: str | None) -> None:
    ends = None if name is None else at + 100
    grants.add(cursor, grant_id, account_id, "c", "s", at, name=name, expires_at=ends)


class PersonalTokensContract(_Contract):
    """Grants with a name."""

    async def filled(self) -> Store:
        """Two tokens of Ada, one of which has ended, one of Bob, and a client's grant."""
        store = self.open_store()

        def fill(cursor: Cursor) -> None:
            sign_in(cursor, 7, "Ada", AT)
            sign_in(cursor, 8, "bob", AT)
            put(cursor, "ab01", 7, AT + 2, "")
            put(cursor, "ab02", 7, AT + 1, "old")
            put(cursor, "ab03", 8, AT, "nächtlich")
            put(cursor, "ab04", 7, AT, None)
            grants.end(cursor, "ab02", "operator", AT + 3)

        await store.write(fill)
        return store

    @promise
    async def test_row(self) -> None:
        """A name and an end come back as they went, and a client's grant has neither."""
        store = await self.filled()
        rows = [await store.read(grants.grant, each) for each in ("ab01", "ab03", "ab04")]
        self.assertEqual(
            [(row and row.name, row and row.expires_at) for row in rows],
            [("", AT + 102), ("nächtlich", AT + 100), (None, None)],
        )

    @promise
    async def test_listed(self) -> None:
        """Those that live are listed by login and age, the others if asked, of one login or all;
        a client's grant never."""
        store = await self.filled()
        for login, ended, ids in [
            (None, False, ["ab01", "ab03"]),
            (None, True, ["ab02", "ab01", "ab03"]),
            ("aDA", True, ["ab02", "ab01"]),
            ("bob", False, ["ab03"]),
            ("b%", True, []),
            ("", True, []),
        ]:
            found = await store.read(personal_tokens.listed, login, ended=ended)
            self.assertEqual([token.grant.grant_id for token in found], ids)
        ada = await store.read(personal_tokens.listed, "ada", ended=True)
        self.assertEqual([token.grant.end_reason for token in ada], ["operator", None])
        self.assertEqual([(token.login, token.asleep) for token in ada], [("Ada", False)] * 2)

    @promise
    async def test_asleep(self) -> None:
        """A token of a dead account is asleep, and awake after a sign-in."""
        store = await self.filled()
        await store.write(accounts.mark_dead, 8, 1, "", AT + 5)

        async def asleep() -> dict[str, bool]:
            found = await store.read(personal_tokens.listed)
            return {token.grant.grant_id: token.asleep for token in found}

        self.assertEqual(await asleep(), {"ab01": False, "ab03": True})
        await store.write(sign_in, 8, "bob", AT + 6)
        self.assertEqual(await asleep(), {"ab01": False, "ab03": False})

    @promise
    async def test_beginning(self) -> None:
        """A token is found by the beginning of its id, ended or not; what stands for anything in
        a pattern stands for itself."""
        store = await self.filled()
        for start, ids in [
            ("ab0", ["ab01", "ab02", "ab03"]),
            ("ab02", ["ab02"]),
            ("b0", []),
            ("ab04", []),
            ("ab0_", []),
            ("%", []),
        ]:
            found = await store.read(personal_tokens.beginning, start)
            self.assertEqual([token.grant.grant_id for token in found], ids)

    @promise
    async def test_by_login(self) -> None:
        """An account is found by its login, however it is written; of several that had it, the
        one that signed in last."""
        store = await self.filled()
        for login, account_id in [("ada", 7), ("BOB", 8), ("ad", None), ("a%", None)]:
            found = await store.read(accounts.by_login, login)
            self.assertEqual(found and found.account_id, account_id)
        await store.write(sign_in, 9, "ada", AT + 10)
        found = await store.read(accounts.by_login, "ada")
        self.assertEqual(found and found.account_id, 9)
        await store.write(sign_in, 7, "Ada", AT + 20)
        found = await store.read(accounts.by_login, "ada")
        self.assertEqual(found and found.account_id, 7)
