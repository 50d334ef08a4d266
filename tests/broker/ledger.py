"""
What must have become of every grant, and what every request must be answered.

A `Grant` stands in a `State` and moves by `TRANSITIONS` alone; which event a
request is, is told from what was sent and when, by the words of design D14.
Nothing here looks into the store.
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import define, field, frozen

from fjmcp import limits
from fjmcp.oauth.clients import Client
from fjmcp.oauth.grants import TRANSITIONS, Act, Event, State
from fjmcp.refusals import BAD_TOKEN, CREDENTIAL_DEAD, McpRefusal

ENDS: Final = frozenset({Event.CODE_AGAIN, Event.REUSE, Event.EXPIRY, Event.REVOCATION})
"""What ends a grant that was born, by the words of design D14; the table may not say otherwise."""

# --- grants -------------------------------------------------------------------


@define(eq=False)
class Link:
    """One pair of a family, and what its client was told of it."""

    expires_at: float
    """End of the access token."""
    access: str | None = field(default=None, repr=False)
    refresh: str | None = field(default=None, repr=False)
    """None, both of them, where the answer was lost."""
    used_at: float | None = None


@define(eq=False)
class Grant:
    """One authorization: from the code that leaves with the browser to the end."""

    account: int
    client: Client
    code: str = field(repr=False)
    code_ends: float
    scopes: str
    state: State = State.OFFERED
    grant_id: str | None = None
    """Its name in the store, once it is born."""
    born: float = 0.0
    used: float = 0.0
    family: list[Link] = field(factory=list)

    def meets(self, event: Event) -> Act:
        """Take the step of the table; where there is none, it is refused."""
        self.state, act = TRANSITIONS.get((self.state, event), (self.state, Act.REFUSE))
        return act

    def aged(self, now: float) -> bool:
        """Whether it was idle too long, or is too old."""
        return now >= self.used + limits.GRANT_IDLE or now >= self.born + limits.GRANT_LIFE

    @property
    def over(self) -> bool:
        """Whether it was born and has ended."""
        return self.state is State.ENDED

    @property
    def stands(self) -> bool:
        """Whether it was born and has not ended."""
        return self.state in (State.LIVE, State.ASLEEP)

    @property
    def told(self) -> list[Link]:
        """The pairs that its client knows, oldest first."""
        return [link for link in self.family if link.access is not None]


# --- what is asked --------------------------------------------------------------


@frozen(eq=False, kw_only=True)
class Ask:
    """A request: about which grant, at which process, from whom."""

    grant: Grant
    place: int = 0
    client: Client
    secret: Literal["its own", "another", "none"] = "its own"
    """What is sent as the client's secret; a public client has none."""

    @property
    def proven(self) -> bool:
        """Whether the client proves who it is."""
        return self.secret == "its own" or (self.secret == "none" and not self.client.secrets)


@frozen(eq=False, kw_only=True)
class Redeem(Ask):
    """A code for tokens; what is not right is False."""

    verifier: bool = True
    redirect: bool = True
    ours: bool = True
    """Whether the resource that it names is this server."""


@frozen(eq=False, kw_only=True)
class Refresh(Ask):
    """A refresh token for the next tokens."""

    link: Link
    scope: str | None = None
    ours: bool = True


@frozen(eq=False, kw_only=True)
class Revoke(Ask):
    """The end of a grant, by either token of a pair."""

    link: Link
    by_access: bool = False


@frozen(eq=False, kw_only=True)
class End(Ask):
    """The end of a grant, by the operator."""


@frozen(eq=False, kw_only=True)
class Use(Ask):
    """An access token in a request to /mcp."""

    link: Link


@frozen
class Verdict:
    """What a request must come to."""

    act: Act
    error: str = ""
    """The error of the answer (RFC 6749 §5.2), where it is refused."""
    link: Link | None = None
    """The pair that is answered."""
    ended: tuple[Grant, ...] = ()


# --- the ledger -------------------------------------------------------------------


@define(eq=False)
class Ledger:
    """Every grant that there was, in the order of their codes."""

    grants: list[Grant] = field(factory=list)
    dead: set[int] = field(factory=set)
    """Accounts whose credential Forgejo refused."""
    steps: set[tuple[State, Event]] = field(factory=set)
    """The steps of the table that were taken."""

    def standing(self, account: int) -> list[Grant]:
        """The grants of an account that were born and have not ended."""
        return [grant for grant in self.grants if grant.account == account and grant.stands]

    def redeem(self, ask: Redeem, now: float) -> Verdict:
        """A code is presented by a client that proved who it is."""
        grant = ask.grant
        event, error = self._code(ask, now)
        act = self.step(grant, event)
        if act is not Act.REDEEM:
            return Verdict(act, error, ended=(grant,) if act is Act.END else ())
        grant.born = grant.used = now
        return Verdict(act, link=_link(grant, now), ended=self._make_room(grant.account))

    def refresh(self, ask: Refresh, now: float) -> Verdict:
        """A refresh token is presented by a client that proved who it is."""
        grant, link = ask.grant, ask.link
        event, error = self._token(ask, now)
        act = self.step(grant, event)
        match act:
            case Act.ROTATE:
                grant.used = link.used_at = now
                return Verdict(act, link=_link(grant, now))
            case Act.REPLAY:
                return Verdict(act, link=grant.family[grant.family.index(link) + 1])
            case _:
                return Verdict(act, error, ended=(grant,) if act is Act.END else ())

    def use(self, ask: Use, now: float) -> McpRefusal | None:
        """How an access token is refused by whoever asks the store; None if it is good."""
        grant = ask.grant
        if not grant.stands or grant.aged(now) or now >= ask.link.expires_at:
            return BAD_TOKEN
        return CREDENTIAL_DEAD if grant.state is State.ASLEEP else None

    def revoked(self, grant: Grant) -> None:
        """By client, person or operator."""
        self.step(grant, Event.REVOCATION)

    def expired(self, grant: Grant) -> None:
        """Idle or too old, and somebody looked."""
        self.step(grant, Event.EXPIRY)

    def died(self, account: int) -> None:
        """Forgejo refuses the account's credential, or its person may not come in."""
        self.dead.add(account)
        for grant in self.grants:
            if grant.account == account and grant.state in (State.OFFERED, State.LIVE):
                self.step(grant, Event.CREDENTIAL_DIED)

    def woke(self, account: int) -> None:
        """The person has signed in again, and may come in."""
        self.dead.discard(account)
        for grant in self.standing(account):
            self.step(grant, Event.SIGN_IN)

    def step(self, grant: Grant, event: Event) -> Act:
        """One step of one grant."""
        before = grant.state
        self.steps.add((before, event))
        act = grant.meets(event)
        assert grant.over or event not in ENDS
        assert not grant.over or event in ENDS or before is State.ENDED
        return act

    def _code(self, ask: Redeem, now: float) -> tuple[Event, str]:
        grant = ask.grant
        if ask.client is not grant.client:
            return Event.CODE_WRONG, "invalid_grant"
        if grant.state is not State.OFFERED:
            return Event.CODE_AGAIN, "invalid_grant"
        if now >= grant.code_ends or not ask.verifier or not ask.redirect:
            return Event.CODE_WRONG, "invalid_grant"
        if not ask.ours:
            return Event.CODE_WRONG, "invalid_target"
        if grant.account in self.dead:
            return Event.CODE_WRONG, "invalid_grant"
        return Event.CODE, ""

    def _token(self, ask: Refresh, now: float) -> tuple[Event, str]:
        grant, link = ask.grant, ask.link
        if ask.client is not grant.client:
            return Event.REFRESH_WRONG, "invalid_grant"
        if grant.aged(now):
            return Event.EXPIRY, "invalid_grant"
        event = Event.REFRESH
        if link.used_at is not None:
            # The successor's first use ends the grace before its time.
            successor = grant.family[grant.family.index(link) + 1]
            in_grace = now < link.used_at + limits.REFRESH_GRACE and successor.used_at is None
            event = Event.REPLAY if in_grace else Event.REUSE
        if grant.state is not State.LIVE or event is Event.REUSE:
            return event, "invalid_grant"
        if not ask.ours:
            return Event.REFRESH_WRONG, "invalid_target"
        if "forge:write" in (ask.scope or "").split() and "forge:write" not in grant.scopes:
            return Event.REFRESH_WRONG, "invalid_scope"
        return event, ""

    def _make_room(self, account: int) -> tuple[Grant, ...]:
        """Of more grants than an account may have, the longest idle ones end."""
        standing = sorted(self.standing(account), key=lambda grant: grant.used)
        too_many = standing[: max(0, len(standing) - limits.GRANTS_PER_ACCOUNT)]
        for grant in too_many:
            self.revoked(grant)
        return tuple(too_many)


def _link(grant: Grant, now: float) -> Link:
    """The next pair of a family."""
    link = Link(min(now + limits.ACCESS_TOKEN, grant.born + limits.GRANT_LIFE))
    grant.family.append(link)
    return link
