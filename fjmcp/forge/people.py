"""
Who somebody is, by the API: the account, and whether it is in an organization or a team.

Only the API says whether an account may work: introspection and refresh go
well for one that is blocked.

It is asked about one organization or team at a time, and never for all of
somebody's: anybody can make organizations without end, and put anybody in, so
such a list is as long as a stranger likes.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from attrs import frozen

from fjmcp import limits
from fjmcp.forge.admission import folded
from fjmcp.forge.answers import Answer, Refused, Troubled, api_refusal, trouble
from fjmcp.forge.tokens import ForgeToken, scrub

USER: Final = "/api/v1/user"
"""Needs read:user."""

ORGANIZATIONS: Final = "/api/v1/orgs"
"""Below it the members and the teams of each.  Needs read:organization."""

TEAMS: Final = "/api/v1/teams"
"""Below it, by number, the members of each.  Needs read:organization."""

NO_MEMBER: Final = "Must be an organization member"
"""What a 403 says to who asks for the teams of an organization without belonging to it."""

NO_TEAM_MEMBER: Final = "Must be a team member"
"""Likewise for the members of a team."""

Get = Callable[[str], Awaitable[Answer | Troubled]]
"""A GET of a path, as the person whose token it is."""


@frozen
class User:
    """Whose token it is."""

    account_id: int
    login: str
    is_admin: bool = False


def read_user(answer: Answer, access: ForgeToken) -> User | Refused | Troubled:
    """The account in an answer of `USER`."""
    refused = api_refusal(answer, access)
    if refused is not None:
        return refused
    said = answer.members()
    account_id, login, is_admin = said.get("id"), said.get("login"), said.get("is_admin")
    if (
        answer.status != 200
        or type(account_id) is not int
        or not isinstance(login, str)
        or not isinstance(is_admin, bool)
    ):
        return trouble(answer)
    return User(account_id, scrub(login), is_admin)


async def in_organization(
    get: Get, access: ForgeToken, user: User, organization: str
) -> bool | Refused | Troubled:
    """
    Whether this person, whose token it is, belongs to an organization.

    Whether it is private, and their membership too, does not matter.
    """
    place = f"members/{quote(user.login, safe='')}"
    answer = await get(_below(organization, place))
    if isinstance(answer, Troubled):
        return answer
    refused = api_refusal(answer, access)
    if refused is not None:
        return refused
    if answer.status == 204:
        return True
    if _is_none(answer) or _is_renamed(answer, organization, place):
        return False
    # Who does not belong to it is led to its public members.  The versions that we know tell
    # who asks about themselves 404 instead.
    if answer.status == 303 and _leads(answer, f"public_{place}") == folded(organization):
        return False
    return trouble(answer)


async def in_team(
    get: Get, access: ForgeToken, user: User, organization: str, team: str
) -> bool | Refused | Troubled:
    """Likewise, whether they are in a team of an organization."""
    number = await _number_of(get, access, organization, team)
    if number is None:
        return False
    if isinstance(number, Refused | Troubled):
        return number
    # An administrator finds every team, and a team may be shown to who is not in it.
    answer = await get(f"{TEAMS}/{number}/members/{quote(user.login, safe='')}")
    if isinstance(answer, Troubled):
        return answer
    refused = api_refusal(answer, access)
    if refused is not None:
        return refused
    if answer.status == 200 and answer.members().get("id") == user.account_id:
        return True
    return False if _is_none(answer) or _forbids(answer, NO_TEAM_MEMBER) else trouble(answer)


async def _number_of(
    get: Get, access: ForgeToken, organization: str, team: str
) -> int | Refused | Troubled | None:
    """
    The number of a team, as far as its organization shows it to who asks.

    The search finds every team that has these letters in its name, in pages.  A
    page may be shorter than asked for (Forgejo has a bound of its own), so the end
    is where the count says, or a page is empty.  One that stands behind
    `limits.FORGE_PAGES` of them is none: they are the work of the organization's
    own owners, who rule over who is in it anyway.
    """
    place, seen = "teams/search", set[int]()
    path = f"{_below(organization, place)}?q={quote(team, safe='')}&include_desc=false"
    for page in range(1, limits.FORGE_PAGES + 1):
        answer = await get(f"{path}&page={page}&limit={limits.FORGE_PAGE}")
        if isinstance(answer, Troubled):
            return answer
        refused = api_refusal(answer, access)
        if refused is not None:
            return refused
        if _is_none(answer) or _forbids(answer, NO_MEMBER):
            return None
        if _is_renamed(answer, organization, place):
            return None
        entries = answer.members().get("data")
        if answer.status != 200 or not isinstance(entries, list):
            return trouble(answer)
        for entry in entries:
            number, name = _read_team(entry)
            if number is None or name is None:
                return trouble(answer)
            if folded(name) == folded(team):
                return number
            seen.add(number)
        if answer.total is not None and len(seen) >= answer.total:
            return None
        if not entries:
            # With a count, somebody joined or left while the pages were turned.
            return None if answer.total is None else Troubled("incomplete")
    return None


def _read_team(entry: Any) -> tuple[int | None, str | None]:
    if not isinstance(entry, dict):
        return None, None
    number, name = entry.get("id"), entry.get("name")
    return (
        number if type(number) is int else None,
        name if isinstance(name, str) else None,
    )


# --- what is a no -----------------------------------------------------------------


def _below(organization: str, place: str) -> str:
    return f"{ORGANIZATIONS}/{quote(organization, safe='')}/{place}"


def _is_none(answer: Answer) -> bool:
    """Whether it is the 404 of the API: a gateway's, or one that knows no such path, is no no."""
    link = answer.members().get("url")
    return (
        answer.status == 404
        and bool(answer.message())
        and isinstance(link, str)
        and link.endswith("/api/swagger")
    )


def _forbids(answer: Answer, sentence: str) -> bool:
    return answer.status == 403 and answer.message() == sentence


def _is_renamed(answer: Answer, organization: str, place: str) -> bool:
    """Whether no organization has this name now: Forgejo leads to the one that had it."""
    leads = _leads(answer, place) if answer.status == 307 else None
    return leads is not None and leads != folded(organization)


def _leads(answer: Answer, place: str) -> str | None:
    """The organization below which a redirect leads to this place."""
    try:
        path = urlsplit(answer.location).path
    except ValueError:
        return None
    found = re.search(rf"{ORGANIZATIONS}/([^/]+)/{re.escape(place)}\Z", path)
    return None if found is None else folded(unquote(found[1]))
