"""Export: one image, or one for each of several platforms, into one output."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cache.errors import UsageError
from compiler.export.compress import Compressor
from compiler.export.compression import Compression
from compiler.export.exported import Exported, image_id
from compiler.export.manifest import ManifestStyle
from compiler.export.rewrite import clamped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.images import Images
    from cache.store import Store
    from compiler.export.built import BuiltImage
    from compiler.export.output import Output
    from worker.library import LayerLibrary

STDOUT_FD = 1


def export(
    output: Output,
    image: BuiltImage,
    *,
    store: Store,
    library: LayerLibrary,
    images: Images,
    report: Callable[[str], None],
    epoch: int | None = None,
    stdout: int = STDOUT_FD,
    compressor: Compressor | None = None,
) -> Exported:
    """Write, push or keep an image as an output asks.

    report: gets a line now and then about what moves. epoch: SOURCE_DATE_EPOCH; layers of ours are rewritten to it
    unless the output says rewrite-timestamp=false. stdout: the descriptor that `dest=-` means. compressor: of an
    earlier export of the same build, so that nothing is packed twice.
    Raises UsageError, EnvironmentProblem, RemoteError; an output that was there is then as it was.
    """
    return export_index(
        output, [image], store=store, library=library, images=images, report=report, epoch=epoch, stdout=stdout,
        compressor=compressor,
    )  # fmt: skip


def export_index(
    output: Output,
    built: Sequence[BuiltImage],
    *,
    store: Store,
    library: LayerLibrary,
    images: Images,
    report: Callable[[str], None],
    epoch: int | None = None,
    stdout: int = STDOUT_FD,
    compressor: Compressor | None = None,
    always_index: bool = False,
) -> Exported:
    """`export` for the same image on several platforms, at least one.

    More than one go out as an index that lists them in the order given, and as files in a directory for each platform
    (`linux_arm_v7`) unless the output says platform-split=false. The names are those of the first. One alone is an
    image without an index, unless always_index asks for one.
    """
    if len(built) > 1 and output.type == "docker":
        raise UsageError("docker exporter does not currently support exporting manifest lists", hint="use type=oci")
    if len(built) == 1 and output.index_annotations:
        raise UsageError(
            "index annotations are not supported for a single platform", hint="annotation.KEY=VALUE is for its manifest"
        )
    if output.names:
        built = [image._replace(names=output.names) for image in built]
    if epoch is not None and output.rewrite_timestamp is not False:
        built = [clamped(image, epoch, library, store) for image in built]
    elif output.rewrite_timestamp:
        report("rewrite-timestamp=true has no effect without SOURCE_DATE_EPOCH")
    compressor = compressor or Compressor(library, images)
    compression = _compression(output)
    style = _style(output)._replace(always_index=always_index)
    if output.type in ("image", "registry"):
        return _name_and_push(output, built, store, images, compressor, compression, style, report)
    if output.type in ("local", "tar"):
        from compiler.export.to_files import write_directory, write_files_archive

        split = len(built) > 1 if output.platform_split is None else output.platform_split
        if output.type == "local":
            return write_directory(built, split, output.dest, library, report)
        return write_files_archive(built, split, output.dest, stdout, library)
    if output.type == "docker":
        from compiler.export.to_docker import write_docker_archive

        if not output.dest:
            raise UsageError(
                "type=docker without dest is not supported yet",
                hint="write an archive with dest=FILE, or pipe one: -o type=docker,dest=- | docker load",
            )
        return write_docker_archive(built[0], output.dest, stdout, compressor, compression, style)
    from compiler.export.to_layout import is_directory, write_layout, write_layout_archive

    if not output.tar or is_directory(output.dest):
        return write_layout(built, output.dest, compressor, compression, style, report)
    return write_layout_archive(built, output.dest, stdout, compressor, compression, style)


def _name_and_push(
    output: Output,
    built: Sequence[BuiltImage],
    store: Store,
    images: Images,
    compressor: Compressor,
    compression: Compression,
    style: ManifestStyle,
    report: Callable[[str], None],
) -> Exported:
    """`type=image` keeps the images in the store under their names; `type=registry` and `push=true` push them."""
    exported = Exported(image_id(built))
    if output.push:
        from compiler.export.to_registry import push_images

        if not built[0].names:
            raise UsageError("an image needs a name to be pushed", hint="give one with --tag, or name= in the output")
        exported = push_images(built, images, compressor, compression, style, report, by_digest=output.push_by_digest)
    if output.type == "image":
        for image in built:
            _keep(image, store, images)
    return exported


def _keep(image: BuiltImage, store: Store, images: Images) -> None:
    from cache.images import StoredImage

    for name in image.names:
        # A name with a digest means what a registry has; only the tag is ours to give.
        if name.tag:
            text = str(name._replace(digest=None))
            stored = StoredImage(text, str(image.platform), image.config, image.layers, "", False, time.time())
            store.commit(images.record(stored))


def _compression(output: Output) -> Compression:
    if output.type == "docker" and output.compression is None:
        # As `docker save` does: who loads an archive unpacks it at once, and the tars are here already.
        return Compression.of("", forced=True)
    kind = "gzip" if output.compression is None else output.compression
    return Compression.of(kind, output.compression_level, output.force_compression)


def _style(output: Output) -> ManifestStyle:
    docker = output.type == "docker" if output.oci_mediatypes is None else not output.oci_mediatypes
    annotated = bool(output.annotations or output.index_annotations)
    return ManifestStyle(docker and not annotated, output.annotations, output.index_annotations)
