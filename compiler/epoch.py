"""SOURCE_DATE_EPOCH as the time of something: the context, a named context, or a stage that only adds one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import UsageError
from compiler.dockerfile.instructions import Add
from compiler.git_words import is_git
from compiler.steps import is_url

if TYPE_CHECKING:
    from compiler.dockerfile.parser import Dockerfile
    from compiler.options import BuildOptions
    from compiler.remote_context import RemoteContexts


def resolve_epoch(options: BuildOptions, dockerfile: Dockerfile, remote: RemoteContexts, context: str) -> BuildOptions:
    """The options with the time in seconds. context: the URL of the build's context, "" for a directory.

    Raises UsageError for something that has no time of its own, RemoteError.
    """
    if not options.epoch_source:
        return options
    where = _where(options, dockerfile, context)
    if not (is_git(where) or is_url(where)):
        raise UsageError(
            f"SOURCE_DATE_EPOCH={options.epoch_source}: only what comes from git or the web has a time of its own",
            hint="give a number of seconds, as from `git log -1 --format=%ct`",
        )
    return options._replace(source_date_epoch=remote.time(where), epoch_source="")


def _where(options: BuildOptions, dockerfile: Dockerfile, context: str) -> str:
    name = options.epoch_source
    if name == "context":
        return context
    contexts = dict(options.contexts)
    if name in contexts:
        return contexts[name]
    for stage in dockerfile.stages:
        if stage.name == name.lower() and stage.from_.image == "scratch" and len(stage.instructions) == 1:
            only = stage.instructions[0]
            if isinstance(only, Add) and len(only.sources) == 1 and "$" not in only.sources[0]:
                return only.sources[0]
    return ""
