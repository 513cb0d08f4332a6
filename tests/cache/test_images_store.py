"""Images of the store by name, and layers that come from a layout when they are needed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from cache.digest import Digest, OciDigest
from cache.errors import BuildgraphError, CorruptBlob, StoreProblem
from cache.image_config import ImageConfig
from cache.images import Form, Images, StoredImage
from cache.index import Index
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from cache.result import Layer
from cache.store import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def images(store: LmdbStore) -> Images:
    return Images(store)


def diff_id(text: str) -> OciDigest:
    return OciDigest(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


def image(name: str = "docker.io/library/app:1", platform: Platform = AMD64, *contents: str, cmd: str = "x") -> StoredImage:
    layers = tuple(Layer(diff_id(content), content) for content in contents)
    config = ImageConfig(platform.architecture, platform.os, cmd=(cmd,), diff_ids=tuple(OciDigest(layer.diff_id) for layer in layers))
    return StoredImage(name, str(platform), config, layers, "", False, 1.5)


# names


def test_a_name_leads_to_its_image_of_each_platform(store: LmdbStore, images: Images) -> None:
    amd, arm = image("a:1", AMD64, "one", "two"), image("a:1", ARM64, "three")
    store.commit(images.record(amd))
    store.commit(images.record(arm))
    assert images.get("a:1", AMD64) == amd
    assert images.get("a:1", ARM64) == arm
    assert images.get("a:2", AMD64) is None
    assert images.all() == [amd, arm]


def test_a_name_can_move(store: LmdbStore, images: Images) -> None:
    store.commit(images.record(image(cmd="old")))
    store.commit(images.record(image(cmd="new")))
    (found,) = images.all()
    assert found.config.cmd == ("new",)


def test_a_removed_name_is_gone_and_others_stay(store: LmdbStore, images: Images) -> None:
    store.commit(images.record(image("a:1")))
    store.commit(images.record(image("b:1")))
    images.remove("a:1", AMD64)
    assert [found.name for found in images.all()] == ["b:1"]
    images.remove("a:1", AMD64)
    images.remove("b:1", ARM64)
    assert images.get("b:1", AMD64) is not None


def test_an_image_whose_config_is_gone_is_none(store: LmdbStore, images: Images) -> None:
    batch = images.record(image())
    store.commit(Batch(records=batch.records))
    assert images.get(image().name, AMD64) is None
    assert images.all() == []


def test_names_with_odd_characters_and_of_any_length(store: LmdbStore, images: Images) -> None:
    for name in ("host:5000/a/b:1", "oci-layout:/a|b@sha256:0", "x/" * 120 + "y:1", "p/" * 300 + ":1"):
        store.commit(images.record(image(name)))
        assert images.get(name, AMD64) == image(name)
    assert len(images.all()) == 4


# compressed forms


def test_each_form_is_kept_once_and_the_newest_is_the_last(store: LmdbStore, images: Images) -> None:
    one, two = Form("gzip", "sha256:1", 1, "host/repo"), Form("zstd", "sha256:2", 2, "")
    for form in (one, two, two, one):
        record = images.form_record("id", form)
        if record is not None:
            store.commit(Batch(records=(record,)))
    assert images.forms("id") == [two, one]
    assert images.form_record("id", one) is None
    assert images.forms("other") == []


# layouts


def tar_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


class Layout:
    """An OCI layout on disk with one image."""

    def __init__(self, directory: Path, *tars: bytes, diff_ids: list[str] | None = None) -> None:
        self.directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)
        ids = diff_ids or [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]
        self.config = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}, "config": {"Cmd": ["x"]}}, indent=1
        ).encode()
        layers = [self.blob(gzip.compress(tar), "application/vnd.oci.image.layer.v1.tar+gzip") for tar in tars]
        manifest = {"schemaVersion": 2, "config": self.blob(self.config, "application/vnd.oci.image.config.v1+json"), "layers": layers}
        manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
        self.layers = layers
        index = {"schemaVersion": 2, "manifests": [self.blob(json.dumps(manifest).encode(), str(manifest["mediaType"]))]}
        (directory / "index.json").write_text(json.dumps(index))
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, media_type: str) -> dict[str, object]:
        hexdigits = hashlib.sha256(data).hexdigest()
        (self.directory / "blobs/sha256" / hexdigits).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{hexdigits}", "size": len(data)}

    def path(self, layer: int) -> Path:
        return self.directory / "blobs/sha256" / str(self.layers[layer]["digest"])[7:]


def test_a_layout_is_resolved_without_its_layers(store: LmdbStore, images: Images, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout", tar_of(a="1"), tar_of(b="2"))
    layout.path(0).unlink()
    found = images.open_layout(str(layout.directory), "", AMD64)
    assert found.config.cmd == ("x",)
    assert [layer.diff_id for layer in found.layers] == list(found.config.diff_ids)
    assert found.pulled
    assert images.all() == [], "a layout is no name of the store"
    store.commit(Batch())
    config = Digest.of(layout.config)
    assert store.read_blob(config) == layout.config, "byte for byte: its sha256 is the image's id"


def test_a_layer_comes_when_it_is_needed(store: LmdbStore, images: Images, tmp_path: Path) -> None:
    tar = tar_of(a="one", b="two")
    layout = Layout(tmp_path / "layout", tar)
    (layer,) = images.open_layout(str(layout.directory), "", AMD64).layers
    assert layer.tar is None
    fetched = images.fetch(layer)
    assert fetched.tar == Digest.of(tar)
    assert store.read_blob(Digest.of(tar)) == tar
    assert fetched.listing is not None
    index = Index.decode(store.read_blob(fetched.listing))
    assert [entry.path for entry in index.entries] == ["a", "b"]
    record = store.get("layers", layer.diff_id)
    assert record is not None
    assert Layer.from_json(json.loads(record)) == fetched


def test_a_layer_that_is_not_what_its_image_says_is_refused(store: LmdbStore, images: Images, tmp_path: Path) -> None:
    """I3, I7."""
    layout = Layout(tmp_path / "layout", tar_of(a="1"), diff_ids=[f"sha256:{'0' * 64}"])
    (layer,) = images.open_layout(str(layout.directory), "", AMD64).layers
    with pytest.raises(CorruptBlob, match="unpacks to"):
        images.fetch(layer)
    assert store.get("layers", layer.diff_id) is None


def test_a_damaged_layer_is_refused_and_leaves_nothing(store: LmdbStore, images: Images, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout", tar_of(a="1" * 1000))
    data = bytearray(layout.path(0).read_bytes())
    data[len(data) // 2] ^= 1
    layout.path(0).write_bytes(data)
    (layer,) = images.open_layout(str(layout.directory), "", AMD64).layers
    with pytest.raises(BuildgraphError):
        images.fetch(layer)
    assert store.get("layers", layer.diff_id) is None
    assert list((tmp_path / "store/runs").rglob("pull-*")) == []


def test_a_layout_that_is_gone_is_an_error_and_another_origin_helps(store: LmdbStore, images: Images, tmp_path: Path) -> None:
    tar = tar_of(a="1")
    gone, there = Layout(tmp_path / "gone", tar), Layout(tmp_path / "there", tar)
    (layer,) = images.open_layout(str(gone.directory), "", AMD64).layers
    gone.path(0).unlink()
    with pytest.raises(BuildgraphError, match="does not hold"):
        images.fetch(layer)
    images.open_layout(str(there.directory), "", AMD64)
    assert images.fetch(layer).tar == Digest.of(tar)


def test_a_layer_that_came_from_nowhere(images: Images) -> None:
    with pytest.raises(StoreProblem, match="nothing is known about where it came from"):
        images.fetch(Layer(diff_id("x"), "content"))


def test_a_config_that_counts_other_layers_is_refused(images: Images, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout", tar_of(a="1"), diff_ids=[f"sha256:{number:064}" for number in range(2)])
    with pytest.raises(CorruptBlob, match="1 layers and 2 diff ids"):
        images.open_layout(str(layout.directory), "", AMD64)
