"""Keys: what a node's result is known by, before anything runs and once its inputs are known.

Both keys are BLAKE3 over a canonical encoding. In them: the operation, the platform, the inputs. Never in them: where
the context lies, who builds, when, on what machine, names of stages and files of the Dockerfile, comments.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from cache import encoding
from cache.errors import BuildgraphError, DefinitionError
from compiler.dockerfile.errors import DockerfileError
from compiler.failure import FailedAt
from compiler.graph import ROOTFS, Graph, ImageSource, Node
from worker.copy import copy_facts, destination_facts, directory_facts, keep_rule, source_digest
from worker.file_list import Listed, list_below, list_selected
from worker.operation import Copy, MakeDirectory, Mount, Pattern, Run, key_form
from worker.run_key import mounted_key, path_digest, run_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.result import Layer
    from worker.library import LayerLibrary
    from worker.tree import Tree


class Keys:
    """Recipe keys of all nodes, and content keys when asked. tree: the files of contexts and fetched files."""

    def __init__(
        self,
        graph: Graph,
        tree: Callable[[Node], Tree | None],
        marks: Callable[[Node], list[list[str]]] = lambda _: [],
    ) -> None:
        """marks: of the secrets that a step's policy wants in its keys, see `SecretMarks`."""
        self._graph = graph
        self._tree = tree
        self._marks = marks
        self._order = {node.id: place for place, node in enumerate(graph)}
        self._recipes: dict[str, str] = {}
        self._filesystems: dict[str, str] = {}
        self._parts: dict[str, dict[str, Any]] = {}
        self._own: dict[str, str] = {}
        self._operations: dict[str, str] = {}
        self._fixed: dict[str, dict[str, Any]] = {}
        self._digests: dict[str, list[tuple[str, int]]] = {}
        self._lists: dict[str, list[Listed] | None] = {}
        self._seen: dict[tuple[str, int], Any] = {}

    def recipe(self, node_id: str) -> str:
        """The recipe key. Raises DefinitionError for a source path that is not in its context."""
        if node_id in self._recipes:
            return self._recipes[node_id]
        # Inputs come before their users in the graph, so going through it in order needs no recursion.
        for name in sorted(self._without_recipe(node_id), key=self._order.__getitem__):
            node = self._graph[name]
            try:
                recipe = self._recipes[name] = self._recipe(node)
            except BuildgraphError as error:
                raise self._graph.secrets.hide(error) from None
            # COPY --link knows nothing of what is below it; what stands on it knows both.
            linked = node.is_step and self.ignores_rootfs(node)
            below = self._filesystems[node.inputs[ROOTFS]] if linked else ""
            self._filesystems[name] = encoding.key("linked", [below, recipe]) if linked else recipe
        return self._recipes[node_id]

    def filesystem(self, node_id: str) -> str:
        """A key over all layers up to this node's: what the recipe keys of those that take from it count."""
        self.recipe(node_id)
        return self._filesystems[node_id]

    def parts(self, node_id: str) -> dict[str, Any]:
        """What the recipe key was made of, for a comparison with another day's."""
        self.recipe(node_id)
        return self._parts[node_id]

    def own(self, node_id: str) -> str:
        """A key over what is a step's own: the operation, and files from outside. No result of the store can be this
        step's if none was made under the same one, whatever comes out of the steps below."""
        self.recipe(node_id)
        return self._own[node_id]

    def operation(self, node_id: str) -> str:
        """A key over what a step does, whatever the platform and the files."""
        self.recipe(node_id)
        return self._operations[node_id]

    def _without_recipe(self, node_id: str) -> set[str]:
        """The node and all below it whose recipe keys are still to be worked out."""
        found: set[str] = set()
        pending = [node_id]
        while pending:
            name = pending.pop()
            if name not in self._recipes and name not in found:
                found.add(name)
                pending += self._graph[name].inputs
        return found

    def _recipe(self, node: Node) -> str:
        if isinstance(node.definition, ImageSource):
            return encoding.key("image", [layer.content for layer in node.definition.layers])
        if node.kind == "stage":
            # A stage is its last filesystem: its name and place do not matter.
            return self._filesystems[node.inputs[ROOTFS]]
        if not node.is_step:
            return encoding.key(node.kind, "")
        found = self._sources(node)
        marks = self._marks(node) if node.policy.secret_in_key else []
        fixed = {"operation": key_form(node.definition), "platform": node.platform}
        fixed.update({"secrets": marks} if marks else {})
        self._fixed[node.id] = fixed
        # The operation is by far the longest part of these keys: it is encoded once.
        said = {name: encoding.canonical(value) for name, value in fixed.items()}
        own = [digest for digest, _ in found]
        self._own[node.id] = encoding.key_of_encoded("own", {**said, "sources": encoding.canonical(own)})
        self._operations[node.id] = encoding.key_of_encoded("operation", {"operation": said["operation"]})
        parts = self._parts[node.id] = {
            **fixed,
            "rootfs": self._rootfs_part(node),
            "sources": [digest or self._filesystems[node.inputs[number]] for digest, number in found],
        }
        more = {name: encoding.canonical(parts[name]) for name in ("rootfs", "sources")}
        return encoding.key_of_encoded("recipe", {**said, **more})

    def _rootfs_part(self, node: Node) -> str:
        return "" if self.ignores_rootfs(node) else self._filesystems[node.inputs[ROOTFS]]

    def ignores_rootfs(self, node: Node) -> bool:
        """Whether the step looks at nothing below, as COPY --link does."""
        operation = node.definition
        return isinstance(operation, Copy) and operation.link and not needs_names(operation.owner)

    def is_tree(self, node: Node, number: int) -> bool:
        """Whether an input is files from outside, which the recipe key counts as they are."""
        return self._tree_at(node, number) is not None

    def seen(self, node: Node, number: int) -> Any:
        """The `facts` of an input, as they were when `content` was asked last."""
        return self._seen[node.id, number]

    def _seen_of(self, node: Node, number: int, facts: Any) -> Any:
        self._seen[node.id, number] = facts
        return facts

    def facts(
        self, node: Node, number: int, layers: Callable[[str], Sequence[Layer]], library: LayerLibrary
    ) -> Any:
        """What the content key counts of an input that consists of layers; None for all of it."""
        operation = node.definition
        if isinstance(operation, Run):
            return None if number == ROOTFS else self._mounted(node, number, operation, layers, library)
        if number != ROOTFS:
            assert isinstance(operation, Copy)
            trees = {number: library.tree(layers(node.inputs[number]))}
            return [source_digest(each, trees, operation) for each in _patterns(operation) if each.input == number]
        rootfs = library.rootfs(layers(node.inputs[ROOTFS]))
        if isinstance(operation, MakeDirectory):
            return _plain(directory_facts(operation, rootfs))
        assert isinstance(operation, Copy)
        return _plain(destination_facts(operation, rootfs))

    def _sources(self, node: Node) -> list[tuple[str, int]]:
        """One pair a source or mount of the operation: a digest of what it selects, "" if that is in layers, and the
        number of the input."""
        found = self._digests.get(node.id)
        if found is None:
            operation = node.definition
            if isinstance(operation, Copy):
                found = [(self._source(node, each, operation), each.input) for each in _patterns(operation)]
            else:
                found = [(self._mount_source(node, mount), number) for mount, number in _mounts(operation)]
            self._digests[node.id] = found
        return found

    def _source(self, node: Node, source: Pattern, operation: Copy) -> str:
        """Of a COPY source in a context or something fetched; "" for one in layers."""
        tree = self._tree_at(node, source.input)
        if tree is None:
            return ""
        digest: str = at(node, source.path, lambda: source_digest(source, {source.input: tree}, operation))
        return digest

    def _tree_at(self, node: Node, number: int) -> Tree | None:
        found: Tree | None = at(node, "", lambda: self._tree(self._graph[node.inputs[number]]))
        return found

    def _mount_source(self, node: Node, mount: Mount) -> str:
        assert mount.input is not None
        tree = self._tree_at(node, mount.input)
        if tree is None:
            return ""
        digest: str = at(node, mount.source, lambda: path_digest(tree, mount.source))
        return digest

    def files(self, node: Node) -> dict[str, Callable[[], list[Listed] | None]]:
        """How to list the files of each source that is not in layers, by its digest; a list is None if they cannot be
        had: what explains a build must not break it."""
        operation = node.definition
        lists: list[Callable[[Tree], list[Listed]]] = []
        if isinstance(operation, Copy):
            more: dict[str, Any] = {"keep": keep_rule(operation), "deep": operation.parents}
            lists += [partial(list_selected, pattern=each.path, **more) for each in _patterns(operation)]
        else:
            lists += [partial(list_below, path=mount.source) for mount, _ in _mounts(operation)]
        return {
            digest: partial(self._listed, digest, partial(list_files, tree))
            for (digest, number), list_files in zip(self._sources(node), lists, strict=True)
            if (tree := self._tree_at(node, number)) is not None
        }

    def _listed(self, digest: str, ask: Callable[[], list[Listed]]) -> list[Listed] | None:
        """Each list once: what explains a step wants it, and so does its record."""
        if digest not in self._lists:
            try:
                self._lists[digest] = ask()
            except BuildgraphError:
                self._lists[digest] = None
        return self._lists[digest]

    def content(self, node: Node, layers: Callable[[str], Sequence[Layer]], library: LayerLibrary) -> str:
        """The content key of a step whose inputs are known.

        layers: the layers of an input node, lowest first. May fetch an image's layers, to learn what is in them.
        Raises DefinitionError with the place, RemoteError.
        """
        operation = node.definition
        if isinstance(operation, Run):
            sources = [
                digest or self._seen_of(node, number, self._mounted(node, number, operation, layers, library))
                for digest, number in self._sources(node)
            ]
            self._seen_of(node, ROOTFS, None)
            self.recipe(node.id)
            rootfs_contents = [layer.content for layer in layers(node.inputs[ROOTFS])]
            form = self._fixed[node.id]["operation"]
            return run_key(form, node.platform, rootfs_contents, sources, self.marks(node))
        rootfs = library.rootfs(layers(node.inputs[ROOTFS]))
        if isinstance(operation, MakeDirectory):
            parts: dict[str, Any] = at(node, "", lambda: directory_facts(operation, rootfs))
            self._seen_of(node, ROOTFS, _plain(parts))
        else:
            assert isinstance(operation, Copy)
            trees = {
                number: self._tree(self._graph[name]) or library.tree(layers(name))
                for number, name in enumerate(node.inputs)
                if number != ROOTFS
            }
            parts = at(node, "", lambda: copy_facts(operation, trees, rootfs))
            digests = list(zip(operation.sources, parts["sources"], strict=True))
            for number in trees:
                taken = [digest for each, digest in digests if isinstance(each, Pattern) and each.input == number]
                self._seen_of(node, number, taken)
            below = {name: fact for name, fact in parts.items() if name != "sources"}
            self._seen_of(node, ROOTFS, _plain(below))
        self.recipe(node.id)
        parts = {**parts, **self._fixed[node.id]}
        return encoding.key("content", _plain(parts))

    def marks(self, node: Node) -> list[list[str]]:
        """Of the secrets that count, as its keys do it."""
        self.recipe(node.id)
        found: list[list[str]] = self._fixed[node.id].get("secrets", [])
        return found

    def _mounted(
        self,
        node: Node,
        number: int,
        operation: Run,
        layers: Callable[[str], Sequence[Layer]],
        library: LayerLibrary,
    ) -> str:
        return mounted_key(operation, number, library.tree(layers(node.inputs[number])))


def _patterns(operation: Copy) -> list[Pattern]:
    """Its sources that are not heredocs."""
    return [source for source in operation.sources if isinstance(source, Pattern)]


def _mounts(operation: object) -> list[tuple[Mount, int]]:
    """Mounts of a RUN that show an input, and the number of that."""
    mounts = operation.mounts if isinstance(operation, Run) else ()
    return [(mount, mount.input) for mount in mounts if mount.input is not None]


def needs_names(owner: str) -> bool:
    """Whether an owner has a name in it, which only the image's own passwd and group files can turn into numbers."""
    return any(part and not part.isdigit() for part in owner.split(":"))


def at(node: Node, text: str, ask: Callable[[], Any]) -> Any:
    """Ask, and have what is wrong point at the node's instruction, if possible at the text in it."""
    try:
        return ask()
    except (DockerfileError, FailedAt):
        raise
    except DefinitionError as error:
        if node.span is None:
            raise
        raise DockerfileError(error.message, node.span.find(text), hint=error.hint) from None
    except BuildgraphError as error:
        raise FailedAt(node.span, error) from None


def _plain(value: Any) -> Any:
    """Facts as plain data: attributes of files hold bytes, which the encoding does not."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
