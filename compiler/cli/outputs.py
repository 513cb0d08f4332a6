"""Where a built image goes: the store under its tags, and every `--output`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.errors import UsageError
from cache.images import StoredImage
from compiler.export.built import BuiltImage
from compiler.progress.events import Task
from compiler.remote_cache import LayerGone

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cache.reference import Reference
    from compiler.build import Built
    from compiler.export.exported import Exported
    from compiler.export.output import Output
    from compiler.progress.events import Reporter
    from compiler.session import Session


MULTI_PLATFORM = "BUILDKIT_MULTI_PLATFORM"
"""The build argument that asks for an index also around a single image."""


class Delivered(NamedTuple):
    """image_id: `sha256:…` of the config, which names the image whatever its layers are compressed with."""

    image_id: str
    used_stdout: bool


def read_outputs(parsed: argparse.Namespace, tags: tuple[Reference, ...]) -> list[Output]:
    """What --output, --push and --load ask for. Raises UsageError."""
    if not (parsed.output or parsed.push or parsed.load):
        return []
    from compiler.export.output import parse_output

    texts = list(parsed.output)
    if parsed.push:
        texts.append("type=registry")
    return [parse_output(text) for text in texts]


def deliver(
    variants: Sequence[Built],
    outputs: list[Output],
    tags: tuple[Reference, ...],
    parsed: argparse.Namespace,
    reporter: Reporter,
) -> Delivered:
    """Keep the images under their tags and write every output. variants: one a platform. Raises BuildgraphError."""
    images = _images(variants, tags)
    session = variants[0].session
    for image in images:
        _keep(session, image, tags)
    exported = [_export(output, images, session, reporter) for output in outputs]
    if parsed.load:
        from compiler.cli.load import load

        if len(images) > 1:
            raise UsageError("--load takes one platform at a time")
        load(images[0], session, reporter)
    image_id = images[0].config.image_id
    if len(images) > 1:
        # Several images have no config in common: what names them all is the index, if one was written.
        image_id = next((one.digest for one in exported if one.digest), image_id)
    if parsed.iidfile:
        write_file(parsed.iidfile, image_id)
    if parsed.metadata_file:
        write_file(parsed.metadata_file, json.dumps(_metadata(image_id, tags, exported), indent=2) + "\n")
    return Delivered(image_id, any(output.dest == "-" for output in outputs))


def _images(variants: Sequence[Built], tags: tuple[Reference, ...]) -> list[BuiltImage]:
    """What was built, for exporters; layers rewritten to SOURCE_DATE_EPOCH if that is given."""
    images = []
    for built in variants:
        options = built.session.options
        image = BuiltImage(built.config, built.layers, options.platform, tags)
        if options.source_date_epoch is not None:
            from compiler.export.rewrite import clamped

            image = clamped(image, options.source_date_epoch, built.session.library, built.session.store)
        images.append(image)
    return images


def _keep(session: Session, image: BuiltImage, tags: tuple[Reference, ...]) -> None:
    """Have the store know the image by its tags; nothing is written if it does already."""
    for tag in tags:
        known = session.images.get(str(tag), image.platform)
        if known is None or known.config != image.config or known.pulled:
            stored = StoredImage(
                str(tag), str(image.platform), image.config, image.layers, "", False, time.time()
            )
            session.store.submit(session.images.record(stored))


def _export(output: Output, images: list[BuiltImage], session: Session, reporter: Reporter) -> Exported:
    from compiler.export.export import export_index

    name = f"exporting as {output.type}"
    started = time.monotonic()
    reporter.report(Task(name, "started", 0.0))

    def tell(text: str) -> None:
        reporter.report(Task(text, "done", 0.0))

    try:
        exported = export_index(
            output, images, store=session.store, library=session.library, images=session.images, report=tell,
            always_index=dict(session.options.build_args).get(MULTI_PLATFORM, "0").lower() in ("1", "true"),
        )  # fmt: skip
    except LayerGone:
        raise  # it goes on when the layer was made
    except BaseException:
        reporter.report(Task(name, "failed", time.monotonic() - started))
        raise
    reporter.report(Task(name, "done", time.monotonic() - started))
    return exported


def _metadata(image_id: str, tags: tuple[Reference, ...], exported: list[Exported]) -> dict[str, Any]:
    """The fields of docker buildx that we have."""
    found: dict[str, Any] = {"containerimage.config.digest": image_id}
    for one in exported:
        if one.digest:
            found["containerimage.digest"] = one.digest
            found["containerimage.descriptor"] = {"mediaType": one.media_type, "digest": one.digest, "size": one.size}
    if tags:
        found["image.name"] = ",".join(str(tag) for tag in tags)
    return found


def write_file(path: str, text: str) -> None:
    """Write a small file whole or not at all; into a device or pipe as it is. Raises EnvironmentProblem, UsageError."""
    from compiler.export.destination import new_file, writer

    with new_file(path) as fd:
        writer(fd)(text.encode())


