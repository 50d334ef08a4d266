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


def read(text: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each as its bytes; none of anything else."""
    try:
        return {name: bytes(value) for name, value in _object.decode(text).items()}
    except (msgspec.DecodeError, RecursionError):
        return {}


def write(members: Mapping[str, bytes]) -> bytes:
    """The JSON object with these members."""
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in members.items()})


def put(text: bytes, name: str, value: bytes) -> bytes:
    """The object `text` with the member `name` set to `value`."""
    return write({**read(text), name: value})


def may_have(text: bytes, name: bytes) -> bool:
    """
    Whether a member `name` may be somewhere in `text`; False is certain.

    Far cheaper than parsing.  A name without "/" can be written otherwise
    only with unicode escapes (RFC 8259 §7).
    """
    return name in text or b"\\u" in text


def meta(params: bytes) -> dict[str, bytes]:
    """The members of `params._meta`, each as its bytes."""
    if not may_have(params, b"_meta"):
        return {}
    try:
        return read(bytes(_params.decode(params).meta))
    except (msgspec.DecodeError, RecursionError):
        return {}
