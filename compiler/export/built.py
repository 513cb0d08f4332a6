"""BuiltImage: a complete image before it takes any outer form."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cache.image_config import ImageConfig
    from cache.platform import Platform
    from cache.reference import Reference
    from cache.result import Layer


class BuiltImage(NamedTuple):
    """One image.

    config: complete, with the layers' diff_ids, history and time. layers: lowest first; those of the base image have
    `content == diff_id` and may never have been fetched. names: the tags that it is to have; those of images that
    differ only in their platform are the same.
    """

    config: ImageConfig
    layers: tuple[Layer, ...]
    platform: Platform
    names: tuple[Reference, ...] = ()
