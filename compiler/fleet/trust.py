"""Trust: whose word a build takes for a result: signatures of workers, and the list of those that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from buildgraph.v1 import fleet_pb2


class Distrusted(Exception):
    """What came is not used; the text says why."""


class Trust:
    """namespace: where results are kept. trusted: fingerprints; empty for any worker that the server lets in. keys:
    those of the trusted ones."""

    def __init__(self, namespace: str, trusted: frozenset[str]) -> None:
        from worker.fleet.identity import public_key

        self._namespace = namespace
        self.keys = sorted(map(public_key, trusted))

    def check_lease(self, started: fleet_pb2.ActionStarted, key: str) -> None:
        """That whoever gets our secrets is the worker that it says, one of ours, and executes the action of this key in
        our namespace, nothing else. Raises Distrusted."""
        self._check_key(started.worker_key, started.worker)
        from worker.fleet.signed_texts import lease_text

        text = lease_text(self._namespace, key, started.lease, started.seal_key)
        self._check(started.worker_key, started.signature, text, f"the lease of {started.worker}")

    def check_outcome(self, done: fleet_pb2.ActionDone) -> None:
        """That the worker said so. One without a signature comes from the cache, which is believed as it always is,
        unless only some workers are. Raises Distrusted."""
        outcome = done.outcome
        if not outcome.signature and outcome.HasField("result"):
            if self.keys:
                raise Distrusted("the result is signed by nobody, and only results of trusted workers are used")
            return
        self._check_key(outcome.worker_key, done.worker)
        from worker.fleet.signed_texts import outcome_text

        text = outcome_text(self._namespace, done.key, outcome)
        self._check(outcome.worker_key, outcome.signature, text, f"the result of {done.worker}")

    def _check_key(self, key: bytes, worker: str) -> None:
        from worker.fleet.identity import fingerprint

        if self.keys and key not in self.keys:
            raise Distrusted(f"the worker {worker} ({fingerprint(key)}) is none of the trusted ones")

    @staticmethod
    def _check(key: bytes, signature: bytes, parts: Sequence[bytes | str], what: str) -> None:
        from worker.fleet.identity import verify

        if not verify(key, signature, parts):
            raise Distrusted(f"{what} has a wrong signature")
