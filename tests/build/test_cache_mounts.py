"""Cache mounts: who shares them when, what they hold at the start, and that nothing else ever sees their contents."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cache.run_dir import remove_tree
from worker.cache_mounts import hold, open_cache
from worker.operation import Mount

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\n"


def parallel(step: str, count: int = 2) -> str:
    """A Dockerfile with the step in stages that run at the same time."""
    stages = "".join(f"FROM base AS s{n}\nENV N={n}\n{step}\n" for n in range(count))
    last = "".join(f"COPY --from=s{n} /etc/passwd /{n}\n" for n in range(count))
    return BASE + stages + "FROM base\n" + last


def sidecars(program: Program) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted((program.store / "mounts").glob("*.json"))]


def start(program: Program, context: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        program.command("build", context, *program.base(), "--progress", "plain"),
        env=program.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


# who shares it


def test_a_shared_one_is_used_by_two_steps_at_once(each_way: Program) -> None:
    """Each waits for what the other one writes, which only works side by side."""
    meet = "touch /c/$N; for i in $(seq 200); do [ -e /c/0 ] && [ -e /c/1 ] && exit 0; sleep 0.05; done; exit 1"
    each_way.build(each_way.project(parallel(f"RUN --mount=type=cache,target=/c,id=both {meet}"))).ok()


def test_a_private_one_is_not_shared_at_once_and_reused_later(each_way: Program) -> None:
    """Both steps are in at the same time, as the shared one next to it shows, and neither sees the other's file."""
    step = (
        "RUN --mount=type=cache,target=/own,id=own,sharing=private --mount=type=cache,target=/meet,id=meet "
        "touch /own/$N /meet/$N; until [ -e /meet/0 ] && [ -e /meet/1 ]; do sleep 0.02; done; ls /own"
    )
    built = each_way.build(each_way.project(parallel(step))).ok()
    assert built.output("s0.2") == ["0"]
    assert built.output("s1.2") == ["1"]
    later = BASE + "FROM base\nRUN --mount=type=cache,target=/own,id=own,sharing=private ls /own\n"
    seen = each_way.build(each_way.project(later)).ok().output("1.1")
    assert seen in (["0"], ["1"]), "one of the two, not a third"
    assert sum(each["id"] == "own" for each in sidecars(each_way)) == 2


def test_a_locked_one_is_used_by_one_step_at_a_time(program: Program) -> None:
    step = "RUN --mount=type=cache,target=/c,id=one,sharing=locked mkdir /c/in && sleep 0.2 && rmdir /c/in && echo $N >> /c/all"
    program.build(program.project(parallel(step, 3))).ok()
    after = program.project(BASE + "FROM base\nRUN --mount=type=cache,target=/c,id=one sort /c/all\n")
    assert program.build(after).ok().output("1.1") == ["0", "1", "2"]


def test_a_locked_one_is_locked_between_builds(program: Program) -> None:
    step = "RUN --mount=type=cache,target=/c,id=one,sharing=locked mkdir /c/in && sleep 0.5 && rmdir /c/in # {}\n"
    contexts = [program.project(BASE + "FROM base\n" + step.format(n), name=f"p{n}") for n in range(2)]
    processes = [start(program, context) for context in contexts]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]


def test_two_places_of_one_step_are_one_cache(program: Program) -> None:
    """With sharing=locked the step must not wait for itself."""
    for sharing in ("locked", "private", "shared"):
        mount = f"--mount=type=cache,id=twice-{sharing},sharing={sharing}"
        context = program.project(BASE + f"FROM base\nRUN {mount},target=/a {mount},target=/b echo x > /a/f; cat /b/f\n")
        assert program.build(context).ok().output("1.1") == ["x"]


def test_locked_ones_in_opposite_order_do_not_wait_for_each_other(program: Program) -> None:
    one = "--mount=type=cache,target=/one,id=same,sharing=locked,mode=0700"
    two = "--mount=type=cache,target=/two,id=same,sharing=locked,mode=0755"
    stages = f"FROM base AS s0\nRUN {one} {two} sleep 0.2\nFROM base AS s1\nRUN {two} {one} sleep 0.2; true\n"
    last = "FROM base\nCOPY --from=s0 /etc/passwd /0\nCOPY --from=s1 /etc/passwd /1\n"
    program.build(program.project(BASE + stages + last)).ok()


# what it holds


def test_its_content_is_in_no_key_and_no_image(each_way: Program) -> None:
    mount = "--mount=type=cache,target=/var/c,id=c"
    fill = BASE + f"FROM base\nRUN {mount} echo from-the-cache > /var/c/marker-file\n"
    use = BASE + f"FROM base\nRUN {mount} ls /var/c; echo made > /made\n"
    context = each_way.project(use)
    assert each_way.build(context, "-t", "c:1").ok().output("1.1") == []
    each_way.build(each_way.project(fill, name="fill")).ok()
    assert each_way.build(context).ok().executed == [], "what the cache holds decides nothing"
    again = each_way.build(context, "-t", "c:2", "--no-cache").ok()
    assert again.output("1.1") == ["marker-file"]
    assert each_way.config("c:1")["rootfs"] == each_way.config("c:2")["rootfs"]
    files = each_way.files(context)
    assert (files / "made").read_text() == "made\n"
    assert not (files / "var").exists()


def test_owner_and_mode_hold_for_a_new_one(each_way: Program) -> None:
    mount = "--mount=type=cache,target=/c,uid=1000,gid=1001,mode=0750"
    context = each_way.project(BASE + f"FROM base\nUSER app\nRUN {mount} stat -c '%u %g %a' /c; touch /c/f\n")
    assert each_way.build(context).ok().output("1.2") == ["1000 1001 750"]


def test_one_that_starts_with_files_starts_once(each_way: Program) -> None:
    """Two steps want it at the same moment: neither sees half of it, and it is filled once."""
    many = "RUN mkdir -p /s/d && for i in $(seq 500); do echo $i > /s/d/$i; done\n"
    seed = BASE + "FROM base AS seed\n" + many
    step = "RUN --mount=type=cache,target=/c,from=seed,source=/s ls /c/d | wc -l; echo $N >> /c/used"
    text = parallel(step).replace(BASE, seed)
    built = each_way.build(each_way.project(text)).ok()
    assert built.output("s0.2") == built.output("s1.2") == ["500"]
    look = seed + "FROM base\nRUN --mount=type=cache,target=/c,from=seed,source=/s sort /c/used\n"
    assert each_way.build(each_way.project(look)).ok().output("2.1") == ["0", "1"]


def test_a_killed_build_leaves_it_usable(each_way: Program) -> None:
    text = BASE + "FROM base\nRUN --mount=type=cache,target=/c,id=k,sharing={} echo kept >> /c/f; sleep {}\n"
    for sharing in ("locked", "private", "shared"):
        process = start(each_way, each_way.project(text.format(sharing, 600 + os.getpid() % 100)))
        wait_for(lambda: any(path.stat().st_size for path in each_way.store.glob("mounts/*/f")))
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=20)
        started = time.monotonic()
        context = each_way.project(text.format(sharing, 0) + "RUN --mount=type=cache,target=/c,id=k cat /c/f || true\n")
        each_way.build(context, "--no-cache").ok()
        assert time.monotonic() - started < 15, "nobody waits for the dead"
        for path in each_way.store.glob("mounts/*"):
            remove_tree(str(path))


def test_half_of_what_it_starts_with_is_not_left_by_a_kill(tmp_path: Path) -> None:
    mount = Mount("cache", "/c", id="/k", uid=os.getuid(), gid=os.getgid(), mode=0o755)
    broken = RuntimeError("killed here")

    def die(path: str) -> None:
        (tmp_path / "made").write_text(path)
        os.mkdir(f"{path}/half")
        raise broken

    with pytest.raises(RuntimeError, match="killed here"):
        open_cache(str(tmp_path), mount, lambda: False, die)
    left = (tmp_path / "made").read_text()
    os.makedirs(f"{left}/half/of/it")  # as a kill, unlike an exception, would leave it
    opened = open_cache(str(tmp_path), mount, lambda: False, lambda path: os.mkdir(f"{path}/whole"))
    assert opened is not None
    assert os.listdir(opened.path) == ["whole"]
    assert not os.path.exists(left)
    opened.release()


# what its management goes by


def test_its_sidecar_says_what_it_is_and_when_it_was_used(program: Program) -> None:
    lines = (
        "RUN --mount=type=cache,target=/var/cache/x echo 1\n"
        "RUN --mount=type=cache,target=/p,id=pip,sharing=locked echo 2\n"
    )
    before = time.time()
    program.build(program.project(BASE + "FROM base\n" + lines)).ok()
    found = {each["target"]: each for each in sidecars(program)}
    assert found["/var/cache/x"]["id"] == "/var/cache/x"
    assert found["/var/cache/x"]["sharing"] == "shared"
    assert found["/p"]["id"] == "pip"
    assert found["/p"]["sharing"] == "locked"
    for each in found.values():
        assert each.keys() == {"id", "target", "sharing", "project", "made_at"}
        assert before - 1 < each["made_at"] < time.time() + 1
    paths = sorted((program.store / "mounts").glob("*.json"))
    made = [path.read_bytes() for path in paths]
    for path in paths:
        os.utime(path, (1, 1))
    program.build(program.project(BASE + "FROM base\n" + lines.replace("echo", "echo again"))).ok()
    assert [path.read_bytes() for path in paths] == made, "made once"
    assert all(path.stat().st_mtime > before for path in paths), "used again"


def test_one_without_a_sidecar_gets_it(program: Program) -> None:
    context = program.project(BASE + "FROM base\nRUN --mount=type=cache,target=/c,id=old cat /c/f || echo 1 > /c/f\n")
    program.build(context).ok()
    for path in (program.store / "mounts").glob("*.json"):
        path.unlink()
    assert program.build(context, "--no-cache").ok().output("1.1") == ["1"]
    assert [each["id"] for each in sidecars(program)] == ["old"]


def test_while_a_step_uses_it_nobody_gets_the_exclusive_lock(program: Program) -> None:
    context = program.project(BASE + "FROM base\nRUN --mount=type=cache,target=/c touch /c/in; until [ -e /c/go ]; do sleep 0.05; done\n")
    process = start(program, context)
    wait_for(lambda: list(program.store.glob("mounts/*/in")))
    (path,) = program.store.glob("mounts/*.use")
    with path.open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (inside,) = program.store.glob("mounts/*/in")
        inside.with_name("go").touch()
        assert process.wait(timeout=60) == 0
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_removal_never_takes_one_that_is_in_use(tmp_path: Path) -> None:
    """Uses and removals, as the protocol has them, in turns as the machine likes."""
    store = str(tmp_path)
    mount = Mount("cache", "/c", id="/x", uid=os.getuid(), gid=os.getgid(), mode=0o755)
    done = threading.Event()
    removed = 0

    def remove() -> None:
        nonlocal removed
        while not done.is_set():
            for use in tmp_path.glob("mounts/*.use"):
                with use.open("rb") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        if not os.path.samestat(os.fstat(file.fileno()), os.stat(use)):
                            continue
                    except OSError:
                        continue
                    for extra in ("", ".json"):
                        if use.with_suffix(extra).exists():
                            remove_tree(str(use.with_suffix(extra)))
                    use.unlink()
                    removed += 1

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        deadline = time.monotonic() + 30
        number = 0
        while number < 200 or removed <= 10:
            assert time.monotonic() < deadline, "both take turns"
            number += 1
            opened = open_cache(store, mount, lambda: False)
            assert opened is not None
            marker = os.path.join(opened.path, str(number))
            with open(marker, "wb"):
                pass
            assert os.path.exists(f"{opened.path}.json")
            assert os.path.exists(marker)
            opened.release()
            time.sleep(0.001)
    finally:
        done.set()
        remover.join()


def test_waiting_for_a_removal_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "mounts").mkdir()
    with (tmp_path / "mounts" / "name.use").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = time.monotonic() + 0.1
        assert hold(str(tmp_path), "name", lambda: time.monotonic() > end) is None
