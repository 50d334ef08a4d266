"""Running a coroutine from a command, with its store, to the end of the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from fjmcp.store.keys import KeysUnusable
from fjmcp.store.rotation import RotationStuck
from fjmcp.store.sqlite import open_sqlite
from fjmcp.store.transactions import Store, StoreDown, StoreUnusable

FAILED = 1


def with_store(path: Path, work: Callable[[Store, Any], Awaitable[None]]) -> NoReturn:
    """
    Run `work(store, reactor)` beside a daemon that may hold the store too, and end.

    What the operator can do something about is printed, and the process ends with 1.
    """

    async def run(reactor: Any) -> None:
        try:
            store = open_sqlite(path, reactor, alone=False, upgrade=False)
            try:
                await work(store, reactor)
            finally:
                await store.close()
        except click.ClickException as error:
            error.show()
            raise SystemExit(error.exit_code) from None
        except (KeysUnusable, StoreUnusable, StoreDown, RotationStuck) as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(FAILED) from None

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
