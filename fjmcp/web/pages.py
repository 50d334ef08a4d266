"""
The pages that a person sees, from the templates beside this file.

A template is structure alone.  Its slots in capitals are texts of
`fjmcp.web.texts`, all others are values.  Every value is escaped by the template
engine, and the pages have no script and load nothing from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from importlib import resources
from string import Formatter
from types import MappingProxyType
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from twisted.web.template import Element, Tag, XMLString, flattenString, renderer

from fjmcp.oauth import redirects
from fjmcp.oauth.clients import Client, Source
from fjmcp.oauth.marks import Place, marks
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import OAuthRefusal
from fjmcp.web import texts

_FOLDER: Final = resources.files("fjmcp.web") / "templates"

STYLE: Final = (_FOLDER / "style.css").read_bytes()
STYLE_PATH: Final = "/oauth/style.css"

_EMPHASIS: Final = {
    # In quotes, and in a box: where a client's own words begin and end must be seen.
    "client": "q",
    "uri": "code",
    "error": "code",
}
"""The elements that values in texts are shown as; `strong` where none is named."""


@frozen
class _Template:
    """A template, and the texts that it has slots for."""

    loader: XMLString
    texts: tuple[str, ...]

    @classmethod
    def read(cls, name: str) -> _Template:
        """The template in this file."""
        source = (_FOLDER / name).read_text("utf-8")
        return cls(XMLString(source), tuple(re.findall(r'<t:slot name="([A-Z_]+)"', source)))


_CONSENT: Final = _Template.read("consent.xml")
_ANOTHER: Final = _Template.read("another.xml")
_ASKER: Final = _Template.read("asker.xml")
_ONWARD: Final = _Template.read("onward.xml")
_REFUSAL: Final = _Template.read("refusal.xml")
_EXPLAINED: Final = _Template.read("explained.xml")
_FRONT: Final = _Template.read("front.xml")


class _Page(Element):
    """
    A template with its slots filled.

    An element with `t:render="something"` stands there only if `shown` has that word.
    """

    def __init__(
        self,
        template: _Template,
        shown: Collection[str] = (),
        parts: Mapping[str, Element] = MappingProxyType({}),
        **values: str,
    ) -> None:
        super().__init__(loader=template.loader)
        self._shown = shown
        self._slots: dict[str, object] = {**values, **parts}
        for name in template.texts:
            worded = _worded(getattr(texts, name), values)
            if worded is not None:
                self._slots[name] = worded

    @renderer
    def page(self, request: IRequest | None, tag: Tag) -> Tag:
        """The whole of it."""
        return tag.fillSlots(**self._slots)  # type: ignore[arg-type]

    def lookupRenderMethod(self, name: str) -> Callable[[IRequest | None, Tag], Tag | str]:
        """Twisted's way to ask what an element with a `t:render` becomes."""
        if name == "page":
            return self.page
        return lambda request, tag: tag if name in self._shown else ""


def _worded(text: str, values: Mapping[str, str]) -> list[str | Tag] | None:
    """A text with the values that it names, each as an element; None if one is not there."""
    made: list[str | Tag] = []
    for words, name, _, _ in Formatter().parse(text):
        made.append(words)
        if name is not None:
            if name not in values:
                return None
            # Other people's words may run from right to left; `auto` keeps that inside.
            made.append(Tag(_EMPHASIS.get(name, "strong"))(values[name], dir="auto"))
    return made


def consent(
    client: Client, redirect_uri: str, forge: str, signin: TokenText, *, remembered: bool = False
) -> Deferred[bytes]:
    """
    Our consent page, which stands before Forgejo's sign-in.

    The specification wants the client's name, what it may do and where it goes back
    to (2025-11-25 security best practices, "Confused Deputy").  `remembered`:
    whether the answer will be.
    """
    return _html(
        _Page(
            _CONSENT,
            {"remembered"} if remembered else (),
            {"asker": _asker(client, redirect_uri)},
            client=_name(client),
            forge=forge,
            signin=signin.text,
        )
    )


def another(
    client: Client,
    redirect_uri: str,
    forge: str,
    signin: TokenText,
    *,
    known: str,
    came: str,
    remembered: bool = False,
) -> Deferred[bytes]:
    """
    The question to a person who came back from Forgejo as another than this browser's.

    It is their consent page, too: they may not have seen one.  `known` and `came`
    are logins; `remembered`: whether going on is a consent that will be.
    """
    return _html(
        _Page(
            _ANOTHER,
            {"remembered"} if remembered else (),
            {"asker": _asker(client, redirect_uri)},
            client=_name(client),
            forge=forge,
            signin=signin.text,
            known=known,
            came=came,
        )
    )


def _name(client: Client) -> str:
    return client.metadata.client_name or texts.NAMELESS


_SHOWN: Final = {
    Place.KNOWN: "known",
    Place.FORWARDING: "forwarding",
    Place.BESIDE: "beside",
    Place.STRANGE: "strange",
    Place.LOOPBACK: "loopback",
    Place.PRIVATE: "private",
}
"""What of `asker.xml` stands there for a client that goes back to such a place."""


def _asker(client: Client, redirect_uri: str) -> Element:
    """Where a client goes back to, what is known of that, and what it may do."""
    found = marks(client.metadata.client_name, redirect_uri)
    shown = {_SHOWN[found.place]}
    values = {"host": redirects.host(redirect_uri), "uri": redirect_uri}
    if found.owner is not None:
        values |= {"owner": found.owner.name, "maker": found.owner.maker}
    if found.posed is not None:
        shown.add("posed")
        values["posed"] = found.posed.name
    if client.source is Source.DOCUMENT:
        shown.add("document")
        values["document"] = redirects.host(client.client_id)
    return _Page(_ASKER, shown, {}, **values)


def onward(url: str) -> Deferred[bytes]:
    """
    A page that sends the browser on.

    Not a redirect: Chromium applies the consent form's `form-action` to every
    redirect that follows the form.
    """
    return _html(_Page(_ONWARD, url=url, host=redirects.host(url)))


def explained(refusal: OAuthRefusal, url: str, *, unseen: bool = False) -> Deferred[bytes]:
    """
    What is wrong, for the person to read before the client is told of it at `url`.

    `unseen`: they have seen no page before this one, and nobody knows who asks.
    """
    shown = {name for name, holds in (("unseen", unseen), ("whose", refusal.login)) if holds}
    words = {"says": refusal.description, "error": refusal.error, "login": refusal.login}
    return _html(_Page(_EXPLAINED, shown, {}, url=url, host=redirects.host(url), **words))


def refusal(refusal: OAuthRefusal) -> Deferred[bytes]:
    """What is wrong, for a person whom we cannot send back to a client."""
    return _html(_Page(_REFUSAL, says=refusal.description, error=refusal.error))


def front(url: str) -> Deferred[bytes]:
    """What this server is, and the one address that a person needs."""
    return _html(_Page(_FRONT, url=url))


def _html(page: Element) -> Deferred[bytes]:
    flat: Deferred[bytes] = flattenString(None, page)
    return flat.addCallback(lambda body: b"<!DOCTYPE html>\n" + body)
