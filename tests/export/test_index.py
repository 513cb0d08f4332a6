"""Several platforms in one output: indexes that other tools read, and directories a platform."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache import oci
from cache.errors import BuildgraphError, RemoteError, UsageError
from cache.oci_layout import OciLayout
from cache.platform import Platform
from cache.reference import Reference
from compiler.export.built import BuiltImage
from tests.cache.layers import directory, file, hardlink, look, needs_root, symlink
from tests.cache.real_registry import docker_registry
from tests.cache.registry_server import Reply, Request, serve
from tests.export.workshop import LINUX, Workshop, run, workshop

ARM64 = Platform("linux", "arm64")
ARM = Platform("linux", "arm", "v7")
PLATFORMS = (LINUX, ARM64, ARM)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def variants(shop: Workshop, *names: str) -> list[BuiltImage]:
    """An image for each of PLATFORMS, with a layer that all have and one of its own."""
    same = shop.layer(directory("etc"), file("etc/same", os.urandom(200_000)))
    return [
        shop.image([same, shop.layer(file("arch", str(platform).encode()))], *names, platform=platform)
        for platform in PLATFORMS
    ]


def raw(name: str) -> dict[str, Any]:
    found = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", name))
    assert isinstance(found, dict)
    return found


def architecture(name: str, wanted: Platform) -> str:
    """What skopeo finds in an index for a platform."""
    variant = ("--override-variant", wanted.variant) if wanted.variant else ()
    options = ("--tls-verify=false", "--no-tags") if name.startswith("docker:") else ()
    command = ("skopeo", "--override-arch", wanted.architecture, *variant, "inspect", *options, name)
    found = json.loads(run(*command))["Architecture"]
    assert isinstance(found, str)
    return found


def test_an_index_is_pushed_under_every_tag_and_a_second_push_moves_nothing(
    shop: Workshop, address: str, tmp_path: Path
) -> None:
    images = variants(shop, f"{address}/team/app:v1", f"{address}/team/app:v2")
    first = shop.export("type=registry", *images)
    assert (first.media_type, first.config_digest) == (oci.OCI_INDEX, "")
    assert (first.moved_blobs, first.skipped) == (7, 0)  # four layers and three configs
    for tag in ("v1", "v2"):
        index = raw(f"docker://{address}/team/app:{tag}")
        assert [entry["platform"] for entry in index["manifests"]] == [
            {"architecture": "amd64", "os": "linux"},
            {"architecture": "arm64", "os": "linux"},
            {"architecture": "arm", "os": "linux", "variant": "v7"},
        ]
    for platform in PLATFORMS:
        assert architecture(f"docker://{address}/team/app:v1", platform) == platform.architecture
        assert shop.images.pull(Reference.parse(f"{address}/team/app:v2"), platform).config.variant == platform.variant
    # Verifies every blob, and that nothing is missing.
    run("skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{address}/team/app:v1", f"dir:{tmp_path}/copy")
    packed = sorted(tmp_path.glob("store/runs/*/packed-*"))
    second = shop.export("type=registry", *images)
    assert second == first._replace(moved_bytes=0, moved_blobs=0, skipped=7)
    assert sorted(tmp_path.glob("store/runs/*/packed-*")) == packed


def test_a_changed_platform_is_all_that_moves_and_layers_are_taken_over(shop: Workshop, address: str) -> None:
    images = variants(shop, f"{address}/changed:1")
    shop.export("type=registry", *images)
    other = shop.image([images[1].layers[0], shop.layer(file("arch", b"new"))], f"{address}/changed:1", platform=ARM64)
    made = shop.export("type=registry", images[0], other, images[2])
    assert (made.moved_blobs, made.skipped) == (2, 5)  # its layer and its config
    elsewhere = shop.export(f"type=registry,name={address}/elsewhere:1", images[0], other, images[2])
    assert (elsewhere.moved_blobs, elsewhere.skipped) == (3, 4)  # configs, which are not mounted
    assert elsewhere.digest == made.digest


def test_push_by_digest_sets_no_tag(shop: Workshop, address: str) -> None:
    made = shop.export(
        f"type=image,push=true,push-by-digest=true,name={address}/untagged", *variants(shop, "example.test/app:1")
    )
    assert architecture(f"docker://{address}/untagged@{made.digest}", ARM64) == "arm64"
    with pytest.raises(RemoteError):
        shop.images.pull(Reference.parse(f"{address}/untagged"), ARM64)


def test_no_tag_before_all_manifests_and_no_manifest_before_its_blobs(shop: Workshop) -> None:
    there: set[str] = set()
    early: list[str] = []

    def answer(request: Request) -> Reply:
        name = request.path.rpartition("/")[2]
        if request.method == "HEAD":
            return Reply(404)
        if request.method == "POST":
            return Reply(202, headers=(("Location", "/upload"),))
        if "/manifests/" in request.path:
            document = json.loads(request.body)
            needed = document.get("manifests") or [document["config"], *document["layers"]]
            if not {one["digest"] for one in needed} <= there:
                early.append(name)
            there.add(name)
        there.update(request.query.get("digest", ()))
        return Reply(200 if request.method == "GET" else 201)

    with serve(answer) as server:
        shop.export(f"type=registry,name={server.address}/app:1", *variants(shop))
        put = [request.path.rpartition("/")[2] for request in server.asked("PUT", "manifests")]
    assert early == []
    assert len(put) == 4
    assert put[-1] == "1"


def test_dockers_manifest_list_for_old_registries(shop: Workshop, address: str, tmp_path: Path) -> None:
    images = variants(shop, f"{address}/old:1")
    made = shop.export("type=registry,oci-mediatypes=false", *images)
    assert made.media_type == oci.DOCKER_INDEX
    index = raw(f"docker://{address}/old:1")
    assert {entry["mediaType"] for entry in index["manifests"]} == {oci.DOCKER_MANIFEST}
    run("skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{address}/old:1", f"dir:{tmp_path}/copy")


def test_images_are_kept_for_their_platforms(shop: Workshop) -> None:
    images = variants(shop, "app", "example.test/app:v1")
    made = shop.export("type=image", *images)
    assert (made.config_digest, made.digest, made.moved_blobs) == ("", "", 0)
    for name in ("docker.io/library/app:latest", "example.test/app:v1"):
        for image in images:
            found = shop.images.get(name, image.platform)
            assert found is not None
            assert found.config == image.config
    shop.export("type=registry,push=false", *variants(shop, "example.test/other:1"))
    assert shop.images.get("example.test/other:1", ARM64) is None


def test_a_layout_directory_names_the_index_once_a_name(shop: Workshop, address: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    images = variants(shop, "example.test/app:v1", "example.test/app:v2")
    first = shop.export(f"type=oci,dest={out},tar=false", *images)
    assert (first.moved_blobs, first.skipped) == (4, 0)
    entries = json.loads((out / "index.json").read_bytes())["manifests"]
    assert [(one["mediaType"], one["digest"]) for one in entries] == [(oci.OCI_INDEX, first.digest)] * 2
    assert [one["annotations"][oci.REF_NAME] for one in entries] == ["v1", "v2"]
    for platform in PLATFORMS:
        assert architecture(f"oci:{out}:v1", platform) == platform.architecture
        assert shop.images.open_layout(str(out), "v2", platform).config.architecture == platform.architecture
    run("skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci:{out}:v1", f"docker://{address}/from-layout:1")
    assert raw(f"docker://{address}/from-layout:1") == raw(f"oci:{out}:v1")
    second = shop.export(f"type=oci,dest={out},tar=false", *images)
    assert second == first._replace(moved_bytes=0, moved_blobs=0, skipped=4)
    assert len(OciLayout.open(str(out)).images.manifests) == 2


def test_umoci_unpacks_what_skopeo_picks_from_a_layout(shop: Workshop, tmp_path: Path) -> None:
    shop.export(f"type=oci,dest={tmp_path}/out/", *variants(shop, "example.test/app:v1"))
    run("skopeo", "--override-arch", "arm64", "copy", f"oci:{tmp_path}/out:v1", f"oci:{tmp_path}/one:v1")
    run("umoci", "raw", "unpack", "--rootless", "--image", f"{tmp_path}/one:v1", f"{tmp_path}/unpacked")
    assert (tmp_path / "unpacked/arch").read_bytes() == b"linux/arm64"


def test_a_layout_archive_is_the_same_from_another_store(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    made = []
    for number in range(2):
        with workshop(tmp_path / f"store{number}") as shop:
            layer = shop.layer(file("a", data))
            images = [shop.image([layer], "example.test/app:v1", platform=platform) for platform in PLATFORMS]
            made.append(shop.export(f"type=oci,dest={tmp_path}/{number}.tar", *images))
    assert made[0] == made[1]
    assert (made[0].moved_blobs, made[0].skipped) == (4, 0)
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    run("skopeo", "copy", "--all", f"oci-archive:{tmp_path}/0.tar:v1", f"dir:{tmp_path}/copy")


def test_annotations_of_the_manifests_and_of_the_index(shop: Workshop, tmp_path: Path) -> None:
    images = variants(shop, "example.test/app:v1")
    shop.export(
        f"type=oci,dest={tmp_path}/out/,annotation.a=1,annotation-manifest.b=2,annotation-index.c=3,annotation-index.d=4",
        *images,
    )
    layout = OciLayout.open(str(tmp_path / "out"))
    index = json.loads(layout.get_manifest("v1")[0])
    assert index["annotations"] == {"c": "3", "d": "4"}
    for entry in index["manifests"]:
        assert json.loads(layout.get_manifest(entry["digest"])[0])["annotations"] == {"a": "1", "b": "2"}
    with pytest.raises(UsageError, match="not supported for a single platform"):
        shop.export(f"type=oci,dest={tmp_path}/one/,annotation-index.c=3", images[0])
    assert not (tmp_path / "one").exists()


def test_a_clamped_index_does_not_depend_on_when_it_was_built(shop: Workshop, tmp_path: Path) -> None:
    digests = set()
    for mtime in (500, 1000):
        layer = shop.layer(file("a", b"a", mtime=mtime))
        images = [shop.image([layer], "example.test/app:v1", platform=platform) for platform in PLATFORMS]
        digests.add(shop.export(f"type=oci,dest={tmp_path}/out/", *images, epoch=400).digest)
    assert len(digests) == 1


def test_docker_takes_no_index(shop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not currently support exporting manifest lists") as refused:
        shop.export(f"type=docker,dest={tmp_path}/image.tar", *variants(shop, "example.test/app:v1"))
    assert "type=oci" in refused.value.hint
    assert not (tmp_path / "image.tar").exists()


# As files


@needs_root
@pytest.mark.parametrize("there", [False, True])
def test_each_platform_has_its_directory(shop: Workshop, tmp_path: Path, there: bool) -> None:
    out = tmp_path / "out"
    if there:
        (out / "linux_arm64").mkdir(parents=True)
        (out / "linux_arm64" / "mine").write_text("mine")
        (out / "outside").mkdir()
        # A name in the user's directory that the user did not name.
        (out / "linux_amd64").symlink_to("outside")
    base = shop.layer(directory("", 0o750, uid=3), file("a", b"a"), hardlink("b", "a"), symlink("link", "../a"))
    images = [
        shop.image([base, shop.layer(file("arch", str(platform).encode()))], platform=platform)
        for platform in PLATFORMS
    ]
    made = shop.export(f"type=local,dest={out}", *images)
    assert (made.config_digest, made.digest) == ("", "")
    names = {name for name in os.listdir(out) if name != "outside"}
    assert names == {"linux_amd64", "linux_arm64", "linux_arm_v7"}
    for image in images:
        top = out / str(image.platform).replace("/", "_")
        seen = look(str(top))
        assert sorted(set(seen) - {"mine"}) == ["", "a", "arch", "b", "link"]
        assert (seen[""].mode & 0o7777, seen[""].uid) == (0o750, 3)
        assert (top / "arch").read_text() == str(image.platform)
        assert seen["a"].links == 2
    if there:
        assert (out / "linux_arm64" / "mine").read_text() == "mine"
        assert os.listdir(out / "outside") == []


@needs_root
def test_without_a_split_the_later_platform_wins(shop: Workshop, tmp_path: Path) -> None:
    first = shop.image(
        [shop.layer(directory("d"), file("d/x", b"x"), file("f", b"f"), file("one", b"1"), hardlink("two", "one"))]
    )
    second = shop.image(
        [shop.layer(file("d", b"now a file"), directory("f"), file("f/y", b"y"), file("one", b"2"))], platform=ARM64
    )
    third = shop.image([shop.layer(directory("d"), file("d/z", b"z"))], platform=ARM)
    shop.export(f"type=local,dest={tmp_path}/two,platform-split=false", first, second)
    assert sorted(look(f"{tmp_path}/two")) == ["", "d", "f", "f/y", "one", "two"]
    assert [(tmp_path / "two" / name).read_bytes() for name in ("d", "one", "two")] == [b"now a file", b"2", b"1"]
    shop.export(f"type=local,dest={tmp_path}/three,platform-split=false", first, second, third)
    assert sorted(look(f"{tmp_path}/three")) == ["", "d", "d/z", "f", "f/y", "one", "two"]
    shop.export(f"type=tar,dest={tmp_path}/out.tar,platform-split=false", first, second, third)
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == ["d", "d/z", "f", "f/y", "one", "two"]


def test_a_tar_has_the_same_directories(shop: Workshop, tmp_path: Path) -> None:
    images = [
        shop.image([shop.layer(file("a", b"a"), hardlink("b", "a"))], platform=platform) for platform in PLATFORMS
    ]
    shop.export(f"type=tar,dest={tmp_path}/out.tar", *images)
    with tarfile.open(tmp_path / "out.tar") as archive:
        tops = ["linux_amd64", "linux_arm64", "linux_arm_v7"]
        assert archive.getnames() == [name for top in tops for name in (top, f"{top}/a", f"{top}/b")]
        assert archive.getmember("linux_arm64/b").linkname == "linux_arm64/a"
        assert archive.getmember("linux_arm64").isdir()


def test_one_platform_has_a_directory_only_on_demand(shop: Workshop, tmp_path: Path) -> None:
    image = shop.image([shop.layer(file("a", b"a"))], platform=ARM)
    shop.export(f"type=local,dest={tmp_path}/plain", image)
    shop.export(f"type=local,dest={tmp_path}/split,platform-split=true", image)
    assert os.listdir(tmp_path / "plain") == ["a"]
    assert os.listdir(tmp_path / "split") == ["linux_arm_v7"]
    assert os.listdir(tmp_path / "split" / "linux_arm_v7") == ["a"]


def test_a_failure_leaves_what_was_there(shop: Workshop, tmp_path: Path) -> None:
    good = shop.image([shop.layer(file("a", b"a"))], "example.test/app:v1")
    lost = shop.layer(file("b", b"b"))._replace(diff_id="sha256:" + "0" * 64, tar=None, listing=None)
    bad = shop.image([lost], "example.test/app:v1", platform=ARM64)
    for text in ("local", "tar", "oci", "oci,tar=false"):
        with pytest.raises(BuildgraphError, match="is gone from the store"):
            shop.export(f"type={text},dest={tmp_path}/new", good, bad)
    assert sorted(os.listdir(tmp_path)) == ["store"]


def test_a_killed_writers_leftovers_go_with_the_next_export(shop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    images = variants(shop, "example.test/app:v1")
    shop.export(f"type=oci,dest={out}/", *images)
    code = (
        "import os, sys; from cache.digest import OciDigest; from cache.layout_writer import LayoutWriter\n"
        "def chunks(): yield b'half'; os._exit(7)  # as a kill would: nothing is cleaned up\n"
        "LayoutWriter(sys.argv[1]).add_blob(OciDigest('sha256:' + '0' * 64), 8, chunks())"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(out)], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == 7
    assert len(os.listdir(out)) == 4
    shop.export(f"type=oci,dest={out}/", *images)
    assert sorted(os.listdir(out)) == ["blobs", "index.json", "oci-layout"]
