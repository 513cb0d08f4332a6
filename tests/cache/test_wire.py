"""The wire forms: what was sent is what arrives, and nonsense is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import encoding
from cache.digest import Digest
from cache.errors import CorruptBlob
from cache.result import Layer, Result
from cache.wire import decode_result, encode_result

digests = st.builds(Digest, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(0, 2**62))
diff_ids = st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}")
contents = st.text("abc", min_size=1, max_size=64)
layers = st.one_of(
    st.tuples(diff_ids, contents, digests, digests).map(lambda parts: Layer(*parts)),
    st.tuples(diff_ids, contents).map(lambda parts: Layer(*parts)),
)
results = st.builds(
    Result,
    st.none() | layers,
    st.none() | digests,
    st.integers(0, 10**12).map(lambda us: us / 1_000_000),
    st.integers(0, 10**13).map(lambda ms: ms / 1000),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape")), max_size=5).map(tuple),
    st.integers(0, 10**13).map(lambda ms: ms / 1000),
)


@given(results)
@settings(deadline=None)
def test_a_result_arrives_as_it_was_sent(result: Result) -> None:
    assert decode_result(encode_result(result)) == result


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_arbitrary_bytes_are_a_result_or_refused(data: bytes) -> None:
    try:
        result = decode_result(data)
    except CorruptBlob:
        return
    assert decode_result(encode_result(result)) == result


@given(results)
@settings(deadline=None)
def test_the_stored_form_keeps_a_result(result: Result) -> None:
    rounded = result._replace(seconds=round(result.seconds, 6), made_at=round(result.made_at, 3))
    assert Result.from_json(encoding.parse(encoding.canonical(result.to_json()))) == rounded


def test_a_digest_of_the_wrong_length_is_refused() -> None:
    good = encode_result(Result(None, Digest.of(b"x"), 1, 1, "a"))
    assert bytes.fromhex(Digest.of(b"x").hash) in good
    with pytest.raises(CorruptBlob):
        decode_result(good.replace(bytes.fromhex(Digest.of(b"x").hash), b"y" * 32)[:-1])


def test_the_stubs_are_fresh() -> None:
    generate = Path(__file__).parents[2] / "proto/generate.py"
    done = subprocess.run([sys.executable, generate, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
