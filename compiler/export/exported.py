"""Exported: what an export made, and how much of it had to move."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compiler.export.built import BuiltImage


class Exported(NamedTuple):
    """The image as the outside knows it now.

    digest, media_type, size: of its manifest, or of the index of several images; empty and 0 where the output has none
    (files, an image that stays in the store). config_digest: the image's id, empty for several images. moved_bytes,
    moved_blobs: written or uploaded. skipped: blobs that were there already.
    """

    config_digest: str
    digest: str = ""
    media_type: str = ""
    size: int = 0
    moved_bytes: int = 0
    moved_blobs: int = 0
    skipped: int = 0


def image_id(images: Sequence[BuiltImage]) -> str:
    """The `config_digest` of an output: only a single image has one."""
    return images[0].config.image_id if len(images) == 1 else ""
