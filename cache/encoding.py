"""The canonical encoding that keys and records share: same value, same bytes, on any machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from cache.errors import StoreProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_VERSION = 1
"""Enters every key; raise it when the meaning of anything in a key changes, and all old keys miss."""
UNREADABLE: Final = (StoreProblem, ValueError, LookupError, TypeError, AttributeError)
"""What reading a damaged record raises: `parse`, and whoever takes the value apart."""

_encode = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical(value: Any) -> bytes:
    """ASCII JSON with sorted keys and no spaces; lone surrogates (names that are not UTF-8) survive."""
    return _encode(value).encode("ascii")


def key(purpose: str, value: Any) -> str:
    """BLAKE3 hex over the purpose, the version and the value; purposes keep unlike keys apart."""
    return blake3(canonical([purpose, KEY_VERSION, value])).hexdigest()


def key_of_encoded(purpose: str, fields: Mapping[str, bytes]) -> str:
    """`key` of a mapping whose values are `canonical` already, so that what several keys count is encoded once.

    purpose, names: plain ASCII.
    """
    body = b",".join(b'"%s":%s' % (name.encode("ascii"), fields[name]) for name in sorted(fields))
    return blake3(b'["%s",%d,{%s}]' % (purpose.encode("ascii"), KEY_VERSION, body)).hexdigest()


def parse(data: bytes | memoryview) -> Any:
    """The value that `canonical` wrote. Raises StoreProblem if it is not JSON."""
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise StoreProblem(
            "the store holds a record that cannot be read: something else wrote there, or the disk is failing",
            hint="remove the store's directory; what is in it can be built again",
        ) from None
