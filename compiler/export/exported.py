"""Exported: what an export made, and how much of it had to move."""

from __future__ import annotations

from typing import NamedTuple


class Exported(NamedTuple):
    """The image as the outside knows it now.

    digest, media_type, size: of its manifest; empty and 0 where the output has none (files, an image that stays in
    the store). config_digest: the image's id. moved_bytes, moved_blobs: written or uploaded. skipped: blobs that were
    there already.
    """

    config_digest: str
    digest: str = ""
    media_type: str = ""
    size: int = 0
    moved_bytes: int = 0
    moved_blobs: int = 0
    skipped: int = 0
