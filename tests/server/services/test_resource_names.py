"""Names of blobs on the wire: what is written is read again, and nothing else is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.server.namespaces import RESERVED, checked_namespace
from cache.server.refusal import Refused
from cache.server.resource_names import ResourceName, parse_read, parse_write

if TYPE_CHECKING:
    from collections.abc import Callable

HASH = "0123456789abcdef" * 4
part = st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True).filter(lambda text: text not in {".", "..", *RESERVED})
namespace = st.lists(part, max_size=4).map("/".join)
name = st.builds(
    ResourceName,
    namespace=namespace,
    function=st.sampled_from(["sha256", "blake3"]),
    blob=st.builds("{}/{}".format, st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.integers(0, 1 << 40)),
    zstd=st.booleans(),
)


def text_of(name: ResourceName) -> str:
    kind = "compressed-blobs/zstd" if name.zstd else "blobs"
    middle = "/blake3" if name.function == "blake3" else ""
    return f"{kind}{middle}/{name.blob}"


@given(name)
def test_what_is_read_comes_back(name: ResourceName) -> None:
    assert parse_read("/".join(filter(None, (name.namespace, text_of(name))))) == name


@given(name, st.uuids().map(str), st.sampled_from(["", "/", "/a", "/blobs/uploads/b.txt"]))
def test_what_is_written_comes_back_whatever_stands_behind(name: ResourceName, upload: str, tail: str) -> None:
    text = "/".join(filter(None, (name.namespace, f"uploads/{upload}", text_of(name)))) + tail
    assert parse_write(text) == name._replace(upload=upload)


@given(st.one_of(st.text(max_size=300), st.lists(st.sampled_from(["", "blobs", "uploads", "zstd", "compressed-blobs", "blake3", "..", HASH, "5", "-1", "a"]), max_size=9).map("/".join)))
def test_whatever_comes_is_a_name_or_is_refused(text: str) -> None:
    for parse in (parse_read, parse_write):
        found = outcome(parse, text)
        if isinstance(found, Refused):
            assert found.code.name == "INVALID_ARGUMENT"
            assert len(found.text) < 600
        else:
            assert checked_namespace(found.namespace) == found.namespace
            assert found.blob in text


def outcome(parse: Callable[[str], ResourceName], text: str) -> ResourceName | Refused:
    try:
        return parse(text)
    except Refused as refused:
        return refused


@pytest.mark.parametrize(
    "text",
    [
        f"blobs/{HASH}", f"blobs/{HASH}/", f"blobs/{HASH}/-1", f"blobs/{HASH}/+1", f"blobs/{HASH}/1/", f"blobs/{HASH}/01", f"blobs/{HASH.upper()}/1",
        f"blobs/{HASH[:-1]}/1", f"blobs/{HASH}/99999999999999", f"blobs/{HASH}/1e3", f"/blobs/{HASH}/1", f"a//blobs/{HASH}/1", f"../blobs/{HASH}/1",
        f"a/../b/blobs/{HASH}/1", f"a/./blobs/{HASH}/1", f"uploads/blobs/{HASH}/1", f"a%2fb/blobs/{HASH}/1", f"a\0b/blobs/{HASH}/1", f"a\n/blobs/{HASH}/1",
        f"{'a' * 101}/blobs/{HASH}/1", f"compressed-blobs/deflate/{HASH}/1", f"compressed-blobs/{HASH}/1", f"blobs/sha512/{HASH}/1", f"blobs/sha256/{HASH}/1", "",
        f"blobs/{HASH}/٣", f"ä/blobs/{HASH}/1",
    ],
)  # fmt: skip
def test_tricks_are_refused(text: str) -> None:
    for parse, whole in ((parse_read, text), (parse_write, text.replace("blobs/", "uploads/u/blobs/", 1) if "compressed" not in text else text)):
        if parse is parse_write and text in (f"blobs/{HASH}/1/",):
            continue  # something may stand behind the size of what is written
        with pytest.raises(Refused):
            parse(whole)


def test_a_long_name_is_refused_without_being_repeated() -> None:
    with pytest.raises(Refused) as refused:
        parse_read("x" * 100_000)
    assert len(refused.value.text) < 500
