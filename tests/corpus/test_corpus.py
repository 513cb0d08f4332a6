"""Dockerfiles as people write them parse, lower and plan; and a long one is planned in no time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.image_config import ImageConfig
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.graph import ContextSource, ImageSource
from compiler.lower import Image, Lowering
from compiler.options import BuildOptions
from compiler.session import Definition, Session
from worker.operation import Copy, Pattern, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiler.git_source import GitUrl
    from compiler.graph import Graph

FILES = sorted(Path(__file__).parent.glob("*.Dockerfile"))
AMD64 = Platform.parse("linux/amd64")
BUILD_ARGS = {
    "kubernetes-operator": {"VERSION": "1"},
    "monorepo-nx": {"PROJECT": "web"},
    "arg-heavy-from": {"VARIANT": "slim", "BUILD_DATE": "2024-01-01"},
}
LONG = 300
FAST = 0.100
"""Seconds in which a Dockerfile of 300 instructions has to be planned: it takes 0.03."""
YARD = 0.008
"""Seconds of `yard` on the same machine, which at times computes half as fast, for minutes and everything alike."""


class AnyImage:
    """`Bases` that finds every image, without layers, and remembers the names."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def image(self, name: str, platform: Platform) -> Image:
        self.names.add(name)
        return Image(ImageConfig.empty(platform), ImageSource(name, None, (), ""))

    def named_context(self, name: str, platform: Platform) -> Image | ContextSource | None:
        return None

    def main_context(self) -> ContextSource | ImageSource:
        return ContextSource("")

    def repository(self, url: GitUrl) -> ImageSource:
        return ImageSource(url.remote, None, (), "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path_factory.mktemp("corpus") / "store"))
    yield opened
    opened.close()


def wanted_paths(graph: Graph) -> set[str]:
    """What the instructions take from the build context and from images, with something in place of wildcards."""
    found = set()
    for node in graph:
        inputs = [graph[name] for name in node.inputs]
        if isinstance(node.definition, Copy):
            taken = [(source.input, source.path) for source in node.definition.sources if isinstance(source, Pattern)]
        elif isinstance(node.definition, Run):
            taken = [(mount.input, mount.source) for mount in node.definition.mounts if mount.input is not None]
        else:
            continue
        found |= {path for number, path in taken if isinstance(inputs[number].definition, ContextSource | ImageSource)}
    return {path.replace("**/", "").replace("*", "x").replace("/./", "/").replace("../", "") for path in found}


def fill(directory: Path, paths: set[str]) -> None:
    """Make a directory with these files; what has others below it becomes a directory."""
    directory.mkdir()
    for path in sorted(paths, key=lambda path: -path.count("/")):
        target = directory / path.strip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_dockerfile_is_understood_and_planned(path: Path, tmp_path: Path, store: LmdbStore) -> None:
    source = Source.from_bytes(path.name, path.read_bytes())
    dockerfile = parse_dockerfile(source)
    bases = AnyImage()
    arguments = tuple(BUILD_ARGS.get(path.stem, {}).items())
    paths: set[str] = set()
    for stage in dockerfile.stages:
        options = BuildOptions(AMD64, target=str(stage.index), build_args=arguments)
        paths |= wanted_paths(Lowering(dockerfile, options, bases).graph)
    context = tmp_path / "context"
    fill(context, {*paths, "a-file"})
    contexts = tuple((name, str(context)) for name in sorted(bases.names))
    options = BuildOptions(AMD64, build_args=arguments, contexts=contexts)
    session = Session(store, Definition(source, str(context), None), options)
    forecast = session.forecast(slots=4)
    steps = [node for node in session.graph if node.is_step]
    assert forecast.count("hit") == forecast.same, "nothing was built before"
    assert forecast.count("miss") + forecast.count("depends") + forecast.same == len(steps)
    assert len(set(forecast.critical_path)) == len(forecast.critical_path)


def long_dockerfile() -> str:
    """300 instructions: stages on each other, variables, copies between them."""
    lines = ["ARG VERSION=1"]
    stages = 10
    for stage in range(stages):
        lines.append(f"FROM {'base:1' if stage < 3 else f's{stage - 3}'} AS s{stage}")
        lines += [f"ARG VERSION=1.{stage}", f"ENV NAME_{stage}=value-$VERSION PATH=/opt/{stage}/bin:$PATH", f"WORKDIR /w/{stage}"]
        for number in range((LONG - 1) // stages - 6):
            lines.append(
                (
                    f"RUN --mount=type=cache,target=/c make step-{number} && \\\n    echo ${{VERSION}} > out-{number}",
                    f"COPY file-{number % 5} dir/ ./{number}/",
                    f"ENV E{number}=${{E{number - 1}:-x}}y",
                    f"LABEL l{number}=\"$E{number - 2}\"",
                )[number % 4]
            )
        lines += [f"COPY --from=s{stage - 1} /w /from" if stage else "USER app", "EXPOSE 80"]
    while len(lines) < LONG:
        lines.append(f"RUN true {len(lines)}")
    return "\n".join(lines) + "\n"


def yard() -> float:
    """Seconds that something takes which is always the same."""
    started, found = time.process_time(), {}
    for number in range(60_000):
        found[number % 997] = str(number)
    return time.process_time() - started


@pytest.mark.alone
def test_a_long_dockerfile_is_planned_fast(tmp_path: Path, store: LmdbStore) -> None:
    context = tmp_path / "context"
    fill(context, {f"file-{number}" for number in range(5)} | {f"dir/{number}" for number in range(20)})
    source = Source("Dockerfile", long_dockerfile())
    assert sum(not line.startswith(" ") for line in source.text.splitlines()) == LONG
    definition = Definition(source, str(context), None)
    options = BuildOptions(AMD64, contexts=(("base:1", str(context)),))
    seconds = []
    for _ in range(9):
        pace = max(1.0, yard() / YARD)
        started = time.process_time()
        session = Session(store, definition, options)
        session.forecast(slots=4)
        seconds.append((time.process_time() - started) / pace)
    assert sum(node.is_step for node in session.graph) > LONG // 3
    assert min(seconds) < FAST  # what else the machine does only adds to it


def test_the_corpus_is_large_enough() -> None:
    assert len(FILES) >= 100
