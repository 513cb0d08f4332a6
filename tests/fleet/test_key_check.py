"""The key of an action is that of its body: a worker works out the one that the build did, and no other body has it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from keyed import SOURCES, Keyed

from cache.entry import DIRECTORY, FILE, HARDLINK, Entry
from cache.errors import CorruptBlob
from cache.layer_writer import LayerWriter
from cache.store import Batch
from compiler.fleet.inputs import Inputs
from worker.context import ContextTree
from worker.context_digest import digest_as_context
from worker.fleet.action_body import decode_body, encode_body
from worker.fleet.key_check import check_key
from worker.ignore import IgnoreRules
from worker.operation import Mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cache.digest import Digest
    from cache.result import Layer
    from worker.action import Action
    from worker.fleet.action_body import Body


class Shelf:
    """A server that has everything."""

    def missing(self, blobs: Sequence[Digest], _: object) -> list[Digest]:
        return []

    def put(self, blobs: Sequence[Digest], _: object) -> None:
        raise AssertionError


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    before = os.umask(0o022)
    made = Keyed(tmp_path_factory.mktemp("keyed"))
    os.umask(before)
    yield made
    made.close()


def bind(number: int, source: str, kind: str = "bind") -> Mount:
    return Mount(kind, "/m", number, source, True)


def sent(keyed: Keyed, action: Action, marks: Sequence[tuple[str, str]] = ()) -> Body:
    """As it leaves the build."""
    body = Inputs(keyed.library, Shelf()).prepare(action)
    keyed.store.commit(Batch())
    return body._replace(marks=tuple(marks))


def check(keyed: Keyed, body: Body) -> None:
    """As a worker does that has its inputs."""
    read = decode_body(body.action.key, encode_body(body))
    check_key(read, read.action.inputs, keyed.library)  # type: ignore[arg-type]  # layers alone


def test_keys_are_what_they_were(keyed: Keyed) -> None:
    """Else nothing of any cache is found again."""
    cases: list[tuple[list[Mount], tuple[tuple[str, str], ...], str]] = [
        ([], (), "e57561ac1e0a9d790fabea95fa99bb485162a97ebab03b093e0cae4d0e43825a"),
        ([Mount("tmpfs", "/t")], (), "73572a07e13e7ceee72f054d79d88a12d32ee115016f03647700a509f1c4a908"),
        ([bind(1, ""), bind(1, "link"), bind(1, "top")], (), "d27212ab35695df51f71f349de217ddd88806afadc3e2a7a278564271b9d2fa2"),
        (
            [bind(2, "/"), bind(2, "b"), bind(2, "gone"), bind(3, "a", "cache")], (),
            "fb18521e51b85469bef7cd75b5366619dfd3a848195dd6263c733d9fd48d74a7",
        ),
        (
            [bind(1, "sub"), bind(2, "deep"), Mount("secret", "/s", id="k")], (("k", "m"),),
            "98d5c82bd95ae1d83a347ff4ae716b953201b40274216e6e5fb5cf1793e0e694",
        ),
    ]  # fmt: skip
    for mounts, marks, key in cases:
        assert keyed.asked(mounts, marks).key == key


shown = st.sampled_from([(number, source) for number, sources in SOURCES.items() for source in sources])
mounts = st.one_of(
    st.builds(lambda pair, kind: bind(*pair, kind), shown, st.sampled_from(("bind", "cache"))),
    st.sampled_from((Mount("tmpfs", "/t"), Mount("secret", "/s", id="k"), Mount("cache", "/c", id="c"))),
)


@given(st.lists(mounts, max_size=5), st.sampled_from(((), (("k", "mark"),))), st.text(st.characters(exclude_characters="\0"), max_size=9))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_worker_works_out_the_key_that_the_build_did(keyed: Keyed, mounts: list[Mount], marks: Any, script: str) -> None:
    check(keyed, sent(keyed, keyed.asked(mounts, marks, script), marks))


@pytest.mark.parametrize("path", ["", "sub", "sub/deep", "top", "empty", "sub/broken", "sub/pipe"])
def test_files_are_counted_alike_in_a_context_and_in_a_layer(keyed: Keyed, path: str) -> None:
    assert digest_as_context(keyed.library.tree((keyed.layer(""),)), path) == keyed.tree.digest(path)


def other_context(keyed: Keyed) -> Layer:
    """Of the files of `sub` with one that says something else."""
    directory = Path(keyed.tree.directory).parent / "other"
    (directory / "deep").mkdir(parents=True, exist_ok=True)
    (directory / "deep/a").write_text("evil")
    (directory / "b").write_text("b")
    return keyed.layer("", ContextTree(str(directory), IgnoreRules(()), keyed.store))


MOUNTS = (bind(1, "sub"), bind(1, "top"), bind(2, "deep"), bind(3, "/"), Mount("secret", "/s", id="k"))
MARKS = (("k", "mark"),)


def honest(keyed: Keyed) -> Body:
    return sent(keyed, keyed.asked(MOUNTS, MARKS), MARKS)


def with_input(body: Body, number: int, layers: tuple[Layer, ...]) -> Body:
    inputs = list(body.action.inputs)
    inputs[number] = layers
    return body._replace(action=body.action._replace(inputs=tuple(inputs)))


def with_run(body: Body, **fields: Any) -> Body:
    return body._replace(action=body.action._replace(operation=body.run._replace(**fields)))


def with_mount(body: Body, number: int, **fields: Any) -> Body:
    mounts = list(body.run.mounts)
    mounts[number] = mounts[number]._replace(**fields)
    return with_run(body, mounts=tuple(mounts))


def with_place(body: Body, number: int, **fields: Any) -> Body:
    places = list(body.places)
    places[number] = places[number]._replace(**fields)
    return body._replace(places=tuple(places))


FORGED: dict[str, Callable[[Keyed, Body], Body]] = {
    "another command": lambda _, body: with_run(body, argv=("/bin/sh", "-c", "evil")),
    "another variable": lambda _, body: with_run(body, env=(("A", "evil"),)),
    "another platform": lambda _, body: body._replace(action=body.action._replace(platform="linux/arm64")),
    "another root filesystem": lambda keyed, body: with_input(body, 0, keyed.layers["two"]),
    "one layer less": lambda keyed, body: with_input(body, 0, keyed.layers["base"][:1]),
    "another layer in a mount": lambda keyed, body: with_input(body, 2, (other_context(keyed),)),
    "another place in a layer": lambda _, body: with_mount(body, 2, source="/"),
    "another file of a context": lambda keyed, body: with_input(body, body.places[0].input, (other_context(keyed),)),
    "another file and its own digest": lambda keyed, body: with_place(
        with_input(body, body.places[0].input, (other_context(keyed),)), 0,
        digest=digest_as_context(keyed.library.tree((other_context(keyed),)), ""),
    ),
    "places of each other": lambda _, body: with_place(with_place(body, 0, input=body.places[1].input, source="file"), 1, input=body.places[0].input, source=""),
    "no place": lambda _, body: body._replace(places=body.places[1:]),
    "another claim": lambda _, body: with_place(body, 0, digest="0" * 64),
    "no mark": lambda _, body: body._replace(marks=()),
    "another mark": lambda _, body: body._replace(marks=(("k", "other"),)),
    "another key": lambda _, body: body._replace(action=body.action._replace(key="0" * 64)),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_body_that_is_another_one_has_another_key(keyed: Keyed, what: str) -> None:
    check(keyed, honest(keyed))
    forged = FORGED[what](keyed, honest(keyed))
    keyed.store.commit(Batch())
    with pytest.raises(CorruptBlob, match=r"its key is not that|something else than its key counts"):
        check(keyed, forged)


def made_of(keyed: Keyed, *entries: tuple[Entry, bytes]) -> Layer:
    def write(fd: int) -> Any:
        writer = LayerWriter(fd)
        for entry, data in entries:
            writer.add(entry, data)
        return writer.finish()

    layer, batch = keyed.library.write_layer(write)
    keyed.store.submit(batch)
    keyed.store.commit(Batch())
    return layer


A = (Entry("a", FILE, 0o644), b"a")
UNCOUNTED: dict[str, tuple[tuple[Entry, bytes], ...]] = {
    "an owner": ((Entry("a", FILE, 0o644, 7, 0), b"a"),),
    "an attribute": ((Entry("a", FILE, 0o644, xattrs=(("security.capability", b"x"),)), b"a"),),
    "a mode of its top": ((Entry("", DIRECTORY, 0o777), b""), A),
    "a file under two names": (A, (Entry("b", HARDLINK, link="a"), b"")),
}


@pytest.mark.parametrize("what", UNCOUNTED)
def test_what_the_digest_of_a_context_leaves_out_no_layer_of_one_may_have(keyed: Keyed, what: str, tmp_path: Path) -> None:
    for name in ("a", "b") if what == "a file under two names" else ("a",):
        (tmp_path / name).write_text("a")
        (tmp_path / name).chmod(0o644)
    tree = ContextTree(str(tmp_path), IgnoreRules(()), keyed.store)
    layer = made_of(keyed, *UNCOUNTED[what])
    assert digest_as_context(keyed.library.tree((layer,)), "") == tree.digest(""), "or this says nothing"
    body = sent(keyed, keyed.asked([bind(1, "sub")]))
    forged = with_place(with_input(body, body.places[0].input, (layer,)), 0, digest=tree.digest(""))
    with pytest.raises(CorruptBlob, match="what no context has"):
        check(keyed, forged)


def test_a_directory_is_the_top_of_its_layer(keyed: Keyed, tmp_path: Path) -> None:
    """Or its mode would be whatever somebody wants."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "a").chmod(0o644)
    tree = ContextTree(str(tmp_path), IgnoreRules(()), keyed.store)
    layer = made_of(keyed, (Entry("file", DIRECTORY, 0o4777), b""), (Entry("file/a", FILE, 0o644), b"a"))
    assert digest_as_context(keyed.library.tree((layer,)), "file") == tree.digest(""), "or this says nothing"
    body = sent(keyed, keyed.asked([bind(1, "sub")]))
    place = body.places[0]
    forged = with_place(with_input(body, place.input, (layer,)), 0, digest=tree.digest(""), source="file")
    with pytest.raises(CorruptBlob, match="what no context has"):
        check(keyed, forged)


def test_a_name_cannot_stand_for_two_files(keyed: Keyed, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o644)
    tree = ContextTree(str(tmp_path), IgnoreRules(()), keyed.store)
    layer = made_of(keyed, (Entry(f"a\n{tree.digest('b')}b", FILE, 0o644), b"a"))
    assert digest_as_context(keyed.library.tree((layer,)), "") == tree.digest(""), "or this says nothing"
    body = sent(keyed, keyed.asked([bind(1, "sub")]))
    forged = with_place(with_input(body, body.places[0].input, (layer,)), 0, digest=tree.digest(""))
    with pytest.raises(CorruptBlob, match="what no context has"):
        check(keyed, forged)
