"""Assemble: the image of a stage out of its config and its steps' results."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from cache.digest import OciDigest
from cache.image_config import History
from compiler import history
from compiler.fresh import layers_of
from compiler.graph import Graph, StageOutput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache.image_config import ImageConfig
    from cache.result import Layer, Result


def assemble(graph: Graph, results: Mapping[str, Result], epoch: int | None) -> tuple[ImageConfig, tuple[Layer, ...]]:
    """The complete config of the target and its layers, lowest first.

    Times are those at which the steps' layers were first made, so a build that finds everything, or makes the same once
    more, gives the same image again.
    epoch: SOURCE_DATE_EPOCH, which stands in for all of them; the base image's own lines keep theirs.
    """
    output = graph[graph.target].definition
    assert isinstance(output, StageOutput)
    config = output.config
    layers = layers_of(graph, graph.target, results)
    lines = list(config.history)
    created = config.created or rfc3339(0)
    for item in output.history:
        if epoch is not None:
            created = rfc3339(epoch)
        elif item.node:
            result = results[item.node]
            created = rfc3339(result.created or result.made_at)
        lines.append(History(created, item.created_by, comment=history.COMMENT, empty_layer=not item.node))
    diff_ids = tuple(OciDigest(layer.diff_id) for layer in layers)
    return config._replace(created=created, history=tuple(lines), diff_ids=diff_ids), layers


def rfc3339(seconds: float) -> str:
    """`2026-11-24T07:00:00.123Z`."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    moment = datetime.datetime.fromtimestamp(whole, datetime.UTC)
    fraction = f".{milliseconds:03d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
