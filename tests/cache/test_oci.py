"""Manifests, indexes and platforms: read from untrusted bytes, matched as containerd does, written canonically."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import oci
from cache.digest import OciDigest
from cache.errors import BuildgraphError, CorruptBlob, UsageError
from cache.oci import Descriptor, Index, Manifest, NoSuchPlatform, UnsupportedImage, parse_manifest, select
from cache.platform import Platform

DIGEST = OciDigest("sha256:" + "a1" * 32)
OTHER = OciDigest("sha256:" + "b2" * 32)


def manifest_fields(**changes: Any) -> dict[str, Any]:
    fields = {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": {"mediaType": oci.OCI_CONFIG, "digest": DIGEST, "size": 7},
        "layers": [{"mediaType": oci.OCI_LAYER_GZIP, "digest": OTHER, "size": 9}],
    }
    return {key: value for key, value in (fields | changes).items() if value is not ...}


def parse(**changes: Any) -> Manifest | Index:
    return parse_manifest(json.dumps(manifest_fields(**changes)).encode())


def index_of(*platforms: str) -> Index:
    return Index(
        tuple(
            Descriptor(oci.OCI_MANIFEST, OciDigest(f"sha256:{number:064x}"), 1, Platform.parse(text) if text else None)
            for number, text in enumerate(platforms)
        )
    )


def test_an_image_is_read_and_written_back() -> None:
    manifest = parse(annotations={"b": "2", "a": "1"})
    assert isinstance(manifest, Manifest)
    assert manifest.layers[0].digest == OTHER
    assert manifest.annotations == (("a", "1"), ("b", "2"))
    assert parse_manifest(manifest.to_json()) == manifest
    assert json.loads(manifest.to_json()) == manifest_fields(annotations={"a": "1", "b": "2"})


def test_an_index_is_read_and_written_back() -> None:
    platform = {"architecture": "arm", "os": "linux", "variant": "v7"}
    fields = {
        "schemaVersion": 2,
        "mediaType": oci.DOCKER_INDEX,
        "manifests": [{"mediaType": oci.DOCKER_MANIFEST, "digest": DIGEST, "size": 7, "platform": platform}],
    }
    index = parse_manifest(json.dumps(fields).encode(), oci.DOCKER_INDEX)
    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform("linux", "arm", "v7")
    assert json.loads(index.to_json()) == fields


@pytest.mark.parametrize("kind", ["", "application/json", "text/plain", oci.OCI_MANIFEST])
def test_the_media_type_may_be_missing_or_say_nothing(kind: str) -> None:
    data = json.dumps(manifest_fields(mediaType=...)).encode()
    assert parse_manifest(data, kind).media_type == oci.OCI_MANIFEST


@pytest.mark.parametrize(
    "changes",
    [
        {"manifests": []},  # could be read both ways
        {"config": ..., "layers": ...},
        {"config": ...},
        {"config": []},
        {"layers": {}},
        {"layers": ["x"]},
        {"layers": [{"digest": OTHER, "size": -1}]},
        {"layers": [{"digest": OTHER, "size": 2**60}]},
        {"layers": [{"digest": OTHER, "size": 1.5}]},
        {"layers": [{"digest": OTHER, "size": True}]},
        {"layers": [{"digest": "sha256:../../etc/passwd", "size": 1}]},
        {"layers": [{"digest": 5, "size": 1}]},
        {"layers": [{"digest": OTHER, "size": 1}] * 10_001},
        {"mediaType": oci.OCI_INDEX},
        {"annotations": {"a": 1}},
    ],
)
def test_nonsense_is_corrupt(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptBlob):
        parse(**changes)


NO_JSON = [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b'{"size":' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("data", [*NO_JSON, b" " * 5_000_000])
def test_bytes_that_are_no_json_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptBlob):
        parse_manifest(data)


def test_a_sender_that_contradicts_the_document_is_corrupt() -> None:
    with pytest.raises(CorruptBlob, match="sender"):
        parse_manifest(json.dumps(manifest_fields()).encode(), oci.DOCKER_MANIFEST)


def test_schema_1_is_refused_by_name() -> None:
    for data, kind in (
        (b'{"schemaVersion": 1, "fsLayers": []}', ""),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ):
        with pytest.raises(UnsupportedImage, match="schema 1"):
            parse_manifest(data, kind)


def test_other_artifacts_are_unsupported() -> None:
    with pytest.raises(UnsupportedImage):
        parse(mediaType="application/vnd.example+json")
    with pytest.raises(UnsupportedImage):
        oci.compression(Descriptor("application/vnd.oci.image.layer.v1.tar+encrypted", DIGEST, 1))
    assert oci.compression(Descriptor(oci.DOCKER_LAYER_GZIP, DIGEST, 1)) == "gzip"
    assert oci.compression(Descriptor(oci.OCI_LAYER, DIGEST, 1)) == ""


@settings(deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([DIGEST, oci.OCI_MANIFEST]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform",
                         "annotations", "os", "architecture"]), inner, max_size=6),
    max_leaves=20,
))  # fmt: skip
def test_no_document_makes_anything_but_a_readable_failure(document: object) -> None:
    try:
        parsed = parse_manifest(json.dumps(document).encode())
    except BuildgraphError:
        return
    assert parse_manifest(parsed.to_json()) == parsed


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("Linux/ARM64", "linux/arm64"),
        ("linux/i386", "linux/386"),
        ("darwin/arm64", "darwin/arm64"),
        ("macos/arm64", "darwin/arm64"),
    ],
)
def test_platforms_are_normalised(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal
    assert Platform.parse(normal) == Platform.parse(text)


def test_one_word_is_completed_by_this_machine() -> None:
    here = Platform.here()
    assert here.os == "linux"
    assert Platform.parse("linux") == here
    assert Platform.parse("arm64") == Platform("linux", "arm64")


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "toaster", "linux/amd64/v1\n", "linux/a b"])
def test_other_texts_are_no_platform(text: str) -> None:
    with pytest.raises(UsageError):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/amd64", ["linux/386"], 0),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/s390x", ["", "linux/amd64"], 0),
        ("linux/amd64", ["", "linux/amd64"], 1),
    ],
)
def test_the_best_platform_is_selected(wanted: str, offered: list[str], chosen: int) -> None:
    index = index_of(*offered)
    assert select(index, Platform.parse(wanted)) == index.manifests[chosen]


def test_a_missing_platform_lists_those_that_are_there() -> None:
    index = index_of("linux/arm64", "linux/arm/v7", "unknown/unknown")
    with pytest.raises(NoSuchPlatform, match=r"linux/amd64; it is there for: linux/arm/v7, linux/arm64$"):
        select(index, Platform("linux", "amd64"))
    with pytest.raises(NoSuchPlatform):
        select(index_of("linux/amd64"), Platform("linux", "386"))


def test_half_a_surrogate_pair_does_not_survive() -> None:
    data = json.dumps(manifest_fields(annotations={"a": "\ud800"})).encode()
    parse_manifest(data).annotations[0][1].encode()
