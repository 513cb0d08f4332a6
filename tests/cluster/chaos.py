"""Chaos: builds of two clients while something goes wrong, again and again, each time told by its seed.

Usage: chaos.py [--runs N] [--seed N] [--only TEXT] [--lanes N]; exits 1 with what was wrong, and the seed that shows it
again. Lanes are clusters at the same time, with seeds that follow each other, among which the runs are shared out.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import grpc
from faults import KINDS, Kind, Struck
from machines import BASE, EPOCH, THERE, Building, Machines, digest

if TYPE_CHECKING:
    from program import Ran

LEASE = 4.0
"""Seconds, instead of 20: what waits for a lease to expire is what takes the time here."""
PATIENCE = 45.0
"""For a build on a busy machine, beside a lease and what the fault allows."""
BACK = 30.0
"""For workers to be there again, also those that had nothing to say when the network was cut: they ask every 10 s."""
QUIET = 20.0
"""After the last build: for everything of it to be gone."""
CODES = {0, 1, 4, 5}
"""With which a build may end: docs tell them."""
RANDOM = "random"
"""What each run of its commands makes differently, so that two runs for one result would be seen."""
SECRET = "secret"
"""What has a secret and prints it, which nobody may find anywhere afterwards."""
SHAPES = ("chain", "wide", "diamond", "fails", RANDOM, SECRET)
_RUN = re.compile(r"^run +\d", re.MULTILINE)
LOOK = 25
"""Runs after which the stores are looked at."""


class Wrong(AssertionError):
    """Something that must not be."""


class Run(NamedTuple):
    """What one fault led to."""

    kind: str
    seconds: float
    codes: tuple[int, ...]


def dockerfile(shape: str, mark: str) -> str:
    """Each RUN of a stage depends on N, which the image does not. mark: digits that its sleeps can be told by."""

    def stage(name: str, on: str = "base", seconds: float = 0.6) -> str:
        return f"FROM {on} AS {name}\nARG N\nRUN sleep {seconds}{mark} && echo {name} > /{name} && : $N\n"

    def end(*names: str) -> str:
        return "FROM base\n" + "".join(f"COPY --from={name} /{name} /\n" for name in names)

    if shape == "chain":
        return BASE + stage("a") + stage("b", "a") + stage("c", "b", 0.3) + end("a", "b", "c")
    if shape == "wide":
        return BASE + "".join(stage(name, "base", 0.9) for name in "abcd") + end(*"abcd")
    if shape == RANDOM:
        made = "".join(f"FROM base AS {name}\nARG N\nRUN sleep 0.6{mark} && od -x -N 8 /dev/urandom > /{name}\n" for name in "ab")
        return BASE + made + end("a", "b")
    if shape == SECRET:
        told = f"RUN --mount=type=secret,id=s sleep 0.6{mark} && cat /run/secrets/s && wc -c < /run/secrets/s > "
        return BASE + "".join(f"FROM base AS {name}\nARG N\n{told}/{name} && : $N\n" for name in "ab") + end("a", "b")
    if shape == "diamond":
        return BASE + stage("a") + stage("b", "a") + stage("c", "a") + end("b", "c")
    return BASE + stage("a") + f"FROM a AS b\nRUN sleep 0.5{mark} && echo it is so && exit 7\n" + end("a", "b")


class Chaos:
    """`run` once for each number. Everything that differs between runs comes from the seed and the number."""

    def __init__(self, machines: Machines, seed: int) -> None:
        self.machines = machines
        self.seed = seed
        self.mark = f"{random.Random(seed).randrange(10**6):06}5"
        self.done: list[Run] = []
        self._expected: dict[str, str] = {}
        self._secret = f"hush-{random.Random(f'{seed}-secret').randbytes(8).hex()}"
        (machines.root / "secret-file").write_text(self._secret)
        self._given = ("--secret", f"id=s,src={machines.root / 'secret-file'}")
        self._contexts = {
            (client, shape): client.project(dockerfile(shape, self.mark), name=shape)
            for client in machines.clients for shape in SHAPES
        }  # fmt: skip

    def prepare(self) -> None:
        """Four workers, one of which has a clock that goes an hour ahead."""
        machines = self.machines
        for name in machines.names:
            env = {"CLUSTER_CLOCK": "3600"} if name == "w3" else {}
            machines.join(name, env=env, slots=1 if name == "w2" else 2)
        alone = machines.alone()
        for shape in SHAPES:
            context = alone.project(dockerfile(shape, self.mark), name=shape)
            ran = alone.build(context, *EPOCH, *self._given, "--build-arg", "N=alone")
            self._expected[shape] = digest(ran)
            ran.failed(1) if shape == "fails" else ran.ok()
            if shape != "fails" and not self._expected[shape].startswith("sha256:"):
                raise Wrong(f"no digest of the image {shape}")
        machines.ready(*machines.names)

    def run(self, number: int, only: str = "") -> Run:
        """Raises Wrong."""
        dice = random.Random(f"{self.seed}-{number}")
        # As cards of a deck, so that none is left out by chance.
        deck = [kind for kind in KINDS if only in kind.name for _ in range(kind.weight)]
        random.Random(f"{self.seed}-deck-{number // len(deck)}").shuffle(deck)
        kind = deck[number % len(deck)]
        same, shapes = dice.random() < 0.5, dice.choices(SHAPES, (3, 3, 3, 1, 3, 3), k=2)
        if same:
            shapes = [shapes[0], shapes[0]]
        there = THERE if dice.random() < 0.6 else ()
        began = time.monotonic()
        try:
            codes = self._strike(kind, number, dice, shapes, there, same=same)
            self._check_quiet()
        except (Wrong, AssertionError, subprocess.TimeoutExpired) as error:
            text = f"run {number} of seed {self.seed}: {kind.name}, {shapes}, {' '.join(there)}: {error}"
            raise Wrong(f"{text}\n{self.machines.logs()}") from error
        made = Run(kind.name, time.monotonic() - began, codes)
        self.done.append(made)
        return made

    def _strike(self, kind: Kind, number: int, dice: random.Random, shapes: list[str], there: tuple[str, ...], *, same: bool) -> tuple[int, ...]:
        machines = self.machines
        builds: list[Building] = []
        for place, (client, shape) in enumerate(zip(machines.clients, shapes, strict=True)):
            token = f"{self.seed}-{number}" + ("" if same else f"-{place}")
            arguments = (*EPOCH, *there, *self._given, "--build-arg", f"N={token}")
            builds.append(machines.start_build(client, self._contexts[client, shape], *arguments))
        victim = self._victim(builds, dice)
        time.sleep(dice.uniform(0.0, 0.5))
        mend = kind.strike(Struck(machines, dice, victim, builds, LEASE))
        try:
            limit = PATIENCE + 2 * LEASE + kind.seconds
            ended = [build.wait(limit) for build in builds]
        finally:
            for build in builds:
                with contextlib.suppress(ProcessLookupError):
                    build.process.kill()
            mend()
        for place, (ran, shape) in enumerate(zip(ended, shapes, strict=True)):
            if place not in kind.victims:
                self._check(ran, shape, good=kind.good)
        made = {digest(ran) for ran in ended if ran.code == 0}
        if same and there and shapes[0] == RANDOM and len(made) > 1:
            raise Wrong(f"what both builds wanted was made twice, and each got another: {made}")
        return tuple(ran.code for ran in ended)

    def _victim(self, builds: list[Building], dice: random.Random) -> str:
        """Once something runs: who runs it."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(build.process.poll() is None for build in builds):
            with contextlib.suppress(grpc.RpcError):
                busy = sorted({each.worker for each in self.machines.state().running if each.worker in self.machines.names})
                if busy:
                    return dice.choice(busy)
            time.sleep(0.05)
        return dice.choice(self.machines.names)

    def _check(self, ran: Ran, shape: str, *, good: bool) -> None:
        told = "\n".join(str(event["text"]) for event in ran.events if event["event"] == "warned")
        text = f"exit code {ran.code}\n{told}\n{ran.stderr[-1500:]}"
        if self._secret in f"{ran.events}{ran.stderr}":
            raise Wrong(f"a secret was shown: {text}")
        if "Traceback" in ran.stderr:
            raise Wrong(f"a traceback: {text}")
        right = 1 if shape == "fails" else 0
        if ran.code not in CODES or (good and ran.code != right):
            raise Wrong(f"it must have ended with {right}: {text}")
        if ran.code == 0 and shape != RANDOM and (shape == "fails" or digest(ran) != self._expected[shape]):
            raise Wrong(f"another image, {digest(ran)}, not {self._expected[shape]}: {text}")
        if ran.code and not ran.stderr.strip():
            raise Wrong("an error without a word")

    def _check_quiet(self) -> None:
        """Nothing runs or waits any more, and all workers are there."""
        machines = self.machines

        def quiet() -> bool:
            state = machines.state()
            return not state.running and not state.queue_length and not state.builds

        machines.ready(*machines.names, seconds=BACK)
        machines.wait(quiet, "the scheduler to have nothing left", QUIET)
        machines.wait(lambda: not self.steps(), f"steps to be gone: {self.steps()}", QUIET)

    def steps(self) -> list[str]:
        """Commands of RUNs that still run somewhere."""
        found = subprocess.run(["pgrep", "-af", f"^sleep 0\\.[0-9]{self.mark}$"], capture_output=True, text=True, check=False)
        return found.stdout.splitlines()

    def look(self) -> None:
        """Everything ends well and without a traceback, leaves nothing behind, and has whole stores; then it is started
        again."""
        machines = self.machines
        for name, worker in machines.workers.items():
            if worker.end() != 0:
                raise Wrong(f"{name} did not drain well\n{worker.said[-2000:]}")
        if machines.server.end() != 0:
            raise Wrong(f"the server did not end well\n{machines.server.said[-2000:]}")
        for name, program in {"the server": machines.server, **machines.workers}.items():
            said = program.said
            if "Traceback" in said:
                raise Wrong(f"a traceback of {name}\n{said[max(0, said.index('Traceback') - 500) :][:4000]}")
        running = [pid for name in ("server", *machines.names, "c1", "c2") for pid in machines.wires.processes(name)]
        if running:
            shown = subprocess.run(["ps", "-o", "pid,ppid,args", "-p", ",".join(map(str, running))], capture_output=True, text=True, check=False)
            raise Wrong(f"processes are left\n{shown.stdout}")
        if str(machines.root) in Path("/proc/self/mounts").read_text():
            raise Wrong("a mount is left")
        workers = [machines.store(name) for name in machines.workers]
        for store in [*workers, machines.served, *(client.store for client in machines.clients)]:
            # What a killed build left goes with the next one's start.
            done = machines.clients[0].call("cache", "verify", "--store", store)
            if done.code:
                raise Wrong(f"{store.name} is damaged: {done.stdout}{done.stderr}")
        for store in workers:
            for place in ("runs", "leases"):
                left = [each.name for each in (store / place).iterdir()] if (store / place).exists() else []
                if left:
                    raise Wrong(f"left in {store.name}/{place}: {left}")
        self._check_secret()
        machines.server.start()
        for worker in machines.workers.values():
            worker.start()
        machines.ready(*machines.names)

    def _check_secret(self) -> None:
        """Not in a store, a log, or what a build said; also not after a kill."""
        found = subprocess.run(
            ["grep", "-rlaF", "--exclude=secret-file", self._secret, self.machines.root], capture_output=True, text=True, check=False
        )
        if found.returncode != 1:
            raise Wrong(f"a secret was kept: {found.stdout or found.stderr}")

    def tell(self) -> str:
        """How often what happened, and how it ended."""
        counted = Counter(run.kind for run in self.done)
        lines = [f"{len(self.done)} faults, seed {self.seed}"]
        for kind, count in counted.most_common():
            these = [run for run in self.done if run.kind == kind]
            codes = Counter(code for run in these for code in run.codes)
            ends = ", ".join(f"{code}: {times}" for code, times in sorted(codes.items()))
            lines.append(f"{count:4} {kind:36} longest {max(run.seconds for run in these):5.1f} s, exit codes {ends}")
        return "\n".join(lines)


def chaos(root: Path, busybox: Path, runs: int, seed: int, only: str = "", *, aloud: bool = False) -> Chaos:
    """Raises Wrong."""
    with Machines(root, busybox, lease=LEASE) as machines:
        made = Chaos(machines, seed)
        made.prepare()
        for number in range(runs):
            run = made.run(number, only)
            if aloud:
                print(f"run {number:4} {run.kind:36} {run.seconds:5.1f} s {run.codes}", flush=True)
            if (number + 1) % LOOK == 0:
                made.look()
        made.look()
    return made


def in_lanes(runs: int, seed: int, only: str, lanes: int) -> int:
    """Runs that went well, in clusters side by side: most of the time of one is spent waiting. Raises Wrong."""
    shares = [runs // lanes + (lane < runs % lanes) for lane in range(lanes)]
    command = [sys.executable, __file__, "--only", only]
    processes = [
        subprocess.Popen([*command, "--runs", str(share), "--seed", str(seed + lane)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for lane, share in enumerate(shares) if share
    ]  # fmt: skip
    with ThreadPoolExecutor(lanes) as pool:
        ended = list(pool.map(lambda process: process.communicate(), processes))
    for process, (said, wrong) in zip(processes, ended, strict=True):
        print(said[-8000:])
        if process.returncode:
            raise Wrong(wrong[-8000:])
    return sum(len(_RUN.findall(said)) for said, _ in ended)


def main() -> int:
    from program import make_busybox
    from wires import why_not

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--only", default="", help="faults whose name holds this text")
    parser.add_argument("--lanes", type=int, default=1, help="clusters at the same time")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not before what it made is gone
    reason = why_not()
    if reason:
        sys.stderr.write(f"chaos: {reason}\n")
        return 4
    if arguments.lanes > 1:
        try:
            print(f"{in_lanes(arguments.runs, arguments.seed, arguments.only, arguments.lanes)} runs went well")
        except Wrong as wrong:
            sys.stderr.write(f"{wrong}\n")
            return 1
        return 0
    with tempfile.TemporaryDirectory(prefix="buildgraph-chaos-", ignore_cleanup_errors=True) as place:
        busybox = make_busybox(Path(place) / "busybox")
        (Path(place) / "root").mkdir()
        try:
            print(chaos(Path(place) / "root", busybox, arguments.runs, arguments.seed, arguments.only, aloud=True).tell())
        except Wrong as wrong:
            sys.stderr.write(f"{wrong}\n")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
