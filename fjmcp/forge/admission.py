"""
Who may come in: an operator's rule over what Forgejo says of a person.

Forgejo compares its names without case, and they are ASCII.  Its own people may
change them: a login or an organization that is given up can be taken by
somebody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import field, frozen

from fjmcp.forge import scopes
from fjmcp.refusals import ADMIN_NOT_LET_IN, NOT_LET_IN, OAuthRefusal

PERSON_SCOPE: Final = "read:user"
"""What it takes to see who somebody is."""

ORGANIZATIONS_SCOPE: Final = "read:organization"
"""What it takes besides to see whether they are in an organization or a team."""


def folded(name: str) -> str:
    """A name as names are compared."""
    # Nothing beyond ASCII may become a letter of it: U+212A is a small k in lower case.
    return name.lower() if name.isascii() else name


def _folded(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(folded, names))


@frozen
class Person:
    """What Forgejo says of somebody, as far as it was asked."""

    login: str
    is_admin: bool
    organizations: frozenset[str] = field(default=frozenset(), converter=_folded)
    teams: frozenset[str] = field(default=frozenset(), converter=_folded)
    """Each as `organization:team`."""


@frozen
class Admission:
    """
    The rule.  Without users and organizations everybody may come in; with both,
    either suffices.  `deny_admins` holds beside them.
    """

    users: frozenset[str] = field(default=frozenset(), converter=_folded)
    """Logins."""
    orgs: frozenset[str] = field(default=frozenset(), converter=_folded)
    """Organizations, and teams as `organization:team`."""
    deny_admins: bool = False

    @property
    def everybody(self) -> bool:
        """Whether it does not matter who somebody is."""
        return not (self.users or self.orgs or self.deny_admins)

    @property
    def organizations(self) -> list[str]:
        """The organizations that somebody may belong to."""
        return sorted(name for name in self.orgs if ":" not in name)

    @property
    def teams(self) -> list[tuple[str, str]]:
        """The teams that somebody may be in, each with its organization before it."""
        # Neither has a colon in its name at Forgejo.
        split = (name.partition(":") for name in self.orgs if ":" in name)
        return sorted((organization, team) for organization, _, team in split)

    def judge(self, person: Person) -> OAuthRefusal | None:
        """Why this person may not come in; None if they may."""
        if self.deny_admins and person.is_admin:
            return ADMIN_NOT_LET_IN
        if not self.users and not self.orgs:
            return None
        if folded(person.login) in self.users or self.orgs & (person.organizations | person.teams):
            return None
        return NOT_LET_IN

    def lacks(self, configured: str) -> list[str]:
        """The scopes that it needs and that these configured ones do not allow."""
        needs = [] if self.everybody else [PERSON_SCOPE]
        if self.orgs:
            needs.append(ORGANIZATIONS_SCOPE)
        allowed = scopes.effective(configured)
        return [] if allowed is scopes.ALL else [scope for scope in needs if scope not in allowed]
