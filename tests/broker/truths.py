"""
What must hold in a life of grants and accounts, after each step and at the end of all troubles.
"""

from __future__ import annotations

from fjmcp import limits
from fjmcp.broker.credentials import Credential
from fjmcp.forge.answers import Introspected
from fjmcp.oauth.grants import Act
from fjmcp.refusals import CREDENTIAL_DEAD
from tests.broker.answers import ask, connect
from tests.broker.ledger import Grant, Refresh, Use
from tests.broker.life import REST, Life
from tests.broker.model import LOGINS
from tests.broker.world import CLIENTS


def hold(life: Life) -> None:
    """All that holds after each step."""
    grants_agree(life)
    families_agree(life)
    memory_agrees(life)
    never_in_a_circle(life)


def never_in_a_circle(life: Life) -> None:
    """
    Nobody asks, and no call is made; no token of Forgejo's is spent twice in a row.

    But by a process that started after the other crashed.
    """
    calls = life.world.server.calls
    alive = {process.name for process in life.at if process.alive}
    for call in calls[life.seen :]:
        if call.kind == "refresh":
            before = life.spent.get(call.secret)
            if before is not None and before.node in alive:
                assert call.sent_at - before.sent_at >= limits.REFRESH_RETRY, "in a circle"
            life.spent[call.secret] = call
    life.seen = len(calls)
    assert life.seen <= life.sign_ins + limits.REFRESH_ROUNDS * life.uses


# --- grants -----------------------------------------------------------------------


def grants_agree(life: Life) -> None:
    """The rows of grants are those of the ledger; each was born of one code."""
    found = {
        str(grant_id): row
        for grant_id, *row in life.world.rows(
            "SELECT grant_id, account_id, client_id, scopes, created_at, used_at, ended_at"
            " FROM grants"
        )
    }
    for grant in life.ledger.grants:
        assert (grant.grant_id is not None) == (grant.stands or grant.over)
        if grant.grant_id is None:
            continue
        row = found.pop(grant.grant_id, None)
        if row is None:
            assert grant.over, "a grant that stands is gone"
            continue
        *said, ended_at = row
        client_id = grant.client.client_id
        assert said == [grant.account, client_id, grant.scopes, grant.born, grant.used]
        assert (ended_at is not None) == grant.over
    assert not found, "a grant was born of nothing"


def families_agree(life: Life) -> None:
    """A family is one line with one newest token; an ended grant has nothing that works."""
    standing = {grant.grant_id: grant for grant in life.ledger.grants if grant.stands}
    for grant_id, tokens, unused, sealed, followed, lines in life.world.rows(
        "SELECT grant_id, COUNT(*), SUM(used_at IS NULL), SUM(successor IS NOT NULL),"
        " COUNT(predecessor), COUNT(DISTINCT predecessor) FROM refresh_tokens GROUP BY grant_id"
    ):
        grant = standing.get(grant_id)
        assert followed == lines, "a refresh token has two successors"
        if grant is None:
            assert sealed == 0, "an ended grant has a pair to give again"
            continue
        assert tokens == len(grant.family)
        assert unused == 1, "a family has one newest token"
        assert sealed <= 1, "a grace goes on after its successor was used"
    with_access = {each for (each,) in life.world.rows("SELECT grant_id FROM access_tokens")}
    assert with_access <= set(standing), "an ended grant has a token that works"


def memory_agrees(life: Life) -> None:
    """A process lets in from memory only what was good and whose end it does not know."""
    for process in life.at:
        if process.alive:
            assert not process.running.too_late, "ended while its tokens were remembered"
            for key, caller in process.callers._seen.items():
                assert key in process.known or caller.expires_at <= life.now
    assert not life.world.used_unstored, "a pair was used before it was stored"


# --- the end of all troubles ---------------------------------------------------------


def calm(life: Life, restarted: bool) -> None:
    """
    The store is up, Forgejo answers, processes that crashed were started again; or all were.

    Then every account works, or needs one sign-in and works; all its grants with it.
    """
    server = life.world.server
    life.lose_store(False)
    server.dark = False
    for place in range(life.places):
        life.process(place).fuse.hops = None
    for _ in range(2):
        for call in server.waiting():
            life.answers(call)
        life.rest()
    life.look()
    for process, going in life.waiting:
        assert going.called or not process.alive, "somebody waits for ever"
    life.kept()
    life.waiting.clear()
    if restarted:
        _restarted(life)
    server.held = False
    for person in LOGINS:
        if life.world.row(person) is not None:
            _goes_on(life, person)
    server.held = True


def _restarted(life: Life) -> None:
    """Nothing is on its way any more: each account has the newest pair that stood anywhere."""
    for place in range(life.places):
        life.process(place).crash()
    for place in range(life.places):
        life.process(place)
    life.rest()
    life.look()
    assert not life.world.on_the_way(), "what a crash left was not finished"
    grants = life.world.server.grants
    for gnt, cnt in life.world.ever:
        person = grants[gnt - 1].account_id
        if grants[gnt - 1].live and person in life.newest:
            assert life.newest[person] >= (gnt, cnt), "the newest pair is not the account's"


def _goes_on(life: Life, person: int) -> None:
    # A pair whose person Forgejo would not name waits in its sign-in's row: it keeps an account
    # alive, and wakes none.
    healthy = life.world.is_healthy(person) and person not in life.ledger.dead
    # Whatever it has of Forgejo's ends by then, so that it takes the refresh token.
    life.pass_by(life.world.server.life)
    answer = _credential(life, person)
    life.look()
    if not healthy:
        assert answer is CREDENTIAL_DEAD, answer
        assert person in life.ledger.dead
        assert connect(life, 0, CLIENTS[0], person) is not None, "one sign-in is enough"
        life.look()
        answer = _credential(life, person)
    assert person not in life.ledger.dead
    assert isinstance(answer, Credential), answer
    said = life.world.server.introspect(answer.access)
    assert isinstance(said, Introspected)
    assert said.active, "Forgejo does not take it"
    for grant in _some_of(life.ledger.standing(person)):
        newest = grant.family[-1]
        if newest.refresh is not None and not grant.aged(life.now):
            (verdict,) = ask(life, Refresh(grant=grant, client=grant.client, link=newest))
            assert verdict is not None and verdict.act is Act.ROTATE
            ask(life, Use(grant=grant, client=grant.client, link=grant.family[-1]))


def _some_of(standing: list[Grant]) -> list[Grant]:
    return standing if len(standing) < 8 else standing[:3] + standing[-3:]


def _credential(life: Life, person: int) -> object:
    got, _ = life.usable(0, person)
    for _ in range(REST):
        if got:
            break
        life.pass_by(1.0)
    assert got, "no answer"
    return got[0]
