"""Definitions that are made up and edited by hypothesis: stages of steps on images and a context, without a Dockerfile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from cache.entry import SYMLINK
from cache.image_config import ImageConfig
from compiler.dockerfile.policy import NO_POLICY, Policy
from compiler.graph import ContextSource, Graph, ImageSource, Node, StageOutput
from tests.compiler.graphs import AMD64
from tests.compiler.model_tree import Item, Tree, directory, file
from worker.operation import Copy, Inline, MakeDirectory, Mount, Operation, Pattern, Run

if TYPE_CHECKING:
    from cache.result import Layer

TTL = 3600.0
IMAGES = ("one", "two")
_PLAIN: Tree = {
    "d": directory(), "e": directory(), "etc": directory(), "usr": directory(), "usr/tool": file("tool 1"),
    "etc/passwd": file("app:x:7:7::/:/bin/sh\n"),
}  # fmt: skip
VERSIONS: tuple[tuple[Tree, ...], ...] = (
    (_PLAIN,),
    ({**_PLAIN, "usr/tool": file("tool 2")},),
    (_PLAIN, {"usr": directory(), "usr/tool": file("tool 2")}),
    ({**_PLAIN, "d": directory(0o700)},),
    ({**_PLAIN, "d": Item(SYMLINK, 0o777, said="e")},),
    ({**_PLAIN, "new": directory(), "new/a": file("there before")},),
    ({**_PLAIN, "etc/passwd": file("app:x:8:8::/:/bin/sh\n")},),
)
"""What a base image may be. For most copies the first three are one and the same, for each other one some are not."""

# Nothing here is a file in one place and a directory in the other: no copy is impossible.
_FOLDERS = ("/d/", "/d", "/e/", "/new/", "/new/deep/", "/")
_FILES = ("d/a", "d/b", "d/sub/c", "e/a", "new/a", "out/x", "usr/tool")
_TEXTS = ("1", "2")

contexts = st.fixed_dictionaries(
    {"src/a": st.builds(file, st.sampled_from(_TEXTS), st.sampled_from((0o644, 0o755))), "one": st.just(file("one"))},
    optional={
        "src/b": st.builds(file, st.sampled_from(_TEXTS)),
        "src/sub/c": st.builds(file, st.sampled_from(_TEXTS)),
        "src/l": st.sampled_from([Item(SYMLINK, 0o777, said=to) for to in "ab"]),
    },
)
runs = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(_FILES), st.sampled_from(_TEXTS)),
    st.tuples(st.just("write"), st.sampled_from(_FILES[:2]), st.sampled_from(_TEXTS), st.just("and say otherwise")),
    st.tuples(st.just("sum"), st.sampled_from(_FILES)),
    st.tuples(st.just("part"), st.sampled_from(_FILES), st.sampled_from(_FILES)),
    st.tuples(st.just("remove"), st.sampled_from(("d/a", "e/a", "new/a"))),
    st.tuples(st.just("user"), st.sampled_from(("7", "8"))),
)
policies = st.sampled_from((NO_POLICY,) * 5 + (Policy(ttl=TTL),) * 2 + (Policy(no_cache=True),))


Draw = Callable[[st.SearchStrategy[Any]], Any]
Change = Callable[[Draw, "Definition"], None]


class Step(NamedTuple):
    """takes: what inputs 1 and on are: the number of a stage, the name of an image, or "context"."""

    operation: Operation
    takes: tuple[int | str, ...] = ()
    policy: Policy = NO_POLICY


class Stage(NamedTuple):
    """number: names it for other stages, whatever it is called. base: the number of a stage or the name of an image."""

    number: int
    name: str
    base: int | str
    steps: tuple[Step, ...]


@dataclass
class Definition:
    """stages: each one behind those that it builds on or takes from. versions: of VERSIONS, by image. file: which of
    several Dockerfiles it is."""

    stages: list[Stage]
    target: int
    files: Tree
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(IMAGES, 0))
    file: str = "Dockerfile"

    def images(self) -> dict[str, tuple[Tree, ...]]:
        return {name: VERSIONS[version] for name, version in self.versions.items()}

    def reached(self) -> list[Stage]:
        """What the target needs, as lowering has it: nothing else is in a graph."""
        wanted = {self.target}
        for stage in reversed(self.stages):
            if stage.number in wanted:
                wanted |= {stage.base, *(each for step in stage.steps for each in step.takes)}  # type: ignore[arg-type]
        return [stage for stage in self.stages if stage.number in wanted]

    def graph(self, layer: Callable[[Tree], Layer]) -> Graph:
        """layer: gives an image's layer."""
        made = Graph()
        ids: dict[int | str, str] = {}

        def source(name: int | str) -> str:
            if name not in ids:
                text = str(name)
                ids[name] = f"source {text}"
                layers = tuple(layer(tree) for tree in VERSIONS[self.versions.get(text, 0)])
                what: Any = ContextSource("") if name == "context" else ImageSource(text, None, layers, "")
                made.add(Node(ids[name], "context" if name == "context" else "image", "", text, None, (), what))
            return ids[name]

        for place, stage in enumerate(self.stages):
            if stage not in self.reached():
                continue
            rootfs, name = source(stage.base), stage.name or str(place)
            for number, step in enumerate(stage.steps, 1):
                kind = {Run: "run", Copy: "copy", MakeDirectory: "workdir"}[type(step.operation)]
                inputs = (rootfs, *map(source, step.takes))
                text = str(step.operation)
                node = Node(f"{name}.{number}", kind, name, text, None, inputs, step.operation, str(AMD64), step.policy)
                rootfs = made.add(node).id
            output = StageOutput(ImageConfig.empty(AMD64), ())
            ids[stage.number] = made.add(Node(name, "stage", name, "", None, (rootfs,), output)).id
        made.target = ids[self.target]
        return made

    def names(self) -> list[str]:
        return [stage.name or str(place) for place, stage in enumerate(self.stages)]


KINDS = ("run", "run", "run", "mounted", "mounted", "context", "context", "stage", "stage", "text", "workdir")
TAKERS = ("mounted", "stage")
COPIES = ("context", "text", "workdir")


@st.composite
def steps(draw: st.DrawFn, before: tuple[int, ...], kinds: tuple[str, ...] = KINDS) -> Step:
    """before: numbers of stages that it may take from."""
    kind = draw(st.sampled_from(kinds))
    policy = draw(policies)
    if kind == "run":
        return Step(_run(draw(runs)), (), policy)
    if kind == "workdir":
        path, owner = draw(st.sampled_from(("/d/sub", "/new", "/e/w/w"))), draw(st.sampled_from(("", "app")))
        return Step(MakeDirectory(path, owner), (), policy)
    if kind == "mounted":
        taken = draw(st.lists(st.sampled_from((*before, *IMAGES, "context")), min_size=1, max_size=2, unique=True))
        paths = (("src", "src/a") if each == "context" else ("d", "usr/tool", "new") for each in taken)
        mounts = tuple(
            Mount("bind", f"/m{number}", number, draw(st.sampled_from(some)), read_only=True)
            for number, some in enumerate(paths, 1)
        )
        return Step(_run(("mounted", draw(st.sampled_from(_FILES))), mounts), tuple(taken), policy)
    folder = draw(st.sampled_from(_FOLDERS))
    how = {
        "owner": draw(st.sampled_from(("", "", "app", "5"))),
        "mode": draw(st.sampled_from(("", "", "700"))),
        "link": draw(st.sampled_from((False, False, folder.endswith("/")))),
        "exclude": draw(st.sampled_from(((), (), ("b",), ("sub",)))),
    }
    if kind == "text":
        return Step(Copy((Inline("a", draw(st.sampled_from(_TEXTS))),), folder, **how), (), policy)
    if kind == "context":
        paths = draw(st.sampled_from((("src",), ("src/a",), ("src/*",), ("src/a", "one"), ("one",))))
        if paths == ("src/a",) and not how["link"]:
            folder = draw(st.sampled_from((folder, "/d/b", "/out/x")))
        return Step(Copy(tuple(Pattern(1, path) for path in paths), folder, **how), ("context",), policy)
    path = draw(st.sampled_from(("/d", "/d/*", "/e/", "/usr/tool", "/new*")))
    taken = [draw(st.sampled_from((*before, *before, *IMAGES)))]
    return Step(Copy((Pattern(1, path),), folder, **how, from_context=False), tuple(taken), policy)


def _run(argv: tuple[str, ...], mounts: tuple[Mount, ...] = ()) -> Run:
    return Run(argv, (), "/", "", "default", "host", mounts)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    stages: list[Stage] = []
    for number in range(draw(st.sampled_from((3, 2, 4, 1)))):
        before = tuple(range(number))
        base = draw(st.sampled_from((*IMAGES, *before)))
        made = draw(st.lists(steps(before), min_size=1, max_size=4))
        stages.append(Stage(number, draw(st.sampled_from(("", f"s{number}"))), base, tuple(made)))
    return Definition(stages, len(stages) - 1, draw(contexts))


@st.composite
def copies(draw: st.DrawFn) -> Definition:
    """One stage on an image, in which nothing is run: not much may depend on that image."""
    made = draw(st.lists(steps((), COPIES), min_size=1, max_size=4))
    plain = tuple(step._replace(policy=NO_POLICY) for step in made)
    return Definition([Stage(0, "", IMAGES[0], plain)], 0, draw(contexts))


@st.composite
def givers(draw: st.DrawFn) -> Definition:
    """A stage, and another one that takes from it."""
    given = draw(st.lists(steps(()), min_size=1, max_size=2))
    taken = draw(st.lists(steps((0, 0, 0), TAKERS), min_size=1, max_size=2))
    stages = [Stage(0, "given", IMAGES[0], tuple(given)), Stage(1, "", IMAGES[1], tuple(taken))]
    return Definition(stages, 1, draw(contexts))


def edit(draw: Draw, made: Definition, changes: tuple[Change, ...] = ()) -> str:
    """Change one thing of a definition or of what it takes from, EDITS if nothing else is given; what that was."""
    change = draw(st.sampled_from(changes or EDITS))
    change(draw, made)
    return change.__name__.strip("_").replace("_", " ")


def _pick(draw: Draw, made: Definition) -> tuple[int, Stage]:
    place = draw(st.integers(0, len(made.stages) - 1))
    return place, made.stages[place]


def _before(made: Definition, place: int) -> tuple[int, ...]:
    return tuple(stage.number for stage in made.stages[:place])


def _with_steps(made: Definition, place: int, steps_: list[Step]) -> None:
    made.stages[place] = made.stages[place]._replace(steps=tuple(steps_))


def _change_step(draw: Draw, made: Definition) -> None:
    place, stage = _pick(draw, made)
    if stage.steps:
        number = draw(st.integers(0, len(stage.steps) - 1))
        _with_steps(made, place, [*stage.steps[:number], draw(steps(_before(made, place))), *stage.steps[number + 1 :]])


def _insert_step(draw: Draw, made: Definition) -> None:
    place, stage = _pick(draw, made)
    number = draw(st.integers(0, len(stage.steps)))
    _with_steps(made, place, [*stage.steps[:number], draw(steps(_before(made, place))), *stage.steps[number:]])


def _repeat_step(draw: Draw, made: Definition) -> None:
    """The same step, at another place or in another stage."""
    place, stage = _pick(draw, made)
    all_ = [step for each in made.stages[: place + 1] for step in each.steps if set(step.takes) <= {*_before(made, place), *IMAGES, "context"}]
    if all_:
        number = draw(st.integers(0, len(stage.steps)))
        _with_steps(made, place, [*stage.steps[:number], draw(st.sampled_from(all_)), *stage.steps[number:]])


def _remove_step(draw: Draw, made: Definition) -> None:
    place, stage = _pick(draw, made)
    if stage.steps:
        number = draw(st.integers(0, len(stage.steps) - 1))
        _with_steps(made, place, [*stage.steps[:number], *stage.steps[number + 1 :]])


def _swap_steps(draw: Draw, made: Definition) -> None:
    place, stage = _pick(draw, made)
    _with_steps(made, place, list(stage.steps[::-1]))


def _change_policy(draw: Draw, made: Definition) -> None:
    place, stage = _pick(draw, made)
    if stage.steps:
        number = draw(st.integers(0, len(stage.steps) - 1))
        changed = stage.steps[number]._replace(policy=draw(policies))
        _with_steps(made, place, [*stage.steps[:number], changed, *stage.steps[number + 1 :]])


def _rename(draw: Draw, made: Definition) -> None:
    place, stage = _pick(draw, made)
    made.stages[place] = stage._replace(name=draw(st.sampled_from(("", f"s{stage.number}", f"r{stage.number}"))))


def _reorder(draw: Draw, made: Definition) -> None:
    """Move a stage up before the first one that it could stand before."""
    place, stage = _pick(draw, made)
    needs = {stage.base, *(each for step in stage.steps for each in step.takes)}
    lowest = max((at + 1 for at, each in enumerate(made.stages[:place]) if each.number in needs), default=0)
    made.stages.insert(draw(st.integers(lowest, place)), made.stages.pop(place))


def _change_base(draw: Draw, made: Definition) -> None:
    place, stage = _pick(draw, made)
    made.stages[place] = stage._replace(base=draw(st.sampled_from((*IMAGES, *_before(made, place)))))


def _change_file(draw: Draw, made: Definition) -> None:
    other = draw(contexts)
    path = draw(st.sampled_from(sorted({*other, *made.files})))
    made.files = {name: item for name, item in made.files.items() if name != path}
    if path in other:
        made.files[path] = other[path]


def _move_image(draw: Draw, made: Definition) -> None:
    made.versions = {**made.versions, draw(st.sampled_from(IMAGES)): draw(st.integers(0, len(VERSIONS) - 1))}


def _retarget(draw: Draw, made: Definition) -> None:
    made.target = draw(st.sampled_from([stage.number for stage in made.stages]))


def _another_file(draw: Draw, made: Definition) -> None:
    made.file = draw(st.sampled_from(("Dockerfile", "other.Dockerfile")))


NAMES_ONLY: tuple[Change, ...] = (_rename, _reorder)
"""What changes nothing that is built."""
EDITS: tuple[Change, ...] = (
    _change_step, _change_step, _insert_step, _insert_step, _remove_step, _swap_steps, _repeat_step, _change_policy, _rename,
    _reorder, _change_base, _change_file, _change_file, _move_image, _move_image, _retarget, _another_file,
)  # fmt: skip
BELOW: tuple[Change, ...] = (_change_step, _change_step, _insert_step, _remove_step, _change_file, _move_image)
"""What may give a step other inputs."""
