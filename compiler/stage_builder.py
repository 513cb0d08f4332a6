"""StageBuilder: one stage while it is lowered: its config, variables, history and last filesystem."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from cache.image_config import Healthcheck, ImageConfig
from compiler import history
from compiler.dockerfile import instructions as ast
from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.ports import normalise_ports
from compiler.dockerfile.signals import check_signal
from compiler.graph import HistoryItem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.platform import Platform
    from compiler.dockerfile.source import Span
    from compiler.scope import StageScope

DEFAULT_SHELL = ("/bin/sh", "-c")


class StageBuilder:
    """Applies the instructions that only change the config; `rootfs` is the node that the next step works on."""

    def __init__(
        self,
        name: str,
        rootfs: str,
        config: ImageConfig,
        scope: StageScope,
        items: Sequence[HistoryItem],
        platform: Platform,
    ) -> None:
        """name: as node ids show it. items: history since the base image, of a base that is a stage."""
        self.name = name
        self.platform = platform
        self.rootfs = rootfs
        self.scope = scope
        self.items = list(items)
        self.config = config._replace(on_build=())
        self.declared: dict[str, str | None] = {}
        self._own_cmd = False

    # what steps ask for

    @property
    def shell(self) -> tuple[str, ...]:
        return self.config.shell or DEFAULT_SHELL

    @property
    def cwd(self) -> str:
        return self.config.working_dir or "/"

    def absolute(self, path: str) -> str:
        """A path seen from the working directory, cleaned, a trailing slash kept."""
        self.scope.secrets.note_path(path, self._absolute)
        return self._absolute(path)

    def _absolute(self, path: str) -> str:
        joined = posixpath.normpath(posixpath.join("/", self.cwd, path))
        joined = "/" + joined.lstrip("/")
        directory = path in ("", ".") or path.endswith(("/", "/."))
        return joined + "/" if directory and joined != "/" else joined

    def note(self, created_by: str, node: str = "") -> None:
        """Add a line to the history."""
        self.items.append(HistoryItem(created_by, node))

    def command(self, command: ast.Command) -> tuple[str, ...]:
        """A command as an argument vector."""
        return (*self.shell, command.text) if isinstance(command, ast.ShellForm) else command.args

    # instructions without a layer

    def apply(self, instruction: ast.Instruction) -> bool:
        """Carry out an instruction that makes no layer; False if it is one that does. Raises DockerfileError."""
        match instruction:
            case ast.Arg():
                self._arg(instruction)
            case ast.Env():
                self._env(instruction)
            case ast.Label():
                self._label(instruction)
            case ast.Maintainer():
                self._maintainer(instruction)
            case ast.Cmd():
                self._cmd(instruction)
            case ast.Entrypoint():
                self._entrypoint(instruction)
            case ast.Shell():
                self._shell(instruction)
            case ast.Healthcheck():
                self._healthcheck(instruction)
            case ast.Expose():
                self._expose(instruction)
            case ast.Volume():
                self._volume(instruction)
            case ast.User():
                self._user(instruction)
            case ast.StopSignal():
                self._stop_signal(instruction)
            case ast.OnBuild():
                self._on_build(instruction)
            case _:
                return False
        return True

    def _arg(self, instruction: ast.Arg) -> None:
        pairs = self.scope.declare(instruction)
        self.declared.update(pairs)
        holds = self.scope.secrets.holds
        shown = [(name, None if value is None or holds(name, value) else value) for name, value in pairs]
        self.note(history.pairs_text("ARG", shown))

    def _env(self, instruction: ast.Env) -> None:
        span = instruction.span
        expand, expand_noted = self.scope.expand, self.scope.expand_noted
        found = [(expand(name, span), *expand_noted(value, span)) for name, value in _pairs(instruction)]
        for name, value, derived in found:
            if not name:
                raise DockerfileError("ENV needs names that are not empty", span)
            self.scope.copy_env(name, value, derived=derived)
        self.config = self.config._replace(env=tuple(f"{name}={value}" for name, value in self.scope.env.items()))
        self.note(history.pairs_text("ENV", [(name, value) for name, value, _ in found]))

    def _label(self, instruction: ast.Label) -> None:
        span = instruction.span
        pairs = [(self.scope.expand(name, span), self.scope.expand(value, span)) for name, value in _pairs(instruction)]
        self.config = self.config._replace(labels=tuple(sorted({**dict(self.config.labels), **dict(pairs)}.items())))
        self.note(history.pairs_text("LABEL", pairs))

    def _maintainer(self, instruction: ast.Maintainer) -> None:
        self.config = self.config._replace(author=instruction.name)
        self.note(f"MAINTAINER {instruction.name}")

    def _cmd(self, instruction: ast.Cmd) -> None:
        args = self.command(instruction.command)
        self.config = self.config._replace(cmd=args, args_escaped=True)
        self._own_cmd = True
        self.note(history.vector_text("CMD", args))

    def _entrypoint(self, instruction: ast.Entrypoint) -> None:
        args = self.command(instruction.command)
        # A CMD of the base image was meant for its own entrypoint.
        cmd = self.config.cmd if self._own_cmd else ()
        self.config = self.config._replace(entrypoint=args, cmd=cmd)
        self.note(history.vector_text("ENTRYPOINT", args))

    def _shell(self, instruction: ast.Shell) -> None:
        self.config = self.config._replace(shell=instruction.args)
        self.note(history.list_text("SHELL", instruction.args))

    def _healthcheck(self, instruction: ast.Healthcheck) -> None:
        durations = (instruction.interval, instruction.timeout, instruction.start_period, instruction.start_interval)
        self.config = self.config._replace(healthcheck=Healthcheck(instruction.test, *durations, instruction.retries))
        self.note(history.healthcheck_text(instruction.test, durations, instruction.retries))

    def _expose(self, instruction: ast.Expose) -> None:
        words = [word for text in instruction.ports for word in self.scope.expand_words(text, instruction.span)]
        try:
            ports = normalise_ports(words)
        except ValueError as error:
            raise DockerfileError(str(error), instruction.span) from None
        self.config = self.config._replace(exposed_ports=tuple(sorted({*self.config.exposed_ports, *ports})))
        self.note(history.list_text("EXPOSE", ports))

    def _volume(self, instruction: ast.Volume) -> None:
        paths = [self.scope.expand(path, instruction.span) for path in instruction.paths]
        if not all(paths):
            raise DockerfileError("VOLUME needs paths that are not empty", instruction.span)
        self.config = self.config._replace(volumes=tuple(sorted({*self.config.volumes, *paths})))
        self.note(history.list_text("VOLUME", paths))

    def _user(self, instruction: ast.User) -> None:
        self.config = self.config._replace(user=self._one(instruction.user, "USER", instruction.span))
        self.note(f"USER {self.config.user}")

    def _stop_signal(self, instruction: ast.StopSignal) -> None:
        signal = self._one(instruction.signal, "STOPSIGNAL", instruction.span)
        try:
            check_signal(signal)
        except ValueError as error:
            raise DockerfileError(str(error), instruction.span) from None
        self.config = self.config._replace(stop_signal=signal)
        self.note(f"STOPSIGNAL {signal}")

    def _on_build(self, instruction: ast.OnBuild) -> None:
        self.config = self.config._replace(on_build=(*self.config.on_build, instruction.trigger))

    def _one(self, text: str, keyword: str, span: Span) -> str:
        value = self.scope.expand(text, span)
        if not value:
            raise DockerfileError(f"{keyword} is empty once its variables are replaced", span)
        return value


def _pairs(instruction: ast.Env | ast.Label) -> list[tuple[str, str]]:
    return [(pair.key, pair.value) for pair in instruction.pairs]

