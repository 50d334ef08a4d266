"""
One look at the API: who somebody is, and whether they may come in.

Taken at each sign-in and after each refresh at Forgejo, since nothing else
tells: Forgejo refreshes and introspects for people whom it has blocked, and an
operator's rule (`fjmcp.forge.admission`) is about what a person is now.

Only a clear no is one.  Whatever Forgejo does not say leaves it undecided, and
what that means is for the asker: nobody signs in by it, and nobody is put to
sleep.
"""

from __future__ import annotations

from typing import Protocol

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp import limits
from fjmcp.forge.admission import Admission, Person
from fjmcp.forge.answers import Refused, Troubled
from fjmcp.forge.people import User
from fjmcp.forge.tokens import ForgeToken
from fjmcp.refusals import (
    ACCOUNT_PROHIBITED,
    NOT_LET_IN,
    SCOPE_TOO_NARROW,
    SIGN_IN_MIXED_UP,
    SIGN_IN_REFUSED,
    SIGN_IN_TROUBLED,
    OAuthRefusal,
)


class Directory(Protocol):
    """What Forgejo says of people, each asked with their own token."""

    async def user(self, access: ForgeToken) -> User | Refused | Troubled:
        """Whose token it is, by the API."""

    async def in_organization(
        self, access: ForgeToken, user: User, organization: str
    ) -> bool | Refused | Troubled:
        """Whether they belong to an organization."""

    async def in_team(
        self, access: ForgeToken, user: User, organization: str, team: str
    ) -> bool | Refused | Troubled:
        """Whether they are in a team of an organization."""


@frozen
class Admitted:
    """They may come in.  `login`: None where Forgejo does not let us ask, nor the rule need it."""

    login: str | None


@frozen
class Denied:
    """They may not; the refusal's reason is that for which a known account sleeps."""

    refusal: OAuthRefusal


@frozen
class Undecided:
    """It is not known; the refusal is what a sign-in gets."""

    refusal: OAuthRefusal


Verdict = Admitted | Denied | Undecided


@define(eq=False)
class Looks:
    """Looks at people, by the rule that holds."""

    log = Logger()
    _directory: Directory
    _clock: IReactorTime
    admission: Admission = field(factory=Admission)

    async def look(self, access: ForgeToken, account_id: int) -> Verdict:
        """
        Whether the person of this token, who is to be this account, may come in.

        Comes back after `limits.FORGE_LOOK` at the latest.
        """
        work = Deferred.fromCoroutine(self._look(access, account_id))
        try:
            verdict = await work.addTimeout(limits.FORGE_LOOK, self._clock)
        except TimeoutError:
            verdict = self._undecided(SIGN_IN_TROUBLED, "timeout", account_id)
        if isinstance(verdict, Denied):
            self.log.info(
                "not let in",
                account=account_id,
                login=verdict.refusal.login,
                reason=verdict.refusal.reason,
            )
        return verdict

    async def _look(self, access: ForgeToken, account_id: int) -> Verdict:
        # One rule for the whole look: a reload may bring another.
        rule = self.admission
        user = await self._directory.user(access)
        if isinstance(user, Refused) and user.error == "insufficient_scope" and rule.everybody:
            return Admitted(None)  # Forgejo looks for a block before it looks at scopes
        if not isinstance(user, User):
            return self._unsaid(user, account_id, "")
        if user.account_id != account_id:
            self.log.critical("introspection and API name different people", account=account_id)
            return Undecided(SIGN_IN_MIXED_UP)
        person = Person(user.login, user.is_admin)
        refusal = rule.judge(person)
        if refusal is NOT_LET_IN:
            # Only whom the rest does not admit.
            found = await self._found(rule, access, user, person)
            if not isinstance(found, Person):
                return self._unsaid(found, account_id, user.login)
            refusal = rule.judge(found)
        if refusal is None:
            return Admitted(user.login)
        return _denied(refusal, user.login)

    async def _found(
        self, rule: Admission, access: ForgeToken, user: User, person: Person
    ) -> Person | Refused | Troubled:
        """The person, with the first organization or team of the rule in which they are."""
        for organization in rule.organizations:
            said = await self._directory.in_organization(access, user, organization)
            if not isinstance(said, bool):
                return said
            if said:
                return evolve(person, organizations=[organization])
        for organization, team in rule.teams:
            said = await self._directory.in_team(access, user, organization, team)
            if not isinstance(said, bool):
                return said
            if said:
                return evolve(person, teams=[f"{organization}:{team}"])
        return person

    def _unsaid(self, said: Refused | Troubled, account_id: int, login: str) -> Verdict:
        match said:
            case Refused(error="prohibited"):
                return _denied(ACCOUNT_PROHIBITED, login)
            case Refused(error="insufficient_scope"):
                # The grant at Forgejo is older than the rule, or the person narrowed it: if
                # that were no no, who lets us see too little would come in.
                return _denied(SCOPE_TOO_NARROW, login)
            case Refused():
                return self._undecided(SIGN_IN_REFUSED, said.error, account_id)
            case Troubled():
                return self._undecided(SIGN_IN_TROUBLED, said.reason, account_id)

    def _undecided(self, refusal: OAuthRefusal, reason: str, account_id: int) -> Undecided:
        self.log.error(
            "Forgejo does not say who an account is: {reason}", account=account_id, reason=reason
        )
        return Undecided(refusal)


def _denied(refusal: OAuthRefusal, login: str) -> Denied:
    return Denied(evolve(refusal, login=login) if login else refusal)
