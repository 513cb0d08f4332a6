"""OCI layouts: written so that other tools read them, read without trusting anything in them."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cache import oci
from cache.digest import OciDigest
from cache.errors import BuildgraphError, CorruptBlob
from cache.layout_tar import DockerImage, TarBlob, write_layout_tar
from cache.layout_writer import LayoutWriter
from cache.oci_layout import LayoutProblem, OciLayout
from tests.cache.images import Image, make_image, pieces, sha256


def write(directory: Path, *images: tuple[Image, str]) -> str:
    writer = LayoutWriter(str(directory))
    for image, _ in images:
        for digest, data in (image.blobs | {image.digest: image.manifest}).items():
            writer.add_blob(digest, len(data), [data[:5], data[5:]])
    writer.finish([image.descriptor(tag) for image, tag in images])
    return str(directory)


def tar_of(image: Image, tag: str, reverse: bool = False) -> bytes:
    out = io.BytesIO()
    items = sorted((image.blobs | {image.digest: image.manifest}).items(), reverse=reverse)
    blobs = [TarBlob(digest, len(data), pieces(data)) for digest, data in items]
    docker = [DockerImage(image.config, image.layers, (f"example.test/app:{tag}",))]
    write_layout_tar(out.write, blobs, [image.descriptor(tag)], docker)
    return out.getvalue()


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    image = make_image()
    layout = OciLayout.open(write(tmp_path / "out", (image, "v1")))
    for reference in ("v1", "", image.digest):
        assert layout.get_manifest(reference) == (image.manifest, oci.OCI_MANIFEST, image.digest)
    for digest, data in image.blobs.items():
        assert b"".join(layout.open_blob(digest, len(data))) == data


def test_skopeo_and_umoci_read_it(tmp_path: Path) -> None:
    image = make_image()
    path = write(tmp_path / "out", (image, "v1"), (make_image("other"), "v2"))
    seen = json.loads(run("skopeo", "inspect", f"oci:{path}:v1"))
    assert seen["Digest"] == image.digest
    assert seen["Labels"] == {"text": "hello"}
    run("skopeo", "copy", f"oci:{path}:v2", f"dir:{tmp_path / 'copy'}")
    assert run("umoci", "list", "--layout", path).split() == ["v1", "v2"]
    run("umoci", "unpack", "--rootless", "--image", f"{path}:v1", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle/rootfs/file").read_text() == "hello"


def test_a_layout_of_skopeo_is_read(tmp_path: Path) -> None:
    image = make_image()
    run("skopeo", "copy", f"oci:{write(tmp_path / 'out', (image, 'v1'))}:v1", f"oci:{tmp_path / 'copy'}:theirs")
    layout = OciLayout.open(str(tmp_path / "copy"))
    data, kind, digest = layout.get_manifest("theirs")
    parsed = oci.parse_manifest(data, kind)
    assert isinstance(parsed, oci.Manifest)
    assert parsed.config.digest == image.config
    assert layout.get_manifest() == (data, kind, digest)


def test_the_archive_is_the_same_for_the_same_input_and_loads_everywhere(tmp_path: Path) -> None:
    image = make_image()
    data = tar_of(image, "v1")
    assert data == tar_of(image, "v1", reverse=True)
    (tmp_path / "image.tar").write_bytes(data)
    with tarfile.open(tmp_path / "image.tar") as archive:
        members = archive.getmembers()
    assert all(member.mtime == member.uid == member.gid == 0 for member in members)
    assert [member.name for member in members][-3:] == ["index.json", "manifest.json", "oci-layout"]
    assert json.loads(run("skopeo", "inspect", f"oci-archive:{tmp_path}/image.tar:v1"))["Digest"] == image.digest
    assert json.loads(run("skopeo", "inspect", f"docker-archive:{tmp_path}/image.tar"))["Labels"] == {"text": "hello"}
    run("skopeo", "copy", f"docker-archive:{tmp_path}/image.tar:example.test/app:v1", f"dir:{tmp_path / 'copy'}")


def test_an_archive_of_wrong_bytes_is_an_error() -> None:
    image = make_image()
    for chunks in ([b"hellO"], [b"hell"], [b"hello", b"!"]):
        blob = TarBlob(sha256(b"hello"), 5, pieces(*chunks))
        with pytest.raises(CorruptBlob):
            write_layout_tar(io.BytesIO().write, [blob], [image.descriptor()])


def test_a_second_image_joins_the_first_and_a_tag_moves(tmp_path: Path) -> None:
    first, second, third = make_image("1"), make_image("2"), make_image("3")
    write(tmp_path, (first, "a"), (second, "b"))
    layout = OciLayout.open(write(tmp_path, (third, "b")))
    assert layout.get_manifest("a")[2] == first.digest
    assert layout.get_manifest("b")[2] == third.digest
    assert len(layout.images.manifests) == 2
    assert len(OciLayout.open(write(tmp_path, (third, "b"))).images.manifests) == 2


def test_a_blob_with_other_bytes_leaves_nothing(tmp_path: Path) -> None:
    writer = LayoutWriter(str(tmp_path))
    for chunks in ([b"hellO"], [b"hell"], [b"hello", b"!"]):
        with pytest.raises(CorruptBlob):
            writer.add_blob(sha256(b"hello"), 5, chunks)
    assert not writer.has_blob(sha256(b"hello"), 5)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    writer.add_blob(sha256(b"hello"), 5, [b"hello"])
    assert writer.has_blob(sha256(b"hello"), 5)
    assert not writer.has_blob(sha256(b"hello"), 6)


def test_an_image_is_not_named_before_the_end(tmp_path: Path) -> None:
    writer = LayoutWriter(str(tmp_path))
    writer.add_blob(sha256(b"x"), 1, [b"x"])
    assert not (tmp_path / "index.json").exists()
    with pytest.raises(LayoutProblem, match="not an OCI layout"):
        OciLayout.open(str(tmp_path))


@pytest.mark.parametrize(
    ("tags", "reference", "message"),
    [
        (["a", "b"], "", "more than one image; there is: a, b"),
        (["a", "b"], "c", "has no image called 'c'; there is: a, b"),
        (["a", "a"], "a", "more than one image called 'a'"),
        ([], "", "there is: nothing"),
    ],
)
def test_a_choice_that_is_not_clear_lists_what_is_there(
    tmp_path: Path, tags: Sequence[str], reference: str, message: str
) -> None:
    layout = OciLayout.open(write(tmp_path, *((make_image(str(number)), tag) for number, tag in enumerate(tags))))
    with pytest.raises(LayoutProblem, match=message):
        layout.get_manifest(reference)


def test_whole_names_and_their_tags_are_found(tmp_path: Path) -> None:
    image, other = make_image(), make_image("other")
    layout = OciLayout.open(write(tmp_path, (image, "example.test:5000/app:v1"), (other, "latest")))
    assert layout.get_manifest("v1")[2] == image.digest
    assert layout.get_manifest("example.test:5000/app:v1")[2] == image.digest
    assert layout.get_manifest()[2] == other.digest


def blob_path(directory: str, digest: OciDigest) -> Path:
    return Path(directory, "blobs/sha256", digest.hex)


def read_all(directory: str, image: Image) -> None:
    layout = OciLayout.open(directory)
    layout.get_manifest("v1")
    for digest, data in image.blobs.items():
        b"".join(layout.open_blob(digest, len(data)))


def test_damage_is_found(tmp_path: Path) -> None:
    image = make_image()
    path = write(tmp_path, (image, "v1"))
    for digest in (image.digest, *image.blobs):
        place = blob_path(path, digest)
        sound = place.read_bytes()
        for broken in (sound[:-1], sound + b"x", b"X" + sound[1:]):
            place.write_bytes(broken)
            with pytest.raises(CorruptBlob):
                read_all(path, image)
        place.write_bytes(sound)
    read_all(path, image)


@pytest.mark.parametrize("what", ["blob", "directory", "index.json", "oci-layout", "fifo"])
def test_no_symlink_and_nothing_but_files_is_read(tmp_path: Path, what: str) -> None:
    image = make_image()
    path = write(tmp_path / "layout", (image, "v1"))
    victim = {
        "blob": blob_path(path, image.config),
        "fifo": blob_path(path, image.config),
        "directory": Path(path, "blobs/sha256"),
    }.get(what, Path(path, what))
    outside = tmp_path / "outside"
    victim.rename(outside)
    if what == "fifo":
        os.mkfifo(victim)
    else:
        victim.symlink_to(outside)
    with pytest.raises(BuildgraphError):
        read_all(path, image)


def test_no_symlink_is_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (tmp_path / "out/blobs").mkdir(parents=True)
    (tmp_path / "out/blobs/sha256").symlink_to(tmp_path)
    with pytest.raises(LayoutProblem, match="not a directory"):
        LayoutWriter(str(tmp_path / "out"))
    (tmp_path / "out/blobs/sha256").unlink()
    writer = LayoutWriter(str(tmp_path / "out"))
    (tmp_path / "out/blobs/sha256" / sha256(b"x").hex).symlink_to(outside)
    writer.add_blob(sha256(b"x"), 1, [b"x"])
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("oci-layout", {"imageLayoutVersion": "2.0.0"}),
        ("oci-layout", []),
        ("index.json", {"schemaVersion": 2, "manifests": [{"digest": "sha256:../../x", "size": 1}]}),
        ("index.json", {"schemaVersion": 2, "manifests": "x"}),
        ("index.json", {"schemaVersion": 2, "config": {}, "layers": []}),
    ],
)
def test_a_strange_layout_is_refused(tmp_path: Path, name: str, content: Any) -> None:
    path = write(tmp_path, (make_image(), "v1"))
    Path(path, name).write_text(json.dumps(content))
    with pytest.raises(BuildgraphError):
        OciLayout.open(path)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(LayoutProblem, match="not an OCI layout"):
        OciLayout.open(str(tmp_path / "missing"))
