"""Check: what an image lacks to be what a case expects; an empty list means that all is well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from case import Case
    from image_archive import Image, Node

ABSENT: tuple[Any, ...] = (None, "", [], {}, False, 0)
"""Values of a config that mean the same as leaving the field out."""


def problems(case: Case, image: Image) -> list[str]:
    """Everything that differs, one line each."""
    expect = case.expect
    found: list[str] = []
    for path, wanted in expect.get("files", {}).items():
        found += [f"{path}: {text}" for text in _file(wanted, image.files.get(path), image)]
    for directory, names in expect.get("below", {}).items():
        prefix = f"{directory.rstrip('/')}/"
        there = sorted(path.removeprefix(prefix) for path in image.files if path.startswith(prefix))
        if there != sorted(names):
            found.append(f"below {directory}: {there}, expected {sorted(names)}")
    inner = image.config.get("config", {})
    for field, wanted in expect.get("config", {}).items():
        value = inner.get(field)
        if value != wanted and not (value in ABSENT and wanted in ABSENT):
            found.append(f"config {field}: {value!r}, expected {wanted!r}")
    for field, wanted in expect.get("image", {}).items():
        if image.config.get(field) != wanted:
            found.append(f"image {field}: {image.config.get(field)!r}, expected {wanted!r}")
    return found + _shape(expect, image)


def _shape(expect: dict[str, Any], image: Image) -> list[str]:
    found = []
    if "layers" in expect and len(image.names) != expect["layers"]:
        found.append(f"{len(image.names)} layers, expected {expect['layers']}")
    if "history" in expect:
        wanted = expect["history"]
        lines = [["empty" if h.get("empty_layer") else "layer", h.get("created_by", "")] for h in image.config["history"]]
        # What stands above is the base's.
        if lines[len(lines) - len(wanted) :] != wanted or len(lines) - len(wanted) > 1:
            found.append(f"history {lines}, expected {wanted}")
    with_layer = [line for line in image.config["history"] if not line.get("empty_layer")]
    if len(with_layer) != len(image.names):
        found.append(f"{len(with_layer)} lines of history with a layer, {len(image.names)} layers")
    if "last_layer" in expect and sorted(image.names[-1]) != sorted(expect["last_layer"]):
        found.append(f"the last layer holds {sorted(image.names[-1])}, expected {sorted(expect['last_layer'])}")
    return found


def _file(wanted: dict[str, Any], node: Node | None, image: Image) -> list[str]:
    if node is None:
        return [] if wanted.get("absent") else ["is not there"]
    if wanted.get("absent"):
        return [f"is there, as a {node.kind}"]
    content = None if node.content is None else node.content.decode("utf-8", "replace")
    actual: dict[str, Any] = {
        "type": node.kind,
        "mode": f"{node.mode:04o}",
        "owner": node.owner,
        "content": content,
        "size": node.size,
        "link": node.link,
        "mtime": node.mtime,
        "xattrs": dict(node.xattrs),
    }
    found = [f"{key} is {actual[key]!r}, expected {value!r}" for key, value in wanted.items() if key in actual and actual[key] != value]
    if "content" in wanted and node.kind != "file":
        found.append(f"is a {node.kind}, expected a file")
    if "same_file" in wanted:
        other = image.files.get(wanted["same_file"])
        if other is None or other.group != node.group:
            found.append(f"is not the same file as {wanted['same_file']}")
    unknown = wanted.keys() - actual.keys() - {"same_file", "absent"}
    return found + [f"the case asks for {key}, which nothing checks" for key in sorted(unknown)]
