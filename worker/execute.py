"""Execute an action: the same code in the build's own process and in a worker of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING

from cache import encoding
from cache.errors import EnvironmentProblem
from cache.result import Layer, Result
from cache.store import Batch, Table
from worker.action import CommandFailed
from worker.attempts import attempts
from worker.copy import plan_copy, plan_directory
from worker.copy_write import write_plan
from worker.earlier import earlier_layer, output_key, result_key
from worker.maker import maker
from worker.operation import Copy, MakeDirectory, Run
from worker.output import Output
from worker.run import Machine, Runner, RunScratch
from worker.variation import variation

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.layer_writer import LayerTar
    from cache.lmdb_store import LmdbStore
    from worker.action import Action, Order
    from worker.library import LayerLibrary


class Executor:
    """Executes actions of one build. Threads may call `execute` at the same time.

    machine: None if no RUN will come: copies alone need no runtime and no rights. made_by: whom results say; "" for
    this user on this machine.
    """

    def __init__(
        self, store: LmdbStore, library: LayerLibrary, machine: Machine | None, *, made_by: str = ""
    ) -> None:
        self._store = store
        self._library = library
        self._keeper = None if machine is None else machine.keeper
        self._made_by = made_by or maker()
        self._cleaner = _Cleaner()
        self._runner = None if machine is None else Runner(library, store.directory, machine, self._cleaner.discard)
        self._stopped = threading.Event()

    def execute(self, action: Action, order: Order) -> Result:
        """Make the action's result and submit it to the store with everything that it names.

        The result is durable once the store is closed or a later commit returned. Raises StepFailed for a RUN that
        failed, DefinitionError, EnvironmentProblem, RemoteError, Cancelled.
        """
        started = time.monotonic()
        output = Output(self._store, order.show, order.secrets.values())
        order.live(output.live_path)
        scratch: RunScratch | None = None
        operation = action.operation
        try:
            if isinstance(operation, Run):
                runner = self._runner
                if runner is None:
                    raise EnvironmentProblem("this worker was not prepared to run commands")

                def attempt() -> RunScratch:
                    nonlocal started
                    # Failed attempts and pauses are no part of what the step takes when it works.
                    started = time.monotonic()
                    return runner.run(action, order, output)

                scratch = attempts(attempt, order, output, self._stopped.is_set)
                layer, batch = self._library.write_layer(scratch.capture)
            else:
                layer, batch = self._library.write_layer(self._writer(action))
        except CommandFailed as failure:
            failure.log, log_batch = output.keep()
            self._store.submit(log_batch)
            raise
        finally:
            output.close()
            if scratch is not None:
                self._cleaner.discard(scratch.path)
        log, log_batch = output.keep()
        # Rounded as it is kept: the image must not differ by whether its result was just made or read again.
        now = round(time.time(), 3)
        layer, batch, created = self._earlier(output_key(operation, layer.content, order.within), layer, batch, now)
        key = result_key(action.key, order.within)
        varies = variation(self._store, self._library, key, layer)
        result = Result(layer, log, time.monotonic() - started, now, self._made_by, varies, created)
        record = encoding.canonical(result.to_json())
        self._store.submit(
            Batch(
                blobs={**batch.blobs, **log_batch.blobs},
                files=batch.files + log_batch.files,
                records=(*batch.records, ("results", key, record)),
                needs=batch.needs,
            )
        )
        return result

    def stop(self) -> None:
        """Kill whatever runs, and begin no attempt any more; the actions end with Cancelled or CommandFailed."""
        self._stopped.set()
        if self._keeper is not None:
            self._keeper.kill_all()

    def close(self) -> None:
        """Wait for what is still being tidied up."""
        self._cleaner.close()

    def _writer(self, action: Action) -> Callable[[int], LayerTar]:
        operation = action.operation
        rootfs = self._library.rootfs(action.rootfs)
        if isinstance(operation, MakeDirectory):
            plan = plan_directory(operation, rootfs)
        else:
            assert isinstance(operation, Copy)
            trees = {
                number: self._library.tree(given) if isinstance(given, tuple) else given
                for number, given in enumerate(action.inputs)
                if number > 0
            }
            plan = plan_copy(operation, trees, rootfs, self._store)
        return lambda fd: write_plan(plan, fd)

    def _earlier(self, key: str, layer: Layer, batch: Batch, now: float) -> tuple[Layer, Batch, float]:
        """The layer that the same operation made before, if it said the same, and when: image digests then stay put."""
        earlier = earlier_layer(self._store, key)
        if earlier is not None:
            known = earlier.layer
            row: tuple[Table, str, bytes] = ("layers", known.diff_id, encoding.canonical(known.to_json()))
            return known, Batch(records=(row,), needs=earlier.blobs), earlier.created
        mine: tuple[Table, str, bytes] = ("outputs", key, encoding.canonical([*layer.to_json(), now]))
        return layer, batch._replace(records=(*batch.records, mine)), now


class _Cleaner:
    """Deletes steps' directories beside the build: 20,000 files take longer than many a step."""

    def __init__(self) -> None:
        self._paths: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def discard(self, path: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="cleaner", daemon=True)
            self._thread.start()
        self._paths.put(path)

    def close(self) -> None:
        if self._thread is not None:
            self._paths.put(None)
            self._thread.join()

    def _loop(self) -> None:
        from cache.run_dir import remove_tree

        while (path := self._paths.get()) is not None:
            with contextlib.suppress(OSError):
                remove_tree(path)

