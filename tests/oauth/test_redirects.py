"""Tests for `fjmcp.oauth.redirects` and the grammar in `fjmcp.oauth.uris`."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.oauth.redirects import host, is_loopback, judge, matches, origin
from fjmcp.oauth.uris import split
from fjmcp.refusals import OAuthRefusal
from tests.oauth.captured import REGISTRATIONS

CAPTURED = sorted({uri for body in REGISTRATIONS.values() for uri in body["redirect_uris"]})

GOOD = [
    *CAPTURED,
    "https://claude.com/api/mcp/auth_callback",
    "http://localhost/callback",
    "http://[::1]:8080/callback",
    "http://[::1]/",
    "http://localhost",
    "https://example.org",
    "https://example.org:8443/a/b",
    "https://example.org/cb?tenant=7&next=%2Fhome",
    "https://xn--bcher-kva.example/cb",
    "https://Example.ORG/cb",
    "https://192.0.2.7/cb",
    "https://[2001:db8::1]:8443/cb",
    "https://example.org/a%20b",
    "https://example.org/a//b",
    "https://example.org/..a/b..",
    "https://a_b.example.org/cb",
]

BAD = [
    "",
    "/callback",
    "callback",
    "//example.org/cb",
    "https:",
    "https://",
    "https:///cb",
    "https:/example.org/cb",
    "https:example.org/cb",
    "https://:443/cb",
    "https://example.org/cb#",
    "https://example.org/cb#fragment",
    "https://example.org#@claude.ai/cb",
    "https://user@example.org/cb",
    "https://user:secret@example.org/cb",
    "https://claude.ai@example.org/cb",
    "https://@example.org/cb",
    "https://claude.ai%40example.org/cb",
    "https://example.org/../cb",
    "https://example.org/a/./cb",
    "https://example.org/..",
    "https://example.org/.",
    "https://example.org/%2e%2e/cb",
    "https://example.org/%2E./cb",
    "https://example.org/.%2e/cb",
    "https://example.org/%252e%252e/cb",
    # Each layer costs a pass over the whole: thousands of them stood for a third of a second.
    "https://example.org/%" + 20 * "25" + "41",
    "https://example.org/cb?a=%" + 20 * "25" + "41",
    "https://example.org/a%2f..%2fcb",
    "https://example.org/..;/cb",
    "https://example.org/..%3bx/cb",
    "https://example.org\\@claude.ai/cb",
    "https://example.org/a\\b",
    "https://example.org/a%5cb",
    "https://example.org/a%255cb",
    "https://example.org/a b",
    " https://example.org/cb",
    "https://example.org/cb ",
    "https://example.org/cb\n",
    "https://example.org/\tcb",
    "https://exam\rple.org/cb",
    "https://example.org/cb\x00",
    "https://example.org/cb\x7f",
    "https://example.org/cb%0d%0aSet-Cookie:%20a=b",
    "https://example.org/cb%00",
    "https://example.org/cb?a=%0a",
    "https://example.org/%zz",
    "https://example.org/%",
    "https://bücher.example/cb",
    "https://example.org/ü",
    "https://\u0435xample.org/cb",
    "https://example.org/<script>",
    'https://example.org/"cb',
    "https://example.org/{cb}",
    "https://example.org:/cb",
    "https://example.org:0/cb",
    "https://example.org:0443/cb",
    "https://example.org:65536/cb",
    "https://example.org:port/cb",
    "https://example.org:٤٤٣/cb",
    "https://example..org/cb",
    "https://.example.org/cb",
    "https://example.org./cb",
    "https://-example.org/cb",
    "https://" + "a" * 64 + ".org/cb",
    "https://" + "a." * 130 + "org/cb",
    "https://127.1/cb",
    "https://2130706433/cb",
    "https://0x7f000001/cb",
    "https://1.2.3.4.5/cb",
    "https://256.1.1.1/cb",
    "https://[::1/cb",
    "https://[::g]/cb",
    "https://[fe80::1%25eth0]/cb",
    "https://[v1.x]/cb",
    "https://*.example.org/cb",
    "https://example.org/*",
    "https://*/cb",
    "http://example.org/cb",
    "http://127.0.0.2/cb",
    "http://127.1/cb",
    "http://0.0.0.0/cb",
    "http://192.168.1.1/cb",
    "http://[::]/cb",
    "http://[::ffff:127.0.0.1]/cb",
    "http://[0:0:0:0:0:0:0:1]/cb",
    "http://LOCALHOST/cb",
    "https://0.0.0.0/cb",
    "https://0.0.0.0:8443/cb",
    "https://[::]/cb",
    "https://[0:0::0]:8443/cb",
    "https://[::ffff:0.0.0.0]/cb",
    "https://[::ffff:0:0]/cb",
    "http://localhost.example.org/cb",
    "http://example.localhost/cb",
    "http://localhost./cb",
    "http://localhost@example.org/cb",
    "http://localhost:80:90/cb",
    "HTTPS://example.org/cb",
    "Http://localhost/cb",
    "javascript:alert(1)",
    "javascript://example.org/%0aalert(1)",
    "JavaScript://localhost/cb",
    "data:text/html,hello",
    "file:///etc/passwd",
    "file://localhost/cb",
    "blob:https://example.org/1",
    "ftp://example.org/cb",
    "ws://localhost/cb",
    "urn:ietf:wg:oauth:2.0:oob",
    "about:blank",
    "intent://example.org/#Intent;end",
    "myapp://callback",
    "com.example.app:/oauth",
    "vscode://anything/cb",
    "cursor://anysphere.cursor-mcp/oauth/callback/",
    "cursor://anysphere.cursor-mcp/oauth/callback2",
    "cursor://anysphere.cursor-mcp/oauth",
    "cursor://anysphere.cursor-mcp:1/oauth/callback",
    "cursor://anysphere.cursor-mcp/oauth/callback?x=1",
    "cursor://evil/oauth/callback",
    "Cursor://anysphere.cursor-mcp/oauth/callback",
    "cursor:///oauth/callback",
    "https://example.org/cb?code=1",
    "https://example.org/cb?a=b&state=",
    "https://example.org/cb?%69ss=https://evil.example",
    "https://example.org/cb?error=no",
    "https://example.org/" + "a" * limits.REDIRECT_URI,
]

LOOPBACK = ["http://localhost", "http://127.0.0.1", "http://[::1]"]
ports = st.none() | st.integers(1, 65535)
paths = st.sampled_from(["", "/", "/callback", "/oauth/callback", "/a/b?x=1", "/a%20b"])


def _loopback(base: str, port: int | None, path: str) -> str:
    return f"{base}{'' if port is None else f':{port}'}{path}"


class Registering(SynchronousTestCase):
    """What may be registered."""

    def test_good(self) -> None:
        """Every redirect URI that a real client was seen to register is taken, as it stands."""
        for uri in GOOD:
            self.assertEqual(judge(uri), uri)

    def test_bad(self) -> None:
        """Every URI that browsers, servers and parsers could read differently is refused."""
        for uri in BAD:
            refusal = judge(uri)
            self.assertIsInstance(refusal, OAuthRefusal, uri)
            assert isinstance(refusal, OAuthRefusal)
            self.assertEqual((refusal.error, refusal.status), ("invalid_redirect_uri", 400))

    def test_length(self) -> None:
        """A URI of exactly the limit is taken, one character more is not."""
        longest = "https://example.org/".ljust(limits.REDIRECT_URI, "a")
        self.assertEqual(judge(longest), longest)
        self.assertIsInstance(judge(longest + "a"), OAuthRefusal)

    def test_refusal_repeats_nothing(self) -> None:
        """A refusal does not repeat the URI, which may be anything."""
        for uri in BAD:
            refusal = judge(uri.replace("example", "marker"))
            assert isinstance(refusal, OAuthRefusal)
            self.assertNotIn("marker", refusal.description)

    @given(st.text(st.characters()))
    @example("https://\ud800/")
    def test_any_text(self, text: str) -> None:
        """Any text at all is judged, and what is taken is plain ASCII with a scheme we know."""
        for uri in (text, f"https://{text}", f"https://example.org/{text}", f"http://[{text}]/"):
            if isinstance(judge(uri), str):
                self.assertRegex(uri, r"\A(https|http)://[!-~]+\Z")

    @given(
        st.lists(
            st.sampled_from([*"ab.:/?@[]%&;=0127", "example.org", ":80", "//", "/..", "%2e", "%41"])
        ).map("".join),
        st.sampled_from(["https://", "https://a", "http://localhost", "https://[::1]"]),
    )
    def test_the_library_agrees(self, text: str, start: str) -> None:
        """What is taken has the same host, port and path for the standard library's parser."""
        uri = start + text
        if not isinstance(judge(uri), str):
            return
        ours = split(uri)
        assert ours is not None
        theirs = urlsplit(uri)
        self.assertEqual(ours.name.strip("[]"), theirs.hostname)
        self.assertEqual((ours.port, ours.path), (theirs.port, theirs.path))
        self.assertEqual((ours.query or "", ""), (theirs.query, theirs.fragment))
        self.assertIsNone(theirs.username)


class Matching(SynchronousTestCase):
    """Which presented URI is a registered one."""

    def test_exact(self) -> None:
        """Each registered URI matches itself."""
        for uri in GOOD:
            self.assertTrue(matches(uri, uri))

    def test_no_other(self) -> None:
        """Of all URIs here, only loopback ones with another port match one that is not theirs."""
        for registered in GOOD:
            for presented in GOOD + BAD:
                if registered != presented and matches(registered, presented):
                    a, b = urlsplit(registered), urlsplit(presented)
                    self.assertIn(a.hostname, ("localhost", "127.0.0.1", "::1"))
                    self.assertEqual((a.scheme, a.hostname, a.path), ("http", b.hostname, b.path))

    @given(st.sampled_from(LOOPBACK), ports, ports, paths)
    def test_loopback_any_port(
        self, base: str, registered: int | None, presented: int | None, path: str
    ) -> None:
        """A loopback URI matches with any port in place of its own (RFC 8252 §7.3)."""
        self.assertTrue(
            matches(_loopback(base, registered, path), _loopback(base, presented, path))
        )

    def test_other_name_of_loopback(self) -> None:
        """localhost, 127.0.0.1 and [::1] are three hosts: none stands for another."""
        for a in LOOPBACK:
            for b in LOOPBACK:
                self.assertEqual(matches(f"{a}:1/cb", f"{b}:2/cb"), a == b)

    def test_https_on_loopback_has_no_free_port(self) -> None:
        """The port is free for http alone; https on localhost is matched as it stands."""
        self.assertFalse(matches("https://localhost:1/cb", "https://localhost:2/cb"))

    @given(
        st.sampled_from([uri for uri in GOOD if not uri.startswith("http://")]),
        st.integers(1, 65535),
    )
    def test_port_elsewhere(self, registered: str, port: int) -> None:
        """Anywhere but on loopback another port, even the scheme's own, is another URI."""
        parts = split(registered)
        assert parts is not None
        head = f"{parts.scheme}://{parts.host}"
        presented = f"{head}:{port}{parts.path}"
        assume(presented != registered)
        self.assertFalse(matches(registered, presented))

    @given(st.sampled_from(GOOD), st.data())
    def test_near_misses(self, registered: str, data: st.DataObject) -> None:
        """A URI that nearly matches, in case, slash, path, query, userinfo, fragment or
        encoding, never does."""
        scheme, _, rest = registered.partition("://")
        at = data.draw(st.integers(0, len(registered) - 1))
        letter = registered[at]
        near = data.draw(
            st.sampled_from(
                [
                    registered + "/",
                    registered.removesuffix("/") if registered.endswith("/") else registered + "//",
                    registered + "/extra",
                    registered + "?",
                    registered + ("&x=1" if "?" in registered else "?x=1"),
                    registered + "#",
                    registered + "#x",
                    registered + " ",
                    " " + registered,
                    registered + "\n",
                    registered + "\x00",
                    registered + "/..",
                    registered + "/.",
                    registered + "%20",
                    registered + ".evil.example",
                    registered + "@evil.example",
                    registered + "\\@evil.example",
                    registered.upper(),
                    registered.title(),
                    f"{scheme.upper()}://{rest}",
                    f"{scheme}://user@{rest}",
                    f"{scheme}://{rest.replace('.', '%2e', 1)}/x",
                    f"{scheme}:{rest}",
                    f"{scheme}:/{rest}",
                    f"{scheme}:///{rest}",
                    f"{scheme}://evil.example/{rest}",
                    f"{scheme}://evil.{rest}",
                    f"evil{scheme}://{rest}",
                    registered[:at] + f"%{ord(letter):02x}" + registered[at + 1 :],
                    registered[:at] + letter.swapcase() + registered[at + 1 :],
                    registered[:at] + "\u200b" + registered[at:],
                ]
            )
        )
        assume(near != registered)
        self.assertFalse(matches(registered, near), near)

    @given(st.sampled_from(GOOD), st.integers(0, 200), st.text(st.characters(), max_size=1))
    def test_one_character(self, registered: str, at: int, character: str) -> None:
        """One character put in place of another matches only as a digit of a loopback port."""
        at %= len(registered)
        presented = registered[:at] + character + registered[at + 1 :]
        assume(presented != registered)
        if matches(registered, presented):
            self.assertTrue(is_loopback(registered))
            a, b = urlsplit(registered), urlsplit(presented)
            self.assertEqual((a.hostname, a.path, a.query), (b.hostname, b.path, b.query))
            self.assertNotEqual(a.port, b.port)

    @given(st.text(st.characters()))
    def test_any_text(self, presented: str) -> None:
        """Any text may be presented; it is no match, and no error."""
        for registered in GOOD:
            self.assertEqual(matches(registered, presented), registered == presented)


class Showing(SynchronousTestCase):
    """What people and browsers are told of a URI."""

    def test_host(self) -> None:
        """The host is shown in lower case and ASCII, a private scheme with it."""
        for uri, shown in [
            ("https://claude.ai/api/mcp/auth_callback", "claude.ai"),
            ("https://Example.ORG:8443/cb", "example.org"),
            ("https://xn--bcher-kva.example/cb", "xn--bcher-kva.example"),
            ("http://localhost:33418/", "localhost"),
            ("http://[::1]:1/", "[::1]"),
            ("cursor://anysphere.cursor-mcp/oauth/callback", "cursor://anysphere.cursor-mcp"),
        ]:
            self.assertEqual(host(uri), shown)

    def test_host_of_an_answer(self) -> None:
        """The host of an answer is shown whatever state the client had it bring."""
        self.assertEqual(host("https://claude.ai/cb?code=x&state=%0A%00%2e%2e%5c"), "claude.ai")

    def test_origin(self) -> None:
        """The origin is what a Content-Security-Policy takes: default ports left out."""
        for uri, shown in [
            ("https://claude.ai/api/mcp/auth_callback", "https://claude.ai"),
            ("https://Example.ORG:443/cb", "https://example.org"),
            ("https://example.org:8443/cb", "https://example.org:8443"),
            ("http://localhost:33418/", "http://localhost:33418"),
            ("cursor://anysphere.cursor-mcp/oauth/callback", "cursor:"),
        ]:
            self.assertEqual(origin(uri), shown)

    def test_loopback(self) -> None:
        """A host that is the person's own computer is known as such, by any of its names."""
        for uri, there in [
            ("http://localhost/", True),
            ("http://127.0.0.1:5/", True),
            ("http://[::1]/", True),
            ("https://LOCALHOST/", True),
            ("https://app.localhost/", True),
            ("https://127.0.0.2/", True),
            ("https://[0:0:0:0:0:0:0:1]:8443/", True),
            ("https://[0000::1]/", True),
            ("https://[::0.0.0.1]/", True),
            ("https://[::ffff:127.0.0.1]/", True),
            ("https://[::FFFF:7f00:2]/", True),
            ("https://0.0.0.0/", True),
            ("https://[::]/", True),
            ("https://[::ffff:0:0]/", True),
            ("https://[::ffff:192.0.2.7]/", False),
            ("https://[2001:db8::1]/", False),
            ("https://128.0.0.1/", False),
            ("https://localhost.example.org/", False),
            ("https://127.example.org/", False),
            ("https://claude.ai/", False),
            ("cursor://anysphere.cursor-mcp/oauth/callback", False),
            ("nonsense", False),
        ]:
            self.assertEqual(is_loopback(uri), there, uri)

    def test_never_judged(self) -> None:
        """To show a URI that was never judged is a bug, and says so."""
        self.assertRaises(ValueError, host, "nonsense")
        self.assertRaises(ValueError, origin, "https://a@b/")
