"""The checklist: clients that are named by the URL of their metadata document (item 16)."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from fjmcp import limits
from fjmcp.fetch.guard import Strangers
from fjmcp.oauth.known import DOCUMENTS
from fjmcp.testing.hosts import Published
from fjmcp.testing.whole import CLIENT_URL, WholeBroker
from tests.fetch.test_addresses import NOT_PUBLIC
from tests.fetch.test_guard import GOOD, Names
from tests.web.test_documents import DOCUMENT, HOST, URL, DocumentCase

WRONG_URLS = (
    "http://client.example/x",
    "HTTPS://client.example/x",
    "https://client.example",
    "https://client.example/",
    "https://client.example/a/../x",
    "https://client.example/a/./x",
    "https://client.example/%2e%2e/x",
    "https://client.example/x#y",
    "https://user:secret@client.example/x",
    "https://client.example:8443/x",
    "https://localhost/x",
    "https://127.0.0.1/x",
    "https://[::1]/x",
    "https://2130706433/x",
    "https://client.example/x y",
    f"https://client.example/{'x' * limits.DOCUMENT_URL}",
)


class DocumentTests(DocumentCase):
    def test_item_16_document_url(self) -> None:
        """Only an https URL of a name with a path is a client's name, and no host is asked for a
        request that could not be answered anyway."""
        for url in WRONG_URLS:
            self.hosts.publish({**DOCUMENT, "client_id": url})
            self.assert_shown(self.authorize(client_id=url))
        self.hosts.publish(DOCUMENT)
        self.assert_shown(self.authorize(code_challenge=None))
        self.assert_shown(self.authorize(redirect_uri="http://evil.example/"))
        self.assertEqual(self.hosts.asked, [])
        changes: tuple[dict[str, Any], ...] = (
            {"client_id": f"{URL}/"},
            {"client_secret": "x"},
            {"client_secret_expires_at": 0},
            {"token_endpoint_auth_method": "client_secret_basic"},
            {"redirect_uris": []},
            {"redirect_uris": ["https://client.example/*"]},
        )
        for wrong in changes:
            self.hosts.published[URL] = Published(json.dumps(DOCUMENT | wrong).encode())
            self.assert_shown(self.authorize(), HOST)
        self.hosts.publish(DOCUMENT)
        self.assertEqual(self.authorize().status, 200)

    def test_item_16_cache(self) -> None:
        """A document is kept as long as its host says, within bounds; an error never; the last
        good one serves for a time, and what its redirect URIs were does not outlive a change."""
        self.assert_shown(self.authorize())
        self.assert_shown(self.authorize())
        self.assertEqual(self.hosts.asked, [URL, URL])
        for header, kept in (
            ("no-store", limits.DOCUMENT_FRESH_LEAST),
            ("max-age=0", limits.DOCUMENT_FRESH_LEAST),
            ("max-age=3600", 3600),
            ("max-age=99999999", limits.DOCUMENT_FRESH_MOST),
        ):
            self.hosts.publish(DOCUMENT, cache_control=header)
            self.assertEqual(self.authorize().status, 200)
            self.hosts.asked.clear()
            self.broker.advance(kept - 1)
            self.authorize()
            self.assertEqual(self.hosts.asked, [], header)
            self.broker.advance(1)
            self.authorize()
            self.assertEqual(self.hosts.asked, [URL], header)
            self.broker.advance(limits.DOCUMENT_FRESH_MOST)
        self.hosts.publish(DOCUMENT)
        self.assertEqual(self.authorize().status, 200)
        self.broker.advance(limits.DOCUMENT_FRESH_MOST)
        self.hosts.published.clear()
        self.assertEqual(self.authorize().status, 200)
        self.broker.advance(limits.DOCUMENT_GRACE)
        self.assert_shown(self.authorize(), HOST)
        self.hosts.publish(DOCUMENT | {"redirect_uris": [f"{CLIENT_URL}/moved"]})
        self.assert_shown(self.authorize())


class FetchTests(DocumentCase):
    def setUp(self) -> None:
        super().setUp()
        self.net = MemoryReactorClock()
        self.names = Names()
        errand = Strangers(self.net, self.names.look_up).errand
        self.broker = WholeBroker(errand=errand)
        self.app = self.broker.known_by(DOCUMENT)

    def test_item_16_fetch(self) -> None:
        """A name with one address that is not public leads nowhere; else the connection is to an
        address that was judged, at 443, with TLS, and few are open at a time."""
        for texts in NOT_PUBLIC.values():
            self.names.known = {HOST: [GOOD, texts[0]]}
            self.assert_shown(self.authorize(), HOST)
            self.broker.advance(60)
        self.assertEqual(self.net.tcpClients, [])
        self.names.known = {HOST: [GOOD]}
        self.assertFalse(self.authorize().answered)
        ((host, port, *_),) = self.net.tcpClients
        self.assertEqual((host, port), (GOOD, 443))
        # What is looked up is not looked up again for the connection.
        self.assertEqual(self.names.asked[-1], HOST)
        for number in range(2 * limits.DOCUMENT_FETCHES):
            name = f"{number}.example"
            self.names.known[name] = [GOOD]
            self.authorize(client_id=f"https://{name}/x")
        self.assertLessEqual(len(self.net.tcpClients), limits.DOCUMENT_FETCHES)
        for url in DOCUMENTS:
            self.assertEqual(self.authorize(self.broker.known_by(DOCUMENTS[url])).status, 200)
