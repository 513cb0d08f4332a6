"""Layouts and archives that other tools read, and that are the same each time."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from cache import oci
from cache.errors import EnvironmentProblem, UsageError
from cache.images import Form
from cache.oci_layout import OciLayout
from cache.platform import Platform
from cache.store import Batch
from compiler.export.built import BuiltImage
from compiler.export.compress import Compressor
from tests.cache.layers import directory, file, hardlink, needs_root, symlink, whiteout
from tests.export.workshop import LINUX, Workshop, run, workshop


def sample(shop: Workshop, *names: str) -> BuiltImage:
    return shop.image(
        [
            shop.base_layer(directory("etc"), file("etc/gone", b"x"), file("etc/name", b"base\n"), file("old", b"1")),
            shop.layer(whiteout("etc/gone"), file("etc/name", b"new\n", mtime=5), symlink("link", "etc/name")),
            shop.layer(file("big", os.urandom(1 << 20) * 3, 0o4755), hardlink("bigger", "big")),
        ],
        *names,
    )


@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "zstd"])
def test_a_layout_directory_is_read_by_skopeo_and_unpacked_by_umoci(
    shop: Workshop, tmp_path: Path, compression: str
) -> None:
    image = sample(shop, "example.test/app:v1")
    out = tmp_path / "out"
    options = f"compression={compression},force-compression=true"
    made = shop.export(f"type=oci,dest={out},tar=false,{options}", image)
    seen = json.loads(run("skopeo", "inspect", f"oci:{out}:v1"))
    assert (seen["Digest"], seen["Labels"], len(seen["Layers"])) == (made.digest, {"made": "here"}, 3)
    assert hashlib.sha256((out / "blobs/sha256" / made.digest[7:]).read_bytes()).hexdigest() == made.digest[7:]
    run("skopeo", "copy", f"oci:{out}:v1", f"dir:{tmp_path}/copy")  # verifies every blob and diff_id
    if compression != "zstd":  # which umoci does not read yet
        run("umoci", "raw", "unpack", "--rootless", "--image", f"{out}:v1", f"{tmp_path}/unpacked")
        assert sorted(os.listdir(tmp_path / "unpacked")) == ["big", "bigger", "etc", "link", "old"]
        assert (tmp_path / "unpacked/link").read_bytes() == b"new\n"
        assert not (tmp_path / "unpacked/etc/gone").exists()


def test_dockers_media_types_on_demand_but_for_zstd(shop: Workshop, tmp_path: Path) -> None:
    image = sample(shop, "example.test/app:v1")
    shop.export(f"type=oci,dest={tmp_path}/out/,oci-mediatypes=false", image)
    # Without the tag, which it does not find on a docker manifest.
    run("skopeo", "copy", f"oci:{tmp_path}/out", f"dir:{tmp_path}/copy")
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_bytes())
    types = {manifest["mediaType"], manifest["config"]["mediaType"], *(one["mediaType"] for one in manifest["layers"])}
    assert types == {oci.DOCKER_MANIFEST, oci.DOCKER_CONFIG, oci.DOCKER_LAYER_GZIP}
    zstd = shop.export(f"type=docker,dest={tmp_path}/image.tar,compression=zstd", image)
    assert zstd.media_type == oci.OCI_MANIFEST


def test_a_layout_archive_is_a_file_or_a_stream(shop: Workshop, tmp_path: Path) -> None:
    image = sample(shop, "example.test/app:v1", "example.test/app:v2")
    made = shop.export(f"type=oci,dest={tmp_path}/a.tar", image)
    with open(tmp_path / "b.tar", "wb") as stream:
        assert shop.export("type=oci,dest=-", image, stdout=stream.fileno()) == made
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    for tag in ("v1", "v2"):
        seen = run("skopeo", "inspect", "--format", "{{.Digest}}", f"oci-archive:{tmp_path}/a.tar:{tag}")
        assert seen.strip() == made.digest
    assert os.listdir(tmp_path / "store" / "runs") != []
    assert not list(tmp_path.glob(".buildgraph-*"))


def test_a_directory_gets_a_layout_also_without_tar_false(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    first = shop.export(f"type=oci,dest={tmp_path}/there", sample(shop, "example.test/app:v1"))
    second = shop.export(f"type=oci,dest={tmp_path}/new/", sample(shop, "example.test/app:v1"))
    assert first.moved_blobs == second.moved_blobs == 3
    assert OciLayout.open(str(tmp_path / "new")).get_manifest("v1")[2] == second.digest


def test_an_image_joins_those_of_a_layout_and_moves_only_what_is_new(shop: Workshop, tmp_path: Path) -> None:
    base = shop.layer(file("base", b"b"))
    shop.export(f"type=oci,dest={tmp_path}/out/", shop.image([base], "example.test/app:v1"))
    two = shop.export(
        f"type=oci,dest={tmp_path}/out/", shop.image([base, shop.layer(file("x", b"x"))], "example.test/app:v2")
    )
    assert (two.moved_blobs, two.skipped) == (1, 1)
    assert len(OciLayout.open(str(tmp_path / "out")).images.manifests) == 2


def test_the_same_image_of_another_store_has_the_same_digest(tmp_path: Path) -> None:
    data = os.urandom(3 << 20) + bytes(1 << 20)
    digests: dict[str, set[str]] = {}
    for number in range(2):
        with workshop(tmp_path / f"store{number}") as shop:
            image = shop.image([shop.layer(file("a", data)), shop.layer(file("b", b"b"))], "example.test/app:v1")
            for compression in ("gzip", "zstd", "gzip,compression-level=9"):
                made = shop.export(f"type=oci,dest={tmp_path}/{number}.tar,compression={compression}", image)
                digests.setdefault(compression, set()).add(made.digest)
    assert [len(found) for found in digests.values()] == [1, 1, 1]
    assert len(set.union(*digests.values())) == 3


def test_what_was_exported_before_does_not_change_the_form(shop: Workshop, tmp_path: Path) -> None:
    image = sample(shop, "example.test/app:v1")
    gzip = shop.export(f"type=oci,dest={tmp_path}/a.tar", image)
    shop.export(f"type=oci,dest={tmp_path}/a.tar,compression=zstd", image)
    shop.export(f"type=oci,dest={tmp_path}/a.tar,compression-level=9", image)
    assert shop.export(f"type=oci,dest={tmp_path}/a.tar", image) == gzip


def test_a_second_export_of_the_same_build_packs_nothing(shop: Workshop, tmp_path: Path) -> None:
    image = sample(shop, "example.test/app:v1")
    compressor = Compressor(shop.library, shop.images)
    shop.export(f"type=oci,dest={tmp_path}/a.tar", image, compressor=compressor)
    packed = sorted(tmp_path.glob("store/runs/*/packed-*"))
    shop.export(f"type=oci,dest={tmp_path}/b.tar", image, compressor=compressor)
    assert sorted(tmp_path.glob("store/runs/*/packed-*")) == packed
    assert len(packed) == 3


def pulled(shop: Workshop, layout: Path, kind: str = "gzip") -> BuiltImage:
    """An image that was resolved in a layout, without layers, as the base of one of ours."""
    with workshop(layout.parent / "other") as other:
        base = other.image([other.layer(file("base", b"b" * 5000))], "example.test/base:1")
        other.export(f"type=oci,dest={layout},tar=false,compression={kind},compression-level=9", base)
    found = shop.images.open_layout(str(layout), "1", LINUX)
    ours = shop.layer(file("ours", b"o"))
    image = shop.image([*found.layers, ours], "example.test/app:v1")
    assert image.layers[0].tar is None
    return image


def test_a_layer_of_the_base_keeps_its_form_and_is_not_unpacked(shop: Workshop, tmp_path: Path) -> None:
    image = pulled(shop, tmp_path / "base", "zstd")
    [came] = shop.images.forms(image.layers[0].diff_id)
    shop.export(f"type=oci,dest={tmp_path}/out/", image)
    manifest = json.loads(OciLayout.open(str(tmp_path / "out")).get_manifest("v1")[0])
    assert manifest["layers"][0]["digest"] == came.digest
    assert [layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]] == ["zstd", "gzip"]
    assert shop.library.known(image.layers[0]).tar is None
    run("skopeo", "copy", f"oci:{tmp_path}/out:v1", f"dir:{tmp_path}/copy")


def test_a_layer_whose_origin_is_gone_is_packed_anew(shop: Workshop, tmp_path: Path) -> None:
    image = pulled(shop, tmp_path / "base")
    [came] = shop.images.forms(image.layers[0].diff_id)
    shop.library.fetch(image.layers[0])
    os.rename(tmp_path / "base", tmp_path / "moved")
    shop.export(f"type=oci,dest={tmp_path}/out/", image)
    manifest = json.loads(OciLayout.open(str(tmp_path / "out")).get_manifest("v1")[0])
    assert manifest["layers"][0]["digest"] != came.digest
    run("skopeo", "copy", f"oci:{tmp_path}/out:v1", f"dir:{tmp_path}/copy")


def test_forced_compression_repacks_the_base(shop: Workshop, tmp_path: Path) -> None:
    image = pulled(shop, tmp_path / "base")
    shop.export(f"type=oci,dest={tmp_path}/out/,compression=zstd,force-compression=true", image)
    manifest = json.loads(OciLayout.open(str(tmp_path / "out")).get_manifest("v1")[0])
    assert {layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]} == {"zstd"}


def test_a_remembered_form_that_this_release_packs_otherwise_is_packed_anew(shop: Workshop, tmp_path: Path) -> None:
    layer = shop.layer(file("a", b"a"))
    stale = shop.images.form_record(
        layer.diff_id, Form("application/vnd.oci.image.layer.v1.tar+gzip", "sha256:" + "0" * 64, 7, "")
    )
    shop.store.submit(Batch(records=(stale,)))
    shop.export(f"type=oci,dest={tmp_path}/out/", shop.image([layer], "example.test/app:v1"))
    run("skopeo", "copy", f"oci:{tmp_path}/out:v1", f"dir:{tmp_path}/copy")


def test_the_clamp_makes_layers_that_differ_in_times_alike(shop: Workshop, tmp_path: Path) -> None:
    base = shop.base_layer(file("base", b"b", mtime=900))
    made = set()
    for mtime in (500, 600, 1000):
        members = [directory("d", mtime=mtime), file("d/a", b"a", mtime=mtime), file("early", b"e", mtime=3)]
        image = shop.image([base, shop.layer(*members)], "example.test/app:v1")
        for _ in range(2):
            made.add(shop.export(f"type=oci,dest={tmp_path}/out/", image, epoch=500).digest)
        for same in (("", 2000), (",rewrite-timestamp=false", 500)):
            as_it_is = shop.export(f"type=oci,dest={tmp_path}/out/{same[0]}", image, epoch=same[1])
            assert (as_it_is.digest in made) == (mtime == 500)
    assert len(made) == 1
    shop.export(f"type=oci,dest={tmp_path}/out/", image, epoch=500)
    run("umoci", "raw", "unpack", "--rootless", "--image", f"{tmp_path}/out:v1", f"{tmp_path}/unpacked")
    times = {name: int((tmp_path / "unpacked" / name).stat().st_mtime) for name in ("base", "d", "d/a", "early")}
    assert times == {"base": 900, "d": 500, "d/a": 500, "early": 3}


def test_annotations_are_in_the_manifest(shop: Workshop, tmp_path: Path) -> None:
    image = sample(shop, "example.test/app:v1")
    shop.export(f"type=oci,dest={tmp_path}/out/,annotation.org.example.Key=value", image)
    manifest = json.loads(OciLayout.open(str(tmp_path / "out")).get_manifest("v1")[0])
    assert manifest["annotations"] == {"org.example.Key": "value"}


@needs_root
@pytest.mark.parametrize("options", ["", ",compression=gzip", ",oci-mediatypes=true"])
def test_podman_loads_a_docker_archive(shop: Workshop, tmp_path: Path, options: str) -> None:
    image = sample(shop, "example.test/app:v1", "busy:2")
    made = shop.export(f"type=docker,dest={tmp_path}/image.tar{options}", image)
    with tempfile.TemporaryDirectory() as place:  # podman takes no path of more than 50 characters
        podman = ("podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs")
        run(*podman, "load", "-i", f"{tmp_path}/image.tar")
        listed = json.loads(run(*podman, "images", "--format", "json"))
        run(*podman, "rmi", "--all", "--force")
    assert {one["Id"] for one in listed} == {made.config_digest[7:]}
    assert {name for one in listed for name in one["Names"]} == {"example.test/app:v1", "docker.io/library/busy:2"}


def test_a_docker_archive_is_one_for_docker_load(shop: Workshop, tmp_path: Path) -> None:
    image = sample(shop, "example.test/app:v1", "busy:2")
    made = shop.export(f"type=docker,dest={tmp_path}/image.tar", image)
    for tag in ("example.test/app:v1", "busy:2"):
        run("skopeo", "copy", f"docker-archive:{tmp_path}/image.tar:{tag}", f"dir:{tmp_path}/copy-{tag[:4]}")
    with tarfile.open(tmp_path / "image.tar") as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        [entry] = json.loads(member.read())
    assert entry["Config"].endswith(made.config_digest[7:])
    assert entry["RepoTags"] == ["example.test/app:v1", "docker.io/library/busy:2"]
    # As docker save: the layers are plain tars, so that nothing is packed only to be unpacked.
    assert [layer.rpartition("/")[2] for layer in entry["Layers"]] == [layer.diff_id[7:] for layer in image.layers]


# Where it goes


def test_an_archive_is_not_written_to_a_terminal(shop: Workshop) -> None:
    master, terminal = os.openpty()
    try:
        for kind in ("oci", "docker", "tar"):
            with pytest.raises(UsageError, match="terminal"):
                shop.export(f"type={kind},dest=-", sample(shop), stdout=terminal)
    finally:
        os.close(master)
        os.close(terminal)


def test_a_failed_export_leaves_what_was_there(shop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    out.write_text("before")
    image = pulled(shop, tmp_path / "base")
    os.rename(tmp_path / "base", tmp_path / "moved")
    for kind in ("oci", "docker", "tar"):
        with pytest.raises(UsageError, match="OCI layout"):
            shop.export(f"type={kind},dest={out}", image)
    with pytest.raises(UsageError, match="OCI layout"):
        shop.export(f"type=oci,tar=false,dest={tmp_path}/new", image)
    with pytest.raises(UsageError, match="OCI layout"):
        shop.export(f"type=local,dest={tmp_path}/new", image)
    assert out.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["moved", "other", "out.tar", "store"]


def test_a_killed_exports_leftovers_go_with_the_next_one_but_not_a_running_ones(shop: Workshop, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / ".buildgraph-0123456789abcdef").write_text("half")
    (place / ".buildgraph-0123456789abcdee").mkdir()
    (place / ".buildgraph-0123456789abcdee" / "x").write_text("half")
    (place / ".buildgraph-mine").write_text("not of that form")
    code = (
        "import sys; from compiler.export.destination import new_file\n"
        f"with new_file({str(place / 'running')!r}) as fd: print('now', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"now\n"
        shop.export(f"type=oci,dest={place}/out.tar", sample(shop))
        other.stdin.close()
        assert other.wait() == 0
    assert sorted(os.listdir(place)) == [".buildgraph-mine", "out.tar", "running"]


def test_a_full_disk_is_the_environments_problem(shop: Workshop, tmp_path: Path) -> None:
    for kind in ("oci", "docker", "tar"):
        with pytest.raises(EnvironmentProblem, match="No space"):
            shop.export(f"type={kind},dest=/dev/full", sample(shop))
    assert Path("/dev/full").is_char_device()


def test_a_symlink_that_the_user_names_is_followed(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "real.tar").write_text("before")
    (tmp_path / "link.tar").symlink_to("real.tar")
    shop.export(f"type=oci,dest={tmp_path}/link.tar", sample(shop))
    assert (tmp_path / "link.tar").is_symlink()
    assert tarfile.is_tarfile(tmp_path / "real.tar")


def test_an_image_that_stays_is_found_by_its_names(shop: Workshop) -> None:
    image = sample(shop, "app", "example.test/app:v1")
    made = shop.export("type=image", image)
    assert made.moved_blobs == 0
    for name in ("docker.io/library/app:latest", "example.test/app:v1"):
        found = shop.images.get(name, LINUX)
        assert found is not None
        assert [layer.content for layer in found.layers] == [layer.content for layer in image.layers]
    assert shop.images.get("example.test/app:v1", Platform("linux", "s390x")) is None
