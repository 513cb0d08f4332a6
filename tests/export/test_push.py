"""Pushing to a real registry, and to one that is not of help."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.errors import BuildgraphError, RemoteError, UsageError, exit_code
from cache.reference import Reference
from tests.cache.layers import file
from tests.cache.real_registry import docker_registry
from tests.cache.registry_server import Reply, Request, serve
from tests.export.workshop import LINUX, Workshop, run, workshop


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def inspect(name: str) -> dict[str, object]:
    found = json.loads(run("skopeo", "inspect", "--no-tags", "--tls-verify=false", f"docker://{name}"))
    assert isinstance(found, dict)
    return found


def test_a_pushed_image_is_there_and_a_second_push_moves_nothing(shop: Workshop, address: str, tmp_path: Path) -> None:
    layers = [shop.layer(file("a", os.urandom(3 << 20))), shop.layer(file("b", b"b"))]
    image = shop.image(layers, f"{address}/team/app:v1", f"{address}/team/app:v2")
    first = shop.export("type=registry", image)
    assert (first.moved_blobs, first.skipped) == (3, 0)
    assert first.moved_bytes > 3 << 20
    for tag in ("v1", "v2"):
        assert inspect(f"{address}/team/app:{tag}")["Digest"] == first.digest
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{address}/team/app:v1", f"dir:{tmp_path}/copy")
    packed = sorted(tmp_path.glob("store/runs/*/packed-*"))
    second = shop.export("type=registry", image)
    assert second == first._replace(moved_bytes=0, moved_blobs=0, skipped=3)
    # Not even packed: the digest is remembered.
    assert sorted(tmp_path.glob("store/runs/*/packed-*")) == packed


def test_a_changed_layer_is_all_that_moves(shop: Workshop, address: str) -> None:
    base = shop.layer(file("base", os.urandom(100_000)))
    shop.export("type=registry", shop.image([base, shop.layer(file("x", b"1"))], f"{address}/changed:1"))
    made = shop.export("type=registry", shop.image([base, shop.layer(file("x", b"2"))], f"{address}/changed:1"))
    assert (made.moved_blobs, made.skipped) == (2, 1)  # with the config
    assert made.moved_bytes < 5000
    assert inspect(f"{address}/changed:1")["Digest"] == made.digest


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_layers_are_taken_over_from_another_repository(shop: Workshop, address: str, compression: str) -> None:
    layer = shop.layer(file("a", os.urandom(100_000)))
    kind = f"type=registry,compression={compression}"
    shop.export(kind, shop.image([layer], f"{address}/from/{compression}:1"))
    made = shop.export(kind, shop.image([layer], f"{address}/to/{compression}:1"))
    assert made.skipped == 1
    assert made.moved_bytes < 5000
    both = shop.export(kind, shop.image([layer], f"{address}/x/{compression}:1", f"{address}/y/{compression}:1"))
    assert (both.moved_blobs, both.skipped) == (2, 2)
    assert inspect(f"{address}/y/{compression}:1")["Digest"] == both.digest


def test_the_base_of_the_same_registry_is_never_fetched(shop: Workshop, address: str, tmp_path: Path) -> None:
    with workshop(tmp_path / "other") as other:
        base = other.image([other.layer(file("base", os.urandom(500_000)))], f"{address}/bases/debian:1")
        other.export("type=registry,compression-level=9", base)
    pulled = shop.images.pull(Reference.parse(f"{address}/bases/debian:1"), LINUX)
    image = shop.image([*pulled.layers, shop.layer(file("a", b"a"))], f"{address}/team/derived:1")
    made = shop.export("type=registry", image)
    assert (made.moved_blobs, made.skipped) == (2, 1)
    assert shop.library.known(pulled.layers[0]).tar is None
    assert not list(tmp_path.glob("store/runs/*/pull-*"))
    layers = inspect(f"{address}/team/derived:1")["Layers"]
    assert isinstance(layers, list)
    assert layers[0] == shop.images.forms(pulled.layers[0].diff_id)[0].digest


def test_a_base_goes_to_another_registry_as_it_came(shop: Workshop, address: str, tmp_path: Path) -> None:
    with workshop(tmp_path / "other") as other:
        base = other.image([other.layer(file("base", os.urandom(500_000)))], f"{address}/bases/far:1")
        other.export("type=registry,compression-level=9", base)
    pulled = shop.images.pull(Reference.parse(f"{address}/bases/far:1"), LINUX)
    with docker_registry(tmp_path) as elsewhere:
        image = shop.image(pulled.layers, f"{elsewhere}/team/app:1")
        made = shop.export("type=registry", image)
        assert (made.moved_blobs, made.skipped) == (2, 0)
        layers = inspect(f"{elsewhere}/team/app:1")["Layers"]
        assert layers == [shop.images.forms(pulled.layers[0].diff_id)[0].digest]
    assert shop.library.known(pulled.layers[0]).tar is None


def test_an_image_is_kept_and_pushed(shop: Workshop, address: str) -> None:
    image = shop.image([shop.layer(file("a", b"a"))])
    made = shop.export(f"type=image,push=true,name={address}/kept:1", image)
    assert inspect(f"{address}/kept:1")["Digest"] == made.digest
    assert shop.images.get(f"{address}/kept:1", LINUX) is not None
    shop.export(f"type=registry,name={address}/sent:1", image)
    assert shop.images.get(f"{address}/sent:1", LINUX) is None


def test_push_by_digest_sets_no_tag(shop: Workshop, address: str) -> None:
    image = shop.image([shop.layer(file("a", b"a"))])
    made = shop.export(f"type=image,push=true,push-by-digest=true,name={address}/untagged", image)
    assert inspect(f"{address}/untagged@{made.digest}")["Digest"] == made.digest
    with pytest.raises(RemoteError):
        shop.images.pull(Reference.parse(f"{address}/untagged"), LINUX)


def test_a_push_needs_a_name(shop: Workshop) -> None:
    with pytest.raises(UsageError, match="needs a name"):
        shop.export("type=registry", shop.image([shop.layer(file("a", b"a"))]))


def test_docker_types_for_old_registries(shop: Workshop, address: str, tmp_path: Path) -> None:
    image = shop.image([shop.layer(file("a", b"a"))], f"{address}/old:1")
    made = shop.export("type=registry,oci-mediatypes=false", image)
    assert made.media_type == "application/vnd.docker.distribution.manifest.v2+json"
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{address}/old:1", f"dir:{tmp_path}/copy")


def test_no_name_points_at_half_an_image(shop: Workshop) -> None:
    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(404)
        return Reply(200 if request.path == "/v2/" else 403, b"no room")

    image = shop.image([shop.layer(file(name, b"a")) for name in "abcdef"])
    with serve(answer) as server:
        with pytest.raises(BuildgraphError) as refused:
            shop.export(f"type=registry,name={server.address}/app:1", image)
        assert exit_code(refused.value) == 5
        assert not server.asked("PUT", "manifests")
