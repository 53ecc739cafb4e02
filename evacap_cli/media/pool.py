"""Decoding in worker processes that may hang or die: a clip that kills its worker costs that clip alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from pebble import ProcessExpired, ProcessPool

from evacap_cli.errors import EvacapError
from evacap_cli.media.container import one_line

Item = TypeVar("Item")
Value = TypeVar("Value")

BROKEN = (
    "the decoding workers do not start",
    'call from under `if __name__ == "__main__":`, or use 0 workers',
)
TASKS_PER_WORKER = 500  # then a fresh one takes its place: damaged files make some decoders leak


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """What came of one item: `value`, or, when that is None, the one-line `error`."""

    item: Item
    value: Value | None = None
    error: str | None = None


class DecodePool(Generic[Item, Value]):
    """Applies `function` to items in worker processes, some way ahead of whoever takes the results.

    `function` and, with workers, its results must be picklable (arrays rather than tensors: a tensor's
    memory goes with the worker that made it). `workers` 0 runs inline, without a timeout. `timeout`: seconds
    for one item. `ahead`: how many items may be under way or wait to be taken, whatever the number of items;
    by default 3 a worker. `rescue`: a more careful function that gets the items on which a worker died or
    timed out, once more.

    A context manager: leaving it ends the workers. They are started afresh (spawn), never forked from a
    process that may hold the locks of torch's threads; a script that uses workers needs `if __name__ ==
    "__main__":`.

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
    ) -> None:
        self.function, self.rescue, self.timeout = function, rescue, timeout
        self.ahead = max(1, workers, 3 * workers if ahead is None else ahead)
        self.pool = None
        if workers > 0:
            self.pool = ProcessPool(
                max_workers=workers,
                max_tasks=TASKS_PER_WORKER,
                initializer=_quiet_worker,
                context=multiprocessing.get_context("spawn"),
            )

    def __enter__(self) -> DecodePool[Item, Value]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, also in the middle of an item."""
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()

    def imap(self, items: Iterable[Item]) -> Iterator[Outcome[Item, Value]]:
        """One outcome per item, in the order of the items, which are taken as they are needed."""
        if self.pool is None:
            for item in items:
                value, error = _guarded(self.function, item)
                yield Outcome(item, value, error)
            return
        pending: deque[tuple[Item, Future[Any]]] = deque()
        for item in items:
            if len(pending) >= self.ahead:
                yield self._take(*pending.popleft())
            pending.append((item, self._schedule(self.function, item)))
        while pending:
            yield self._take(*pending.popleft())

    def _schedule(self, function: Callable[[Item], Value], item: Item) -> Future[Any]:
        assert self.pool is not None
        try:
            return self.pool.schedule(_guarded, args=[function, item], timeout=self.timeout)
        except RuntimeError as error:
            raise EvacapError(*BROKEN) from error

    def _take(self, item: Item, future: Future[Any]) -> Outcome[Item, Value]:
        value, error, lost = self._result(future)
        if lost and self.rescue is not None:
            value, again, _ = self._result(self._schedule(self.rescue, item))
            error = again and f"{error}; then: {again}"
        return Outcome(item, value, error)

    def _result(self, future: Future[Any]) -> tuple[Value | None, str | None, bool]:
        """(value, error, whether the worker was lost)."""
        try:
            return (*future.result(), False)
        except TimeoutError:
            return None, f"decoding took more than {self.timeout:g} s", True
        except ProcessExpired as error:
            return None, f"decoding ended its process ({_cause(error.exitcode)})", True
        except BrokenProcessPool as error:
            raise EvacapError(*BROKEN) from error
        except Exception as error:  # what cannot be sent between processes
            return None, f"{type(error).__name__}: {one_line(error)}", False


def _guarded(function: Callable[[Item], Value], item: Item) -> tuple[Value | None, str | None]:
    """(value, None) or (None, one-line error): not every exception can be sent between processes."""
    try:
        return function(item), None
    except EvacapError as error:
        return None, error.message
    except Exception as error:
        return None, f"{type(error).__name__}: {one_line(error)}"


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


def _quiet_worker() -> None:
    """Leaves Ctrl-C, which reaches all processes of the group, and the terminal to the parent.

    decord prints some complaints past all of its settings; what matters comes back as an error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
