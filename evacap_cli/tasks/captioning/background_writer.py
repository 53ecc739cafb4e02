"""What keeps results works in a thread of its own, so that the model waits for no disk."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType

QUEUE_SIZE = 32  # jobs that may wait
POLL_SECONDS = 0.2  # seconds between looks at whether the other side is still there
INTERRUPT_SECONDS = 3.0  # for what waits when this is interrupted


class BackgroundWriter:
    """Does jobs one after another, in the order given. A context manager; leaving it waits for the last one.

    The first that raises is the last: `put`, or leaving, raises its error. Left by an interrupt, it does what it can in
    a few seconds.
    """

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(QUEUE_SIZE)
        self._error: BaseException | None = None
        self._until: float | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def put(self, job: Callable[[], object]) -> None:
        self._put(job)
        self._raise()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._until = time.monotonic() + INTERRUPT_SECONDS
        self._put(None)
        self._thread.join(None if self._until is None else INTERRUPT_SECONDS)
        if kind is None:
            self._raise()

    def _put(self, job: Callable[[], object] | None) -> None:
        while self._error is None and not self._expired():
            try:
                self._jobs.put(job, timeout=POLL_SECONDS)
                return
            except queue.Full:
                continue

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _expired(self) -> bool:
        return self._until is not None and time.monotonic() > self._until

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._expired():
            try:
                job()
            except BaseException as error:
                self._error = error
                return
