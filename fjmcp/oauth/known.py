"""
Assistants that are known: the addresses that they come back to, and their metadata documents.

An address is proved by where the code goes, a name is not: so what is known here
is shown by the whole address alone.  Its host is not enough: a known host also
serves what its users publish.  The documents stand in for those that cannot be fetched
and never were: hosts of big assistants answer some networks with 402, 403 or HTML.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from fjmcp.oauth import redirects


@frozen
class Assistant:
    """
    A product that many people use.

    :ivar name: what people call it.
    :ivar hosts: those of its maker that it comes back to.
    :ivar callbacks: the addresses there to which it is sent back, in full.
    :ivar also: what else an impostor would call itself: short names, products that go by it, and
        the maker, if it makes little else that signs in here.
    :ivar forwards: whether those addresses send the browser on to where the client's `state` says.
    """

    name: str
    maker: str
    hosts: frozenset[str]
    callbacks: re.Pattern[str]
    also: tuple[str, ...] = ()
    forwards: bool = False


_CONNECTOR_ID: Final = r"[A-Za-z0-9_-]{1,64}"
"""What ChatGPT calls one connector of somebody's."""

ASSISTANTS: Final = (
    Assistant(
        "Claude",
        "Anthropic",
        frozenset({"claude.ai", "claude.com"}),
        re.compile(r"https://claude\.(ai|com)/api/mcp/auth_callback"),
        also=("Anthropic",),
    ),
    Assistant(
        "ChatGPT",
        "OpenAI",
        frozenset({"chatgpt.com"}),
        re.compile(
            r"https://chatgpt\.com/"
            rf"(connector_platform_oauth_redirect|connector/oauth/{_CONNECTOR_ID})"
        ),
        also=("OpenAI", "Codex"),
    ),
    Assistant(
        "Visual Studio Code",
        "Microsoft",
        frozenset({"vscode.dev", "insiders.vscode.dev"}),
        re.compile(r"https://(insiders\.)?vscode\.dev/redirect"),
        also=("VS Code", "GitHub Copilot"),
        forwards=True,
    ),
    Assistant(
        "Cursor",
        "Anysphere",
        frozenset({"cursor.com", "www.cursor.com"}),
        re.compile(r"https://www\.cursor\.com/agents/mcp/oauth/callback"),
        also=("Anysphere",),
    ),
)

HOSTS: Final = frozenset().union(*(each.hosts for each in ASSISTANTS))
"""Every host of them."""


def assistant(redirect_uri: str) -> Assistant | None:
    """The known assistant whose callback this is, letter by letter."""
    return next((each for each in ASSISTANTS if each.callbacks.fullmatch(redirect_uri)), None)


def at_host(redirect_uri: str) -> Assistant | None:
    """The known assistant on whose host a judged redirect URI is, callback or not."""
    if not redirect_uri.startswith("https://"):
        return None
    host = redirects.host(redirect_uri)
    return next((each for each in ASSISTANTS if host in each.hosts), None)


def forwards(redirect_uri: str) -> bool:
    """
    Whether a judged redirect URI is on a host that sends browsers on.

    Where to, says whoever made the link: to a private scheme or to loopback as a
    rule.  The host as a whole, since its server may read other paths as the same.
    """
    owner = at_host(redirect_uri)
    return owner is not None and owner.forwards


# --- names ------------------------------------------------------------------------

# What a hurried eye takes for the Latin letters of the names above: letters of other scripts and
# signs.  i, j and l are one, since a capital I looks like an l.
_LOOKALIKES: Final = {
    **str.maketrans(
        "\u0430\u0441\u0501\u0435\u050d\u04bb\u043d\u0456\u0458\u04cf\u043e\u0440\u0455\u0442\u0443\u0475",
        "acdeghhlllopstyv",
    ),
    **str.maketrans("\u03b1\u03f2\u03b5\u03b7\u03b9\u03bf\u03c1\u03c4\u03c5\u03bd", "acehloptuv"),
    **str.maketrans("\u03bb\u03c7\u0445\u0251\u028c\u0254\u0269\u028a", "axxaaclu"),
    **str.maketrans("ij01!|345@\u20ac", "llollleasae"),
    **str.maketrans("\u2223\u23d0\u01c0\u212e", "llle"),
}

_LATIN: Final = re.compile(r".*\b(?:LATIN|REGIONAL INDICATOR)\b.* ([A-Z])(?: WITH .+)?")
"""Unicode's name of a variety of a Latin letter: a small capital, with a stroke, in a circle."""

_UNKNOWN: Final = "?"
"""Stands for a letter of which nobody can say what an eye takes it for."""


def _letter(character: str) -> str:
    if unicodedata.combining(character):
        return ""
    if ord(character) not in _LOOKALIKES and not character.isascii():
        latin = _LATIN.fullmatch(unicodedata.name(character, ""))
        character = character if latin is None else latin[1].lower()
    read = character.translate(_LOOKALIKES)
    if not read.isalnum():
        return " "
    return read if read.isascii() else _UNKNOWN


def _words(text: str) -> list[str]:
    """The words that an eye makes of a name: without case, accents and tricks."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(map(_letter, plain)).split()


_OTHER_WORDS: Final = frozenset(
    "".join(_words(word))
    for word in (
        *("claudette", "cursory", "precursor", "precursors", "recursor", "recursors"),
        *("misanthropic", "philanthropic"),
    )
)
"""What has one of the names in it and means something else, as it is read."""


def _stands_in(name: str, said: str) -> bool:
    # An unknown letter stands for any; but at most half of a name may be guessed.
    for start in range(len(said) - len(name) + 1):
        part = said[start : start + len(name)]
        alike = all(there in (letter, _UNKNOWN) for there, letter in zip(part, name, strict=True))
        if alike and part.count(_UNKNOWN) * 2 <= len(name):
            return True
    return False


@frozen
class Claim:
    """A name of an assistant's by which a client calls itself."""

    name: str
    assistant: Assistant


def called(name: str) -> tuple[Claim, ...]:
    """The known assistants after which a client calls itself, rightly or not."""
    # Spaces are passed over, but for whole words that are innocent.
    said = "".join(word for word in _words(name) if word not in _OTHER_WORDS)
    claims = []
    for each in ASSISTANTS:
        names = (each.name, *each.also)
        found = next((one for one in names if _stands_in("".join(_words(one)), said)), None)
        if found is not None:
            claims.append(Claim(found, each))
    return tuple(claims)


# --- documents --------------------------------------------------------------------

_BOTH: Final = ["authorization_code", "refresh_token"]

_DOCUMENTS: Final[tuple[dict[str, Any], ...]] = (
    {
        "client_id": "https://claude.ai/oauth/mcp-oauth-client-metadata",
        "client_name": "Claude",
        "client_uri": "https://claude.ai",
        "redirect_uris": [
            "https://claude.ai/api/mcp/auth_callback",
            # Announced; a copy that knows it outlives the change.
            "https://claude.com/api/mcp/auth_callback",
        ],
        "grant_types": _BOTH,
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    {
        "client_id": "https://claude.ai/oauth/claude-code-client-metadata",
        "client_name": "Claude Code",
        "client_uri": "https://claude.ai",
        "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
        "grant_types": _BOTH,
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    {
        "client_id": "https://chatgpt.com/oauth/client.json",
        "client_name": "ChatGPT",
        "client_uri": "https://chatgpt.com/",
        "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
        "grant_types": _BOTH,
        "response_types": ["code"],
        # It would rather sign assertions, and does without where nobody offers to read them.
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
    },
    {
        "client_id": "https://chatgpt.com/oauth/codex/client.json",
        "client_name": "Codex",
        "client_uri": "https://chatgpt.com/",
        "redirect_uris": ["http://127.0.0.1/callback", "http://localhost/callback"],
        "grant_types": _BOTH,
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    {
        "client_id": "https://vscode.dev/oauth/client-metadata.json",
        "client_name": "Visual Studio Code",
        "client_uri": "https://code.visualstudio.com",
        "redirect_uris": ["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
        "grant_types": [*_BOTH, "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    },
)

DOCUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {each["client_id"]: each for each in _DOCUMENTS}
"""What these clients publish at the URL that is their name, as of November 2026."""

_CONNECTOR: Final = re.compile(rf"https://chatgpt\.com/oauth/({_CONNECTOR_ID})/client\.json")


def shipped(client_id: str) -> Mapping[str, Any] | None:
    """The document of a known client, for when it cannot be had from its own host."""
    found = DOCUMENTS.get(client_id)
    connector = _CONNECTOR.fullmatch(client_id)
    if found is None and connector is not None:
        # Each connector of ChatGPT has a document and a callback of its own.
        callback = f"https://chatgpt.com/connector/oauth/{connector[1]}"
        stable = DOCUMENTS["https://chatgpt.com/oauth/client.json"]
        return {**stable, "client_id": client_id, "redirect_uris": [callback]}
    return found
