"""
`fjmcp.certificates`: whose certificate is good, over TLS in memory.

Over sockets: tests/fetch/test_real_documents.py, tests/forge/test_real_client.py.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from weakref import ref

from cryptography import x509
from cryptography.x509 import DNSName, IPAddress
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.test.iosim import connectedServerAndClient
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface.verify import verifyObject

import fjmcp
from fjmcp.certificates import BadCertificate, Certificates
from tests.authority import IMPOSTORS, Authority, Secured, self_signed

SAID: Final = b"a secret"


class End(Protocol):
    """One end of a connection: says something, and keeps what it hears."""

    def __init__(self, says: bytes = b"") -> None:
        self.says = says
        self.heard = b""
        self.lost: Failure | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.says)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


def meet(policy: Any, host: str, context: SSL.Context) -> tuple[End, End]:
    """What becomes of a connection to this host, where a server with that context is: we, they."""
    we, they, clock = End(SAID), End(), Clock()

    def wrapped(end: End, tls: Any, client: bool) -> Callable[[], Any]:
        factory = TLSMemoryBIOFactory(tls, client, Factory.forProtocol(lambda: end), clock)
        return lambda: factory.buildProtocol(None)

    creator = policy.creatorForNetloc(host.encode("ascii"), 443)
    _, _, pump = connectedServerAndClient(
        wrapped(they, Secured(context), False), wrapped(we, creator, True), clock=clock
    )
    pump.flush()
    return we, they


class CertificateTests(SynchronousTestCase):
    """Servers with certificates of many kinds."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.policy = Certificates(self.authority)
        verifyObject(IPolicyForHTTPS, self.policy)

    def taken(self, host: str, context: SSL.Context) -> None:
        """The server is who it says, and hears us."""
        we, they = meet(self.policy, host, context)
        self.assertEqual((we.lost, they.heard), (None, SAID), host)

    def refused(self, host: str, context: SSL.Context) -> str:
        """It is not, and hears nothing; why."""
        we, they = meet(self.policy, host, context)
        self.assertEqual(they.heard, b"", host)
        assert we.lost is not None, host
        self.assertIsInstance(we.lost.value, BadCertificate, host)
        return str(we.lost.value)

    def test_names(self) -> None:
        """A certificate for the name is good, whatever else it is for."""
        sign = self.authority.server
        self.taken("localhost", sign(DNSName("localhost")))
        self.taken("LOCALHOST", sign(DNSName("LocalHost")))
        self.taken("localhost", sign(DNSName("other.example"), DNSName("localhost")))
        self.taken("forge.corp.example", sign(DNSName("*.corp.example")))

    def test_addresses(self) -> None:
        """A host that is an address has to stand in the certificate as one."""
        sign = self.authority.server
        for host in ("127.0.0.1", "::1"):
            self.taken(host, sign(IPAddress(ip_address(host))))
            for odd, names in IMPOSTORS.items():
                self.assertTrue(self.refused(host, sign(*names)), (host, odd))
            self.refused(host, sign(DNSName(host)))
            self.refused(host, sign(DNSName("localhost")))
        self.taken("0:0:0:0:0:0:0:1", sign(IPAddress(ip_address("::1"))))
        self.refused("localhost", sign(IPAddress(ip_address("127.0.0.1"))))

    def test_impostors(self) -> None:
        """No certificate of another is good for a name, however odd; the reason is in words."""
        for host in ("localhost", "client.example", "a.b.lan", "lan", "127.1"):
            for odd, names in IMPOSTORS.items():
                why = self.refused(host, self.authority.server(*names))
                self.assertTrue(why.startswith(("it is not for", "its names cannot")), (odd, why))

    def test_reasons(self) -> None:
        """The reason says what is wrong."""
        localhost, sign = DNSName("localhost"), self.authority.server
        for context, why in (
            (sign(DNSName("other.example")), "it is not for localhost"),
            (sign(), "subjectAltName"),
            (sign(DNSName("*.lan")), "*.lan"),
            (sign(DNSName("10.1.2.3")), "10.1.2.3"),
            (sign(localhost, days=-1), "cert has expired"),
            (self_signed(localhost), "self signed"),
            (Authority().server(localhost), "cert"),
        ):
            self.assertIn(why, self.refused("localhost", context))

    def test_unreadable(self) -> None:
        """A certificate whose names cannot even be read is refused as well."""
        garbage = x509.UnrecognizedExtension(
            x509.SubjectAlternativeName.oid, b"\x30\x03\x82\x01\xe9"
        )
        why = self.refused("localhost", self.authority.server(instead=garbage))
        self.assertIn("its names cannot be read", why)

    def test_no_host(self) -> None:
        """What is neither a name nor an address is not gone to."""
        for host in (b"1234", b"", b"a b.example", b"\xe9.example"):
            self.assertRaises(ValueError, self.policy.creatorForNetloc, host, 443)

    def test_collected(self) -> None:
        """Connections leave nothing behind, whether they were good, bad, or never got so far."""
        good = self.authority.server(DNSName("localhost"))
        bad = self.authority.server(DNSName("*.lan"))
        expired = self.authority.server(DNSName("localhost"), days=-1)

        def alive() -> int:
            gc.collect()
            kinds = (TLSMemoryBIOProtocol, SSL.Connection, SSL.Context, BadCertificate, End)
            return sum(isinstance(each, kinds) for each in gc.get_objects())

        def some() -> None:
            for context in (good, bad, expired):
                meet(self.policy, "localhost", context)
            creator: Any = self.policy.creatorForNetloc(b"localhost", 443)
            factory = TLSMemoryBIOFactory(creator, True, Factory.forProtocol(End), Clock())
            factory.buildProtocol(None).makeConnection(StringTransport())

        some()
        before = alive()
        for _ in range(10):
            some()
        self.assertEqual(alive(), before)

    def test_not_held(self) -> None:
        """A connection does not hold the protocol that it was made for."""
        creator: Any = self.policy.creatorForNetloc(b"localhost", 443)
        asks = TLSMemoryBIOFactory(creator, True, Factory.forProtocol(End)).buildProtocol(None)
        gone, connection = ref(asks), creator.clientConnectionForTLS(asks)
        connection.set_app_data(None)  # Twisted's own reference back
        del asks
        gc.collect()
        self.assertIsNone(gone())


FORBIDDEN: Final = frozenset(
    {
        "BrowserLikePolicyForHTTPS",
        "CertificateOptions",
        "HostnameCachingHTTPSPolicy",
        "SSL4ClientEndpoint",
        "WebClientContextFactory",
        "clientFromString",
        "connectSSL",
        "optionsForClientTLS",
        "startTLS",
        "wrapClientTLS",
    }
)
"""What begins TLS, or says how it is checked, in Twisted's own ways."""


class SourceTests(SynchronousTestCase):
    """That nothing goes out past the check."""

    def test_one_policy(self) -> None:
        """No file but one uses Twisted's check, and no agent is made without a policy."""
        root = Path(fjmcp.__file__).parent
        files = [path for path in root.rglob("*.py") if path != root / "certificates.py"]
        self.assertGreater(len(files), 100)
        wrong = [f"{path}:{line}" for path in files for line in past(path.read_text("utf-8"))]
        self.assertEqual(wrong, [])

    def test_seen(self) -> None:
        """That test sees what it is for."""
        for source in (
            "Agent(reactor)",
            "Agent(reactor, connectTimeout=3)",
            "client.Agent(reactor, pool=pool)",
            "Agent(reactor, None)",
            "Agent(reactor, contextFactory=None)",
            "Agent.usingEndpointFactory(reactor, endpoints)",
            "from twisted.web.client import Agent as Other",
            "from twisted.web.client import BrowserLikePolicyForHTTPS",
            "from twisted.internet.ssl import optionsForClientTLS as options",
            "ssl.optionsForClientTLS('x')",
            "import treq",
            "from treq import get",
        ):
            self.assertEqual(past(source), [1], source)
        for source in ("Agent(reactor, policy)", "from treq.client import HTTPClient"):
            self.assertEqual(past(source), [], source)


def past(source: str) -> list[int]:
    """The lines of a source by which it would go past the check."""
    return sorted({line for node in ast.walk(ast.parse(source)) for line in _past(node)})


def _past(node: ast.AST) -> list[int]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in FORBIDDEN:
            return [node.lineno]
        case ast.Import(names=names) if any(each.name == "treq" for each in names):
            return [node.lineno]  # whose functions make an agent of their own
        case ast.ImportFrom(module="treq", names=names):
            reads = all(each.name == "content" for each in names)
            return [] if reads else [node.lineno]
        case ast.ImportFrom(names=names):
            hidden = [each for each in names if each.name == "Agent" and each.asname]
            wrong = hidden or [each for each in names if each.name in FORBIDDEN]
            return [node.lineno] if wrong else []
        case ast.Attribute(value=ast.Name(id="Agent") | ast.Attribute(attr="Agent")):
            return [node.lineno]
        case ast.Call(func=ast.Name(id="Agent") | ast.Attribute(attr="Agent")):
            named = [word.value for word in node.keywords if word.arg == "contextFactory"]
            policy = [*node.args[1:2], *named]
            none = not policy or (isinstance(policy[0], ast.Constant))
            return [node.lineno] if none else []
        case _:
            return []
