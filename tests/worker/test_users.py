"""USER and --chown, looked up in the image's own files (reference 1.7, 7 and 12)."""

from __future__ import annotations

import pytest

from cache.errors import DefinitionError
from worker.users import MAX_ID, User, resolve_group, resolve_owner, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment:x:9:9
app:x:1000:1001::/home/app:/bin/sh
7:x:70:71::/:
short:x:5
broken

last:x:42:43::/:"""
GROUP = b"root:x:0:\napp:x:1001:\nextra:x:2000:app,other\nmore:x:2001:app\nothers:x:2002:other\n55:x:56:\nbare:x:99\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", User(0, 0, (0,))),
        ("root", User(0, 0, (0,))),
        ("app", User(1000, 1001, (1001, 2000, 2001))),
        ("1000", User(1000, 1001, (1001,))),
        ("1234", User(1234, 0, (0,))),
        ("app:extra", User(1000, 2000, (2000,))),
        ("app:7", User(1000, 7, (7,))),
        ("1234:5678", User(1234, 5678, (5678,))),
        ("1234:app", User(1234, 1001, (1001,))),
        (":app", User(0, 1001, (1001,))),
        ("app:", User(1000, 1001, (1001, 2000, 2001))),
        ("last", User(42, 43, (43,))),
        ("7", User(70, 71, (71,))),
        (str(MAX_ID), User(MAX_ID, 0, (0,))),
    ],
)
def test_who_a_step_runs_as(spec: str, expected: User) -> None:
    assert resolve_user(spec, PASSWD, GROUP) == expected


@pytest.mark.parametrize("spec", ["nobody", "App", "broken", "-1", "4294967295", "1.5", "²", "app:nothing", "# a comment", "app:root2"])
def test_a_name_that_is_not_there_is_an_error(spec: str) -> None:
    with pytest.raises(DefinitionError, match=r"there is no (user|group)"):
        resolve_user(spec, PASSWD, GROUP)


def test_the_own_group_is_always_among_the_groups() -> None:
    """CVE-2022-36109: a step that could drop it would get past a file that denies just this group."""
    for spec in ("", "0", "app", "1234", "app:extra", "77:88"):
        user = resolve_user(spec, PASSWD, GROUP)
        assert user.gid in user.groups


def test_an_image_without_the_files_knows_numbers_only() -> None:
    assert resolve_user("5:6", None, None) == User(5, 6, (6,))
    assert resolve_user("", None, None) == User(0, 0, (0,))
    with pytest.raises(DefinitionError, match="no user 'app'"):
        resolve_user("app", None, None)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("app", (1000, 1001)),
        ("1000", (1000, 1000)),
        ("1234", (1234, 1234)),
        ("app:extra", (1000, 2000)),
        ("1:extra", (1, 2000)),
        ("app:0", (1000, 0)),
        ("1:", (1, 1)),
        ("bare:bare", None),
        ("root:55", (0, 55)),
    ],
)
def test_who_a_copied_file_belongs_to(spec: str, expected: tuple[int, int] | None) -> None:
    if expected is None:
        with pytest.raises(DefinitionError):
            resolve_owner(spec, PASSWD, GROUP)
    else:
        assert resolve_owner(spec, PASSWD, GROUP) == expected


@pytest.mark.parametrize("spec", ["nobody", "app:nothing", ":app", ":"])
def test_an_owner_that_is_not_there_is_an_error_and_not_root(spec: str) -> None:
    with pytest.raises(DefinitionError):
        resolve_owner(spec, PASSWD, GROUP)


def test_groups() -> None:
    assert resolve_group("more", GROUP) == 2001
    assert resolve_group("bare", GROUP) == 99
    assert resolve_group("12", None) == 12


def test_files_that_are_no_text() -> None:
    garbage = bytes(range(256)) * 20
    assert resolve_user("5", garbage, garbage) == User(5, 0, (0,))
    with pytest.raises(DefinitionError):
        resolve_user("app", garbage, garbage)
