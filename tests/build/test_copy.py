"""COPY, ADD and WORKDIR: what lands where, with which owner and mode."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import lzma
import os
import tarfile
import threading
from typing import TYPE_CHECKING, ClassVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"
LIST = "RUN cd /t && find . -mindepth 1 | sort | while read p; do stat -c '%n %a %u:%g %F' $p; done\n"


def listing(program: Program, lines: str, files: dict[str, str | bytes] | None = None) -> list[str]:
    """What stands below /t after these lines."""
    built = program.build(program.project(BASE + lines + LIST, files)).ok()
    return built.output(f"1.{lines.count(chr(10)) + 1}")


def test_a_file_goes_to_a_name_or_into_a_directory(each_way: Program) -> None:
    lines = "COPY a /t/name\nCOPY a b /t/dir/\nCOPY a /t/dir2/\nRUN mkdir /t/there\nCOPY a /t/there\n"
    assert listing(each_way, lines, {"a": "a", "b": "b"}) == [
        "./dir 755 0:0 directory",
        "./dir/a 644 0:0 regular file",
        "./dir/b 644 0:0 regular file",
        "./dir2 755 0:0 directory",
        "./dir2/a 644 0:0 regular file",
        "./name 644 0:0 regular file",
        "./there 755 0:0 directory",
        "./there/a 644 0:0 regular file",
    ]


def test_a_directorys_content_is_copied_and_an_existing_directory_keeps_its_own_metadata(program: Program) -> None:
    lines = "RUN mkdir -p /t/sub && chown 5:6 /t && chmod 700 /t/sub && echo old > /t/sub/old\nCOPY src /t\n"
    files = {"src/sub/new": "n", "src/run.sh": "#!"}
    project = program.project(BASE + lines + LIST + "RUN stat -c '%u:%g' /t\n", files)
    (project / "src/run.sh").chmod(0o755)
    (project / "src/link").symlink_to("run.sh")
    built = program.build(project).ok()
    assert built.output("1.3") == [
        "./link 777 0:0 symbolic link",
        "./run.sh 755 0:0 regular file",
        "./sub 755 0:0 directory",
        "./sub/new 644 0:0 regular file",
        "./sub/old 644 0:0 regular file",
    ]
    assert built.output("1.4") == ["5:6"]


def test_wildcards(program: Program) -> None:
    files = {"a1.txt": "", "a2.txt": "", "b.md": "", "d1/x": "", "d2/x": "", "deep/d3/y": ""}
    lines = "COPY a?.txt /t/q/\nCOPY *.none /t/none/\nCOPY d* /t/dirs/\nCOPY deep/*/y /t/y/\nCOPY [ab].md /t/class/\n"
    assert [line.split()[0] for line in listing(program, lines, files)] == [
        "./class", "./class/b.md", "./dirs", "./dirs/d3", "./dirs/d3/y", "./dirs/x", "./q", "./q/a1.txt", "./q/a2.txt", "./y", "./y/y",
    ]  # fmt: skip


def test_owner_and_mode(each_way: Program) -> None:
    lines = (
        "COPY --chown=app a /t/name/a\nCOPY --chown=app:extra a /t/group\nCOPY --chown=55:66 --chmod=640 a /t/numbers/a\n"
        "COPY --chown=77 a /t/alone\n"
    )
    assert listing(each_way, lines, {"a": "a"}) == [
        "./alone 644 77:77 regular file",
        "./group 644 1000:2000 regular file",
        "./name 755 1000:1001 directory",
        "./name/a 644 1000:1001 regular file",
        "./numbers 640 55:66 directory",
        "./numbers/a 640 55:66 regular file",
    ]


def test_an_unknown_owner_is_an_error(program: Program) -> None:
    failed = program.build(program.project(BASE + "COPY --chown=nosuch a /a\n", {"a": ""})).failed(3)
    assert "no user 'nosuch'" in failed.stderr
    assert "4 | COPY --chown=nosuch a /a" in failed.stderr


def test_files_of_a_stage_keep_owner_links_and_hardlinks(each_way: Program) -> None:
    dockerfile = (
        "FROM scratch AS base\nCOPY --from=busybox / /\n"
        "FROM base AS made\nRUN mkdir -p /o/d && echo x > /o/f && chown 3:4 /o/f /o/d && ln /o/f /o/hard && ln -s f /o/soft\n"
        "FROM base\nCOPY --from=made /o /t\nRUN cd /t && stat -c '%n %u:%g %h' f hard d soft && readlink soft\n"
    )
    assert each_way.build(each_way.project(dockerfile)).ok().output("2.2") == [
        "f 3:4 2",
        "hard 3:4 2",
        "d 3:4 2",
        "soft 0:0 1",
        "f",
    ]


def test_symlinks_in_the_destination_are_followed_and_stay_inside(each_way: Program) -> None:
    """I5."""
    dockerfile = BASE + (
        "RUN mkdir -p /real/lib && ln -s real /short && ln -s ../../../../../../etc /escape\n"
        "COPY a /short/lib/a\nCOPY a /escape/evil\nCOPY --link a /short2/a\nRUN ls /real/lib /etc/evil /short2\n"
    )
    built = each_way.build(each_way.project(dockerfile, {"a": "a"})).ok()
    assert built.output("1.5") == ["/etc/evil", "", "/real/lib:", "a", "", "/short2:", "a"]
    assert not os.path.exists("/etc/evil")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("COPY srv/main.c /x", "there is src/main.c"),
        ("COPY src/mian.c /x", "there is src/main.c"),
        ("COPY logs/today.log /x", "it is there, but .dockerignore leaves it out"),
        ("COPY quite/another /x", "paths begin at the root of the context"),
        ("COPY --from=base etc/pass /x", "there is etc/passwd"),
        ("RUN --mount=type=bind,source=srv/main.c,target=/m true", "there is src/main.c"),
        ("RUN --mount=type=bind,from=base,source=etc/pass,target=/m true", "there is etc/passwd"),
    ],
)
def test_a_source_that_is_not_there_has_a_hint(program: Program, line: str, hint: str) -> None:
    files = {"src/main.c": "", "logs/today.log": "", ".dockerignore": "*/*.log\n"}
    failed = program.build(program.project(f"{BASE}{line}\n", files)).failed(3)
    assert "there is no '" in failed.stderr
    assert f"hint: {hint}" in failed.stderr


def test_sources_cannot_leave_the_context(program: Program) -> None:
    """I5: `..` stops at the context's root, and so do symlinks in it."""
    (program.root / "outside.txt").write_text("host secret")
    project = program.project(BASE + "COPY ../outside.txt /x\n", {"inside": ""})
    assert "no '../outside.txt' to copy" in program.build(project).failed(3).stderr
    for target in ("../outside.txt", str(program.root / "outside.txt"), "/etc/hostname"):
        (project / "link").unlink(missing_ok=True)
        (project / "link").symlink_to(target)
        (project / "Dockerfile").write_text(BASE + "COPY link /x\n")
        program.build(project).failed(3)
    (project / "dir").symlink_to("/etc")
    (project / "Dockerfile").write_text(BASE + "COPY dir/passwd /x\n")
    program.build(project).failed(3)
    # Inside of a copied directory a symlink is copied as it is.
    (project / "d").mkdir()
    (project / "d/l").symlink_to("/etc/passwd")
    (project / "Dockerfile").write_text(BASE + "COPY d /t\nRUN readlink /t/l\n")
    assert program.build(project).ok().output("1.2") == ["/etc/passwd"]


def test_conflicts_of_files_and_directories_are_errors(program: Program) -> None:
    for line in ("COPY d /etc/passwd", "COPY f /etc/passwd/x", "COPY tree /"):
        project = program.project(BASE + line + "\n", {"d/x": "", "f": "", "tree/etc": "file"}, name="p")
        failed = program.build(project).failed(3)
        assert "cannot copy" in failed.stderr
        assert f"4 | {line}" in failed.stderr


def test_ignore_files(program: Program) -> None:
    files = {"keep.txt": "", "drop.log": "", "sub/drop.log": "", "sub/keep.log": "", "node_modules/x/y": "", ".dockerignore": "**/*.log\n!sub/keep.log\nnode_modules\n"}
    lines = "COPY . /t\n"
    found = [line.split()[0] for line in listing(program, lines, files)]
    assert found == ["./.dockerignore", "./Dockerfile", "./keep.txt", "./sub", "./sub/keep.log"]
    project = program.root / "project"
    (project / "Dockerfile.dockerignore").write_text("sub\n")
    again = program.build(project).ok().output("1.2")
    assert "./drop.log 644 0:0 regular empty file" in again
    assert not any("/sub" in line for line in again)


def test_exclude(program: Program) -> None:
    files = {"s/a.txt": "", "s/b.md": "", "s/d/c.md": "", "s/d/e.txt": ""}
    found = [line.split()[0] for line in listing(program, "COPY --exclude=**/*.md s /t\n", files)]
    assert found == ["./a.txt", "./d", "./d/e.txt"]


def test_heredocs_become_files(program: Program) -> None:
    lines = "ARG N=1\nCOPY <<one <<'two' /t/\nn=$N\none\nn=$N\ntwo\nCOPY <<-EOF /t/named\n\t\ttabs gone\nEOF\n"
    built = program.build(program.project(BASE + lines + "RUN cd /t && cat one two named && stat -c %a one\n")).ok()
    assert built.output("1.4") == ["n=1", "n=$N", "tabs gone", "644"]


def archive(files: dict[str, str], mode: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            info.uid, info.gid, info.mode = 7, 8, 0o640
            tar.addfile(info, io.BytesIO(text.encode()))
    data = buffer.getvalue()
    return {"": lambda: data, "gz": lambda: gzip.compress(data), "xz": lambda: lzma.compress(data)}[mode]()


def test_add_unpacks_local_archives_whatever_they_are_called(each_way: Program) -> None:
    files: dict[str, str | bytes] = {
        "plain": archive({"d/f": "1"}),
        "a.tar.gz": archive({"./g": "2"}, "gz"),
        "b.txz": archive({"h": "3"}, "xz"),
        "not-a-tar.tar": "text",
        "kept.tar": archive({"x": ""}),
    }
    lines = "ADD plain /t\nADD a.tar.gz b.txz /t/more/\nADD not-a-tar.tar /t/\nADD --unpack=false kept.tar /t/\nADD --chown=5:6 a.tar.gz /t/owned\n"
    assert listing(each_way, lines, files) == [
        "./d 755 0:0 directory",
        "./d/f 640 7:8 regular file",
        "./kept.tar 644 0:0 regular file",
        "./more 755 0:0 directory",
        "./more/g 640 7:8 regular file",
        "./more/h 640 7:8 regular file",
        "./not-a-tar.tar 644 0:0 regular file",
        "./owned 755 5:6 directory",
        "./owned/g 640 5:6 regular file",
    ]


@pytest.mark.parametrize("name", ["../../escape", "/abs/../../escape", "a/../../../escape"])
def test_add_refuses_hostile_archives(program: Program, name: str) -> None:
    """I5."""
    project = program.project(BASE + "ADD evil.tar /t/\n", {"evil.tar": archive({name: "x"})})
    failed = program.build(project).failed(5)
    assert "escape" in failed.stderr
    assert not (program.root / "escape").exists()


class _Files(http.server.BaseHTTPRequestHandler):
    requests: ClassVar[list[tuple[str, str | None]]] = []
    content = b"downloaded\n"

    def do_GET(self) -> None:
        etag = f'"{hashlib.sha256(type(self).content).hexdigest()[:8]}"'
        type(self).requests.append((self.path, self.headers.get("If-None-Match")))
        if self.headers.get("If-None-Match") == etag:
            self.send_response(304)
            self.end_headers()
            return
        if "missing" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(type(self).content)))
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(type(self).content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    _Files.requests, _Files.content = [], b"downloaded\n"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_add_from_the_web(program: Program, web: str) -> None:
    project = program.project(BASE + f"ADD {web}/dir/file.txt?x=1 /t/\nRUN cat /t/file.txt; stat -c '%a %Y' /t/file.txt\n")
    assert program.build(project).ok().output("1.2") == ["downloaded", "600 1704067200"]
    assert program.build(project).ok().executed == []
    assert _Files.requests[-1][1] is not None, "asked whether it changed"
    _Files.content = b"changed\n"
    assert program.build(project).ok().output("1.2")[0] == "changed"


def test_add_with_a_checksum(program: Program, web: str) -> None:
    right = hashlib.sha256(b"downloaded\n").hexdigest()
    project = program.project(BASE + f"ADD --checksum=sha256:{right} {web}/f /t/f\n")
    program.build(project).ok()
    asked = len(_Files.requests)
    assert program.build(project).ok().executed == []
    assert len(_Files.requests) == asked, "the checksum says it all"
    project = program.project(BASE + f"ADD --checksum=sha256:{'0' * 64} {web}/f /t/f\n")
    failed = program.build(project).failed(3)
    assert f"sha256:{right}" in failed.stderr
    assert "ADD --checksum" in failed.stderr


def test_add_of_a_missing_url(program: Program, web: str) -> None:
    failed = program.build(program.project(BASE + f"ADD {web}/missing /t/\n")).failed(5)
    assert "404" in failed.stderr


def test_workdir_is_made_for_the_user(program: Program) -> None:
    lines = "USER app\nWORKDIR /t/w\nUSER root\n"
    assert listing(program, lines) == ["./w 755 1000:1001 directory"]


def test_a_big_sparse_file_is_copied(program: Program, tmp_path: Path) -> None:
    project = program.project(BASE + "COPY big /t/big\nRUN stat -c %s /t/big; tail -c 3 /t/big\n")
    with (project / "big").open("wb") as file:
        file.truncate(300 << 20)
        file.seek(0, 2)
        file.write(b"end")
    assert program.build(project).ok().output("1.2") == [str((300 << 20) + 3), "end"]


def test_symbolic_modes(program: Program) -> None:
    project = program.project(BASE + "COPY --chmod=u+x,go=rX a d /t/\nCOPY --chmod=a=rX d /t/ro\n" + LIST, {"a": "", "d/f": ""})
    (project / "d/g").write_text("x")
    (project / "d/g").chmod(0o755)
    assert program.build(project).ok().output("1.3") == [
        "./a 755 0:0 regular empty file",
        "./f 755 0:0 regular empty file",
        "./g 755 0:0 regular file",
        "./ro 755 0:0 directory",
        "./ro/f 444 0:0 regular empty file",
        "./ro/g 555 0:0 regular file",
    ]


def test_parents_are_kept_from_the_root_or_the_pivot(program: Program) -> None:
    files = {"a/b/x.txt": "x", "a/b/y.md": "", "a/c/d/z.txt": "z", "top.txt": "t"}
    lines = "COPY --parents a/b/x.txt top.txt /t/one/\nCOPY --parents a/./c/d /t/two\nCOPY --parents **/*.txt /t/three/\nCOPY --parents ./a/*/./*.md /t/four/\nCOPY --parents nothing/** /t/five/\n"
    project = program.project(BASE + lines + LIST, files)
    (project / "a/b").chmod(0o711)
    found = [line.split(" regular")[0].split(" directory")[0] for line in program.build(project).ok().output("1.6")]
    assert found == [
        "./five 755 0:0", "./four 755 0:0", "./four/y.md 644 0:0",
        "./one 755 0:0", "./one/a 755 0:0", "./one/a/b 711 0:0", "./one/a/b/x.txt 644 0:0", "./one/top.txt 644 0:0",
        "./three 755 0:0", "./three/a 755 0:0", "./three/a/b 711 0:0", "./three/a/b/x.txt 644 0:0",
        "./three/a/c 755 0:0", "./three/a/c/d 755 0:0", "./three/a/c/d/z.txt 644 0:0", "./three/top.txt 644 0:0",
        "./two 755 0:0", "./two/c 755 0:0", "./two/c/d 755 0:0", "./two/c/d/z.txt 644 0:0",
    ]  # fmt: skip
    failed = program.build(program.project(BASE + "COPY --parents a/none /t/\n", files)).failed(3)
    assert "no 'a/none' to copy" in failed.stderr
