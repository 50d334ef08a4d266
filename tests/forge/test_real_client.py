"""Forgejo's client and real TLS servers on loopback: who gets to see the client's secret."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

from cryptography.x509 import DNSName, IPAddress
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from fjmcp.certificates import Certificates
from fjmcp.forge.answers import NewPair, Outcome, Troubled
from fjmcp.forge.client import Forge, forge_http
from tests.authority import IMPOSTORS, Authority, Secured, self_signed
from tests.forge.test_client import CLIENT, OLD, Forgejo
from tests.forge.test_tokens import REPLY


class CertificateTests(TestCase):
    """A refresh, where the server has this certificate or that."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.authority = Authority()
        self.forgejo = Forgejo(body=json.dumps(REPLY).encode())
        self.http = forge_http(reactor, Certificates(self.authority))

    async def refresh(self, host: str, context: SSL.Context) -> Outcome:
        """What comes of a refresh at a server on loopback, under this name of it."""
        endpoint = SSL4ServerEndpoint(self.reactor, 0, Secured(context), interface="127.0.0.1")
        port = await endpoint.listen(Site(self.forgejo))
        try:
            address = port.getHost()
            assert isinstance(address, IPv4Address)
            url = f"https://{host}:{address.port}"
            callback = "https://broker.example/oauth/callback"
            forge = Forge(self.http, url, *CLIENT, callback, "read:user", self.reactor)
            return await Deferred.fromCoroutine(forge.refresh(OLD))
        finally:
            await port.stopListening()

    async def taken(self, host: str, context: SSL.Context) -> None:
        """It is Forgejo."""
        outcome = await self.refresh(host, context)
        assert isinstance(outcome, NewPair), outcome

    async def refused(self, host: str, context: SSL.Context, odd: str) -> str:
        """It is not: trouble that has surely changed nothing; what the log says of it."""
        with capturedLogs() as events:
            self.assertEqual(await self.refresh(host, context), Troubled("tls"), odd)
        self.assertEqual(self.forgejo.asked, [], odd)
        ours = [event for event in events if event["log_namespace"].startswith("fjmcp.")]
        self.assertEqual([event["log_level"] for event in ours], [LogLevel.error], odd)
        return str(ours[0]["reason"])

    async def test_names(self) -> None:
        """Nothing is sent to a server whose certificate is not Forgejo's; the log says why."""
        name, sign = DNSName("localhost"), self.authority.server
        for odd, names in IMPOSTORS.items():
            self.assertTrue(await self.refused("localhost", sign(*names), odd))
        for context, words in (
            (sign(DNSName("printer.example")), "it is not for localhost"),
            (sign(), "subjectAltName"),
            (sign(DNSName("*.lan")), "*.lan"),
            (sign(name, days=-1), "expired"),
            (self_signed(name), "self signed"),
            (Authority().server(name), "cert"),
        ):
            self.assertIn(words, await self.refused("localhost", context, words))
        await self.taken("localhost", sign(name))

    async def test_addresses(self) -> None:
        """Likewise where Forgejo's URL has an address."""
        right, sign = IPAddress(ip_address("127.0.0.1")), self.authority.server
        for odd, names in IMPOSTORS.items():
            self.assertTrue(await self.refused("127.0.0.1", sign(*names), odd))
        await self.refused("127.0.0.1", sign(DNSName("127.0.0.1")), "the address as a name")
        await self.taken("127.0.0.1", sign(right))
        await self.taken("127.0.0.1", sign(DNSName("localhost"), right))
