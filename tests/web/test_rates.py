from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network

from attrs import define
from twisted.internet.address import IPv4Address
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.oauth import known
from fjmcp.testing import App, Visit, Visitor, WholeBroker, now, walk
from fjmcp.web.addresses import Proxies
from fjmcp.web.rates import Door

FLOODER = "203.0.113.66"
NEIGHBOUR = "203.0.113.67"
HONEST = "198.51.100.7"
HOSTED = "160.79.104.9"


class NumberTests(SynchronousTestCase):
    """What the numbers promise together."""

    def test_signins_survive(self) -> None:
        """No flood, out of however many networks, drives out a sign-in that is under way."""
        at_once, every = limits.RATES_OF_ALL["authorize"]
        self.assertLess(at_once + limits.SIGN_IN / every, limits.PENDING_SIGN_INS)

    def test_registrations_survive(self) -> None:
        """No flood drives out within an hour what somebody registered and has not used."""
        at_once, every = limits.RATES_OF_ALL["register"]
        room = limits.CLIENTS - limits.CLIENTS // 10
        self.assertGreater((room - at_once) * every, 3600)

    def test_one_of_many(self) -> None:
        """One network has a small part of what everybody has, and of what a client has."""
        for door in Door:
            at_once, every = limits.RATES_OF_ADDRESS[door.value]
            for wider in (limits.RATES_OF_ALL, limits.RATES_OF_HOSTED):
                self.assertGreaterEqual(wider[door.value][0], 4 * at_once, door)
                self.assertLessEqual(wider[door.value][1], every / 4, door)
        self.assertLessEqual(
            limits.RATES_OF_CLIENT["authorize"][1], limits.RATES_OF_ADDRESS["authorize"][1] / 4
        )

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
            return self.at(FLOODER).post_form("/oauth/consent", {"decision": "allow"})

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
        for number in range(limits.RATES_OF_CLIENT["authorize"][0]):
            self.authorize(app, f"203.{number % 250}.{number // 250}.1")
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
        for number in range(at_once + 20):
            address = f"203.{number % 250}.{number // 250}.1"
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


class ClientTests(Doors):
    def test_authorize(self) -> None:
        """One client cannot fill the room for sign-ins, out of however many networks."""
        greedy, other = self.broker.register(), self.broker.register()
        at_once, _ = limits.RATES_OF_CLIENT["authorize"]
        numbers = iter(range(1_000_000))
        refused = self.flood(
            lambda: self.authorize(greedy, f"203.0.{next(numbers) % 250}.1"), at_once
        )
        self.assertEqual(refused.status, 429)
        self.assertEqual(self.authorize(other, HONEST).status, 200)

    def test_public(self) -> None:
        """Everybody can name a public client: who does so elsewhere uses up nothing of it."""
        app = self.broker.register()
        at_once, _ = limits.RATES_OF_CLIENT["token"]
        self.assert_refused(self.flood(lambda: self.guess(app, FLOODER), at_once))
        self.assertEqual(self.guess(app, HONEST).json()["error"], "invalid_grant")

    def test_document(self) -> None:
        """A client that everybody knows by its URL has no share that anybody could use up, or
        that all of claude.ai had to do with."""
        app = self.broker.known_by(known.DOCUMENTS["https://vscode.dev/oauth/client-metadata.json"])
        for _ in range(limits.RATES_OF_CLIENT["token"][0] + 1):
            self.assertEqual(self.guess(app, HOSTED).json()["error"], "invalid_grant")
        greedy = limits.RATES_OF_CLIENT["authorize"][0]
        numbers = iter(range(1_000_000))
        refused = self.flood(lambda: self.authorize(app, f"203.0.{next(numbers) % 250}.1"), greedy)
        self.assertEqual(refused.status, 429)

    def test_unnamed(self) -> None:
        """A wrong secret does not count against the client that it is tried on."""
        app = self.broker.register(token_endpoint_auth_method="client_secret_post")
        for _ in range(limits.RATES_OF_CLIENT["token"][0] + 1):
            self.assertEqual(self.guess(app, FLOODER).status, 401)
        self.assertEqual(app.redeem(app.code()).status, 200)


class NothingIsUsedUpTests(Doors):
    """A 429 costs no code, no refresh token and no sign-in."""

    def test_code(self) -> None:
        """A code that was refused is good when it is sent again."""
        app = self.broker.register()
        self.flood(lambda: self.guess_here(app), limits.RATES_OF_CLIENT["token"][0])
        code = app.code()
        waits = self.assert_refused(app.redeem(code))
        self.broker.advance(waits)
        self.assertEqual(app.redeem(code).status, 200)

    def test_refresh_token(self) -> None:
        """So is a refresh token, and its grant goes on."""
        app = self.broker.register()
        token = app.tokens()["refresh_token"]
        self.flood(lambda: self.guess_here(app), limits.RATES_OF_CLIENT["token"][0] - 1)
        waits = self.assert_refused(app.refresh(token))
        # Past the grace: had it been used up, this were the replay that ends the grant.
        self.broker.advance(limits.REFRESH_GRACE + waits)
        self.assertEqual(app.refresh(token).status, 200)

    def test_signin(self) -> None:
        """A consent that was refused is good when it is sent again."""
        app = self.broker.register()
        browser = self.broker.browser()
        page = app.open(browser)
        self.flood(
            lambda: self.broker.visitor().post_form("/oauth/consent", {}),
            limits.RATES_OF_ADDRESS["consent"][0],
        )
        self.assertEqual(self.broker.visitor().post_form("/oauth/consent", {}).status, 429)
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
