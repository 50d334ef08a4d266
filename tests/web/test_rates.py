from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network

from attrs import define
from twisted.internet.address import IPv4Address
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.oauth import known
from fjmcp.testing.reactor import now
from fjmcp.testing.visitors import Visit, Visitor
from fjmcp.testing.whole import App, WholeBroker, walk
from fjmcp.web.addresses import Proxies
from fjmcp.web.rates import Door

FLOODER = "203.0.113.66"
NEIGHBOUR = "203.0.113.67"
HONEST = "198.51.100.7"
HOSTED = "160.79.104.9"

IMAGE = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}
"""What a browser says of a picture in a page."""
DATA = IMAGE | {"sec_fetch_dest": "empty", "origin": "https://ad.example"}
"""What it says of what a script in a page sends."""
EMPTY = {Door.REGISTER: 400, Door.TOKEN: 401}
"""What a door answers to an empty form."""


def everywhere(count: int) -> Iterator[str]:
    """So many addresses, each in a wide network of its own while there are some."""
    for number in range(count):
        yield f"{20 + number // 250}.{number % 250}.0.1"


class NumberTests(SynchronousTestCase):
    """What the numbers promise together."""

    def most(self, door: Door) -> tuple[int, float]:
        """How many come in at a door at once, and how many a second, from all the world."""
        hosted = [limits.RATES_OF_HOSTED[door.value]] * len(limits.HOSTED_NETWORKS)
        rates = [limits.RATES_OF_ALL[door.value], *hosted]
        return sum(at_once for at_once, _ in rates), sum(1 / every for _, every in rates)

    def test_signins_survive(self) -> None:
        """No flood, out of however many networks, drives out a sign-in that is under way."""
        at_once, a_second = self.most(Door.AUTHORIZE)
        self.assertLess(at_once + limits.SIGN_IN * a_second, limits.PENDING_SIGN_INS)

    def test_registrations_survive(self) -> None:
        """No flood drives out within an hour what somebody registered and has not used."""
        at_once, a_second = self.most(Door.REGISTER)
        room = limits.CLIENTS - limits.CLIENTS // 10
        self.assertGreater((room - at_once) / a_second, 3600)

    def test_tokens(self) -> None:
        """All together ask for no more tokens a second than a small disk takes rows."""
        _, a_second = self.most(Door.TOKEN)
        self.assertLessEqual(a_second, 200.001)

    def test_one_of_many(self) -> None:
        """One network has a small part of what everybody has; one allocation, however many
        networks it is, and all web pages together have no more than half of it."""
        widest = max(*limits.WIDER_V4.values(), *limits.WIDER_V6.values(), limits.PAGES)
        for door in Door:
            at_once, every = limits.RATES_OF_ADDRESS[door.value]
            for wider in (limits.RATES_OF_ALL, limits.RATES_OF_HOSTED):
                self.assertGreaterEqual(wider[door.value][0], 4 * at_once, door)
                self.assertLessEqual(wider[door.value][1], every / 4, door)
            everybody = limits.RATES_OF_ALL[door.value]
            self.assertLessEqual(widest * at_once, everybody[0] / 2, door)
            self.assertGreaterEqual(every / widest, 2 * everybody[1], door)

    def test_wider(self) -> None:
        """Each wider network has more than one of those in it, so that those beside it go on."""
        for first, wider in (
            (limits.BLOCK_BITS_V4, limits.WIDER_V4),
            (limits.BLOCK_BITS_V6, limits.WIDER_V6),
        ):
            nests = [(first, 1), *wider.items()]
            self.assertEqual(nests, sorted(nests, key=lambda nest: -nest[0]))
            self.assertEqual(nests, sorted(nests, key=lambda nest: nest[1]))
            self.assertEqual(len({many for _, many in nests}), len(nests))

    def test_fetches(self) -> None:
        """One network, whatever slow hosts it names, does not fill the room for fetches."""
        at_once, every = limits.RATES_OF_ADDRESS["authorize"]
        self.assertLess(at_once + limits.DOCUMENT_FETCH / every, limits.DOCUMENT_FETCHES)

    def test_every_door(self) -> None:
        """Every door has its numbers."""
        doors = {door.value for door in Door}
        for table in (limits.RATES_OF_ALL, limits.RATES_OF_ADDRESS, limits.RATES_OF_HOSTED):
            self.assertEqual(set(table), doors)


@define(eq=False)
class Proxied(Visitor):
    """Somebody at `address`, whose requests come through the proxy of this machine."""

    address: str = ""

    def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Visit:
        """The proxy appends what it sees to what the client says itself."""
        said = dict(headers or {})
        before = said.pop("x-forwarded-for", None)
        said["x-forwarded-for"] = self.address if before is None else f"{before}, {self.address}"
        return super().send(method, target, body, said)


class Doors(SynchronousTestCase):
    """A broker behind a proxy that appends addresses as it should."""

    proxies: Proxies | None = Proxies((ip_network("127.0.0.1"),))

    def setUp(self) -> None:
        self.broker = WholeBroker(trusted_proxies=self.proxies)

    def at(self, address: str) -> Proxied:
        return Proxied(
            self.broker.parts.site,
            self.broker.reactor,
            peer=IPv4Address("TCP", "127.0.0.1", 40000),
            address=address,
        )

    def register(self, address: str, **headers: str) -> Visit:
        body = {"redirect_uris": ["https://client.example/cb"]}
        return self.at(address).post_json("/oauth/register", body, **headers)

    def authorize(self, app: App, address: str) -> Visit:
        url = app.authorize_url()
        return self.at(address).get(url[url.index("/oauth") :], accept="text/html")

    def guess(self, app: App, address: str, path: str = "/oauth/token") -> Visit:
        form = {"grant_type": "refresh_token", "refresh_token": "x", "token": "x"}
        return self.at(address).post_form(path, form | {"client_id": app.client_id})

    def press(self, address: str, **headers: str) -> Visit:
        """Send a consent form, with a cookie that is nobody's."""
        sent = {"cookie": "__Host-fjmcp_browser=x"} | headers
        return self.at(address).post_form("/oauth/consent", {"decision": "allow"}, **sent)

    def flood(self, knock: Callable[[], Visit], at_once: int) -> Visit:
        """Knock until it is refused, which is after `at_once`."""
        for _ in range(at_once):
            self.assertNotEqual(knock().status, 429)
        return knock()

    def assert_refused(self, visit: Visit) -> int:
        self.assertEqual(visit.status, 429)
        self.assertEqual(visit.json()["error"], "temporarily_unavailable")
        self.assertEqual(visit.header("content-type"), "application/json")
        return int(visit.header("retry-after") or "")


class AddressTests(Doors):
    def test_register(self) -> None:
        """A network that registers in a circle is told when to come again; no other one is."""
        at_once, every = limits.RATES_OF_ADDRESS["register"]
        refused = self.flood(lambda: self.register(FLOODER), at_once)
        self.assertEqual(self.assert_refused(refused), every)
        self.assert_refused(self.register(NEIGHBOUR))
        self.assertEqual(self.register(HONEST).status, 201)
        self.broker.advance(every)
        self.assertEqual(self.register(FLOODER).status, 201)
        self.assert_refused(self.register(FLOODER))

    def test_spoofed(self) -> None:
        """An address that the flooder names itself neither helps it nor harms who has it."""
        at_once, _ = limits.RATES_OF_ADDRESS["register"]
        refused = self.flood(lambda: self.register(FLOODER, x_forwarded_for=HONEST), at_once)
        self.assert_refused(refused)
        self.assertEqual(self.register(HONEST).status, 201)

    def test_hosted(self) -> None:
        """The egress of hosted assistants carries everybody, and may knock accordingly."""
        at_once, _ = limits.RATES_OF_ADDRESS["register"]
        for _ in range(2 * at_once):
            self.assertEqual(self.register(HOSTED).status, 201)

    def test_authorize(self) -> None:
        """A browser reads of it on a page; it is not sent on to the client."""
        app = self.broker.register()
        at_once, every = limits.RATES_OF_ADDRESS["authorize"]
        refused = self.flood(lambda: self.authorize(app, FLOODER), at_once)
        self.assertEqual((refused.status, refused.header("retry-after")), (429, f"{every:.0f}"))
        self.assertEqual(refused.header("content-type"), "text/html; charset=utf-8")
        self.assertIn(b"Too many requests", refused.body)
        self.assertIsNone(refused.header("location"))
        self.assertEqual(self.authorize(app, HONEST).status, 200)

    def test_consent(self) -> None:
        """Consent and Forgejo's way back are one door."""
        at_once, _ = limits.RATES_OF_ADDRESS["consent"]
        knocks = iter(range(1_000_000))

        def knock() -> Visit:
            if next(knocks) % 2:
                return self.at(FLOODER).get("/oauth/callback?state=x", accept="text/html")
            return self.press(FLOODER)

        self.assertEqual(self.flood(knock, at_once).status, 429)
        self.assertEqual(knock().status, 429)

    def test_token(self) -> None:
        """Guesses at tokens, and at what to revoke, are one door."""
        app = self.broker.register(token_endpoint_auth_method="client_secret_basic")
        at_once, _ = limits.RATES_OF_ADDRESS["token"]
        self.assert_refused(self.flood(lambda: self.guess(app, FLOODER), at_once))
        self.assert_refused(self.guess(app, FLOODER, "/oauth/revoke"))
        self.assert_refused(self.guess(app, FLOODER, "/revoke"))
        self.assertEqual(self.guess(app, HONEST).status, 401)

    def test_signins_survive(self) -> None:
        """A person signs in while hundreds of networks flood: theirs is not driven out."""
        app = self.broker.register()
        browser = self.broker.browser()
        page = app.open(browser)
        for address in everywhere(300):
            self.authorize(app, address)
        self.broker.advance(60)
        self.assertIn("code=", walk(browser, page).url)


class WholeTests(Doors):
    def test_refused_take_nothing(self) -> None:
        """What is refused to a flooder is not taken from everybody's share."""
        for _ in range(limits.RATES_OF_ALL["authorize"][0] + 1):
            self.at(FLOODER).get("/oauth/authorize")
        self.assertEqual(self.at(HONEST).get("/oauth/authorize").status, 400)

    def test_everybody(self) -> None:
        """A flood from everywhere is bounded too, and the store with it."""
        at_once, _ = limits.RATES_OF_ALL["authorize"]
        apps = [self.broker.register() for _ in range(2)]
        refused = 0
        for number, address in enumerate(everywhere(at_once + 20)):
            refused += self.authorize(apps[number % 2], address).status == 429
        self.assertEqual(refused, 20)
        rows = now(
            self.broker.store.read(lambda cursor: cursor.one("SELECT COUNT(*) FROM signins"))
        )
        self.assertEqual(rows, (at_once,))

    def test_log(self) -> None:
        """The log names the network once a minute, not at each of its requests."""
        at_once, _ = limits.RATES_OF_ADDRESS["register"]
        with capturedLogs() as events:
            for _ in range(at_once + 50):
                self.register(FLOODER)
        told = [event for event in events if event["log_format"] == "too many requests"]
        self.assertEqual(
            [(event["door"], event["of"]) for event in told],
            [("register", "register 203.0.113.0/24")],
        )


class WiderTests(Doors):
    """Networks around a block."""

    def test_allocations(self) -> None:
        """Whoever has a wide network has no more than it may have, in however many blocks, and
        those beside it and everybody else go on."""
        for name, times, beside, inside in (
            ("203.0.0.0/16", 4, "203.1.7.1", "203.0.{}.1"),
            ("2001:470:1f0b::/48", 2, "2001:470:1f0c::1", "2001:470:1f0b:{:x}00::1"),
            ("2001:471::/32", 4, "2001:472::1", "2001:471:{:x}::1"),
        ):
            self.setUp()
            at_once, _ = limits.RATES_OF_ADDRESS["authorize"]
            numbers = iter(range(1_000_000))

            def knock(inside: str = inside, numbers: Iterator[int] = numbers) -> Visit:
                return self.at(inside.format(next(numbers) % 250)).get("/oauth/authorize")

            with capturedLogs() as events:
                self.assertEqual(self.flood(knock, times * at_once).status, 429)
            told = [event for event in events if event["log_format"] == "too many requests"]
            self.assertEqual([event["of"] for event in told], [f"authorize {name}"])
            for address in (beside, HONEST):
                self.assertEqual(self.at(address).get("/oauth/authorize").status, 400, name)


class HostedTests(Doors):
    def test_flood_elsewhere(self) -> None:
        """Hosted assistants have what is theirs, when everybody else has nothing left."""
        for address in everywhere(limits.RATES_OF_ALL["register"][0]):
            self.at(address).post_json("/oauth/register", {})
        self.assert_refused(self.register(HONEST))
        self.assertEqual(self.register(HOSTED).status, 201)

    def test_flood_there(self) -> None:
        """And nothing more: a flood out of their network leaves everybody else what they had."""
        knocks = (self.at(HOSTED).get("/oauth/authorize") for _ in itertools.count())
        refused = self.flood(lambda: next(knocks), limits.RATES_OF_HOSTED["authorize"][0])
        self.assertEqual(refused.status, 429)
        self.assertEqual(self.at(HONEST).get("/oauth/authorize").status, 400)


class PageTests(Doors):
    """What a web page has its visitors send, each of them out of a network of their own."""

    def test_pictures(self) -> None:
        """A picture at an address where browsers go is refused, and nobody pays for it."""
        for address in everywhere(limits.RATES_OF_ALL["authorize"][0]):
            self.assertEqual(self.at(address).get("/oauth/authorize", **IMAGE).status, 403)
        self.assertEqual(self.at(HONEST).get("/oauth/authorize").status, 400)
        callback = "/oauth/callback?state=x"
        for _ in range(limits.RATES_OF_ADDRESS["consent"][0]):
            self.assertEqual(self.at(HONEST).get(callback, **IMAGE).status, 403)
        self.assertEqual(self.at(HONEST).get(callback).status, 400)
        page = self.at(HONEST).get(callback, **IMAGE)
        self.assertIn(b"in a tab or window of its own", page.body)

    def test_forms(self) -> None:
        """A consent form of another page is refused, and nobody pays for it."""
        for headers in ({"origin": "https://ad.example"}, {"origin": "null", "cookie": ""}):
            for _ in range(limits.RATES_OF_ADDRESS["consent"][0] + 1):
                self.assertEqual(self.press(FLOODER, **headers).status, 400, headers)
            page = self.press(FLOODER, **headers)
            self.assertIn(b"begun in another browser", page.body)

    def test_data(self) -> None:
        """All pages together have a small part of what clients have at a door, and take none of
        what programs in their visitors' own networks have."""
        for door, path in ((Door.REGISTER, "/oauth/register"), (Door.TOKEN, "/oauth/token")):
            at_once, _ = limits.RATES_OF_ADDRESS[door.value]
            for address in everywhere(limits.PAGES * at_once):
                self.assertEqual(self.at(address).post_form(path, {}, **DATA).status, EMPTY[door])
            self.assert_refused(self.at(FLOODER).post_form(path, {}, **DATA))
        self.assertEqual(self.register(HONEST).status, 201)
        self.assertEqual(self.guess(self.broker.register(), HONEST).status, 400)
        for path in ("/oauth/authorize", "/oauth/callback?state=x"):
            self.assertEqual(self.at(HONEST).get(path).status, 400)
        for path in ("/oauth/register", "/oauth/token"):
            # Who knocks at the other doors lets no share be forgotten.
            self.assert_refused(self.at(FLOODER).post_form(path, {}, **DATA))

    def test_visitors(self) -> None:
        """A page that one network visits takes nothing of what programs there have."""
        at_once, _ = limits.RATES_OF_ADDRESS["register"]
        self.assert_refused(self.flood(lambda: self.register(FLOODER, **DATA), at_once))
        self.assertEqual(self.register(FLOODER).status, 201)

    def test_people(self) -> None:
        """People whom pages send to sign in, as every client does, do not count as a page."""
        said = {"sec_fetch_site": "cross-site", "sec_fetch_dest": "document"}
        at_once, _ = limits.RATES_OF_ADDRESS["authorize"]
        for address in everywhere(limits.PAGES * at_once + 1):
            self.assertEqual(self.at(address).get("/oauth/authorize", **said).status, 400)


class ClientTests(Doors):
    def test_sign_ins(self) -> None:
        """No client has a share of sign-ins that anybody could use up, least of all one that
        everybody knows by its URL."""
        document = known.DOCUMENTS["https://claude.ai/oauth/mcp-oauth-client-metadata"]
        for app in (self.broker.known_by(document), self.broker.register()):
            self.broker.advance(60)
            for number in range(310):
                self.authorize(app, f"203.{number % 16}.0.1")
            self.assertEqual(self.authorize(app, HONEST).status, 200)

    def test_elsewhere(self) -> None:
        """Everybody can name a public client, and whoever registers the same as another has a
        good secret of the same client: who uses it elsewhere uses up nothing of theirs."""
        at_once, _ = limits.RATE_OF_CLIENT
        for method in ("none", "client_secret_post"):
            asked = {"client_name": "Claude", "token_endpoint_auth_method": method}
            theirs, app = self.broker.register(**asked), self.broker.register(**asked)
            self.assertEqual(theirs.client_id, app.client_id)
            token = app.tokens()["refresh_token"]
            self.broker.advance(1000)
            for _ in range(at_once):
                self.assertEqual(self.refresh_at(FLOODER, theirs).status, 400, method)
            self.assert_refused(self.refresh_at(NEIGHBOUR, theirs))
            self.assertEqual(app.refresh(token).status, 200, method)

    def refresh_at(self, address: str, app: App) -> Visit:
        """A guess at a refresh token, by a client that authenticates in the form."""
        known_by = ("client_id", "client_secret")
        form = {name: app.registered[name] for name in known_by if name in app.registered}
        guess = {"grant_type": "refresh_token", "refresh_token": "x"}
        return self.at(address).post_form("/oauth/token", form | guess)

    def test_document(self) -> None:
        """A client that everybody knows by its URL has no share that anybody could use up, or
        that all of claude.ai had to do with."""
        app = self.broker.known_by(known.DOCUMENTS["https://vscode.dev/oauth/client-metadata.json"])
        for _ in range(limits.RATE_OF_CLIENT[0] + 1):
            self.assertEqual(self.guess(app, HOSTED).json()["error"], "invalid_grant")

    def test_unnamed(self) -> None:
        """A wrong secret does not count against the client that it is tried on."""
        app = self.broker.register(token_endpoint_auth_method="client_secret_post")
        for _ in range(limits.RATE_OF_CLIENT[0] + 1):
            self.assertEqual(self.guess(app, HONEST).status, 401)
        self.assertEqual(app.redeem(app.code()).status, 200)


class NothingIsUsedUpTests(Doors):
    """A 429 costs no code, no refresh token and no sign-in."""

    def test_code(self) -> None:
        """A code that was refused is good when it is sent again."""
        app = self.broker.register()
        self.flood(lambda: self.guess_here(app), limits.RATE_OF_CLIENT[0])
        code = app.code()
        waits = self.assert_refused(app.redeem(code))
        self.broker.advance(waits)
        self.assertEqual(app.redeem(code).status, 200)

    def test_refresh_token(self) -> None:
        """So is a refresh token, and its grant goes on."""
        app = self.broker.register()
        token = app.tokens()["refresh_token"]
        self.flood(lambda: self.guess_here(app), limits.RATE_OF_CLIENT[0] - 1)
        waits = self.assert_refused(app.refresh(token))
        # Past the grace: had it been used up, this were the replay that ends the grant.
        self.broker.advance(limits.REFRESH_GRACE + waits)
        self.assertEqual(app.refresh(token).status, 200)

    def test_signin(self) -> None:
        """A consent that was refused is good when it is sent again."""
        app = self.broker.register()
        browser = self.broker.browser()
        page = app.open(browser)
        self.flood(lambda: self.press(HONEST), limits.RATES_OF_ADDRESS["consent"][0])
        self.assertEqual(self.press(HONEST).status, 429)
        self.broker.advance(2 * limits.RATES_OF_ADDRESS["consent"][1])
        self.assertIn("code=", walk(browser, page).url)

    def guess_here(self, app: App) -> Visit:
        return app.refresh("x")


class GrantTests(Doors):
    proxies = None

    def test_circle(self) -> None:
        """A client that refreshes in a circle is slowed; its other grants and its token are
        none the worse."""
        app = self.broker.register()
        first, other = app.tokens(), app.tokens()
        token = first["refresh_token"]
        at_once, every = limits.RATE_OF_GRANT
        for _ in range(at_once):
            token = app.refresh(token).json()["refresh_token"]
        refused = app.refresh(token)
        self.assertEqual(self.assert_refused(refused), every)
        self.assertEqual(app.refresh(other["refresh_token"]).status, 200)
        self.broker.advance(every)
        self.assertEqual(app.refresh(token).status, 200)


class UnknownAddressTests(Doors):
    proxies = None

    def test_one_address(self) -> None:
        """As long as every address is the proxy's, none is limited: nobody pays for another."""
        for _ in range(2 * limits.RATES_OF_ADDRESS["register"][0]):
            self.assertEqual(self.register(FLOODER).status, 201)
        self.assertEqual(self.register(HONEST).status, 201)

    def test_everybody(self) -> None:
        """What is left is everybody's share, and the client's."""
        at_once, _ = limits.RATES_OF_ALL["authorize"]
        refused = self.flood(lambda: self.at(FLOODER).get("/oauth/authorize"), at_once)
        self.assertEqual((refused.status, refused.header("retry-after")), (429, "1"))
