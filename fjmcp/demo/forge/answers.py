"""
An HTTP answer as a value, and reading what a request says.

The stand-in's routes return an `Answer`, so that one place can delay it, lose
it or count it.
"""

from __future__ import annotations

import html
import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from attrs import frozen
from twisted.web.server import Request

JSON_TYPE = "application/json;charset=utf-8"
HTML_TYPE = "text/html; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"

_STYLE = (
    "body{font-family:sans-serif;max-width:34em;margin:3em auto;padding:0 1em}label{display:block}"
)


@frozen
class Answer:
    """What a route answers; `headers` may name one header several times."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def adding(self, headers: Iterable[tuple[str, str]]) -> Answer:
        """The same answer with more headers."""
        return Answer(self.status, self.body, (*self.headers, *headers))

    def write(self, request: Request) -> bytes:
        """Set status and headers; answer the body, which the route returns."""
        request.setResponseCode(self.status)
        for name, value in self.headers:
            request.responseHeaders.addRawHeader(name, value)
        return self.body


def json_answer(value: Any, status: int = 200) -> Answer:
    """A JSON document."""
    return Answer(status, json.dumps(value).encode(), (("Content-Type", JSON_TYPE),))


def text_answer(text: str, status: int) -> Answer:
    """Plain text, as Forgejo answers outside its API."""
    return Answer(status, text.encode(), (("Content-Type", TEXT_TYPE),))


def page(title: str, content: str, status: int = 200) -> Answer:
    """An HTML page; `content` is markup, and its writer has escaped it."""
    heading = html.escape(title)
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{heading}</h1>\n{content}\n"
        "<p><small>This is a stand-in Forgejo. Nothing here is real.</small></p></body></html>\n"
    )
    return Answer(status, text.encode(), (("Content-Type", HTML_TYPE),))


def see_other(location: str) -> Answer:
    """A redirect; Forgejo's are all 303."""
    return Answer(303, b"", (("Location", location),))


def query_of(request: Request) -> dict[str, str]:
    """The URL's parameters; of one given twice, the first."""
    return _first(_pairs(request.uri.partition(b"?")[2]))


def form_of(request: Request) -> dict[str, str]:
    """
    What a POST says, form or JSON, and under it what its URL says.

    A body that can't be read says nothing: Forgejo's binding drops its errors.
    """
    body = request.content.read() if request.content is not None else b""
    kind = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
    said: dict[str, str] = {}
    if kind == "application/json":
        said = {k: v for k, v in json_of(body).items() if isinstance(v, str)}
    elif kind == "application/x-www-form-urlencoded":
        said = _first(_pairs(body))
    return query_of(request) | said


def json_of(body: bytes) -> dict[str, Any]:
    """A JSON object, or an empty one where the body is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def cookies_of(request: Request) -> dict[str, str]:
    """The cookies that came along."""
    header = request.getHeader("cookie") or ""
    pairs = (part.strip().partition("=") for part in header.split(";") if "=" in part)
    return {name: value for name, _, value in pairs}


def basic_of(request: Request) -> tuple[str, str] | bool:
    """
    User and password of a Basic header: False without one, True if broken.

    Forgejo decodes base64 and nothing further: no percent-decoding.
    """
    kind, _, data = (request.getHeader("authorization") or "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        user, colon, password = b64decode(data.strip(), validate=True).decode().partition(":")
    except (Base64Error, ValueError):
        return True
    return (user, password) if colon else True


def hidden(fields: Mapping[str, str]) -> str:
    """Hidden inputs of a form, escaped."""
    return "\n".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in fields.items()
    )


def _pairs(text: bytes) -> list[tuple[str, str]]:
    return parse_qsl(text.decode("utf-8", "replace"), keep_blank_values=True)


def _first(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    return dict(reversed(pairs))
