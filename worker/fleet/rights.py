"""Rights: where a caller may execute and look, and how the scheduler sees that: as labels that tokens give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.server.access import Caller, Scope

NAMESPACE = "namespace:"
"""How the labels begin that an action needs of a worker so that it may be given it."""
ALLOWED = "execute"
DEFAULT = "(default)"
MAX_KNOWN = 1_000
"""Namespaces that are remembered for one worker."""


def namespace_label(namespace: str) -> str:
    """The label that an action of this namespace needs, with the value ALLOWED."""
    return NAMESPACE + (namespace or DEFAULT)


def may_take(caller: Caller, namespace: str) -> bool:
    """Whether a worker may be given actions of the namespace: it reads their inputs there, too."""
    return caller.may("execute", namespace) and caller.may("read", namespace)


def may_somewhere(caller: Caller, *scopes: Scope) -> bool:
    """Whether there is a namespace in which all of the scopes are granted, also one that nobody has used yet."""
    names = [pattern.replace("*", "x") for pattern in caller.namespaces]
    return any(all(caller.may(scope, name) for scope in scopes) for name in ("", *names))


def may_look(caller: Caller, namespace: str) -> bool:
    """Whether a caller may see what is executed in the namespace."""
    return caller.may("read", namespace) or caller.may("execute", namespace)


def changed(before: Caller, now: Caller, namespaces: Iterable[str]) -> bool:
    """Whether a worker's rights have changed in any of the namespaces, or in those that its token names."""
    if before.namespaces != now.namespaces:
        return True
    return any(may_take(before, name) != may_take(now, name) for name in namespaces)


class WorkerLabels(Mapping[str, str]):
    """What a worker says of itself, and one more label, which is not listed, for each namespace that its token allows:
    those cannot be listed, for tokens grant patterns."""

    def __init__(self, labels: Mapping[str, str], caller: Caller) -> None:
        self._labels = labels
        self._caller = caller
        self._known: dict[str, bool] = {}

    def __getitem__(self, name: str) -> str:
        if not name.startswith(NAMESPACE):
            return self._labels[name]
        allowed = self._known.get(name)
        if allowed is None:
            namespace = name.removeprefix(NAMESPACE)
            allowed = may_take(self._caller, "" if namespace == DEFAULT else namespace)
            if len(self._known) < MAX_KNOWN:
                self._known[name] = allowed
        if not allowed:
            raise KeyError(name)
        return ALLOWED

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)
