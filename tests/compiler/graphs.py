"""Graphs for tests: by hand, by hypothesis, and out of the text of a Dockerfile with a world that is made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from cache.digest import Digest, OciDigest
from cache.image_config import ImageConfig
from cache.platform import Platform
from cache.reference import Reference
from cache.result import Layer, Result
from compiler.dockerfile.parser import parse_dockerfile
from compiler.dockerfile.source import Source
from compiler.graph import ContextSource, Graph, ImageSource, Node, ScratchSource, StageOutput
from compiler.lower import Image, Lowering
from compiler.options import BuildOptions
from worker.operation import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compiler.git_source import GitUrl

AMD64 = Platform.parse("linux/amd64")
RUN = Run(("true",), (), "/", "", "default", "host")


def result(name: str = "", seconds: float = 1.0) -> Result:
    digest = Digest.of(name.encode())
    layer = Layer(f"sha256:{digest.hash}", f"content-{name}", digest, digest)
    return Result(layer, None, seconds, 0.0, "somebody@somewhere")


def scratch() -> Node:
    return Node("scratch", "scratch", "", "scratch", None, (), ScratchSource())


def step(name: str, *inputs: str, kind: str = "run", stage: str = "s") -> Node:
    return Node(name, kind, stage, name, None, inputs, RUN)


def stage(name: str, rootfs: str) -> Node:
    config = ImageConfig.empty(AMD64)
    return Node(name, "stage", name, f"FROM {name}", None, (rootfs,), StageOutput(config, ()))


def graph(*nodes: Node, target: str = "") -> Graph:
    made = Graph()
    for node in nodes:
        made.add(node)
    made.target = target or nodes[-1].id
    return made


@st.composite
def graphs(draw: st.DrawFn, most: int = 16) -> Graph:
    """Stages of steps, each step with a root filesystem and any number of other inputs among the nodes before it."""
    nodes = [scratch()]
    for number in range(draw(st.integers(1, 5))):
        rootfs = draw(st.sampled_from([node.id for node in nodes if node.kind in ("scratch", "stage")]))
        for place in range(draw(st.integers(0, most // 4))):
            others = [node.id for node in nodes if node.kind in ("scratch", "stage")]
            taken = draw(st.lists(st.sampled_from(others), max_size=2, unique=True))
            node = step(f"s{number}.{place}", rootfs, *taken, kind="copy" if taken else "run", stage=f"s{number}")
            nodes.append(node)
            rootfs = node.id
        nodes.append(stage(f"s{number}", rootfs))
    stages = [node.id for node in nodes if node.kind == "stage"]
    return graph(*nodes, target=draw(st.sampled_from(stages)))


class World:
    """`Bases` that knows a few images and named contexts, and remembers what it was asked for."""

    def __init__(
        self,
        images: Mapping[str, ImageConfig] | None = None,
        contexts: Mapping[str, Image | ContextSource] | None = None,
    ) -> None:
        self.images = dict(images or {})
        self.contexts = dict(contexts or {})
        self.asked: list[tuple[str, str]] = []

    def image(self, name: str, platform: Platform) -> Image:
        reference = Reference.parse(name)
        self.asked.append((name, str(platform)))
        config = self.images.get(name, ImageConfig(platform.architecture, platform.os))
        return made_image(name, config, reference, str(platform))

    def named_context(self, name: str, platform: Platform) -> Image | ContextSource | None:
        return self.contexts.get(name)

    def main_context(self) -> ContextSource | ImageSource:
        return ContextSource("")

    def repository(self, url: GitUrl) -> ImageSource:
        return made_image(url.remote, ImageConfig("amd64", "linux")).source


def made_image(name: str, config: ImageConfig, reference: Reference | None = None, platform: str = "") -> Image:
    diff_id = OciDigest(f"sha256:{Digest.of(f'{name} {platform}'.encode()).hash}")
    config = config._replace(diff_ids=(diff_id,))
    return Image(config, ImageSource(name, reference, (Layer(diff_id, diff_id),), "sha256:manifest"))


def lower(text: str, world: World | None = None, **options: object) -> Lowering:
    """The graph of a Dockerfile's text."""
    chosen = BuildOptions(AMD64)._replace(**options)
    return Lowering(parse_dockerfile(Source("Dockerfile", text)), chosen, world or World())


def config_of(lowering: Lowering) -> ImageConfig:
    """The config of the target."""
    output = lowering.graph[lowering.graph.target].definition
    assert isinstance(output, StageOutput)
    return output.config


def history_of(lowering: Lowering) -> list[str]:
    output = lowering.graph[lowering.graph.target].definition
    assert isinstance(output, StageOutput)
    return [item.created_by for item in output.history]


def runs(lowering: Lowering) -> list[Run]:
    """The RUN operations in order."""
    return [node.definition for node in lowering.graph if isinstance(node.definition, Run)]


def env_of(text: str, world: World | None = None, **options: object) -> dict[str, str]:
    """What the last RUN sees, without PATH."""
    found = dict(runs(lower(text, world, **options))[-1].env)
    found.pop("PATH", None)
    return found


def image(*env: str, **fields: object) -> World:
    return World({"base": ImageConfig("amd64", "linux", env=env)._replace(**fields)})
