"""Command line options that `build` and `plan` share, and the definition and options that they make."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from cache.errors import EnvironmentProblem, UsageError
from cache.platform import Platform
from compiler.cli import settings
from compiler.cli.remote_options import add_remote_options, fleet_choice, remote_settings
from compiler.cli.streams import read_input, say
from compiler.dockerfile.source import Source
from compiler.fleet_choice import NO_CHOICE, FleetChoice
from compiler.options import BuildOptions, SecretSource, SshSource
from compiler.session import Definition
from compiler.text_file import read_text_file, refuse_outside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.remote_settings import RemoteSettings

NAMES = ("Dockerfile", "dockerfile")
_HEAD = 512
"""Bytes that tell an archive from a Dockerfile."""
_SPOOL = 1 << 20
MAX_DOCKERFILE = 16 << 20
"""Bytes of a Dockerfile; generated ones have some hundred kilobytes."""
MAX_BYTES = (1 << 63) - 1
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,19})([kmgKMG]?)[bB]?")
_LIMIT = re.compile(r"-1|[0-9]{1,18}")
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd begin; no Dockerfile does."""


class Parser(argparse.ArgumentParser):
    """Reports what is wrong as a UsageError, like every other failure."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")

    def print_help(self, file: object = None) -> None:
        say(self.format_help())


class Request(NamedTuple):
    """What the command line asks for. variants: the options once for each platform. gc: [gc] of buildgraph.toml.
    remote: the cache server, None for none. fleet: what the user said about its workers."""

    definition: Definition
    variants: list[BuildOptions]
    store: str
    jobs: int
    progress: str
    gc: Mapping[str, Any]
    remote: RemoteSettings | None = None
    fleet: FleetChoice = NO_CHOICE


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """The options of docker buildx that say what is built."""
    parser.add_argument("context", metavar="CONTEXT", help="directory whose files COPY takes; - for none")
    parser.add_argument("-f", "--file", help="Dockerfile; - for standard input (default: CONTEXT/Dockerfile)")
    parser.add_argument("--target", default="", help="stage to build (default: the last one)")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME[=VALUE]", help="value for an ARG")
    parser.add_argument("--build-context", action="append", default=[], metavar="NAME=VALUE", help="a further context")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="label of the image")
    parser.add_argument("--platform", action="append", default=[], metavar="OS/ARCH", help="one, or several")
    parser.add_argument("--no-cache", action="store_true", help="run every step")
    parser.add_argument("--no-cache-filter", action="append", default=[], metavar="STAGE", help="run a stage's steps")
    parser.add_argument("--pull", action="store_true", help="ask the registry again what a tag means")
    parser.add_argument("--secret", action="append", default=[], metavar="id=ID,src=FILE", help="for RUN --mount")
    parser.add_argument("--ssh", action="append", default=[], metavar="ID[=SOCKET]", help="agent for RUN --mount")
    parser.add_argument("--allow", action="append", default=[], metavar="WHAT", help="allow security.insecure")
    parser.add_argument("--network", default="default", choices=("default", "host", "none"), help="network of RUN")
    parser.add_argument("--add-host", action="append", default=[], metavar="NAME:IP", help="line for /etc/hosts in RUN")
    parser.add_argument("--shm-size", default="64m", metavar="BYTES", help="size of /dev/shm in RUN")
    parser.add_argument("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="limit for RUN")
    parser.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    add_remote_options(parser)
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="steps that may run at the same time")
    parser.add_argument(
        "--local-slots", type=int, default=None, metavar="N", help="RUNs of this machine beside the fleet's; 0 for none"
    )
    parser.add_argument(
        "--worker-label", action="append", default=[], metavar="K=V", help="what a worker must have to get RUNs"
    )


def read_request(arguments: argparse.Namespace) -> Request:
    """Understand the shared options. Raises UsageError, EnvironmentProblem."""
    _require_working_directory(arguments.context)
    defaults = settings.load(None if arguments.context == "-" else arguments.context)
    if not 0 <= arguments.jobs <= settings.MAX_JOBS:
        raise UsageError(f"--jobs {arguments.jobs}: it must be from 1 to {settings.MAX_JOBS}")
    names = ",".join(arguments.platform) or defaults.platform
    platforms = list(dict.fromkeys(Platform.parse(name.strip()) for name in names.split(",") if name.strip()))
    epoch, epoch_source = _epoch(_build_args(arguments.build_arg))
    options = BuildOptions(
        platform=platforms[0] if platforms else Platform.here(),
        target=arguments.target,
        build_args=tuple(_build_args(arguments.build_arg).items()),
        contexts=tuple(_pair(text, "--build-context") for text in arguments.build_context),
        labels=tuple(_pair(text, "--label") for text in arguments.label),
        network=arguments.network,
        hosts=tuple(_host(text) for text in arguments.add_host),
        shm_size=_bytes(arguments.shm_size, "--shm-size"),
        ulimits=tuple(_ulimit(text) for text in arguments.ulimit),
        no_cache=arguments.no_cache,
        no_cache_stages=tuple(name.lower() for text in arguments.no_cache_filter for name in text.split(",")),
        pull=arguments.pull,
        source_date_epoch=epoch,
        epoch_source=epoch_source,
        secrets=tuple(_secret(text) for text in arguments.secret),
        ssh=tuple(_ssh(text) for text in arguments.ssh),
        allow=tuple(_allowed(text) for text in arguments.allow),
    )
    store = arguments.store or defaults.store
    variants = [options._replace(platform=platform) for platform in platforms] or [options]
    jobs = arguments.jobs or defaults.jobs
    remote = remote_settings(arguments, defaults.remote)
    fleet = fleet_choice(arguments.local_slots, defaults.local_slots, defaults.remote, arguments.worker_label)
    return Request(_definition(arguments), variants, store, jobs, defaults.progress, defaults.gc, remote, fleet)


def _require_working_directory(context: str) -> None:
    if context != "-" and not os.path.isabs(context):
        try:
            os.getcwd()
        except OSError:
            raise EnvironmentProblem(
                f"the context {context} is relative to a working directory that is gone", hint="cd to one that exists"
            ) from None


def _definition(arguments: argparse.Namespace) -> Definition:
    context: str | None = arguments.context
    assert context is not None
    if context == "-":
        return _from_stdin(arguments.file)
    from compiler.git_words import is_git
    from compiler.steps import is_url

    if is_git(context) or is_url(context):
        source = _read_stdin() if arguments.file == "-" else None
        return Definition(source, None, None if source else arguments.file, context)
    if not os.path.isdir(context):
        raise UsageError(f"the context {context} is not a directory")
    if arguments.file == "-":
        return Definition(_read_stdin(), context, None)
    path = arguments.file or _find_dockerfile(context)
    return Definition(_read_file(path), context, os.path.realpath(path))


def _find_dockerfile(context: str) -> str:
    for name in NAMES:
        path = os.path.join(context, name)
        if os.path.exists(path):
            refuse_outside(path, context, hint="name the file with -f if it is meant")
            return path
    raise UsageError(f"there is no Dockerfile in {context}", hint="name one with -f")


def _read_file(path: str) -> Source:
    data = read_text_file(path, MAX_DOCKERFILE)
    if data is None:
        raise UsageError(f"there is no file {path}")
    return Source.from_bytes(os.path.relpath(path) if not path.startswith("/") else path, data)


def _from_stdin(file: str | None) -> Definition:
    """`-` as context: an archive with files and Dockerfile, or a Dockerfile alone, as its content says."""
    head = read_input(_HEAD)
    if not (head.startswith(_ARCHIVES) or head[257:262] == b"ustar"):
        if file not in (None, "-"):
            raise UsageError(f"-f {file}: standard input is no archive that it could be in")
        return Definition(_dockerfile(head + read_input(MAX_DOCKERFILE + 1)), None, None)
    # A file without a name: it is gone with this process, however that ends.
    spool = os.open(tempfile.gettempdir(), os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        while head:
            os.write(spool, head)
            head = read_input(_SPOOL)
    except OSError as error:
        raise EnvironmentProblem(f"cannot keep the context from standard input: {error.strerror}") from None
    return Definition(None, None, file, f"/proc/self/fd/{spool}")


def _read_stdin() -> Source:
    return _dockerfile(read_input(MAX_DOCKERFILE + 1))


def _dockerfile(data: bytes) -> Source:
    if len(data) > MAX_DOCKERFILE:
        raise UsageError(f"the Dockerfile on standard input is larger than {MAX_DOCKERFILE >> 20} MiB")
    return Source.from_bytes("Dockerfile", data)


def _build_args(texts: list[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` for a variable of the environment; one that is not set is left out, as in docker."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"--build-arg {text}: it has no name")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{option} {text}: it must be NAME=VALUE")
    return name, value


def _host(text: str) -> str:
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not name or not found or not address or set(text) & set(" \t\r\n"):
        raise UsageError(f"--add-host {text}: it must be NAME:IP")
    return text


def _bytes(text: str, option: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise UsageError(f"{option} {text}: it must be a number of bytes, with k, m or g behind it if you like")
    size = int(found[1]) * _UNITS[found[2].lower()]
    if size > MAX_BYTES:
        raise UsageError(f"{option} {text}: that is more than any machine has")
    return size


def _ulimit(text: str) -> tuple[str, int, int]:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    hard = hard or soft
    if not (name.isascii() and name.isalpha()) or not _LIMIT.fullmatch(soft) or not _LIMIT.fullmatch(hard):
        raise UsageError(f"--ulimit {text}: it must be NAME=SOFT[:HARD], in numbers; -1 is no limit")
    return name.lower(), int(soft), int(hard)


def _epoch(build_args: dict[str, str]) -> tuple[int | None, str]:
    """SOURCE_DATE_EPOCH as seconds, or the name of what has the time."""
    text = build_args.get("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", ""))
    if text.isascii() and text.isdigit() and len(text) <= 11:
        return int(text), ""
    if text and not text[0].isalpha():
        raise UsageError(f"SOURCE_DATE_EPOCH={text} is not a number of seconds")
    return None, text


def _ssh(text: str) -> SshSource:
    """`default`, or `ID=SOCKET`, or `ID=KEY,KEY…`."""
    identity, equals, value = text.partition("=")
    if not equals:
        value = os.environ.get("SSH_AUTH_SOCK", "")
        if not value:
            raise UsageError(f"--ssh {text}: no agent is running here: SSH_AUTH_SOCK is not set")
    return SshSource(identity or "default", tuple(os.path.abspath(path) for path in value.split(",")))


def _allowed(text: str) -> str:
    if text not in ("security.insecure", "network.host"):
        raise UsageError(f"--allow {text}: it may be security.insecure or network.host")
    return text


def _secret(text: str) -> SecretSource:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    unknown = sorted(fields.keys() - {"id", "src", "source", "env", "type"})
    if unknown:
        hint = "it may be id=ID,src=FILE or id=ID,env=NAME"
        raise UsageError(f"--secret {text}: unknown key {unknown[0]!r}", hint=hint)
    if not fields.get("id"):
        raise UsageError(f"--secret {text}: it has no id")
    file, env = fields.get("src", fields.get("source", "")), fields.get("env", "")
    kind = fields.get("type", "")
    if kind == "env" and not env:
        env, file = file or fields["id"], ""
    if not file and not env:
        # As docker: the variable of that name if there is one, else the file.
        env, file = (fields["id"], "") if fields["id"] in os.environ else ("", fields["id"])
    return SecretSource(fields["id"], os.path.abspath(file) if file else "", env)
