"""What builds and workers send, checked: nothing beyond a bound comes further than this."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, NamedTuple

import grpc

from cache.server.namespaces import checked_namespace
from cache.server.refusal import Refused, invalid
from worker.fleet.action_body import MAX_BODY
from worker.fleet.identity import KEY_BYTES
from worker.fleet.limits import MAX_LAYERS, MAX_WORKERS
from worker.fleet.needs import Needs
from worker.fleet.protocol import VERSION
from worker.fleet.rights import NAMESPACE
from worker.fleet.service_limits import MAX_CHANNEL, MAX_LOG_PIECE, MAX_SEALED_MESSAGE, MAX_TEXT
from worker.proxies import MAX_PROXY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from buildgraph.v1 import fleet_pb2 as pb

MAX_SLOTS = 1024
MAX_HELD = 2 * MAX_SLOTS + 2
"""Leases that a worker says it holds: those that run, as many whose results wait to be taken, and two that a worker
takes beyond that."""
MAX_MEMORY = 1 << 50
"""Bytes of one machine, 1 PiB."""
MAX_SECONDS = 1e7
"""Four months."""
MAX_INPUTS = 2_000
"""Layers that one action needs: overlayfs takes 500, and there are bind mounts."""
LAYER_BYTES = 200
"""Memory that each of them takes beside its bytes in the message, as Python's objects."""
MAX_CACHES = 10_000
"""Ids of cache mounts of one worker."""
MAX_NAMES = 64
"""Labels, platforms, features, secrets of one message."""
MAX_NAME = 300
"""Characters of each of them."""
MAX_PROOF = 64
"""Bytes of a lease's proof that are looked at; one has 32."""
MAX_OUTCOME = 1 << 20
"""Bytes of an outcome. The longest are failures with 20 lines of 8,000 characters."""
MAX_RETRY = 100
_KEY = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class HeldLease(NamedTuple):
    """A lease that a worker says it holds. seconds: so far. proof: of `LeaseProofs`, if it is one."""

    lease: str
    namespace: str
    key: str
    seconds: float
    proof: bytes


class Hello(NamedTuple):
    """A worker's first words. layers: diff_ids."""

    name: str
    program: str
    slots: int
    memory: int
    platforms: frozenset[str]
    features: frozenset[str]
    labels: Mapping[str, str]
    layers: frozenset[str]
    caches: frozenset[str]
    key: bytes
    incarnation: str
    cordoned: bool
    draining: bool
    leases: tuple[HeldLease, ...]


class Execute(NamedTuple):
    """A wanted action, as its build says it. text: for people. anew: what others have made of it does not do. size:
    bytes that it takes as long as it waits. order: nothing of the message that it came in but itself."""

    order: pb.ActionOrder
    needs: Needs
    text: str
    node: str
    anew: bool
    size: int

    @property
    def has_secrets(self) -> bool:
        """Whether its build has to send a worker something, or answer for an agent."""
        order = self.order
        return bool(order.secrets or order.agents or order.sealed_proxies)


def checked_version(version: int) -> None:
    if version > VERSION:
        text = f"this server speaks version {VERSION} of the protocol, not {version}; update it"
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
    if version < 1:
        raise invalid("the first message says no version")
    if version < VERSION:
        text = f"this server speaks version {VERSION} of the protocol; update what calls it, which speaks {version}"
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)


def checked_build(message: pb.OpenBuild) -> tuple[str, str, str]:
    """(build, namespace, project). Raises Refused."""
    checked_version(message.version)
    if not _ID.fullmatch(message.build):
        raise invalid("the id of a build has 1 to 64 letters, digits, '_' and '-'")
    return message.build, checked_namespace(message.instance_name), message.project[:MAX_NAME]


def checked_hello(message: pb.WorkerMessage.Hello) -> Hello:
    """Raises Refused. Its signature is checked elsewhere."""
    checked_version(message.version)
    if not _WORKER.fullmatch(message.name):
        raise invalid("a worker's name has 1 to 63 letters, digits, '.', '_' and '-'; set another with --name")
    if not 0 < message.slots <= MAX_SLOTS or not 0 <= message.memory <= MAX_MEMORY:
        raise invalid(f"a worker has 1 to {MAX_SLOTS} slots, and as much memory as machines have")
    if len(message.key) != KEY_BYTES or not _ID.fullmatch(message.incarnation):
        raise invalid("a worker shows a key of 32 bytes, and says its incarnation")
    if len(message.layers) > MAX_LAYERS or len(message.caches) > MAX_CACHES or len(message.leases) > MAX_HELD:
        raise invalid("a worker says more layers, caches or leases than one can have")
    leases = []
    for each in message.leases:
        _check_seconds(each.seconds)
        namespace, key = checked_namespace(each.instance_name), checked_key(each.key)
        leases.append(HeldLease(_name(each.lease), namespace, key, each.seconds, each.proof[:MAX_PROOF]))
    return Hello(
        message.name, message.program[:MAX_NAME], message.slots, message.memory, _names(message.platforms),
        _names(message.features), _labels(message.labels), frozenset(map(_name, message.layers)),
        frozenset(map(_name, message.caches)), message.key, message.incarnation, message.cordoned, message.draining,
        tuple(leases),
    )  # fmt: skip


def checked_execute(message: pb.ExecuteAction) -> Execute:
    """Raises Refused."""
    message.DiscardUnknownFields()
    order, needs = _alone(message.action), message.needs
    checked_key(order.key)
    if not 0 < len(order.body) <= MAX_BODY:
        raise invalid(f"the body of an action has 1 to {MAX_BODY} bytes")
    if not 0 <= order.retry <= MAX_RETRY:
        raise invalid(f"a command is tried again {MAX_RETRY} times at most")
    _pairs(order.proxies, MAX_PROXY)
    _names(order.secrets)
    _names(order.agents)
    for seconds in (order.timeout, needs.seconds, needs.critical):
        _check_seconds(seconds)
    if not 0 <= needs.memory <= MAX_MEMORY:
        raise invalid("an action needs more memory than machines have")
    if len(needs.layers) > MAX_INPUTS or any(not 0 <= layer.size <= MAX_MEMORY for layer in needs.layers):
        raise invalid(f"an action needs up to {MAX_INPUTS} layers, whose sizes are sizes")
    wanted = Needs(
        _name(needs.platform) if needs.platform else "",
        needs.memory,
        tuple((_name(layer.diff_id), layer.size) for layer in needs.layers),
        tuple(sorted(_names(needs.caches))),
        needs.seconds or None,
        needs.critical,
        _labels(needs.labels),
        _keys(needs.workers),
    )
    size = message.ByteSize() + LAYER_BYTES * len(wanted.layers)
    return Execute(order, wanted, message.text[:MAX_TEXT], message.node[:MAX_NAME], message.anew, size)


def _alone(order: pb.ActionOrder) -> pb.ActionOrder:
    """A copy: a part of a message keeps all of the message in memory."""
    copy = type(order)()
    copy.CopyFrom(order)
    return copy


def check_said(message: pb.WorkerMessage) -> None:
    """What a worker says after its hello, whatever it is; before anybody waits for it. Raises Refused."""
    match message.WhichOneof("message"):
        case "started":
            _name(message.started.lease)
        case "log":
            _check_log(message.log)
        case "done":
            _name(message.done.lease)
            checked_namespace(message.done.instance_name)
            checked_key(message.done.key)
        case "given_back":
            _name(message.given_back.lease)
        case "renewal":
            if len(message.renewal.leases) > MAX_HELD:
                raise invalid(f"a worker renews at most {MAX_HELD} leases")
            _check_names(message.renewal.leases)
        case "held":
            _check_held(message.held)
        case "sealed":
            check_sealed(message.sealed)
        case "mount":
            checked_namespace(message.mount.instance_name)
        case "hello":
            raise invalid("the worker has said hello already")


def _check_log(message: pb.WorkerMessage.LeaseLog) -> None:
    _name(message.lease)
    if len(message.data) > MAX_LOG_PIECE or not 0 <= message.offset < 1 << 50:
        raise invalid(f"a piece of a log has at most {MAX_LOG_PIECE} bytes, and stands somewhere")


def _check_held(message: pb.WorkerMessage.LayersHeld) -> None:
    if len(message.added) + len(message.removed) > MAX_LAYERS or len(message.caches) > MAX_CACHES:
        raise invalid("a worker says more layers or caches than one can have")
    for names in (message.added, message.removed, message.caches):
        _check_names(names)


def check_outcome(message: pb.Outcome) -> None:
    """Raises Refused."""
    if message.ByteSize() > MAX_OUTCOME:
        raise invalid(f"an outcome has at most {MAX_OUTCOME} bytes")


def check_sealed(message: pb.Sealed) -> None:
    """Raises Refused."""
    if len(message.data) > MAX_SEALED_MESSAGE or len(message.channel) > MAX_CHANNEL or len(message.lease) > MAX_NAME:
        raise invalid(f"a sealed message has at most {MAX_SEALED_MESSAGE} bytes, and names of usual length")


def checked_key(key: str) -> str:
    """Raises Refused."""
    if not _KEY.fullmatch(key):
        raise invalid("the key of an action has 64 hex digits")
    return key


def _name(text: str) -> str:
    if not 0 < len(text) <= MAX_NAME:
        raise invalid(f"a name has 1 to {MAX_NAME} characters")
    return text


def _check_names(texts: Iterable[str]) -> None:
    for text in texts:
        _name(text)


def _names(texts: Iterable[str]) -> frozenset[str]:
    names = frozenset(map(_name, texts))
    if len(names) > MAX_NAMES:
        raise invalid(f"there are at most {MAX_NAMES} names in one list")
    return names


def _keys(keys: Iterable[bytes]) -> frozenset[bytes]:
    found = frozenset(keys)
    if len(found) > MAX_WORKERS or any(len(key) != KEY_BYTES for key in found):
        raise invalid(f"an action names up to {MAX_WORKERS} workers by their keys, {KEY_BYTES} bytes each")
    return _one_copy(found)


@functools.lru_cache(maxsize=256)
def _one_copy(keys: frozenset[bytes]) -> frozenset[bytes]:
    """All actions of a build name the same workers."""
    return keys


def _labels(pairs: Mapping[str, str]) -> dict[str, str]:
    wrong = next((name for name in pairs if name.startswith(NAMESPACE)), None)
    if wrong is not None:
        raise invalid(f"no label begins with {NAMESPACE}; tokens say where a worker may execute")
    return _pairs(pairs, MAX_NAME)


def _pairs(pairs: Mapping[str, str], longest: int) -> dict[str, str]:
    if len(pairs) > MAX_NAMES or any(len(value) > longest for value in pairs.values()):
        raise invalid(f"there are at most {MAX_NAMES} labels or variables, of {longest} characters")
    return {_name(name): value for name, value in pairs.items()}


def _check_seconds(seconds: float) -> None:
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_SECONDS:
        raise invalid("a time is a number of seconds, not negative and not endless")
