"""ActionCache: results of actions, never one that names a blob that is gone."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, NamedTuple

import grpc
from buildgraph.v1 import remote_execution_pb2 as pb
from buildgraph.v1 import remote_execution_pb2_grpc as services
from google.protobuf.message import DecodeError

from cache import encoding
from cache.digest import Digest
from cache.server.limits import MAX_INLINE, MAX_TREE
from cache.server.namespaces import checked_namespace
from cache.server.refusal import Refused, answered, exhausted, invalid, not_found
from cache.server.trees import directories
from cache.server.wire_digest import EMPTY, function_of, name_of, size_of
from cache.store import Batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cache.server.access import Caller
    from cache.server.core import Core
    from cache.server.shelf import Shelf
    from cache.server.wire_digest import Function
    from cache.store import Table

MAX_TREE_BYTES = 64 << 20
"""Of one encoded `Tree`, which is read whole."""


class StoredAction(NamedTuple):
    """A record of `actions`. blobs: all that the result names, by BLAKE3. result: an encoded ActionResult. seconds:
    that the execution took. made_at, used_at: seconds since the epoch. by: who put it."""

    blobs: tuple[str, ...]
    result: bytes
    seconds: float
    made_at: int
    used_at: int
    by: str

    def encode(self) -> bytes:
        return encoding.canonical(self._asdict() | {"result": base64.b64encode(self.result).decode()})

    @classmethod
    def parse(cls, record: bytes) -> StoredAction | None:
        """None for one that cannot be read."""
        try:
            value = json.loads(record)
            return cls(
                tuple(value["blobs"]), base64.b64decode(value["result"]), float(value["seconds"]),
                int(value["made_at"]), int(value["used_at"]), str(value["by"]),
            )  # fmt: skip
        except encoding.UNREADABLE:
            return None


def action_key(namespace: str, function: Function, name: str) -> str:
    return f"{namespace}\0{function}/{name}"


class ActionCache(services.ActionCacheServicer):
    """The service of that name. What an action's digest stands for is never looked at."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @answered
    def GetActionResult(self, request: pb.GetActionResultRequest, context: grpc.ServicerContext) -> pb.ActionResult:
        core = self._core
        namespace = checked_namespace(request.instance_name)
        core.guard.admit(context, "read", namespace)
        function = function_of(request.digest_function)
        name = name_of(request.action_digest)
        result = find_results(core.shelf, namespace, function, (name,)).get(name)
        core.meter.asked(namespace, *((0, 1) if result is None else (1, 0)))
        if result is None:
            raise not_found(f"no result of the action {name}")
        message = pb.ActionResult.FromString(result)
        if request.inline_stdout or request.inline_stderr or request.inline_output_files:
            _inline(core.shelf, namespace, function, message, request)
        return message

    @answered
    def UpdateActionResult(
        self, request: pb.UpdateActionResultRequest, context: grpc.ServicerContext
    ) -> pb.ActionResult:
        core = self._core
        namespace = checked_namespace(request.instance_name)
        caller = core.guard.admit(context, "write", namespace)
        function = function_of(request.digest_function)
        keep_result(core, namespace, function, name_of(request.action_digest), request.action_result, caller)
        return request.action_result


def keep_result(
    core: Core, namespace: str, function: Function, action: str, result: pb.ActionResult, caller: Caller, *more: str
) -> None:
    """Have a result under the action's digest; durable on return. caller: who may put blobs there. more: names that it
    is to be found by, too.

    Raises Refused if it names a blob that is missing, StoreProblem.
    """
    named = dict.fromkeys(_named(core.shelf, namespace, function, result))
    names = [name for name in named if name != EMPTY[function]]
    wrong = next((name for name in names if not size_of(name)), None)
    if wrong is not None:
        raise invalid(f"the result names {wrong}, and the empty blob is {EMPTY[function]}")
    missing = core.shelf.missing(namespace, function, names, caller)
    if missing:
        text = f"the result names {len(missing)} blobs that are missing, such as {missing[0]}; upload them first"
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
    blobs = core.shelf.settle(namespace, function, names, caller.name)
    now = int(time.time())
    record = StoredAction(
        blobs, result.SerializeToString(deterministic=True), _seconds(result), now, now, caller.name
    ).encode()
    rows: tuple[tuple[Table, str, bytes], ...] = tuple(
        ("actions", action_key(namespace, function, name), record) for name in (action, *more)
    )
    with core.guard.accept(caller, namespace, len(record) * len(rows)):
        core.shelf.store.commit(Batch(records=rows, needs=tuple(map(Digest.parse, blobs))))
    core.shelf.namespaces.add(namespace)


def find_results(shelf: Shelf, namespace: str, function: Function, names: Sequence[str]) -> dict[str, bytes]:
    """Encoded ActionResults by the actions' digests; only those of which every blob is there."""
    found: dict[str, bytes] = {}
    keys = {action_key(namespace, function, name).encode(): name for name in names}
    with shelf.store.view() as view:
        rows = view.get_multi("actions", list(keys))
        stored = {keys[raw]: StoredAction.parse(row) for raw, row in rows.items()}
        wanted = {blob for action in stored.values() if action is not None for blob in action.blobs}
        members = shelf.members(view, namespace, wanted) if wanted else set()
    for raw, name in keys.items():
        action = stored.get(name)
        if action is not None and members.issuperset(action.blobs):
            found[name] = action.result
            shelf.uses.touch_action(raw.decode())
    return found


def _named(shelf: Shelf, namespace: str, function: Function, result: pb.ActionResult) -> Iterator[str]:
    """Every blob that a result names, also inside of its directories. Raises Refused."""
    for file in result.output_files:
        yield name_of(file.digest)
    if result.HasField("stdout_digest"):
        yield name_of(result.stdout_digest)
    if result.HasField("stderr_digest"):
        yield name_of(result.stderr_digest)
    for output in result.output_directories:
        if output.HasField("tree_digest"):
            tree = name_of(output.tree_digest)
            yield tree
            yield from _files(_tree(shelf, namespace, function, tree))
        if output.HasField("root_directory_digest"):
            root = name_of(output.root_directory_digest)
            yield root
            for directory in directories(shelf, namespace, function, root):
                yield from _files([directory])
                yield from (name_of(each.digest) for each in directory.directories)


def _files(found: Iterable[pb.Directory]) -> Iterator[str]:
    for directory in found:
        for file in directory.files:
            yield name_of(file.digest)


def _tree(shelf: Shelf, namespace: str, function: Function, name: str) -> Iterator[pb.Directory]:
    place = shelf.find(namespace, function, (name,)).get(name)
    if place is None:
        return  # it is missing, and named as such
    if place.size > MAX_TREE_BYTES:
        raise exhausted(f"the tree {name} has more than {MAX_TREE_BYTES} bytes")
    try:
        tree = pb.Tree.FromString(shelf.read(place))
    except DecodeError:
        raise invalid(f"the blob {name} is no tree") from None
    if len(tree.children) > MAX_TREE:
        raise exhausted(f"the tree {name} has more than {MAX_TREE} directories")
    yield tree.root
    yield from tree.children


def _seconds(result: pb.ActionResult) -> float:
    metadata = result.execution_metadata
    start, end = metadata.execution_start_timestamp, metadata.execution_completed_timestamp
    return max(0.0, end.seconds - start.seconds + (end.nanos - start.nanos) / 1e9)


def _inline(
    shelf: Shelf, namespace: str, function: Function, result: pb.ActionResult, request: pb.GetActionResultRequest
) -> None:
    """Put outputs that were asked for into the result, as long as they are few bytes."""
    wanted: list[str] = []
    if request.inline_stdout and result.HasField("stdout_digest") and not result.stdout_raw:
        wanted.append(name_of(result.stdout_digest))
    if request.inline_stderr and result.HasField("stderr_digest") and not result.stderr_raw:
        wanted.append(name_of(result.stderr_digest))
    paths = set(request.inline_output_files)
    files = [file for file in result.output_files if file.path in paths and not file.contents]
    wanted += [name_of(file.digest) for file in files]
    data = {EMPTY[function]: b""} | _few(shelf, namespace, function, wanted)
    if request.inline_stdout and result.HasField("stdout_digest"):
        result.stdout_raw = data.get(name_of(result.stdout_digest), result.stdout_raw)
    if request.inline_stderr and result.HasField("stderr_digest"):
        result.stderr_raw = data.get(name_of(result.stderr_digest), result.stderr_raw)
    for file in files:
        file.contents = data.get(name_of(file.digest), b"")


def _few(shelf: Shelf, namespace: str, function: Function, names: Sequence[str]) -> dict[str, bytes]:
    chosen, size = [], 0
    for name in names:
        size += size_of(name)
        if size > MAX_INLINE:
            break
        chosen.append(name)
    return shelf.read_many(shelf.find(namespace, function, chosen))
