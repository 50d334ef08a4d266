"""
The steps of a sign-in, each of which is one transaction.

What is judged here is written here: whose a browser is, whether a remembered
consent stands, who came back.  `fjmcp.broker.signins` takes the steps.
"""

from __future__ import annotations

from attrs import evolve, field, frozen

from fjmcp.oauth.authorization import AuthorizationRequest
from fjmcp.oauth.consents import consent_digest, may_be_kept
from fjmcp.oauth.tokens import Digest
from fjmcp.refusals import (
    CONSENT_WITHDRAWN,
    SIGN_IN_REFUSED,
    SIGN_IN_UNKNOWN,
    TURNED_AWAY,
    OAuthRefusal,
)
from fjmcp.store.queries import accounts, consents, grants, signins
from fjmcp.store.queries.consents import KnownAs
from fjmcp.store.queries.signins import SignIn
from fjmcp.store.transactions import Cursor


@frozen
class Begun:
    """A sign-in that begins, with all that it needs should nobody have to be asked."""

    signin: Digest
    browser: Digest
    state: Digest
    verifier: bytes = field(repr=False)
    request: AuthorizationRequest


@frozen
class Ending:
    """
    What a sign-in that may come to its end is given.

    :ivar code: the client's.
    :ivar browser: of the cookie with which the browser came back.
    :ivar fresh: of the cookie by which it is known from then on.
    """

    code: Digest
    browser: Digest | None
    fresh: Digest


@frozen
class Another:
    """As whom a browser was known that somebody else came back in."""

    account_id: int
    login: str


def known_and_covered(
    cursor: Cursor, browser: Digest, request: AuthorizationRequest, now: float
) -> tuple[KnownAs | None, bool]:
    """Whose a browser is, and whether a consent of theirs covers this."""
    known = consents.known_as(cursor, browser, now)
    if known is None or not may_be_kept(request):
        return known, False
    return known, consents.stands(cursor, consent_digest(known.account_id, request), now)


def begin(cursor: Cursor, begun: Begun, insists: bool, now: float) -> tuple[KnownAs | None, bool]:
    """Whose the browser is, and whether a remembered consent stands for our page."""
    known, covered = known_and_covered(cursor, begun.browser, begun.request, now)
    remembered = covered and not insists
    signins.begin(
        cursor,
        begun.signin,
        begun.browser,
        begun.request,
        now,
        known_as=None if known is None else known.account_id,
        remembered=remembered,
    )
    if remembered:
        signins.consent(cursor, begun.signin, begun.browser, begun.state, begun.verifier, now)
    return known, remembered


def deny(cursor: Cursor, signin: Digest, browser: Digest, now: float) -> SignIn | None:
    """End a sign-in whose person said no; None if there is none that waits."""
    row = signins.deny(cursor, signin, browser, now)
    if row is not None and row.came_as is None and row.known_as is not None:
        # Who refuses what they allowed before is asked from now on.
        consents.forget(cursor, row.known_as, row.client_id)
    return row


def come_back(
    cursor: Cursor, state: Digest, ending: Ending, now: float
) -> tuple[SignIn | None, bool | OAuthRefusal]:
    """
    The sign-in of this state, and whether its browser is known; with its code if its person
    has confirmed who they are.

    They may have been turned away while they read our question.
    """
    row = signins.come_back(cursor, state, now)
    if row is None or row.came_as is None:
        return row, False
    return row, _let_in(cursor, row, row.came_as, ending, now)


def answer(
    cursor: Cursor,
    row: SignIn,
    came: int,
    renamed: Digest,
    ending: Ending,
    now: float,
) -> bool | Another | OAuthRefusal:
    """
    Give a code to who came back, unless this browser was somebody else's.

    True if the browser is known from now on.
    """
    # As it was when the sign-in began, since that person's consent may have stood for the page;
    # and as it is now, since somebody may have signed in in another tab.  Whose it is, is told only
    # to who has its cookie of now: the one that it had before may have been somebody else's, too.
    known = consents.known_as(cursor, row.browser, now) if ending.browser == row.browser else None
    for other in (row.known_as, None if known is None else known.account_id):
        if other is not None and other != came:
            if not signins.ask(cursor, row.signin, renamed, came):
                return SIGN_IN_UNKNOWN
            account = accounts.find(cursor, other)
            return Another(other, f"{other}" if account is None else account.login)
    consent = consent_digest(came, row.request)
    if row.remembered and not consents.stands(cursor, consent, now):
        signins.finish(cursor, row.signin)
        return CONSENT_WITHDRAWN
    return _let_in(cursor, row, came, ending, now)


def _let_in(
    cursor: Cursor, row: SignIn, account_id: int, ending: Ending, now: float
) -> bool | OAuthRefusal:
    """
    Keep a code for this account, unless it is dead; whether the browser is known as theirs
    from now on.
    """
    account = accounts.find(cursor, account_id)
    if account is None or account.dead:
        # It lived when its person came back from Forgejo.
        signins.finish(cursor, row.signin)
        why = None if account is None else TURNED_AWAY.get(account.dead_reason or "")
        if account is None or why is None:
            return SIGN_IN_REFUSED
        return evolve(why, login=account.login)
    grants.add_code(cursor, ending.code, account_id, row.request, now)
    signins.finish(cursor, row.signin)
    if ending.browser != row.browser:
        return False
    # Who planted the cookie before, or read it, has nothing by it after.
    consents.unknow(cursor, row.browser)
    consents.know(cursor, ending.fresh, account_id, now)
    signins.follow(cursor, row.browser, ending.fresh)
    # A consent that stood for the page is not given anew; one that A gave is none of B's.
    was_asked = not row.remembered or row.came_as is not None
    if was_asked and may_be_kept(row.request):
        consent = consent_digest(account_id, row.request)
        consents.keep(cursor, consent, account_id, row.client_id, now)
    return True
