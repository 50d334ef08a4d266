"""Tests for `fjmcp.oauth.grants`: tables for each judgement, and a model of the whole life."""

from __future__ import annotations

import base64
import hashlib
from itertools import count

from attrs import Factory, define, evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits, refusals
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.grants import (
    TRANSITIONS,
    Act,
    CodeRow,
    CodeVerdict,
    EndGrant,
    Event,
    GrantRow,
    Redeem,
    RefreshRow,
    RefreshVerdict,
    Refuse,
    Replay,
    Rotate,
    State,
    grant_end,
    grant_live,
    judge_code,
    judge_refresh,
)
from fjmcp.oauth.tokens import Digest

START = 1_700_000_000.0
VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)
REDIRECT = "http://127.0.0.1:51234/callback"
REQUEST = AuthorizationRequest(
    client_id="c1",
    redirect_uri=REDIRECT,
    state="s",
    challenge=CHALLENGE,
    scopes="forge:read forge:write",
    resource="https://mcp.example.org/mcp",
)
CODE = CodeRow("c1", 7, REQUEST, START + limits.CODE, None)
GRANT = GrantRow("g1", 7, "c1", "forge:read forge:write", START, START, None, None)
NEWEST = RefreshRow(Digest(b"r1"), "g1", Digest(b"r0"), START, None, None)
USED = evolve(NEWEST, used_at=START, successor=b"sealed")


def code_verdict(
    row: CodeRow | None = CODE,
    *,
    client_id: str = "c1",
    redirect_uri: str | None = REDIRECT,
    verifier: str | None = VERIFIER,
    resource_ok: bool = True,
    now: float = START,
) -> CodeVerdict:
    """The verdict on a good code, but for what is changed."""
    return judge_code(
        row,
        client_id=client_id,
        redirect_uri=redirect_uri,
        verifier=verifier,
        resource_ok=resource_ok,
        now=now,
    )


def refresh_verdict(
    row: RefreshRow | None = NEWEST,
    grant: GrantRow | None = GRANT,
    *,
    client_id: str = "c1",
    successor_used: bool = False,
    account_dead: bool = False,
    now: float = START,
) -> RefreshVerdict:
    """The verdict on a good refresh token, but for what is changed."""
    return judge_refresh(
        row,
        grant,
        client_id=client_id,
        successor_used=successor_used,
        account_dead=account_dead,
        now=now,
    )


class Codes(SynchronousTestCase):
    """What a presented code is worth."""

    def test_good(self) -> None:
        """A fresh code with all that belongs to it gives birth to a grant."""
        self.assertEqual(code_verdict(), Redeem(7, REQUEST))

    def test_redirect_uri_left_out(self) -> None:
        """A client of OAuth 2.1 need not repeat its redirect_uri."""
        self.assertEqual(code_verdict(redirect_uri=None), Redeem(7, REQUEST))

    def test_refused(self) -> None:
        """Anything wrong with it is invalid_grant and changes nothing."""
        for verdict, refusal in [
            (code_verdict(None), refusals.CODE_UNKNOWN),
            (code_verdict(client_id="c2"), refusals.CODE_CLIENT),
            (code_verdict(redirect_uri=REDIRECT + "/"), refusals.CODE_REDIRECT),
            (code_verdict(redirect_uri=""), refusals.CODE_REDIRECT),
            (
                code_verdict(redirect_uri="http://127.0.0.1:51235/callback"),
                refusals.CODE_REDIRECT,
            ),
            (code_verdict(verifier=None), refusals.CODE_VERIFIER_MISSING),
            (code_verdict(verifier=""), refusals.CODE_VERIFIER),
            (code_verdict(verifier="w" * 43), refusals.CODE_VERIFIER),
            (code_verdict(verifier=CHALLENGE), refusals.CODE_VERIFIER),
            (code_verdict(now=START + limits.CODE), refusals.CODE_EXPIRED),
            (code_verdict(resource_ok=False), refusals.RESOURCE_FOREIGN),
        ]:
            self.assertEqual(verdict, Refuse(refusal))
            self.assertEqual(refusal.status, 400)
            expected = "invalid_target" if refusal is refusals.RESOURCE_FOREIGN else "invalid_grant"
            self.assertEqual(refusal.error, expected)

    def test_last_moment(self) -> None:
        """A code works until its time is over, and not a moment longer."""
        self.assertIsInstance(code_verdict(now=START + limits.CODE - 0.001), Redeem)
        self.assertIsInstance(code_verdict(now=START + limits.CODE), Refuse)

    def test_twice(self) -> None:
        """A code used twice ends the grant, whatever else is right or wrong, and however late."""
        used = evolve(CODE, grant_id="g1")
        ended = EndGrant("g1", refusals.CODE_REUSED)
        self.assertEqual(code_verdict(used), ended)
        self.assertEqual(code_verdict(used, verifier="wrong"), ended)
        self.assertEqual(code_verdict(used, verifier=None, redirect_uri="x"), ended)
        self.assertEqual(code_verdict(used, now=START + 3600), ended)

    def test_twice_by_another_client(self) -> None:
        """Another client that found a used code ends nothing with it."""
        used = evolve(CODE, grant_id="g1")
        self.assertEqual(code_verdict(used, client_id="c2"), Refuse(refusals.CODE_CLIENT))


class RefreshTokens(SynchronousTestCase):
    """What a presented refresh token is worth."""

    def test_newest(self) -> None:
        """The newest of its family is rotated."""
        self.assertEqual(refresh_verdict(), Rotate("g1"))

    def test_within_grace(self) -> None:
        """A used one within its grace is answered with the same pair, any number of times."""
        for later in (0.0, 1.0, limits.REFRESH_GRACE - 0.001):
            verdict = refresh_verdict(USED, now=START + later)
            self.assertEqual(verdict, Replay("g1", b"sealed"))

    def test_clock_set_back(self) -> None:
        """A clock that was set back a little lengthens a grace and breaks nothing."""
        self.assertIsInstance(refresh_verdict(USED, now=START - 5), Replay)

    def test_grace_over(self) -> None:
        """After its time, or the successor's first use, or without a pair, it ends the grant."""
        ended = EndGrant("g1", refusals.REFRESH_REUSED)
        self.assertEqual(refresh_verdict(USED, now=START + limits.REFRESH_GRACE), ended)
        self.assertEqual(refresh_verdict(USED, successor_used=True), ended)
        self.assertEqual(refresh_verdict(evolve(USED, successor=None)), ended)

    def test_refused(self) -> None:
        """Unknown, another client's, or of an ended grant: invalid_grant, and nothing changes."""
        over = evolve(GRANT, ended_at=START, end_reason="revoked")
        for verdict, refusal in [
            (refresh_verdict(None, None), refusals.REFRESH_UNKNOWN),
            (refresh_verdict(NEWEST, None), refusals.REFRESH_UNKNOWN),
            (refresh_verdict(NEWEST, evolve(GRANT, grant_id="g2")), refusals.REFRESH_UNKNOWN),
            (refresh_verdict(client_id="c2"), refusals.REFRESH_CLIENT),
            (refresh_verdict(USED, client_id="c2"), refusals.REFRESH_CLIENT),
            (refresh_verdict(USED, client_id="c2", now=START + 3600), refusals.REFRESH_CLIENT),
            (refresh_verdict(NEWEST, over), refusals.GRANT_OVER),
            (refresh_verdict(USED, over), refusals.GRANT_OVER),
            (refresh_verdict(USED, over, now=START + 3600), refusals.GRANT_OVER),
            (refresh_verdict(NEWEST, over, account_dead=True), refusals.GRANT_OVER),
        ]:
            self.assertEqual(verdict, Refuse(refusal))
            self.assertEqual((refusal.error, refusal.status), ("invalid_grant", 400))

    def test_dead_account(self) -> None:
        """While the account's credential is dead it is refused, and works after the next
        sign-in."""
        for row in (NEWEST, USED):
            verdict = refresh_verdict(row, account_dead=True)
            self.assertEqual(verdict, Refuse(refusals.ACCOUNT_DEAD))
        self.assertEqual(refusals.ACCOUNT_DEAD.error, "invalid_grant")
        self.assertEqual(refresh_verdict(NEWEST, account_dead=False), Rotate("g1"))

    def test_dead_account_reuse(self) -> None:
        """A stolen token gives itself away also while the account's credential is dead."""
        verdict = refresh_verdict(USED, account_dead=True, now=START + 3600)
        self.assertEqual(verdict, EndGrant("g1", refusals.REFRESH_REUSED))

    def test_expired_grant(self) -> None:
        """A grant that was idle too long, or is too old, ends at its next refresh."""
        ended = EndGrant("g1", refusals.GRANT_EXPIRED)
        self.assertEqual(refresh_verdict(now=START + limits.GRANT_IDLE), ended)
        busy = evolve(GRANT, used_at=START + limits.GRANT_LIFE - 1)
        self.assertEqual(refresh_verdict(grant=busy, now=START + limits.GRANT_LIFE), ended)
        self.assertEqual(
            refresh_verdict(grant=busy, now=START + limits.GRANT_LIFE - 0.5), Rotate("g1")
        )


class Life(SynchronousTestCase):
    """Whether a grant lives."""

    def test_bounds(self) -> None:
        """A grant lives until it ends, is idle for 60 days, is 365 days old, or is at an end of
        its own."""
        day = 86400.0
        for grant, now, lives in [
            (GRANT, START, True),
            (GRANT, START + 60 * day - 1, True),
            (GRANT, START + 60 * day, False),
            (evolve(GRANT, used_at=START + 364 * day), START + 365 * day - 1, True),
            (evolve(GRANT, used_at=START + 364 * day), START + 365 * day, False),
            (evolve(GRANT, ended_at=START), START, False),
            (evolve(GRANT, expires_at=START + 1), START, True),
            (evolve(GRANT, expires_at=START + 1), START + 1, False),
            (evolve(GRANT, expires_at=START + 90 * day), START + 60 * day, False),
        ]:
            self.assertEqual(grant_live(grant, now), lives)

    def test_end(self) -> None:
        """The end of a grant is its own, or that of all, whichever is first."""
        year = 365 * 86400.0
        for own, end in [(None, year), (1.0, 1.0), (year + 1, year)]:
            grant = evolve(GRANT, expires_at=None if own is None else START + own)
            self.assertEqual(grant_end(grant), START + end)


class Secrecy(SynchronousTestCase):
    """What rows and verdicts do not tell."""

    def test_sealed_pair(self) -> None:
        """The sealed pair stands in no repr."""
        self.assertNotIn("sealed", repr(USED))
        self.assertNotIn("sealed", repr(refresh_verdict(USED)))


class Table(SynchronousTestCase):
    """The table itself."""

    def test_ended_is_for_ever(self) -> None:
        """No step leads out of ENDED."""
        self.assertNotIn(State.ENDED, {state for state, _ in TRANSITIONS})

    def test_acts_and_states_agree(self) -> None:
        """A refusal changes nothing, an end ends, and pairs are given to a live grant alone."""
        for (before, _), (after, act) in TRANSITIONS.items():
            if act is Act.REFUSE:
                self.assertIs(before, after)
            if act is Act.END:
                self.assertIs(after, State.ENDED)
            if act in (Act.REDEEM, Act.ROTATE, Act.REPLAY):
                self.assertIs(after, State.LIVE)

    def test_all_is_used(self) -> None:
        """Every state, event and act stands in the table."""
        self.assertEqual({event for _, event in TRANSITIONS}, set(Event))
        self.assertEqual({act for _, act in TRANSITIONS.values()}, set(Act))
        states = {state for state, _ in TRANSITIONS} | {state for state, _ in TRANSITIONS.values()}
        self.assertEqual(states, set(State))

    def test_every_state_knows_every_event(self) -> None:
        """Once a grant is born, each state but ENDED has a step for whatever can come."""
        unborn = {Event.CODE}
        for state, elsewhere in [
            (State.LIVE, unborn | {Event.SIGN_IN}),
            (State.ASLEEP, unborn | {Event.CREDENTIAL_DIED}),
        ]:
            known = {event for other, event in TRANSITIONS if other is state}
            self.assertEqual(known, set(Event) - elsewhere)


# --- the model ----------------------------------------------------------------


@define
class Family:
    """
    What the model knows of a grant: what was presented and what came back.

    It has none of the rows that the judgements see.
    """

    account: int
    client: str
    born: float
    used: float
    over: bool = False
    tokens: list[str] = Factory(list)
    """Refresh tokens in the order of their minting."""
    first_use: dict[str, float] = Factory(dict)
    pairs: dict[str, bytes] = Factory(dict)
    """What each used token was answered with the first time."""


class GrantLife(RuleBasedStateMachine):
    """
    Clients that authorize, refresh, race, steal and come back late; accounts that die and wake.

    The machine keeps rows and obeys verdicts as the issuer does; beside them it keeps
    `Family` values, from which each verdict is foretold by the words of design D14.
    """

    codes = Bundle("codes")
    tokens = Bundle("tokens")
    clients = st.sampled_from(["c1", "c2"])
    # Most are who they should be: a machine whose every second step is refused goes nowhere.
    strangers = st.sampled_from([False] * 9 + [True])
    accounts = st.sampled_from([1, 2])

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.names = count()
        self.dead: set[int] = set()
        self.code_rows: dict[str, CodeRow] = {}
        self.grant_rows: dict[str, GrantRow] = {}
        self.refresh_rows: dict[str, RefreshRow] = {}
        self.families: dict[str, Family] = {}
        self.family_of_token: dict[str, str] = {}
        self.family_of_code: dict[str, str] = {}

    # --- what the issuer does ---

    def mint(self, grant_id: str, predecessor: str | None) -> str:
        """A refresh token more in a family."""
        name = f"r{next(self.names)}"
        before = None if predecessor is None else Digest(predecessor.encode())
        self.refresh_rows[name] = RefreshRow(
            Digest(name.encode()), grant_id, before, self.now, None, None
        )
        self.family_of_token[name] = grant_id
        self.families[grant_id].tokens.append(name)
        return name

    def end(self, grant_id: str) -> None:
        """Close a grant, once."""
        row = self.grant_rows[grant_id]
        if row.ended_at is None:
            self.grant_rows[grant_id] = evolve(row, ended_at=self.now, end_reason="test")
        for name in self.families[grant_id].tokens:
            self.refresh_rows[name] = evolve(self.refresh_rows[name], successor=None)
        self.families[grant_id].over = True

    # --- what happens ---

    @rule(target=codes, client=clients, account=accounts)
    def authorize(self, client: str, account: int) -> str:
        """A person consents and signs in, which wakes the account."""
        self.dead.discard(account)
        return self.offer(client, account)

    def offer(self, client: str, account: int) -> str:
        """A code more."""
        name = f"k{next(self.names)}"
        request = evolve(REQUEST, client_id=client)
        self.code_rows[name] = CodeRow(client, account, request, self.now + limits.CODE, None)
        return name

    @rule(
        target=tokens,
        code=codes,
        stranger=strangers,
        verifier=st.sampled_from([VERIFIER] * 6 + ["w" * 43, None]),
        redirect_uri=st.sampled_from([REDIRECT] * 4 + [None, REDIRECT + "/"]),
    )
    def redeem(
        self, code: str, stranger: bool, verifier: str | None, redirect_uri: str | None
    ) -> str | MultipleResults[str]:
        """A code is presented, for the first time or again, by its client or another."""
        row = self.code_rows[code]
        client = "c3" if stranger else row.client_id
        right = verifier == VERIFIER and redirect_uri in (REDIRECT, None)
        verdict = judge_code(
            row, client_id=client, redirect_uri=redirect_uri, verifier=verifier, now=self.now
        )
        born = self.family_of_code.get(code)
        if client != row.client_id:
            assert isinstance(verdict, Refuse), verdict
        elif born is not None:
            assert verdict == EndGrant(born, refusals.CODE_REUSED), verdict
            self.end(born)
        elif not right or self.now >= row.expires_at:
            assert isinstance(verdict, Refuse), verdict
        else:
            assert verdict == Redeem(row.account_id, row.request), verdict
            grant_id = f"g{next(self.names)}"
            self.code_rows[code] = evolve(row, grant_id=grant_id)
            self.grant_rows[grant_id] = GrantRow(
                grant_id, row.account_id, client, "", self.now, self.now, None, None
            )
            self.families[grant_id] = Family(row.account_id, client, self.now, self.now)
            self.family_of_code[code] = grant_id
            return self.mint(grant_id, None)
        return multiple()

    @initialize(target=tokens, client=clients, account=accounts)
    def connect(self, client: str, account: int) -> str:
        """A client comes in as it should, so that there is something to go wrong."""
        token = self.redeem(self.offer(client, account), False, VERIFIER, REDIRECT)
        assert isinstance(token, str)
        return token

    @rule(target=tokens, token=tokens, stranger=strangers)
    def refresh(self, token: str, stranger: bool) -> str | MultipleResults[str]:
        """Any refresh token is presented: the newest, one of a race, or a stolen one."""
        family = self.families[self.family_of_token[token]]
        return self.present(token, "c3" if stranger else family.client)

    @rule(target=tokens, token=tokens, back=st.sampled_from([1, 1, 2, 2, 3]))
    def refresh_near_the_end(self, token: str, back: int) -> str | MultipleResults[str]:
        """One of the newest tokens of a family is presented, as clients do."""
        family = self.families[self.family_of_token[token]]
        return self.present(family.tokens[-min(back, len(family.tokens))], family.client)

    def present(self, token: str, client: str) -> str | MultipleResults[str]:
        """Judge a refresh token, compare with what is foretold, and do as told."""
        grant_id = self.family_of_token[token]
        family, row = self.families[grant_id], self.refresh_rows[token]
        following = family.tokens[family.tokens.index(token) + 1 :][:1]
        verdict = judge_refresh(
            row,
            self.grant_rows[grant_id],
            client_id=client,
            successor_used=any(
                other.predecessor == row.token and other.used_at is not None
                for other in self.refresh_rows.values()
            ),
            account_dead=family.account in self.dead,
            now=self.now,
        )
        old = (
            self.now - family.used >= limits.GRANT_IDLE
            or self.now - family.born >= limits.GRANT_LIFE
        )
        first_use = family.first_use.get(token)
        grace = (
            first_use is not None
            and self.now - first_use < limits.REFRESH_GRACE
            and not any(name in family.first_use for name in following)
        )
        if client != family.client:
            assert verdict == Refuse(refusals.REFRESH_CLIENT), verdict
        elif family.over:
            assert verdict == Refuse(refusals.GRANT_OVER), verdict
        elif old or (first_use is not None and not grace):
            assert isinstance(verdict, EndGrant), verdict
            assert verdict.grant_id == grant_id
            self.end(grant_id)
        elif family.account in self.dead:
            assert verdict == Refuse(refusals.ACCOUNT_DEAD), verdict
        elif grace:
            assert verdict == Replay(grant_id, family.pairs[token]), verdict
        else:
            assert verdict == Rotate(grant_id), verdict
            family.used = family.first_use[token] = self.now
            newest = self.mint(grant_id, token)
            family.pairs[token] = f"sealed {newest}".encode()
            self.grant_rows[grant_id] = evolve(self.grant_rows[grant_id], used_at=self.now)
            self.refresh_rows[token] = evolve(row, used_at=self.now, successor=family.pairs[token])
            return newest
        return multiple()

    @rule(token=tokens, sure=st.sampled_from([False, False, True]))
    def revoke(self, token: str, sure: bool) -> None:
        """Client, person or operator ends a grant."""
        if sure:
            self.end(self.family_of_token[token])

    @rule(account=accounts)
    def die(self, account: int) -> None:
        """Forgejo refuses the account's credential, or its person may not come in."""
        self.dead.add(account)

    @rule(account=accounts)
    def sign_in(self, account: int) -> None:
        """The person signs in again, through whatever client."""
        self.dead.discard(account)

    @rule(seconds=st.sampled_from([0.5, 20.0, 59.5, 60.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        """A little time passes."""
        self.now += seconds

    @rule(days=st.sampled_from([1, 1, 1, 59, 60]))
    def wait_long(self, days: int) -> None:
        """Much time passes."""
        self.now += days * 86400.0

    @rule(days=st.sampled_from([59, 200, 306, 365]))
    def work_on(self, days: int) -> None:
        """Days pass in which every grant that lives is used."""
        self.now += days * 86400.0
        for grant_id, row in self.grant_rows.items():
            if row.ended_at is None:
                self.grant_rows[grant_id] = evolve(row, used_at=self.now)
                self.families[grant_id].used = self.now

    # --- what always holds ---

    @invariant()
    def one_line(self) -> None:
        """A family is a line: no token has two successors, and a live one has one unused token."""
        before = [row.predecessor for row in self.refresh_rows.values() if row.predecessor]
        assert len(before) == len(set(before))
        for family in self.families.values():
            unused = [name for name in family.tokens if self.refresh_rows[name].used_at is None]
            assert unused == family.tokens[-1:]

    @invariant()
    def one_family_a_code(self) -> None:
        """No replay, race or second use mints a second family."""
        assert len(self.families) == len(set(self.family_of_code.values()))
        assert len(self.families) == len(self.family_of_code)

    @invariant()
    def nothing_after_the_end(self) -> None:
        """Nothing was minted for a grant after it had ended."""
        for grant_id, row in self.grant_rows.items():
            if row.ended_at is not None:
                for name in self.families[grant_id].tokens:
                    assert self.refresh_rows[name].issued_at <= row.ended_at


class Model(SynchronousTestCase):
    """The whole life, in any order."""

    def test_any_life(self) -> None:
        """Whatever clients, thieves, Forgejo and time do in whatever order, each verdict is the
        one that design D14 foretells, a family stays one line, and the end is the end."""
        run_state_machine_as_test(GrantLife, settings=settings(stateful_step_count=60))
