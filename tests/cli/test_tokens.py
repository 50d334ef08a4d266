"""The words and times of `fjmcp tokens`."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

from attrs import evolve
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp import limits
from fjmcp.cli.tokens import create, end_of, list_, table, tokens
from fjmcp.oauth.grants import GrantRow
from fjmcp.store.queries.personal_tokens import PersonalToken

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp()
DAY = 86400.0

GRANT = GrantRow(
    grant_id="0123456789abcdef01234567",
    account_id=7,
    client_id="token-0123456789abcdef01234567",
    scopes="forge:read forge:write",
    created_at=NOW,
    used_at=NOW,
    ended_at=None,
    end_reason=None,
    name="nightly",
    expires_at=NOW + DAY,
)
TOKEN = PersonalToken(GRANT, "ada", False)

TEXTS = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,3})?[smhd]?", fullmatch=True),
    st.dates().map(str),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", fullmatch=True),
)


class EndTests(SynchronousTestCase):
    """When a token ends."""

    def test_times(self) -> None:
        """A time counts from now, and a day is the last one, in UTC."""
        for text, seconds in [
            ("1m", 60),
            ("1.5H", 5400),
            ("12h", DAY / 2),
            ("30d", 30 * DAY),
            ("365d", 365 * DAY),
            ("2027-01-31", DAY / 2),
            ("2027-02-01", DAY * 1.5),
            ("2028-01-30", DAY * 364.5),
        ]:
            self.assertEqual(end_of(text, NOW) - NOW, seconds, text)

    def test_refused(self) -> None:
        """What is no time, or out of range, is refused with what was written."""
        for text, words in [
            ("59s", "from 1m to 365d from now"),
            ("366d", "from 1m to 365d from now"),
            ("2027-01-30", "out of range"),
            ("2028-01-31", "out of range"),
            ("9999-12-31", "out of range"),
            ("2027-02-30", "neither a time"),
            ("0000-01-01", "neither a time"),
            ("2027-W05-1", "neither a time"),
            ("20270205", "neither a time"),
            ("90", "neither a time"),
            ("\uff12\uff10\uff12\uff17-02-05", "neither a time"),
            ("\uff19d", "neither a time"),
            ("tomorrow", "neither a time"),
            ("-1d", "neither a time"),
            ("", "neither a time"),
        ]:
            with self.assertRaises(ValueError) as caught:
                end_of(text, NOW)
            self.assertIn(repr(text), str(caught.exception))
            self.assertIn(words, str(caught.exception))

    @given(TEXTS, st.floats(0, 4e9))
    def test_bounded(self, text: str, now: float) -> None:
        """Whatever is written, a token lives from a minute to as long as any grant."""
        try:
            ends = end_of(text, now)
        except ValueError:
            return
        slack = 1e-3  # that a float of today's size may hide
        least, most = limits.PERSONAL_TOKEN_LEAST - slack, limits.GRANT_LIFE + slack
        self.assertTrue(least <= ends - now <= most)

    @given(st.floats(0, 4e9))
    def test_ends_of_the_range(self, now: float) -> None:
        """The shortest and the longest life can be asked for at any moment."""
        for text, life in (("1m", limits.PERSONAL_TOKEN_LEAST), ("365d", limits.GRANT_LIFE)):
            self.assertEqual(end_of(text, now), now + life)


class UsageTests(SynchronousTestCase):
    """Commands that are wrong."""

    def test_refused(self) -> None:
        """A wrong command is refused with 2 and says what is wrong with it."""
        store = Path(self.mktemp())
        store.touch()
        for words, said in (
            ("create", "'--user'"),
            ("create --user ada --name \u200b", "--name: nothing of it can be shown"),
            ("create --user \udcff", "'--user': a login at Forgejo has ASCII letters only"),
            ("list --store nowhere/x", "does not exist"),
            ("list --user \u212aalice", "'--user': a login at Forgejo has ASCII letters only"),
            ("revoke", "'ID...'"),
            ("revoke ''", "'' is no id"),
            ("revoke abc", "'abc' is no id"),
            ("revoke 0123 %", "'%' is no id"),
            ("revoke 0123456789abcdef012345678", "is no id"),
        ):
            flags = [] if "--store" in words else ["--store", str(store)]
            ended = CliRunner().invoke(tokens, [*shlex.split(words), *flags], env={})
            self.assertEqual(ended.exit_code, 2, ended.output)
            self.assertIn(said, ended.output)


class TableTests(SynchronousTestCase):
    """What the list shows."""

    def row(self, token: PersonalToken, now: float = NOW) -> list[str]:
        head, line = table([token], now)
        at = [head.index(word) for word in ("ID", "USER", "NAME", "MADE", "ENDS", "LAST", "STATE")]
        return [line[a:b].strip() for a, b in zip(at, [*at[1:], len(line)], strict=True)]

    def test_row(self) -> None:
        """A token is a line with its times in UTC."""
        self.assertEqual(
            self.row(TOKEN),
            [
                "0123456789abcdef01234567",
                "ada",
                "nightly",
                "2027-01-31 12:00",
                "2027-02-01 12:00",
                "never",
                "live",
            ],
        )
        used = evolve(TOKEN, grant=evolve(GRANT, used_at=NOW + 60, name=""))
        self.assertEqual(self.row(used)[2], "-")
        self.assertEqual(self.row(used)[5], "2027-01-31 12:01")

    def test_states(self) -> None:
        """Each state has its word."""
        for token, now, word in [
            (TOKEN, NOW, "live"),
            (evolve(TOKEN, asleep=True), NOW, "asleep"),
            (evolve(TOKEN, asleep=True), NOW + DAY, "expired"),
            (evolve(TOKEN, grant=evolve(GRANT, expires_at=NOW + 90 * DAY)), NOW + 60 * DAY,
             "expired"),
            (evolve(TOKEN, grant=evolve(GRANT, ended_at=NOW, end_reason="operator")), NOW,
             "ended: operator"),
        ]:  # fmt: skip
            self.assertEqual(self.row(token, now)[6], word)

    def test_deceiving(self) -> None:
        """A name that would deceive the eye or the terminal is shown without what does so."""
        name = "a\x1b[31m\n\u202eb\u200bc"
        token = evolve(TOKEN, grant=evolve(GRANT, name=name), login="ad\x07a")
        self.assertEqual(self.row(token)[1:3], ["ad a", "a [31m bc"])

    def test_none(self) -> None:
        """Without tokens it says so."""
        self.assertEqual(table([], NOW), ["There are no tokens."])

    def test_help(self) -> None:
        """The numbers of the help are those of the limits."""
        said = " ".join((create.help or "").split())
        self.assertIn(f"for {limits.GRANT_IDLE / DAY:.0f} days", said)
        self.assertIn(f"among the {limits.GRANTS_PER_ACCOUNT} ", said)
        options = {option.name: option for option in list_.params}
        kept = f"kept for {limits.ENDED_GRANT / DAY:.0f} days"
        self.assertIn(kept, getattr(options["ended"], "help", ""))
