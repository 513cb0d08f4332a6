"""Lists of files: what a key's sources had, and what is different between two of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.file_list import FileChanges, Listed, compare, decode, encode

NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)
FILES = st.builds(
    Listed, NAMES, st.sampled_from(["file", "directory", "symlink"]), st.integers(0, 0o7777), st.integers(0, 1 << 60), st.sampled_from(["", "ab", "a b"])
)  # fmt: skip
LISTS = st.lists(FILES, max_size=12, unique_by=lambda one: one.path)


@given(LISTS)
def test_a_list_is_read_as_it_was_written(files: list[Listed]) -> None:
    assert decode(encode(files)) == files


def test_names_that_are_not_utf8_survive() -> None:
    files = [Listed("a\udcffb\nc", "file", 0o644, 1, "x")]
    assert decode(encode(files)) == files


@pytest.mark.parametrize("data", [b"", b"garbage", encode([])[:-2]])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode(data)


@given(LISTS, LISTS)
def test_changes_turn_the_one_into_the_other(old: list[Listed], new: list[Listed]) -> None:
    changes = compare(old, new)
    made = {one.path: one for one in old}
    for one in changes.removed:
        del made[one.path]
    made.update({one.path: one for one in changes.added})
    made.update({is_.path: is_ for _, is_ in changes.changed + changes.modes})
    assert made == {one.path: one for one in new}
    assert all(was != is_ for was, is_ in changes.changed + changes.modes)
    assert all(was._replace(mode=0) == is_._replace(mode=0) for was, is_ in changes.modes)


def test_nothing_changed() -> None:
    one = Listed("a", "file", 0o644, 1, "x")
    assert compare([one], [one]) == FileChanges((), (), (), ())
