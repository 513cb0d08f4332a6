"""What a worker keeps: layers, as far as its disk and its limit allow."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, of_files, until
from orders import Made, Orders

from cache.wire import decode_result
from tests.cache.layers import needs_root
from worker.process_tree import descendants

if TYPE_CHECKING:

    from cache.result import Layer

pytestmark = needs_root


def layers_mounted(pid: int) -> int:
    """In the keeper of a worker, which alone has more than none."""
    found = [0]
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{each}/mountinfo").read_text().count(" - erofs "))
    return max(found)


def bytes_in(store: Path) -> int:
    """Of blobs and everything made of them, each file once."""
    found = [status for name in ("blobs", "snapshots", "runs") for status in of_files(store / name, Path.stat).values()]
    return sum({status.st_ino: status.st_size for status in found}.values())


@pytest.mark.slow
def test_layers_that_were_not_used_lately_go(own: Cluster, base: Made) -> None:
    worker = own.join("w1", slots=1, arguments=("--layer-cache", "64MB"))[0]
    build = Orders(own.server.address, own.token)
    build.put(base)
    made: list[Layer] = []
    for number in range(6):
        key = build.run(f"head -c 20000000 /dev/urandom > /f{number}", [base.layer, *made[-1:]])
        layer = decode_result(build.end_of(key)[0].result.SerializeToString()).layer
        assert layer is not None
        made.append(layer)
    until(lambda: worker.said.count("of layers that were not used lately") >= 2)
    until(lambda: bytes_in(worker.store) < 72 << 20)
    until(lambda: layers_mounted(worker.process.pid) <= 5, 20)
    first = made[0]
    log = build.end_of(build.run("wc -c < /f0", [base.layer, first]))[1]
    assert log == b"20000000\n", "what went comes again from the server"
    build.close()
    before = bytes_in(worker.store)
    assert worker.stop() == 0
    again = own.join("w1", slots=1, arguments=("--layer-cache", "64MB"))[0]
    build = Orders(own.server.address, own.token)
    assert build.end_of(build.run("wc -c < /f0", [base.layer, first]))[1] == b"20000000\n"
    assert bytes_in(again.store) <= before + (1 << 20), "what is here is not fetched again"
    build.close()


@pytest.mark.slow
def test_a_full_disk_is_the_workers_trouble_and_not_the_builds(own: Cluster, base: Made, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "small", place], check=True)
    try:
        worker = own.join("w1", arguments=("--store", str(place / "store")))[0]
        build = Orders(own.server.address, own.token)
        build.put(base)
        assert build.end_of(build.run("true", [base.layer]))[0].HasField("result")
        build.take("declined", build.run("head -c 300000000 /dev/zero > /f", [base.layer]))
        until(lambda: "its disk is full" in worker.said)
        assert build.end_of(build.run("echo after", [base.layer]))[1] == b"after\n"
        (place / "ballast").write_bytes(bytes(110 << 20))
        build.take("declined", build.run("true", [base.layer]))
        until(lambda: worker.said.count("its disk is full") == 2)
        build.close()
        assert worker.stop() == 0
    finally:
        for each in own.workers:
            each.end()
        subprocess.run(["umount", "-l", place], check=True)
