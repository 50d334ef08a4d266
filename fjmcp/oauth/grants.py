"""
The life of a grant: code, family of refresh tokens, grace, reuse, end.

A presented code or refresh token is an `Event`; `TRANSITIONS` says what it
does to a grant in each state, and nothing else decides.  Rows come in as they
stand in the store, a verdict goes out, and the issuer does what it says in the
same transaction (design D14).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from attrs import field, frozen

from fjmcp import limits
from fjmcp.oauth.authorization import AuthorizationRequest, verifier_matches
from fjmcp.oauth.tokens import Digest
from fjmcp.refusals import (
    ACCOUNT_DEAD,
    CODE_CLIENT,
    CODE_EXPIRED,
    CODE_REDIRECT,
    CODE_REUSED,
    CODE_UNKNOWN,
    CODE_VERIFIER,
    CODE_VERIFIER_MISSING,
    GRANT_EXPIRED,
    GRANT_OVER,
    REFRESH_CLIENT,
    REFRESH_REUSED,
    REFRESH_UNKNOWN,
    RESOURCE_FOREIGN,
    OAuthRefusal,
)

# --- rows ---------------------------------------------------------------------


@frozen
class CodeRow:
    """A code as it stands in the store."""

    client_id: str
    account_id: int
    request: AuthorizationRequest
    expires_at: float
    grant_id: str | None
    """The grant born of it; None until it is redeemed."""


@frozen
class GrantRow:
    """A grant as it stands in the store."""

    grant_id: str
    account_id: int
    client_id: str
    scopes: str
    created_at: float
    used_at: float
    ended_at: float | None
    end_reason: str | None
    name: str | None = None
    """What the operator called it who made it; None where a client asked for it."""
    expires_at: float | None = None
    """Its own end, beside those that the rules have for all."""


@frozen
class RefreshRow:
    """A refresh token as it stands in the store."""

    token: Digest
    grant_id: str
    predecessor: Digest | None
    issued_at: float
    used_at: float | None
    """None while it is the newest of its family."""
    successor: bytes | None = field(repr=False)
    """The sealed pair that was given for it, until its grace ends."""


# --- verdicts -----------------------------------------------------------------


@frozen
class Redeem:
    """A grant is born: mint its first pair, and mark the code with it."""

    account_id: int
    request: AuthorizationRequest


@frozen
class Rotate:
    """Mint the next pair, and mark the refresh token as used."""

    grant_id: str


@frozen
class Replay:
    """Answer once more with the pair that was given before; nothing is minted."""

    grant_id: str
    successor: bytes = field(repr=False)


@frozen
class Refuse:
    """Nothing changes."""

    refusal: OAuthRefusal


@frozen
class EndGrant:
    """The grant ends, and the request is refused."""

    grant_id: str
    refusal: OAuthRefusal


CodeVerdict = Redeem | Refuse | EndGrant
RefreshVerdict = Rotate | Replay | Refuse | EndGrant

# --- the table ------------------------------------------------------------------


class State(Enum):
    """Where a grant stands."""

    OFFERED = "offered"
    """A code is out; the grant is not born."""
    LIVE = "live"
    ASLEEP = "asleep"
    """The account is dead: Forgejo refused its credential, or its person may not come in.  One
    sign-in of theirs, when they may, wakes all its grants."""
    ENDED = "ended"


class Event(Enum):
    """What is presented, or happens."""

    CODE = "its code, with all that belongs to it"
    CODE_WRONG = "its code, expired or with something wrong"
    CODE_AGAIN = "its code, a second time"
    REFRESH = "the newest refresh token"
    REPLAY = "a used refresh token within its grace"
    REUSE = "a used refresh token after its grace"
    REFRESH_WRONG = "a refresh token of it, by another client or with something wrong"
    EXPIRY = "idle or too old"
    REVOCATION = "revoked by client, person or operator, or to make room"
    CREDENTIAL_DIED = "Forgejo refuses the account's credential, or its person may not come in"
    SIGN_IN = "the person signs in again, and may come in"


class Act(Enum):
    """What is done about it."""

    REDEEM = "a grant and its first pair"
    ROTATE = "the next pair"
    REPLAY = "the same pair again"
    REFUSE = "refused"
    END = "refused, and the grant ends"
    NOTHING = ""


TRANSITIONS: Final[Mapping[tuple[State, Event], tuple[State, Act]]] = {
    (State.OFFERED, Event.CODE): (State.LIVE, Act.REDEEM),
    (State.OFFERED, Event.CODE_WRONG): (State.OFFERED, Act.REFUSE),
    (State.OFFERED, Event.CREDENTIAL_DIED): (State.OFFERED, Act.NOTHING),
    (State.LIVE, Event.CODE_WRONG): (State.LIVE, Act.REFUSE),
    # RFC 6749 §4.1.2: used twice, a code is denied "and SHOULD revoke (when possible) all
    # tokens previously issued based on that authorization code".
    (State.LIVE, Event.CODE_AGAIN): (State.ENDED, Act.END),
    (State.LIVE, Event.REFRESH): (State.LIVE, Act.ROTATE),
    (State.LIVE, Event.REPLAY): (State.LIVE, Act.REPLAY),
    # RFC 9700 §4.14.2: on reuse "the authorization server cannot determine which party
    # submitted the invalid refresh token, but it will revoke the active refresh token".
    (State.LIVE, Event.REUSE): (State.ENDED, Act.END),
    (State.LIVE, Event.REFRESH_WRONG): (State.LIVE, Act.REFUSE),
    (State.LIVE, Event.EXPIRY): (State.ENDED, Act.END),
    (State.LIVE, Event.REVOCATION): (State.ENDED, Act.NOTHING),
    (State.LIVE, Event.CREDENTIAL_DIED): (State.ASLEEP, Act.NOTHING),
    # Asleep, nothing is used up: the refresh token that is refused here works after the next
    # sign-in (design D7).
    (State.ASLEEP, Event.CODE_WRONG): (State.ASLEEP, Act.REFUSE),
    (State.ASLEEP, Event.CODE_AGAIN): (State.ENDED, Act.END),
    (State.ASLEEP, Event.REFRESH): (State.ASLEEP, Act.REFUSE),
    (State.ASLEEP, Event.REPLAY): (State.ASLEEP, Act.REFUSE),
    (State.ASLEEP, Event.REUSE): (State.ENDED, Act.END),
    (State.ASLEEP, Event.REFRESH_WRONG): (State.ASLEEP, Act.REFUSE),
    (State.ASLEEP, Event.EXPIRY): (State.ENDED, Act.END),
    (State.ASLEEP, Event.REVOCATION): (State.ENDED, Act.NOTHING),
    (State.ASLEEP, Event.SIGN_IN): (State.LIVE, Act.NOTHING),
}
"""Every step there is.  ENDED has none: it is for ever, whatever comes is refused."""

# --- judgements -----------------------------------------------------------------


def grant_end(grant: GrantRow) -> float:
    """When a grant ends at the latest, however much it is used; epoch seconds."""
    oldest = grant.created_at + limits.GRANT_LIFE
    return oldest if grant.expires_at is None else min(grant.expires_at, oldest)


def grant_live(grant: GrantRow, now: float) -> bool:
    """Whether a grant has neither ended, nor been idle too long, nor grown too old."""
    return (
        grant.ended_at is None
        and now < grant_end(grant)
        and now - grant.used_at < limits.GRANT_IDLE
    )


def judge_code(
    row: CodeRow | None,
    *,
    client_id: str,
    redirect_uri: str | None,
    verifier: str | None,
    resource_ok: bool = True,
    now: float,
) -> CodeVerdict:
    """
    What a presented code is worth, to an authenticated client.

    `resource_ok` is False where the token request names a resource that the authorization
    request did not.
    """
    if row is None:
        return Refuse(CODE_UNKNOWN)
    event, refusal = _code_event(row, client_id, redirect_uri, verifier, resource_ok, now)
    # A grant that sleeps or has ended takes a second use no better; to end it again is harmless.
    state = State.OFFERED if row.grant_id is None else State.LIVE
    _, act = TRANSITIONS[state, event]
    if act is Act.REDEEM:
        return Redeem(row.account_id, row.request)
    if act is Act.END and row.grant_id is not None:
        return EndGrant(row.grant_id, refusal)
    return Refuse(refusal)


def judge_refresh(
    row: RefreshRow | None,
    grant: GrantRow | None,
    *,
    client_id: str,
    successor_used: bool,
    account_dead: bool,
    now: float,
) -> RefreshVerdict:
    """What a presented refresh token is worth, to an authenticated client."""
    if row is None or grant is None or row.grant_id != grant.grant_id:
        return Refuse(REFRESH_UNKNOWN)
    event, refusal = _refresh_event(row, grant, client_id, successor_used, now)
    state = _state(grant, account_dead)
    _, act = TRANSITIONS.get((state, event), (state, Act.REFUSE))
    match act:
        case Act.ROTATE:
            return Rotate(grant.grant_id)
        case Act.REPLAY if row.successor is not None:
            return Replay(grant.grant_id, row.successor)
        case Act.END:
            return EndGrant(grant.grant_id, refusal)
        case _:
            return Refuse(refusal)


def _state(grant: GrantRow, account_dead: bool) -> State:
    if grant.ended_at is not None:
        return State.ENDED
    return State.ASLEEP if account_dead else State.LIVE


def _code_event(
    row: CodeRow,
    client_id: str,
    redirect_uri: str | None,
    verifier: str | None,
    resource_ok: bool,
    now: float,
) -> tuple[Event, OAuthRefusal]:
    """What a presented code is, and how it would be refused."""
    # RFC 6749 §4.1.3: "ensure that the authorization code was issued to the authenticated
    # confidential client, or if the client is public, [...] to client_id in the request".
    # Asked first, so that nobody else can end the grant with a code that leaked.
    if row.client_id != client_id:
        return Event.CODE_WRONG, CODE_CLIENT
    if row.grant_id is not None:
        return Event.CODE_AGAIN, CODE_REUSED
    if now >= row.expires_at:
        return Event.CODE_WRONG, CODE_EXPIRED
    # RFC 6749 §4.1.3 has redirect_uri sent again and identical; OAuth 2.1 §10.2 has it left
    # out, since PKCE does its work.  So: identical where it is sent.
    if redirect_uri is not None and redirect_uri != row.request.redirect_uri:
        return Event.CODE_WRONG, CODE_REDIRECT
    # RFC 9700 §2.1.1: a challenge in the authorization request makes the verifier required;
    # here every request has one.
    if verifier is None:
        return Event.CODE_WRONG, CODE_VERIFIER_MISSING
    if not verifier_matches(row.request.challenge, verifier):
        return Event.CODE_WRONG, CODE_VERIFIER
    # RFC 8707 §2.2: the resource of a token request is one of those authorized.
    if not resource_ok:
        return Event.CODE_WRONG, RESOURCE_FOREIGN
    return Event.CODE, ACCOUNT_DEAD


def _refresh_event(
    row: RefreshRow, grant: GrantRow, client_id: str, successor_used: bool, now: float
) -> tuple[Event, OAuthRefusal]:
    """What a presented refresh token is, and how it would be refused."""
    # RFC 6749 §6: "ensure that the refresh token was issued to the authenticated client".
    if grant.client_id != client_id:
        return Event.REFRESH_WRONG, REFRESH_CLIENT
    if grant.ended_at is not None:
        return Event.REFRESH, GRANT_OVER
    if not grant_live(grant, now):
        return Event.EXPIRY, GRANT_EXPIRED
    if row.used_at is None:
        return Event.REFRESH, ACCOUNT_DEAD
    # The grace is over at its time, at the first use of the successor, or when the sealed pair
    # was dropped; whoever still holds a used token then is not one of two racing threads.
    in_grace = now - row.used_at < limits.REFRESH_GRACE
    if in_grace and not successor_used and row.successor is not None:
        return Event.REPLAY, ACCOUNT_DEAD
    return Event.REUSE, REFRESH_REUSED
