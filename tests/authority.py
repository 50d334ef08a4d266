"""An authority that a test trusts, and the certificates that it, or nobody, has signed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

CA: Final = x509.BasicConstraints(ca=True, path_length=None)

IMPOSTORS: Final[dict[str, tuple[x509.GeneralName, ...]]] = {
    "another name": (x509.DNSName("printer.example"),),
    "a name below": (x509.DNSName("x.localhost"), x509.DNSName("x.client.example")),
    "no name": (),
    "a wildcard for all of a domain": (x509.DNSName("*.lan"),),
    "an address as a name": (x509.DNSName("10.1.2.3"),),
    "somebody's address for mail": (x509.RFC822Name("bob@printer.example"),),
    "another name and that wildcard": (x509.DNSName("printer.example"), x509.DNSName("*.lan")),
    "a wildcard in the middle": (x509.DNSName("a.*.example"),),
    "something that is no name": (x509.DNSName(""),),
    "another address": (x509.IPAddress(ip_address("127.0.0.2")),),
    "another address of IPv6": (x509.IPAddress(ip_address("::2")),),
}
"""Names in certificates that are neither for `localhost` nor for `client.example`, and for
no address of this machine, by what is odd about them."""


@implementer(IOpenSSLTrustRoot)
class Authority:
    """Whose certificates are good, if a test trusts it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _named("an authority")
        root = _builder(self.key, self.name, self.name).add_extension(CA, True)
        self.root = root.sign(self.key, hashes.SHA256())

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(self.root))

    def server(
        self,
        *names: x509.GeneralName,
        days: int = 1,
        instead: x509.ExtensionType | None = None,
    ) -> SSL.Context:
        """
        What a server of these names needs, until so many days from now.

        :param instead: an extension in place of that with the names.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(key, _named("a server"), self.name, days)
        extension = instead or (x509.SubjectAlternativeName(names) if names else None)
        if extension is not None:
            builder = builder.add_extension(extension, False)
        return _context(builder.sign(self.key, hashes.SHA256()), key)


def self_signed(*names: x509.GeneralName) -> SSL.Context:
    """What a server of these names has that no authority knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("a server")
    builder = _builder(key, name, name).add_extension(x509.SubjectAlternativeName(names), False)
    return _context(builder.sign(key, hashes.SHA256()), key)


def _builder(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, issuer: x509.Name, days: int = 1
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now + timedelta(days=days))
    )


def _context(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@implementer(IOpenSSLContextFactory)
@define
class Secured:
    """A server's TLS, as its endpoint wants it."""

    context: SSL.Context

    def getContext(self) -> SSL.Context:
        return self.context
