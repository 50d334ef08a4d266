"""
A client that an operator makes up and types into an assistant's advanced settings.

MCP calls that pre-registration: id and secret are agreed by people, and nothing
is registered or fetched.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from attrs import field, frozen

from fjmcp import limits
from fjmcp.oauth import redirects
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.metadata import GRANT_TYPES, NONE, POST, ClientMetadata, clean_name
from fjmcp.oauth.tokens import TokenText, digest
from fjmcp.refusals import OAuthRefusal

_NAMES: Final = ("id", "redirect", "name", "secret", "secret-file")
_TAKEN: Final = ("fj-", "token-", "https:", "http:")
"""Beginnings of ids that other kinds of clients have."""


@frozen
class Preregistered:
    """What was said of one; the secret may still be in its file."""

    client_id: str
    redirect_uris: tuple[str, ...]
    name: str
    secret: str | None = field(default=None, repr=False)
    secret_file: Path | None = None

    def client(self, secret: str | None) -> Client:
        """The client, with this secret or with none."""
        metadata = ClientMetadata(
            redirect_uris=self.redirect_uris,
            client_name=self.name,
            grant_types=GRANT_TYPES,
            token_endpoint_auth_method=NONE if secret is None else POST,
        )
        secrets = () if secret is None else (digest(TokenText(secret)),)
        return Client(self.client_id, secrets, metadata, 0.0, Source.CONFIGURED)


def parse(text: str) -> Preregistered:
    """
    From `id=… redirect=… [redirect=…] [name=…] [secret-file=…|secret=…]`, quoted as in a shell.

    :raises ValueError: with a sentence, which quotes no secret.
    """
    said: dict[str, list[str]] = {}
    for word in _split(text):
        name, equals, value = word.partition("=")
        if not equals or name.replace("_", "-") not in _NAMES:
            # Not quoted as a whole: it may be a secret that lost its name.
            raise ValueError(f"says something that is none of {', '.join(_NAMES)}, each with an =")
        said.setdefault(name.replace("_", "-"), []).append(value)
    for name in ("id", "name", "secret", "secret-file"):
        if len(said.get(name, [])) > 1:
            raise ValueError(f"says {name}= twice")
    client_id = _client_id(said.get("id", [""])[0])
    secret = said.get("secret", [None])[0]
    file = said.get("secret-file", [None])[0]
    if secret is not None and file is not None:
        raise ValueError("has both secret= and secret-file=")
    if secret is not None and not (secret.isascii() and secret.isprintable() and secret.strip()):
        raise ValueError("has a secret= that is empty, or not of visible ASCII characters")
    name = clean_name(said.get("name", [client_id])[0]) or client_id
    uris = _redirect_uris(said.get("redirect", []))
    return Preregistered(client_id, uris, name, secret, None if file is None else _path(file))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {error}") from None


def _client_id(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("needs an id= of visible ASCII characters")
    # RFC 6749 §2.3.1 and RFC 7617 §2: encoded once more or not, these read differently in Basic.
    if any(character in text for character in "+%:"):
        raise ValueError(f"has the id {text!r}; leave out +, % and :, which assistants may mangle")
    if text.lower().startswith(_TAKEN):
        raise ValueError(f"has the id {text!r}; such ids belong to other kinds of clients")
    return text


def _redirect_uris(texts: list[str]) -> tuple[str, ...]:
    if not texts:
        raise ValueError("needs a redirect= for each address that the assistant comes back to")
    if len(texts) > limits.REDIRECT_URIS:
        raise ValueError(f"has more than {limits.REDIRECT_URIS} redirect=")
    for text in texts:
        judged = redirects.judge(text)
        if isinstance(judged, OAuthRefusal):
            raise ValueError(f"has redirect={text}. {judged.description}")
    return tuple(dict.fromkeys(texts))


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ValueError("has an empty secret-file=")
    return Path(text).expanduser().absolute()
