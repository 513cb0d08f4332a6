"""What a step, a context or an image must not be able to do (I4, I5, I6)."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the device to attack")
def test_no_step_opens_a_device_of_the_host(each_way: Program, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"host secret".ljust(1 << 20, b"\0"))
    loop = subprocess.run(["losetup", "-f", "--show", disk], capture_output=True, text=True, check=True).stdout.strip()
    try:
        number = os.stat(loop).st_rdev
        major, minor = os.major(number), os.minor(number)
        source = tmp_path / "image"
        source.mkdir()
        os.mknod(source / "node", 0o60666, number)
        tar = each_way.root / "project/node.tar"
        tar.parent.mkdir()
        subprocess.run(["tar", "-C", source, "-cf", tar, "node"], check=True)
        lines = (
            f"ADD node.tar /from-image/\n"
            f"RUN for d in /tmp /dev /dev/shm /run/c; do mkdir -p $d; mknod $d/x b {major} {minor} && cat $d/x; mknod $d/c c {major} {minor}; done 2>&1; true\n"
            f"RUN --mount=type=cache,target=/cache mknod /cache/x b {major} {minor} 2>&1; cat /cache/x 2>&1; true\n"
            "RUN cat /from-image/node 2>&1; echo X > /from-image/node; true\n"
            "RUN mknod /null c 1 3 && echo allowed to make\n"
        )
        built = each_way.build(each_way.project(BASE + lines)).ok()
        everything = "\n".join(line for step in ("1.2", "1.3", "1.4") for line in built.output(step))
        assert "host secret" not in everything
        assert "denied" in everything or "not permitted" in everything or "not implemented" in everything
        assert built.output("1.5") == ["allowed to make"]
        assert disk.read_bytes()[:11] == b"host secret"
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def test_a_very_deep_tree_is_removed_and_the_next_build_works(each_way: Program) -> None:
    loop = "i=0; while [ $i -lt 1500 ]; do mkdir d && cd d; i=$((i+1)); done"
    built = each_way.build(each_way.project(BASE + f"RUN {loop}\nRUN rm -rf /d && echo gone\n"))
    assert "Traceback" not in built.stderr
    assert each_way.build(each_way.project(BASE + "RUN echo fine\n")).ok().output("1.1") == ["fine"]


def test_a_step_that_takes_all_rights_from_directories_leaves_nothing(program: Program) -> None:
    lines = "RUN mkdir -p /a/b/c && touch /a/b/c/f && chmod 0 /a/b/c /a/b /a\nRUN false\n"
    program.build(program.project(BASE + lines)).failed(1)


def test_a_context_whose_directory_becomes_a_symlink_while_it_is_read(program: Program, tmp_path: Path) -> None:
    """The host's file has the size and name of the one that was there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("host secret")
    files: dict[str, str | bytes] = {f"many/{n}": os.urandom(50_000) for n in range(100)}
    project = program.project(BASE + "COPY . /t\nRUN cat /t/zz/f 2>&1; true\n", {"zz/f": "not secret!", **files})

    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(project / "zz", project / "zz0")
            os.symlink(outside, project / "zz")
            time.sleep(0.002)
            os.unlink(project / "zz")
            os.rename(project / "zz0", project / "zz")
            time.sleep(0.001)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = []
    try:
        for _ in range(3):
            built = program.build(project, "--no-cache")
            assert "Traceback" not in built.stderr
            seen += built.output("1.2")
    finally:
        done.set()
        thread.join()
    assert "host secret" not in "\n".join(seen)


def test_the_umask_of_the_builder_is_not_in_the_step(program: Program) -> None:
    """I1."""
    lines = "USER app\nRUN --mount=type=cache,target=/p/q/c,uid=1000 touch /p/q/c/x && ls -ld /p | cut -c1-10\n"
    project = program.project(BASE + lines)
    command = program.command("build", project, *program.base(), "--progress", "plain")
    done = subprocess.run(["bash", "-c", 'umask 077; exec "$@"', "bash", *command], env=program.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "drwxr-xr-x" in done.stderr


def test_one_bad_origin_does_not_poison_a_layer(program: Program) -> None:
    """I7."""
    import hashlib
    import json

    good, evil = program.root / "good", program.root / "evil"
    program.build(program.project("FROM scratch\nCOPY a /a\n", {"a": "right"}), "-t", "x:1", "-o", f"type=oci,tar=false,dest={good}").ok()
    subprocess.run(["cp", "-a", good, evil], check=True)
    index = json.loads((evil / "index.json").read_text())
    manifest_path = evil / "blobs/sha256" / index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads(manifest_path.read_text())
    bad = subprocess.run(["gzip", "-c"], input=bytes(10_240), capture_output=True, check=True).stdout
    digest = hashlib.sha256(bad).hexdigest()
    (evil / "blobs/sha256" / digest).write_bytes(bad)
    manifest["layers"][0] |= {"digest": f"sha256:{digest}", "size": len(bad)}
    data = json.dumps(manifest).encode()
    (evil / "blobs/sha256" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    index["manifests"][0] |= {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
    (evil / "index.json").write_text(json.dumps(index))
    child = program.project("FROM img\nRUN true\nFROM scratch\nCOPY --from=img /a /a\n", name="child")
    store = ["--store", str(program.root / "other")]
    program.build(child, *store, "--build-context", f"img=oci-layout://{evil}").failed(5)
    program.build(child, *store, "--build-context", f"img=oci-layout://{good}").ok()


def test_a_hit_does_not_hide_a_conflict_on_a_new_base(program: Program) -> None:
    """I2."""
    dockerfile = BASE + "RUN mkdir -p /dest{}\nCOPY d /dest/\n"
    project = program.project(dockerfile.format(""), {"d/x": "file"})
    program.build(project).ok()
    (project / "Dockerfile").write_text(dockerfile.format("/x"))
    failed = program.build(project).failed(3)
    assert "the image has a directory there" in failed.stderr


def test_a_step_cannot_mark_a_directory_opaque(program: Program) -> None:
    lines = "RUN mkdir /dd && touch /dd/f\nRUN setfattr -n user.overlay.opaque -v y /dd 2>/dev/null; touch /dd/g\nRUN ls /dd\n"
    assert program.build(program.project(BASE + lines)).ok().output("1.3") == ["f", "g"]


@pytest.mark.slow
def test_endless_output_is_bounded(program: Program) -> None:
    """I8."""
    from worker.shown_lines import SHOWN_LINES

    built = program.build(program.project(BASE + "RUN seq 1 250000; yes | head -c 50000000\n")).ok()
    assert len(built.output("1.1")) == SHOWN_LINES + 1
    assert "only kept in the log" in built.output("1.1")[-1]
