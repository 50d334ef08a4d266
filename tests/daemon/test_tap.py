"""Where the daemon logs, as twistd was told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IServiceCollection
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fjmcp.children.profiles import recipe_for
from fjmcp.daemon.logs import Threshold
from fjmcp.daemon.settings import Settings
from fjmcp.daemon.tap import Root, observer_for
from fjmcp.store.keys import KeySources

SETTINGS = Settings(
    listen="tcp:0",
    public_url="https://mcp.example.org",
    trusted_proxies=None,
    forgejo_url="https://git.example.org",
    forgejo_oauth_client_id="an-id",
    forgejo_oauth_client_secret="a-secret-without-shape",
    forgejo_oauth_scopes="read:user",
    store=Path("fjmcp.sqlite3"),
    keys=KeySources(),
    child=recipe_for(["forgejo-mcp"]),
    max_sessions=1,
    session_idle_timeout=900.0,
    session_reap_interval=30.0,
    token_refresh_lead=300.0,
    token_refresh_interval=60.0,
    unknown_session_status=404,
    require_session_id=False,
    debug=False,
)


@implementer(IReactorFromThreads)
class Inline:
    """A reactor that is called from its own thread only."""

    # Twisted's interface lacks the `self` that mypy looks for.
    def callFromThread(  # type: ignore[override]
        self, f: Callable[..., Any], *args: object, **kwargs: object
    ) -> None:
        """At once."""
        f(*args, **kwargs)


class ObserverTests(SynchronousTestCase):
    """From twistd's options to a place to log to."""

    def test_twistds_own(self) -> None:
        """A logger that was named to twistd is left alone."""
        observe = observer_for(SETTINGS, {"logger": "some.observer"}, Inline(), Threshold())
        self.assertIs(observe, None)

    def test_application(self) -> None:
        """The application is told how to log when the service gets its parent."""
        observe = observer_for(SETTINGS, {"nodaemon": True}, Inline(), Threshold())
        application = Application("fjmcp")
        root = Root(observe)
        root.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), observe)
        self.assertEqual(list(IServiceCollection(application)), [root])
