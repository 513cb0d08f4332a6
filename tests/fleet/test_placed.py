"""Builds that use a fleet: what they make is what they would have made alone, and what they say is the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import BASE, Cluster, digest, places, warnings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from program import Program

EPOCH = ("--build-arg", "SOURCE_DATE_EPOCH=1700000000")
HERE = ("--local-slots", "0")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Cluster]:
    """Two workers; shared by tests that leave them as they are."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), busybox)
    try:
        made.join("w1", "w2")
        yield made
    finally:
        made.close()


def test_the_image_is_the_one_that_a_build_alone_makes(cluster: Cluster, client: Program) -> None:
    dockerfile = (
        f"{BASE} AS one\nWORKDIR /w\nCOPY src/ ./\nRUN cat a > b && mkdir d && echo x > d/x\n"
        "FROM base AS two\nRUN --mount=type=bind,source=src,target=/s cat /s/a /s/deep/c > /both\n"
        "RUN --mount=type=bind,from=one,source=/w,target=/s cat /s/b >> /both && rm /tmp -r\n"
        "FROM one\nCOPY --from=two /both /both\nRUN --mount=type=bind,source=src/a,target=/f cat /f /both > /end\n"
    )
    files: dict[str, str | bytes] = {"src/a": "a\n", "src/deep/c": "c\n"}
    context = client.project(dockerfile, files)
    ran = cluster.build(client, context, *EPOCH, *HERE).ok()
    assert set(places(ran)) == {"one.3", "two.1", "two.2", "3.2"}, "each RUN, and nothing else"
    assert set(places(ran).values()) <= {"w1", "w2"}
    alone = cluster.client("alone")
    assert digest(ran) == digest(alone.build(alone.project(dockerfile, files), *EPOCH).ok())


def test_what_it_prints_is_shown_and_kept(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nRUN echo one && echo two >&2 && sleep 0.3 && seq 3 40000\n")
    ran = cluster.build(client, context, *HERE).ok()
    assert ran.output("1.1") == ["one", "two", *map(str, range(3, 40001))]
    log = client.call("log", "1.1", context, "--remote", cluster.url).ok()
    assert log.stdout.splitlines()[-2:] == ["39999", "40000"]
    plain = client.call("build", context, *client.base(), "--remote", cluster.url, *HERE, "--progress", "plain", "--no-cache").ok()
    assert re.search(r"^#\d+ on w[12]$", plain.stderr, re.MULTILINE)


def test_a_command_that_fails_fails_as_it_does_alone(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nRUN echo before && echo why >&2 && exit 7\nRUN echo never\n")
    there = cluster.build(client, context, *HERE).failed(1)
    assert client.call("log", "1.1", context).ok().stdout == "before\nwhy\n", "without the server"
    alone = cluster.client("alone-failing")
    here = alone.build(alone.project((context / "Dockerfile").read_text())).failed(1)
    assert there.output("1.1") == here.output("1.1") == ["before", "why"]
    assert re.sub(r"[\w./-]*Dockerfile", "Dockerfile", there.stderr) == re.sub(r"[\w./-]*Dockerfile", "Dockerfile", here.stderr)


def test_a_command_that_takes_too_long_is_ended(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\n# buildgraph: timeout=1s\nRUN echo before; sleep 60\n")
    ran = cluster.build(client, context, *HERE).failed(1)
    assert "the command ran longer than 1 s (timeout=1s)" in ran.stderr
    assert ran.output("1.1") == ["before"]


def test_what_the_dockerfile_asks_for_and_cannot_have_is_told_the_same(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nUSER nobody-here\nRUN true\n")
    there = cluster.build(client, context, *HERE).failed(3)
    assert "nobody-here" in there.stderr
    missing = client.project(f"{BASE} AS s\nFROM base\nRUN --mount=type=bind,from=s,source=/not-there,target=/m true\n", name="missing")
    assert "there is no '/not-there' to mount at /m" in cluster.build(client, missing, *HERE).failed(3).stderr


def test_the_second_time_nothing_runs_and_nothing_is_fetched(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nRUN head -c 3000000 /dev/urandom > /large\nRUN wc -c < /large > /size\n")
    cluster.build(client, context, *HERE).ok()
    large = [path for path in (client.store / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 2_900_000]
    assert not large, "nothing here needs its bytes"
    again = cluster.build(client, context, *HERE).ok()
    assert again.executed == []
    other = cluster.client("colleague")
    theirs = cluster.build(other, other.project((context / "Dockerfile").read_text()), *HERE).ok()
    assert [name for name in theirs.executed if name in ("1.1", "1.2")] == []
    target = client.root / "out"
    cluster.build(client, context, "-o", f"type=local,dest={target}").ok()
    assert (target / "large").stat().st_size == 3_000_000, "it comes once it is wanted"
    assert client.call("cache", "verify").code == 0


def test_no_cache_runs_again_on_the_fleet(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nRUN head -c 9 /dev/urandom | od -x\nRUN echo after\n")
    first = cluster.build(client, context, *HERE).ok()
    again = cluster.build(client, context, *HERE, "--no-cache").ok()
    assert first.output("1.1") != again.output("1.1")
    assert set(places(again)) == {"1.1", "1.2"}
    assert set(places(again).values()) <= {"w1", "w2"}
    told = client.call("fleet", "why", "1.1", "--remote", cluster.url).ok().stdout
    assert re.search(rf"DONE +{places(again)['1.1']} ", told), "under the key that it has"
    filtered = cluster.build(client, context, *HERE).ok()
    assert filtered.executed == []


def test_a_layer_that_says_the_same_stays_the_one_that_was_here(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nRUN echo same > /same\n")
    alone = client.build(context).ok()
    time.sleep(1.1)  # mtimes are seconds
    there = cluster.build(client, context, *HERE, "--no-cache").ok()
    assert set(places(there)) == {"1.1"}
    assert digest(there) == digest(alone)


def test_secrets_go_to_the_worker_and_nowhere_else(cluster: Cluster, client: Program) -> None:
    value = "s3cret-" + os.urandom(8).hex()
    (client.root / "secret").write_text(value)
    command = "sha256sum < /run/secrets/key > /sum; echo $TOKEN | sha256sum >> /sum; cat /run/secrets/key; echo; echo x$TOKEN"
    mounts = "--mount=type=secret,id=key --mount=type=secret,id=tok,env=TOKEN"
    context = client.project(f"{BASE}\nRUN {mounts} {command}; stat -f -c %T /run/secrets/key\n")
    options = ("--secret", f"id=key,src={client.root / 'secret'}", "--secret", "id=tok,env=TOKEN_VALUE")
    client.env["TOKEN_VALUE"] = value + "-two"
    target = client.root / "out"
    ran = cluster.build(client, context, *HERE, *options, "-o", f"type=local,dest={target}").ok()
    assert ran.output("1.1") == ["[secret]", "x[secret]", "tmpfs"]
    sums = [hashlib.sha256(text.encode()).hexdigest() for text in (value, value + "-two\n")]
    assert [line.split()[0] for line in (target / "sum").read_text().splitlines()] == sums
    found = subprocess.run(["grep", "-rl", value, "--", *(str(each.store) for each in cluster.workers), str(cluster.root / "served"), str(client.store), str(cluster.server.log)], capture_output=True, text=True, check=False)
    assert found.stdout == "", "I4"


def test_a_secret_that_counts_in_the_key_goes_the_same_way(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\n# buildgraph: secret-in-key=k\nRUN --mount=type=secret,id=k wc -c < /run/secrets/k\n")
    for value, runs in (("one", True), ("one", False), ("three", True)):
        (client.root / "k").write_text(value)
        ran = cluster.build(client, context, *HERE, "--secret", f"id=k,src={client.root / 'k'}").ok()
        assert (set(places(ran).values()) <= {"w1", "w2"}, "1.1" in places(ran)) == (True, runs)


def test_what_a_command_requires_is_asked_for_before_it_goes_anywhere(cluster: Cluster, client: Program) -> None:
    for kind, text in (("secret", "the secret 'k' is required"), ("ssh", "the ssh agent 'k' is required")):
        context = client.project(f"{BASE}\nRUN --mount=type={kind},id=k,required=true true\n")
        ran = cluster.build(client, context, *HERE).failed(4)
        assert text in ran.stderr
        assert places(ran) == {}


def test_an_ssh_agent_answers_across_the_fleet(cluster: Cluster, client: Program, tmp_path: Path) -> None:
    key, agent = tmp_path / "key", tmp_path / "agent"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", key], check=True)
    program = shutil.which("ssh-add")
    assert program is not None
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files: dict[str, str | bytes] = {f"root{path}": Path(path).read_bytes() for path in re.findall(r"(/\S+)", linked)}
    files["root/bin/ssh-add"] = Path(program).read_bytes()
    process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    try:
        while not agent.exists():
            time.sleep(0.01)
        subprocess.run(["ssh-add", "-q", key], env={**os.environ, "SSH_AUTH_SOCK": str(agent)}, check=True)
        context = client.project(
            f"{BASE}\nCOPY root/ /\nRUN chmod 755 /bin/ssh-add; find / -xdev -name 'ld-linux*' -exec chmod 755 {{}} +\n"
            "RUN --mount=type=ssh ssh-add -l && ssh-add -l | wc -l\n", files,
        )  # fmt: skip
        ran = cluster.build(client, context, *HERE, "--ssh", f"default={agent}").ok()
    finally:
        process.terminate()
        process.wait()
    assert ran.output("1.3")[0].endswith("mine (ED25519)")
    assert ran.output("1.3")[1] == "1"
    assert places(ran)["1.3"] in ("w1", "w2")


def test_what_only_this_machine_may_do_it_does(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nRUN --security=insecure echo here\nRUN echo there\n")
    ran = cluster.build(client, context, "--allow", "security.insecure").ok()
    assert places(ran)["1.1"].startswith("this machine: it may do anything")
    assert places(ran)["1.2"] in ("w1", "w2")
    failed = cluster.build(client, context, "--allow", "security.insecure", "--no-cache", *HERE).failed(5)
    assert "--local-slots 0 lets no command run on this machine" in failed.stderr


def test_a_platform_that_no_worker_has_is_built_here(cluster: Cluster, client: Program) -> None:
    context = client.project("FROM --platform=linux/s390x scratch AS base\nCOPY --from=busybox / /\nFROM base\nRUN echo x\n")
    ran = cluster.build(client, context, "--platform", "linux/s390x")
    assert all(where.startswith("this machine: ") for where in places(ran).values())
    assert places(ran), "and that is said"


def test_a_token_that_may_not_execute_builds_here(cluster: Cluster, client: Program) -> None:
    from serving import make_token

    client.env["BUILDGRAPH_TOKEN"] = make_token(cluster.root / "served", "--name", "reader", "--scope", "read,write")
    context = client.project(f"{BASE}\nRUN echo local\n")
    ran = cluster.build(client, context).ok()
    assert places(ran) == {}
    assert ran.output("1.1") == ["local"]
    assert warnings(ran) == []


def test_interrupting_a_build_ends_the_command_on_the_worker(cluster: Cluster, client: Program) -> None:
    marker = "98.76" + str(os.getpid())
    context = client.project(f"{BASE}\nRUN echo begun && sleep {marker}\n")
    command = client.command("build", context, *client.base(), "--remote", cluster.url, *HERE, "--progress", "plain")
    process = subprocess.Popen(command, env=client.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "begun" in line:
            break
    process.send_signal(2)
    assert process.wait(20) == 130
    process.stdout.close()
    until = time.monotonic() + 10
    while subprocess.run(["pgrep", "-f", f"^sleep {marker}"], capture_output=True, check=False).stdout:
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.1)
    cluster.wait(lambda: not cluster.state()["running"])


@pytest.mark.slow
def test_a_free_slot_here_takes_what_waits(cluster: Cluster, client: Program) -> None:
    stages = "".join(f"FROM base AS s{n}\nRUN sleep 2.5 && echo {n} > /{n}\n" for n in range(6))
    copies = "".join(f"COPY --from=s{n} /{n} /\n" for n in range(6))
    context = client.project(f"FROM scratch AS base\nCOPY --from=busybox / /\n{stages}FROM base\n{copies}")
    ran = cluster.build(client, context, "--local-slots", "1").ok()
    assert sum(where.startswith("this machine: the fleet is busy") for where in places(ran).values()) in (1, 2)
    assert {"w1", "w2"} <= set(places(ran).values())


def test_the_fleet_is_shown_and_explains_itself(cluster: Cluster, client: Program) -> None:
    context = client.project(f"{BASE}\nRUN echo explained\n")
    ran = cluster.build(client, context, *HERE).ok()
    text = cluster.fleet().ok().stdout
    assert re.search(r"^w1 +ready +0/2 .*ed25519:", text, re.MULTILINE), text
    state = cluster.state()
    assert {each["name"]: each["slots"] for each in state["workers"]} == {"w1": 2, "w2": 2}
    told = client.call("fleet", "why", "1.1", "--remote", cluster.url).ok().stdout
    assert "RUN echo explained" in told
    assert places(ran)["1.1"] in told
    found = re.search(r"action ([0-9a-f]{64})", told)
    assert found is not None
    key = found[1]
    assert cluster.fleet("why", key).ok().stdout == told
    missing = client.call("fleet", "why", "2.7", "--remote", cluster.url).failed(2)
    assert "there is no step '2.7' in any build that is remembered here" in missing.stderr
    assert json.loads(cluster.fleet("why", key[:16], "--format", "json").ok().stdout)["key"] == key
    assert "does not allow" in cluster.fleet("cordon", "w1").failed(5).stderr
