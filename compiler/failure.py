"""NodeFailed: a failure with the node that it belongs to, so that the message can show its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import BuildgraphError

if TYPE_CHECKING:
    from compiler.graph import Node


class NodeFailed(BuildgraphError):
    """cause: what went wrong, which also decides the exit code. node: what was being done."""

    def __init__(self, node: Node, cause: BuildgraphError) -> None:
        super().__init__(cause.message, hint=cause.hint)
        self.node = node
        self.cause = cause
