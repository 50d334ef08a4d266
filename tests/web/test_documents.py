"""Clients that are named by the URL of their metadata document, from authorize to refresh."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock

from fjmcp import limits
from fjmcp.fetch.guard import Strangers
from fjmcp.oauth.known import DOCUMENTS
from fjmcp.store.queries import expiry
from fjmcp.testing.hosts import PUBLIC_URL, Published
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visit
from fjmcp.testing.whole import CLIENT_URL, App, WholeBroker, walk
from tests.fetch.test_guard import GOOD, Names
from tests.web.whole import BrokerCase, said

HOST = "client.example"
URL = f"https://{HOST}/oauth/metadata"
CODE = "https://claude.ai/oauth/claude-code-client-metadata"

DOCUMENT: dict[str, Any] = {
    "client_id": URL,
    "client_name": "A client of its own",
    "redirect_uris": [CLIENT_URL],
    "grant_types": ["authorization_code", "refresh_token"],
}


class DocumentCase(BrokerCase):
    """A broker, and a client that is named by a URL."""

    def setUp(self) -> None:
        self.broker = WholeBroker()
        self.hosts = self.broker.publishers
        self.app = self.broker.known_by(DOCUMENT)

    def authorize(self, app: App | None = None, **changes: str | None) -> Visit:
        """An authorization request, by a browser that follows nothing."""
        url = (app or self.app).authorize_url(**changes).removeprefix(PUBLIC_URL)
        return self.broker.visitor().get(url, accept="text/html")

    def assert_shown(self, visit: Visit, *words: str, status: int = 400) -> None:
        """A page that leads nowhere, and nothing that was begun."""
        self.assert_page(visit, status)
        self.assertIsNone(visit.header("set-cookie"))
        for word in words:
            self.assertIn(word, visit.body.decode())

    def to_the_end(self, app: App) -> None:
        """Consent, code, token, refresh, revocation; each works."""
        browser = self.broker.browser(*app.registered["redirect_uris"])
        page = app.open(browser)
        self.assertIn(app.registered["client_name"], page.text)
        answer = said(walk(browser, page))
        self.assertEqual(set(answer), {"code", "state", "iss"})
        tokens = app.redeem(answer["code"]).json()
        self.assertEqual(app.knocks(tokens["access_token"]), 200)
        later = app.refresh(tokens["refresh_token"]).json()
        self.assertEqual(app.knocks(later["access_token"]), 200)
        self.assertEqual(app.revoke(later["refresh_token"]).status, 200)
        self.assertEqual(app.knocks(later["access_token"]), 401)


class WholeWayTests(DocumentCase):
    def test_shipped(self) -> None:
        """Each client that everybody knows connects, though its host cannot be reached."""
        for document in DOCUMENTS.values():
            self.to_the_end(self.broker.known_by(document))
        self.assertEqual(self.hosts.asked, list(DOCUMENTS))
        self.assertEqual(self.count("documents"), 0)

    def test_fetched(self) -> None:
        """Each of them connects with the document of its host, which is asked once, and never
        for tokens."""
        for document in DOCUMENTS.values():
            today = {**document, "client_name": f"{document['client_name']} today"}
            self.hosts.publish(today)
            self.to_the_end(self.broker.known_by(today))
        self.assertEqual(self.hosts.asked, list(DOCUMENTS))
        rows = self.rows("SELECT used_at IS NOT NULL FROM documents")
        self.assertEqual(rows, [(True,)] * len(DOCUMENTS))
        self.assertEqual(self.count("clients"), 0)

    def test_of_its_own(self) -> None:
        """So does a client that nobody knew, and it stays known as long as somebody uses it."""
        self.hosts.publish(DOCUMENT)
        tokens = self.app.redeem(self.app.sign_in()["code"]).json()
        self.hosts.published.clear()
        self.broker.advance(limits.CLIENT_UNUSED + limits.DOCUMENT_GRACE)
        now(self.broker.store.write(expiry.sweep, self.broker.reactor.seconds()))
        self.assertEqual(self.app.refresh(tokens["refresh_token"]).status, 200)
        self.assertEqual(self.hosts.asked, [URL])

    def test_metadata(self) -> None:
        """The metadata says that such clients may come, and without a secret."""
        server = self.broker.visitor().get("/.well-known/oauth-authorization-server").json()
        self.assertIs(server["client_id_metadata_document_supported"], True)
        self.assertIn("none", server["token_endpoint_auth_methods_supported"])

    def test_no_refresh_token(self) -> None:
        """A document that does not name the grant type has none of the tokens for it."""
        bare = {name: DOCUMENT[name] for name in ("client_id", "client_name", "redirect_uris")}
        self.hosts.publish(bare)
        tokens = self.app.redeem(self.app.sign_in()["code"]).json()
        self.assertNotIn("refresh_token", tokens)

    def test_refresh_goes_on(self) -> None:
        """A document that drops the grant type takes no chain away that was begun under it."""
        self.hosts.publish(DOCUMENT)
        tokens = self.app.redeem(self.app.sign_in()["code"]).json()
        self.hosts.publish(DOCUMENT | {"grant_types": ["authorization_code"]})
        self.broker.advance(limits.DOCUMENT_FRESH_LEAST)
        self.assertEqual(self.authorize().status, 200)
        for _ in range(2):
            answer = self.app.refresh(tokens["refresh_token"])
            self.assertEqual(answer.status, 200, answer.body)
            tokens = answer.json()


class RequestTests(DocumentCase):
    def test_nothing_fetched(self) -> None:
        """A request that could not be answered anyway is shown, never redirected, and asks no
        host; nor does a URL at which no document may be."""
        self.hosts.publish(DOCUMENT)
        for changes in (
            {"redirect_uri": None},
            {"redirect_uri": "http://evil.example/"},
            {"redirect_uri": "javascript:alert(1)"},
            {"state": "s" * (limits.CLIENT_STATE + 1)},
            {"response_type": "token"},
            {"response_type": None},
            {"response_mode": "fragment"},
            {"code_challenge": None},
            {"code_challenge_method": "plain"},
            {"resource": "https://other.example/mcp"},
            {"request": "e30.e30."},
            {"client_id": "https://127.0.0.1/x"},
            {"client_id": "https://localhost/x"},
            {"client_id": "https://client.example:8443/oauth/metadata"},
            {"client_id": "HTTPS://client.example/oauth/metadata"},
            {"client_id": "https://client.example/"},
            {"client_id": f"{URL}#f"},
            {"client_id": f"{URL}\0"},
            {"client_id": f"{URL}ü"},
            {"client_id": URL.ljust(limits.DOCUMENT_URL + 1, "x")},
            {"client_id": "http://client.example/oauth/metadata"},
        ):
            self.assert_shown(self.authorize(**changes))
        twice = f"{self.app.authorize_url()}&client_id=x".removeprefix(PUBLIC_URL)
        self.assert_shown(self.broker.visitor().get(twice, accept="text/html"))
        self.assertEqual(self.hosts.asked, [])
        self.assertEqual(self.count("signins"), 0)

    def test_once_it_is_known(self) -> None:
        """A client whose document is fresh is told what it did wrong, as any other is: at once if
        its host is known, else by a link for the person to press."""
        self.hosts.publish(DOCUMENT)
        self.assertEqual(self.authorize().status, 200)
        visit = self.authorize(code_challenge=None)
        self.assertEqual((visit.status, visit.header("location")), (400, None))
        self.assertIn(f'href="{CLIENT_URL}?error=invalid_request'.encode(), visit.body)
        self.assert_shown(self.authorize(redirect_uri=f"{CLIENT_URL}/"))
        self.assertEqual(self.hosts.asked, [URL])
        self.hosts.publish(DOCUMENTS[CODE])
        known = self.broker.known_by(DOCUMENTS[CODE])
        here = known.registered["redirect_uris"][0]
        self.assertEqual(self.authorize(known).status, 200)
        visit = self.authorize(known, code_challenge=None)
        self.assertEqual((visit.status, said(visit)["error"]), (303, "invalid_request"))
        self.assertTrue((visit.header("location") or "").startswith(f"{here}?"))

    def test_rate(self) -> None:
        """Who knocks too often is refused before any host is asked."""
        at_once, _ = limits.RATES_OF_ALL["authorize"]
        for _ in range(at_once):
            self.broker.visitor().get("/oauth/authorize")
        self.assert_shown(self.authorize(), status=429)
        self.assertEqual(self.hosts.asked, [])

    def test_redirect_uris_change(self) -> None:
        """Where the code goes is what the newest document says, and the one before nothing any
        more."""
        self.hosts.publish(DOCUMENT)
        self.assertEqual(self.authorize().status, 200)
        moved = f"{CLIENT_URL}/moved"
        self.hosts.publish(DOCUMENT | {"redirect_uris": [moved]})
        self.broker.advance(limits.DOCUMENT_FRESH_LEAST)
        self.assert_shown(self.authorize())
        self.assertEqual(self.authorize(redirect_uri=moved).status, 200)

    def test_changes_on_the_way(self) -> None:
        """A sign-in under way ends where it began to go to."""
        self.hosts.publish(DOCUMENT)
        browser = self.broker.browser()
        page = self.app.open(browser)
        self.hosts.publish(DOCUMENT | {"redirect_uris": ["https://moved.example/"]})
        self.broker.advance(limits.DOCUMENT_FRESH_LEAST)
        self.authorize(redirect_uri="https://moved.example/")
        code = said(walk(browser, page))["code"]
        self.assertEqual(self.app.redeem(code).status, 200)

    def test_loopback(self) -> None:
        """A document's loopback URI may come with any port, and differ in nothing else."""
        app = self.broker.known_by(DOCUMENTS[CODE])
        for uri in ("http://localhost:51234/callback", "http://127.0.0.1:1/callback"):
            self.assertEqual(self.authorize(app, redirect_uri=uri).status, 200)
        for uri in (
            "http://localhost:51234/callback2",
            "http://localhost.evil.example/callback",
            "https://localhost:51234/callback",
            "http://[::1]:51234/callback",
        ):
            self.assert_shown(self.authorize(app, redirect_uri=uri))
        here = "http://127.0.0.1:51234/callback"
        browser = self.broker.browser()
        page = walk(browser, app.open(browser, redirect_uri=here))
        self.assertEqual(app.redeem(said(page)["code"], redirect_uri=here).status, 200)


class HostTests(DocumentCase):
    def test_away(self) -> None:
        """A client whose host is away is shown a page that names it; once its document was good
        it goes on meanwhile."""
        self.assert_shown(self.authorize(), HOST, "cannot be reached", "connect again")
        self.hosts.publish(DOCUMENT)
        self.assertEqual(self.authorize().status, 200)
        self.hosts.published.clear()
        self.broker.advance(limits.DOCUMENT_FRESH_LEAST)
        self.to_the_end(self.app)
        self.broker.advance(limits.DOCUMENT_GRACE)
        self.assert_shown(self.authorize(), HOST)

    def test_size(self) -> None:
        """A document of the limit is taken, and one that is a byte longer is not."""
        self.hosts.publish(DOCUMENT)
        body = self.hosts.published[URL].body
        longest = body + b" " * (limits.DOCUMENT_BODY - len(body))
        self.hosts.published[URL] = Published(longest + b" ")
        self.assert_shown(self.authorize(), HOST, "too large")
        self.hosts.published[URL] = Published(longest)
        self.assertEqual(self.authorize().status, 200)

    def test_wrong(self) -> None:
        """A document that is wrong is shown with what is wrong with it, and none of its words."""
        self.hosts.publish(DOCUMENT | {"client_secret": "<b>secret", "client_name": "<b>name"})
        visit = self.authorize()
        self.assert_shown(visit, HOST, "client_secret", "Tell whoever makes")
        self.assertNotIn(b"<b>", visit.body)

    def test_name_is_escaped(self) -> None:
        """A stranger's name is shown as what it is."""
        self.hosts.publish(DOCUMENT | {"client_name": "<script>alert(1)</script>"})
        visit = self.authorize()
        self.assertEqual(visit.status, 200)
        self.assertNotIn(b"<script", visit.body)
        self.assertIn(b"&lt;script", visit.body)

    def test_many_at_once(self) -> None:
        """A hundred browsers at once make one fetch, and each has its page."""
        self.hosts.publish(DOCUMENT)
        self.hosts.held = []
        visits = [self.authorize() for _ in range(100)]
        self.assertFalse(any(visit.answered for visit in visits))
        visits[0].leave()
        self.hosts.release()
        self.assertEqual({visit.status for visit in visits[1:]}, {200})
        self.assertEqual(self.hosts.asked, [URL])

    def test_browser_leaves(self) -> None:
        """A browser that closes meanwhile stops no fetch: the next one has the document."""
        self.hosts.publish(DOCUMENT)
        self.hosts.held = []
        self.authorize().leave()
        self.hosts.release()
        self.assertEqual(self.authorize().status, 200)
        self.assertEqual(self.hosts.asked, [URL])
        self.assertEqual(self.count("signins"), 1)

    def test_slow(self) -> None:
        """A host that says nothing costs a browser so long, and no longer."""
        self.hosts.held = []
        visit = self.authorize()
        self.broker.advance(limits.DOCUMENT_FETCH - 0.1)
        self.assertFalse(visit.answered)
        self.broker.advance(0.1)
        self.assert_shown(visit, HOST, "too long")

    def test_busy(self) -> None:
        """Where too much is fetched already, the page says when to come again."""
        self.hosts.held = []
        for number in range(limits.DOCUMENT_FETCHES):
            self.authorize(client_id=f"https://{number}.example/x")
        visit = self.authorize()
        self.assert_shown(visit, status=503)
        self.assertEqual(visit.header("retry-after"), "5")

    def test_store_down(self) -> None:
        """Without a store there is a page that says when to come back."""
        self.broker.store.fail_all()
        self.assert_down(self.authorize())
        self.assertEqual(self.hosts.asked, [])


class StrangersTests(DocumentCase):
    """Hosts as the guard finds them."""

    def setUp(self) -> None:
        super().setUp()
        self.names = Names()
        self.net = MemoryReactorClock()
        self.broker = WholeBroker(errand=Strangers(self.net, self.names.look_up).errand)

    def meet(self, name: str) -> Visit:
        """A client whose document is at a host of that name."""
        return self.authorize(self.broker.known_by(DOCUMENT | {"client_id": f"https://{name}/x"}))

    def test_one_address(self) -> None:
        """However many names of theirs somebody lets lead to the host of another, it is asked
        few times, and theirs get a page that says when to come again."""
        at_once, _ = limits.RATE_OF_DOCUMENT_ADDRESS
        names = [f"{number}.evil.example" for number in range(at_once + 40)]
        self.names.known = {name: [GOOD] for name in names}
        for name in names[:at_once]:
            self.assertFalse(self.meet(name).answered)
        self.broker.advance(limits.DOCUMENT_FETCH)
        refused = [self.meet(name) for name in names[at_once:]]
        # There is no second address to go on to.
        self.net.advance(0.5)
        for visit in refused:
            self.assert_shown(visit, status=503)
        self.assertEqual(len(self.net.tcpClients), at_once)
        self.names.known = {"other.example": ["8.8.8.8"]}
        self.meet("other.example")
        self.assertEqual(self.net.tcpClients[-1][0], "8.8.8.8")

    def test_silent_name_servers(self) -> None:
        """Names whose name servers say nothing keep nobody else's from being looked up."""
        self.names.held = []
        at_once, _ = limits.RATES_OF_ADDRESS["authorize"]
        for number in range(at_once):
            self.meet(f"{number}.evil.example")
        self.assertEqual(len(self.names.held), at_once)
        self.names.held, self.names.known = None, {HOST: [GOOD]}
        self.meet(HOST)
        self.assertEqual(self.net.tcpClients[-1][0], GOOD)


class TokenTests(DocumentCase):
    def test_unknown(self) -> None:
        """A URL that was never met is no client for tokens, and its host is not asked."""
        self.hosts.publish(DOCUMENT)
        for visit in (self.app.redeem("x"), self.app.refresh("x"), self.app.revoke("x")):
            self.assert_error(visit, "invalid_client", 401)
        self.assertEqual(self.hosts.asked, [])

    def test_secret(self) -> None:
        """A client of a document has no secret, and is not let in with any."""
        self.hosts.publish(DOCUMENT)
        self.authorize()
        self.assert_error(self.app.refresh("x"), "invalid_grant")
        self.assert_error(self.app.refresh("x", client_secret="y"), "invalid_client", 401)

    def test_apart(self) -> None:
        """A code of one document is none for another of the same host."""
        self.hosts.publish(DOCUMENT)
        other = DOCUMENT | {"client_id": f"{URL}/2"}
        self.hosts.publish(other)
        self.authorize(self.broker.known_by(other))
        code = self.app.sign_in()["code"]
        self.assert_error(self.broker.known_by(other).redeem(code), "invalid_grant")
        self.assertEqual(self.app.redeem(code).status, 200)
