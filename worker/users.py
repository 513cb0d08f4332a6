"""User and group names of an image, looked up in its own /etc/passwd and /etc/group."""

from __future__ import annotations

from typing import NamedTuple

from cache.errors import DefinitionError

MAX_ID = (1 << 32) - 2
_MAX_DIGITS = 10
_SHOWN = 64


class User(NamedTuple):
    """Who a step runs as. groups: supplementary group ids.

    The primary group is always one of them: otherwise a step could drop it and get past a file that denies just that
    group (CVE-2022-36109).
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def resolve_user(spec: str, passwd: bytes | None, group: bytes | None) -> User:
    """USER's `user[:group]`. Raises DefinitionError for a name that is not there.

    A numeric user needs no entry and gets gid 0 unless its entry says otherwise; a name alone brings its supplementary
    groups; a given group is the only one.
    """
    name, colon, group_name = spec.partition(":")
    if not name and not colon:
        return User(0, 0, (0,))
    entry = _find(passwd, name or "0", 2)
    uid = _number(name) if name else 0
    if entry is None and uid is None:
        raise DefinitionError(f"there is no user {_shown(name)} in the image's /etc/passwd")
    if entry is not None:
        uid, gid = _column(entry, 2, "/etc/passwd"), _column(entry, 3, "/etc/passwd")
    else:
        gid = 0
    assert uid is not None
    if group_name:
        only = resolve_group(group_name, group)
        return User(uid, only, (only,))
    groups: tuple[int, ...] = ()
    if entry is not None and _number(name) is None:
        member = entry[0]
        rows = (row for row in _rows(group) if len(row) > 3 and member in row[3].split(","))
        groups = tuple(sorted({number for row in rows if (number := _number(row[2])) is not None} - {gid}))
    return User(uid, gid, (gid, *groups))


def resolve_owner(spec: str, passwd: bytes | None, group: bytes | None) -> tuple[int, int]:
    """--chown's `user[:group]`: a numeric user alone is also the group. Raises DefinitionError for an unknown name.

    BuildKit takes an unknown user for root; here it is an error, as the documentation of Dockerfile says.
    """
    name, _, group_name = spec.partition(":")
    number = _number(name)
    if number is not None:
        uid = gid = number
    elif name:
        user = resolve_user(name, passwd, group)
        uid, gid = user.uid, user.gid
    else:
        raise DefinitionError(f"--chown={spec} names no user")
    return uid, resolve_group(group_name, group) if group_name else gid


def resolve_group(name: str, group: bytes | None) -> int:
    """A group's name or number. Raises DefinitionError for a name that is not there."""
    number = _number(name)
    if number is not None:
        return number
    row = _find(group, name, 2)
    if row is None:
        raise DefinitionError(f"there is no group {_shown(name)} in the image's /etc/group")
    return _column(row, 2, "/etc/group")


def _number(text: str) -> int | None:
    # Python refuses to read numbers of thousands of digits.
    digits = text.lstrip("0") or "0"
    if text.isascii() and text.isdigit() and len(digits) <= _MAX_DIGITS and int(digits) <= MAX_ID:
        return int(digits)
    return None


def _column(entry: list[str], column: int, file: str) -> int:
    """A number of an entry; 0 for what is no number, as docker has it. DefinitionError for one that no id can have."""
    number = _number(entry[column])
    if number is None and entry[column].isdigit():
        raise DefinitionError(f"{_shown(entry[0])} has an id beyond {MAX_ID} in the image's {file}")
    return number or 0


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")


def _find(file: bytes | None, name: str, id_column: int) -> list[str] | None:
    by_id = _number(name)
    for row in _rows(file):
        if len(row) > id_column and (row[0] == name or (by_id is not None and _number(row[id_column]) == by_id)):
            return row if len(row) > 3 else [*row, "0"]
    return None


def _rows(file: bytes | None) -> list[list[str]]:
    text = (file or b"").decode("utf-8", "replace")
    return [line.split(":") for line in text.split("\n") if line and not line.startswith("#")]
