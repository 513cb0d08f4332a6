"""Model of the cache: recomputes everything of a graph, and keeps its own books on what was ever made."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from compiler.graph import ROOTFS, ContextSource, Graph, ImageSource, Node
from tests.compiler import model_tree
from tests.compiler.model_tree import Tree, frozen, resolve
from worker.operation import Copy, MakeDirectory, Pattern, Run

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence, Set

    from cache.digest import Digest
    from cache.result import Result
    from compiler.options import BuildOptions
    from tests.compiler.pretended import Observed

Named = tuple[Any, Tree]
"""A layer, and what it counts as: an image's by its bytes, all others by what they say."""


class Made(NamedTuple):
    """A result. real: its key in the store. tar: of its layer. old: older than any ttl."""

    real: str
    tar: Digest
    old: bool = False


class Expected(NamedTuple):
    """What a build must do. known: by recipe. wanted: whose layers it needs. open: wanted steps that are not known.
    runs: by key, the least and the most times that it runs. owns: what is a
    step's own. layers: of every step; merged: the target's filesystem."""

    known: set[str]
    wanted: set[str]
    open: list[Node]
    runs: dict[int, tuple[int, int]]
    keys: dict[str, int]
    owns: dict[str, int]
    recipes: dict[str, int]
    layers: dict[str, Tree]
    merged: Tree


class Model:
    """recorded: recipe → key of the action that it led to. made: key → its result. Both kinds of key are what they are
    made of, in plain tuples, numbered in the order in which they first came up."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self.recorded: dict[int, int] = {}
        self.made: dict[int, Made] = {}
        self.lost: set[Digest] = set()
        self.real_recipes: dict[int, str] = {}
        self._real: dict[int, str] = {}
        self._owns: set[int] = set()
        self._first: dict[Hashable, Digest] = {}

    def usable(self, key: int | None) -> bool:
        return key in self.made and self.made[key].tar not in self.lost

    def expect(self, graph: Graph, images: Mapping[str, Sequence[Tree]], files: Tree, options: BuildOptions) -> Expected:
        """images: their layers by name. files: of the context."""
        layers: dict[str, list[Named]] = {}
        recipes: dict[str, int] = {}
        whole: dict[str, int] = {}  # as recipes, but of the whole filesystem, where a step looks at nothing below
        keys: dict[str, int] = {}
        owns: dict[str, int] = {}
        made: dict[str, Tree] = {}
        for node in graph:
            if isinstance(node.definition, ImageSource):
                layers[node.id] = [(("image", frozen(each)), each) for each in images[node.definition.name]]
                recipes[node.id] = self._number("image", tuple(name for name, _ in layers[node.id]))
            elif isinstance(node.definition, ContextSource):
                layers[node.id] = [("context", files)]
                recipes[node.id] = self._number("context")
            elif node.kind == "stage":
                layers[node.id] = layers[node.inputs[ROOTFS]]
                recipes[node.id] = whole[node.inputs[ROOTFS]]
            else:
                below = [layers[name] for name in node.inputs]
                trees = [model_tree.merge(tree for _, tree in each) for each in below]
                made[node.id] = _layer(node, trees)
                layers[node.id] = [*below[ROOTFS], (("ours", frozen(made[node.id])), made[node.id])]
                given = ["context" if each == [("context", files)] else "" for each in below]
                keys[node.id] = self._number(*_content(node, trees, tuple(name for name, _ in below[ROOTFS]), given))
                owns[node.id] = self._number(*_recipe(node, trees, [-1] * len(below), given))
                recipes[node.id] = self._number(*_recipe(node, trees, [whole[name] for name in node.inputs], given))
            whole[node.id] = recipes[node.id]
            if _sees_nothing(node):
                whole[node.id] = self._number("whole", whole[node.inputs[ROOTFS]], recipes[node.id])
        known = self._known(graph, recipes, options)
        wanted = _needed(graph, known)
        open_ = [node for node in graph if node.is_step and node.id in wanted and node.id not in known]
        merged = model_tree.merge(tree for _, tree in layers[graph.target])
        return Expected(known, wanted, open_, self._runs(open_, keys, options), keys, owns, recipes, made, merged)

    def _number(self, *parts: Hashable) -> int:
        return self._numbers.setdefault(parts, len(self._numbers))

    def _known(self, graph: Graph, recipes: Mapping[str, int], options: BuildOptions) -> set[str]:
        """Steps whose recipe says all: not those that are to run again, nor what builds on one of these."""
        again: set[str] = set()
        known: set[str] = set()
        for node in graph:
            key = self.recorded.get(recipes[node.id]) if node.is_step else None
            if _forced(node, options) or not again.isdisjoint(node.inputs) or self._expired(node, key):
                again.add(node.id)
            elif self.usable(key):
                known.add(node.id)
        return known

    def _expired(self, node: Node, key: int | None) -> bool:
        return self.usable(key) and node.policy.ttl is not None and key is not None and self.made[key].old

    def _runs(self, nodes: Sequence[Node], keys: Mapping[str, int], options: BuildOptions) -> dict[int, tuple[int, int]]:
        runs: dict[int, tuple[int, int]] = {}
        for key in {keys[node.id] for node in nodes}:
            equal = [node for node in nodes if keys[node.id] == key]
            forced = sum(1 for node in equal if _forced(node, options))
            others = [node for node in equal if not _forced(node, options)]
            missing = any(not self.usable(key) or self._expired(node, key) for node in others)
            # Of equal nodes one runs and the others take its result; whichever comes first, a forced one or another.
            runs[key] = (forced + (missing and not forced), forced + missing)
        return runs

    def check(self, expected: Expected, observed: Observed, *, alone: bool) -> None:
        """Compare, and enter into the books what is new. alone: whether one step ran at a time."""
        for name, layer in observed.layers.items():
            assert layer == expected.layers[name], f"a stale result of {name}"
        assert observed.merged == expected.merged
        assert expected.wanted >= observed.layers.keys() - expected.known
        assert sorted(observed.nodes) == sorted(node.id for node in expected.open)
        counts = Counter(expected.keys[name] for name in observed.ran)
        assert counts.keys() <= expected.runs.keys()
        back = self._back(expected, observed)
        for key, (least, most) in expected.runs.items():
            least = 0 if key in back else least
            names = [node.id for node in expected.open if expected.keys[node.id] == key]
            assert least <= counts[key] <= most, f"{names} ran {counts[key]} times, not {least} to {most}"
        assert not any(result.varies for result in observed.results.values()), "all these commands are deterministic"
        self._check_forecast(expected, observed, counts.keys() | back)
        if alone:
            self._check_earlier(expected, observed)
        self._learn(expected, observed)

    def _back(self, expected: Expected, observed: Observed) -> set[int]:
        """Keys of results whose lost layers were made anew, byte for byte, by another step of this build."""
        again: dict[Digest, set[int]] = {}
        for name in observed.ran:
            again.setdefault(tar_of(observed.results[name]), set()).add(expected.keys[name])
        return {key for key, made in self.made.items() if made.tar in self.lost and again.get(made.tar, set()) - {key}}

    def _check_forecast(self, expected: Expected, observed: Observed, made: Set[int]) -> None:
        outlooks = {each.node.id: each for each in observed.forecast.outlooks}
        waits: dict[str, bool] = {}  # by node: whether all that is open at and below it comes out as it did before
        for name, outlook in outlooks.items():
            node, key = outlook.node, expected.keys.get(name, -1)
            same = all(waits[below] for below in node.inputs)
            waits[name] = same
            if not node.is_step:
                continue
            if outlook.same_as:
                other = outlook.same_as
                assert expected.keys[name] == expected.keys[other], f"{name} is not the same as {other}"
                # With several at once either may begin first.
                assert not {name, other} <= set(observed.ran), f"{name} was to take what {other} makes"
            elif outlook.status == "hit":
                assert name not in observed.ran, f"{name} was to hit and ran"
            if outlook.is_open:
                waits[name] = same and observed.before.get(name) == expected.layers[name]
            if outlook.status == "miss":
                # Or another one that may come to the same, if it began first.
                like = {name, *(other for other, each in outlooks.items() if each.like == name)}
                group = like | {other for other, each in outlooks.items() if each.same_as in like}
                assert group & set(observed.ran), f"{name} was to run and did not"
            if outlook.status == "depends":
                ever = outlook.like or expected.owns[name] in self._owns
                assert ever, f"{name} is to depend, but nothing like it was ever made"
            if outlook.status == "depends" and same:
                if outlook.if_same == "hit":
                    assert name not in observed.ran, f"{name} ran though its inputs came out the same"
                elif outlook.if_same == "miss":
                    assert key in made, f"{name} did not run though its inputs came out the same"

    def _check_earlier(self, expected: Expected, observed: Observed) -> None:
        """What an operation said before, it says in the same bytes again."""
        definitions = {node.id: node.definition for node in expected.open}
        for name in observed.ran:
            made = tar_of(observed.results[name])
            said = (definitions[name], frozen(expected.layers[name]))
            before = self._first.get(said, made)
            assert made == before or before in self.lost, f"{name} said the same in another layer"
            self._first[said] = made

    def _learn(self, expected: Expected, observed: Observed) -> None:
        ran = {expected.keys[name] for name in observed.ran}
        for node in expected.open:
            key, result = expected.keys[node.id], observed.results[node.id]
            real = observed.nodes[node.id].content
            assert self._real.setdefault(key, real) == real, f"two keys of equal actions, one of them {node.id}"
            self.recorded[expected.recipes[node.id]] = key
            self._owns.add(expected.owns[node.id])
            if key in ran:
                self.made[key] = Made(real, tar_of(result))
                self.lost.discard(tar_of(result))
        assert len(set(self._real.values())) == len(self._real), "one key of two actions"
        for name, number in expected.recipes.items():
            recipe = observed.recipes[name]
            assert self.real_recipes.setdefault(number, recipe) == recipe, f"two recipe keys of equal nodes, one {name}"
        assert len(set(self.real_recipes.values())) == len(self.real_recipes), "one recipe key of two nodes"


def tar_of(result: Result) -> Digest:
    assert result.layer is not None
    assert result.layer.tar is not None
    return result.layer.tar


def _forced(node: Node, options: BuildOptions) -> bool:
    return node.is_step and (options.no_cache or node.stage in options.no_cache_stages or node.policy.no_cache)


def _needed(graph: Graph, known: set[str]) -> set[str]:
    """All layers of the target, and all inputs of what must run; worked out from the top."""
    wanted = {graph.target}
    for node in reversed(list(graph)):
        if node.id in wanted:
            wanted |= set(node.inputs[:1] if node.id in known else node.inputs)
    return wanted


def _layer(node: Node, trees: Sequence[Tree]) -> Tree:
    operation: Any = node.definition
    if isinstance(operation, Run):
        return model_tree.run(operation.argv, trees[ROOTFS], _mounts(operation, trees))
    if isinstance(operation, MakeDirectory):
        return model_tree.make_directory(operation, trees[ROOTFS])
    return model_tree.copy(operation, dict(enumerate(trees)), trees[ROOTFS])


def _mounts(operation: Run, trees: Sequence[Tree]) -> list[Tree]:
    shown = []
    for mount in operation.mounts:
        assert mount.input is not None
        path, item, _ = resolve(trees[mount.input], mount.source)
        shown.append({} if item is None else model_tree.below(trees[mount.input], path))
    return shown


def _content(node: Node, trees: Sequence[Tree], rootfs: Hashable, given: Sequence[str]) -> tuple[Hashable, ...]:
    """What an action is known by: the operation, and what it takes of its inputs."""
    operation: Any = node.definition
    if isinstance(operation, Run):
        mounts = zip(operation.mounts, _mounts(operation, trees), strict=True)
        return "run", node.platform, operation, rootfs, tuple((given[mount.input or 0], frozen(tree)) for mount, tree in mounts)
    if isinstance(operation, MakeDirectory):
        owner = model_tree.owner_of(operation.owner, trees[ROOTFS]) if operation.owner else (0, 0)
        return "workdir", node.platform, operation, owner, resolve(trees[ROOTFS], operation.path)[2]
    owned = model_tree.owner_of(operation.owner, trees[ROOTFS]) if operation.owner else None
    place = None if operation.link else resolve(trees[ROOTFS], operation.destination)[2]
    return "copy", node.platform, operation, _selections(operation, trees), owned, place


def _selections(operation: Copy, trees: Sequence[Tree]) -> tuple[Hashable, ...]:
    taken = [each for each in operation.sources if isinstance(each, Pattern)]
    return tuple(model_tree.selection(operation, trees[each.input], each.path) for each in taken)


def _recipe(node: Node, trees: Sequence[Tree], below: Sequence[int], given: Sequence[str]) -> tuple[Hashable, ...]:
    """What a node is known by before anything runs: the operation, files from outside, and the nodes below."""
    operation: Any = node.definition
    rootfs = None if _sees_nothing(node) else below[ROOTFS]
    sources: list[Hashable] = []
    if isinstance(operation, Copy):
        taken = [each for each in operation.sources if isinstance(each, Pattern)]
        for source, selection in zip(taken, _selections(operation, trees), strict=True):
            sources.append(selection if given[source.input] else below[source.input])
    elif isinstance(operation, Run):
        for mount, tree in zip(operation.mounts, _mounts(operation, trees), strict=True):
            assert mount.input is not None
            sources.append(frozen(tree) if given[mount.input] else below[mount.input])
    return "recipe", node.platform, operation, rootfs, tuple(sources)


def _sees_nothing(node: Node) -> bool:
    """Whether a step is a COPY --link that needs not even the users of what it comes to lie on."""
    operation = node.definition
    return isinstance(operation, Copy) and operation.link and (not operation.owner or operation.owner.isdigit())
