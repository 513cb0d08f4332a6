"""Where a built image goes: the store under its tags, and every `--output`."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cache.errors import EnvironmentProblem
from cache.images import StoredImage
from compiler.progress.events import Task

if TYPE_CHECKING:
    import argparse

    from cache.reference import Reference
    from compiler.build import Built
    from compiler.export.exported import Exported
    from compiler.export.output import Output
    from compiler.progress.events import Reporter


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
    built: Built,
    outputs: list[Output],
    tags: tuple[Reference, ...],
    parsed: argparse.Namespace,
    reporter: Reporter,
) -> Delivered:
    """Keep the image under its tags and write every output. Raises BuildgraphError."""
    import hashlib

    session = built.session
    config, layers = built.config, built.layers
    epoch = session.options.source_date_epoch
    exported: list[Exported] = []
    if epoch is not None or outputs or parsed.load:
        from compiler.export.built import BuiltImage
        from compiler.export.export import export
        from compiler.export.rewrite import clamped

        image = BuiltImage(config, layers, session.options.platform, tags)
        if epoch is not None:
            image = clamped(image, epoch, session.library, session.store)
            config, layers = image.config, image.layers
    image_id = f"sha256:{hashlib.sha256(config.to_json()).hexdigest()}"
    platform = str(session.options.platform)
    for tag in tags:
        stored = StoredImage(str(tag), platform, config, layers, "", False, time.time())
        known = session.images.get(str(tag), session.options.platform)
        if known is None or known.config != config or known.pulled:
            session.store.submit(session.images.record(stored))
    for output in outputs:
        name = f"exporting as {output.type}"
        started = time.monotonic()
        reporter.report(Task(name, "started", 0.0))
        try:
            exported.append(
                export(
                    output, image, store=session.store, library=session.library, images=session.images,
                    report=lambda text: reporter.report(Task(text, "done", 0.0)),
                )
            )  # fmt: skip
        except BaseException:
            reporter.report(Task(name, "failed", time.monotonic() - started))
            raise
        reporter.report(Task(name, "done", time.monotonic() - started))
    if parsed.load:
        from compiler.cli.load import load

        load(image, session, reporter)
    if parsed.iidfile:
        write_file(parsed.iidfile, image_id)
    if parsed.metadata_file:
        write_file(parsed.metadata_file, json.dumps(_metadata(image_id, tags, exported), indent=2) + "\n")
    return Delivered(image_id, any(output.dest == "-" for output in outputs))


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
    """Write a small file whole or not at all. Raises EnvironmentProblem."""
    fresh = f"{path}.buildgraph-{os.getpid()}"
    try:
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(fresh, path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from None


