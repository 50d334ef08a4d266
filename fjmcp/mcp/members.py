"""
One member of a JSON object looked at, or put in, while the others stay bytes.

The texts come from `wire`, so they are well-formed.  Of two members with
one name the last counts, as it does for the children.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Params(msgspec.Struct, gc=False):
    meta: msgspec.Raw = msgspec.field(name="_meta", default=msgspec.Raw(b"{}"))


_params = msgspec.json.Decoder(_Params)


def _members(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _object.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}


def read(text: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each as its bytes; none of anything else."""
    return {name: bytes(value) for name, value in _members(text).items()}


def one(text: bytes, name: str) -> bytes:
    """One member of a JSON object; b"" where there is none."""
    return bytes(_members(text).get(name, b""))


def write(members: Mapping[str, bytes]) -> bytes:
    """The JSON object with these members."""
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in members.items()})


def put(text: bytes, name: str, value: bytes) -> bytes:
    """The object `text` with the member `name` set to `value`."""
    # Not by `read`: 8 MiB may have a million members, and each would be copied twice.
    members = _members(text)
    members[name] = msgspec.Raw(value)
    return msgspec.json.encode(members)


def may_have(text: bytes, name: bytes) -> bool:
    """
    Whether a member `name` may be somewhere in `text`; False is certain.

    Far cheaper than parsing.  A name without "/" can be written otherwise
    only with unicode escapes (RFC 8259 §7).
    """
    return name in text or b"\\u" in text


def meta(params: bytes) -> bytes:
    """`params._meta`; b"{}" where there is none."""
    if not may_have(params, b"_meta"):
        return b"{}"
    try:
        return bytes(_params.decode(params).meta)
    except (msgspec.DecodeError, RecursionError):
        return b"{}"
