"""
What a browser sees: sign-in, consent, and the list of applications allowed.

All plain HTML forms; fields are `user_name` and `password` on the sign-in
page, `granted` on the consent page (§3.1, §3.2).
"""

from __future__ import annotations

from html import escape
from secrets import token_urlsafe
from typing import ClassVar, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from attrs import define, field
from klein import Klein
from twisted.web.server import Request

from fjmcp.demo.forge.accounts import Instance, Person
from fjmcp.demo.forge.answers import (
    Answer,
    cookies_of,
    form_of,
    hidden,
    page,
    query_of,
    see_other,
    text_answer,
)
from fjmcp.demo.forge.grants import Application, Grant, Grants
from fjmcp.demo.forge.trouble import Troubles, serves

AUTHORIZE: Final = "/login/oauth/authorize"
CONSENT: Final = "/login/oauth/grant"
SIGN_IN: Final = "/user/login"
APPLICATIONS: Final = "/user/settings/applications"

SESSION: Final = "i_like_gitea"
REDIRECT_TO: Final = "redirect_to"

PARAMETERS: Final = (
    "response_type",
    "client_id",
    "redirect_uri",
    "state",
    "scope",
    "nonce",
    "code_challenge",
    "code_challenge_method",
)
"""All that authorize reads; the rest is ignored, prompt and resource too."""


@define
class WebSession:
    """One browser's session: who is signed in, and what authorize left there."""

    person: Person | None = None
    left: dict[str, str] = field(factory=dict)


@define(slots=False, eq=False)
class Pages:
    """The pages, and the browsers' sessions."""

    url: str
    instance: Instance
    grants: Grants
    troubles: Troubles
    sessions: dict[str, WebSession] = field(factory=dict, repr=False, init=False)

    app: ClassVar[Klein] = Klein()

    @serves(app, SIGN_IN, "GET")
    def sign_in_page(self, request: Request) -> Answer:
        """The sign-in form; who is signed in already goes on."""
        if self._session(request).person is not None:
            return self._onward(request)
        return self._sign_in_form("")

    @serves(app, SIGN_IN, "POST")
    def sign_in(self, request: Request) -> Answer:
        """Check the password; go on to what the cookie `redirect_to` says."""
        if refused := _cross_origin(request):
            return refused
        form = form_of(request)
        name = form.get("user_name", "")
        person = self.instance.person(name)
        if person is None or form.get("password") != person.password:
            return self._sign_in_form("Username or password is incorrect.", name)
        if person.prohibited or not person.active:
            return _prohibited()
        session_id = token_urlsafe(24)
        self.sessions.pop(cookies_of(request).get(SESSION, ""), None)
        self.sessions[session_id] = WebSession(person)
        cookie = f"{SESSION}={session_id}; Path=/; HttpOnly; SameSite=Lax"
        return self._onward(request).adding([("Set-Cookie", cookie)])

    @serves(app, "/user/logout", "GET", "POST")
    def sign_out(self, request: Request) -> Answer:
        """Forget the session."""
        self.sessions.pop(cookies_of(request).get(SESSION, ""), None)
        return see_other("/").adding([_deleted(SESSION)])

    @serves(app, AUTHORIZE, "GET", "POST")
    def authorize(self, request: Request) -> Answer:
        """Send a code back at once, or ask; refuse as §3.2 lists it."""
        if refused := _cross_origin(request):
            return refused
        session = self._session(request)
        if session.person is None:
            return self._to_sign_in(request)
        if session.person.prohibited or not session.person.active:
            return _prohibited()
        said = form_of(request) if request.method == b"POST" else query_of(request)
        asked = {name: said.get(name, "") for name in PARAMETERS}
        application = self.grants.applications.get(asked["client_id"])
        if application is None:
            return _failed("unauthorized_client", "Client ID not registered")
        if not application.takes(asked["redirect_uri"]):
            return _failed("invalid_request", "Unregistered Redirect URI")
        if asked["response_type"] != "code":
            description = "Only code response type is supported."
            return _sent_back(asked, "unsupported_response_type", description)
        match asked["code_challenge_method"]:
            case "S256" | "plain":
                session.left["challenge"] = asked["code_challenge"]
                session.left["method"] = asked["code_challenge_method"]
            case "" if not application.confidential:
                description = "PKCE is required for public clients"
                return _sent_back(asked, "invalid_request", description)
            case "":
                pass
            case _:
                return _sent_back(asked, "invalid_request", "unsupported code challenge method")
        grant = self.grants.of(session.person.id, application)
        if grant is not None and application.confidential:
            # no page, and whatever scope was asked for now, the old one stays
            grant.nonce = asked["nonce"] or grant.nonce
            challenge, method = asked["code_challenge"], asked["code_challenge_method"]
            return self._with_code(grant, asked, challenge, method)
        for name in ("client_id", "redirect_uri", "state"):
            session.left[name] = asked[name]
        return _consent_page(application, session.person, asked)

    @serves(app, CONSENT, "POST")
    def consent(self, request: Request) -> Answer:
        """The person's answer; it must be to the last page that was shown."""
        if refused := _cross_origin(request):
            return refused
        session, asked = self._session(request), form_of(request)
        if session.person is None:
            return self._to_sign_in(request)
        for name in ("client_id", "redirect_uri", "state"):
            if name not in session.left or session.left[name] != asked.get(name, ""):
                return text_answer("Bad Request\n", 400)
        if asked.get("granted") != "true":
            return _sent_back(asked, "access_denied", "the request is denied")
        application = self.grants.applications.get(asked["client_id"])
        if application is None:
            return page("Internal Server Error", "", 500)
        scope = asked.get("scope", "")
        grant = self.grants.of(session.person.id, application)
        if grant is None:
            grant = self.grants.allow(session.person.id, application, scope)
        elif grant.scope != scope:
            return _sent_back(asked, "server_error", "a grant exists with different scope")
        grant.nonce = asked.get("nonce") or grant.nonce
        # the challenge comes from the session: an earlier flow's, if this one sent none
        left = session.left
        return self._with_code(grant, asked, left.get("challenge", ""), left.get("method", ""))

    @serves(app, APPLICATIONS, "GET")
    def applications(self, request: Request) -> Answer:
        """What the person allowed, each with a button to revoke it."""
        person = self._session(request).person
        if person is None:
            return self._to_sign_in(request)
        rows = [
            f"<li>{escape(grant.application.name)}: <code>{escape(grant.scope)}</code>"
            f'<form method="post" action="{APPLICATIONS}/oauth2/{grant.application.id}/revoke/'
            f'{grant.id}"><button>Revoke</button></form></li>'
            for grant in self.grants.live.values()
            if grant.person == person.id
        ]
        listed = f"<ul>{''.join(rows)}</ul>" if rows else "<p>None.</p>"
        return page("Authorized OAuth2 applications", listed)

    @serves(app, f"{APPLICATIONS}/oauth2/<int:application>/revoke/<int:grant>", "POST")
    def revoke(self, request: Request, application: int, grant: int) -> Answer:
        """Take a grant back; it is the person's own or stays."""
        if refused := _cross_origin(request):
            return refused
        person = self._session(request).person
        if person is None:
            return self._to_sign_in(request)
        found = self.grants.live.get(grant)
        if found is not None and found.person == person.id:
            self.grants.revoke(found)
        return see_other(APPLICATIONS)

    @serves(app, "/", "GET")
    def front(self, request: Request) -> Answer:
        """Who is signed in."""
        person = self._session(request).person
        if person is None:
            return page("Forgejo", f'<p><a href="{SIGN_IN}">Sign in</a></p>')
        return page("Forgejo", f"<p>Signed in as {escape(person.login)}.</p>")

    def _session(self, request: Request) -> WebSession:
        return self.sessions.get(cookies_of(request).get(SESSION, ""), WebSession())

    def _to_sign_in(self, request: Request) -> Answer:
        """One cookie remembers where to go on: the last tab's wish wins."""
        wish = quote(request.uri.decode("ascii", "replace"), safe="")
        cookie = f"{REDIRECT_TO}={wish}; Path=/; HttpOnly; SameSite=Lax"
        return see_other(SIGN_IN).adding([("Set-Cookie", cookie)])

    def _onward(self, request: Request) -> Answer:
        wish = unquote(cookies_of(request).get(REDIRECT_TO, ""))
        local = wish.startswith("/") and not wish.startswith(("//", "/\\"))
        return see_other(wish if local else "/").adding([_deleted(REDIRECT_TO)])

    def _sign_in_form(self, complaint: str, name: str = "") -> Answer:
        return page(
            "Sign in",
            f"<p><strong>{escape(complaint)}</strong></p>\n"
            f'<form method="post" action="{SIGN_IN}">'
            '<label>Username or email address <input name="user_name" autocomplete="username"'
            f' value="{escape(name)}" required autofocus></label>'
            '<label>Password <input name="password" type="password"'
            ' autocomplete="current-password" required></label>'
            "<button>Sign in</button></form>",
        )

    def _with_code(
        self, grant: Grant, asked: dict[str, str], challenge: str, method: str
    ) -> Answer:
        code = self.grants.code(grant, asked["redirect_uri"], challenge, method)
        state = {"state": asked["state"]} if asked.get("state") else {}
        return see_other(_added(asked["redirect_uri"], {"code": code.text} | state))


def _consent_page(application: Application, person: Person, asked: dict[str, str]) -> Answer:
    fields = {n: asked[n] for n in ("client_id", "state", "scope", "nonce", "redirect_uri")}
    return page(
        f"Authorize {application.name}",
        f"<p>Signed in as {escape(person.login)}. If you grant access, it will be able to access"
        " and write to all your account information, including private repositories and"
        " organizations.</p>\n"
        f"<p>With scopes: {escape(asked['scope'])}.</p>\n"
        "<p>You will be sent to "
        f"<strong>{escape(asked['redirect_uri'])}</strong></p>\n"
        f'<form method="post" action="{CONSENT}">{hidden(fields)}\n'
        '<button name="granted" value="true">Authorize application</button>\n'
        '<button name="granted" value="false">Cancel</button></form>',
    )


def _failed(error: str, description: str) -> Answer:
    """Errors that must not be redirected."""
    said = f"<p>{escape(error)}: {escape(description)}</p>"
    return page("Authorization failed", said, 400)


def _sent_back(asked: dict[str, str], error: str, description: str) -> Answer:
    said = {"error": error, "error_description": description, "state": asked.get("state", "")}
    return see_other(_added(asked["redirect_uri"], said))


def _prohibited() -> Answer:
    return page(
        "Signing in is prohibited",
        "<p>Your account is prohibited from signing in, please contact your site administrator."
        "</p>",
    )


def _added(uri: str, said: dict[str, str]) -> str:
    """The URI with more in its query, which is sorted by name as Go does it."""
    parts = urlsplit(uri)
    pairs = [p for p in parse_qsl(parts.query, keep_blank_values=True) if p[0] not in said]
    return urlunsplit(parts._replace(query=urlencode(sorted([*pairs, *said.items()]))))


def _deleted(cookie: str) -> tuple[str, str]:
    return "Set-Cookie", f"{cookie}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"


def _cross_origin(request: Request) -> Answer | None:
    """Go's CrossOriginProtection; the forms carry no token of their own (§3.1)."""
    if request.method in (b"GET", b"HEAD", b"OPTIONS"):
        return None
    site = request.getHeader("sec-fetch-site")
    if site in ("same-origin", "none"):
        return None
    if site:
        return text_answer("cross-origin request detected from Sec-Fetch-Site header\n", 403)
    origin = request.getHeader("origin")
    if not origin or urlsplit(origin).netloc == request.getHeader("host"):
        return None
    return text_answer(
        "cross-origin request detected, and/or browser is out of date: Sec-Fetch-Site is"
        " missing, and Origin does not match Host\n",
        403,
    )
