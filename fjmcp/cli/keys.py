"""`fjmcp keys`: the keys that seal people's Forgejo credentials."""

from __future__ import annotations

from typing import Any

import click

from fjmcp import limits
from fjmcp.cli.running import FAILED, with_store
from fjmcp.cli.where import Where, find, located
from fjmcp.store.holder import Holder, holder
from fjmcp.store.queries import sealed
from fjmcp.store.rotation import Rotation
from fjmcp.store.transactions import Store
from fjmcp.store.vault import Ring


@click.group()
def keys() -> None:
    """
    The keys that seal people's Forgejo credentials.

    They stand in the key file, one a line, and the last one seals. Whoever has
    the store and a key can act as everybody who signed in: keep copies of the two
    apart. A lost key means that everybody signs in again.
    """


@keys.command("list")
@located
def list_(**flags: str | None) -> None:
    """
    Show the keys, how much each has sealed, and whether the daemon has them.

    No key itself is shown.
    """
    where = find(flags)
    file = where.key_file()

    async def work(store: Store, reactor: Any) -> None:
        ring = file.read()
        counted = await store.read(sealed.census)
        daemon = holder(where.store)
        click.echo(f"{file.path}")
        for key_id in sorted(ring.ids | counted.keys(), key=lambda each: _rank(each, ring)):
            count = counted.get(key_id, 0)
            values = "1 value" if count == 1 else f"{count} values"
            click.echo(f"  {key_id.hex()}  {_state(key_id, ring):<9} seals {values}")
        click.echo(_daemon_words(daemon, ring))
        if ring.upcoming is not None or ring.rotating:
            click.echo("A rotation was broken off. Go on with it: fjmcp keys rotate")
        if counted.keys() - ring.ids:
            click.echo(
                "What a missing key sealed is lost, unless you have a copy of the key: its line"
                " belongs into the key file, above the others."
            )

    with_store(where.store, work)


@keys.command()
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=limits.RESEAL_BATCH,
    show_default=True,
    help="Values sealed anew in one transaction.",
)
@click.option(
    "--pause",
    type=click.FloatRange(0, 60),
    default=limits.RESEAL_PAUSE,
    show_default=True,
    help="Seconds between two transactions, for a daemon that is busy.",
)
@located
def rotate(batch: int, pause: float, **flags: str | None) -> None:
    """
    Seal everything with a fresh key, while the daemon works.

    \b
    1  A fresh key is added to the key file; it does not seal yet.
    2  The daemon takes it in by itself, within seconds.
    3  The key becomes the current one.
    4  The daemon seals with it.
    5  Everything in the store is sealed anew, a little at a time.

    Broken off at any point, nothing is lost: run it again, and it goes on where it
    was. The old keys stay in the file, since backups of the store need them; `fjmcp
    keys prune` takes them away.

    Rotate after somebody who could read the key file has left, and as often as your
    rules say. If somebody may have a copy of the store and of a key, that is not
    enough: what is in their copy stays readable, so have people revoke fjmcp at
    Forgejo (Settings, Applications) and sign in again.

    Where the key file is copied to the daemon at its start (a systemd credential, a
    container's secret), name the original with --key-file, and restart the daemon
    when this asks for it.
    """
    where = find(flags)
    file = where.key_file()

    async def work(store: Store, reactor: Any) -> None:
        turn = Rotation(file, store, lambda: holder(where.store), reactor, click.echo, batch, pause)
        with file.held():
            turned = await turn.run()
        click.echo(f"Done: the key {turned.current.hex()} seals everything.")
        if turned.lost:
            click.echo(
                f"{len(turned.lost)} values open with no key that is there; whom they belong to"
                " will have to sign in again:"
            )
            for place in turned.lost:
                click.echo(f"  {place}")
        if turned.left > len(turned.lost):
            click.echo(
                f"{turned.left - len(turned.lost)} values were written meanwhile under an older"
                " key. They are short-lived, or will be sealed anew by the next rotation."
            )
        click.echo(f"Make a copy of {file.path}, apart from the store.")

    with_store(where.store, work)


@keys.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@located
def prune(yes: bool, **flags: str | None) -> None:
    """
    Take keys out of the key file that seal nothing any more.

    A backup of the store that was made before the last rotation opens only with
    the keys of its time: keep a copy of them as long as you keep the backup.
    """
    where = find(flags)
    file = where.key_file()

    async def work(store: Store, reactor: Any) -> None:
        with file.held():
            ring = file.read()
            unused = ring.ids - (await store.read(sealed.census)).keys() - {ring.current}
            _must_be_quiet(where, ring, reactor.seconds())
            if not unused:
                click.echo("Every key is in use; none was removed.")
                return
            names = ", ".join(sorted(key_id.hex() for key_id in unused))
            click.echo(f"These seal nothing in {where.store}: {names}")
            click.echo("Backups of the store may need them.")
            if not yes and not click.confirm("Remove them?"):
                click.echo("None was removed.")
                raise SystemExit(FAILED)
            # Asked again: somebody may have taken their time over the question.
            if unused & (await store.read(sealed.census)).keys():
                raise click.ClickException("They are in use again; none was removed.")
            file.replace(ring, ring.without(unused))
            click.echo(f"Removed from {file.path}: {names}")

    with_store(where.store, work)


def _must_be_quiet(where: Where, ring: Ring, now: float) -> None:
    """Refuse to prune while something may still be sealed with an old key."""
    if ring.upcoming is not None or ring.rotating:
        raise click.ClickException("A rotation was broken off. First: fjmcp keys rotate")
    daemon = holder(where.store)
    if daemon is None:
        return
    if daemon.current != ring.current:
        raise click.ClickException(
            f"The daemon (pid {daemon.pid}) does not seal with the current key"
            f" {ring.current.hex()} yet. Its keys come from {daemon.source or 'nowhere yet'}."
        )
    wait = daemon.since + limits.KEY_SETTLE - now
    if wait > 0:
        raise click.ClickException(
            "The daemon has sealed with the current key for a few minutes only, and something"
            f" older may be on its way to the store. Run this again in {wait / 60 + 0.5:.0f} min."
        )


def _rank(key_id: bytes, ring: Ring) -> tuple[int, bytes]:
    order = ("missing", "old", "current", "next")
    return order.index(_state(key_id, ring)), key_id


def _state(key_id: bytes, ring: Ring) -> str:
    if key_id not in ring.ids:
        return "missing"
    if key_id == ring.upcoming:
        return "next"
    return "current" if key_id == ring.current else "old"


def _daemon_words(daemon: Holder | None, ring: Ring) -> str:
    if daemon is None:
        return "No daemon runs."
    if daemon.current is None:
        return "A daemon is starting."
    words = f"The daemon (pid {daemon.pid}) seals with {daemon.current.hex()}"
    missing = ring.ids - daemon.keys
    if missing:
        names = ", ".join(sorted(key_id.hex() for key_id in missing))
        return f"{words} and does not have {names}; its keys come from {daemon.source}."
    return f"{words} and has every key."
