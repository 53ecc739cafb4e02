"""Decoding in worker processes that may hang or die: a clip that kills its worker costs that clip alone."""

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
POLL_SECONDS = (
    1.0  # seconds after which a waiting thread looks up: on Windows, a lock keeps Ctrl-C waiting, too
)
LEAVE_SECONDS = 15.0  # for a thread to see that its worker was killed


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """What came of one item: `value`, or, when that is None, the one-line `error`. last: nothing more comes of it.

    An item of which nothing came at all has neither.
    """

    item: Item
    value: Value | None = None
    error: str | None = None
    last: bool = True


class _Job(Generic[Item, Value]):
    """An item on its way."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcomes: deque[Outcome[Item, Value]] = deque()  # that wait to be taken
        self.count = 0  # values that came, of more than one ...
        self.held: Outcome[Item, Value] | None = None  # ... and the last of them
        self.loss = ""  # how a worker was lost over it
        self.unwanted = False


class DecodePool(Generic[Item, Value]):
    """Applies `function` to items in worker processes, some way ahead of whoever takes the results.

    `function` and, with workers, its results must be picklable (arrays rather than tensors: a tensor's memory goes with
    the worker that made it). Where it is a generator, what it yields comes value by value, each as soon as the next
    one, or the end, is there; None is no value, but a sign of life. A worker whose values nobody takes waits. `workers`
    0 runs inline, without limits. `timeout`: seconds for one value, from when a worker takes the item or has made the
    value before. `memory`: bytes that one worker may hold (on Linux). `ahead`: how many items may be under way or wait
    to be taken, and how many values, beside one of each item, may wait, whatever the number of items; by default 3 a
    worker. `rescue`: a more careful function that gets the items on which a worker was lost, once more; of what it
    yields, as many values as had come before are left out.

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
        self._threads: list[threading.Thread] = []  # one a worker, from when there is work
        self._serving = 0  # of them, those that still have a worker
        self._jobs: deque[_Job[Item, Value]] = deque()
        self._change = threading.Condition()  # guards all that follows, and tells of every change
        self._waiting = 0  # values that wait to be taken
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
        """One outcome per item or per value that it yields, in the order of the items, which are taken as they are
        needed.

        Not `ordered`: in the order in which they are done, so that nobody waits for an item that hangs or goes on and
        on. The values of one item are in order always.
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
            with self._change:  # whoever leaves early wants no more of them
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
        """Waits for the first job, or, not `ordered`, any, and takes what came of it; the last of it takes it out."""
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
        """Gives jobs to one worker: what one thread of this process does."""
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
                            self._room = sys.maxsize  # ... which must not wait for this very job
                            self._change.notify_all()
                    return
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

    def _put(
        self, worker: Worker[Item, Value], job: _Job[Item, Value], outcome: Outcome[Item, Value]
    ) -> bool:
        """Hands out what came, when there is room; False when nobody wants it. There is always room for one of each
        job, so that whoever waits for just that job gets it.
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
        """What a worker makes of a job, or, when it is lost over it, the rescue makes of the rest."""
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
    """Outcomes that know whether they are the last: each value is held until there is the next, or the end."""
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
