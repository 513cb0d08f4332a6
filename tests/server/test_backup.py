"""Copies of a store while it is served, and stores out of copies."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from serving import ROOT, call, digest_of
from shelved import Shelved, action_message

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Connect, Serve


def verified(store: Path) -> str:
    done = call("cache", "verify", "--store", store)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("form", ["directory", "tar", "stream"])
def test_what_was_exported_while_it_was_served_can_be_served_again(
    serve: Serve, connect: Connect, tmp_path: Path, form: str
) -> None:
    serving = serve("--anonymous", "write")
    client = connect(serving)
    large, small = os.urandom(3_000_000), b"small"
    action = client.publish("a", client.write(large, "main"), client.put(small, "main"), namespace="main")
    new = tmp_path / "restored"
    if form == "directory":
        assert call("cache", "export", tmp_path / "copy", "--store", serving.store).returncode == 0
        assert "all is well" in verified(tmp_path / "copy")
        source = tmp_path / "copy"
    else:
        source = tmp_path / "copy.tar"
        if form == "tar":
            assert call("cache", "export", source, "--store", serving.store).returncode == 0
        else:
            command = [sys.executable, "-m", "compiler", "cache", "export", "-", "--store", str(serving.store)]
            with source.open("wb") as out:
                subprocess.run(command, check=True, stdout=out, stderr=subprocess.DEVNULL, cwd=ROOT)
    serving.end()
    done = call("cache", "import", source, "--store", new)
    assert done.returncode == 0, done.stderr
    assert "all is well" in done.stdout
    again = connect(serve("--anonymous", "read", store=new))
    result = again.result(action, "main")
    assert result is not None
    assert [again.read(file.digest, "main") for file in result.output_files] == [large, small]


@pytest.mark.slow
def test_an_export_beside_writers_and_clean_ups_is_of_one_moment(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    shelved = Shelved(tmp_path / "served")
    for number in range(30):
        shelved.action(f"old{number}", shelved.large(days=40), days=40)
    shelved.close()
    serving = serve("--anonymous", "write", "--max-used-space", "25m")
    stop = threading.Event()

    def write(number: int) -> None:
        client = connect(serving)
        turn = 0
        while not stop.is_set() and turn < 200:
            turn += 1
            try:
                client.publish(f"{number}-{turn}", client.write(os.urandom(60_000), "main"), namespace="main")
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, "the clean-up is behind"  # noqa: PT017
                time.sleep(0.2)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    try:
        for number in range(4):
            target = tmp_path / f"copy{number}"
            done = call("cache", "export", target, "--store", serving.store)
            assert done.returncode == 0, done.stderr
            assert "all is well" in verified(target)
            time.sleep(0.3)
    finally:
        stop.set()
        for each in writers:
            each.join()
    assert serving.stop()[0] == 0
    assert serving.events("cleaned"), "there was a clean-up meanwhile"
    verified(serving.store)


def test_a_copy_shares_no_fate_with_the_store(tmp_path: Path) -> None:
    shelved = Shelved(tmp_path / "store")
    blob = shelved.large()
    shelved.action("a", blob)
    shelved.close()
    assert call("cache", "export", tmp_path / "copy", "--store", tmp_path / "store").returncode == 0
    assert call("cache", "clear", "--store", tmp_path / "store").returncode == 0
    assert "all is well" in verified(tmp_path / "copy")


def test_tokens_and_keys_stay_at_home(tmp_path: Path) -> None:
    store = tmp_path / "store"
    Shelved(store).close()
    assert call("serve", "token", "create", "--name", "me", "--store", store).returncode == 0
    (store / "secret-key").write_text("secret")
    assert call("cache", "export", tmp_path / "copy", "--store", store).returncode == 0
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["data.mdb"]


def test_what_is_damaged_or_cut_short_is_refused(tmp_path: Path) -> None:
    shelved = Shelved(tmp_path / "store")
    blob = shelved.large()
    shelved.action("a", blob)
    shelved.close()
    tar = tmp_path / "copy.tar"
    assert call("cache", "export", tar, "--store", tmp_path / "store").returncode == 0
    data = tar.read_bytes()
    flipped = bytearray(data)
    flipped[5000] ^= 1
    cases = {"cut": data[:800_000], "cut at the records": data[:1_002_000], "flipped": bytes(flipped), "none": b"", "text": b"no tar" * 999}
    for name, wrong in cases.items():
        (tmp_path / "wrong.tar").write_bytes(wrong)
        done = call("cache", "import", tmp_path / "wrong.tar", "--store", tmp_path / "new")
        assert done.returncode == 4, name
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "new").exists(), "half of a store is none"
    # A damaged original is not copied as if nothing were wrong.
    path = tmp_path / "store" / "blobs" / blob[:2] / blob[2:64]
    path.chmod(0o600)
    path.write_bytes(b"x" * 1_000_000)
    done = call("cache", "export", tmp_path / "other.tar", "--store", tmp_path / "store")
    assert done.returncode == 4
    assert "is damaged" in done.stderr
    assert not (tmp_path / "other.tar").exists()
    path.unlink()
    done = call("cache", "export", tmp_path / "other", "--store", tmp_path / "store")
    assert done.returncode == 4
    assert "is gone" in done.stderr


def test_an_import_writes_nothing_but_a_store(tmp_path: Path) -> None:
    wicked = tmp_path / "wicked.tar"
    with tarfile.open(wicked, "w") as tar:
        for name in ("../escaped", "blobs/../../escaped", f"blobs/aa/{'b' * 62}/../../escaped", "/tmp/escaped", "tokens.json", "blobs/aa/x"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("blobs")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    done = call("cache", "import", wicked, "--store", tmp_path / "new")
    assert done.returncode == 4
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    for name in ("store", "other"):
        shelved = Shelved(tmp_path / name)
        shelved.action("a", shelved.large())
        shelved.close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "there.tar").write_text("mine")
    for arguments, said in (
        (["export", tmp_path / "full", "--store", tmp_path / "store"], "is not empty"),
        (["export", tmp_path / "there.tar", "--store", tmp_path / "store"], "is there already"),
        (["export", tmp_path / "x", "--store", tmp_path / "nothing"], "no store"),
        (["import", tmp_path / "store", "--store", tmp_path / "other"], "there is a store"),
        (["import", tmp_path / "store", "--store", tmp_path / "full"], "is not empty"),
        (["import", tmp_path / "nothing.tar", "--store", tmp_path / "new"], "there is no"),
    ):
        done = call("cache", *arguments)
        assert done.returncode in (2, 4), arguments
        assert said in done.stderr
    assert (tmp_path / "full" / "file").read_text() == (tmp_path / "there.tar").read_text() == "mine"


def test_a_server_finds_what_a_restored_store_holds_under_either_name(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    shelved = Shelved(tmp_path / "store")
    data = os.urandom(100_000)
    shelved.action("a", shelved.blob(data))
    shelved.close()
    assert call("cache", "export", tmp_path / "copy", "--store", tmp_path / "store").returncode == 0
    client = connect(serve("--anonymous", "read", store=tmp_path / "copy"))
    assert client.read(digest_of(data), "main") == data
    assert client.result(action_message("a"), "main") is not None
