"""OptionWords: fields of operations in the words in which a Dockerfile or a command line has them."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODES = {"cache": 0o755, "secret": 0o400, "ssh": 0o600}
"""Of mounts that say nothing of it."""
_WRITABLE = ("cache", "tmpfs")
_AGENT = "/run/buildkit/ssh_agent."
_SWITCHES = {"link": "--link", "parents": "--parents"}


def words(name: str, value: Any) -> str:
    """A field's value; "" for nothing."""
    if name == "mode" and isinstance(value, int):
        return f"{value:o}" if value else ""
    if name in ("shm_size", "size") and isinstance(value, int):
        return size_words(value)
    if name == "insecure":
        return "insecure" if value else "sandbox"
    if isinstance(value, list):
        return ", ".join(items(name, value))
    return "" if value is None else str(value)


def items(name: str, value: list[Any]) -> list[str]:
    """Those of a list, one by one."""
    return [_item(name, each) for each in value]


def _item(name: str, value: Any) -> str:
    if name == "hosts":
        address, _, host = str(value).partition("\t")
        return f"{host}:{address}"
    if name == "ulimits" and isinstance(value, list) and len(value) == 3:
        what, soft, hard = value
        return f"{what}={soft}" if soft == hard else f"{what}={soft}:{hard}"
    if name == "mounts" and isinstance(value, dict):
        return _mount(value)
    if name == "sources" and isinstance(value, dict):
        return f"<<{value.get('name')}" if value.get("is") == "Inline" else str(value.get("path", ""))
    return str(value)


def switched(name: str, old: Any, new: Any) -> str:
    """What became of an option that is there or not; "" for other fields."""
    if name in _SWITCHES:
        return f"{_SWITCHES[name]} is {'given now' if new else 'not given any more'}"
    if name == "from_context" and isinstance(old, bool):
        return f"--from is {'not given any more' if new else 'given now'}"
    return ""


def size_words(size: int) -> str:
    """`64m`, as people write it for a limit; plain bytes if they are not even."""
    for power, unit in ((30, "g"), (20, "m"), (10, "k")):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return str(size)


def _mount(mount: Mapping[str, Any]) -> str:
    """A `--mount`, without what goes without saying, and without what it comes from: that has a number only."""
    kind, target, identity = (str(mount.get(name, "")) for name in ("type", "target", "id"))
    default = ""
    if kind == "cache":
        identity, default = identity.removeprefix("/"), target.removeprefix("/")
        # Without an id of its own it has that of its target, behind the slash of an empty namespace.
        identity = "" if identity.removeprefix("/") == default else identity
    elif kind == "secret":
        target = "" if target == f"/run/secrets/{posixpath.basename(identity)}" else target
    elif kind == "ssh":
        target = "" if target.startswith(_AGENT) else target
        identity = "" if identity == "default" else identity
    found = [f"type={kind}"]
    for name, text in (("id", identity), ("source", str(mount.get("source", ""))), ("target", target)):
        found += [f"{name}={text}"] if text else []
    read_only = bool(mount.get("read_only"))
    if read_only != (kind not in _WRITABLE):
        found.append("ro" if read_only else "rw")
    if mount.get("sharing", "shared") not in ("shared", ""):
        found.append(f"sharing={mount['sharing']}")
    mode = mount.get("mode") or 0
    if mode != _MODES.get(kind, 0):
        found.append(f"mode={mode:o}")
    found += [f"{name}={mount[name]}" for name in ("uid", "gid") if mount.get(name)]
    if mount.get("size"):
        found.append(f"size={size_words(mount['size'])}")
    if mount.get("required"):
        found.append("required")
    if mount.get("env"):
        found.append(f"env={mount['env']}")
    return ",".join(found)
