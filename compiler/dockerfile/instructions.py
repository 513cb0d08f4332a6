"""The instructions of a Dockerfile as values: typed, frozen, not expanded, without behaviour.

Every one has these fields: `span`, where it stands; `text`, its source on one logical line without heredoc bodies;
`comments`, the comment lines above it. What becomes a step ends with its `policy`. Strings that the language expands
still hold their variables and quotes. Absent strings are `""`.
"""

from typing import NamedTuple, TypeAlias

from compiler.dockerfile.heredoc import Heredoc
from compiler.dockerfile.policy import NO_POLICY, Policy
from compiler.dockerfile.source import Span
from compiler.dockerfile.words import Pair

# Annotations are evaluated here, not postponed: NamedTuple compiles each postponed one, 2 ms in all at every start.


class ShellForm(NamedTuple):
    """A command that the stage's SHELL runs."""

    text: str


class ExecForm(NamedTuple):
    """A command as an argument vector, from a JSON array; may be empty in CMD and ENTRYPOINT."""

    args: tuple[str, ...]


Command: TypeAlias = ShellForm | ExecForm


class From(NamedTuple):
    """`FROM [--platform=…] image [AS name]`; `name` is lower-cased, `description` comes from a comment `# name …`."""

    image: str
    platform: str
    name: str
    description: str
    span: Span
    text: str
    comments: tuple[str, ...]


class ArgDefault(NamedTuple):
    """One `NAME[=default]` of ARG; a default of None is none, of `""` the empty string."""

    name: str
    default: str | None
    description: str


class Arg(NamedTuple):
    args: tuple[ArgDefault, ...]
    span: Span
    text: str
    comments: tuple[str, ...]


class Env(NamedTuple):
    """`legacy` marks the form `ENV name the rest is the value`."""

    pairs: tuple[Pair, ...]
    legacy: bool
    span: Span
    text: str
    comments: tuple[str, ...]


class Label(NamedTuple):
    """`legacy` as in Env."""

    pairs: tuple[Pair, ...]
    legacy: bool
    span: Span
    text: str
    comments: tuple[str, ...]


class Run(NamedTuple):
    """RUN.

    heredocs: all that the command line announces. script: the one that *is* the command, the line saying nothing
        else: the shell is given its content, or it is executed itself where that starts with `#!`.
    mounts: each `--mount` as written; `mounts.parse_mount` understands them once variables are known.
    network: `default`, `none` or `host`. security: `sandbox` or `insecure`. devices: each `--device` as written.
    """

    command: Command
    heredocs: tuple[Heredoc, ...]
    script: Heredoc | None
    mounts: tuple[str, ...]
    network: str
    security: str
    devices: tuple[str, ...]
    span: Span
    text: str
    comments: tuple[str, ...]
    policy: Policy = NO_POLICY


class Copy(NamedTuple):
    """COPY; `from_` is a stage's name or number, a named context or an image."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...]
    from_: str
    chown: str
    chmod: str
    link: bool
    parents: bool
    exclude: tuple[str, ...]
    span: Span
    text: str
    comments: tuple[str, ...]
    policy: Policy = NO_POLICY


class Add(NamedTuple):
    """ADD; `keep_git_dir` and `unpack` are None where the flag is absent: each kind of source has its own default."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...]
    chown: str
    chmod: str
    link: bool
    exclude: tuple[str, ...]
    checksum: str
    keep_git_dir: bool | None
    unpack: bool | None
    span: Span
    text: str
    comments: tuple[str, ...]
    policy: Policy = NO_POLICY


class Cmd(NamedTuple):
    command: Command
    span: Span
    text: str
    comments: tuple[str, ...]


class Entrypoint(NamedTuple):
    command: Command
    span: Span
    text: str
    comments: tuple[str, ...]


class Shell(NamedTuple):
    """`args` has at least one element."""

    args: tuple[str, ...]
    span: Span
    text: str
    comments: tuple[str, ...]


class Healthcheck(NamedTuple):
    """`test` is `("NONE",)`, `("CMD", arg, …)` or `("CMD-SHELL", text)`, as the image config has it.

    Durations in nanoseconds; these and `retries` are 0 where the runtime's default is meant.
    """

    test: tuple[str, ...]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int
    span: Span
    text: str
    comments: tuple[str, ...]


class Expose(NamedTuple):
    """Words as written; `ports.normalise_ports` understands them once variables are known."""

    ports: tuple[str, ...]
    span: Span
    text: str
    comments: tuple[str, ...]


class Volume(NamedTuple):
    paths: tuple[str, ...]
    span: Span
    text: str
    comments: tuple[str, ...]


class User(NamedTuple):
    user: str
    span: Span
    text: str
    comments: tuple[str, ...]


class Workdir(NamedTuple):
    path: str
    span: Span
    text: str
    comments: tuple[str, ...]
    policy: Policy = NO_POLICY


class StopSignal(NamedTuple):
    """A valid signal unless it holds a variable: then `signals.check_signal` must see the value."""

    signal: str
    span: Span
    text: str
    comments: tuple[str, ...]


class OnBuild(NamedTuple):
    """`trigger` is what goes into the image config, heredoc bodies included; `instruction` is what it means."""

    trigger: str
    instruction: "Instruction"
    span: Span
    text: str
    comments: tuple[str, ...]


class Maintainer(NamedTuple):
    name: str
    span: Span
    text: str
    comments: tuple[str, ...]


Instruction: TypeAlias = (
    From
    | Arg
    | Env
    | Label
    | Run
    | Copy
    | Add
    | Cmd
    | Entrypoint
    | Shell
    | Healthcheck
    | Expose
    | Volume
    | User
    | Workdir
    | StopSignal
    | OnBuild
    | Maintainer
)
