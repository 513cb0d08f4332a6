"""Keys: what changes them and what does not (DESIGN 4, I1)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import encoding
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from compiler.graph import ContextSource, Graph, Node
from compiler.keys import Keys
from tests.compiler.graphs import AMD64, World, graph, lower, made_image, scratch, stage
from worker.context import ContextTree
from worker.ignore import IgnoreRules
from worker.operation import Copy, Inline, MakeDirectory, Mount, Operation, Pattern, Run, Script, key_form

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.tree import Tree

RUN = Run(("/bin/sh", "-c", "x"), (("A", "1"), ("B", "2")), "/", "", "default", "host")
MOUNT = Mount("tmpfs", "/t")
COPY = Copy((Inline("f", "text"),), "/d")
CHANGES: list[tuple[Operation, dict[str, Any]]] = [
    (RUN, {"argv": ("/bin/sh", "-c", "y")}),
    (RUN, {"argv": ("/bin/sh", "-c x")}),
    (RUN, {"argv": ("/bin/sh", "-c", "x", "")}),
    (RUN, {"env": (("A", "1"), ("B", "3"))}),
    (RUN, {"env": (("A", "1"),)}),
    (RUN, {"cwd": "/x"}),
    (RUN, {"user": "1"}),
    (RUN, {"network": "none"}),
    (RUN, {"hostname": "other"}),
    (RUN, {"mounts": (MOUNT,)}),
    (RUN, {"scripts": (Script("EOF", "x"),)}),
    (RUN, {"hosts": ("1.2.3.4\tx",)}),
    (RUN, {"shm_size": 1}),
    (RUN, {"ulimits": (("nofile", 1, 2),)}),
    (RUN, {"insecure": True}),
    (COPY, {"sources": (Inline("f", "other"),)}),
    (COPY, {"sources": (Inline("g", "text"),)}),
    (COPY, {"destination": "/d/"}),
    (COPY, {"owner": "1:1"}),
    (COPY, {"mode": "644"}),
    (COPY, {"mode": "u=rw"}),
    (COPY, {"parents": True}),
    (COPY, {"link": True}),
    (COPY, {"exclude": ("x",)}),
    (COPY, {"from_context": False}),
    (MakeDirectory("/a"), {"path": "/b"}),
    (MakeDirectory("/a"), {"owner": "1"}),
]
MOUNT_CHANGES: list[dict[str, Any]] = [
    {"type": "cache"}, {"target": "/u"}, {"source": "s"}, {"read_only": True}, {"id": "i"}, {"sharing": "locked"}, {"size": 1},
    {"mode": 1}, {"uid": 1}, {"gid": 1}, {"required": True}, {"env": "E"},
]  # fmt: skip


def recipe(operation: Operation, platform: Platform = AMD64, name: str = "1") -> str:
    kind = "run" if isinstance(operation, Run) else "copy"
    node = Node(name, kind, "s", "text", None, ("scratch",), operation, str(platform))
    return Keys(graph(scratch(), node), lambda _: None).recipe(name)


@pytest.mark.parametrize(("operation", "change"), CHANGES, ids=lambda value: str(value)[:40])
def test_each_field_of_an_operation_counts(operation: Operation, change: dict[str, Any]) -> None:
    assert recipe(operation) != recipe(operation._replace(**change))


@pytest.mark.parametrize("change", MOUNT_CHANGES, ids=str)
def test_each_field_of_a_mount_counts(change: dict[str, Any]) -> None:
    assert recipe(RUN._replace(mounts=(MOUNT,))) != recipe(RUN._replace(mounts=(MOUNT._replace(**change),)))


def test_every_field_is_tried() -> None:
    tried = {(type(operation), field) for operation, change in CHANGES for field in change}
    assert tried == {(kind, field) for kind in (Run, Copy, MakeDirectory) for field in kind._fields}
    assert {field for change in MOUNT_CHANGES for field in change} == set(Mount._fields) - {"input"}


def test_the_platform_counts_and_the_names_do_not() -> None:
    assert recipe(RUN) != recipe(RUN, Platform.parse("linux/arm64"))
    assert recipe(RUN) == recipe(RUN, name="another")


def key_of_target(text: str, world: World | None = None, **options: object) -> str:
    lowering = lower(text, world, **options)
    return Keys(lowering.graph, lambda _: None).recipe(lowering.graph.target)


SAME = "FROM base AS one\nARG A=1\nRUN make $A\nFROM one\nWORKDIR /w\nCOPY --from=one /a /b\nRUN x\n"


@pytest.mark.parametrize(
    "other",
    [
        SAME.replace("AS one", "AS first").replace("FROM one", "FROM first").replace("from=one", "from=first"),
        SAME.replace("from=one", "from=0"),
        "# a comment\n\n" + SAME.replace("\n", "\n\n# more\n"),
        SAME.replace("RUN make $A", "run    make $A"),
        SAME.replace("ARG A=1", "LABEL l=2\nARG A=1\nEXPOSE 80"),
        SAME.replace("RUN x", "RUN x\nCMD y\nENV LATER=1"),
        SAME.replace("WORKDIR /w", "WORKDIR /./w/"),
        SAME.replace("FROM one", "FROM base AS unused\nRUN never\nFROM one"),
        SAME.replace("A=1", "A=2").replace("$A", "$A"),
    ],
)
def test_what_does_not_change_the_build_does_not_change_keys(other: str) -> None:
    args = (("A", "1"),)
    assert key_of_target(SAME, build_args=args) == key_of_target(other, build_args=args)


@pytest.mark.parametrize(
    "other",
    [
        SAME.replace("make $A", "make  $A"),
        SAME.replace("A=1", "A=2"),
        SAME.replace("WORKDIR /w\n", ""),
        SAME.replace("/a /b", "/a /c"),
        SAME.replace("RUN x", "USER u\nRUN x"),
        SAME.replace("FROM base", "FROM other"),
        SAME.replace("RUN x", "RUN --network=none x"),
    ],
)
def test_what_changes_the_build_changes_keys(other: str) -> None:
    assert key_of_target(SAME) != key_of_target(other)


def test_proxies_and_unused_args_are_in_no_key_and_used_args_are() -> None:
    plain = key_of_target(SAME)
    assert key_of_target(SAME, build_args=(("http_proxy", "p"), ("UNUSED", "1"))) == plain
    assert key_of_target(SAME, build_args=(("A", "9"),)) != plain


def test_an_image_counts_by_its_layers_not_by_its_name() -> None:
    def keyed(world: World, name: str) -> str:
        return key_of_target(f"FROM {name}\nRUN x\n", world)

    base = made_image("base", lower("FROM base\n").graph["0"].definition.config)  # type: ignore[union-attr]
    assert keyed(World(contexts={"a": base}), "a") == keyed(World(contexts={"b": base}), "b")


def test_a_link_copy_does_not_see_what_is_below() -> None:
    def keyed(base: str, flags: str, name: str = "0.1") -> str:
        lowering = lower(f"FROM {base}\nCOPY {flags} --from=files /a /b\nRUN cat /etc/os-release\n")
        return Keys(lowering.graph, lambda _: None).recipe(name)

    assert keyed("one", "--link") == keyed("two", "--link")
    assert keyed("one", "--link --chown=1:2") == keyed("two", "--link --chown=1:2")
    assert keyed("one", "--link --chown=app") != keyed("two", "--link --chown=app"), "names are looked up below"
    assert keyed("one", "--link", "0.2") != keyed("two", "--link", "0.2"), "what stands on it sees all that is below"
    assert keyed("one", "--link", "0") != keyed("two", "--link", "0")


# files of a context


class Contexts:
    """Directories as the contexts of one Dockerfile."""

    def __init__(self, store: LmdbStore, directory: Path, ignored: tuple[str, ...] = ()) -> None:
        self.tree = ContextTree(str(directory), IgnoreRules.from_patterns(ignored), store)

    def __call__(self, node: Node) -> Tree | None:
        return self.tree if isinstance(node.definition, ContextSource) else None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(str(tmp_path / "store"))
    yield opened
    opened.close()


def fill(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


FILES = {"a.txt": "a", "b.txt": "b", "dir/c.txt": "c", "dir/d.md": "d"}


@pytest.mark.parametrize(
    ("copy", "change", "same"),
    [
        ("COPY a.txt /x", "b.txt", True),
        ("COPY a.txt /x", "a.txt", False),
        ("COPY *.txt /x/", "b.txt", False),
        ("COPY *.txt /x/", "dir/c.txt", True),
        ("COPY dir /x/", "dir/d.md", False),
        ("COPY dir /x/", "a.txt", True),
        ("COPY --exclude=*.md dir /x/", "dir/d.md", True),
        ("COPY --exclude=*.md dir /x/", "dir/c.txt", False),
        ("RUN --mount=source=dir,target=/d x", "dir/c.txt", False),
        ("RUN --mount=source=dir,target=/d x", "a.txt", True),
        ("RUN --mount=target=/d x", "a.txt", False),
    ],
)
def test_only_selected_files_count(tmp_path: Path, store: LmdbStore, copy: str, change: str, same: bool) -> None:
    lowering = lower(f"FROM base\n{copy}\n")
    directory = fill(tmp_path / "context", FILES)
    before = Keys(lowering.graph, Contexts(store, directory)).recipe("0.1")
    (directory / change).write_text("changed")
    assert (Keys(lowering.graph, Contexts(store, directory)).recipe("0.1") == before) == same


def test_the_same_tree_elsewhere_at_another_time_under_another_umask(tmp_path: Path, store: LmdbStore) -> None:
    """I1."""
    lowering = lower("FROM base\nCOPY . /x\n")
    keys = set()
    for number, umask in enumerate((0o022, 0o002, 0o077)):
        old = os.umask(umask)
        try:
            files = dict(sorted(FILES.items(), reverse=bool(number)))
            directory = fill(tmp_path / f"place {number}", files)
        finally:
            os.umask(old)
        for path in directory.rglob("*"):
            os.utime(path, (1000 + number, 1000 + number))
        if os.geteuid() == 0:
            os.chown(directory / "a.txt", number, number)
        keys.add(Keys(lowering.graph, Contexts(store, directory)).recipe("0.1"))
    assert len(keys) == 1


def test_a_renamed_file_counts_where_its_name_is_kept(tmp_path: Path, store: LmdbStore) -> None:
    directory = fill(tmp_path / "context", {"one": "same", "two": "same", "d1/f": "x", "d2/f": "x"})

    def keyed(copy: str) -> str:
        lowering = lower(f"FROM base\n{copy}\n")
        parts = Keys(lowering.graph, Contexts(store, directory)).parts("0.1")
        return encoding.key("test", parts["sources"])

    assert keyed("COPY one /x/") != keyed("COPY two /x/")
    assert keyed("COPY d1 /x/") == keyed("COPY d2 /x/"), "a directory's own name is not copied"


def test_ignored_files_do_not_count(tmp_path: Path, store: LmdbStore) -> None:
    lowering = lower("FROM base\nCOPY . /x\n")
    directory = fill(tmp_path / "context", FILES)

    def keyed() -> str:
        return Keys(lowering.graph, Contexts(store, directory, ("*.txt", "!b.txt"))).recipe("0.1")

    before = keyed()
    (directory / "a.txt").write_text("changed")
    assert keyed() == before
    (directory / "b.txt").write_text("changed")
    assert keyed() != before


# the encoding

texts = st.text(max_size=6)
mounts = st.builds(Mount, texts, texts, st.none() | st.integers(0, 3), texts, st.booleans(), texts, texts)
operations = st.one_of(
    st.builds(
        Run,
        st.lists(texts, max_size=3).map(tuple),
        st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
        texts, texts, texts, texts,
        st.lists(mounts, max_size=2).map(tuple),
        st.lists(st.builds(Script, texts, texts), max_size=2).map(tuple),
        st.lists(texts, max_size=2).map(tuple),
    ),
    st.builds(
        Copy,
        st.lists(st.builds(Pattern, st.integers(0, 3), texts, st.booleans()) | st.builds(Inline, texts, texts), max_size=3).map(tuple),
        texts, texts, texts, st.booleans(), st.lists(texts, max_size=2).map(tuple), st.booleans(),
    ),
    st.builds(MakeDirectory, texts, texts),
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(operations, operations)
def test_no_two_operations_encode_alike(one: Operation, other: Operation) -> None:
    alike = encoding.canonical(key_form(one)) == encoding.canonical(key_form(other))
    assert alike == (type(one) is type(other) and one == other)


@settings(deadline=None, max_examples=100)
@given(operations)
def test_the_encoding_is_stable_json(operation: Operation) -> None:
    form = key_form(operation)
    assert encoding.parse(encoding.canonical(form)) == form
    assert form["is"] == type(operation).__name__


def test_keys_of_a_long_chain_need_no_recursion() -> None:
    nodes = [scratch()]
    for number in range(3000):
        nodes.append(Node(str(number), "run", "s", "", None, (nodes[-1].id,), RUN))
    made = graph(*nodes, stage("end", "2999"))
    keys = Keys(made, lambda _: None)
    for node in made:
        keys.recipe(node.id)
    assert keys.recipe("end") == keys.recipe("2999") != keys.recipe("2998")


def test_parts_say_what_a_key_was_made_of() -> None:
    lowering = lower("FROM base\nRUN x\n")
    keys = Keys(lowering.graph, lambda _: None)
    parts = keys.parts("0.1")
    assert parts["operation"]["argv"] == ["/bin/sh", "-c", "x"]
    assert parts["platform"] == "linux/amd64"
    assert parts["rootfs"] == keys.recipe("image:base")
    assert keys.recipe("0.1") == encoding.key("recipe", parts)


def test_equal_steps_of_different_stages_have_one_key() -> None:
    lowering = lower("FROM base AS a\nRUN x\nFROM base AS b\nRUN x\nFROM base\nCOPY --from=a /x /a\nCOPY --from=b /x /b\n")
    made: Graph = lowering.graph
    keys = Keys(made, lambda _: None)
    assert keys.recipe("a.1") == keys.recipe("b.1")
