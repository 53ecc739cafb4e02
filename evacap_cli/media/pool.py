"""Decodes in worker processes that may hang or die. If a clip kills its worker, only that clip fails."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Generic

from evacap_cli.errors import EvacapError
from evacap_cli.media.worker import (
    LOOK_SECONDS,
    Answer,
    Function,
    Item,
    NoWorkerError,
    Value,
    Worker,
    values_of,
)

BROKEN = (
    "the decoding workers do not start",
    'call from under `if __name__ == "__main__":`, or use 0 workers',
)
POLL_SECONDS = 1.0  # seconds between wake-ups of a waiting thread: on Windows, a lock blocks Ctrl-C
LEAVE_SECONDS = 15.0  # for a thread to notice that its worker was killed


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """A result of one item: `value`, or, if that is None, the one-line `error`. last: the item has no further results.

    An item without any result has neither.
    """

    item: Item
    value: Value | None = None
    error: str | None = None
    last: bool = True


class _Job(Generic[Item, Value]):
    """An item in progress."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcomes: deque[Outcome[Item, Value]] = deque()  # not yet taken
        self.count = 0  # values received so far ...
        self.held: Outcome[Item, Value] | None = None  # ... and the last of them
        self.loss = ""  # how it lost a worker
        self.unwanted = False


class DecodePool(Generic[Item, Value]):
    """Applies `function` to items in worker processes, ahead of the consumer.

    `function` and, with workers, its results must be picklable (arrays, not tensors: a tensor's memory is freed with
    its worker). If `function` is a generator, each value is delivered when the next one, or the end, arrives; a None is
    not a value, but restarts the timeout. A worker waits while its values are not taken. `workers` 0 runs inline,
    without limits. `timeout`: seconds per value, from when the worker takes the item or yields the previous value.
    `memory`: bytes that one worker may hold (Linux only). `ahead`: the maximum number of items in progress or not yet
    taken, and of waiting values beyond one per item; by default 3 per worker. `rescue`: a safer function that is
    called once for items that lost a worker; values that were already delivered are skipped.

    A context manager; leaving it ends the workers. On Linux, workers are forked from a server process that has only
    imported modules, elsewhere they are spawned: a fork of this process would copy the locks of torch's threads. A
    script that uses workers needs `if __name__ == "__main__":`. They end with their parent process, however it ends.

        with DecodePool(4, decode, timeout=120) as pool:
            for outcome in pool.imap(paths):
                ...
    """

    def __init__(
        self,
        workers: int,
        function: Function[Item, Value],
        timeout: float | None = None,
        ahead: int | None = None,
        rescue: Function[Item, Value] | None = None,
        memory: int | None = None,
    ) -> None:
        self.function, self.rescue = function, rescue
        self.ahead = max(1, workers, 3 * workers if ahead is None else ahead)
        self.workers: list[Worker[Item, Value]] = [
            Worker(function, rescue, timeout, memory) for _ in range(workers)
        ]
        self._threads: list[threading.Thread] = []  # one per worker, started with the first item
        self._serving = 0  # threads that still have a worker
        self._jobs: deque[_Job[Item, Value]] = deque()
        self._change = threading.Condition()  # guards the attributes below
        self._waiting = 0  # values not yet taken
        self._room = self.ahead
        self._closed = False
        self._failure: BaseException | None = None

    def __enter__(self) -> DecodePool[Item, Value]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, even during an item."""
        with self._change:
            self._closed = True
            self._jobs.clear()
            self._change.notify_all()
        for worker in self.workers:
            worker.end()
        for thread in self._threads:
            thread.join(LEAVE_SECONDS)

    def imap(self, items: Iterable[Item], ordered: bool = True) -> Iterator[Outcome[Item, Value]]:
        """Yields one outcome per item, or per value of an item, in the order of the items. Reads `items` lazily.

        If not `ordered`, in order of completion, so that a slow or hanging item blocks no other. The values of one item
        are always in order.
        """
        if not self.workers:
            for item in items:
                with closing(self._inline(item)) as outcomes:
                    yield from outcomes
            return
        pending: deque[_Job[Item, Value]] = deque()
        try:
            for item in items:
                while len(pending) >= self.ahead:
                    yield self._take(pending, ordered)
                pending.append(self._submit(item))
            while pending:
                yield self._take(pending, ordered)
        finally:
            with self._change:  # the consumer may stop early
                for job in pending:
                    job.unwanted = True
                    self._waiting -= len(job.outcomes)
                self._jobs = deque(job for job in self._jobs if not job.unwanted)
                self._change.notify_all()

    def _inline(self, item: Item) -> Generator[Outcome[Item, Value], None, None]:
        with closing(values_of(self.function, item)) as values:
            answers = (Answer(value, error, last) for value, error, last in values)
            yield from _outcomes(_Job(item), (a for a in answers if a.last or a.value is not None))

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
        """Waits for the first job (any job, if not `ordered`) and takes an outcome; removes the job after its last."""
        with self._change:
            while True:
                ready = (job for job in pending if job.outcomes)
                job = pending[0] if ordered else next(ready, pending[0])
                if job.outcomes:
                    outcome = job.outcomes.popleft()
                    self._waiting -= 1
                    if outcome.last:
                        pending.remove(job)
                    self._change.notify_all()
                    return outcome
                if self._failure is not None:
                    raise self._failure
                if self._closed:
                    raise RuntimeError("the pool is closed")
                if not self._serving:
                    raise EvacapError(*BROKEN)
                self._change.wait(POLL_SECONDS)

    def _serve(self, worker: Worker[Item, Value]) -> None:
        """Passes jobs to one worker; runs in a thread of this process."""
        try:
            while (job := self._next_job()) is not None:
                try:
                    with closing(self._outcomes(worker, job)) as outcomes:
                        for outcome in outcomes:
                            if not self._put(worker, job, outcome):
                                break
                except NoWorkerError:
                    with self._change:
                        if not self._closed and not job.unwanted:
                            self._jobs.appendleft(job)  # for another worker ...
                            self._room = sys.maxsize  # ... which must not wait for this job
                            self._change.notify_all()
                    return
        except BaseException as error:  # raised again in `_take`
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

    def _put(
        self, worker: Worker[Item, Value], job: _Job[Item, Value], outcome: Outcome[Item, Value]
    ) -> bool:
        """Queues an outcome when there is room; returns False if it is no longer wanted. There is always room for one
        outcome per job, so that a consumer that waits for this job receives it.
        """
        with self._change:
            while self._waiting >= self._room and job.outcomes and not job.unwanted and not self._closed:
                self._change.wait(LOOK_SECONDS)
                worker.watch()
            if job.unwanted or self._closed:
                return False
            job.outcomes.append(outcome)
            self._waiting += 1
            self._change.notify_all()
            return True

    def _outcomes(
        self, worker: Worker[Item, Value], job: _Job[Item, Value]
    ) -> Generator[Outcome[Item, Value], None, None]:
        with closing(self._answers(worker, job)) as answers:
            yield from _outcomes(job, answers)

    def _answers(
        self, worker: Worker[Item, Value], job: _Job[Item, Value]
    ) -> Generator[Answer[Value], None, None]:
        """Yields the answers of a worker to a job. If the worker is lost, `rescue` continues."""
        while True:
            careful = bool(job.loss)
            with closing(worker.run(job.item, careful, job.count)) as answers:
                for answer in answers:
                    if answer.lost and careful:
                        yield replace(answer, error=f"{job.loss}; then: {answer.error}")
                        return
                    if answer.lost and self.rescue is not None:
                        job.loss = answer.error or "lost"
                        break
                    if answer.error and careful:
                        answer = replace(answer, error=f"{job.loss}; then: {answer.error}")
                    yield answer
                else:
                    return


def _outcomes(
    job: _Job[Item, Value], answers: Iterable[Answer[Value]]
) -> Generator[Outcome[Item, Value], None, None]:
    """Marks the last outcome: holds each value until the next one, or the end, arrives."""
    for answer in answers:
        end = answer.last and answer.value is None and answer.error is None
        held, job.held = job.held, None
        if held is not None:
            yield replace(held, last=end)
        if not answer.last:
            job.count += 1
            job.held = Outcome(job.item, answer.value, last=False)
        elif held is None or not end:
            yield Outcome(job.item, answer.value, answer.error)
