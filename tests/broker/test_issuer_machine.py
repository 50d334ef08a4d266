"""Issuer, callers and endings together, in whatever order things happen."""

from __future__ import annotations

from typing import Any, TypeVar

from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.broker.callers import Caller
from fjmcp.broker.elsewhere import Elsewhere
from fjmcp.broker.issuer import Issued
from fjmcp.oauth.clients import Client
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.refusals import OAuthRefusal
from fjmcp.store.queries import grants
from fjmcp.store.transactions import StoreDown
from fjmcp.tasks import Tasks
from fjmcp.testing import now
from tests.broker.desk import ADA, BOB, ONE, TWO, Desk, add_account, kill_account

T = TypeVar("T")

CLIENTS = st.sampled_from([ONE, TWO])
PEOPLE = st.sampled_from([ADA, BOB])
PICK = st.integers(0, 999)
RIGHT = st.sampled_from([True, True, True, False])
TIMES = st.sampled_from(
    [
        1.0,
        limits.REFRESH_GRACE / 2,
        limits.REFRESH_GRACE,
        limits.CODE,
        limits.ACCESS_TOKEN / 2,
        limits.ACCESS_TOKEN,
        limits.GRANT_IDLE / 2,
        limits.GRANT_IDLE,
    ]
)


@define
class Code:
    """A code that was given out, and the grant that was born of it."""

    text: str
    client: Client
    grant_id: str | None = None


@define
class Token:
    """A token that was given out."""

    text: TokenText = field(repr=False)
    client: Client
    grant_id: str


class Lost:
    """The answer of a store that was down."""


class IssuerMachine(RuleBasedStateMachine):
    """
    Two people, two clients, and everything that they may send, also at once.

    Every token is remembered for ever and sent again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        desk = self.desk
        self.looks = Elsewhere(desk.store, desk.callers, desk.endings, Tasks(), desk.clock)
        self.looks.start()
        self.down = False
        self.codes: list[Code] = []
        self.accesses: list[Token] = []
        self.refreshes: list[Token] = []
        self.ended: set[str] = set()
        self.followed: dict[str, tuple[str, str]] = {}
        """The pair that each refresh token was answered with."""

    # --- sending --------------------------------------------------------------

    def together(self, *works: Deferred[T]) -> list[T | Lost]:
        """What several requests are answered, which wait for the store in this order."""
        results: list[T | Lost] = []

        def failed(failure: Failure) -> None:
            failure.trap(StoreDown)
            assert self.down
            results.append(Lost())

        for work in works:
            work.addCallbacks(results.append, failed)
        self.desk.memory.release()
        assert len(results) == len(works)
        return results

    def issued(self, answer: object, client: Client, replay: bool) -> str | None:
        """Judge an answer and remember what it gave; the grant, if it gave anything."""
        if not isinstance(answer, Issued):
            assert isinstance(answer, OAuthRefusal | Lost)
            return None
        assert answer.refresh is not None
        ((grant_id, client_id),) = self.desk.rows(
            "SELECT g.grant_id, g.client_id FROM refresh_tokens t JOIN grants g"
            " ON g.grant_id = t.grant_id WHERE t.token = ?",
            digest(answer.refresh).value,
        )
        assert client_id == client.client_id
        assert grant_id not in self.ended
        if not replay:
            self.accesses.append(Token(answer.access, client, str(grant_id)))
            self.refreshes.append(Token(answer.refresh, client, str(grant_id)))
        return str(grant_id)

    # --- rules ----------------------------------------------------------------

    @precondition(lambda self: not self.down)
    @rule(client=CLIENTS, person=PEOPLE, redeemed=RIGHT)
    def authorize(self, client: Client, person: int, redeemed: bool) -> None:
        """Somebody consents; most clients redeem the code at once."""
        self.codes.append(Code(self.desk.code(client, person), client))
        if redeemed:
            self.redeem(len(self.codes) - 1, True, 1)
            if self.accesses:
                self.look(0)

    @precondition(lambda self: self.codes)
    @rule(pick=PICK, right=RIGHT, times=st.integers(1, 2))
    def redeem(self, pick: int, right: bool, times: int) -> None:
        """A code is redeemed, for the first time or not, by its client or another."""
        code = self.codes[pick % len(self.codes)]
        client = code.client if right else (TWO if code.client is ONE else ONE)
        self.desk.memory.hold()
        works = [self.desk.start_redeem(code.text, client) for _ in range(times)]
        for answer in self.together(*works):
            born = code.grant_id
            if isinstance(answer, Issued):
                assert right and born is None
                code.grant_id = self.issued_first(answer, client)
            elif born is not None and right and not isinstance(answer, Lost):
                assert self.is_over(born)

    def issued_first(self, answer: Issued, client: Client) -> str:
        """A grant was born: it may be over already, by a second use of its code."""
        assert answer.refresh is not None
        ((grant_id,),) = self.desk.rows(
            "SELECT grant_id FROM refresh_tokens WHERE token = ?", digest(answer.refresh).value
        )
        self.accesses.append(Token(answer.access, client, str(grant_id)))
        self.refreshes.append(Token(answer.refresh, client, str(grant_id)))
        return str(grant_id)

    @precondition(lambda self: self.refreshes)
    @rule(pick=PICK, right=RIGHT, times=st.integers(1, 3))
    def refresh(self, pick: int, right: bool, times: int) -> None:
        """A refresh token, new or used, is sent once or several times at once."""
        token = self.refreshes[-1 - pick % len(self.refreshes)]
        client = token.client if right else (TWO if token.client is ONE else ONE)
        self.desk.memory.hold()
        works = [self.desk.start_refresh(token.text.text, client) for _ in range(times)]
        for answer in self.together(*works):
            self.followed_by(token, answer, right)

    def followed_by(self, token: Token, answer: object, right: bool) -> None:
        """A used refresh token has one successor, for ever."""
        known = self.followed.get(token.text.text)
        grant_id = self.issued(answer, token.client, known is not None)
        if grant_id is None:
            return
        assert right and grant_id == token.grant_id
        assert isinstance(answer, Issued) and answer.refresh is not None
        pair = answer.access.text, answer.refresh.text
        assert known in (None, pair)
        self.followed[token.text.text] = pair

    @precondition(lambda self: self.refreshes and not self.down)
    @rule(pick=PICK, first=st.booleans())
    def refresh_while_ending(self, pick: int, first: bool) -> None:
        """A grant ends while it is refreshed, just before or just after."""
        token = self.refreshes[-1 - pick % len(self.refreshes)]
        self.desk.memory.hold()
        works: list[Deferred[Any]] = []
        for end in (not first, first):
            if end:
                ending = self.desk.endings.end(token.grant_id, "test")
                works.append(Deferred.fromCoroutine(ending))
            else:
                works.append(self.desk.start_refresh(token.text.text, token.client))
        over = self.is_over(token.grant_id)
        answer = self.together(*works)[0 if first else 1]
        if first and not over:
            self.followed_by(token, answer, True)
        else:
            assert isinstance(answer, OAuthRefusal)
        assert self.is_over(token.grant_id)

    @precondition(lambda self: self.accesses)
    @rule(pick=PICK)
    def look(self, pick: int) -> None:
        """A bearer token is used."""
        token = self.accesses[-1 - pick % len(self.accesses)]
        try:
            now(self.desk.callers.find(token.text))
        except StoreDown:
            assert self.down

    @precondition(lambda self: self.accesses and not self.down)
    @rule(pick=PICK, victim=PICK)
    def look_while_ending(self, pick: int, victim: int) -> None:
        """A grant ends while the store's answer about a token is on its way."""
        token = self.accesses[-1 - pick % len(self.accesses)]
        grant_id = self.accesses[-1 - victim % len(self.accesses)].grant_id
        self.desk.late.held = []
        asked = Deferred.fromCoroutine(self.desk.callers.find(token.text))
        now(self.desk.endings.end(grant_id, "test"))
        self.desk.late.deliver()
        found = now(waiting(asked))
        # A caller that was known before the end, or of another grant.
        if isinstance(found, Caller) and found.grant_id == grant_id:
            assert digest(token.text).value not in self.desk.callers._seen

    @precondition(lambda self: self.accesses and not self.down)
    @rule(pick=PICK, victim=PICK)
    def look_while_ended_elsewhere(self, pick: int, victim: int) -> None:
        """Another process ends a grant while the store's answer about a token is on its way."""
        token = self.accesses[-1 - pick % len(self.accesses)]
        grant_id = self.accesses[-1 - victim % len(self.accesses)].grant_id
        self.desk.callers.forget_all()
        self.desk.late.held = []
        asked = Deferred.fromCoroutine(self.desk.callers.find(token.text))
        self.desk.memory.elsewhere(grants.end, grant_id, "operator", self.desk.clock.seconds())
        self.desk.clock.advance(limits.ELSEWHERE)
        assert self.desk.callers.grants() == set()
        self.desk.late.deliver()
        found = now(waiting(asked))
        assert not isinstance(found, Caller) or found.grant_id != grant_id
        assert grant_id not in self.desk.callers.grants()

    @precondition(lambda self: self.accesses)
    @rule(pick=PICK, right=RIGHT, by_access=st.booleans())
    def revoke(self, pick: int, right: bool, by_access: bool) -> None:
        """Somebody revokes by a token of either kind, used and expired ones too."""
        tokens = self.accesses if by_access else self.refreshes
        token = tokens[-1 - pick % len(tokens)]
        client = token.client if right else (TWO if token.client is ONE else ONE)
        live = not self.is_over(token.grant_id)
        try:
            now(self.desk.issuer.revoke(client, token.text))
        except StoreDown:
            assert self.down
            return
        if not right:
            assert live != self.is_over(token.grant_id)
        elif not by_access:
            assert self.is_over(token.grant_id)

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self.desk.clock.advance(seconds)

    @rule()
    def store_fails(self) -> None:
        """The store goes down, or comes up again."""
        self.down = not self.down
        self.desk.memory.fail_all(self.down)

    @precondition(lambda self: not self.down)
    @rule(person=PEOPLE, then=st.booleans())
    def credential_dies(self, person: int, then: bool) -> None:
        """Forgejo refuses somebody's credential; they may sign in again at once."""
        now(self.desk.memory.write(kill_account, person))
        now(self.desk.endings.suspend(person))
        if then:
            now(self.desk.memory.write(add_account, person))

    @precondition(lambda self: not self.down)
    @rule(person=PEOPLE)
    def signs_in(self, person: int) -> None:
        """Somebody signs in again."""
        now(self.desk.memory.write(add_account, person))

    # --- what holds -----------------------------------------------------------

    def is_over(self, grant_id: str) -> bool:
        """Whether a grant has ended."""
        return bool(
            self.desk.rows(
                "SELECT 1 FROM grants WHERE grant_id = ? AND ended_at IS NOT NULL", grant_id
            )
        )

    @invariant()
    def ended_for_ever(self) -> None:
        """An ended grant stays ended, and has neither an access token nor a sealed pair left."""
        over = {str(g) for (g,) in self.desk.rows("SELECT grant_id FROM grants WHERE ended_at > 0")}
        assert self.ended <= over
        self.ended = over
        for table in ("access_tokens", "refresh_tokens WHERE successor IS NOT NULL"):
            kept = {str(grant) for (grant,) in self.desk.rows(f"SELECT grant_id FROM {table}")}
            assert not kept & over

    @invariant()
    def one_family(self) -> None:
        """A code has one grant, a grant one line of refresh tokens."""
        born = self.desk.rows("SELECT COUNT(*) FROM grants")
        assert born == [(sum(code.grant_id is not None for code in self.codes),)]
        forks = self.desk.rows(
            "SELECT predecessor FROM refresh_tokens WHERE predecessor IS NOT NULL"
            " GROUP BY predecessor HAVING COUNT(*) > 1"
        )
        assert forks == []
        heads = self.desk.rows(
            "SELECT grant_id FROM refresh_tokens WHERE used_at IS NULL"
            " GROUP BY grant_id HAVING COUNT(*) > 1"
        )
        assert heads == []

    @invariant()
    def cache_is_no_kinder(self) -> None:
        """What the callers accept from memory, the store accepts just so."""
        self.desk.memory.fail_all(False)
        for token in self.accesses:
            if digest(token.text).value in self.desk.callers._seen:
                found = self.desk.find(token.text)
                if isinstance(found, Caller):
                    assert found == self.desk.truth(token.text)
        self.desk.memory.fail_all(self.down)


async def waiting(going: Deferred[T]) -> T:
    """A Deferred as a coroutine."""
    return await going


class MachineTests(SynchronousTestCase):
    def test_machine(self) -> None:
        """No ended grant has a token that works, no replay mints a second family, and the callers
        accept nothing that the store refuses, whatever races, fails and expires."""
        profile = settings.get_profile(settings.get_current_profile_name())
        run_state_machine_as_test(
            IssuerMachine,
            settings=settings(max_examples=profile.max_examples // 2, stateful_step_count=30),
        )
