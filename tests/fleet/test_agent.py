"""A worker as a program: what it takes, makes and gives back."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster, of_files, until
from orders import Made, Orders, layer_of
from serving import make_token

from cache.digest import Digest
from cache.wire import decode_result
from tests.cache.layers import needs_root
from worker.action import Action
from worker.fleet.action_body import Body
from worker.fleet.identity import fingerprint, verify
from worker.fleet.sealing import ClientSeal
from worker.fleet.signed_texts import outcome_text
from worker.operation import Mount, Run, key_form
from worker.run_key import run_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster import Joined

pytestmark = needs_root


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Cluster]:
    """One worker, of two slots; shared by tests that leave it as it is."""
    made = Cluster(tmp_path_factory.mktemp("agent"), busybox)
    try:
        made.join("w1")
        yield made
    finally:
        made.close()


def processes(mark: str) -> list[int]:
    """That have a text among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().replace(b"\0", b" ") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


# what it makes


def test_a_result_is_signed_and_on_the_server_before_it_is_told(cluster: Cluster, build: Orders, base: Made) -> None:
    key = build.run("echo one; echo two >&2; echo made > /made", [base.layer])
    started = build.take("started", key)
    assert verify(started.worker_key, started.signature, ("buildgraph.v1 lease", "", key, started.lease, started.seal_key.hex()))
    outcome, log = build.end_of(key)
    assert log == b"one\ntwo\n"
    assert outcome.worker_key == started.worker_key
    assert verify(outcome.worker_key, outcome.signature, outcome_text("", key, outcome))
    result = decode_result(outcome.result.SerializeToString())
    assert result.made_by == "worker@w1"
    assert result.layer is not None
    assert b"made\n" in build.blob(str(result.layer.tar))
    assert build.blob(str(result.log)) == log
    assert fingerprint(outcome.worker_key) in cluster.workers[0].said


def test_a_layer_that_it_made_is_what_it_uses_next(build: Orders, base: Made) -> None:
    first = decode_result(build.end_of(build.run("echo x > /x", [base.layer]))[0].result.SerializeToString())
    assert first.layer is not None
    outcome, log = build.end_of(build.run("cat /x", [base.layer, first.layer]))
    assert (outcome.HasField("result"), log) == (True, b"x\n")


def test_a_command_that_fails_is_told_with_its_log(build: Orders, base: Made) -> None:
    outcome, log = build.end_of(build.run("echo why; exit 7", [base.layer]))
    failure = outcome.failure
    assert (failure.kind, failure.exit_status, list(failure.tail)) == ("command", 7, ["why"])
    assert build.blob(failure.log) == log == b"why\n"


def test_a_command_is_tried_again_and_not_for_longer_than_it_may(build: Orders, base: Made) -> None:
    outcome, log = build.end_of(build.run("echo begun; exit 3", [base.layer], retry=1))
    assert (outcome.failure.exit_status, log.count(b"begun")) == (3, 2)
    outcome, _ = build.end_of(build.run("sleep 60", [base.layer], timeout=0.5))
    assert (outcome.failure.kind, outcome.failure.seconds) == ("timeout", 0.5)


def test_long_output_comes_while_it_is_printed_and_whole(build: Orders, base: Made) -> None:
    key = build.run("echo first; sleep 5; seq 1 60000; printf end", [base.layer])
    began = build.take("started", key)
    assert began.worker == "w1"
    piece = build.take("log", key)
    assert piece.data == b"first\n", "before the command has ended"
    outcome, rest = build.end_of(key)
    whole = b"first\n" + b"".join(b"%d\n" % number for number in range(1, 60001)) + b"end"
    assert piece.data + rest == whole
    result = decode_result(outcome.result.SerializeToString())
    assert result.log == Digest.of(whole)


# what nobody wants any more


def test_a_step_that_nobody_wants_is_killed_and_its_neighbour_goes_on(cluster: Cluster, build: Orders, base: Made) -> None:
    unwanted, wanted = build.run("sleep 4321", [base.layer]), build.run("sleep 3; echo done", [base.layer])
    for key in (unwanted, wanted):
        build.take("started", key)
    until(lambda: bool(processes("sleep 4321")))
    build.send(cancel=unwanted)
    until(lambda: not processes("sleep 4321"))
    outcome, log = build.end_of(wanted)
    assert (outcome.HasField("result"), log) == (True, b"done\n")
    until(lambda: "RUN sleep 4321: not wanted any more" in cluster.workers[0].said)
    assert build.end_of(build.run("echo after", [base.layer]))[1] == b"after\n", "its slot is free"


# what it does not do


def test_it_gives_nobody_rights_over_the_machine(cluster: Cluster, build: Orders, base: Made) -> None:
    build.take("declined", build.run("id", [base.layer], insecure=True))
    until(lambda: "RUN id: given back: commands that get all rights (security=insecure)" in cluster.workers[0].said)
    assert build.end_of(build.run("echo still", [base.layer]))[1] == b"still\n"


def test_it_believes_nothing_that_is_said_of_a_layer(cluster: Cluster, build: Orders, base: Made) -> None:
    (cluster.root / "evil").mkdir()
    (cluster.root / "evil/file").write_text("evil")
    evil = layer_of(cluster.root / "evil")
    build.put(evil)
    build.end_of(build.run("true", [base.layer, evil.layer]))
    lies = [
        base.layer._replace(tar=evil.layer.tar, listing=evil.layer.listing),  # the bytes of another one
        base.layer._replace(content="0" * 64),  # says something else
    ]
    unknown = "sha256:" + "12" * 32
    lies.append(evil.layer._replace(diff_id=unknown))  # never seen, and not what its bytes are
    for lie in lies:
        build.take("declined", build.run("true", [lie]))
    for reason in (
        "is said to be another one than it is", "is said to have another content than it has",
        f"gave for the layer {unknown} is {evil.layer.diff_id}",
    ):  # fmt: skip
        until(lambda text=reason: text in cluster.workers[0].said)  # type: ignore[misc]
    assert build.end_of(build.run("cat /bin/busybox | sha256sum", [base.layer]))[0].HasField("result"), "and none of it stayed"


def test_a_layer_that_is_here_is_still_only_for_those_who_have_it(cluster: Cluster, base: Made) -> None:
    (cluster.root / "private").mkdir()
    (cluster.root / "private/file").write_text("of team a")
    private = layer_of(cluster.root / "private")
    token = make_token(cluster.server.store, "--name", "teams", "--scope", "read,write,execute", "--namespace", "team/*")
    own_token = make_token(cluster.server.store, "--name", "all", "--scope", "read,execute", "--namespace", "team/*")
    time.sleep(2)  # the server looks at its tokens once a second
    ours, theirs = (Orders(cluster.server.address, token, name) for name in ("team/a", "team/b"))
    worker = join_with(cluster, "teams", own_token)
    try:
        for each in (ours, theirs):
            each.put(base)
        ours.put(private)
        assert ours.end_of(ours.run("cat /file", [base.layer, private.layer]))[1] == b"of team a"
        theirs.take("declined", theirs.run("cat /file", [base.layer, private.layer]))
        until(lambda: f"has no layer {private.layer.diff_id} in this namespace" in worker.said)
        stand_in = private.layer._replace(tar=base.layer.tar, listing=base.layer.listing)
        for said in (stand_in, private.layer):  # as if it were one of theirs, and then what it is
            theirs.take("declined", theirs.run("cat /file", [base.layer, said]))
        # It gives back first, and then says why.
        until(lambda: worker.said.count(f"has no layer {private.layer.diff_id} in this namespace") == 3)
        cache = Mount("cache", "/c", id="deps")
        ours.end_of(ours.run("echo ours > /c/f", [base.layer], (cache,)))
        assert ours.end_of(ours.run("cat /c/f", [base.layer], (cache,)))[1] == b"ours\n"
        assert theirs.end_of(theirs.run("ls /c | wc -l", [base.layer], (cache,)))[1] == b"0\n", "caches are apart, too"
    finally:
        ours.close()
        theirs.close()
        worker.stop()


@pytest.mark.slow
def test_what_another_namespace_made_is_not_taken_for_what_was_made_before(cluster: Cluster, base: Made) -> None:
    token = make_token(cluster.server.store, "--name", "two", "--scope", "read,write,execute", "--namespace", "two/*")
    time.sleep(2)  # the server looks at its tokens once a second
    ours, theirs = (Orders(cluster.server.address, token, name) for name in ("two/a", "two/b"))
    worker = join_with(cluster, "shared", token)
    run = Run(("/bin/sh", "-c", "od -x -N 8 /dev/urandom > /random; echo same > /same"), (("PATH", "/bin"),), "/", "", "default", "h", ())
    same = run._replace(argv=("/bin/sh", "-c", "echo same > /same"))
    try:
        made = {}
        for build in (theirs, ours):
            build.put(base)
            for count in range(2):
                for each in (run, same):
                    key = run_key(key_form(each), "linux/amd64", [base.layer.content], (), ())
                    body = Body(Action(key, each, ((base.layer,),), "linux/amd64"))
                    outcome, _ = build.end_of(build.want("x", body, anew=bool(count)))
                    made[build, each, count] = decode_result(outcome.result.SerializeToString())
                time.sleep(1.1)  # mtimes are seconds
        for build in (theirs, ours):
            first, second = (made[build, same, count].layer for count in range(2))
            assert first == second, "its own earlier one"
        assert made[ours, same, 0].layer != made[theirs, same, 0].layer, "with the times of this run"
        assert [made[ours, run, count].varies for count in range(2)] == [(), ("random",)], "nor is it compared with theirs"
    finally:
        ours.close()
        theirs.close()
        worker.stop()


def join_with(cluster: Cluster, name: str, token: str) -> Joined:
    """A worker with a token of its own."""
    before, cluster.worker_token = cluster.worker_token, token
    try:
        return cluster.join(name)[0]
    finally:
        cluster.worker_token = before


def test_a_secret_is_nowhere_afterwards(cluster: Cluster, build: Orders, base: Made) -> None:
    value = b"hunter2-" + os.urandom(8).hex().encode()
    script = "sha256sum < /run/secrets/k; cat /run/secrets/k; stat -f -c %T /run/secrets/k"
    key = build.run(script, [base.layer], (Mount("secret", "/run/secrets/k", id="k", mode=0o400),), secrets=["k"])
    started = build.take("started", key)
    seal = ClientSeal(started.lease, started.seal_key)
    secrets = {"k": base64.b64encode(value).decode(), "not-asked-for": ""}
    said = {"namespace": "", "key": key, "secrets": secrets, "proxies": {}, "agents": []}
    data = json.dumps(said).encode()
    for part in (data[:10], data[10:]):
        build.send(sealed=seal.seal("secrets", part))
    build.send(sealed={"lease": started.lease, "channel": "secrets", "end": True})
    outcome, log = build.end_of(key)
    assert outcome.HasField("result")
    assert log == f"{hashlib.sha256(value).hexdigest()}  -\n[secret]tmpfs\n".encode()
    for place in (cluster.workers[0].store, cluster.server.store):
        assert not [path for path, held in of_files(place, lambda path: value in path.read_bytes()).items() if held]
    assert value.decode() not in cluster.workers[0].said


# how it ends


def test_it_finishes_what_it_has_when_it_is_told_to_end(own: Cluster, base: Made) -> None:
    worker = own.join("w1")[0]
    build = Orders(own.server.address, own.token)
    build.put(base)
    key = build.run("sleep 2; echo done", [base.layer])
    build.take("started", key)
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: "drains" in worker.said)
    late = build.run("echo late", [base.layer])
    assert build.end_of(key)[1] == b"done\n"
    assert worker.process.wait(60) == 0
    assert worker.said.splitlines()[-1] == "drained"
    assert build.take("queued", late)
    own.join("w2")
    assert build.end_of(late)[1] == b"late\n"
    build.close()
    assert not list((worker.store / "runs").iterdir()), "nothing is left behind"


def test_it_gives_back_what_it_has_when_it_is_interrupted(own: Cluster, base: Made) -> None:
    worker = own.join("w1")[0]
    build = Orders(own.server.address, own.token)
    build.put(base)
    key = build.run("sleep 5432", [base.layer])
    build.take("started", key)
    until(lambda: bool(processes("sleep 5432")))
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(60) == 130
    assert not processes("sleep 5432")
    again = build.take("queued", key)
    while not again.again:
        again = build.take("queued", key)
    assert own.server.events("lease given back")[0]["text"] == "the worker was stopped"
    assert not list((worker.store / "runs").iterdir()), "nothing is left behind"
    anew = own.join("w1", arguments=("--store", str(worker.store)))[0]
    assert build.take("started", key).worker == "w1", "it may have it again after its restart"
    build.send(cancel=key)
    build.close()
    anew.stop()


def test_it_does_not_outlive_a_kill(own: Cluster, base: Made) -> None:
    worker = own.join("w1")[0]
    build = Orders(own.server.address, own.token)
    build.put(base)
    build.take("started", build.run("sleep 6543", [base.layer]))
    until(lambda: bool(processes("sleep 6543")))
    worker.process.kill()
    worker.process.wait(60)
    until(lambda: not processes("sleep 6543"))
    build.close()
    again = own.join("w2", arguments=("--store", str(worker.store)))[0]
    runs = list((worker.store / "runs").iterdir())
    assert len(runs) == 1, "what the killed one left is gone"
    assert again.stop() == 0


def test_whom_the_server_does_not_know_is_told_once(own: Cluster) -> None:
    own.worker_token = "bgt_nobody_" + "x" * 43
    began = time.monotonic()
    with pytest.raises(AssertionError, match="ended"):
        own.join("w1")
    worker = joined_last(own)
    assert worker.process.wait(60) == 5
    assert time.monotonic() - began < 60
    assert len(re.findall("does not know this token", worker.said)) == 1
    assert "Traceback" not in worker.said


def joined_last(cluster: Cluster) -> Joined:
    return cluster.workers[-1]


def test_a_token_that_may_not_execute_is_told_so(own: Cluster) -> None:
    own.worker_token = make_token(own.server.store, "--name", "reader", "--scope", "read")
    time.sleep(2)  # the server looks at its tokens once a second
    with pytest.raises(AssertionError, match="ended"):
        own.join("w1")
    assert joined_last(own).process.wait(60) == 5
    assert "execute" in joined_last(own).said


@pytest.mark.slow
def test_one_store_is_one_workers(own: Cluster) -> None:
    first = own.join("w1")[0]
    with pytest.raises(AssertionError, match="ended"):
        own.join("w2", arguments=("--store", str(first.store)))
    assert joined_last(own).process.wait(60) == 4
    assert "another worker runs on the store" in joined_last(own).said


@pytest.mark.slow
def test_it_waits_for_a_server_that_is_not_there_yet(own: Cluster, base: Made) -> None:
    worker = own.join("w1")[0]
    own.server.end()
    until(lambda: "trying again" in worker.said)
    time.sleep(2)
    assert worker.said.count("trying again") <= 2, "it does not repeat itself"
    own.restart_server()
    until(lambda: "again" in worker.said.splitlines()[-1] and "joined" in worker.said.splitlines()[-1])
    build = Orders(own.server.address, own.token)
    build.put(base)
    assert build.end_of(build.run("echo back", [base.layer]))[1] == b"back\n"
    build.close()
