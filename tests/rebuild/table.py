"""The table of changes: what is built first, what is changed then, which steps must run, and which reason is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL = "everything"
"""Stands for all steps of the build."""


class Project(NamedTuple):
    """What is built before the change. files: names and texts; a text that begins with `->` is a symlink."""

    dockerfile: str
    files: dict[str, str]
    options: tuple[str, ...] = ()


class Change(NamedTuple):
    """A row of the table.

    project: its name in PROJECTS. ran: ids of the steps that must run, no others; of `a.1|b.1`, which are the same step,
    either one. why: a step, the reason's value and
    words that its explanation and details hold; () for none. edits: (old, new) in the Dockerfile. files: new texts, None
    removes. modes: new modes. options: of the second build, after the project's own. same_image: whether the image stays
    the same; None: either. again: whether the same steps run whenever this is built, since no cache is wanted for them.
    """

    name: str
    project: str
    ran: str
    why: tuple[str, ...] = ()
    edits: tuple[tuple[str, str], ...] = ()
    files: Mapping[str, str | None] = {}
    modes: Mapping[str, int] = {}
    options: tuple[str, ...] = ()
    same_image: bool | None = None
    again: bool = False


APP = """FROM busybox AS tools
RUN echo tools > /tools
FROM busybox AS build
ARG VERSION=1
ARG API_TOKEN=none
ENV MODE=fast
WORKDIR /src
COPY lib lib
COPY main.c .
RUN cat main.c lib/a.c > /out
RUN wc -c < /out > /size
FROM busybox
COPY --from=build /size /size
COPY --from=tools /tools /tools
RUN cat /size /tools > /final
CMD ["cat", "/final"]
"""
APP_FILES = {
    "main.c": "main", "lib/a.c": "a", "lib/x.c": "x", "lib/deep/er/d.c": "d", "lib/notes.log": "1", "README": "read",
    "lib/link": "->a.c", ".dockerignore": "**/*.log\n",
}  # fmt: skip
MOUNTS = """FROM busybox
RUN <<EOF
echo a > /a
EOF
COPY <<EOF /b
text
EOF
RUN --mount=type=bind,source=conf,target=/conf cat /conf/x > /x
COPY *.md /docs/
ADD data.tar /data/
"""
GENERATED = """FROM busybox AS gen
COPY seed /seed
RUN mkdir /o && head -c 1 /seed > /o/v
FROM busybox AS base
RUN echo base > /base
FROM base
RUN --mount=type=bind,from=gen,source=/o,target=/o cat /o/v > /v
COPY --from=gen /o/v /copied
RUN cat /copied /v
"""
LINES = "FROM busybox\nRUN echo a > /a\nRUN echo b > /b\nRUN cat /etc/passwd > /c\n"
PLAIN = "FROM scratch\nCOPY f /f\nCOPY g /g\n"

LINKED = "FROM busybox AS a\nRUN echo 1 > /v\nCOPY --link f /f\nRUN cat /v > /w\nFROM busybox\nCOPY --from=a /w /w\n"

TWINS = """FROM busybox AS a
COPY f /f
RUN cat f > /x; echo a > /y
FROM busybox AS b
COPY f /f
RUN cat f > /x; echo a > /y
RUN cat /x /y > /z
FROM scratch
COPY --from=a /x /a
COPY --from=b /z /b
"""

PROJECTS = {
    "twins": Project(TWINS, {"f": "f"}),
    "linked": Project(LINKED, {"f": "f"}),
    "app": Project(APP, APP_FILES),
    "mounts": Project(MOUNTS, {"conf/x": "x", "conf/y": "y", "other/z": "z", "a.md": "a", "data.tar": "not really a tar"}),
    "generated": Project(GENERATED, {"seed": "1234"}),
    "lines": Project(LINES, {}),
    "plain": Project(PLAIN, {"f": "f", "g": "g"}),
}

TABLE = [
    # files of a context
    Change("nothing", "app", "", same_image=True),
    Change("a file, of another size", "app", "build.6 build.7 build.8 2.1 2.3", ("build.6", "files-changed", "main.c changed", "4 B → 9 B"), files={"main.c": "main more"}),
    Change("a file, of the same size", "app", "build.6 build.7 build.8", ("build.7", "base-changed", "COPY main.c", "main.c changed"), files={"main.c": "niam"}, same_image=True),
    Change("a file is touched", "app", "", files={"main.c": "main"}, same_image=True),
    Change("a file is new", "app", "build.5 build.7 build.8", ("build.5", "files-changed", "lib/b.c is new", "+ lib/b.c (1 B)"), files={"lib/b.c": "b"}, same_image=True),
    Change("a file is gone", "app", "build.5 build.7 build.8", ("build.5", "files-changed", "lib/x.c is gone", "was 1 B"), files={"lib/x.c": None}),
    Change("a file is renamed", "app", "build.5 build.7 build.8", ("build.5", "files-changed", "lib/x2.c is new", "lib/x.c is gone"), files={"lib/x.c": None, "lib/x2.c": "x"}),
    Change("a file deep below", "app", "build.5 build.7 build.8", ("build.5", "files-changed", "lib/deep/er/d.c changed", "1 B → 2 B"), files={"lib/deep/er/d.c": "dd"}),
    Change("several files", "app", "build.5 build.6 build.7 build.8 2.1 2.3", ("build.7", "base-changed", "main.c"), files={"lib/x.c": "xx", "main.c": "longer"}),
    Change("a file becomes executable", "app", "build.6 build.7 build.8", ("build.6", "mode-changed", "main.c changed mode", "644 → 755"), modes={"main.c": 0o755}),
    Change("a mode that only a umask explains", "app", "", modes={"main.c": 0o664}, same_image=True),
    Change("a symlink leads elsewhere", "app", "build.5 build.7 build.8", ("build.5", "files-changed", "lib/link points to x.c, was a.c"), files={"lib/link": "->x.c"}),
    Change("an ignored file", "app", "", files={"lib/notes.log": "22"}, same_image=True),
    Change("a file that nothing takes", "app", "", files={"README": "more"}, same_image=True),
    Change("another file is ignored", "app", "build.5 build.7 build.8", ("build.5", "files-changed", "lib/x.c is gone"), files={".dockerignore": "**/*.log\nlib/x.c\n"}),
    Change("a file is ignored no more", "app", "build.5 build.7 build.8", ("build.5", "files-changed", "lib/notes.log is new"), files={".dockerignore": ""}),
    Change("a comment in .dockerignore", "app", "", files={".dockerignore": "# logs\n**/*.log\n"}, same_image=True),
    Change("a file that a wildcard takes", "mounts", "0.4", ("0.4", "files-changed", "b.md is new"), files={"b.md": "b"}),
    Change("a file that no wildcard takes", "mounts", "", files={"b.txt": "b"}, same_image=True),
    Change("a file of ADD", "mounts", "0.5", ("0.5", "files-changed", "data.tar changed", "16 B → 3 B"), files={"data.tar": "new"}),
    # how it is copied
    Change("--chown", "app", "build.6 build.7 build.8", ("build.6", "mode-changed", "the owner was nothing, is 7:8"), (("COPY main.c", "COPY --chown=7:8 main.c"),)),
    Change("--chmod", "app", "build.6 build.7 build.8", ("build.6", "mode-changed", "--chmod was nothing, is 600"), (("COPY main.c", "COPY --chmod=600 main.c"),)),
    Change("--exclude", "app", "build.5 build.7 build.8", ("build.5", "operation-changed", "--exclude", "x.c"), (("COPY lib", "COPY --exclude=x.c lib"),)),
    Change("the destination is spelled otherwise", "app", "build.6", ("build.6", "operation-changed", "the destination"), (("COPY main.c .", "COPY main.c ./main.c"),), same_image=True),
    Change("another destination", "mounts", "0.4", ("0.4", "operation-changed", "the destination", "/docs/", "/pages/"), (("/docs/", "/pages/"),)),
    Change("what is below COPY --link", "linked", "a.1 a.3 1.1", ("a.3", "base-changed", "echo 1", "1 → 2"), (("echo 1", "echo 2"),), same_image=False),
    Change("a file of COPY --link", "linked", "a.2 a.3", ("a.3", "base-changed", "f changed"), files={"f": "ff"}, same_image=True),
    Change("a heredoc that is copied", "mounts", "0.2 0.3", ("0.2", "operation-changed", "the text of <<EOF changed: [text → other]"), (("text", "other"),)),
    # commands
    Change("the command", "app", "build.7 build.8", ("build.7", "command-changed", "main.c"), (("cat main.c lib/a.c", "cat lib/a.c main.c"),), same_image=True),
    Change("a command that makes the same: RUN → RUN stops", "app", "build.7", ("build.7", "command-changed", "now with && true"), (("lib/a.c > /out", "lib/a.c > /out && true"),), same_image=True),
    Change("a heredoc that runs", "mounts", "0.1 0.3", ("0.1", "command-changed", "echo"), (("echo a", "echo bb"),)),
    Change("blanks in a command", "app", "build.7", ("build.7", "command-changed", "only blanks in the command changed", "- 'cat main.c ", "+ 'cat  main.c "), (("cat main.c", "cat  main.c"),), same_image=True),
    Change("SHELL", "app", "build.8 build.9", ("build.8", "command-changed", "SHELL changed: /bin/sh -c → /bin/sh -ec"), (("RUN cat main.c", 'SHELL ["/bin/sh", "-ec"]\nRUN cat main.c'),), same_image=True),
    Change("another shell", "lines", "0.3 0.4", ("0.3", "command-changed", "SHELL changed: /bin/sh -c → /bin/ash -c"), (("RUN echo b", 'SHELL ["/bin/ash", "-c"]\nRUN echo b'),)),
    Change("the same in the exec form", "lines", "", edits=(("RUN echo b > /b", 'RUN ["/bin/sh", "-c", "echo b > /b"]'),), same_image=True),
    Change("the words of the exec form", "lines", "0.2 0.3", ("0.2", "command-changed", "divided otherwise: /bin/sh -c ['echo b > /b' → echo 'b > /b']", "+ /bin/sh -c echo 'b > /b'"), (("RUN echo b > /b", 'RUN ["/bin/sh", "-c", "echo", "b > /b"]'),)),
    Change("USER", "app", "build.8 build.9", ("build.8", "operation-changed", "USER changed: nothing → 0"), (("RUN cat main.c", "USER 0\nRUN cat main.c"),), same_image=True),
    Change("WORKDIR", "app", "build.4 build.5 build.6 build.7 build.8", ("build.4", "operation-changed", "/src", "/code"), (("WORKDIR /src", "WORKDIR /code"),), same_image=True),
    Change("--add-host", "lines", "0.1 0.2 0.3", ("0.2", "operation-changed", "--add-host changed: nothing → db:10.0.0.1"), options=("--add-host", "db:10.0.0.1")),
    Change("--network=none", "lines", "0.1 0.2 0.3", ("0.1", "operation-changed", "the network", "none"), options=("--network", "none")),
    Change("--shm-size", "lines", "0.1 0.2 0.3", ("0.1", "operation-changed", "--shm-size changed: 64m → 1m"), options=("--shm-size", "1m")),
    # variables
    Change("the default of an ARG", "app", "build.7 build.8", ("build.7", "variables-changed", "the value of VERSION changed: 1 → 2"), (("VERSION=1", "VERSION=2"),), same_image=True),
    Change("--build-arg", "app", "build.7 build.8", ("build.8", "variables-changed", "VERSION", "1 → 3"), options=("--build-arg", "VERSION=3"), same_image=True),
    Change("--build-arg of a secret name", "app", "build.7 build.8", ("build.7", "variables-changed", "API_TOKEN", "secret"), options=("--build-arg", "API_TOKEN=hunter2"), same_image=True),
    Change("--build-arg that says the default", "app", "", options=("--build-arg", "VERSION=1"), same_image=True),
    Change("--build-arg that nothing declares", "app", "", options=("--build-arg", "NOPE=1"), same_image=True),
    Change("an ARG without a value", "app", "", edits=(("RUN cat main.c", "ARG EMPTY\nRUN cat main.c"),), same_image=True),
    Change("an ARG behind all that could see it", "app", "", edits=(("FROM busybox\n", "ARG LATE=1\nFROM busybox\n"),), same_image=True),
    Change("an ARG of another stage", "app", "tools.2", ("tools.2", "variables-changed", "the variable OTHER is new: 1"), (("RUN echo tools", "ARG OTHER=1\nRUN echo tools"),), same_image=True),
    Change("ENV", "app", "build.7 build.8", ("build.7", "variables-changed", "MODE changed: fast → slow"), (("MODE=fast", "MODE=slow"),), same_image=True),
    Change("ENV of another name", "app", "build.7 build.8", ("build.7", "variables-changed", "variables changed: MODE, OTHER", "the variable MODE is gone; it was fast", "the variable OTHER is new: fast"), (("ENV MODE=fast", "ENV OTHER=fast"),), same_image=True),
    Change("ENV behind the last step", "app", "", edits=(("RUN wc -c < /out > /size\n", "RUN wc -c < /out > /size\nENV LATE=1\n"),), same_image=True),
    Change("ENV is gone", "app", "build.6 build.7", ("build.6", "variables-changed", "the variable MODE is gone; it was fast"), (("ENV MODE=fast\n", ""),), same_image=True),
    # the text around
    Change("a comment and blank lines", "app", "", edits=(("RUN cat main.c", "\n# all of it\n\nRUN cat main.c"),), same_image=True),
    Change("a stage is renamed", "app", "", edits=(("AS build", "AS compile"), ("--from=build", "--from=compile")), same_image=True),
    Change("a stage is moved", "app", "", edits=(("FROM busybox AS tools\nRUN echo tools > /tools\n", ""), ("FROM busybox\nCOPY", "FROM busybox AS tools\nRUN echo tools > /tools\nFROM busybox\nCOPY")), same_image=True),
    Change("a stage that nothing needs", "app", "", edits=(("FROM busybox AS build", "FROM busybox AS unused\nRUN exit 1\nFROM busybox AS build"),), same_image=True),
    Change("a stage that is new and needed", "app", "extra.1 3.1 3.4", ("extra.1", "never-built"), (("FROM busybox\nCOPY", "FROM busybox AS extra\nRUN echo e > /e\nFROM busybox\nCOPY --from=extra /e /e\nCOPY"),), same_image=False),
    Change("only the config", "app", "", edits=(('CMD ["cat", "/final"]', 'LABEL a=b\nEXPOSE 80\nENTRYPOINT ["cat"]\nCMD ["/final"]'),), same_image=False),
    Change("another target", "app", "", options=("--target", "tools"), same_image=False),
    Change("a line between", "app", "build.7 build.8 build.9", ("build.8", "base-changed", "RUN echo hi", "new here"), (("RUN cat main.c", "RUN echo hi > /hi\nRUN cat main.c"),), same_image=True),
    Change("a line less", "lines", "0.1 0.2", ("0.1", "base-changed", "RUN echo a", "is gone"), (("RUN echo a > /a\n", ""),)),
    Change("two lines swapped", "lines", "0.1 0.2 0.3", ("0.1", "base-changed"), (("RUN echo a > /a\nRUN echo b > /b", "RUN echo b > /b\nRUN echo a > /a"),)),
    Change("a line at the end", "lines", "0.4", ("0.4", "never-built"), (("> /c\n", "> /c\nRUN echo d > /d\n"),)),
    Change("another instruction at its place", "plain", "0.2", ("0.2", "operation-changed", "another instruction stood here: COPY or ADD, now WORKDIR"), (("COPY g /g", "WORKDIR /w"),)),
    # stages and mounts
    Change("COPY --from and a mount stop", "generated", "gen.1 gen.2", ("gen.2", "base-changed", "seed changed"), files={"seed": "1999"}, same_image=True),
    Change("COPY --from and a mount go on", "generated", "gen.1 gen.2 2.1 2.2 2.3", ("2.1", "source-changed", "seed changed"), files={"seed": "2234"}),
    Change("FROM stage stops", "generated", "base.1", ("base.1", "command-changed"), (("echo base >", "printf 'base\\n' >"),)),
    Change("FROM stage goes on", "generated", "base.1 2.1 2.3", ("2.3", "base-changed"), (("echo base", "echo other"),)),
    Change("a mounted file", "mounts", "0.3", ("0.3", "files-changed", "conf/x changed", "1 B → 2 B"), files={"conf/x": "xx"}),
    Change("a file beside what is mounted", "mounts", "", files={"other/z": "zz"}, same_image=True),
    # steps of one build that are the same
    Change("a file that two equal stages take", "twins", "a.1|b.1 a.2|b.2 b.3 2.1 2.2", ("b.3", "base-changed", "f changed", "1 B → 2 B"), files={"f": "ff"}),
    Change("a mode that two equal stages take", "twins", "a.1|b.1 a.2|b.2 b.3", ("b.3", "base-changed", "f changed mode"), modes={"f": 0o755}, same_image=True),
    Change("the same change in two stages", "twins", "a.2|b.2 b.3 2.2", edits=(("echo a >", "echo c >"), ("echo a >", "echo c >"))),
    Change("two stages are equal no more", "twins", "a.2", ("a.2", "command-changed", "a → c"), edits=(("echo a >", "echo c >"),)),
    # what the user wants
    Change("--no-cache", "app", ALL, ("build.7", "no-cache", "--no-cache"), options=("--no-cache",), same_image=True, again=True),
    Change("--no-cache-filter", "app", "build.0 build.4 build.5 build.6 build.7 build.8", ("build.7", "no-cache", "--no-cache-filter build"), options=("--no-cache-filter", "build"), same_image=True, again=True),
    Change("a comment that wants no cache", "app", "build.7", ("build.7", "no-cache", "# buildgraph: no-cache"), (("RUN cat main.c", "# buildgraph: no-cache\nRUN cat main.c"),), same_image=True, again=True),
    Change("a result that is too old", "app", "build.7", ("build.7", "expired", "older than ttl="), (("RUN cat main.c", "# buildgraph: ttl=1ms\nRUN cat main.c"),), same_image=True, again=True),
    Change("a result that is young enough", "app", "", edits=(("RUN cat main.c", "# buildgraph: ttl=1d\nRUN cat main.c"),), same_image=True),
    Change("another platform", "plain", "0.1 0.2", ("0.1", "platform-changed", "linux/amd64", "linux/arm64"), options=("--platform", "linux/arm64"), same_image=False),
]  # fmt: skip
