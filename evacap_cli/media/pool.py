"""Decoding in worker processes that may hang or die: a clip that kills its worker costs that clip alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from evacap_cli.errors import EvacapError
from evacap_cli.media.worker import NoWorkerError, Worker, guarded

Item = TypeVar("Item")
Value = TypeVar("Value")

BROKEN = (
    "the decoding workers do not start",
    'call from under `if __name__ == "__main__":`, or use 0 workers',
)
GLANCE = 1.0  # seconds after which a waiting thread looks up: on Windows, a lock keeps Ctrl-C waiting, too
LEAVE_SECONDS = 15.0  # for a thread to see that its worker was killed


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """What came of one item: `value`, or, when that is None, the one-line `error`. last: nothing more comes of it."""

    item: Item
    value: Value | None = None
    error: str | None = None
    last: bool = True


class _Job(Generic[Item, Value]):
    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Outcome[Item, Value] | None = None


class DecodePool(Generic[Item, Value]):
    """Applies `function` to items in worker processes, some way ahead of whoever takes the results.

    `function` and, with workers, its results must be picklable (arrays rather than tensors: a tensor's
    memory goes with the worker that made it). `workers` 0 runs inline, without limits. `timeout`: seconds
    for one item, from when a worker takes it. `memory`: bytes that one worker may hold (on Linux). `ahead`:
    how many items may be under way or wait to be taken, whatever the number of items; by default 3 a worker.
    `rescue`: a more careful function that gets the items on which a worker was lost, once more.

    A context manager: leaving it ends the workers. They are started afresh (spawn), never forked from a
    process that may hold the locks of torch's threads; a script that uses workers needs `if __name__ ==
    "__main__":`. They end with the process that started them, however that ends.

        with DecodePool(4, decode, timeout=120) as pool:
            for outcome in pool.imap(paths):
                ...
    """

    def __init__(
        self,
        workers: int,
        function: Callable[[Item], Value],
        timeout: float | None = None,
        ahead: int | None = None,
        rescue: Callable[[Item], Value] | None = None,
        memory: int | None = None,
    ) -> None:
        self.function, self.rescue = function, rescue
        self.ahead = max(1, workers, 3 * workers if ahead is None else ahead)
        self.workers: list[Worker[Item, Value]] = [
            Worker(function, rescue, timeout, memory) for _ in range(workers)
        ]
        self._threads: list[threading.Thread] = []  # one a worker, from when there is work
        self._serving = 0  # of them, those that still have a worker
        self._jobs: deque[_Job[Item, Value]] = deque()
        self._change = threading.Condition()  # guards all that follows, and tells of every change
        self._closed = False
        self._failure: BaseException | None = None

    def __enter__(self) -> DecodePool[Item, Value]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, also in the middle of an item."""
        with self._change:
            self._closed = True
            self._jobs.clear()
            self._change.notify_all()
        for worker in self.workers:
            worker.end()
        for thread in self._threads:
            thread.join(LEAVE_SECONDS)

    def imap(self, items: Iterable[Item], ordered: bool = True) -> Iterator[Outcome[Item, Value]]:
        """One outcome per item, in the order of the items, which are taken as they are needed.

        Not `ordered`: in the order in which they are done, so that nobody waits for an item that hangs.
        """
        if not self.workers:
            for item in items:
                yield Outcome(item, *guarded(self.function, item))
            return
        pending: deque[_Job[Item, Value]] = deque()
        try:
            for item in items:
                if len(pending) >= self.ahead:
                    yield self._take(pending, ordered)
                pending.append(self._submit(item))
            while pending:
                yield self._take(pending, ordered)
        finally:
            with self._change:  # whoever leaves early wants no more of them
                self._jobs = deque(job for job in self._jobs if job not in pending)

    def _submit(self, item: Item) -> _Job[Item, Value]:
        job: _Job[Item, Value] = _Job(item)
        with self._change:
            self._jobs.append(job)
            self._change.notify_all()
            if not self._threads and not self._closed:
                self._threads = [
                    threading.Thread(target=self._serve, args=[worker], daemon=True)
                    for worker in self.workers
                ]
                self._serving = len(self._threads)
                for thread in self._threads:
                    thread.start()
        return job

    def _take(self, pending: deque[_Job[Item, Value]], ordered: bool) -> Outcome[Item, Value]:
        """Waits for the first job, or, not `ordered`, any, and takes it out."""
        with self._change:
            while True:
                ready = (job for job in pending if job.outcome is not None)
                job = pending[0] if ordered else next(ready, pending[0])
                if job.outcome is not None:
                    pending.remove(job)
                    return job.outcome
                if self._failure is not None:
                    raise self._failure
                if self._closed:
                    raise RuntimeError("the pool is closed")
                if not self._serving:
                    raise EvacapError(*BROKEN)
                self._change.wait(GLANCE)

    def _serve(self, worker: Worker[Item, Value]) -> None:
        """Gives jobs to one worker: what one thread of this process does."""
        try:
            while (job := self._next_job()) is not None:
                try:
                    outcome = self._outcome(worker, job.item)
                except NoWorkerError:
                    with self._change:
                        if not self._closed:
                            self._jobs.appendleft(job)  # for another worker
                    return
                with self._change:
                    job.outcome = outcome
                    self._change.notify_all()
        except BaseException as error:  # whoever waits must learn of it
            self._failure = error
        finally:
            worker.end()
            with self._change:
                self._serving -= 1
                self._change.notify_all()

    def _next_job(self) -> _Job[Item, Value] | None:
        with self._change:
            while not self._jobs and not self._closed:
                self._change.wait()
            return None if self._closed else self._jobs.popleft()

    def _outcome(self, worker: Worker[Item, Value], item: Item) -> Outcome[Item, Value]:
        first = worker.run(item)
        if not first.lost or self.rescue is None:
            return Outcome(item, first.value, first.error)
        second = worker.run(item, careful=True)
        return Outcome(item, second.value, second.error and f"{first.error}; then: {second.error}")
