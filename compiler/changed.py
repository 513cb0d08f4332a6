"""Changed: paths that a plan takes for changed: in which context they lie, and which of them nothing takes."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cache.errors import UsageError
from compiler.git_words import is_git
from compiler.graph import ContextSource
from compiler.steps import is_url
from worker.globs import has_wildcard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from compiler.graph import Node
    from compiler.options import BuildOptions
    from compiler.session import Definition, Session
    from worker.file_list import Listed

_NO_DIRECTORY = ("docker-image://", "oci-layout://")
_NOTHING = "nothing that is built takes it"
HINT = "paths are seen from the working directory or from the context; NAME:PATH is one of a named context"


class Changed(NamedTuple):
    """context: the name of a named context, "" for the build's own. path: below it, "" for all of it. place: where it
    lies, the same in each of the contexts that hold it."""

    context: str
    path: str
    place: str = ""

    def __str__(self) -> str:
        path = self.path or "."
        return f"{self.context}:{path}" if self.context else path


def read_changed(words: Iterable[str], definition: Definition, options: BuildOptions) -> tuple[Changed, ...]:
    """What the command line names, each once: files and directories of contexts, also such that are still to come.

    A wildcard that the shell left is expanded here. Raises UsageError for what lies in no context that is a directory.
    """
    tops = {
        name: os.path.realpath(value)
        for name, value in options.contexts
        if not (value.startswith(_NO_DIRECTORY) or is_git(value) or is_url(value))
    }
    if definition.context is not None:
        tops[""] = os.path.realpath(definition.context)
    if not tops:
        raise UsageError("--changed needs a context that is a directory")
    return tuple(dict.fromkeys(found for word in words for found in _read(word, tops)))


def _read(word: str, tops: dict[str, str]) -> list[Changed]:
    if not word:
        raise UsageError("--changed needs a path", hint="the whole context is --changed .")
    name = max((name for name in tops if name and word.startswith(f"{name}:")), key=len, default="")
    if name and not os.path.lexists(word):
        top, path = tops[name], word[len(name) + 1 :]
        return _inside([_real(top, path)], {name: top}) or _refuse(word)
    main = tops.get("")
    places = [_real(start, word) for start in (os.getcwd(), main) if start is not None]
    there = [place for place in places if os.path.lexists(place)]
    # What is to come lies where its directory is.
    there += [place for place in places if os.path.isdir(os.path.dirname(place))]
    found: list[Changed] = []
    if has_wildcard(word) and not any(map(os.path.lexists, places)):
        for place in places:
            found = found or _inside(sorted(glob.glob(place, recursive=True)), tops)
        if not found:
            raise UsageError(f"--changed {word}: nothing in a context of this build matches it", hint=HINT)
        return found
    for place in there + places[1:]:
        found = found or _inside([place], tops)
    return found or _refuse(word)


def _refuse(word: str) -> NoReturn:
    raise UsageError(f"--changed {word}: it lies in no context of this build", hint=HINT)


def _real(start: str, path: str) -> str:
    """Where a path leads, its last component not followed: a symlink in a context counts as such."""
    directory, name = os.path.split(os.path.normpath(os.path.join(os.path.realpath(start), path)))
    return os.path.join(os.path.realpath(directory), name)


def _inside(paths: list[str], tops: dict[str, str]) -> list[Changed]:
    """The paths in each context that has them: of contexts in one another, all do."""
    return [
        Changed(name, os.path.relpath(path, top) if path != top else "", path)
        for path in paths
        for name, top in tops.items()
        if path == top or path.startswith(top.rstrip("/") + "/")
    ]


def notes(sessions: Sequence[Session], definition: Definition) -> list[str]:
    """A sentence for each path of which a change is not just what the plan shows. sessions: one a platform."""
    # What one platform takes is taken.
    whys = {each: min((_untaken(one, each) for one in sessions), key=len) for each in sessions[0].changed}
    # So is what one of several contexts gives that it lies in.
    taken = {changed.place for changed, why in whys.items() if not why.startswith(_NOTHING)}
    found = []
    for changed, why in whys.items():
        own = _own_files(definition).get(changed.path, "") if not changed.context else ""
        if own or (why and not (why.startswith(_NOTHING) and changed.place in taken)):
            found.append(f"{changed}: {own or why}")
    return found


def _own_files(definition: Definition) -> dict[str, str]:
    """Files that say what is built; what they would say is not known, so they count only as what is copied."""
    ignore = "what belongs to the context is decided by it as it is now; edit it and plan again"
    said = {".dockerignore": ignore}
    path = definition.dockerfile_path
    if path is not None and definition.context is not None:
        name = os.path.relpath(path, os.path.realpath(definition.context))
        said[f"{name}.dockerignore"] = ignore
        said[name] = "the steps are those that stand in it now; edit it and plan again"
    return said


def _untaken(session: Session, changed: Changed) -> str:
    """Why no step would notice a change; "" if one does."""
    sources = [node for node in session.graph if isinstance(node.definition, ContextSource)]
    node = next((each for each in sources if each.definition == ContextSource(changed.context)), None)
    tree = None if node is None else session.sources.tree(node)
    if node is None or tree is None:
        return f"{_NOTHING}: no COPY, ADD or mount uses its context"
    if tree.lookup(changed.path) is None:
        return f"{_NOTHING}: .dockerignore leaves it out"
    steps = [step for step in session.graph if step.is_step and node.id in step.inputs]
    taken = [listed.path for step in steps for listed in _listed(session, step)]
    if any(_takes(path, changed.path) for path in taken):
        return ""
    target = tree.resolve(changed.path).path
    if target != changed.path and any(_takes(path, target) for path in taken):
        # COPY follows a symlink that it names.
        return f"it is a symlink, and where it will lead is not known; --changed {target} shows a change of {target}"
    return f"{_NOTHING}: no COPY, ADD or mount names it"


def _listed(session: Session, step: Node) -> list[Listed]:
    return [listed for ask in session.keys.files(step).values() for listed in ask() or ()]


def _takes(taken: str, changed: str) -> bool:
    return not changed or taken == changed or taken.startswith(f"{changed}/")
