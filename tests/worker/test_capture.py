"""What a step changed, captured from the upper directory of a real overlay."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cache.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, OPAQUE, SYMLINK, WHITEOUT, Entry
from cache.errors import EnvironmentProblem
from tests.cache.layers import in_child, look, needs_root, scratch_file
from tests.worker.deep import DEPTH, deep_tree
from worker import mounts
from worker.capture import capture, open_below
from worker.extract import extract

if TYPE_CHECKING:
    from cache.layer_writer import LayerTar

pytestmark = needs_root

LOWER = "mkdir -p a/b gone empty keep/sub; echo 1 > a/f; echo 2 > a/b/g; echo 3 > gone/x; echo 4 > gone/y; echo 5 > keep/sub/z; ln -s f a/l"


class Overlay:
    """An overlay over what LOWER makes, in a mount namespace of a child."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.upper = root / "upper"
        for name in ("lower", "upper", "work", "merged"):
            (root / name).mkdir()
        subprocess.run(["sh", "-ec", LOWER], cwd=root / "lower", check=True)

    def run(self, script: str) -> LayerTar:
        def change() -> None:
            mounts.unshare(mounts.CLONE_NEWNS)
            mounts.mount("none", "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
            options = [
                ("lowerdir+", str(self.root / "lower")), ("upperdir", str(self.upper)), ("workdir", str(self.root / "work")),
                ("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"), ("xino", "off"),
            ]  # fmt: skip
            mounts.mount_filesystem("overlay", str(self.root / "merged"), list(options))
            subprocess.run(["sh", "-ec", script], cwd=self.root / "merged", check=True, capture_output=True)

        in_child(change)
        with scratch_file() as fd:
            return capture(str(self.upper), fd)

    def changes(self, script: str) -> list[tuple[str, str]]:
        return [(entry.path, entry.kind) for entry in self.run(script).index.entries]


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    return Overlay(tmp_path)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", []),
        ("cat a/f", []),
        ("echo x > new", [("new", FILE)]),
        ("echo x > a/b/new", [("a", DIRECTORY), ("a/b", DIRECTORY), ("a/b/new", FILE)]),
        ("echo x > new; rm new", []),
        ("rm a/f", [("a", DIRECTORY), ("a/f", WHITEOUT)]),
        ("rm -r gone", [("gone", WHITEOUT)]),
        ("rm -r gone; mkdir gone", [("gone", DIRECTORY), ("gone", OPAQUE)]),
        ("rm -r gone; mkdir gone; echo x > gone/x", [("gone", DIRECTORY), ("gone", OPAQUE), ("gone/x", FILE)]),
        ("rm -r gone; echo x > gone", [("gone", FILE)]),
        ("rm a/f; mkdir a/f", [("a", DIRECTORY), ("a/f", DIRECTORY), ("a/f", OPAQUE)]),
        ("rm gone/*", [("gone", DIRECTORY), ("gone/x", WHITEOUT), ("gone/y", WHITEOUT)]),
        ("chmod 700 a", [("a", DIRECTORY)]),
        ("chmod 600 a/f", [("a", DIRECTORY), ("a/f", FILE)]),
        ("mv a/f a/h", [("a", DIRECTORY), ("a/f", WHITEOUT), ("a/h", FILE)]),
        ("ln a/f a/z", [("a", DIRECTORY), ("a/f", FILE), ("a/z", HARDLINK)]),
        ("rmdir empty", [("empty", WHITEOUT)]),
        ("ln -s nowhere s", [("s", SYMLINK)]),
        ("mkfifo p", [("p", FIFO)]),
        ("mknod c c 1 3; mknod b b 7 0", [("b", BLOCK), ("c", CHARACTER)]),
        ("cd keep; mv sub moved", [("keep", DIRECTORY), ("keep/moved", DIRECTORY), ("keep/moved/z", FILE), ("keep/sub", WHITEOUT)]),
    ],
)
def test_the_change_set_of_a_script(overlay: Overlay, script: str, expected: list[tuple[str, str]]) -> None:
    changes = overlay.changes(script)
    # Whether a new directory in the place of a removed one, or a moved one, is marked opaque is the kernel's to choose
    # where nothing below could show through.
    plain = [change for change in changes if change != ("keep/moved", OPAQUE)]
    assert plain == expected


def test_everything_of_an_entry(overlay: Overlay) -> None:
    layer = overlay.run(
        "printf data > f; chown 5:6 f; chmod 4751 f; touch -d @1000000001 f; setfattr -n user.x -v y f\n"
        "setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 f; ln -s 'to somewhere' l; chown -h 7:8 l; touch -h -d @5 l\n"
        "mkdir d; chmod 3777 d; touch -d @9 d; mknod -m 600 c c 240 300"
    )
    entries = {entry.path: entry for entry in layer.index.entries}
    file = entries["f"]
    assert file._replace(offset=0, digest="") == Entry(
        "f", FILE, 0o4751, 5, 6, 1000000001, 4,
        xattrs=(("security.capability", bytes.fromhex("0100000200040000000000000000000000000000")), ("user.x", b"y")),
    )  # fmt: skip
    assert entries["l"] == Entry("l", SYMLINK, 0o777, 7, 8, 5, link="to somewhere")
    assert entries["d"] == Entry("d", DIRECTORY, 0o3777, 0, 0, 9)
    assert entries["c"]._replace(mtime=0) == Entry("c", CHARACTER, 0o600, major=240, minor=300)


def test_marks_of_the_overlay_are_not_in_the_layer(overlay: Overlay) -> None:
    layer = overlay.run("rm -r gone; mkdir gone; mkdir made; setfattr -n trusted.mine -v 1 made")
    assert os.getxattr(overlay.upper / "gone", "trusted.overlay.opaque") == b"y"
    assert {entry.path: entry.xattrs for entry in layer.index.entries if entry.kind == DIRECTORY} == {
        "gone": (),
        "made": (("trusted.mine", b"1"),),
    }


def test_names_of_one_file_are_hardlinks_and_removed_names_are_not(overlay: Overlay) -> None:
    """Overlayfs links all whiteouts of a directory to one inode."""
    layer = overlay.run("rm a/f a/l gone/x gone/y; echo x > z; ln z y; ln z m; ln -s t s; ln s s2; mkfifo p; ln p p2")
    kinds = {entry.path: (entry.kind, entry.link) for entry in layer.index.entries if entry.kind != DIRECTORY}
    assert kinds == {
        "a/f": (WHITEOUT, ""), "a/l": (WHITEOUT, ""), "gone/x": (WHITEOUT, ""), "gone/y": (WHITEOUT, ""),
        "m": (FILE, ""), "y": (HARDLINK, "m"), "z": (HARDLINK, "m"), "s": (SYMLINK, "t"), "s2": (HARDLINK, "s"),
        "p": (FIFO, ""), "p2": (HARDLINK, "p"),
    }  # fmt: skip


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text("")
    with socket.socket(socket.AF_UNIX) as made, scratch_file() as fd:
        made.bind("s")
        assert [entry.path for entry in capture(str(tmp_path), fd).index.entries] == ["f"]


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """Opening one would wait for ever for somebody at its other end."""
    os.mkfifo(tmp_path / "p")
    started = time.monotonic()
    with scratch_file() as fd:
        capture(str(tmp_path), fd)
    assert time.monotonic() - started < 5


def test_names_and_depths_that_are_hard(tmp_path: Path) -> None:
    for raw in (b"\xff\xfe", b"new\nline", b"-", b"x" * 255, "é".encode(), b".wh", b" "):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)).write_bytes(raw)
    with deep_tree(tmp_path) as deepest, scratch_file() as tar:
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=deepest))
        layer = capture(str(tmp_path), tar)
        assert len(layer.index.entries) == 7 + DEPTH + 1
        for entry in layer.index.entries:
            if entry.size:
                assert os.pread(tar, entry.size, entry.offset) == os.fsencode(entry.path)


def test_a_name_that_would_remove_something_is_refused(tmp_path: Path) -> None:
    """A file `.wh.x` would be a removal of x to whoever unpacks the layer."""
    (tmp_path / ".wh.x").write_text("")
    with scratch_file() as fd, pytest.raises(EnvironmentProblem, match=r"\.wh\.x"):
        capture(str(tmp_path), fd)


def test_what_was_captured_extracts_to_the_same(overlay: Overlay, tmp_path: Path) -> None:
    overlay.run(
        "rm -r gone; mkdir gone; rm a/f; echo x > a/b/new; ln a/b/new a/hard; mkfifo p; mknod c c 1 3; mkdir -m 1777 t; ln -s x l; chown 1:2 a/b"
    )
    target = tmp_path / "again"
    target.mkdir()
    with scratch_file() as fd:
        layer = capture(str(overlay.upper), fd)
        extract(layer.index, fd, str(target), userxattr=False, devices=True)

    def seen(root: Path) -> dict[str, tuple[object, ...]]:
        # Not the root itself, and of removed names only that they are.
        return {
            path: (one.mode if one.device or one.mode & 0o170000 != 0o020000 else "removed", one.uid, one.gid, one.data, one.xattrs)
            for path, one in look(str(root)).items()
            if path
        }

    assert seen(target) == {path: (*one[:4], tuple(x for x in one[4] if x[0] != "trusted.overlay.origin" and x[0] != "trusted.overlay.impure")) for path, one in seen(overlay.upper).items()}  # type: ignore[attr-defined]


def test_the_same_changes_give_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        root = tmp_path / str(number)
        root.mkdir()
        names = ["b", "a", "c/d", "c/e"] if number else ["c/e", "c/d", "a", "b"]
        for name in names:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(name)
        for path in root.rglob("*"):
            os.utime(path, (1, 1))
        with scratch_file() as fd:
            digests.add(capture(str(root), fd).diff_id)
    assert len(digests) == 1


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with scratch_file() as fd, pytest.raises((EnvironmentProblem, FileNotFoundError)):
        capture(str(tmp_path / "nothing"), fd)


def test_long_paths_open_piece_by_piece_and_follow_no_link(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY)
    with deep_tree(tmp_path, 30, "d" * 200) as deepest:
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=deepest))
        os.symlink("file", "link", dir_fd=deepest)
        base = "/".join(["d" * 200] * 30)
        os.close(open_below(top, f"{base}/file", os.O_RDONLY | os.O_NOFOLLOW))
        with pytest.raises(OSError, match="symbolic links"):
            open_below(top, f"{base}/link", os.O_RDONLY | os.O_NOFOLLOW)
        with pytest.raises(FileNotFoundError):
            open_below(top, f"{base}/nothing", os.O_RDONLY)
    os.close(top)


@pytest.mark.slow
def test_a_sparse_file_of_five_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    with open(tmp_path / "upper/sparse", "wb") as file:
        file.seek(5 << 30)
        file.write(b"end")
    tar = tmp_path / "tar"
    fd = os.open(tar, os.O_RDWR | os.O_CREAT)
    layer = capture(str(tmp_path / "upper"), fd)
    (entry,) = layer.index.entries
    assert entry.size == (5 << 30) + 3
    assert os.pread(fd, 3, entry.offset + (5 << 30)) == b"end"
    assert os.fstat(fd).st_blocks * 512 < 1 << 30, "holes stay holes"
    os.close(fd)
    listed = subprocess.run(["tar", "tvf", tar], capture_output=True, text=True, check=True).stdout
    assert str((5 << 30) + 3) in listed
