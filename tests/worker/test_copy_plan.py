"""The entries that a COPY will write, from indexes alone (reference 1.7, 1 to 8)."""

from __future__ import annotations

import pytest

from cache.entry import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry
from cache.errors import DefinitionError
from cache.index import Index
from cache.rootfs import Rootfs
from worker.copy_plan import CopyPlan
from worker.tree import RootfsTree, Tree

NOW = 5000


def tree(*entries: Entry) -> Tree:
    return RootfsTree(Rootfs([Index(entries)]), lambda _: -1)


def file(path: str, place: int = 1, **more: object) -> Entry:
    return Entry(path, FILE, 0o640, 7, 8, 100, size=3, offset=512 * place, digest=f"{place:064}")._replace(**more)


BASE = Rootfs(
    [
        Index(
            [
                Entry("", DIRECTORY, 0o711, 1, 1, 50),
                Entry("etc", DIRECTORY, 0o750, 3, 4, 60),
                Entry("etc/conf", FILE, 0o600),
                Entry("etc/sub", DIRECTORY, 0o700, 5, 5, 70),
                Entry("etc/link", SYMLINK, 0o777, link="conf"),
            ]
        )
    ]
)
SOURCE = tree(
    Entry("s", DIRECTORY, 0o770, 9, 9, 80), file("s/f"), Entry("s/sub", DIRECTORY, 0o701, 9, 9, 81), file("s/sub/g", 2),
    Entry("s/sym", SYMLINK, 0o777, link="f"),
)  # fmt: skip


def plan(*, rootfs: Rootfs = BASE, owner: tuple[int, int] | None = None, mode: str = "", owner_named: bool = False) -> CopyPlan:
    return CopyPlan(rootfs, owner=owner, mode=mode, now=NOW, owner_named=owner_named)


def entry(made: CopyPlan, path: str) -> Entry:
    return next(planned.entry for planned in made.entries() if planned.entry.path == path)


def paths(made: CopyPlan) -> list[str]:
    return [planned.entry.path for planned in made.entries()]


def source(path: str) -> Entry:
    return next(iter(SOURCE.walk(path)))[0]


def test_a_new_file_with_new_parents() -> None:
    made = plan(owner=(0, 0))
    made.file("opt/app/f", SOURCE, source("s/f"))
    assert paths(made) == ["opt", "opt/app", "opt/app/f"]
    assert entry(made, "opt") == Entry("opt", DIRECTORY, 0o755, 0, 0, NOW)
    assert entry(made, "opt/app/f")._replace(digest="") == Entry("opt/app/f", FILE, 0o640, 0, 0, 100, size=3)
    assert made.made == 2


def test_directories_that_exist_keep_their_own_look() -> None:
    made = plan(owner=(0, 0), mode="777")
    made.file("etc/sub/f", SOURCE, source("s/f"))
    assert entry(made, "etc") == Entry("etc", DIRECTORY, 0o750, 3, 4, 60)
    assert entry(made, "etc/sub") == Entry("etc/sub", DIRECTORY, 0o700, 5, 5, 70)
    assert made.made == 0


def test_owner_and_mode_are_for_made_parents_too() -> None:
    made = plan(owner=(5, 6), mode="701")
    made.file("opt/f", SOURCE, source("s/f"))
    assert entry(made, "opt")[2:5] == (0o701, 5, 6)
    assert entry(made, "opt/f")[2:5] == (0o701, 5, 6)


def test_a_symbolic_mode_is_worked_out_entry_by_entry() -> None:
    made = plan(mode="go=u,a+X")
    made.content("opt", SOURCE, "s")
    assert entry(made, "opt/f").mode == 0o666
    assert entry(made, "opt/sub").mode == 0o777
    assert entry(made, "opt").mode == 0o755, "a symbolic mode is not for made parents"
    assert entry(made, "opt/sym").mode == 0o777


def test_a_directorys_content_is_copied_and_not_its_own_look() -> None:
    made = plan()
    made.content("opt", SOURCE, "s")
    assert paths(made) == ["opt", "opt/f", "opt/sub", "opt/sub/g", "opt/sym"]
    assert entry(made, "opt")[2:5] == (0o755, 0, 0)
    assert entry(made, "opt/sub") == Entry("opt/sub", DIRECTORY, 0o701, 9, 9, 81), "directories in it take the source's"
    assert entry(made, "opt/sym") == Entry("opt/sym", SYMLINK, 0o777, link="f")


def test_directories_on_both_sides_take_the_sources_look() -> None:
    made = plan()
    made.content("etc", SOURCE, "s")
    assert entry(made, "etc") == Entry("etc", DIRECTORY, 0o750, 3, 4, 60)
    assert entry(made, "etc/sub")[2:6] == (0o701, 9, 9, 81)


def test_the_root_of_the_image_as_a_destination() -> None:
    made = plan()
    made.content("", SOURCE, "s")
    assert paths(made) == ["f", "sub", "sub/g", "sym"]


def test_a_file_may_replace_a_file_or_a_link() -> None:
    made = plan()
    made.file("etc/conf", SOURCE, source("s/f"))
    made.file("etc/link", SOURCE, source("s/f"))
    assert entry(made, "etc/conf").kind == FILE


@pytest.mark.parametrize("target", ["etc", "etc/sub"])
def test_a_file_does_not_replace_a_directory(target: str) -> None:
    with pytest.raises(DefinitionError, match="the image has a directory there"):
        plan().file(target, SOURCE, source("s/f"))


def test_a_directory_does_not_replace_a_file() -> None:
    with pytest.raises(DefinitionError, match="not a directory"):
        plan().content("etc/conf", SOURCE, "s")
    with pytest.raises(DefinitionError, match="not a directory"):
        plan().file("etc/conf/f", SOURCE, source("s/f"))
    below = tree(Entry("d", DIRECTORY), Entry("d/conf", DIRECTORY, 0o755))
    with pytest.raises(DefinitionError, match="the image has no directory there"):
        plan().content("etc", below, "d")


def test_an_archive_may_replace_anything() -> None:
    made = plan(owner=(0, 0))
    made.content("etc", tree(Entry("conf", DIRECTORY, 0o755, 2, 2), file("sub")), "", archive=True)
    assert (entry(made, "etc/conf").kind, entry(made, "etc/sub").kind) == (DIRECTORY, FILE)
    assert entry(made, "etc/sub")[3:5] == (7, 8), "and keeps its owners"
    named = plan(owner=(1, 2), owner_named=True)
    named.content("etc", tree(file("new")), "", archive=True)
    assert entry(named, "etc/new")[3:5] == (1, 2), "unless the user names one"


def test_a_later_source_wins_and_a_clash_of_kinds_is_an_error() -> None:
    made = plan()
    made.file("x", SOURCE, source("s/f"))
    made.file("x", SOURCE, source("s/sub/g"))
    assert entry(made, "x").digest == f"{2:064}"
    with pytest.raises(DefinitionError, match="not a directory"):
        made.file("x/y", SOURCE, source("s/f"))
    made.directory("d")
    with pytest.raises(DefinitionError, match="a directory and a file"):
        made.file("d", SOURCE, source("s/f"))


def test_hardlinks_inside_one_copy_are_kept() -> None:
    twins = tree(file("a"), Entry("b", HARDLINK, link="a"), file("c", 2))
    made = plan()
    made.content("opt", twins, "")
    assert [(planned.entry.path, planned.entry.kind, planned.entry.link) for planned in made.entries()][1:] == [
        ("opt/a", FILE, ""), ("opt/b", HARDLINK, "opt/a"), ("opt/c", FILE, ""),
    ]  # fmt: skip


def test_only_what_is_kept_is_copied_and_the_directories_above_look_like_the_sources() -> None:
    made = plan()
    made.content("opt", SOURCE, "s", keep=lambda path: path == "sub/g")
    assert paths(made) == ["opt", "opt/sub", "opt/sub/g"]
    assert entry(made, "opt/sub")[2:5] == source("s/sub")[2:5], "mode, uid and gid"


def test_every_file_knows_where_its_bytes_come_from() -> None:
    made = plan()
    made.content("opt", SOURCE, "s")
    for planned in made.entries():
        assert (planned.source is not None and planned.tree is SOURCE) == (planned.entry.path != "opt")
