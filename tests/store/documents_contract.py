"""
What the rows of metadata documents promise on every engine.
"""

from __future__ import annotations

from attrs import evolve

from fjmcp import limits
from fjmcp.oauth.metadata import ClientMetadata
from fjmcp.store.queries import documents, expiry, grants, signins
from fjmcp.store.queries.documents import Document
from fjmcp.store.transactions import Cursor, Store
from tests.store.contract import _Contract, promise
from tests.store.grants_contract import AT, REQUEST, secret


def document(name: str, at: float = AT) -> Document:
    """A document of that name, fetched at that time."""
    metadata = ClientMetadata((f"https://{name}/callback",), client_name=f"{name} ä'\"")
    return Document(f"https://{name}/metadata", metadata, at, at + 600)


async def left(store: Store) -> list[str]:
    """The hosts of the documents that are there."""
    rows = await store.read(
        lambda cursor: cursor.many("SELECT client_id FROM documents ORDER BY client_id")
    )
    return [url.split("/")[2] for (url,) in rows]


class DocumentsContract(_Contract):
    """Documents."""

    @promise
    async def test_kept(self) -> None:
        """A document comes back as it went, and a later one takes its place."""
        store, first = self.open_store(), document("a")
        await store.write(documents.keep, first)
        self.assertEqual(await store.read(documents.find, first.client_id), first)
        later = Document(first.client_id, document("b").metadata, AT + 5, AT + 7)
        await store.write(documents.keep, later)
        self.assertEqual(await store.read(documents.find, first.client_id), later)
        self.assertIsNone(await store.read(documents.find, "https://a/metadata/"))
        self.assertEqual(await left(store), ["a"])

    @promise
    async def test_room(self) -> None:
        """Past the bound the oldest that nobody used go, a tenth of it at a time."""
        store = self.open_store()

        def fill(cursor: Cursor) -> None:
            for number in range(30):
                documents.keep(cursor, document(f"{number:02}", AT + number))

        await store.write(fill)
        self.assertEqual(await store.write(documents.make_room, 30), 0)
        self.assertEqual(await store.write(documents.make_room, 20), 12)
        self.assertEqual(await left(store), [f"{number:02}" for number in range(12, 30)])
        # Fetched again, it is the youngest.
        await store.write(documents.keep, document("12", AT + 40))
        self.assertEqual(await store.write(documents.make_room, 17), 2)
        self.assertEqual((await left(store))[:3], ["12", "15", "16"])

    @promise
    async def test_used_stay(self) -> None:
        """A document with which somebody connected, or is about to, makes no room."""
        store = self.open_store()
        used, asked, waits, unused = (document(name) for name in ("a", "b", "c", "d"))

        def fill(cursor: Cursor) -> None:
            for each in (used, asked, waits, unused):
                documents.keep(cursor, each)
            documents.note_use(cursor, used.client_id, AT)
            documents.note_use(cursor, "https://nobody/metadata", AT)
            request = evolve(REQUEST, client_id=asked.client_id)
            signins.begin(cursor, secret(), secret(), request, AT)
            request = evolve(REQUEST, client_id=waits.client_id)
            grants.add_code(cursor, secret(), 7, request, AT)
            # Fetched again, it is no less used.
            documents.keep(cursor, used)

        await store.write(fill)
        self.assertEqual(await store.write(documents.make_room, 0), 1)
        self.assertEqual(await left(store), ["a", "b", "c"])

    @promise
    async def test_too_many_used(self) -> None:
        """Used ones take no room; of those whose grants are over the longest unused go."""
        self.patch(limits, "DOCUMENTS", 2)
        store = self.open_store()

        def fill(cursor: Cursor) -> None:
            for number, name in enumerate("abcd"):
                documents.keep(cursor, document(name))
                documents.note_use(cursor, document(name).client_id, AT - number)
            grants.add(cursor, "g", 7, document("d").client_id, "", AT)

        await store.write(fill)
        self.assertEqual(await store.write(documents.make_room, 0), 0)
        await store.write(documents.expire, AT)
        self.assertEqual(await left(store), ["a", "b", "d"])

    @promise
    async def test_swept(self) -> None:
        """The sweep drops what nobody used for a day, once its sign-in is over."""
        store = self.open_store()
        used, asked, unused, young = (document(name) for name in ("a", "b", "c", "d"))
        late = AT + limits.CLIENT_UNUSED

        def fill(cursor: Cursor) -> None:
            for each in (used, asked, unused):
                documents.keep(cursor, each)
            documents.keep(cursor, evolve(young, fetched_at=AT + 1))
            documents.note_use(cursor, used.client_id, AT)
            request = evolve(REQUEST, client_id=asked.client_id)
            signins.begin(cursor, secret(), secret(), request, late - 1)

        await store.write(fill)
        await store.write(expiry.sweep, late - 1)
        self.assertEqual(await left(store), ["a", "b", "c", "d"])
        await store.write(expiry.sweep, late)
        self.assertEqual(await left(store), ["a", "b", "d"])
        await store.write(expiry.sweep, late + limits.SIGN_IN)
        self.assertEqual(await left(store), ["a"])

    @promise
    async def test_used_long_ago(self) -> None:
        """A year after somebody last connected with it a document goes, but for one with a grant
        that lives, a code or a sign-in; a later use begins the year anew."""
        store = self.open_store()
        names = ("a", "b", "c", "d", "e")
        over, lives, waits, asked, again = (document(name) for name in names)
        late = AT + limits.CLIENT_IDLE

        def fill(cursor: Cursor) -> None:
            for each in (over, lives, waits, asked, again):
                documents.keep(cursor, each)
                documents.note_use(cursor, each.client_id, AT)
            grants.add(cursor, "ended", 7, over.client_id, "", AT)
            grants.end(cursor, "ended", "revoked", AT)
            grants.add(cursor, "live", 7, lives.client_id, "", late - 1)
            request = evolve(REQUEST, client_id=waits.client_id)
            grants.add_code(cursor, secret(), 7, request, late - 1)
            request = evolve(REQUEST, client_id=asked.client_id)
            signins.begin(cursor, secret(), secret(), request, late - 1)
            documents.note_use(cursor, again.client_id, AT + 1)

        await store.write(fill)
        await store.write(expiry.sweep, late - 1)
        self.assertEqual(await left(store), list(names))
        await store.write(expiry.sweep, late)
        self.assertEqual(await left(store), ["b", "c", "d", "e"])
        await store.write(grants.end, "live", "revoked", late)
        await store.write(expiry.sweep, late + limits.SIGN_IN)
        self.assertEqual(await left(store), [])
