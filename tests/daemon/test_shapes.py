"""What each text means, and what is said of one that means nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.daemon import shapes
from fjmcp.forge import scopes
from fjmcp.web.addresses import Header, Proxies


class ShapesTests(SynchronousTestCase):
    """Tables of text and value."""

    def check(self, read: Callable[[str], object], *rows: tuple[str, object]) -> None:
        """Each text reads as the value beside it."""
        for text, value in rows:
            self.assertEqual(read(text), value, text)

    def refuse(self, read: Callable[[str], object], *rows: tuple[str, str]) -> None:
        """Each text is refused in a sentence with the words beside it."""
        for text, words in rows:
            error = self.assertRaises(ValueError, read, text)
            self.assertIn(words, str(error), text)

    def test_times(self) -> None:
        """A time is seconds, or a number with a unit."""
        self.check(
            shapes.duration,
            ("90", 90.0),
            ("90s", 90.0),
            ("0.5", 0.5),
            ("15m", 900.0),
            (" 1h ", 3600.0),
            ("2D", 172800.0),
        )
        words = "is no time"
        self.refuse(
            shapes.duration,
            ("", words),
            ("-5", words),
            ("5 m", words),
            ("1e3", words),
        )

    @given(st.integers(min_value=1, max_value=10**7))
    def test_times_read_back(self, seconds: int) -> None:
        """A time in words is read as the same time."""
        self.assertEqual(shapes.duration(shapes.time_words(float(seconds))), float(seconds))

    def test_trusted_proxies(self) -> None:
        """Addresses and networks, sockets, a header; nobody by mistake, and never everybody."""
        local, ten = ip_network("127.0.0.1"), ip_network("10.0.0.0/8")
        self.check(
            shapes.trusted_proxies,
            ("none", Proxies()),
            (" None ", Proxies()),
            ("127.0.0.1", Proxies((local,))),
            ("127.0.0.1,10.0.0.0/8", Proxies((local, ten))),
            (" 10.0.0.0/8  unix ", Proxies((ten,), True)),
            ("unix Forwarded", Proxies((), True, Header.FORWARDED)),
            ("::1 forwarded", Proxies((ip_network("::1"),), False, Header.FORWARDED)),
        )
        self.refuse(
            shapes.trusted_proxies,
            ("", "names no proxy"),
            ("forwarded", "names no proxy"),
            ("none 127.0.0.1", "'none' is no address"),
            ("10.0.0.1/8", "has host bits set"),
            ("proxy.example.org", "is no address or network"),
            ("0.0.0.0/0", "is everybody"),
            ("10.0.0.0/8 ::/0", "'::/0' is everybody"),
        )

    def test_logins(self) -> None:
        """Logins are names of Forgejo's; an empty list is no list."""
        self.check(
            shapes.logins,
            ("alice", frozenset({"alice"})),
            ("  Alice  bob_2 \n c.d-e", frozenset({"Alice", "bob_2", "c.d-e"})),
        )
        self.refuse(
            shapes.logins,
            ("", "names nobody"),
            (" ", "names nobody"),
            ("alice, bob", "'alice,'"),
            ("alice @bob", "'@bob'"),
            ("alice@example.org", "no login"),
            ("allotment:keepers", "no login"),
            ("al\u0131ce", "no login"),
            ("-alice", "no login"),
            ("*", "no login"),
        )

    def test_organizations(self) -> None:
        """Organizations, and teams with theirs."""
        self.check(
            shapes.organizations,
            ("zoo", frozenset({"zoo"})),
            (" Zoo  allotment:Keepers", frozenset({"Zoo", "allotment:Keepers"})),
        )
        words = "neither an organization"
        self.refuse(
            shapes.organizations,
            ("", "names nobody"),
            ("zoo:", words),
            (":keepers", words),
            (":", words),
            ("zoo:a:b", words),
            ("zoo/keepers", words),
            ("zoo,allotment", words),
            ("zoo: keepers", "'zoo:'"),
            (" ".join(f"zoo-{n}" for n in range(51)), "names 51"),
        )
        self.check(
            shapes.organizations,
            (" ".join(map(str, range(50))), frozenset(map(str, range(50)))),
        )

    def test_numbers(self) -> None:
        """A count is a whole number within its bounds."""
        read = shapes.between(shapes.count, 1, 9, "1 to 9")
        self.check(read, ("1", 1), (" 9 ", 9))
        self.refuse(read, ("0", "1 to 9"), ("10", "1 to 9"), ("1.5", "whole"), ("\u0661", "whole"))
        self.check(shapes.one_of(404, 410), ("410", 410))
        self.refuse(shapes.one_of(404, 410), ("400", "404, 410"), ("04", "404, 410"))

    def test_switches(self) -> None:
        """Yes and no are understood as people write them, anything else is refused."""
        self.check(shapes.switch, ("true", True), ("ON", True), ("0", False), ("no", False))
        self.refuse(shapes.switch, ("2", "neither"), ("yep", "neither"), ("", "neither"))

    def test_public_url(self) -> None:
        """The public URL is https or loopback, without a path, and spelt in one way."""
        self.check(
            shapes.public_url,
            ("https://mcp.example.org", "https://mcp.example.org"),
            ("https://MCP.Example.org:443/", "https://mcp.example.org"),
            ("https://mcp.example.org:8443", "https://mcp.example.org:8443"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://127.3.2.1:80", "http://127.3.2.1"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("https://[2001:DB8:0:0::1]", "https://[2001:db8::1]"),
        )
        self.refuse(
            shapes.public_url,
            ("", "no URL"),
            ("mcp.example.org", "no http"),
            ("http://mcp.example.org", "must be https"),
            ("http://localhost.evil.example", "must be https"),
            ("http://127.0.0.1.evil.example", "must be https"),
            ("https://mcp.example.org/mcp", "has a path"),
            ("https://mcp.example.org//", "has a path"),
            ("https://mcp.example.org?", "query"),
            ("https://mcp.example.org#", "fragment"),
            ("https://mcp.example.org.", "a dot at the end"),
            ("https://mcp.example.1", "another way"),
            ("https://0x7f.1", "another way"),
            (f"https://{'a' * 64}.example", "another way"),
            ("https://mcp.example.org:0", "no host"),
            ("https://mcp.example.org:99999", "no URL"),
            ("https://mcp.example.org:x", "no URL"),
            ("https://", "no http"),
            ("https://:443", "no host"),
            ("https://a\\@b/", "no URL"),
            ("https://exa mple.org", "no URL"),
            ("https://example.org\n", "no URL"),
            ("https://müller.example", "xn--"),
            ("https://-a.example", "no host"),
            ("https://a..example", "no host"),
            ("https://[::1", "no URL"),
            ("https://[fe80::1%25eth0]", "no host"),
            ("ftp://example.org", "no http"),
        )

    def test_origins(self) -> None:
        """Origins of pages are read as browsers spell them; no pattern, path or half word is."""
        self.check(
            shapes.origins,
            ("http://localhost:6274", {"http://localhost:6274"}),
            (
                " https://a.example,https://b.example:8443 ",
                {"https://a.example", "https://b.example:8443"},
            ),
            ("HTTPS://A.Example:443/ https://a.example", {"https://a.example"}),
            ("http://127.3.2.1:80", {"http://127.3.2.1"}),
            (
                "http://[0:0::1]:80 https://[2001:DB8::]:443",
                {"http://[::1]", "https://[2001:db8::]"},
            ),
            ("https://xn--mller-kva.example", {"https://xn--mller-kva.example"}),
            ("none", set()),
            ("None", set()),
        )
        self.refuse(
            shapes.origins,
            ("", "names no origin"),
            (" , ", "names no origin"),
            ("*", "anybody"),
            ("https://*.example.org", "anybody"),
            ("null", "any page"),
            ("NULL", "any page"),
            ("https://a.example none", "no http"),
            ("localhost:6274", "no http"),
            ("a.example", "no http"),
            ("https://a.example/app", "has a path"),
            ("https://a.example//", "has a path"),
            ("https://a.example?", "query"),
            ("https://a.example#", "fragment"),
            ("http://a.example", "must be https"),
            ("http://localhost.evil.example", "must be https"),
            ("http://127.1", "another way"),
            ("https://127.1", "another way"),
            ("https://0x7f.1", "another way"),
            ("https://a.example.", "a dot at the end"),
            ("https://müller.example", "xn--"),
            ("https://a.example:0", "no host"),
            ("https://a.example:65536", "no URL"),
            ("https://[::1%25lo]", "no host"),
            ("vscode-webview://abc", "no http"),
            ("chrome-extension://abc", "no http"),
            ("file:///index.html", "no http"),
            ("https://good.example https://bad.example/x", "'https://bad.example/x'"),
        )

    def test_user_info_is_not_repeated(self) -> None:
        """A password in a URL is refused without being shown."""
        for read in (shapes.public_url, shapes.forge_url, shapes.origins):
            error = self.assertRaises(ValueError, read, "https://u:hunter22@example.org")
            self.assertIn("password", str(error))
            self.assertNotIn("hunter22", str(error))

    def test_forge_url(self) -> None:
        """A Forgejo may live under a path and inside a private network."""
        self.check(
            shapes.forge_url,
            ("https://git.example.org/", "https://git.example.org"),
            ("https://example.org/git/", "https://example.org/git"),
            ("http://forgejo:3000", "http://forgejo:3000"),
            ("http://my_forge.internal", "http://my_forge.internal"),
        )
        self.refuse(
            shapes.forge_url,
            ("https://example.org/a/../b", "path"),
            ("https://example.org//git", "path"),
            ("https://example.org/%2e", "path"),
            ("git@example.org:a/b", "no http"),
        )

    def test_listen(self) -> None:
        """Host and port become an endpoint; an endpoint stays itself."""
        self.check(
            shapes.listen,
            ("127.0.0.1:8080", "tcp:8080:interface=127.0.0.1"),
            ("localhost:0", "tcp:0:interface=127.0.0.1"),
            ("[::1]:8080", "tcp:8080:interface=\\:\\:1"),
            (":8080", "tcp:8080"),
            ("*:8080", "tcp:8080"),
            ("tcp:8080", "tcp:8080"),
            ("unix:/run/fjmcp.sock", "unix:/run/fjmcp.sock"),
        )
        self.refuse(
            shapes.listen,
            ("8080", "neither host:port"),
            ("127.0.0.1", "neither host:port"),
            ("127.0.0.1:65536", "neither host:port"),
            ("example.org:8080", "no address"),
            ("tcp:http-alt", "no endpoint"),
            ("systemd:domain=INET:name=nothing-here", "no socket named 'nothing-here'"),
        )

    def test_scopes(self) -> None:
        """Scopes that Forgejo would take for everything are refused."""
        self.assertEqual(shapes.forge_scopes(scopes.DEFAULT), scopes.DEFAULT)
        self.assertEqual(shapes.forge_scopes(" read:user   openid "), "read:user openid")
        self.refuse(shapes.forge_scopes, ("openid", "everything"), ("read:repo", "read:repository"))

    def test_words(self) -> None:
        """An id or secret is one printable word; what is refused is not repeated."""
        self.assertEqual(shapes.printable("gto_abc\n"), "gto_abc")
        for text in ("", " ", "two words", "ünknown", "nul\0l"):
            error = self.assertRaises(ValueError, shapes.printable, text)
            if text.strip():
                self.assertNotIn(text, str(error))


class StoreTests(SynchronousTestCase):
    """Which file a store is."""

    def setUp(self) -> None:
        """A folder of our own."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def test_paths(self) -> None:
        """A path and both forms of a SQLite URL name the same file."""
        file = self.folder / "a.sqlite3"
        for text in (str(file), f"sqlite:///{file}", f"sqlite:///{os.path.relpath(file)}"):
            self.assertEqual(shapes.store(text).resolve(), file.resolve(), text)

    def test_refused(self) -> None:
        """What is no file, or has no folder to be in, is refused."""
        for text, words in (
            ("postgresql://host/db", "postgresql:// is no store"),
            ("sqlite://file", "four slashes"),
            ("sqlite:///", "four slashes"),
            (":memory:", "forget everybody"),
            ("", "empty"),
            (str(self.folder), "is a folder"),
            (str(self.folder / "no" / "a.sqlite3"), "does not exist"),
        ):
            self.assertIn(words, str(self.assertRaises(ValueError, shapes.store, text)), text)
