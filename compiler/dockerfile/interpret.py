"""Raw instructions to typed ones: each keyword's own grammar, and everything that it refuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compiler.dockerfile.durations import parse_duration
from compiler.dockerfile.errors import DockerfileError, did_you_mean
from compiler.dockerfile.flags import Flags
from compiler.dockerfile.heredoc import Heredoc, announcement
from compiler.dockerfile.instructions import (
    Add,
    Arg,
    ArgDefault,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from compiler.dockerfile.policy import read_policy
from compiler.dockerfile.ports import normalise_ports
from compiler.dockerfile.signals import check_signal
from compiler.dockerfile.words import (
    SPACE,
    json_array,
    split_blanks,
    split_first,
    split_flags,
    split_pairs,
    split_quoted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiler.dockerfile.lexer import RawInstruction

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_UNEXPANDED = re.compile(r"[$'\"\\`]")
_MILLISECOND = 1_000_000
_MAX_RETRIES = 2**31 - 1
_NO_TRIGGER = frozenset({"onbuild", "from", "maintainer"})


def interpret(raw: RawInstruction, escape: str) -> Instruction:
    """The typed form of one instruction; DockerfileError for everything that the language refuses."""
    reader = _READERS.get(raw.keyword.lower())
    if reader is None:
        if not raw.keyword:
            raise DockerfileError("a continuation mark without an instruction", raw.span)
        message = f"unknown instruction {raw.keyword}{did_you_mean(raw.keyword, map(str.upper, _READERS))}"
        raise DockerfileError(message, raw.span.find(raw.keyword))
    try:
        instruction = reader(raw, escape)
    except ValueError as error:  # of the readers of words, which know no place
        raise DockerfileError(str(error), raw.span) from None
    if not raw.policies:
        return instruction
    policy = read_policy(raw.policies, raw.keyword, raw.span.source)
    assert isinstance(instruction, Run | Copy | Add | Workdir)  # as read_policy made sure
    return instruction._replace(policy=policy)


def _description(raw: RawInstruction, name: str) -> str:
    """The text of the first comment above that starts with the name."""
    return next((line[len(name) + 1 :] for line in raw.comments if name and line.startswith(f"{name} ")), "")


def _one(raw: RawInstruction) -> str:
    Flags(raw)
    if not raw.rest:
        raise ValueError(f"{raw.keyword.upper()} needs an argument")
    return raw.rest


def _command(raw: RawInstruction) -> Command:
    args = json_array(raw.rest)
    return ShellForm(raw.rest) if args is None else ExecForm(args)


def _from(raw: RawInstruction, escape: str) -> From:
    flags = Flags(raw, texts=("platform",))
    image, *naming = split_blanks(raw.rest) or ("",)
    if not image or (naming and (len(naming) != 2 or naming[0].lower() != "as")):
        raise ValueError("FROM takes an image and, if wanted, AS and a name")
    name = naming[1].lower() if naming else ""
    if naming and not _STAGE_NAME.fullmatch(name):
        message = f"{naming[1]} is no name for a stage: a letter, then letters, digits and - _ . only"
        raise DockerfileError(message, raw.span.find(naming[1]))
    return From(image, flags.text("platform"), name, _description(raw, name), raw.span, raw.text, raw.comments)


def _arg(raw: RawInstruction, escape: str) -> Arg:
    Flags(raw)
    words = split_quoted(raw.rest, escape)
    if not words:
        raise ValueError("ARG needs at least one name")
    args = []
    for word in words:
        name, equals, default = word.partition("=")
        if not name:
            raise ValueError(f"ARG: the name before {word} is empty")
        args.append(ArgDefault(name, default if equals else None, _description(raw, name)))
    return Arg(tuple(args), raw.span, raw.text, raw.comments)


def _env(raw: RawInstruction, escape: str) -> Env:
    Flags(raw)
    pairs, legacy = split_pairs(raw.rest, "ENV", escape)
    return Env(pairs, legacy, raw.span, raw.text, raw.comments)


def _label(raw: RawInstruction, escape: str) -> Label:
    Flags(raw)
    pairs, legacy = split_pairs(raw.rest, "LABEL", escape)
    return Label(pairs, legacy, raw.span, raw.text, raw.comments)


def _run(raw: RawInstruction, escape: str) -> Run:
    flags = Flags(raw, texts=("network", "security"), lists=("mount", "device"))
    command = _command(raw)
    if command == ExecForm(()):
        raise ValueError("RUN [] has no program to run")
    network = flags.text("network", "default")
    if network not in ("default", "none", "host"):
        raise DockerfileError(f"--network is default, none or host, not {network}", raw.span.find("--network"))
    security = flags.text("security", "sandbox")
    if security not in ("sandbox", "insecure"):
        raise DockerfileError(f"--security is sandbox or insecure, not {security}", raw.span.find("--security"))
    mounts = flags.list("mount")
    if mounts:
        from compiler.dockerfile.mounts import check_unexpanded

        for mount in mounts:
            check_unexpanded(mount, raw.span.find("--mount"))
    script = raw.heredocs[0] if len(raw.heredocs) == 1 and announcement(raw.rest) else None
    devices = flags.list("device")
    common = (raw.span, raw.text, raw.comments)
    return Run(command, raw.heredocs, script, mounts, network, security, devices, *common)


def _sources(raw: RawInstruction) -> tuple[tuple[str, ...], str, tuple[Heredoc, ...]]:
    """Source paths, destination and heredoc sources of COPY and ADD."""
    keyword = raw.keyword.upper()
    args = json_array(raw.rest)
    heredocs = raw.heredocs
    if args is not None:
        words = args
        paths = words[:-1]
    else:
        words = split_blanks(raw.rest)
        if words and announcement(words[-1]):
            raise ValueError(f"{keyword} cannot write to a heredoc; a destination must follow it")
        if any(word in ("<<", "<<-") for word in words):
            raise ValueError(f"{keyword} takes a heredoc as <<NAME, without a space")
        paths = tuple(word for word in words[:-1] if not announcement(word))
        if len(words) - 1 - len(paths) != len(heredocs):
            raise ValueError(f"the name of a heredoc in {keyword} is one word without quotes inside")
    if len(words) < 2:
        raise ValueError(f"{keyword} needs at least one source and a destination")
    return paths, words[-1], heredocs


def _copy(raw: RawInstruction, escape: str) -> Copy:
    flags = Flags(raw, texts=("from", "chown", "chmod"), lists=("exclude",), switches=("link", "parents"))
    paths, destination, heredocs = _sources(raw)
    origin = flags.text("from")
    if "$" in origin:
        message = f"COPY --from takes no variables: define a stage with FROM {origin} AS name and copy from that"
        raise DockerfileError(message, raw.span.find("--from"))
    return Copy(
        paths,
        destination,
        heredocs,
        origin,
        flags.text("chown"),
        flags.text("chmod"),
        bool(flags.switch("link")),
        bool(flags.switch("parents")),
        flags.list("exclude"),
        raw.span,
        raw.text,
        raw.comments,
    )


def _add(raw: RawInstruction, escape: str) -> Add:
    texts = ("chown", "chmod", "checksum")
    flags = Flags(raw, texts=texts, lists=("exclude",), switches=("link", "keep-git-dir", "unpack"))
    paths, destination, heredocs = _sources(raw)
    return Add(
        paths,
        destination,
        heredocs,
        flags.text("chown"),
        flags.text("chmod"),
        bool(flags.switch("link")),
        flags.list("exclude"),
        flags.text("checksum"),
        flags.switch("keep-git-dir"),
        flags.switch("unpack"),
        raw.span,
        raw.text,
        raw.comments,
    )


def _cmd(raw: RawInstruction, escape: str) -> Cmd:
    Flags(raw)
    return Cmd(_command(raw), raw.span, raw.text, raw.comments)


def _entrypoint(raw: RawInstruction, escape: str) -> Entrypoint:
    Flags(raw)
    return Entrypoint(_command(raw), raw.span, raw.text, raw.comments)


def _shell(raw: RawInstruction, escape: str) -> Shell:
    Flags(raw)
    args = json_array(raw.rest)
    if not args:
        raise ValueError('SHELL takes a JSON array that is not empty, as in SHELL ["/bin/bash", "-c"]')
    return Shell(args, raw.span, raw.text, raw.comments)


def _healthcheck(raw: RawInstruction, escape: str) -> Healthcheck:
    flags = Flags(raw, texts=("interval", "timeout", "start-period", "start-interval", "retries"))
    word, behind = split_first(raw.rest)
    kind = word.upper()
    args = json_array(behind)
    if kind == "NONE" and behind:
        raise ValueError("HEALTHCHECK NONE takes no arguments")
    if kind == "CMD" and (not behind or args == ()):
        raise ValueError("HEALTHCHECK CMD needs a command")
    if kind not in ("NONE", "CMD"):
        raise ValueError(f"HEALTHCHECK takes CMD or NONE, not {word}" if word else "HEALTHCHECK needs CMD or NONE")
    test = ("NONE",) if kind == "NONE" else ("CMD-SHELL", behind) if args is None else ("CMD", *args)
    return Healthcheck(
        test,
        _interval(flags, "interval"),
        _interval(flags, "timeout"),
        _interval(flags, "start-period"),
        _interval(flags, "start-interval"),
        _retries(flags),
        raw.span,
        raw.text,
        raw.comments,
    )


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    nanoseconds = parse_duration(text) if text else 0
    if nanoseconds and nanoseconds < _MILLISECOND:
        raise ValueError(f"--{name} cannot be less than 1ms")
    return nanoseconds


def _retries(flags: Flags) -> int:
    text = flags.text("retries") or "0"
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", text, re.ASCII) or int(text) > _MAX_RETRIES:
        raise ValueError(f"--retries is a number, not {text}")
    if int(text) < 0:
        raise ValueError(f"--retries cannot be negative: {text}")
    return int(text)


def _expose(raw: RawInstruction, escape: str) -> Expose:
    words = split_blanks(_one(raw))
    normalise_ports([word for word in words if not _UNEXPANDED.search(word)])
    return Expose(words, raw.span, raw.text, raw.comments)


def _volume(raw: RawInstruction, escape: str) -> Volume:
    Flags(raw)
    args = json_array(raw.rest)
    paths = tuple(path.strip(SPACE) for path in (split_blanks(raw.rest) if args is None else args))
    if not paths:
        raise ValueError("VOLUME needs at least one path")
    if not all(paths):
        raise ValueError("the path of a VOLUME cannot be empty")
    return Volume(paths, raw.span, raw.text, raw.comments)


def _user(raw: RawInstruction, escape: str) -> User:
    return User(_one(raw), raw.span, raw.text, raw.comments)


def _workdir(raw: RawInstruction, escape: str) -> Workdir:
    return Workdir(_one(raw), raw.span, raw.text, raw.comments)


def _stopsignal(raw: RawInstruction, escape: str) -> StopSignal:
    signal = _one(raw)
    if not _UNEXPANDED.search(signal):
        check_signal(signal)
    return StopSignal(signal, raw.span, raw.text, raw.comments)


def _onbuild(raw: RawInstruction, escape: str) -> OnBuild:
    trigger = _one(raw)
    keyword, behind = split_first(trigger)
    if keyword.lower() in _NO_TRIGGER:
        raise ValueError(f"{keyword.upper()} is not allowed as a trigger of ONBUILD")
    flags, rest = split_flags(behind, escape)
    inner = raw._replace(keyword=keyword, flags=flags, rest=rest, text=trigger, comments=(), policies=())
    instruction = interpret(inner, escape)
    bodies = "".join(f"\n{heredoc.body}{heredoc.name}" for heredoc in raw.heredocs)
    return OnBuild(trigger + bodies, instruction, raw.span, raw.text, raw.comments)


def _maintainer(raw: RawInstruction, escape: str) -> Maintainer:
    return Maintainer(_one(raw), raw.span, raw.text, raw.comments)


_READERS: dict[str, Callable[[RawInstruction, str], Instruction]] = {
    "add": _add,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
