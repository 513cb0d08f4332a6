"""Lower: a parsed Dockerfile to the graph of what its target needs."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cache.errors import BuildgraphError, DefinitionError, UsageError
from cache.image_config import ImageConfig
from cache.platform import Platform
from cache.reference import InvalidReference
from compiler.dockerfile import instructions as ast
from compiler.dockerfile.errors import DockerfileError, did_you_mean
from compiler.dockerfile.parser import parse_trigger, stage_number
from compiler.failure import FailedAt
from compiler.graph import (
    ContextSource,
    Graph,
    HistoryItem,
    HttpSource,
    ImageSource,
    Node,
    ScratchSource,
    Source,
    StageOutput,
)  # fmt: skip
from compiler.layer_count import LayerCount
from compiler.on_demand import NotDone, do_with_needs, until_done
from compiler.scope import GlobalScope, StageScope, platform_arguments
from compiler.stage_builder import StageBuilder
from compiler.steps import Step, add_step, copy_step, run_step, workdir_step
from worker.ignore import IgnoreRules
from worker.operation import Copy, Pattern, Run

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from compiler.dockerfile.parser import Dockerfile, Stage
    from compiler.dockerfile.source import Span
    from compiler.git_source import GitUrl
    from compiler.options import BuildOptions
    from worker.operation import Operation

SCRATCH = "scratch"


class Image(NamedTuple):
    """A base image that was found: what it says about itself, and its layers as a source. secrets: name and value of
    what is known to be secret in its config; the name of a variable, "" for the rest."""

    config: ImageConfig
    source: ImageSource
    secrets: tuple[tuple[str, str], ...] = ()


class Bases(Protocol):
    """Finds what a Dockerfile names from outside. The only way in which lowering learns about the world."""

    def image(self, name: str, platform: Platform) -> Image:
        """Resolve an image's name. Raises InvalidReference, RemoteError."""
        ...

    def named_context(self, name: str, platform: Platform) -> Image | ContextSource | None:
        """What --build-context says of this name; None if it says nothing. Raises as `image`."""
        ...

    def main_context(self) -> ContextSource | ImageSource:
        """The build's own context: a directory, or the layer that one from elsewhere became."""
        ...

    def repository(self, url: GitUrl) -> ImageSource:
        """A git repository. Raises RemoteError, DefinitionError."""
        ...


class _Lowered(NamedTuple):
    """A stage that was lowered. node: its stage node. items: history since the base image of the first FROM."""

    node: str
    config: ImageConfig
    scope: StageScope
    items: tuple[HistoryItem, ...]
    platform: Platform


class Lowering:
    """Lowers stages when something asks for them, so only what the target needs is in the graph."""

    def __init__(self, dockerfile: Dockerfile, options: BuildOptions, bases: Bases) -> None:
        self._dockerfile = dockerfile
        self._options = options
        self._bases = bases
        self._build_args = dict(options.build_args)
        self._escape = dockerfile.directives.escape
        self._stages: dict[int, _Lowered] = {}
        self._numbers: dict[str, list[int]] = {}
        for stage in dockerfile.stages:
            self._numbers.setdefault(stage.name or str(stage.index), []).append(stage.index)
        self.graph = Graph()
        self._layers = LayerCount(self.graph)
        self.proxies: dict[str, dict[str, str]] = {}
        self._target = target = self._find_target()
        self._globals = GlobalScope(
            platform_arguments(options.platform, Platform.here(), dockerfile.stages[target].name),
            self._build_args,
            self._escape,
            self.graph.secrets,
        )
        try:
            for instruction in dockerfile.args:
                self._globals.declare(instruction)
            do_with_needs(target, lambda number: self._lower(dockerfile.stages[number]), self._stages)
        except BuildgraphError as error:
            raise self.graph.secrets.hide(error) from None
        self.graph.target = self._stages[target].node

    def _find_target(self) -> int:
        wanted = self._options.target
        stages = self._dockerfile.stages
        if not wanted:
            return len(stages) - 1
        for stage in reversed(stages):
            if stage.name == wanted.lower():
                return stage.index
        number = stage_number(wanted)
        if number is not None and number < len(stages):
            return number
        names = [stage.name for stage in stages if stage.name]
        message = f"there is no stage {wanted!r} to build as the target{did_you_mean(wanted, names)}"
        raise DockerfileError(message, stages[-1].from_.span)

    # stages

    def _stage(self, number: int) -> _Lowered:
        known = self._stages.get(number)
        if known is None:
            raise NotDone(number)
        return known

    def _unique_name(self, stage: Stage) -> str:
        name = stage.name or str(stage.index)
        # A repeated name is allowed, and the last one wins; ids must still differ.
        return name if self._numbers[name][0] == stage.index else f"{name}~{stage.index}"

    def _lower(self, stage: Stage) -> Generator[int, None, _Lowered]:
        """Yields the number of each stage that must be lowered before it can go on."""
        span = stage.from_.span
        name = self._unique_name(stage)
        builder, triggers = yield from until_done(lambda: self._base(stage, name))
        inputs = _StageInputs(self, stage)
        instructions = [
            (f"{name}.on{number}", self._trigger(text, stage.from_)) for number, text in enumerate(triggers, 1)
        ]
        instructions += [(f"{name}.{number}", each) for number, each in enumerate(stage.instructions, 1)]
        for node_id, instruction in instructions:
            yield from until_done(partial(self._instruction, instruction, builder, inputs, node_id))
        config = builder.config
        if stage.index == self._target and self._options.labels:
            labels = {**dict(config.labels), **dict(self._options.labels)}
            config = config._replace(labels=tuple(sorted(labels.items())))
        output = StageOutput(config, tuple(builder.items))
        platform = str(builder.platform)
        node = self.graph.add(Node(name, "stage", name, stage.from_.text, span, (builder.rootfs,), output, platform))
        self._layers.note(node, span)
        return _Lowered(node.id, config, builder.scope, tuple(builder.items), builder.platform)

    def _trigger(self, text: str, from_: ast.From) -> ast.Instruction:
        """An instruction that a base image left for what is built on it; it stands where that is named."""
        note = f"ONBUILD of {from_.image}"
        return parse_trigger(text, note, self._escape)._replace(span=from_.span._replace(note=note))

    def _base(self, stage: Stage, name: str) -> tuple[StageBuilder, tuple[str, ...]]:
        """The stage's start, and the triggers that its base left for it."""
        from_ = stage.from_
        image = self._globals.expand(from_.image, from_.span)
        if not image:
            raise DockerfileError(
                f"the base image {from_.image} is empty once its variables are replaced", from_.span.find(from_.image)
            )
        platform = self._platform(from_)
        override = self._named(from_.name, platform, from_.span) if from_.name else None
        override = override or self._named(image, platform, from_.span)
        if isinstance(override, ContextSource):
            return self._directory_base(image, stage, name, platform, override), ()
        if override is None:
            earlier = self._earlier_stage(image, stage.index)
            if earlier is not None:
                base = self._stage(earlier)
                scope = StageScope(self._globals, base.scope.env, base.scope.args)
                builder = StageBuilder(name, base.node, base.config, scope, base.items, base.platform)
                return builder, base.config.on_build
        if override is None and image == SCRATCH:
            node = self._source_node(SCRATCH, "scratch", SCRATCH, ScratchSource())
            config = ImageConfig.empty(platform)
        else:
            found = override or self._image(image, platform, from_.span.find(from_.image))
            for secret in found.secrets:
                self.graph.secrets.note_value(*secret)
            node = self._image_node(image, platform, found.source)
            config = found.config.with_path()
        env = dict(entry.partition("=")[::2] for entry in config.env)
        return StageBuilder(name, node.id, config, StageScope(self._globals, env, {}), (), platform), config.on_build

    def _directory_base(
        self, image: str, stage: Stage, name: str, platform: Platform, source: ContextSource
    ) -> StageBuilder:
        """A directory as a base image: all its files in one layer, as BuildKit takes it."""
        scratch = self._source_node(SCRATCH, "scratch", SCRATCH, ScratchSource())
        files = self._source_node(f"context:{source.name}", "context", source.name, source)
        operation = Copy((Pattern(1, "/"),), "/")
        text, span = stage.from_.text, stage.from_.span
        node = self.graph.add(
            Node(f"{name}.0", "copy", name, text, span, (scratch.id, files.id), operation, str(platform))
        )
        config = ImageConfig.empty(platform)
        scope = StageScope(self._globals, dict(entry.partition("=")[::2] for entry in config.env), {})
        return StageBuilder(name, node.id, config, scope, (HistoryItem(f"FROM {image}", node.id),), platform)

    def _platform(self, from_: ast.From) -> Platform:
        if not from_.platform:
            return self._options.platform
        text = self._globals.expand(from_.platform, from_.span)
        try:
            return Platform.parse(text)
        except UsageError as error:
            raise DockerfileError(error.message, from_.span.find("--platform")) from None

    def _named_stages(self, name: str) -> list[int]:
        """The stages of this name, in order; a number is no name."""
        numbers = self._numbers.get(name.lower(), [])
        return numbers if numbers and self._dockerfile.stages[numbers[0]].name else []

    def _earlier_stage(self, name: str, before: int) -> int | None:
        numbers = self._named_stages(name)
        place = bisect_left(numbers, before)
        return numbers[place - 1] if place else None

    def _image(self, name: str, platform: Platform, span: Span) -> Image:
        try:
            return self._bases.image(name, platform)
        except InvalidReference as error:
            raise DockerfileError(error.message, span, hint=error.hint) from None
        except BuildgraphError as error:
            raise FailedAt(span, error) from None

    def _named(self, name: str, platform: Platform, span: Span) -> Image | ContextSource | None:
        try:
            return self._bases.named_context(name, platform)
        except InvalidReference as error:
            raise DockerfileError(error.message, span, hint=error.hint) from None
        except BuildgraphError as error:
            raise FailedAt(span, error) from None

    def _source_node(self, node_id: str, kind: str, text: str, source: Source) -> Node:
        node_id, text = self.graph.secrets.shown(node_id), self.graph.secrets.shown(text)
        # One name may lead to several sources: an image for two platforms, a URL with and without a checksum.
        number = 1
        unique = node_id
        while unique in self.graph and self.graph[unique].definition != source:
            number += 1
            unique = f"{node_id}~{number}"
        return self.graph.add(Node(unique, kind, "", text, None, (), source))

    def _image_node(self, name: str, platform: Platform, source: Source) -> Node:
        suffix = "" if platform == self._options.platform else f"::{platform}"
        return self._source_node(f"image:{name}{suffix}", "image", name, source)

    # instructions

    def _instruction(
        self, instruction: ast.Instruction, builder: StageBuilder, inputs: _StageInputs, node_id: str
    ) -> None:
        if builder.apply(instruction):
            return
        step: Step | None
        match instruction:
            case ast.Run():
                step, kind = run_step(instruction, builder, self._options, inputs), "run"
                _check_secrets(instruction, step.operation)
                self.proxies[node_id] = builder.scope.proxies()
            case ast.Copy() | ast.Add() if instruction.exclude and (wrong := _malformed(instruction.exclude)):
                raise DockerfileError(f"--exclude: {wrong}", instruction.span.find("--exclude"))
            case ast.Copy():
                step, kind = copy_step(instruction, builder, inputs), "copy"
            case ast.Add():
                step, kind = add_step(instruction, builder, inputs), "add"
            case ast.Workdir():
                step, kind = workdir_step(instruction, builder), "workdir"
            case _:
                raise DockerfileError(f"{instruction.text.split()[0]} cannot stand here", instruction.span)
        if step is not None:
            node = Node(
                node_id, kind, builder.name, instruction.text, instruction.span, step.inputs, step.operation,
                str(builder.platform), instruction.policy,
            )  # fmt: skip
            self.graph.add(node)
            self._layers.note(node, instruction.span)
            builder.rootfs = node.id
            builder.note(step.created_by, node.id)

    # what instructions of a stage may take from

    def source_for(self, name: str, stage: Stage, span: Span) -> str:
        """The node behind `--from=NAME` in this stage."""
        place = span.find(f"from={name}")
        override = self._named(name, self._options.platform, place)
        if isinstance(override, ContextSource):
            return self._source_node(f"context:{name}", "context", name, override).id
        if override is not None:
            return self._image_node(name, self._options.platform, override.source).id
        number = self._earlier_stage(name, stage.index)
        if number is None:
            number = stage_number(name)
            if number is not None and number >= len(self._dockerfile.stages):
                raise DockerfileError(f"there is no stage number {name[:40]}", place)
        later = self._named_stages(name)
        if number is None and later:
            number = later[0]
        if number is not None:
            if number == stage.index:
                raise DockerfileError(f"stage {name} takes from itself, which is a cycle", place)
            if number > stage.index:
                raise DockerfileError(f"stage {name} comes later; a stage can only take from those above it", place)
            return self._stage(number).node
        if name == SCRATCH:
            return self._source_node(SCRATCH, "scratch", SCRATCH, ScratchSource()).id
        try:
            found = self._image(name, self._options.platform, place)
        except FailedAt as error:
            near = did_you_mean(name, [other.name for other in self._dockerfile.stages if other.name])
            if near:
                error.cause.hint = f"no stage is called {name}{near}"
            raise
        return self._image_node(name, self._options.platform, found.source).id

    def context_node(self) -> str:
        return self._source_node("context", "context", "", self._bases.main_context()).id

    def git_node(self, url: GitUrl, span: Span) -> str:
        try:
            source = self._bases.repository(url)
        except DefinitionError as error:
            raise DockerfileError(error.message, span.find(url.remote)) from None
        except BuildgraphError as error:
            raise FailedAt(span.find(url.remote), error) from None
        return self._source_node(f"git:{source.name}", "git", source.name, source).id

    def http_node(self, url: str, checksum: str) -> str:
        shown = self.graph.secrets.shown(url)
        source = HttpSource(url, checksum, shown if shown != url else "")
        return self._source_node(f"http:{url}", "http", url, source).id


def _check_secrets(instruction: ast.Run, operation: Operation) -> None:
    """A secret in the key that the step cannot see is a slip of the pen."""
    wanted = instruction.policy.secret_in_key
    if not wanted:
        return
    assert isinstance(operation, Run)
    mounted = sorted({mount.id for mount in operation.mounts if mount.type == "secret"})
    for name in wanted:
        if name not in mounted:
            near = did_you_mean(name, mounted)
            message = f"secret-in-key={name}: this RUN mounts no secret of that id{near}"
            raise DockerfileError(message, instruction.span, hint=f"mount it with --mount=type=secret,id={name}")


def _malformed(patterns: Iterable[str]) -> str:
    """What is wrong with patterns of --exclude; "" for nothing."""
    try:
        IgnoreRules.from_patterns(patterns)
    except ValueError as error:
        return str(error)
    return ""


class _StageInputs:
    """`Inputs` for the steps of one stage."""

    def __init__(self, lowering: Lowering, stage: Stage) -> None:
        self._lowering = lowering
        self._stage = stage

    def source(self, name: str, span: Span) -> str:
        return self._lowering.source_for(name, self._stage, span)

    def context(self) -> str:
        return self._lowering.context_node()

    def http(self, url: str, checksum: str) -> str:
        return self._lowering.http_node(url, checksum)

    def git(self, url: GitUrl, span: Span) -> str:
        return self._lowering.git_node(url, span)
