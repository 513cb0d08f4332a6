"""Steps: RUN, COPY, ADD and WORKDIR as operations with their inputs."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cache.errors import UsageError
from compiler import history
from compiler.dockerfile import instructions as ast
from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.mounts import parse_mount
from compiler.git_words import is_git
from worker.modes import check_mode, fixed_mode
from worker.operation import Copy, Inline, MakeDirectory, Mount, Operation, Pattern, Run, Script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from compiler.dockerfile.mounts import Mount as WrittenMount
    from compiler.dockerfile.source import Span
    from compiler.git_source import GitUrl
    from compiler.options import BuildOptions
    from compiler.stage_builder import StageBuilder

INSECURE = "security.insecure"
HOSTNAME = "buildkitsandbox"
"""What a step sees as its host's name: never the machine's, and the same as in docker's builds."""


class Inputs(Protocol):
    """Where the files of other stages, images, contexts and URLs come from; each answers with a node's id."""

    def source(self, name: str, span: Span) -> str:
        """What `--from=NAME` means: a stage, a named context or an image. Raises DockerfileError."""
        ...

    def context(self) -> str:
        """The build's own context."""
        ...

    def http(self, url: str, checksum: str) -> str: ...

    def git(self, url: GitUrl, span: Span) -> str:
        """A repository at the commit that the URL means now. Raises DockerfileError, FailedAt."""
        ...


class Step(NamedTuple):
    """What becomes a node. inputs: ids of the nodes, number 0 the root filesystem. created_by: for the history."""

    operation: Operation
    inputs: tuple[str, ...]
    created_by: str


class _InputList:
    """Numbers the nodes that an operation takes from; the root filesystem is number 0."""

    def __init__(self, rootfs: str) -> None:
        self.ids = [rootfs]

    def number(self, node_id: str) -> int:
        # The root filesystem may be a source as well, under a number of its own.
        if node_id not in self.ids[1:]:
            self.ids.append(node_id)
        return self.ids.index(node_id, 1)


def run_step(instruction: ast.Run, stage: StageBuilder, options: BuildOptions, inputs: Inputs) -> Step:
    """RUN. Raises DockerfileError."""
    span = instruction.span
    insecure = instruction.security == "insecure"
    if insecure and INSECURE not in options.allow:
        message = "RUN --security=insecure opens this machine to the command, and that is not allowed"
        raise DockerfileError(message, span.find("--security"), hint=f"add --allow {INSECURE}")
    if instruction.devices:
        raise DockerfileError("RUN --device is refused: there are no devices to give out here", span.find("--device"))
    network = instruction.network if instruction.network != "default" else options.network
    if network == "host":
        network = "default"  # which is the host's network, for now
    numbers = _InputList(stage.rootfs)
    mounts = _place_agents(_mount(text, stage, inputs, numbers, span) for text in instruction.mounts)
    argv, scripts = _argv(instruction, stage)
    if not argv:
        raise DockerfileError("RUN has no command", span)
    operation = Run(
        argv=argv,
        env=tuple(stage.scope.visible.items()),
        cwd=stage.cwd,
        user=stage.config.user,
        network=network,
        hostname=stage.scope.build_argument("BUILDKIT_SANDBOX_HOSTNAME") or HOSTNAME,
        mounts=mounts,
        scripts=scripts,
        hosts=tuple(_host(entry) for entry in options.hosts),
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        insecure=insecure,
    )
    declared = [(name, stage.scope.visible.get(name, value or "")) for name, value in stage.declared.items()]
    holds = stage.scope.secrets.holds
    shown = [(name, None if holds(name, value) else value) for name, value in declared]
    return Step(operation, tuple(numbers.ids), history.run_text(argv, shown))


def _argv(instruction: ast.Run, stage: StageBuilder) -> tuple[tuple[str, ...], tuple[Script, ...]]:
    script = instruction.script
    if script is not None:
        body = script.content
        if body.startswith("#!"):
            return (f"/dev/pipes/{script.name}",), (Script(script.name, body),)
        return (*stage.shell, body), ()
    command = instruction.command
    if isinstance(command, ast.ExecForm) or not instruction.heredocs:
        return stage.command(command), ()
    # The shell reads these heredocs itself, from the text as it stood in the Dockerfile.
    text = command.text
    for heredoc in instruction.heredocs:
        text += f"\n{heredoc.body}{heredoc.name}"
    return (*stage.shell, text), ()


def _place_agents(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    """ssh mounts without a target go where docker puts them, numbered from 0."""
    found = []
    agents = 0
    for mount in mounts:
        if mount.type == "ssh":
            target = mount.target or f"/run/buildkit/ssh_agent.{agents}"
            agents += 1
            mount = mount._replace(target=target)
        found.append(mount)
    return tuple(found)


def _mount(text: str, stage: StageBuilder, inputs: Inputs, numbers: _InputList, span: Span) -> Mount:
    written = parse_mount(text, span, lambda value: stage.scope.expand(value, span))
    unseen = ("secret", "ssh")
    target = stage.absolute(written.target).rstrip("/") if written.target or written.type not in unseen else ""
    if not target and written.type not in unseen:
        raise DockerfileError("RUN --mount cannot be mounted at /", span)
    number = None
    if written.type == "bind" or (written.type == "cache" and written.from_):
        number = numbers.number(inputs.source(written.from_, span) if written.from_ else inputs.context())
    return _operation_mount(written, target, number, stage)


def _operation_mount(written: WrittenMount, target: str, number: int | None, stage: StageBuilder) -> Mount:
    identity = written.id
    if written.type == "cache":
        # The namespace keeps unlike builds on one machine apart, as docker's does.
        namespace = stage.scope.build_argument("BUILDKIT_CACHE_MOUNT_NS")
        identity = f"{namespace}/{written.id or target}"
    return Mount(
        type=written.type,
        target=target,
        input=number,
        source=written.source,
        read_only=written.read_only,
        id=identity,
        sharing=written.sharing,
        size=written.size,
        mode=written.mode or 0,
        uid=written.uid,
        gid=written.gid,
        required=written.required,
        env=written.env,
    )


def _host(entry: str) -> str:
    name, _, address = entry.partition(":") if "=" not in entry else entry.partition("=")
    return f"{address.strip('[]')}\t{name}"


def copy_step(instruction: ast.Copy, stage: StageBuilder, inputs: Inputs) -> Step:
    """COPY. Raises DockerfileError."""
    span = instruction.span
    numbers = _InputList(stage.rootfs)
    words = [stage.scope.expand(source, span) for source in instruction.sources]
    sources: list[Pattern | Inline] = []
    if words:
        node = inputs.source(instruction.from_, span) if instruction.from_ else inputs.context()
        number = numbers.number(node)
        sources += [Pattern(number, word) for word in words]
    sources += _inline(instruction, stage)
    destination, owner, mode = _placement(instruction, stage)
    operation = Copy(
        sources=tuple(sources),
        destination=destination,
        owner=owner,
        mode=mode,
        link=instruction.link,
        exclude=instruction.exclude,
        from_context=not instruction.from_,
        parents=instruction.parents,
    )
    written = stage.scope.expand(instruction.destination, span)  # in the history it stands as it was written
    created_by = _created_by("COPY", instruction, words, written, owner)
    return Step(operation, tuple(numbers.ids), stage.scope.secrets.shown(created_by))


def add_step(instruction: ast.Add, stage: StageBuilder, inputs: Inputs) -> Step:
    """ADD. Raises DockerfileError, and FailedAt for a repository that cannot be had."""
    span = instruction.span
    checksum = stage.scope.expand(instruction.checksum, span) if instruction.checksum else ""
    numbers = _InputList(stage.rootfs)
    words = [stage.scope.expand(source, span) for source in instruction.sources]
    if checksum and not checksum.startswith("sha256:") and not any(map(is_git, words)):
        raise DockerfileError(f"--checksum={checksum} is not of the form sha256:DIGEST", span.find("--checksum"))
    if checksum and (len(words) != 1 or not (is_url(words[0]) or is_git(words[0]))):
        raise DockerfileError("--checksum needs exactly one source, which must be a URL", span.find("--checksum"))
    sources: list[Pattern | Inline] = []
    for word in words:
        if is_git(word):
            sources.append(Pattern(numbers.number(inputs.git(_git_url(word, instruction, checksum), span)), "/"))
        elif is_url(word):
            name = url_file_name(word)
            stage.scope.secrets.note_path(word, url_file_name)
            if not name:
                raise DockerfileError(f"{word} names no file, so the destination must", span.find(word))
            extract = instruction.unpack is True
            sources.append(Pattern(numbers.number(inputs.http(word, checksum)), name, extract))
        else:
            extract = instruction.unpack is not False
            sources.append(Pattern(numbers.number(inputs.context()), word, extract))
    sources += _inline(instruction, stage)
    destination, owner, mode = _placement(instruction, stage)
    operation = Copy(tuple(sources), destination, owner, mode, instruction.link, instruction.exclude)
    written = stage.scope.expand(instruction.destination, span)  # in the history it stands as it was written
    created_by = _created_by("ADD", instruction, words, written, owner)
    return Step(operation, tuple(numbers.ids), stage.scope.secrets.shown(created_by))


def _git_url(word: str, instruction: ast.Add, checksum: str) -> GitUrl:
    from compiler.git_source import parse_git_url

    try:
        url = parse_git_url(word)
    except UsageError as error:
        raise DockerfileError(error.message, instruction.span.find(word), hint=error.hint) from None
    if instruction.keep_git_dir is not None:
        url = url._replace(keep=instruction.keep_git_dir)
    return url._replace(checksum=checksum) if checksum else url


def workdir_step(instruction: ast.Workdir, stage: StageBuilder) -> Step | None:
    """WORKDIR: sets the working directory, and makes it unless it is `/`. Raises DockerfileError."""
    path = stage.scope.expand(instruction.path, instruction.span)
    if not path:
        raise DockerfileError("WORKDIR is empty once its variables are replaced", instruction.span)
    path = stage.absolute(path).rstrip("/") or "/"
    stage.config = stage.config._replace(working_dir=path)
    created_by = f"WORKDIR {path}"
    if path == "/":
        stage.note(created_by)
        return None
    return Step(MakeDirectory(path, stage.config.user), (stage.rootfs,), created_by)


def _inline(instruction: ast.Copy | ast.Add, stage: StageBuilder) -> list[Inline]:
    found = []
    for heredoc in instruction.heredocs:
        text = heredoc.content
        if heredoc.expand:
            text = stage.scope.expand_raw(text, instruction.span)
        found.append(Inline(heredoc.name, text))
    return found


def _placement(instruction: ast.Copy | ast.Add, stage: StageBuilder) -> tuple[str, str, str]:
    """Destination, owner and mode with their variables replaced."""
    span = instruction.span
    destination = stage.scope.expand(instruction.destination, span)
    if not destination:
        raise DockerfileError("the destination is empty once its variables are replaced", span)
    owner = stage.scope.expand(instruction.chown, span) if instruction.chown else ""
    mode = ""
    if instruction.chmod:
        mode = stage.scope.expand(instruction.chmod, span)
        try:
            check_mode(mode)
        except ValueError as error:
            raise DockerfileError(f"--chmod: {error}", span.find("--chmod")) from None
        fixed = fixed_mode(mode)
        if fixed is not None:
            mode = f"{fixed:o}"  # 644 and 0644 are one mode, and one key
    return stage.absolute(destination), owner, mode


def _created_by(
    keyword: str, instruction: ast.Copy | ast.Add, words: list[str], destination: str, owner: str
) -> str:
    # As docker does, without --from: what it names means nothing outside of this file.
    flags = [f"--chown={owner}"] if owner else []
    if instruction.chmod:
        flags.append(f"--chmod={instruction.chmod}")
    if instruction.link:
        flags.append("--link")
    if isinstance(instruction, ast.Copy) and instruction.parents:
        flags.append("--parents")
    names = words + [f"<<{heredoc.name}" for heredoc in instruction.heredocs]
    return history.copy_text(keyword, flags, names, destination)


def is_url(word: str) -> bool:
    """Whether an ADD source is fetched from the web."""
    return word.lower().startswith(("http://", "https://"))


def url_file_name(url: str) -> str:
    """The last component of the URL's path, "" for none."""
    from urllib.parse import unquote, urlsplit

    return posixpath.basename(unquote(urlsplit(url).path))
