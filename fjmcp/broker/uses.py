"""
When sessions and grants were last used, written down now and then.

A request that is answered from memory writes nothing.  What it used is noted
there and written by one transaction for all of them, every `limits.FLUSH`: so
much may a crash forget.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define

from fjmcp.broker.callers import Callers
from fjmcp.broker.sessions import Sessions
from fjmcp.store.queries import grants, sessions
from fjmcp.store.transactions import Cursor, Store, StoreDown


@define(eq=False)
class Uses:
    """What was used and is not written down yet, of sessions and of grants."""

    _store: Store
    _sessions: Sessions
    _callers: Callers

    async def write_down(self) -> None:
        """
        Let the rows say when they were last used.

        :raises StoreDown: they do not; it is kept for the next time.
        """
        of_sessions, of_grants = self._sessions.take_uses(), self._callers.take_uses()
        if not of_sessions and not of_grants:
            return
        try:
            await self._store.write(_write_down, of_sessions, of_grants)
        except StoreDown:
            self._sessions.return_uses(of_sessions)
            self._callers.return_uses(of_grants)
            raise


def _write_down(
    cursor: Cursor, of_sessions: Mapping[bytes, float], of_grants: Mapping[str, float]
) -> None:
    sessions.touch(cursor, of_sessions)
    grants.touch(cursor, of_grants)
