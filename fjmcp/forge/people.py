"""
Who somebody is, by the API: the account, its organizations and its teams.

Only the API says whether an account may work: introspection and refresh go
well for one that is blocked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from attrs import frozen

from fjmcp import limits
from fjmcp.forge.answers import Answer, Refused, Troubled, api_refusal, trouble
from fjmcp.forge.tokens import ForgeToken, scrub

USER: Final = "/api/v1/user"
"""Needs read:user."""

ORGANIZATIONS: Final = "/api/v1/user/orgs"
"""Those that the account belongs to, private ones too.  Needs read:user and read:organization."""

TEAMS: Final = "/api/v1/user/teams"
"""Those that the account is in, of every organization, which stands in each.  Needs read:user."""

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


def organization_name(entry: Mapping[str, Any]) -> str | None:
    """The name in an entry of `ORGANIZATIONS`."""
    name = entry.get("name")
    return name if isinstance(name, str) else None


def team_name(entry: Mapping[str, Any]) -> str | None:
    """`organization:team` of an entry of `TEAMS`."""
    organization, name = entry.get("organization"), entry.get("name")
    of = organization_name(organization) if isinstance(organization, dict) else None
    # Neither has a colon in its name at Forgejo.
    return f"{of}:{name}" if of is not None and isinstance(name, str) else None


async def names(
    get: Get, path: str, access: ForgeToken, name_of: Callable[[Mapping[str, Any]], str | None]
) -> frozenset[str] | Refused | Troubled:
    """
    The names of all entries of a list, which comes in pages.

    A page may be shorter than asked for (Forgejo has a bound of its own), so the
    end is where the count says, or a page is empty.  Less than all is trouble:
    what is missing may be what matters.
    """
    found: dict[int, str] = {}
    for page in range(1, limits.FORGE_PAGES + 1):
        answer = await get(f"{path}?page={page}&limit={limits.FORGE_PAGE}")
        if isinstance(answer, Troubled):
            return answer
        refused = api_refusal(answer, access)
        if refused is not None:
            return refused
        entries = answer.entries()
        if answer.status != 200 or entries is None:
            return trouble(answer)
        for entry in entries:
            name = name_of(entry) if isinstance(entry, dict) else None
            number = entry.get("id") if name is not None else None
            if name is None or type(number) is not int:
                return trouble(answer)
            found[number] = name
        if answer.total is not None and len(found) >= answer.total:
            return frozenset(found.values())
        if not entries:
            # Somebody joined or left while the pages were turned.
            whole = answer.total is None
            return frozenset(found.values()) if whole else Troubled("incomplete")
    return Troubled("too-many")
