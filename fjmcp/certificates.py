"""
Whose certificate is good: how everything that goes out from here over TLS is checked.

Twisted's own check asks `service_identity` whether a certificate names the host, and
takes one of its exceptions for a no.  The others it logs, and goes on: so a certificate
that names nobody, or `*.lan`, or an address as if it were a name, was good for every
host.  Here only a yes is a yes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import ref

from attrs import frozen
from OpenSSL.crypto import X509
from OpenSSL.SSL import (
    VERIFY_FAIL_IF_NO_PEER_CERT,
    VERIFY_PEER,
    Connection,
    X509VerificationCodes,
)
from service_identity import VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_OF_OPENSSL: Final = {
    code: name.removeprefix("ERR_").replace("_", " ").lower()
    for name, code in vars(X509VerificationCodes).items()
    if isinstance(code, int)
}
"""What OpenSSL finds wrong with a chain, in words."""


class BadCertificate(Exception):
    """A server has not shown that it is the host that is meant; the text says what is wrong."""


@implementer(IPolicyForHTTPS)
@frozen
class Certificates:
    """
    The policy for every `Agent`: a chain that is trusted, and a leaf that names the host.

    :ivar trust: Twisted's trust root; None for the authorities that the system trusts.
    """

    trust: Any = None

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """
        IPolicyForHTTPS's: what begins TLS with this host.

        :raises ValueError: it is neither a name nor an address.
        """
        host = hostname.decode("ascii")
        return _Checked(host, _id_of(host), optionsForClientTLS(host, trustRoot=self.trust))


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _Checked:
    host: str
    id: DNS_ID | IPAddress_ID
    inner: IOpenSSLClientConnectionCreator

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        """IOpenSSLClientConnectionCreator's: one connection, whose check is ours."""
        connection: Connection = self.inner.clientConnectionForTLS(tlsProtocol)
        mode = VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT
        connection.set_verify(mode, self._check(ref(tlsProtocol)))
        return connection

    def _check(
        self, protocol: ref[TLSMemoryBIOProtocol]
    ) -> Callable[[Connection, X509, int, int, int], bool]:
        """
        What OpenSSL asks about each certificate of a chain, the leaf last.

        The protocol has the connection, and the connection has this.  The reference back
        is weak: that circle would lead through C, into which not every collector looks.
        """

        def check(_: Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
            if ok:
                wrong = self._wrong(certificate) if depth == 0 else None
            else:
                wrong = _OF_OPENSSL.get(error, f"OpenSSL's error {error}")
            if wrong is None:
                return True
            tls = protocol()
            if tls is not None:
                # Made here and not raised, it has no traceback, and holds nothing.
                tls.failVerification(Failure(BadCertificate(wrong)))
            return False

        return check

    def _wrong(self, leaf: X509) -> str | None:
        """What is wrong with the names of the server's own certificate; None if nothing is."""
        try:
            verify_service_identity(extract_patterns(leaf), [self.id], [])
        except VerificationError:
            return f"it is not for {self.host}"
        except Exception as odd:  # CertificateError, and whatever else reading it may raise
            return f"its names cannot be read: {odd}"
        return None


def _id_of(host: str) -> DNS_ID | IPAddress_ID:
    try:
        return IPAddress_ID(host)
    except ValueError:
        return DNS_ID(host)
