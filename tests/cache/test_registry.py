"""The registry client, against Debian's docker-registry."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cache import oci
from cache.credentials import Credentials
from cache.errors import BuildgraphError, CorruptBlob, exit_code
from cache.oci import Descriptor
from cache.registry import Registry
from cache.registry_errors import RegistryDenied, RegistryNotFound, RegistryUnreachable
from tests.cache.images import make_image, pieces, sha256
from tests.cache.misbehaving import FAST
from tests.cache.real_registry import BCRYPT, docker_registry, push

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def guarded_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "htpasswd").write_text(f"me:{BCRYPT}\n")
    auth = {"auth": {"htpasswd": {"realm": "here", "path": str(directory / "htpasswd")}}}
    with docker_registry(directory, auth) as found:
        yield found


def test_what_is_pushed_is_pulled(address: str) -> None:
    image = make_image()
    with Registry(address) as registry:
        push(registry, "team/app", image, "v1")
        for reference in ("v1", image.digest):
            assert registry.get_manifest("team/app", reference) == (image.manifest, oci.OCI_MANIFEST, image.digest)
            assert registry.head_manifest("team/app", reference) == Descriptor(
                oci.OCI_MANIFEST, image.digest, len(image.manifest)
            )
        for digest, data in image.blobs.items():
            assert registry.has_blob("team/app", digest)
            assert b"".join(registry.open_blob("team/app", digest, len(data))) == data
        assert registry.list_tags("team/app") == ["v1"]


def test_skopeo_reads_what_we_push_and_we_what_it_pushes(address: str, tmp_path: Path) -> None:
    with Registry(address) as registry:
        push(registry, "skopeo/ours", make_image("ours"), "x")
        target = f"docker://{address}/skopeo/theirs:y"
        skopeo = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format=v2s2"]
        subprocess.run([*skopeo, f"docker://{address}/skopeo/ours:x", target], check=True, capture_output=True)
        data, kind, _ = registry.get_manifest("skopeo/theirs", "y")
        assert kind == oci.DOCKER_MANIFEST
        manifest = oci.parse_manifest(data, kind)
        assert isinstance(manifest, oci.Manifest)
        assert oci.compression(manifest.layers[0]) == "gzip"


def test_an_index_and_a_mount(address: str) -> None:
    image = make_image("mounted")
    with Registry(address) as registry:
        push(registry, "mount/from", image, "v1")
        for digest in image.blobs:
            assert registry.mount_blob("mount/to", digest, "mount/from")
            assert registry.has_blob("mount/to", digest)
        assert not registry.mount_blob("mount/to", sha256(b"nowhere"), "mount/from")
        registry.put_manifest("mount/to", image.digest, image.manifest, oci.OCI_MANIFEST)
        index = oci.Index((image.descriptor(),)).to_json()
        registry.put_manifest("mount/to", "all", index, oci.OCI_INDEX)
        assert registry.get_manifest("mount/to", "all")[:2] == (index, oci.OCI_INDEX)


def test_many_threads_share_one_registry(address: str) -> None:
    blobs = {sha256(data): data for data in (bytes([number]) * 700_000 for number in range(12))}
    with Registry(address) as registry, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda item: registry.upload_blob("many", item[0], 700_000, pieces(item[1])), blobs.items()))
        pulled = pool.map(lambda digest: b"".join(registry.open_blob("many", digest, 700_000)), blobs)
        assert list(pulled) == list(blobs.values())


def test_an_empty_blob_goes_both_ways(address: str) -> None:
    with Registry(address) as registry:
        registry.upload_blob("empty", sha256(b""), 0, pieces())
        assert list(registry.open_blob("empty", sha256(b""), 0)) == []


def test_what_is_not_there_is_none_or_named(address: str) -> None:
    with Registry(address) as registry:
        assert registry.head_manifest("team/app", "absent") is None
        assert not registry.has_blob("team/app", sha256(b"absent"))
        with pytest.raises(RegistryNotFound, match=f"{address}/none:absent") as caught:
            registry.get_manifest("none", "absent")
        assert (caught.value.host, caught.value.repository, caught.value.status) == (address, "none", 404)
        assert exit_code(caught.value) == 5
        with pytest.raises(RegistryNotFound):
            list(registry.open_blob("none", sha256(b"absent"), 6))


def test_a_blob_pushed_under_a_wrong_name_is_corrupt(address: str) -> None:
    with Registry(address, retry=FAST) as registry:
        with pytest.raises(CorruptBlob, match="another digest"):
            registry.upload_blob("wrong", sha256(b"x"), 5, pieces(b"other"))
        for chunks in ([b"shor"], [b"long", b"er"]):
            with pytest.raises(CorruptBlob, match="does not have 5 bytes"):
                registry.upload_blob("wrong", sha256(b"x"), 5, pieces(*chunks))


def test_a_blob_that_cannot_be_read_is_no_trouble_of_the_registry(address: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise OSError(5, "Input/output error")

    with Registry(address, retry=FAST) as registry, pytest.raises(BuildgraphError, match="reading it failed"):
        registry.upload_blob("unreadable", sha256(b"x"), 5, chunks)


def test_a_login_is_found_only_when_it_is_asked_for(address: str, guarded_address: str) -> None:
    asked: list[str] = []

    def find(host: str) -> Credentials:
        asked.append(host)
        return Credentials("me", "secret")

    with Registry(address, credentials=find) as open_registry:
        open_registry.has_blob("any", sha256(b"x"))
    assert asked == []
    with Registry(guarded_address, credentials=find) as registry:
        push(registry, "private/app", make_image(), "v1")
        assert registry.list_tags("private/app") == ["v1"]
    assert asked == [guarded_address]


def test_a_missing_or_wrong_login_says_what_to_do(guarded_address: str) -> None:
    for credentials in (None, Credentials("me", "Wr0ng!"), Credentials("nobody", "Wr0ng!")):
        with Registry(guarded_address, credentials=credentials) as registry:
            for _ in range(2):
                with pytest.raises(RegistryDenied) as caught:
                    registry.get_manifest("private/app", "v1")
                assert f"docker login {guarded_address}" in caught.value.hint
                assert "Wr0ng" not in caught.value.message + caught.value.hint


def test_plain_http_is_refused_when_it_must_be_secure(address: str) -> None:
    with Registry(address, insecure=False, retry=FAST) as registry:
        with pytest.raises(RegistryUnreachable, match="does not speak TLS"):
            registry.get_manifest("a", "b")


@pytest.mark.filterwarnings("default::urllib3.exceptions.InsecureRequestWarning")
def test_a_certificate_of_ones_own_needs_leniency(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "cert")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, "-subj", "/CN=x", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with docker_registry(tmp_path, tls={"tls": {"certificate": certificate, "key": key}}) as address:
        with Registry(address) as registry:
            push(registry, "a", make_image(), "v1")
        with Registry(address, insecure=False) as registry:
            with pytest.raises(RegistryUnreachable, match="certificate is not trusted"):
                registry.get_manifest("a", "v1")
