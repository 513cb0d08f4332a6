"""`buildgraph image`: the images of the store."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from cache import encoding
from cache.errors import BuildgraphError, StoreProblem, UsageError
from cache.images import Images, StoredImage
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from cache.reference import Reference
from cache.store import Batch
from compiler.cli import settings
from compiler.cli.options import Parser
from compiler.cli.remote_options import add_remote_options, remote_settings
from compiler.cli.streams import say
from compiler.cli.table import table
from compiler.dockerfile.errors import did_you_mean
from compiler.progress.text import age_text, printable_lines, size_text
from worker.library import LayerLibrary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache.remote_settings import RemoteSettings


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or an exception."""
    parser = Parser(prog="buildgraph image", description="List, show, name, push, export and remove images.")
    parser.add_argument("--store", default="", metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="names, ids, layers, sizes of their files and ages")
    simple = {"inspect": "the image's config as JSON", "push": "to its registry", "rm": "forget a name"}
    for action, text in simple.items():
        one = actions.add_parser(action, help=text)
        one.add_argument("name", metavar="NAME")
        one.add_argument("--platform", default="", metavar="OS/ARCH")
    tag = actions.add_parser("tag", help="give it a further name")
    tag.add_argument("name", metavar="NAME")
    tag.add_argument("new", metavar="NEW")
    tag.add_argument("--platform", default="", metavar="OS/ARCH")
    export = actions.add_parser("export", help="write to a file or directory")
    export.add_argument("name", metavar="NAME")
    export.add_argument("--platform", default="", metavar="OS/ARCH")
    export.add_argument("-o", "--output", required=True, metavar="type=TYPE,dest=PATH", help="as in build")
    for one in actions.choices.values():
        # Without a default, which would hide what was given before the action.
        one.add_argument("--store", default=argparse.SUPPRESS, metavar="DIR", help="the local store (BUILDGRAPH_STORE)")
    for name in ("push", "export"):
        add_remote_options(actions.choices[name])
    parsed = parser.parse_args(arguments)
    defaults = settings.load()
    moves = parsed.action in ("push", "export")
    remote = remote_settings(parsed, defaults.remote) if moves else None
    store = LmdbStore(parsed.store or defaults.store)
    try:
        _act(store, parsed, remote)
    finally:
        store.close()
    return 0


def _act(store: LmdbStore, parsed: argparse.Namespace, remote: RemoteSettings | None) -> None:
    images = Images(store)
    if parsed.action == "ls":
        _list(store, images)
        return
    reference = Reference.parse(parsed.name)
    platform = Platform.parse(parsed.platform) if parsed.platform else Platform.here()
    try:
        image = images.get(str(reference), platform)
    except encoding.UNREADABLE:
        if parsed.action != "rm":
            raise StoreProblem(
                f"what the store says of the image {reference.familiar} cannot be read",
                hint=f"forget it with: buildgraph image rm {reference.familiar}",
            ) from None
        images.remove(str(reference), str(platform))
        return
    if image is None:
        near = did_you_mean(parsed.name, [name for name, known in _all(store, images) if known is not None])
        message = f"the store has no image {reference.familiar} for {platform}{near}"
        raise UsageError(message, hint="buildgraph image ls shows those that it has")
    if parsed.action == "rm":
        images.remove(str(reference), str(platform))
    elif parsed.action == "inspect":
        text = image.config.to_json().decode() + "\n"
        say(printable_lines(text) if sys.stdout.isatty() else text)
    elif parsed.action == "tag":
        _tag(store, images, image, Reference.parse(parsed.new))
    else:
        text = "type=registry" if parsed.action == "push" else parsed.output
        _export(store, images, image, reference, platform, text, remote)


def _all(store: LmdbStore, images: Images) -> Iterator[tuple[str, StoredImage | None]]:
    """Every name of the store, with None for an image whose record or config is damaged."""
    for key, _ in store.scan("names"):
        name, _, platform = key.rpartition("|")
        try:
            image = images.get(name, Platform.parse(platform))
            if image is not None:  # else its config is gone, and so is the image
                yield Reference.parse(name).familiar, image
        except (BuildgraphError, *encoding.UNREADABLE):
            yield name, None


def _tag(store: LmdbStore, images: Images, image: StoredImage, new: Reference) -> None:
    if new.digest:
        raise UsageError("the new name is a name with a tag, not with a digest")
    kept = store.get("names", images.record(image).records[0][1])
    _, key, value = images.record(image._replace(name=str(new), digest="", pulled=False)).records[0]
    # The config stays byte for byte what it was: its digest is the image's id.
    config = encoding.parse(kept)["config"] if kept is not None else encoding.parse(value)["config"]
    record = encoding.canonical({**encoding.parse(value), "config": config})
    store.commit(Batch(records=(("names", key, record),)))


def _list(store: LmdbStore, images: Images) -> None:
    library = LayerLibrary(store, images)
    rows = [("NAME", "ID", "PLATFORM", "LAYERS", "SIZE", "AGE")]
    for name, image in _all(store, images):
        if image is None:
            sys.stderr.write(printable_lines(f"WARNING: what the store says of the image {name} cannot be read") + "\n")
            continue
        image_id = image.config.image_id.removeprefix("sha256:")[:12]
        layers = str(len(image.layers))
        age = age_text(time.time() - image.made_at)
        rows.append((name, image_id, image.platform, layers, _size(library, image), age))
    say(table(rows))


def _size(library: LayerLibrary, image: StoredImage) -> str:
    """Of its layers before they are compressed; `?` if one of them has never been here."""
    tars = [library.known(layer).tar for layer in image.layers]
    known = [tar.size for tar in tars if tar is not None]
    return size_text(sum(known)) if len(known) == len(tars) else "?"


def _export(
    store: LmdbStore, images: Images, image: StoredImage, reference: Reference, platform: Platform, text: str,
    remote: RemoteSettings | None,
) -> None:  # fmt: skip
    """remote: where layers are that are not here."""
    from compiler.export.built import BuiltImage
    from compiler.export.export import export
    from compiler.export.output import parse_output

    output = parse_output(text)
    built = BuiltImage(image.config, image.layers, platform, (reference,))
    library, team = LayerLibrary(store, images), None
    if remote is not None:
        from compiler.remote_cache import RemoteCache
        from compiler.team_build import TeamBuild

        cache = RemoteCache(store, remote, lambda line: _tell(f"WARNING: {line}"))
        cache.without = "what only it has cannot be taken out"
        team = TeamBuild(cache, lambda _: None)
        images, library = team.images, team.library
        if team.needs_contact(built.layers):
            team.contact()
    try:
        exported = export(output, built, store=store, library=library, images=images, report=_tell)
    finally:
        if team is not None:
            team.keep()
            team.close()
    if exported.digest and output.dest != "-":
        say(f"{exported.digest}\n")


def _tell(line: str) -> None:
    sys.stderr.write(f"{printable_lines(line)}\n")
