"""
What the rows of known browsers and remembered consents promise on every engine.
"""

from __future__ import annotations

from fjmcp import limits
from fjmcp.oauth.tokens import Digest
from fjmcp.store.queries import consents, expiry, grants, signins
from fjmcp.store.queries.consents import KnownAs
from fjmcp.store.transactions import Cursor
from tests.store.contract import _Contract, promise
from tests.store.grants_contract import AT, REQUEST, count, secret


class ConsentsContract(_Contract):
    """Known browsers, remembered consents."""

    @promise
    async def test_known(self) -> None:
        """A browser is whose signed in there last, for thirty days after that."""
        store = self.open_store()
        browser, life = secret(), limits.KNOWN_BROWSER
        self.assertIsNone(await store.read(consents.known_as, browser, AT))
        await store.write(consents.know, browser, 7, AT)
        await store.write(consents.know, secret(), 9, AT)
        known = await store.read(consents.known_as, browser, AT + life - 1)
        self.assertEqual(known, KnownAs(7, AT + life))
        self.assertIsNone(await store.read(consents.known_as, browser, AT + life))
        await store.write(consents.know, browser, 8, AT + 5)
        known = await store.read(consents.known_as, browser, AT + life)
        self.assertEqual(known, KnownAs(8, AT + 5 + life))
        self.assertEqual(await store.read(count, "browsers"), 2)

    @promise
    async def test_another_cookie(self) -> None:
        """A browser whose cookie is of no use any more is nobody's, and no other one is."""
        store = self.open_store()
        one, two = secret(), secret()
        await store.write(consents.know, one, 7, AT)
        await store.write(consents.know, two, 7, AT)
        await store.write(consents.unknow, one)
        self.assertIsNone(await store.read(consents.known_as, one, AT))
        self.assertIsNotNone(await store.read(consents.known_as, two, AT))

    @promise
    async def test_tabs_follow(self) -> None:
        """What is under way in a browser goes by its new cookie, in whatever state, and nothing of
        another browser does."""
        store = self.open_store()
        old, new, other = secret(), secret(), secret()
        asked, away, elsewhere, state = secret(), secret(), secret(), secret()

        def fill(cursor: Cursor) -> None:
            for signin, browser in ((asked, old), (away, old), (elsewhere, other)):
                signins.begin(cursor, signin, browser, REQUEST, AT)
            signins.consent(cursor, away, old, state, b"sealed", AT)
            signins.follow(cursor, old, new)

        await store.write(fill)
        for signin, browser, there in (
            (asked, old, False),
            (elsewhere, new, False),
            (asked, new, True),
            (elsewhere, other, True),
        ):
            found = await store.write(signins.deny, signin, browser, AT)
            self.assertEqual(found is not None, there)
        row = await store.write(signins.come_back, state, AT)
        self.assertEqual(row and row.browser, new)

    @promise
    async def test_stands(self) -> None:
        """A consent stands for thirty days, counted anew when it is given anew."""
        store = self.open_store()
        consent, life = secret(), limits.CONSENT_KEPT
        self.assertFalse(await store.read(consents.stands, consent, AT))
        await store.write(consents.keep, consent, 7, "c", AT)
        self.assertTrue(await store.read(consents.stands, consent, AT + life - 1))
        self.assertFalse(await store.read(consents.stands, consent, AT + life))
        self.assertFalse(await store.read(consents.stands, secret(), AT))
        await store.write(consents.keep, consent, 7, "c", AT + 5)
        self.assertTrue(await store.read(consents.stands, consent, AT + life))
        self.assertEqual(await store.read(count, "consents"), 1)

    @promise
    async def test_bounded(self) -> None:
        """An account has so many of either; the oldest make room, and nobody else's."""
        store = self.open_store()
        others, newest = secret(), secret()
        kept: dict[str, list[Digest]] = {"browsers": [], "consents": []}

        def fill(cursor: Cursor) -> None:
            consents.know(cursor, others, 9, AT)
            consents.keep(cursor, others, 9, "c", AT)
            for number in range(limits.BROWSERS_PER_ACCOUNT):
                kept["browsers"].append(secret())
                consents.know(cursor, kept["browsers"][-1], 7, AT + number)
            for number in range(limits.CONSENTS_PER_ACCOUNT):
                kept["consents"].append(secret())
                consents.keep(cursor, kept["consents"][-1], 7, "c", AT + number)

        await store.write(fill)
        later = AT + 1000
        # One that is there already takes nobody's room.
        await store.write(consents.know, kept["browsers"][0], 7, AT)
        await store.write(consents.keep, kept["consents"][0], 7, "c", AT)
        self.assertEqual(await store.read(count, "browsers"), limits.BROWSERS_PER_ACCOUNT + 1)
        self.assertEqual(await store.read(count, "consents"), limits.CONSENTS_PER_ACCOUNT + 1)
        await store.write(consents.know, newest, 7, later)
        await store.write(consents.keep, newest, 7, "c", later)
        self.assertEqual(await store.read(count, "browsers"), limits.BROWSERS_PER_ACCOUNT + 1)
        self.assertEqual(await store.read(count, "consents"), limits.CONSENTS_PER_ACCOUNT + 1)
        for browser, there in ((kept["browsers"][0], False), (kept["browsers"][1], True)):
            found = await store.read(consents.known_as, browser, later)
            self.assertEqual(found is not None, there)
        for consent, there in ((kept["consents"][0], False), (kept["consents"][1], True)):
            self.assertEqual(await store.read(consents.stands, consent, later), there)
        for each in (others, newest):
            self.assertIsNotNone(await store.read(consents.known_as, each, later))
            self.assertTrue(await store.read(consents.stands, each, later))

    @promise
    async def test_forgotten(self) -> None:
        """What one account allowed one client is forgotten together, and nothing else."""
        store = self.open_store()
        gone, other_client, other_account = secret(), secret(), secret()

        def fill(cursor: Cursor) -> None:
            consents.keep(cursor, gone, 7, "c", AT)
            consents.keep(cursor, other_client, 7, "d", AT)
            consents.keep(cursor, other_account, 8, "c", AT)
            consents.forget(cursor, 7, "c")

        await store.write(fill)
        for consent, there in ((gone, False), (other_client, True), (other_account, True)):
            self.assertEqual(await store.read(consents.stands, consent, AT), there)

    @promise
    async def test_grants_end(self) -> None:
        """A grant that somebody ended takes its consents along; one that ended by itself does
        not."""
        store = self.open_store()
        for reason, there in (
            ("revoked", False),
            ("operator", False),
            ("code-reused", False),
            ("refresh-reused", False),
            ("expired", True),
            ("grant-expired", True),
            ("room", True),
        ):
            consent, others = secret(), secret()

            def fill(
                cursor: Cursor,
                consent: Digest = consent,
                others: Digest = others,
                reason: str = reason,
            ) -> None:
                grants.add(cursor, f"g-{reason}", 7, "c", "forge:read", AT)
                consents.keep(cursor, consent, 7, "c", AT)
                consents.keep(cursor, others, 8, "c", AT)
                grants.end(cursor, f"g-{reason}", reason, AT)

            await store.write(fill)
            self.assertEqual(await store.read(consents.stands, consent, AT), there, reason)
            self.assertTrue(await store.read(consents.stands, others, AT), reason)

    @promise
    async def test_swept(self) -> None:
        """What has expired is dropped, and nothing before."""
        store = self.open_store()

        def fill(cursor: Cursor) -> None:
            for at in (AT, AT + 1):
                consents.know(cursor, secret(), 7, at)
                consents.keep(cursor, secret(), 7, "c", at)

        await store.write(fill)
        for now, left in ((AT + 1, 2), (AT + limits.KNOWN_BROWSER, 1)):
            await store.write(expiry.sweep, now)
            self.assertEqual(await store.read(count, "browsers"), left)
            self.assertEqual(await store.read(count, "consents"), left)
