"""
A URI taken apart by the narrowest grammar that honest clients need.

General parsers are generous: they strip newlines, take backslashes for
slashes, keep spaces.  A browser reads the same text in its own way, and in the
difference lives the open redirector.  What this grammar takes, all read alike.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import unquote

from attrs import frozen

# RFC 3986 §2: unreserved, sub-delims, ":" and "@" stand for themselves, the rest is %XX.
_CHARACTER: Final = r"[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2}"
_SHAPE: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*)://"
    r"(?P<host>[A-Za-z0-9_.\-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    rf"(?P<path>(?:/(?:{_CHARACTER})*)?)"
    rf"(?:\?(?P<query>(?:{_CHARACTER}|\?)*))?"
)
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_\-]{0,61}[A-Za-z0-9_])?")
_LAYERS: Final = 8
"""Percent-encodings within one another; honest URIs have two.  Each costs a pass over the text,
and 16 KiB of "%252525…" have thousands."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@frozen
class Uri:
    """An absolute URI with an authority and no userinfo or fragment, in the letters it came in."""

    scheme: str
    host: str
    port: int | None
    path: str
    query: str | None

    @property
    def name(self) -> str:
        """The host for people: lower case, internationalized names in their ASCII form."""
        return self.host.lower()

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address that the host is, however it is spelt; None where it is a name."""
        try:
            found = ip_address(self.host.strip("[]"))
        except ValueError:
            return None
        # RFC 4291 §2.5.5.2: "IPv4-Mapped IPv6 Address": to a browser it is the IPv4 one.
        mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
        return found if mapped is None else mapped

    @property
    def canonical_host(self) -> str:
        """The host as hosts are compared: an address in one spelling, else the name."""
        return self.name if self.address is None else str(self.address)

    @property
    def effective_port(self) -> int | None:
        """The port, or the scheme's own."""
        return self.port or _DEFAULT_PORTS.get(self.scheme)

    @property
    def origin(self) -> str:
        """Scheme, host and port as browsers compare them (RFC 6454 §6.2)."""
        port = "" if self.port in (None, _DEFAULT_PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{self.name}{port}"


def split(text: str) -> Uri | None:
    """
    The parts of `text`, or None where it is not plain.

    Not plain: a scheme in capitals, no authority, userinfo, a fragment, an odd host or port,
    dot segments or backslashes or controls (also percent-encoded, also twice), an encoding of
    an encoding and so on without end, any other character that RFC 3986 would want encoded.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > 65535:
        return None
    if not _plain_host(found["host"]):
        return None
    path, query = _decoded(found["path"]), _decoded(found["query"] or "")
    if path is None or query is None or not _plain_path(path) or _has_control(query):
        return None
    return Uri(found["scheme"], found["host"], port, found["path"], found["query"])


def _plain_host(host: str) -> bool:
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
            return True
        labels = host.split(".")
        # Browsers read any host whose last label is a number as an IPv4 address: 127.1 and
        # 2130706433 are 127.0.0.1 to them (WHATWG URL, "ends in a number").
        if labels[-1].isdigit() or labels[-1].lower().startswith("0x"):
            IPv4Address(host)
            return True
    except AddressValueError:
        return False
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def _plain_path(decoded: str) -> bool:
    if _has_control(decoded) or "\\" in decoded:
        return False
    # Some servers cut path parameters off before they resolve dots: "..;x" is ".." to them.
    return not any(segment.partition(";")[0] in (".", "..") for segment in decoded.split("/"))


def _decoded(text: str) -> str | None:
    """`text` without percent-encoding, however often it was encoded; None past `_LAYERS`."""
    for _ in range(_LAYERS):
        if "%" not in text:
            return text
        once = unquote(text, encoding="latin-1")
        if once == text:
            return text
        text = once
    return None


def _has_control(text: str) -> bool:
    return any(character < " " or character == "\x7f" for character in text)
