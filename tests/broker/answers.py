"""
Requests, one or several at once, and whether each is answered as the ledger has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import copy_context
from math import inf
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from fjmcp.broker.callers import Caller
from fjmcp.oauth.clients import Client
from fjmcp.oauth.grants import Act
from fjmcp.refusals import McpRefusal, OAuthRefusal
from fjmcp.store.transactions import StoreDown
from tests.broker.ledger import Ask, End, Grant, Redeem, Refresh, Revoke, Use, Verdict
from tests.broker.life import BOTH, Life, key_of
from tests.broker.model import LOGINS
from tests.broker.world import WHOSE, Process


@define(eq=False)
class Flight:
    """A request on its way."""

    ask: Ask
    process: Process
    truth: McpRefusal | None = None
    """Of the use of an access token: how the store would refuse it when it was sent."""
    known: bool = False
    """Likewise: whether the process may let it in from memory."""
    answers: list[object] = field(factory=list)
    at: float = 0.0
    left: bool = False
    """Whether its asker did not wait for the answer."""

    def answered(self, answer: object, now: float) -> None:
        """The answer, or the failure."""
        self.at = now
        if isinstance(answer, Failure) and answer.check(CancelledError):
            self.left = True
        else:
            self.answers.append(answer)

    @property
    def answer(self) -> object:
        """What came back; None if nothing did."""
        return self.answers[0] if self.answers else None

    @property
    def lost(self) -> bool:
        """Whether nothing came back: its asker left, or its process crashed."""
        return not self.answers

    @property
    def down(self) -> bool:
        """Whether the store was down for it."""
        return isinstance(self.answer, Failure) and bool(self.answer.check(StoreDown))


def ask(life: Life, *asks: Ask, order: int = 0, leaving: int = 0) -> list[Verdict | None]:
    """
    Send requests, all at once; what each had to come to, and did, where it came so far.

    `order` names one of the orders in which their steps may go; the first `leaving` askers
    leave in the middle.
    """
    for each in asks:
        life.process(each.place)
    life.look()
    hops, calls = life.world.hops, len(life.world.server.calls)
    hops.hold()
    sent = [_send(life, each) for each in asks]
    for _, going in sent[:leaving]:
        hops.then(going.cancel)
    hops.release(Random(order).randrange if order else lambda count: 0)
    # Design D16: /oauth/token never calls the forge.
    assert len(life.world.server.calls) == calls, "the forge was called"
    return _judge(life, [flight for flight, _ in sent])


def connect(
    life: Life, place: int, client: Client, person: int, scopes: str = BOTH
) -> Grant | None:
    """The whole way of a client, as it mostly goes; the grant, if nothing was in the way."""
    signing = life.sign_in(place, client, person, scopes)
    if signing.call is not None:
        life.answers(signing.call)
    if signing.grant is not None:
        ask(life, Redeem(grant=signing.grant, client=client, place=place))
    return signing.grant


def _send(life: Life, ask: Ask) -> tuple[Flight, Deferred[object]]:
    process = life.process(ask.place)
    flight = Flight(ask, process)
    if isinstance(ask, Use):
        flight.truth = life.ledger.use(ask, life.now)
        flight.known = key_of(ask.link) in process.known and life.now < ask.link.expires_at
    context = copy_context()
    context.run(WHOSE.set, flight)
    going = context.run(Deferred.fromCoroutine, process.serve(ask))
    going.addBoth(lambda answer: flight.answered(answer, life.now))
    return flight, going


def _judge(life: Life, flights: Sequence[Flight]) -> list[Verdict | None]:
    """Compare each answer with the ledger, in the order in which they wrote."""
    moments: dict[object, tuple[float, float]] = {
        whose: (place, when) for place, (whose, when) in enumerate(life.world.hops.writes)
    }
    verdicts: dict[Flight, Verdict | None] = {}
    for flight in sorted(flights, key=lambda each: moments.get(each, (inf, inf))):
        wrote = moments[flight][1] if flight in moments else None
        verdicts[flight] = _settled(life, flight, wrote)
    return [verdicts[flight] for flight in flights]


def _settled(life: Life, flight: Flight, wrote: float | None) -> Verdict | None:
    """What became of one; `wrote` is the moment of its write, if it came so far."""
    assert not flight.lost or flight.left or not flight.process.alive, "it waits for ever"
    assert not flight.down or life.down
    if isinstance(flight.answer, Failure) and not flight.down:
        flight.answer.raiseException()
    match flight.ask:
        case Use() as use:
            _used(life, flight, use)
        case Revoke() | End() as end:
            _ended(life, flight, end, wrote)
        case Redeem() | Refresh() as wants:
            return _issued(life, flight, wants, wrote)
    return None


# --- tokens -----------------------------------------------------------------------


def _issued(
    life: Life, flight: Flight, ask: Redeem | Refresh, wrote: float | None
) -> Verdict | None:
    answer, grant = flight.answer, ask.grant
    if wrote is None:
        # It came no further than the door.
        if isinstance(answer, OAuthRefusal):
            _not_proven(ask, answer)
        assert flight.lost or flight.down or isinstance(answer, OAuthRefusal)
        return None
    assert ask.proven, "a client came in that does not prove who it is"
    if isinstance(ask, Redeem):
        verdict = life.ledger.redeem(ask, wrote)
        if verdict.act is Act.REDEEM:
            grant.grant_id = life.code(grant.code, "grant_id")
    else:
        verdict = life.ledger.refresh(ask, wrote)
    _gone(life, flight, verdict.ended)
    if flight.lost:
        return verdict
    if verdict.link is None:
        assert isinstance(answer, OAuthRefusal), (verdict, answer)
        assert (answer.error, answer.status) == (verdict.error, 400), (verdict, answer)
    else:
        assert isinstance(answer, dict), (verdict, answer)
        _told(life, grant, verdict, answer, flight.at)
    return verdict


def _told(life: Life, grant: Grant, verdict: Verdict, answer: dict[str, Any], now: float) -> None:
    """A client is told a pair: the one that it must be."""
    link = verdict.link
    assert link is not None
    pair = answer["access_token"], answer["refresh_token"]
    if link.access is None:
        assert not life.told & set(pair), "a token was given out twice"
        life.told.update(pair)
        link.access, link.refresh = pair
    assert (link.access, link.refresh) == pair, "not the pair that was given before"
    assert answer["expires_in"] == max(0, round(link.expires_at - now))
    assert answer["scope"] == grant.scopes


def _not_proven(ask: Ask, answer: OAuthRefusal) -> None:
    """Before the client is known there is one refusal; or it asks too often."""
    if answer.status != 429:
        assert not ask.proven, answer
        assert (answer.error, answer.status) == ("invalid_client", 401)


# --- ends -------------------------------------------------------------------------


def _ended(life: Life, flight: Flight, ask: Revoke | End, wrote: float | None) -> None:
    grant, answer = ask.grant, flight.answer
    if wrote is not None:
        assert ask.proven
        assert isinstance(ask, End) or ask.client is grant.client
        life.ledger.revoked(grant)
        _gone(life, flight, [grant])
    elif isinstance(answer, OAuthRefusal):
        _not_proven(ask, answer)
    elif not flight.lost and not flight.down:
        # RFC 7009 §2.2: what is no token of this client's is no error.
        assert isinstance(ask, Revoke)
        assert answer == {}
        dropped = ask.by_access and life.now >= ask.link.expires_at
        assert ask.client is not grant.client or grant.over or dropped, "not revoked"


def _gone(life: Life, flight: Flight, ended: Iterable[Grant]) -> None:
    """These ended at this process: what runs for them has ended before it answers."""
    for grant in ended:
        life.close(flight.process, grant)
        if not flight.lost:
            assert grant.grant_id in flight.process.running.ended, "what runs was not ended"


def _used(life: Life, flight: Flight, ask: Use) -> None:
    answer, grant, process = flight.answer, ask.grant, flight.process
    if flight.lost or flight.down:
        return
    if isinstance(answer, Caller):
        # Whatever ended it meanwhile: it was good when it was sent, or is remembered.
        assert flight.truth is None or flight.known, flight.truth
        assert answer.grant_id == grant.grant_id
        assert answer.account_id == grant.account
        assert answer.client_id == grant.client.client_id
        assert answer.login == LOGINS[grant.account]
        assert answer.scopes == grant.scopes
        if grant.grant_id not in process.closed:
            process.known.add(key_of(ask.link))
    else:
        assert answer in {flight.truth, life.ledger.use(ask, flight.at)} - {None}, answer
