"""`buildgraph image`: the images of the store."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import TYPE_CHECKING

from cache.errors import UsageError
from cache.images import Images, StoredImage
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from cache.reference import Reference
from compiler.cli import settings
from compiler.cli.options import Parser
from compiler.dockerfile.errors import did_you_mean

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    parser = Parser(prog="buildgraph image", description="List, show, push, export and remove images of the store.")
    parser.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="names, ids, layers and ages")
    simple = {"inspect": "the image's config as JSON", "push": "to its registry", "rm": "forget a name"}
    for action, text in simple.items():
        one = actions.add_parser(action, help=text)
        one.add_argument("name", metavar="NAME")
        one.add_argument("--platform", default="", metavar="OS/ARCH")
    export = actions.add_parser("export", help="write to a file or directory")
    export.add_argument("name", metavar="NAME")
    export.add_argument("--platform", default="", metavar="OS/ARCH")
    export.add_argument("-o", "--output", required=True, metavar="type=TYPE,dest=PATH", help="as in build")
    parsed = parser.parse_args(arguments)
    store = LmdbStore(parsed.store or settings.load().store)
    try:
        _act(store, parsed)
    finally:
        store.close()
    return 0


def _act(store: LmdbStore, parsed: argparse.Namespace) -> None:
    images = Images(store)
    if parsed.action == "ls":
        _list(images)
        return
    reference = Reference.parse(parsed.name)
    platform = Platform.parse(parsed.platform) if parsed.platform else Platform.here()
    image = images.get(str(reference), platform)
    if image is None:
        names = [Reference.parse(known.name).familiar for known in images.all() if not known.name.startswith("oci-")]
        near = did_you_mean(parsed.name, names)
        raise UsageError(f"the store has no image {reference.familiar} for {platform}{near}")
    if parsed.action == "rm":
        images.remove(str(reference), str(platform))
    elif parsed.action == "inspect":
        sys.stdout.write(image.config.to_json().decode() + "\n")
    else:
        text = "type=registry" if parsed.action == "push" else parsed.output
        _export(store, images, image, reference, platform, text)


def _list(images: Images) -> None:
    rows = [("NAME", "ID", "PLATFORM", "LAYERS", "AGE")]
    for image in images.all():
        name = image.name if image.name.startswith("oci-layout:") else Reference.parse(image.name).familiar
        image_id = hashlib.sha256(image.config.to_json()).hexdigest()[:12]
        rows.append((name, image_id, image.platform, str(len(image.layers)), _age(image)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _age(image: StoredImage) -> str:
    seconds = max(0.0, time.time() - image.made_at)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _export(
    store: LmdbStore, images: Images, image: StoredImage, reference: Reference, platform: Platform, text: str
) -> None:
    from compiler.export.built import BuiltImage
    from compiler.export.export import export
    from compiler.export.output import parse_output
    from worker.library import LayerLibrary

    output = parse_output(text)
    built = BuiltImage(image.config, image.layers, platform, (reference,))
    exported = export(
        output, built, store=store, library=LayerLibrary(store, images), images=images,
        report=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    if output.dest != "-":
        print(exported.digest)
