"""More changes: what stages give each other, variables that reach far, secrets, and the ways to write the same."""

from __future__ import annotations

import io
import tarfile

from tests.rebuild.table import Change, Project


def archive(*files: tuple[str, str]) -> str:
    """A tar as text: all of it is ASCII."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in files:
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue().decode("ascii")


PIPE = """FROM busybox AS src
COPY in /in
RUN head -c 1 /in > /first; cp /in /whole
FROM busybox AS twin
RUN echo twin > /t
FROM busybox
RUN echo below > /below
COPY --link l /x/l
COPY --from=src /fir* /c/
RUN --mount=type=bind,from=src,source=/first,target=/m cat /m > /m2
ADD data.tar /data/
COPY --from=lib --chown=1000:1001 --chmod=640 a b /lib/
RUN --mount=type=bind,from=lib,source=b,target=/b cat /b /data/t > /end
"""
PIPE_FILES = {
    "in": "12", "l": "l", "data.tar": archive(("t", "one")), "lib/a": "a", "lib/b": "b", "lib/c": "c",
    ".dockerignore": "lib\nsecret*\n",
}  # fmt: skip
VALUES = """ARG WHICH=one
ARG GLOBAL=g
FROM busybox AS one
RUN echo same > /v
FROM busybox AS two
RUN printf 'same\\n' > /v
FROM busybox AS three
RUN echo three > /v
FROM ${WHICH}
ARG GLOBAL
RUN echo $GLOBAL > /g
ARG DIR=d1
COPY $DIR/f /f
ARG V=1
ENV VER=v$V
RUN true && \\
    echo $VER > /ver
# buildgraph: secret-in-key=kept
RUN --mount=type=secret,id=kept --mount=type=secret,id=free wc -c < /run/secrets/kept > /k
COPY d1 d2 /both/
"""
VALUES_FILES = {"d1/f": "f", "d2/f": "f", "d2/g": "g", "secret1": "opensesame", "secret2": "swordfish!", ".dockerignore": "secret*\n"}
SECRETS = ("--secret", "id=kept,src={context}/secret1", "--secret", "id=free,src={context}/secret1")

PROJECTS = {
    "pipe": Project(PIPE, PIPE_FILES, ("--build-context", "lib={context}/lib")),
    "values": Project(VALUES, VALUES_FILES, SECRETS),
}

TABLE = [
    # what stages and other contexts give
    Change("a file of a stage that nothing takes", "pipe", "src.1 src.2", ("src.2", "base-changed", "in changed"), files={"in": "13"}, same_image=True),
    Change("a file of a stage that a wildcard and a mount take", "pipe", "src.1 src.2 2.3 2.4 2.7", ("2.3", "source-changed", "COPY in", "in changed"), files={"in": "22"}, same_image=False),
    Change("a stage adds what the wildcard takes, too", "pipe", "src.2 2.3 2.4 2.7", ("src.2", "command-changed", "/firm"), (("cp /in /whole", "cp /in /whole; echo > /firm"),), same_image=False),
    Change("a step below --link", "pipe", "2.1 2.4 2.7", ("2.1", "command-changed", "below → above"), (("echo below", "echo above"),), same_image=False),
    Change("--link is gone", "pipe", "2.2", ("2.2", "operation-changed", "--link is not given any more"), (("--link ", ""),)),
    Change("a file that --link copies", "pipe", "2.2 2.4 2.7", ("2.2", "files-changed", "l changed", "1 B → 2 B"), files={"l": "ll"}, same_image=False),
    Change("a tar holds another file", "pipe", "2.5 2.7", ("2.5", "files-changed", "data.tar changed"), files={"data.tar": archive(("t", "two"))}, same_image=False),
    Change("a file of a named context", "pipe", "2.6 2.7", ("2.6", "files-changed", "a changed", "1 B → 2 B"), files={"lib/a": "aa"}, same_image=False),
    Change("a file of a named context that nothing takes", "pipe", "", files={"lib/c": "cc"}, same_image=True),
    Change("a file of a named context that a mount takes", "pipe", "2.6 2.7", ("2.7", "files-changed", "b changed", "1 B → 2 B"), files={"lib/b": "bb"}, same_image=False),
    Change("another --chown", "pipe", "2.6 2.7", ("2.6", "mode-changed", "the owner was 1000:1001, is 2:2"), (("--chown=1000:1001", "--chown=2:2"),), same_image=False),
    Change("another --chmod", "pipe", "2.6 2.7", ("2.6", "mode-changed", "--chmod was 640, is 600"), (("--chmod=640", "--chmod=600"),), same_image=False),
    Change("--chown by a name that means the same", "pipe", "2.6", ("2.6", "mode-changed", "the owner was 1000:1001, is app"), (("--chown=1000:1001", "--chown=app"),)),
    Change("the sources in another order", "pipe", "2.6", ("2.6", "operation-changed", "the list of sources"), (("a b /lib/", "b a /lib/"),)),
    Change("a mount that is read otherwise", "pipe", "2.7", ("2.7", "operation-changed", "the mounts", "+ type=bind,source=b,target=/b,rw"), (("--mount=type=bind,from=lib,source=b", "--mount=type=bind,rw,from=lib,source=b"),)),
    Change("another stage below: COPYs stay", "pipe", "twin.1 2.1 2.4 2.7", ("2.1", "base-changed", "twin"), (("FROM busybox\n", "FROM twin\n"),), same_image=False),
    Change("a step that another stage made already", "pipe", "", edits=(("RUN echo twin > /t\nFROM busybox\nRUN echo below > /below", "RUN echo below > /below\nFROM twin"),)),
    Change("a stage without a name is given one", "pipe", "", edits=(("FROM busybox\n", "FROM busybox AS last\n"),), same_image=True),
    Change("a step for a cache mount", "pipe", "2.7", ("2.7", "operation-changed", "the mounts", "+ type=cache,target=/cm"), (("RUN --mount=type=bind,from=lib", "RUN --mount=type=cache,target=/cm --mount=type=bind,from=lib"),)),
    Change("a file becomes a directory", "pipe", "2.2 2.4 2.7", ("2.2", "files-changed", "l"), files={"l": None, "l/inner": "x"}, same_image=False),
    # variables that reach far
    Change("a global ARG", "values", "3.2 3.7 3.8", ("3.2", "variables-changed", "GLOBAL changed: g → h"), (("GLOBAL=g", "GLOBAL=h"),), same_image=False),
    Change("a base chosen by an ARG, of the same content", "values", "two.1", ("two.1", "never-built"), options=("--build-arg", "WHICH=two")),
    Change("a base chosen by an ARG, of other content", "values", "three.1 3.2 3.7 3.8", ("3.2", "base-changed", "RUN echo three"), options=("--build-arg", "WHICH=three"), same_image=False),
    Change("an ARG in a path that holds the same", "values", "3.4 3.7 3.8", ("3.7", "variables-changed", "DIR changed: d1 → d2"), options=("--build-arg", "DIR=d2")),
    Change("an ENV made of an ARG", "values", "3.7 3.8", ("3.7", "variables-changed", "v1", "v2"), options=("--build-arg", "V=2"), same_image=False),
    Change("a proxy", "values", "", options=("--build-arg", "HTTP_PROXY=http://proxy.example:3128"), same_image=True),
    # secrets
    Change("a secret that is in no key", "values", "", options=("--secret", "id=free,src={context}/secret2"), same_image=True),
    Change("a secret that is in the key", "values", "3.8", ("3.8", "secret-changed", "the value of the secret kept changed"), files={"secret1": "swordfish!"}),
    # ways to write the same
    Change("keywords in small letters", "values", "", edits=(("RUN echo $GLOBAL", "run echo $GLOBAL"), ("COPY d1", "copy d1")), same_image=True),
    Change("a comment within a line that goes on", "values", "", edits=(("RUN true && \\\n", "RUN true && \\\n# why not\n"),), same_image=True),
    Change("a line that goes on is joined", "values", "3.7", ("3.7", "command-changed", "only blanks in the command changed"), (("&& \\\n    echo", "&& echo"),)),
    Change("another escape", "values", "", edits=(("ARG WHICH", "# escape=`\nARG WHICH"), ("&& \\\n", "&& `\n")), same_image=True),
    Change("a syntax line", "values", "", edits=(("ARG WHICH", "# syntax=docker/dockerfile:1\nARG WHICH"),), same_image=True),
    Change("the exec form", "values", "three.1 3.2 3.7 3.8", ("three.1", "never-built"), (("ARG WHICH=one", "ARG WHICH=three"), ("RUN echo three > /v", 'RUN ["busybox", "touch", "/v"]'))),
    Change("how a step is treated", "values", "", edits=(("RUN echo $GLOBAL", "# buildgraph: retry=2 timeout=1m\nRUN echo $GLOBAL"),), same_image=True),
    Change("a label of the command line", "values", "", options=("--label", "a=b"), same_image=False),
    Change("VOLUME, HEALTHCHECK and STOPSIGNAL", "values", "", edits=(("COPY d1 d2", "VOLUME /data\nHEALTHCHECK CMD true\nSTOPSIGNAL 9\nCOPY d1 d2"),), same_image=False),
    Change("a directory whose files come from two", "values", "3.9", ("3.9", "files-changed", "g changed", "1 B → 2 B"), files={"d2/g": "gg"}, same_image=False),
    Change("a tmpfs", "values", "3.2", ("3.2", "operation-changed", "the mounts", "+ type=tmpfs,target=/scratch"), (("RUN echo $GLOBAL", "RUN --mount=type=tmpfs,target=/scratch echo $GLOBAL"),)),
    Change("a step without a network", "values", "3.2", ("3.2", "operation-changed", "the network", "none"), (("RUN echo $GLOBAL", "RUN --network=none echo $GLOBAL"),)),
]  # fmt: skip
