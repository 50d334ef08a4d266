"""
From the text that an operator wrote to the value that it means.

Each function takes text and answers the value, or raises `ValueError` with a
sentence that quotes the text and says what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from fjmcp import limits
from fjmcp.forge import scopes
from fjmcp.oauth import uris
from fjmcp.web.addresses import Header, Proxies

Number = TypeVar("Number", int, float)

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)\Z")
_COUNT: Final = re.compile(r"-?[0-9]{1,18}\Z")
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?\Z")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*\Z")
_HOST_PORT: Final = re.compile(r"(\[[^\]]*\]|[^\[\]]*):([0-9]{1,5})\Z")
_PRINTABLE: Final = re.compile(r"[!-~]+\Z")
_FORGE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_PORTS: Final = {"http": 80, "https": 443}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def duration(text: str) -> float:
    """Seconds, from `90`, `90s`, `15m`, `1h` or `2d`."""
    match = _TIME.match(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no time; write seconds, or a number with s, m, h or d: 15m")
    return float(match[1]) * _UNITS[match[2]]


def time_words(seconds: float) -> str:
    """The other way round: 300.0 is `5m`."""
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:.12g}"


def count(text: str) -> int:
    """A whole number."""
    if _COUNT.match(text.strip()) is None:
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def between(
    read: Callable[[str], Number], low: Number, high: Number, words: str
) -> Callable[[str], Number]:
    """A reader whose value is from `low` to `high`; `words` says so."""

    def bounded(text: str) -> Number:
        value = read(text)
        if not low <= value <= high:
            raise ValueError(f"{text!r} is out of range; it must be {words}")
        return value

    return bounded


def one_of(*allowed: int) -> Callable[[str], int]:
    """A reader of one of a few numbers."""

    def chosen(text: str) -> int:
        if text.strip() not in {str(number) for number in allowed}:
            raise ValueError(f"{text!r} is not one of {', '.join(map(str, allowed))}")
        return int(text)

    return chosen


def switch(text: str) -> bool:
    """Yes or no, as people write it in an environment."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is neither yes nor no; write true or false")
    return word in _TRUE


def path(text: str) -> Path:
    """A file, from the working directory if it is relative; `~` is understood."""
    if not text.strip() or "\0" in text:
        raise ValueError("the path is empty" if not text.strip() else "a path has no zero byte")
    return Path(text).expanduser().absolute()


def store(text: str) -> Path:
    """The SQLite file, from a path or `sqlite:///path`, in a folder that is there."""
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme.lower() != "sqlite":
            raise ValueError(f"{scheme}:// is no store that fjmcp knows; it keeps a SQLite file")
        if not rest.startswith("/") or not rest[1:]:
            raise ValueError(
                f"{text!r} names no file; write sqlite:///name, or sqlite:////folder/name with"
                " four slashes for an absolute path"
            )
        text = rest[1:]
    if text.startswith(":memory:"):
        raise ValueError("a store in memory would forget everybody; name a file")
    file = path(text)
    try:
        is_folder, has_folder = file.is_dir(), file.parent.is_dir()
    except OSError as error:
        raise ValueError(
            f"{file} cannot be looked at: {error.strerror}; is this the daemon's user?"
        ) from None
    if is_folder:
        raise ValueError(f"{file} is a folder; name a file in it, such as {file / 'fjmcp.sqlite3'}")
    if not has_folder:
        raise ValueError(f"the folder {file.parent} does not exist")
    return file


def is_loopback(host: str) -> bool:
    """Whether the host of a URL is this machine, by name or by address."""
    if host in {"localhost", "localhost."}:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def public_url(text: str) -> str:
    """
    The URL that clients see: no path, `https` unless the host is loopback.

    OAuth needs both: the issuer is compared as a string (RFC 8414 §3.3), and
    codes and tokens travel to it (RFC 6749 §3.1).
    """
    parts = _split(text)
    if parts.path not in {"", "/"}:
        raise ValueError(f"{text!r} has a path; the public URL is scheme, host and port only")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{text!r} must be https, or tokens travel in the clear")
    return _origin(parts)


def forge_url(text: str) -> str:
    """The URL of a Forgejo, which may live under a path."""
    parts = _split(text)
    trail = parts.path.rstrip("/")
    if not _PATH.match(trail) or {".", ".."} & set(trail.split("/")):
        raise ValueError(f"{text!r} has a path that no Forgejo lives under")
    return _origin(parts) + trail


def origins(text: str) -> frozenset[str]:
    """
    Origins of web pages, separated by spaces or commas, each as browsers spell it.

    `none`, alone: there are none.
    """
    words = text.replace(",", " ").split()
    if [word.lower() for word in words] == ["none"]:
        return frozenset()
    if not words:
        raise ValueError("it names no origin; write such as http://localhost:6274, or none")
    return frozenset(_page_origin(word) for word in words)


def _page_origin(text: str) -> str:
    if "*" in text:
        raise ValueError(f"{text!r} would be pages of anybody; name each origin in full")
    if text.lower() == "null":
        # What browsers send for files, sandboxed frames and data: URLs, whosever they are.
        raise ValueError(f"{text!r} could be any page at all; serve the page from an origin")
    parts = _split(text)
    if parts.path not in {"", "/"}:
        raise ValueError(f"{text!r} has a path; an origin is scheme, host and port only")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{text!r} must be https, or anybody on the way could change the page")
    origin = uris.split(_origin(parts))
    assert origin is not None, "it was judged"
    return origin.origin


def _split(text: str) -> SplitResult:
    example = "such as https://mcp.example.org"
    if not _PRINTABLE.match(text) or "\\" in text:
        raise ValueError(
            f"{text!r} is no URL: it is empty, or has spaces, backslashes or letters that are not"
            " ASCII (write an international name in its xn-- form)"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no URL: {error}") from None
    if parts.scheme not in _PORTS or not parts.netloc:
        raise ValueError(f"{text!r} is no http or https URL, {example}")
    if parts.username is not None or parts.password is not None:
        # The text is not quoted: it may hold a password.
        raise ValueError("a user name or password has no place in this URL")
    if "?" in text or "#" in text:
        raise ValueError(f"{text!r} must not have a query or a fragment")
    if port == 0 or not _is_host(parts.hostname or ""):
        raise ValueError(f"{text!r} has no host that can be reached, {example}")
    if uris.split(_origin(parts)) is None:
        # What we send browsers to must be read alike by all of them.
        if (parts.hostname or "").endswith("."):
            raise ValueError(f"{text!r} has a dot at the end of its host; leave it out")
        raise ValueError(f"{text!r} has a host that browsers may spell in another way, {example}")
    return parts


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _NAME.match(host) is not None
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _origin(parts: SplitResult) -> str:
    host = parts.hostname or ""
    # As browsers do (WHATWG URL, "IPv6 serializer"): [0:0::1] is [::1].
    shown = f"[{ip_address(host)}]" if ":" in host else host
    if parts.port in {None, _PORTS[parts.scheme]}:
        return f"{parts.scheme}://{shown}"
    return f"{parts.scheme}://{shown}:{parts.port}"


def listen(text: str) -> str:
    """
    An endpoint description of Twisted's, from `host:port` or from one.

    `127.0.0.1:8080`, `[::1]:8080`, `:8080` (every address), `unix:/run/x.sock`,
    `systemd:domain=INET:name=fjmcp`.
    """
    text = text.strip()
    if text.partition(":")[0] in _endpoint_kinds():
        try:
            serverFromString(None, text)
        except KeyError as error:
            if not text.startswith("systemd:"):
                raise ValueError(f"{text!r} lacks {error}") from None
            raise ValueError(f"systemd handed over no socket named {error}") from None
        except Exception as error:
            # The parsers are plugins and raise what they like.
            raise ValueError(f"{text!r} is no endpoint that Twisted understands: {error}") from None
        return text
    match = _HOST_PORT.match(text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(
            f"{text!r} is neither host:port nor an endpoint; write 127.0.0.1:8080, :8080 for every"
            " address, or such as unix:/run/fjmcp/http.sock"
        )
    host = match[1].strip("[]")
    if host in {"", "*"}:
        return f"tcp:{match[2]}"
    try:
        address = str(ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise ValueError(
            f"{host!r} is no address of this machine; write an IP address, or nothing for all:"
            f" :{match[2]}"
        ) from None
    return f"tcp:{match[2]}:interface={quoteStringArgument(address)}"


def _endpoint_kinds() -> frozenset[str]:
    plugins = getPlugins(IStreamServerEndpointStringParser)
    return frozenset({"tcp", "unix", "ssl"} | {plugin.prefix for plugin in plugins})


def trusted_proxies(text: str) -> Proxies:
    """
    Addresses and networks, separated by spaces or commas.

    `unix`: sockets lead to one too; `forwarded`: they write that header;
    `none`, alone: there are none.
    """
    words = text.replace(",", " ").split()
    if [word.lower() for word in words] == ["none"]:
        return Proxies()
    networks, named = [], set()
    for word in words:
        if word.lower() in {"unix", "forwarded"}:
            named.add(word.lower())
            continue
        try:
            network = ip_network(word)
        except ValueError as error:
            raise ValueError(
                f"{word!r} is no address or network: {error}; write such as 10.0.0.0/8, unix for"
                " Unix sockets, or none"
            ) from None
        if network.prefixlen == 0:
            raise ValueError(f"{word!r} is everybody, and everybody could name any address")
        networks.append(network)
    if not networks and "unix" not in named:
        raise ValueError(f"{text!r} names no proxy; write an address, a network, unix, or none")
    header = Header.FORWARDED if "forwarded" in named else Header.X_FORWARDED_FOR
    return Proxies(tuple(networks), "unix" in named, header)


def logins(text: str) -> frozenset[str]:
    """Logins at Forgejo, separated by spaces."""
    words = text.split()
    for word in words:
        if not _FORGE_NAME.match(word):
            raise ValueError(f"{word!r} is no login of Forgejo's; write such as: alice bob")
    if not words:
        raise ValueError("it names nobody, and then nobody could come in; leave it out for all")
    return frozenset(words)


def organizations(text: str) -> frozenset[str]:
    """Organizations of Forgejo's, or teams as `organization:team`, separated by spaces."""
    words = text.split()
    for word in words:
        organization, colon, team = word.partition(":")
        names = [organization, team] if colon else [organization]
        if not all(map(_FORGE_NAME.match, names)):
            raise ValueError(
                f"{word!r} is neither an organization of Forgejo's nor a team of one; write such"
                " as: gardeners allotment:keepers"
            )
    if not words:
        raise ValueError("it names nobody, and then nobody could come in; leave it out for all")
    if len(words) > limits.ALLOWED_ORGS:
        raise ValueError(
            f"it names {len(words)} organizations and teams, and Forgejo is asked for each at every"
            f" look; at most {limits.ALLOWED_ORGS}: make one team of several"
        )
    return frozenset(words)


def forge_scopes(text: str) -> str:
    """Scopes of Forgejo's, separated by single spaces."""
    problems = scopes.validate(text)
    if problems:
        raise ValueError(" ".join(problems))
    return " ".join(text.split())


def printable(text: str) -> str:
    """
    A word without spaces, such as an id or a secret.

    The message does not quote the text, which may be a secret.
    """
    if not _PRINTABLE.match(text.strip()):
        raise ValueError("it is empty, or has spaces or letters that are not ASCII")
    return text.strip()


def anything(text: str) -> str:
    """Text that is judged elsewhere, but is there."""
    if not text.strip():
        raise ValueError("it is empty")
    return text
