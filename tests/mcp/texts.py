"""JSON texts as clients write them: any spacing, any spelling, any order."""

from __future__ import annotations

import json

from hypothesis import strategies as st

SPACE = st.text(" \t\r\n", max_size=2)

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["-0", "0.10", "1e999", "-1E-7", "1.0", "12345678901234567890123"]),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)

# Lone surrogates are left out: they are the one thing that is mended.
_CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

STRINGS = st.one_of(
    _CHARACTERS.map(json.dumps),
    _CHARACTERS.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"\\/\\b\\f"', '"\\u0041"', '"[{\\"}]"', '"\\\\"', '"\u2028"', '"\\u0000"']),
)


@st.composite
def _spaced(draw: st.DrawFn, ends: str, parts: st.SearchStrategy[list[str]]) -> str:
    inside = ",".join(draw(SPACE) + part + draw(SPACE) for part in draw(parts))
    return ends[0] + (inside or draw(SPACE)) + ends[1]


@st.composite
def _members(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    return draw(STRINGS) + draw(SPACE) + ":" + draw(SPACE) + draw(values)


def _nested(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        _spaced("[]", st.lists(values, max_size=4)),
        _spaced("{}", st.lists(_members(values), max_size=4)),
    )


VALUES = st.recursive(
    st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null"])), _nested, max_leaves=12
)
"""Any JSON value."""

OBJECTS = _spaced("{}", st.lists(_members(VALUES), max_size=4))
"""Any JSON object; names may be there twice."""

IDS = st.one_of(st.integers(-(2**60), 2**60).map(str), STRINGS)
"""Ids and progress tokens as clients choose them."""


def flat(text: str) -> bytes:
    """The text as it is written on: one line, otherwise untouched."""
    return text.replace("\r", " ").replace("\n", " ").encode()
