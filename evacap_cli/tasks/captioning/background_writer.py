"""Writes results in a background thread, so that the model does not wait for the disk."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType

from evacap_cli.atomic import delete_unfinished

QUEUE_SIZE = 32  # waiting jobs
POLL_SECONDS = 0.2  # seconds between checks whether the thread still runs
INTERRUPT_SECONDS = 3.0  # seconds for the waiting jobs after an interrupt


class BackgroundWriter:
    """Runs jobs one after another, in order. A context manager; its exit waits for the last job.

    If a job raises, no further job runs, and `put` or the exit raises its error. After an interrupt, the exit waits
    only `INTERRUPT_SECONDS`.
    """

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(QUEUE_SIZE)
        self._error: BaseException | None = None
        self._until: float | None = None
        self._ended = threading.Event()  # an interrupted `join` takes a thread for ended (Python 3.11)
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
        try:
            self._put(None)
            self._ended.wait(None if self._until is None else INTERRUPT_SECONDS)
        except BaseException:  # an interrupt of this wait
            self._until = time.monotonic() + INTERRUPT_SECONDS
            self._ended.wait(INTERRUPT_SECONDS)
            raise
        finally:
            if not self._ended.is_set():  # the process ends while a job writes
                atexit.register(delete_unfinished)
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
        try:
            while (job := self._jobs.get()) is not None and not self._expired():
                job()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()
