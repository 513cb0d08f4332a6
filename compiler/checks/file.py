"""CheckedFile: a parsed Dockerfile with what can be known, without building, of each instruction's surroundings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import UsageError
from cache.platform import Platform
from compiler.checks.variables import Variables
from compiler.dockerfile import instructions as ast
from compiler.dockerfile.errors import DockerfileError, did_you_mean
from compiler.dockerfile.expand import ExpansionError, expand
from compiler.scope import platform_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.image_config import ImageConfig
    from compiler.dockerfile.parser import Dockerfile, Stage
    from compiler.options import BuildOptions
    from worker.ignore import IgnoreRules

SCRATCH = "scratch"


class Step:
    """One instruction. before: the variables that it sees. shell: what SHELL says there, `()` for the default."""

    __slots__ = ("before", "instruction", "shell")

    def __init__(self, instruction: ast.Instruction, before: Variables, shell: tuple[str, ...]) -> None:
        self.instruction = instruction
        self.before = before
        self.shell = shell


class CheckedStage:
    """One stage.

    image: the base with its variables replaced, `""` where that is not possible. platform: wanted of the base, None
    where FROM's own is no platform. parent: the base where it is a stage. config: of the base image, None if unknown.
    after, shell: what a stage on top of this one starts with.
    """

    __slots__ = ("after", "config", "image", "parent", "platform", "shell", "stage", "steps")

    def __init__(
        self,
        stage: Stage,
        image: str,
        platform: Platform | None,
        parent: CheckedStage | None,
        config: ImageConfig | None,
        start: Variables,
    ) -> None:
        self.stage = stage
        self.image = image
        self.platform = platform
        self.parent = parent
        self.config = config
        shell: tuple[str, ...] = parent.shell if parent else config.shell if config else ()
        steps = []
        for instruction in stage.instructions:
            steps.append(Step(instruction, start, shell))
            if isinstance(instruction, ast.Arg | ast.Env):
                start = start.following(instruction)
            elif isinstance(instruction, ast.Shell):
                shell = instruction.args
        self.steps = tuple(steps)
        self.after = start
        self.shell: tuple[str, ...] = shell


class CheckedFile:
    """Everything that rules ask. globals: what FROM sees; defaults: the same without --build-arg.

    stages: all. active: those that are checked beyond their words: what the target needs, or all. final: the target
    and the stages below it, whose layers are the image. ignore: the context's rules, None without a context.
    """

    def __init__(
        self,
        dockerfile: Dockerfile,
        options: BuildOptions,
        images: Callable[[str, Platform], ImageConfig | None] = lambda name, platform: None,
        ignore: Callable[[], IgnoreRules | None] = lambda: None,
        *,
        whole: bool = False,
    ) -> None:
        """images: the config of an image that is at hand; must not ask a registry. whole: check all stages.

        Raises DockerfileError for a target that is no stage.
        """
        self.dockerfile = dockerfile
        self.escape = dockerfile.directives.escape
        self.ignore = ignore
        self._options = options
        self._images = images
        self._overridden = frozenset(name.partition("::")[0] for name, _ in options.contexts)
        target = find_target(dockerfile, options.target)
        predefined = platform_arguments(options.platform, Platform.here(), dockerfile.stages[target].name)
        self.globals = Variables.of_globals(predefined, dict(options.build_args), dockerfile.args, self.escape)
        self._predefined = predefined
        self.stages: list[CheckedStage] = []
        for stage in dockerfile.stages:
            self.stages.append(self._stage(stage))
        self.target = self.stages[target]
        self.final = tuple(_downwards(self.target))
        self.active = tuple(self.stages) if whole else self.needed()

    @property
    def defaults(self) -> Variables:
        return Variables.of_globals(self._predefined, {}, self.dockerfile.args, self.escape)

    def instructions(self) -> Iterator[ast.Instruction]:
        """All of them, in order."""
        yield from self.dockerfile.args
        for stage in self.dockerfile.stages:
            yield stage.from_
            yield from stage.instructions

    def is_outside(self, name: str) -> bool:
        """Whether --build-context says what this name is."""
        return name in self._overridden

    def needed(self) -> tuple[CheckedStage, ...]:
        """The stages that the target needs, in order."""
        wanted: set[int] = set()
        pending = [self.target]
        while pending:
            view = pending.pop()
            if view.stage.index not in wanted:
                wanted.add(view.stage.index)
                pending += [self.stages[number] for number in self._uses(view)]
        return tuple(self.stages[number] for number in sorted(wanted))

    def _stage(self, stage: Stage) -> CheckedStage:
        from_ = stage.from_
        try:
            image = expand(from_.image, self.globals.values.get, self.escape)
            written = expand(from_.platform, self.globals.values.get, self.escape)
        except ExpansionError:
            image = written = ""
        try:
            platform = Platform.parse(written) if written else None if from_.platform else self._options.platform
        except UsageError:
            platform = None
        outside = self.is_outside(image) or (bool(from_.name) and self.is_outside(from_.name))
        number = None if outside else self._earlier(image, stage.index)
        if number is not None:
            parent = self.stages[number]
            return CheckedStage(stage, image, platform, parent, parent.config, parent.after)
        config = None
        start = Variables(self.globals, {}, frozenset())
        if image == SCRATCH and not outside:
            from cache.image_config import ImageConfig

            config = ImageConfig.empty(platform or self._options.platform)
        elif image and platform and not outside:
            config = self._images(image, platform)
        if config is None or config.on_build:  # triggers may declare anything
            start = start.on_unknown()
        if config is not None:
            start = start.with_env(dict(entry.partition("=")[::2] for entry in config.with_path().env))
        return CheckedStage(stage, image, platform, None, config, start)

    def _earlier(self, name: str, before: int) -> int | None:
        folded = name.lower()
        found = [stage.index for stage in self.dockerfile.stages[:before] if folded and stage.name == folded]
        return found[-1] if found else None

    def _uses(self, view: CheckedStage) -> Iterator[int]:
        """The numbers of the stages that one takes from directly."""
        if view.parent is not None:
            yield view.parent.stage.index
        names = []
        for instruction in view.stage.instructions:
            if isinstance(instruction, ast.Copy) and instruction.from_:
                names.append(instruction.from_)
            elif isinstance(instruction, ast.Run):
                names += [
                    field[5:] for mount in instruction.mounts for field in mount.split(",") if field.startswith("from=")
                ]
        index = view.stage.index
        for name in names:
            number = None if self.is_outside(name) else self._earlier(name, index)
            if number is not None:
                yield number
            elif name.isascii() and name.isdigit() and int(name) < index:
                yield int(name)


def find_target(dockerfile: Dockerfile, wanted: str) -> int:
    """The number of the stage that `--target` names, the last one for `""`. Raises DockerfileError."""
    stages = dockerfile.stages
    if not wanted:
        return len(stages) - 1
    for stage in reversed(stages):
        if stage.name == wanted.lower():
            return stage.index
    if wanted.isascii() and wanted.isdigit() and int(wanted) < len(stages):
        return int(wanted)
    near = did_you_mean(wanted, [stage.name for stage in stages if stage.name])
    raise DockerfileError(f"there is no stage {wanted!r} to take as the target{near}", stages[-1].from_.span)


def _downwards(view: CheckedStage | None) -> Iterator[CheckedStage]:
    while view is not None:
        yield view
        view = view.parent
