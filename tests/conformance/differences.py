"""Differences of two images of one case: files, config, history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from image_archive import Image, Node

FIELDS = (
    "Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "Labels", "StopSignal", "Healthcheck",
    "OnBuild", "Shell",
)  # fmt: skip
TOP = ("architecture", "os", "author")
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def differences(ours: Image, theirs: Image, history: Callable[[str], str] | None) -> Iterator[str]:
    """One line each, starting with the path or with `config FIELD` or `history`. history: as Engine.history."""
    for path in sorted({*ours.files, *theirs.files}):
        mine, other = ours.files.get(path), theirs.files.get(path)
        if mine is None or other is None:
            yield f"{path} is only {'there' if mine is None else 'here'}"
            continue
        for name in ("kind", "mode", "owner", "size", "sha256", "link", "xattrs"):
            here, there = getattr(mine, name), getattr(other, name)
            if here != there:
                yield f"{path} {name}: here {_shown(name, here)}, there {_shown(name, there)}"
        here_group, there_group = _names(ours, mine), _names(theirs, other)
        if here_group != there_group:
            yield f"{path} hardlinks: here {here_group}, there {there_group}"
    mine_config, other_config = ours.config.get("config") or {}, theirs.config.get("config") or {}
    pairs = [(f"config {name}", mine_config.get(name), other_config.get(name)) for name in FIELDS]
    pairs += [(f"config {name}", ours.config.get(name), theirs.config.get(name)) for name in TOP]
    for name, here, there in pairs:
        if here != there and not (here in _EMPTY and there in _EMPTY):
            yield f"{name}: here {here!r}, there {there!r}"
    if history is not None:
        here, there = _history(ours, history), _history(theirs, history)
        if here != there:
            yield f"history: here {here}, there {there}"


def _names(image: Image, node: Node) -> list[str]:
    return sorted(path for path, other in image.files.items() if other.group == node.group) if node.kind == "file" else []


def _shown(name: str, value: object) -> str:
    return f"{value:04o}" if name == "mode" and isinstance(value, int) else repr(value)


def _history(image: Image, plain: Callable[[str], str]) -> list[tuple[str, bool]]:
    """Without the line of the base, which each builder writes in its own way."""
    lines = image.config.get("history") or []
    return [
        (plain(line.get("created_by", "")), bool(line.get("empty_layer")))
        for line in lines
        if not line.get("created_by", "").upper().startswith("FROM ") and not line.get("comment", "").startswith("Imported")
    ]
