"""
The pages that a person sees, from the templates beside this file.

Every text that comes from a client is escaped by the template engine, and the
pages have no script and load nothing from elsewhere.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from twisted.web.template import Element, Tag, XMLString, flattenString, renderer

from fjmcp.oauth import redirects
from fjmcp.oauth.clients import Client
from fjmcp.oauth.tokens import TokenText
from fjmcp.refusals import OAuthRefusal

_FOLDER: Final = resources.files("fjmcp.web") / "templates"

STYLE: Final = (_FOLDER / "style.css").read_bytes()
STYLE_PATH: Final = "/oauth/style.css"


def _template(name: str) -> XMLString:
    return XMLString((_FOLDER / name).read_text("utf-8"))


_CONSENT: Final = _template("consent.xml")
_ONWARD: Final = _template("onward.xml")
_REFUSAL: Final = _template("refusal.xml")
_EXPLAINED: Final = _template("explained.xml")
_FRONT: Final = _template("front.xml")


class _Page(Element):
    """A template with its slots filled."""

    def __init__(self, template: XMLString, **slots: str) -> None:
        super().__init__(loader=template)
        self._slots = slots

    @renderer
    def page(self, request: IRequest | None, tag: Tag) -> Tag:
        """The whole document."""
        return tag.fillSlots(**self._slots)


class _Consent(_Page):
    """The consent page, whose warning stands only where it applies."""

    def __init__(self, warn: bool, **slots: str) -> None:
        super().__init__(_CONSENT, **slots)
        self._warn = warn

    @renderer
    def loopback(self, request: IRequest | None, tag: Tag) -> Tag | str:
        """The warning for programs on the person's own computer (BP, localhost redirects)."""
        return tag if self._warn else ""


def consent(client: Client, redirect_uri: str, forge: str, signin: TokenText) -> Deferred[bytes]:
    """
    Our consent page, which stands before Forgejo's sign-in.

    The specification wants the client's name and the host that it goes back to
    (2025-11-25 security best practices, "Confused Deputy").
    """
    return _html(
        _Consent(
            # Any program can claim a private scheme, too.
            redirects.is_loopback(redirect_uri) or redirect_uri in redirects.PRIVATE,
            client=client.display_name,
            host=redirects.host(redirect_uri),
            forge=forge,
            signin=signin.text,
        )
    )


def onward(url: str) -> Deferred[bytes]:
    """
    A page that sends the browser on.

    Not a redirect: Chromium applies the consent form's `form-action` to every
    redirect that follows the form.
    """
    return _html(_Page(_ONWARD, url=url, host=redirects.host(url)))


def explained(refusal: OAuthRefusal, url: str) -> Deferred[bytes]:
    """What is wrong, for the person to read before the client is told of it at `url`."""
    whose = f"You are signed in at Forgejo as {refusal.login}. " if refusal.login else ""
    words = {"says": whose + refusal.description, "error": refusal.error}
    return _html(_Page(_EXPLAINED, url=url, host=redirects.host(url), **words))


def refusal(refusal: OAuthRefusal) -> Deferred[bytes]:
    """What is wrong, for a person whom we cannot send back to a client."""
    return _html(_Page(_REFUSAL, says=refusal.description, error=refusal.error))


def front(url: str) -> Deferred[bytes]:
    """What this server is, and the one address that a person needs."""
    return _html(_Page(_FRONT, url=url))


def _html(page: Element) -> Deferred[bytes]:
    flat: Deferred[bytes] = flattenString(None, page)
    return flat.addCallback(lambda body: b"<!DOCTYPE html>\n" + body)
