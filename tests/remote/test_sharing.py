"""What one machine built another one need not: results, bytes, logs, images."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
from team import loaded_modules, records, tasks, warnings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeMachine
    from team import CacheServer, Machine

STEPS = """
FROM busybox AS build
COPY source /source
RUN cat /source > /made && echo made it && head -c 300000 /dev/zero > /zeros
FROM busybox
COPY --from=build /made /made
RUN cat /made > /final
"""


def test_a_second_machine_runs_nothing_and_moves_no_layer(machine: MakeMachine, server: CacheServer) -> None:
    first, second = machine("a"), machine("b")
    built = first.build(first.project(STEPS, {"source": "x"}), "-t", "app:1").ok()
    assert len(built.executed) == 5
    assert any(name.startswith("publishing ") for name in tasks(built))
    taken, given = server.meter.taken, server.meter.given
    found = second.build(second.project(STEPS, {"source": "x"}), "-t", "app:1").ok()
    assert not found.executed
    assert len(found.cached) == 3, "the stage that was only copied from is not needed"
    assert server.meter.given == given, "no byte of a layer moved"
    assert server.meter.taken == taken
    assert first.program.config("app:1") == second.program.config("app:1")
    assert not warnings(found)


def test_a_hit_says_where_it_is_from(machine: MakeMachine, server: CacheServer) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    found = second.build(second.project(STEPS, {"source": "x"})).ok()
    assert {event["note"] for event in found.events if event["event"] == "finished"} == {f"from {server.url}"}


def test_what_was_found_once_needs_no_server_again(machine: MakeMachine, server: CacheServer) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    context = second.project(STEPS, {"source": "x"})
    second.build(context).ok()
    server.stop()
    again = second.build(context).ok()
    assert not again.executed
    assert not warnings(again)


def test_nothing_to_do_with_a_remote_loads_nothing_of_it(machine: MakeMachine) -> None:
    first, second = machine("a"), machine("b")
    context = first.project(STEPS, {"source": "x"})
    first.build(context).ok()
    for each in (first, second):
        context = each.project(STEPS, {"source": "x"})
        each.build(context).ok()
        arguments = ["build", context, *each.program.base(), "--progress", "plain", "--remote", each.remote]
        loaded = loaded_modules(each, *arguments)
        assert "compiler.remote_cache" in loaded
        assert not loaded & {"grpc", "google.protobuf", "cache.wire", "cache.remote.client", "zstandard", "concurrent.futures"}


def test_one_changed_file_runs_what_needs_it_and_fetches_what_that_needs(machine: MakeMachine, server: CacheServer) -> None:
    dockerfile = """
FROM busybox
RUN head -c 3000000 /dev/urandom > /large
RUN head -c 1000000 /dev/urandom > /needed
COPY source /source
RUN cat /source /needed > /made
"""
    first, second = machine("a"), machine("b")
    first.build(first.project(dockerfile, {"source": "x"}), "-t", "app").ok()
    changed = second.build(second.project(dockerfile, {"source": "y"}), "-t", "app").ok()
    assert len(changed.executed) == 2
    assert len(changed.cached) == 2 + 1, changed.events
    # And what it made then is the first one's.
    taken = first.build(first.project(dockerfile, {"source": "y"}), "-t", "app").ok()
    assert not taken.executed
    assert first.program.config("app") == second.program.config("app")


def test_a_result_is_found_by_what_it_is_made_of(machine: MakeMachine) -> None:
    """Early cutoff across machines: another recipe with the same content below."""
    one = "FROM busybox\nRUN echo same > /a\nRUN cat /a > /b && sleep 0\n"
    other = "FROM busybox\nRUN echo  same   > /a\nRUN cat /a > /b && sleep 0\n"
    first, second = machine("a"), machine("b")
    first.build(first.project(one)).ok()
    found = second.build(second.project(other)).ok()
    assert len(found.executed) == 1, "only the step whose command is written otherwise"


def test_a_failed_build_has_published_what_finished(machine: MakeMachine) -> None:
    dockerfile = "FROM busybox\nRUN echo one > /one\nRUN test -e /nothing\n"
    first, second = machine("a"), machine("b")
    first.build(first.project(dockerfile)).failed(1)
    found = second.build(second.project(dockerfile)).failed(1)
    assert len(found.cached) == 2


def test_files_come_out_the_same(machine: MakeMachine, tmp_path: Path) -> None:
    first, second = machine("a"), machine("b")
    for each in (first, second):
        each.build(each.project(STEPS, {"source": "x"}), "-o", f"type=tar,dest={tmp_path / each.root.name}.tar").ok()
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_what_was_fetched_is_the_stores_own(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    context = second.project(STEPS, {"source": "x"})
    second.build(context, "-o", f"type=tar,dest={tmp_path / 'out.tar'}").ok()
    server.stop()
    alone = second.alone(context, "-o", f"type=tar,dest={tmp_path / 'again.tar'}").ok()
    assert not alone.executed, "its bytes are here, so no remote is needed to know them"


def test_what_was_built_before_the_remote_was_set_is_published_then(machine: MakeMachine) -> None:
    first, second = machine("a"), machine("b")
    context = first.project(STEPS, {"source": "x"})
    first.alone(context).ok()
    then = first.build(context).ok()
    assert not then.executed
    assert any(name.startswith("publishing ") for name in tasks(then))
    assert not second.build(second.project(STEPS, {"source": "x"})).ok().executed


def test_an_image_of_promised_layers_can_be_built_on(machine: MakeMachine) -> None:
    first, second = machine("a"), machine("b")
    first.build(first.project("FROM busybox\nRUN echo base > /base\n"), "-t", "base:1").ok()
    second.build(second.project("FROM busybox\nRUN echo base > /base\n"), "-t", "base:1").ok()
    on_top = second.build(second.project("FROM base:1\nRUN cat /base > /top\n"), "-t", "top:1").ok()
    assert len(on_top.executed) == 1
    assert "base:1" in second.call("image", "ls").ok().stdout


def test_another_cache_directory_of_the_same_name_is_not_the_same_server(machine: MakeMachine, server: CacheServer) -> None:
    """Promises are of one server: with none, or another, they are not believed."""
    first, second = machine("a"), machine("b")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    context = second.project(STEPS, {"source": "x"})
    second.build(context).ok()
    assert len(second.alone(context).ok().executed) == 5


def test_no_path_of_the_host_is_published(machine: MakeMachine, server: CacheServer) -> None:
    first = machine("a")
    first.build(first.project(STEPS, {"source": "x"})).ok()
    import zlib

    kinds = set()
    for key, value in server.store.scan("shared"):
        kinds.add(key.split("\0")[1])
        text = zlib.decompress(value) if value[:1] == b"\x78" else value
        assert str(first.root).encode() not in text, key
    assert {"builds", "preimages", "sources"} <= kinds


@pytest.mark.slow
def test_a_small_change_of_a_large_layer_moves_little(machine: MakeMachine, server: CacheServer, tmp_path: Path) -> None:
    """40 MB that do not compress, of which one file changes: a chunk or two of half a megabyte on average."""
    noise = random.Random(1)
    files: dict[str, str | bytes] = {f"tree/{number:03}": noise.randbytes(100_000) for number in range(400)}
    dockerfile = "FROM busybox\nCOPY tree /tree\nRUN ls /tree | wc -l > /count\n"
    size = 400 * 100_000
    first, second = machine("a"), machine("b")
    out = ["-o", f"type=tar,dest={tmp_path / 'out.tar'}"]

    def project(each: Machine) -> Path:
        context = each.project(dockerfile, files)
        for path in (context / "tree").iterdir():
            os.utime(path, (1_700_000_000, 1_700_000_000))
        return context

    first.build(project(first)).ok()
    second.build(project(second), *out).ok()
    assert server.meter.taken > size
    taken, given = server.meter.taken, server.meter.given
    files["tree/200"] = noise.randbytes(100_000)
    first.build(project(first)).ok()
    assert server.meter.taken - taken < size * 0.05
    ran = second.build(project(second), *out).ok()
    assert not ran.executed
    assert server.meter.given - given < size * 0.05
    assert records(second, "ranges")
