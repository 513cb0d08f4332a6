"""The nginx example on two machines at the ends of slow wires: seconds and bytes of what one built and the other needs.

Usage, as root: python -m bench.two_machines [--kept DIR] [--rounds N] [--delay SECONDS] [--rate BITS_PER_SECOND].
DIR: where the base and nginx's source are kept, as `examples/nginx/run.sh` keeps them. The figures of
docs/shared-cache.md are medians of this.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.networks import DELAY, RATE, ROOT, why_not
from bench.team import Built, Team, image_digest
from bench.way_out import way_out

EXAMPLE = ROOT / "examples/nginx"
CHANGED = ("src/http/ngx_http_header_filter_module.c", "src/core/ngx_string.c", "src/event/ngx_event.c")
"""One of nginx's files each."""


class Step(NamedTuple):
    """What was done once, in a build or two."""

    name: str
    built: list[Built]

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.built)

    @property
    def ran(self) -> int:
        return sum(len(each.ran) for each in self.built)

    @property
    def blobs(self) -> int:
        return sum(sum(each.blobs) for each in self.built)

    @property
    def wire(self) -> int:
        return sum(sum(each.wire) for each in self.built)


class Round(NamedTuple):
    """layers: bytes of all layers of both images, the base's with them, not compressed. digests: of the one-stage
    image as A and as B took it out."""

    steps: list[Step]
    layers: int
    digests: tuple[str, str]

    def share(self, step: Step) -> float:
        """What a step moved, headers and all, of the layers."""
        return step.wire / self.layers


class Example:
    """The example's projects: the same text for all machines, which see one checkout."""

    def __init__(self, place: Path, kept: Path, proxy: str) -> None:
        self._kept = kept
        self.version = (kept / "source/version").read_text().strip()
        self.context = place / "source"
        shutil.copytree(kept / "source", self.context)
        self._apt = place / "apt"
        shutil.copytree("/etc/apt", self._apt, symlinks=True)
        (self._apt / "apt.conf.d").mkdir(exist_ok=True)
        (self._apt / "apt.conf.d/99way-out").write_text(
            f'Acquire::http::Proxy "{proxy}";\nAcquire::https::Proxy "{proxy}";\n'
        )

    def arguments(self, name: str, *more: str | Path) -> list[str | Path]:
        """For `build`. name: single or multi."""
        contexts = {
            "base": f"oci-layout://{self._kept / 'base'}", "apt": self._apt, "keyrings": "/usr/share/keyrings",
            "certificates": "/etc/ssl/certs",
        }  # fmt: skip
        given = [part for key, value in contexts.items() for part in ("--build-context", f"{key}={value}")]
        return [
            "--network", "host", "-f", EXAMPLE / f"Dockerfile.{name}", "--build-arg", f"NGINX_VERSION={self.version}",
            *given, *more, self.context,
        ]  # fmt: skip

    def change(self, path: str) -> None:
        """A line more in one of nginx's files, which changes the program."""
        name = f"nginx-{self.version}"
        archive, made = self.context / f"{name}.tar.gz", io.BytesIO()
        line = f"\nconst char *ngx_{Path(path).stem}_note = \"{path} was changed\";\n".encode()
        with tarfile.open(archive) as old, tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as new:
            for member in old:
                data = old.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
                if member.name == f"{name}/{path}":
                    data += line
                    member.size = len(data)
                new.addfile(member, io.BytesIO(data) if member.isfile() else None)
        archive.write_bytes(gzip.compress(made.getvalue(), mtime=0))


def fetch(kept: Path) -> None:
    """The base and the source, as the example's script fetches them."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path}
    kept.mkdir(parents=True, exist_ok=True)
    if not (kept / "base/index.json").exists():
        subprocess.run([EXAMPLE / "make-base.sh", kept / "base"], check=True, env=env, stdout=sys.stderr)
    if not (kept / "source/version").exists():
        command = [EXAMPLE / "fetch-nginx.sh", kept / "source"]
        version = subprocess.run(command, check=True, env=env, stdout=subprocess.PIPE, text=True).stdout
        (kept / "source/version").write_text(version)


def measure(place: Path, kept: Path, delay: float = DELAY, rate: float = RATE) -> Round:
    """One round, all stores new. place: an empty directory."""
    steps: list[Step] = []
    out = {machine: f"type=oci,dest={place / machine},tar=false" for machine in ("a", "b", "later")}
    with Team(place, "a", "b", delay=delay, rate=rate) as team, way_out(team.networks.namespace("a")) as proxy:
        example = Example(place, kept, proxy)

        def step(name: str, machine: str, store: str, *builds: list[str | Path]) -> list[Built]:
            built = [team.build(machine, store, *arguments) for arguments in builds]
            steps.append(Step(name, built))
            return built

        single, multi = example.arguments("single"), example.arguments("multi")
        step("A builds both images", "a", "a", single, multi)
        step("B builds both images", "b", "b", single, multi)
        step("B again", "b", "b", single, multi)
        step("B takes the one-stage image out", "b", "b", example.arguments("single", "-o", out["b"]))
        team.build("a", "a", *example.arguments("single", "-o", out["a"]))
        layers = layer_bytes(Path(team.store("a")))
        example.change(CHANGED[0])
        step("B changes a source file", "b", "b", single, multi)
        step("A takes the changed image out", "a", "a", example.arguments("single", "-o", out["later"]))
        example.change(CHANGED[1])
        step("a third store, another file changed", "b", "c", single, multi)
        example.change(CHANGED[2])
        step("the third store, one more file changed", "b", "c", single, multi)
        for store in ("a", "b", "c"):
            done = team.call("b", store, "cache", "verify")
            if done.returncode:
                raise RuntimeError(f"the store of {store} is damaged: {done.stdout}{done.stderr}")
    done = subprocess.run(
        [sys.executable, "-m", "compiler", "cache", "verify", "--store", place / "served"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the server's store is damaged: {done.stdout}{done.stderr}")
    return Round(steps, layers, (image_digest(place / "a"), image_digest(place / "b")))


def layer_bytes(store: Path) -> int:
    """Of blobs that are files: layers but for the smallest."""
    return sum(path.stat().st_size for path in (store / "blobs").glob("??/*"))


def table(rounds: list[Round]) -> str:
    """Medians, as Markdown."""
    lines = ["| | seconds | steps run | on the wire | of the layers |", "| --- | --- | --- | --- | --- |"]
    for number, first in enumerate(rounds[0].steps):
        each = [one.steps[number] for one in rounds]
        wire = statistics.median(step.wire for step in each)
        seconds = statistics.median(step.seconds for step in each)
        ran = " to ".join(map(str, sorted({step.ran for step in each})))
        share = statistics.median(one.share(one.steps[number]) for one in rounds)
        lines.append(f"| {first.name} | {seconds:.1f} | {ran} | {wire / 1e6:.2f} MB | {share:.1%} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kept", type=Path, default=Path.home() / ".cache/buildgraph-nginx-example")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=float, default=DELAY)
    parser.add_argument("--rate", type=float, default=RATE)
    arguments = parser.parse_args()
    reason = why_not()
    if reason:
        print(reason, file=sys.stderr)
        return 4
    fetch(arguments.kept)
    print(f"load before: {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}", flush=True)
    rounds = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="buildgraph-two-machines-") as place:
            rounds.append(measure(Path(place), arguments.kept, arguments.delay, arguments.rate))
        print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}\n{table(rounds[-1:])}", flush=True)
    print(f"\nlayers: {rounds[0].layers / 1e6:.1f} MB; medians of {len(rounds)}:\n{table(rounds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
