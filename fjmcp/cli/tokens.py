"""`fjmcp tokens`: tokens for programs, which cannot sign in with a browser."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any, Final, TextIO

import click

from fjmcp import limits
from fjmcp.broker import personal_tokens
from fjmcp.broker.personal_tokens import Made, NotMade, Unknown
from fjmcp.cli.running import FAILED, with_store
from fjmcp.cli.where import find, public_url, stored
from fjmcp.daemon.shapes import duration, time_words
from fjmcp.oauth.endpoints import Endpoints
from fjmcp.oauth.grants import GrantRow, grant_live
from fjmcp.oauth.metadata import clean_name
from fjmcp.refusals import WHY_ASLEEP
from fjmcp.store.queries.personal_tokens import PersonalToken, listed
from fjmcp.store.transactions import Cursor, Store

_DAY: Final = 86400.0
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{4,24}\Z")
_RANGE: Final = (
    f"from {time_words(limits.PERSONAL_TOKEN_LEAST)} to {time_words(limits.GRANT_LIFE)} from now"
)


def _login(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """A login that can be looked for: what a shell passes need not be one, nor text."""
    # A letter beyond ASCII may become one of it: U+212A is a small k in lower case.
    if text is not None and not text.isascii():
        raise click.BadParameter("a login at Forgejo has ASCII letters only")
    return text


@click.group()
def tokens() -> None:
    """
    Tokens for programs, which cannot sign in with a browser.

    A program with a token works as one account, with all that an assistant of that
    account may do. The account must have signed in once, through any assistant.

    A daemon that runs takes notice by itself, of a new token at once and of a
    revoked one within a second. Who can write the store can make tokens for
    everybody in it.
    """


@tokens.command()
@click.option(
    "--user",
    required=True,
    callback=_login,
    metavar="LOGIN",
    help="The account, by its login at Forgejo.",
)
@click.option(
    "--name",
    default="",
    metavar="TEXT",
    help=f"What it is for, in {limits.CLIENT_NAME} characters; shown in the list.",
)
@click.option(
    "--expires",
    default=time_words(limits.PERSONAL_TOKEN),
    show_default=True,
    metavar="TIME|DATE",
    help=f"When it ends: after 12h or 30d, or with a day, 2027-01-31, in UTC; {_RANGE}.",
)
@stored
def create(user: str, name: str, expires: str, **flags: str | None) -> None:
    """
    Make a token, and print it this once.

    Only its digest is kept. The token alone goes to standard output, so that a
    script can catch it; what else there is to say goes to standard error.

    \b
    umask 077
    fjmcp tokens create --user ada --name "nightly triage" > triage.token

    The program sends it with each request: Authorization: Bearer <token>. It cannot
    be refreshed; make another one in time. Like every grant it ends early if nothing
    uses it for 60 days, and counts among the 50 that an account may have.
    """
    where = find(flags)
    url = public_url(flags)
    if sys.stdout is None:
        raise click.UsageError("standard output is closed, so nobody could see the token")
    called = clean_name(name)
    if name and not called:
        raise click.UsageError("--name: nothing of it can be shown")

    async def work(store: Store, reactor: Any) -> None:
        now = reactor.seconds()
        try:
            ends = end_of(expires, now)
        except ValueError as error:
            raise click.UsageError(f"--expires: {error}") from None
        made = await store.write(personal_tokens.make, user, called, ends, now)
        if not isinstance(made, Made):
            raise click.ClickException(_why_not(made, clean_name(user)))
        try:
            click.echo(made.token.text)
        except OSError as error:
            # Nobody has seen it, so nobody should be able to find it in what was half written.
            await store.write(personal_tokens.revoke, made.grant.grant_id, now)
            _let_go(sys.stdout)
            raise click.ClickException(
                f"The token could not be written, and is ended again: {error}."
            ) from None
        try:
            click.echo("\n".join(_words(made, ends, url)), err=True)
        except OSError:
            # Who has the token may do without the rest.
            _let_go(sys.stderr)

    with_store(where.store, work)


@tokens.command("list")
@click.option("--user", callback=_login, metavar="LOGIN", help="Only of this account.")
@click.option(
    "--all", "ended", is_flag=True, help="Also those that have ended; they are kept for 30 days."
)
@stored
def list_(user: str | None, ended: bool, **flags: str | None) -> None:
    """
    Show which tokens there are.

    For whom and for what, since when and until when, and when they were last used,
    which a daemon writes down once a minute. No token itself is shown.

    \b
    live     it works
    asleep   it works again when its account has signed in again
    expired  its time is over
    ended    for ever, with the reason
    """
    where = find(flags)

    async def work(store: Store, reactor: Any) -> None:
        found = await store.read(listed, user, ended=ended)
        for line in table(found, reactor.seconds()):
            click.echo(line)

    with_store(where.store, work)


@tokens.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@stored
def revoke(ids: tuple[str, ...], **flags: str | None) -> None:
    """
    End tokens for ever.

    What runs for them ends too: calls, streams, MCP servers.

    An ID is that of the list, or as much of its beginning as names no other token,
    four characters at least.
    """
    starts = [each.lower() for each in ids]
    for start in starts:
        if not _ID.match(start):
            raise click.UsageError(f"{start!r} is no id, nor the beginning of one")
    where = find(flags)

    async def work(store: Store, reactor: Any) -> None:
        ended = await store.write(_revoke, starts, reactor.seconds())
        wrong = False
        for start, found in zip(starts, ended, strict=True):
            if len(found) == 1:
                click.echo(_ended(found[0]))
            else:
                wrong = True
                click.echo(f"Error: {_which(start, found)}", err=True)
        if wrong:
            raise SystemExit(FAILED)

    with_store(where.store, work)


def _revoke(cursor: Cursor, starts: Iterable[str], now: float) -> list[list[PersonalToken]]:
    return [personal_tokens.revoke(cursor, start, now) for start in starts]


# --- times --------------------------------------------------------------------


def end_of(text: str, now: float) -> float:
    """
    When a token ends for which an operator wrote this, epoch seconds.

    :raises ValueError: it is neither a time nor a day, or too near or too far.
    """
    try:
        life = _life(text, now)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a time, such as 12h or 30d, nor a day, such as 2027-01-31"
        ) from None
    if not limits.PERSONAL_TOKEN_LEAST <= life <= limits.GRANT_LIFE:
        raise ValueError(f"{text!r} is out of range; it must be {_RANGE}")
    return now + life


def _life(text: str, now: float) -> float:
    if _DATE.match(text):
        day = datetime.combine(date.fromisoformat(text), time.min, UTC)
        # The day that was named is the last one.
        return day.timestamp() + _DAY - now
    if text[-1:].isdigit():
        # Seconds, for `duration`; but whoever writes 90 means days, and 20270131 a day.
        raise ValueError(text)
    return duration(text)


def moment(at: float) -> str:
    """A time for people, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _let_go(output: TextIO) -> None:
    """Keep Python from writing at its exit what it could not write before."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


# --- words ---------------------------------------------------------------------


def _why_not(why: NotMade, user: str) -> str:
    if isinstance(why, Unknown):
        return (
            f"Nobody has signed in here as {user}. Sign in once as {user}, through any assistant"
            " that is connected to this fjmcp, and run this again."
        )
    known = WHY_ASLEEP.get(why.reason or "")
    if known is not None:
        return f"A token of {user} would be refused. {known}"
    return (
        f"Forgejo no longer honours the sign-in of {user}, so a token would be refused. Sign in"
        f" again as {user}, through any assistant, and run this again."
    )


def _words(made: Made, ends: float, url: str | None) -> list[str]:
    """What the maker of a token should know."""
    grant = made.grant
    idle = f"{limits.GRANT_IDLE / _DAY:.0f} days"
    to = "/mcp of this fjmcp" if url is None else Endpoints(url).resource
    return [
        f"Made the token {grant.grant_id} for {clean_name(made.login)}{_called(grant)}.",
        f"It ends at {moment(ends)} UTC, or before, if nothing has used it for {idle}.",
        "It is not shown again. A program sends it with each request to",
        f"{to}, as: Authorization: Bearer <token>",
        *(
            f"{clean_name(made.login)} had too many grants: {old.grant_id}{_called(old)}, last used"
            f" at {moment(old.used_at)} UTC, was ended to make room."
            for old in made.made_room
        ),
    ]


def _called(grant: GrantRow) -> str:
    """The name of a token, or that a grant is a client's."""
    if grant.name is None:
        return f" (of the client {clean_name(grant.client_id)})"
    return f" ({clean_name(grant.name)})" if grant.name else ""


def _ended(token: PersonalToken) -> str:
    grant = token.grant
    words = f"the token {grant.grant_id} of {clean_name(token.login)}{_called(grant)}"
    if grant.ended_at is None:
        return f"Ended {words}."
    return f"{words[0].upper()}{words[1:]} had ended at {moment(grant.ended_at)} UTC."


def _which(start: str, found: list[PersonalToken]) -> str:
    if not found:
        return f"no token begins with {start}: see fjmcp tokens list --all"
    names = ", ".join(token.grant.grant_id for token in found)
    return f"several tokens begin with {start}, and none of them was ended: {names}"


def table(found: Iterable[PersonalToken], now: float) -> list[str]:
    """Tokens as lines with a head; names are shown without what would deceive the eye."""
    rows = [("ID", "USER", "NAME", "MADE (UTC)", "ENDS (UTC)", "LAST USED (UTC)", "STATE")]
    for token in found:
        grant = token.grant
        used = moment(grant.used_at) if grant.used_at > grant.created_at else "never"
        rows.append(
            (
                grant.grant_id,
                clean_name(token.login),
                clean_name(grant.name or "") or "-",
                moment(grant.created_at),
                "-" if grant.expires_at is None else moment(grant.expires_at),
                used,
                _state(token, now),
            )
        )
    if len(rows) == 1:
        return ["There are no tokens."]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _state(token: PersonalToken, now: float) -> str:
    grant = token.grant
    if grant.ended_at is not None:
        return f"ended: {clean_name(grant.end_reason or '')}"
    if not grant_live(grant, now):
        # The daemon closes its row within minutes, if one runs.
        return "expired"
    return "asleep" if token.asleep else "live"
