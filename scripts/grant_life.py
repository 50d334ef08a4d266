"""
The life of a grant, as docs/protocol.md tells it: drawn from the table of `fjmcp.oauth.grants`.

What a client is answered is not written here: each event is made up of rows, and judged.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from attrs import evolve

from fjmcp import limits, refusals
from fjmcp.oauth import grants
from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.grants import TRANSITIONS, Act, CodeRow, Event, GrantRow, RefreshRow, State
from fjmcp.oauth.tokens import Digest
from fjmcp.refusals import McpRefusal, OAuthRefusal

# --- the table --------------------------------------------------------------------


def diagram() -> str:
    """The table as a diagram: one arrow for all that leads from one state to another."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (before, event), (after, act) in TRANSITIONS.items():
        what = f"{event.value} / {act.value}" if act.value else event.value
        arrows.setdefault((before, after), []).append(what)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.OFFERED.value}"]
    for (before, after), events in arrows.items():
        lines.append(f"    {before.value} --> {after.value} : {'<br/>'.join(events)}")
    return "\n".join([*lines, f"    {State.ENDED.value} --> [*]", "```"])


def steps() -> str:
    """The table as a table, with what a client is answered."""
    lines = ["| what comes | to a grant that is | then it is | the client gets |"]
    lines.append("|---|---|---|---|")
    for event in Event:
        rows: dict[tuple[str, str], list[str]] = {}
        for (before, each), (after, act) in TRANSITIONS.items():
            if each is event:
                then = "as it was" if after is before else after.value
                rows.setdefault((then, _answer(before, event, act)), []).append(before.value)
        for (then, got), befores in rows.items():
            lines.append(f"| {event.value} | {' or '.join(befores)} | {then} | {got} |")
    return "\n".join(lines)


def _answer(state: State, event: Event, act: Act) -> str:
    """What a client gets."""
    match act, event:
        case ((Act.REDEEM | Act.ROTATE), _):
            return "tokens"
        case Act.REPLAY, _:
            return "the same tokens again"
        case _, Event.REVOCATION:
            return f"from then on {_at_mcp(refusals.BAD_TOKEN)}"
        case _, Event.CREDENTIAL_DIED:
            return "nothing" if state is State.OFFERED else _at_mcp(refusals.CREDENTIAL_DEAD)
        case _, Event.SIGN_IN:
            return "nothing; what it has works again"
        case _:
            return " or ".join(sorted({_wire(each) for each in _refusals(event)}))


# --- what is answered ---------------------------------------------------------------

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=")
NOW = limits.GRANT_LIFE
LONG_AGO = NOW - limits.GRANT_IDLE
REQUEST = AuthorizationRequest(
    client_id="the client",
    redirect_uri="http://127.0.0.1/callback",
    state=None,
    challenge=CHALLENGE.decode(),
    scopes="forge:read",
    resource="https://mcp.example.org/mcp",
)
CODE = CodeRow("the client", 1, REQUEST, NOW + 1, None)
GRANT = GrantRow("the grant", 1, "the client", "forge:read", LONG_AGO, NOW, None, None)
NEWEST = RefreshRow(Digest(b""), "the grant", None, NOW, None, None)
USED = evolve(NEWEST, used_at=NOW, successor=b"sealed")


def _refusals(event: Event) -> Iterator[OAuthRefusal]:
    """Every way in which a request that is this event is refused."""
    match event:
        case Event.CODE_WRONG:
            yield _code(CODE, client_id="another")
            yield _code(CODE, now=NOW + 1)
            yield _code(CODE, redirect_uri="http://127.0.0.1/elsewhere")
            yield _code(CODE, verifier=None)
            yield _code(CODE, verifier="w" * 43)
            yield _code(CODE, resource_ok=False)
        case Event.CODE_AGAIN:
            yield _code(evolve(CODE, grant_id="the grant"))
        case Event.REFRESH:
            yield _token(NEWEST, account_dead=True)
        case Event.REPLAY:
            yield _token(USED, account_dead=True)
        case Event.REUSE:
            yield _token(evolve(USED, successor=None))
        case Event.REFRESH_WRONG:
            yield _token(NEWEST, client_id="another")
            # Judged by the issuer, of a token that is good.
            yield refusals.RESOURCE_FOREIGN
            yield refusals.SCOPE_WIDENED
        case Event.EXPIRY:
            yield _token(NEWEST, evolve(GRANT, used_at=LONG_AGO))


def _code(
    row: CodeRow,
    *,
    client_id: str = "the client",
    redirect_uri: str | None = None,
    verifier: str | None = VERIFIER,
    resource_ok: bool = True,
    now: float = NOW,
) -> OAuthRefusal:
    verdict = grants.judge_code(
        row,
        client_id=client_id,
        redirect_uri=redirect_uri,
        verifier=verifier,
        resource_ok=resource_ok,
        now=now,
    )
    assert isinstance(verdict, grants.Refuse | grants.EndGrant), verdict
    return verdict.refusal


def _token(
    row: RefreshRow,
    grant: GrantRow = GRANT,
    *,
    client_id: str = "the client",
    account_dead: bool = False,
) -> OAuthRefusal:
    verdict = grants.judge_refresh(
        row, grant, client_id=client_id, successor_used=False, account_dead=account_dead, now=NOW
    )
    assert isinstance(verdict, grants.Refuse | grants.EndGrant), verdict
    return verdict.refusal


def _wire(refusal: OAuthRefusal) -> str:
    return f"{refusal.status} `{refusal.error}`"


def _at_mcp(refusal: McpRefusal) -> str:
    return f"{refusal.status} `{refusal.challenge}` at `/mcp`"


# --- errors -------------------------------------------------------------------------

TOKEN_ENDPOINT = (
    refusals.CODE_UNKNOWN,
    refusals.CODE_EXPIRED,
    refusals.CODE_CLIENT,
    refusals.CODE_REDIRECT,
    refusals.CODE_VERIFIER_MISSING,
    refusals.CODE_VERIFIER,
    refusals.CODE_REUSED,
    refusals.REFRESH_UNKNOWN,
    refusals.REFRESH_CLIENT,
    refusals.REFRESH_REUSED,
    refusals.GRANT_OVER,
    refusals.GRANT_EXPIRED,
    refusals.ACCOUNT_DEAD,
    *(refusals.asleep(refusals.ACCOUNT_DEAD, reason) for reason in refusals.WHY_ASLEEP),
    refusals.CLIENT_UNKNOWN,
    refusals.CLIENT_SECRET_WRONG,
    refusals.CLIENT_AUTH_METHOD,
    refusals.CLIENT_AUTH_MALFORMED,
    refusals.CLIENT_UNNAMED,
    refusals.CLIENT_NOT_TAKEN,
    refusals.RESOURCE_FOREIGN,
    refusals.SCOPE_WIDENED,
    refusals.GRANT_TYPE_UNSUPPORTED,
    refusals.GRANT_TYPE_MISSING,
    refusals.CODE_MISSING,
    refusals.REFRESH_TOKEN_MISSING,
    refusals.CLIENT_AUTH_TWICE,
    refusals.PARAMETER_TWICE,
    refusals.FORM_TYPE,
    refusals.FORM_MALFORMED,
    refusals.OAUTH_STORE_DOWN,
    refusals.TOO_MANY_OF_GRANT,
    refusals.TOO_MANY_OF_CLIENT,
    refusals.TOO_MANY_OF_ADDRESS,
    refusals.TOO_MANY,
)
"""How the token endpoint refuses, what comes first standing first."""


def errors() -> str:
    """Each error of the token endpoint, with the sentences that say why."""
    rows: dict[tuple[int, str], list[str]] = {}
    for refusal in TOKEN_ENDPOINT:
        rows.setdefault((refusal.status, refusal.error), []).append(refusal.description)
    lines = ["| status | error | its description |", "|---|---|---|"]
    for (status, error), sentences in rows.items():
        lines.append(f"| {status} | `{error}` | {'<br/>'.join(sentences)} |")
    return "\n".join(lines)
