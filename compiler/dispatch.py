"""Dispatch: carries out the plan's commands with threads, decides nothing."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cache import lease
from cache.build_record import NodeRecord
from cache.errors import BuildgraphError
from cache.recipe import Recipe
from cache.store import Batch
from compiler.dockerfile.errors import DockerfileError
from compiler.elsewhere import elsewhere
from compiler.explain import explain_gone
from compiler.failure import Contradicted, FailedAt
from compiler.fresh import Provisional, is_expired, layers_of, no_cache, no_cache_text
from compiler.plan import Begin, Broken, Command, Complete, Done, Plan, Widened
from compiler.progress.events import Finished, Printed, Started, Waiting
from compiler.reasons import Reason
from compiler.remote_cache import LayerGone
from worker.action import Action, Cancelled, CommandFailed, Order, spelled
from worker.log_tail import LogTail

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from concurrent.futures import Future

    from cache.result import Layer, Result
    from cache.store import Table
    from compiler.graph import Node
    from compiler.progress.events import Reporter
    from compiler.session import Session
    from worker.tree import Tree

TOLD = frozenset(
    {
        Reason.FILES_CHANGED, Reason.COMMAND_CHANGED, Reason.VARIABLES_CHANGED, Reason.OPERATION_CHANGED,
        Reason.MODE_CHANGED, Reason.BASE_IMAGE_CHANGED, Reason.PLATFORM_CHANGED, Reason.SECRET_CHANGED,
        Reason.EVICTED, Reason.GONE,
    }
)  # fmt: skip
"""Reasons that a running step is shown with; the others follow from what was shown before."""
POLL_SECONDS = 0.2
"""How often the waiting main thread wakes up to notice signals, and workers that came."""
MOST_THREADS = 10_000
"""More than the plan ever has under way; there is a thread only for what it begins."""


class _Outcome(NamedTuple):
    """What a thread has to say. error: None if there is a result."""

    node: str
    result: Result | None
    error: BaseException | None


class Executes(Protocol):
    """What makes results: see `Executor`."""

    def execute(self, action: Action, order: Order) -> Result: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Place(Protocol):
    """Executes a step where that is best. on: is told the name of a worker that begins, "" for this machine. Returns
    the result, where it was made in words, and the worker that made it."""

    def __call__(
        self, node: Node, action: Action, order: Order, on: Callable[[str], None], /
    ) -> tuple[Result, str, str]: ...


class Given(NamedTuple):
    """What steps may use and no key counts. secrets: id → value. agents: id → socket of an ssh agent."""

    secrets: Mapping[str, bytes]
    agents: Mapping[str, str]


class Dispatcher:
    """Executes one plan. stop_running: kills whatever is executing."""

    def __init__(
        self,
        session: Session,
        plan: Plan,
        executor: Executes,
        reporter: Reporter,
        given: Given,
        at_once: Callable[[], int],
        made: Callable[[Node, str, Result], None] = lambda *_: None,
        provisional: Collection[str] = (),
        place: Place | None = None,
    ) -> None:
        """at_once: steps that may be under way at the same time, now. made: is told of each result that is found or
        made here, and its content key. provisional: steps of the plan that have a result which is good unless what it
        was made from comes out otherwise. place: executes a step where that is best, instead of the executor."""
        self._place: Place = place or (lambda _node, action, order, _on: (executor.execute(action, order), "", ""))
        self._on: dict[str, dict[str, float]] = {}
        """Workers on which a step was begun, and when."""
        self._provisional = Provisional(session.graph, session.grounds, session.lookup, provisional)
        self._made = made
        self._session = session
        self._plan = plan
        self._executor = executor
        self._reporter = reporter
        self._given = given
        self._outcomes: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._makers: dict[str, str] = {}
        self._starts: dict[str, float] = {}
        self._began = time.time()
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(MOST_THREADS, "step")
        self.ran: list[str] = []
        self.nodes: dict[str, NodeRecord] = {}

    def run(self) -> dict[str, Result]:
        """Bring the plan to its end; all results. Raises what failed first, after everything stopped."""
        failure: BaseException | None = None
        commands = self._plan.start()
        with self._pool:
            try:
                while not self._carry_out(commands):
                    outcome = self._next()
                    if outcome is None:
                        commands = self._plan.handle(Widened(self._at_once()))
                    elif outcome.error is not None:
                        failure = self._keep(failure, outcome)
                        commands = self._plan.handle(Broken(outcome.node))
                    elif outcome.result is not None:
                        commands = self._plan.handle(Done(outcome.node, outcome.result))
                        wrong = self._provisional.contradicted(self._plan.results)
                        if wrong:
                            self._stop()
                            raise Contradicted(wrong)
            except KeyboardInterrupt:
                self._stop()
                raise
        if failure is not None:
            raise failure
        return self._plan.results

    def _next(self) -> _Outcome | None:
        """What a thread says; None if none does for a while."""
        try:
            return self._outcomes.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None

    def _carry_out(self, commands: list[Command]) -> bool:
        for command in commands:
            if isinstance(command, Begin):
                self._pool.submit(self._work, command.node)
            elif isinstance(command, Complete):
                return True
            else:
                self._stop()
        return False

    def _stop(self) -> None:
        self._stopping.set()
        self._executor.stop()

    def _keep(self, first: BaseException | None, outcome: _Outcome) -> BaseException | None:
        """The failure to report: the first one that is not a consequence of stopping."""
        error = outcome.error
        if isinstance(error, BuildgraphError):
            error = self._session.graph.secrets.hide(error)
        if isinstance(error, FailedAt) and isinstance(error.cause, LayerGone):
            error = error.cause
        if isinstance(error, LayerGone) or isinstance(first, LayerGone):
            return first or error  # the build begins again, and nobody needs to know
        node = self._session.graph[outcome.node]
        self._note_end(node, error)
        if isinstance(error, Cancelled):
            self._reporter.report(Finished(node.id, "cancelled", 0.0, None, ""))
            return first
        noted = self.nodes.get(node.id)
        key, worker = (noted.content, noted.worker) if noted is not None else ("", "")
        self._reporter.report(Finished(node.id, "failed", 0.0, None, "", "", key, worker))
        if first is not None:
            return first
        if isinstance(error, BuildgraphError) and not isinstance(error, FailedAt | DockerfileError):
            return FailedAt(node.span, error)
        return error

    # in a thread of the pool

    def _work(self, name: str) -> None:
        try:
            result = self._make(self._session.graph[name])
            self._outcomes.put(_Outcome(name, result, None))
        except BaseException as error:  # noqa: BLE001  # the main thread decides what to do with it
            self._outcomes.put(_Outcome(name, None, error))

    def _make(self, node: Node) -> Result:
        """Find the node's result by its content, or execute it; either way note both keys."""
        session = self._session
        key = session.keys.content(node, self._layers, session.library)
        # Noted first, so that a failure finds what it is compared with, and before the records say what it is now.
        found = session.lookup.by_content(key)
        self.nodes[node.id] = self._describe(node, key, found)
        known = self._usable(node, found)
        if known is not None:
            if known.made_at >= self._began and key not in self._makers and key not in session.lookup.promised:
                # Another build made it since this one began, too quickly to be waited for.
                LogTail(session.store, lambda line: self._reporter.report(Printed(node.id, line))).finish(known.log)
            self._finish_known(node, key, known, "its inputs are the same")
            return known
        # Of two equal nodes of one build only one tells what it prints.
        tail = LogTail(session.store, lambda line: self._show_other(node, key, line))
        with tail:
            held = lease.acquire(
                session.store.directory,
                key,
                cancelled=self._stopping.is_set,
                waiting=lambda: self._tell_waiting(node, key),
                poll=tail.poll,
            )
            if held is None:
                raise Cancelled
            try:
                # Whoever held the lease before may just have made it.
                known = self._usable(node, session.lookup.by_content(key, ask=False))
                if known is not None:
                    maker = self._makers.get(key)
                    if maker is None:
                        tail.finish(known.log)
                    note = f"{maker} has just made the same" if maker else "made by another build meanwhile"
                    written = self._finish_known(node, key, known, note)
                    result = known
                else:
                    self._makers[key] = node.id
                    result, written = self._execute(node, key, held)
            except BaseException:
                held.release()
                raise
        # Other builds see the result once it is written: who gets the lease before that would make it again.
        written.add_done_callback(lambda _: held.release())
        return result

    def _show_other(self, node: Node, key: str, line: str) -> None:
        if key not in self._makers:
            self._reporter.report(Printed(node.id, line))

    def _usable(self, node: Node, found: Result | None) -> Result | None:
        """A result of the node's action, if it may be used."""
        if found is None or no_cache(node, self._session.options) or is_expired(node, found, self._began):
            return None
        return found

    def _execute(self, node: Node, key: str, held: lease.Lease) -> tuple[Result, Future[None]]:
        session = self._session
        self._reporter.report(Started(node.id, *self._why(node), key))
        began = self._starts[node.id] = time.monotonic()
        inputs: list[tuple[Layer, ...] | Tree] = []
        for name in node.inputs:
            tree = session.sources.tree(session.graph[name])
            inputs.append(self._layers(name) if tree is None else tree)
        order = Order(
            secrets=self._given.secrets,
            agents=self._given.agents,
            proxies=session.proxies.get(node.id, {}),
            show=lambda line: self._reporter.report(Printed(node.id, line)),
            cancelled=self._stopping.is_set,
            retry=node.policy.retry,
            timeout=node.policy.timeout,
            live=held.tell,
            shown=session.graph.secrets.shown,
        )
        operation = node.definition
        action = Action(key, operation, tuple(inputs), node.platform)  # type: ignore[arg-type]  # a step's definition is its operation
        try:
            result, where, worker = self._place(node, action, order, lambda name: self._begun(node, name))
        except BuildgraphError:
            if self._stopping.is_set():
                raise Cancelled from None
            raise
        seconds = time.monotonic() - began
        self.ran.append(node.id)
        written = self._note(node, key, result.seconds)
        self.nodes[node.id] = self._timed(self.nodes[node.id], worker)._replace(
            status="ran", seconds=seconds, log=result.log
        )
        self._made(node, key, result)
        self._reporter.report(Finished(node.id, "done", seconds, result.size, where, "", key, worker))
        return result, written

    def _begun(self, node: Node, worker: str) -> None:
        self._on.setdefault(node.id, {}).setdefault(worker, time.monotonic())

    def _timed(self, noted: NodeRecord, worker: str | None = None) -> NodeRecord:
        """With when it began, and where: on this worker, or else on the last that began it."""
        began = self._starts.get(noted.id)
        if began is None:
            return noted
        begun = self._on.get(noted.id, {})
        worker = next(reversed(begun), "") if worker is None else worker
        waited = max(0.0, begun.get(worker, began) - began)
        return noted._replace(started=began, waited=waited, worker=worker)

    def _describe(self, node: Node, key: str, found: Result | None) -> NodeRecord:
        """A node about to be found or executed, and why it has to be. found: a result of it, usable or not."""
        session = self._session
        recipe = session.keys.recipe(node.id)
        before = session.records.before(node)
        place = session.records.place(node.id)
        there = place is not None and place.recipe == recipe
        was = session.lookup.contents.get(node.id) or (place.content if place is not None and there else "")
        reason, note = "", ""
        if no_cache(node, session.options):
            reason, note = Reason.NO_CACHE.value, no_cache_text(node, session.options)
        elif found is not None and is_expired(node, found, self._began):
            reason, note = Reason.EXPIRED.value, f"its result was older than ttl={spelled(node.policy.ttl or 0.0)}"
        elif not before:
            reason = Reason.NEVER_BUILT.value
        elif before == recipe and (was or key) != key:
            # As below a step that is run whatever is known.
            reason, note = Reason.BASE_CHANGED.value, "what it is made of came out otherwise this time"
        elif before == recipe:
            gone = explain_gone(session.store, key, "", elsewhere(session.lookup, session.records, node, key))
            reason, note = gone.reason.value, gone.text
        return NodeRecord(node.id, node.text, "cancelled", reason, recipe, key, before, note)

    def _why(self, node: Node) -> tuple[str, str]:
        """What changed since the step was built last, "" if that goes without saying; and the reason in any case."""
        noted = self.nodes[node.id]
        shown = self._session.graph.secrets.shown
        if noted.reason:
            return shown(noted.note), noted.reason
        explained = self._session.explain(node)
        return shown(explained.text) if explained.reason in TOLD else "", explained.reason.value

    def _note_end(self, node: Node, error: BaseException | None) -> None:
        noted = self.nodes.get(node.id)
        if noted is not None and not isinstance(error, Cancelled):
            log = error.log if isinstance(error, CommandFailed) else None
            seconds = time.monotonic() - self._starts[node.id] if node.id in self._starts else 0.0
            self.nodes[node.id] = self._timed(noted)._replace(status="failed", log=log, seconds=seconds)
            with contextlib.suppress(BuildgraphError):  # what the step failed of is what is to be told
                self._session.store.submit(Batch(records=tuple(self._session.records.tried(node))))

    def _layers(self, name: str) -> tuple[Layer, ...]:
        return layers_of(self._session.graph, name, self._plan.results)

    def _tell_waiting(self, node: Node, key: str) -> None:
        maker = self._makers.get(key)
        self._reporter.report(Waiting(node.id, f"{maker or 'another build'} is making the same"))

    def _finish_known(self, node: Node, key: str, result: Result, note: str) -> Future[None]:
        written = self._note(node, key, None)
        self.nodes[node.id] = self.nodes[node.id]._replace(
            status="cached", reason=Reason.SAME_CONTENT.value, note="", seconds=result.seconds, log=result.log
        )
        self._made(node, key, result)
        self._reporter.report(Finished(node.id, "cached", 0.0, result.size, note, Reason.SAME_CONTENT.value, key))
        return written

    def _note(self, node: Node, key: str, seconds: float | None) -> Future[None]:
        """Record the recipe key, so that next time no content needs to be known, and how long it took.

        Done when this, and everything that was submitted before, is written.
        """
        session = self._session
        grounds = session.lookup.grounds[node.id] = session.grounds.of(node, self._layers)
        record = Recipe(key, grounds).encode()
        recipe: tuple[Table, str, bytes] = ("recipes", session.keys.recipe(node.id), record)
        return session.store.submit(Batch(records=(recipe, *session.records.made(node, seconds))))
