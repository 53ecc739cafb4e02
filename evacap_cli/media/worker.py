"""One worker process that may hang, die or grow at any moment, and is replaced when it did.

Each has a pipe of its own, so that what dies in the middle of a message spoils nobody else's. The worker says when it
is ready and when it has taken an item, before it looks at it: a death before that is not the item's doing.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from evacap_cli.errors import EvacapError
from evacap_cli.media.container import one_line

Item = TypeVar("Item")
Value = TypeVar("Value")

ITEMS_PER_PROCESS = 500  # then a fresh one takes its place: damaged files make some decoders leak
STARTS = 3  # times in a row that a process may die, for reasons of its own, before it is given up
START_SECONDS = 600.0  # for a process to import all it needs, on a machine that is busy
LOOK_SECONDS = 0.2  # between looks at a worker's memory
DEATH_SECONDS = 5.0  # in which a process that was killed is gone, unless the system holds it
READY, TAKEN = b"ready", b"taken"

_STARTING = threading.Lock()  # multiprocessing starts and reaps processes one thread at a time


class NoWorkerError(Exception):
    """No process can be started, or the worker was ended."""


class _LostError(Exception):
    """The process is gone; the message says why."""


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """What a function made of an item: `value`, or, when that is None, the one-line `error`."""

    value: Value | None = None
    error: str | None = None
    lost: bool = False  # whether the process was lost over it


class Worker(Generic[Item, Value]):
    """Runs `function`, or `rescue`, on one item at a time in a process of its own.

    `timeout`: seconds for one item, counted from when the process took it. `memory`: bytes that the process may hold
    (where /proc tells). A lost process is replaced when the next item comes. One thread at a time may call `run`; any
    may call `end`.
    """

    def __init__(
        self,
        function: Callable[[Item], Value],
        rescue: Callable[[Item], Value] | None = None,
        timeout: float | None = None,
        memory: int | None = None,
    ) -> None:
        self.functions = (function, rescue)
        self.timeout, self.memory = timeout, memory
        self._lock = threading.Lock()
        self._ended = False
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._items = 0  # that this process was given

    def run(self, item: Item, careful: bool = False) -> Answer[Value]:
        """The answer to one item; `careful` asks the rescue. Raises NoWorkerError."""
        try:
            message = pickle.dumps((careful, item), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            return Answer(error=_words(error))
        reason = ""
        for _ in range(STARTS):
            pipe = self._ready()
            self._items += 1
            try:
                self._send(pipe, message)
                self._receive(pipe, START_SECONDS, "")
            except _LostError as loss:  # it died while it waited for work: another one shall try
                reason = str(loss)
                continue
            try:
                reply = self._receive(pipe, self.timeout, "decoding")
            except _LostError as loss:
                return Answer(error=str(loss), lost=True)
            if self._items >= ITEMS_PER_PROCESS or self._too_large():
                self._drop()
            try:
                return Answer(*pickle.loads(reply))
            except Exception as error:
                return Answer(error=_words(error))
        return Answer(error=reason, lost=True)

    def end(self) -> None:
        """Ends the process, also in the middle of an item, and for good."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def _ready(self) -> Connection:
        """The pipe to a process that waits for an item."""
        for _ in range(STARTS):
            if self._pipe is not None:
                return self._pipe
            pipe = self._start()
            try:
                self._receive(pipe, START_SECONDS, "")
                self._pipe, self._items = pipe, 0
            except _LostError:
                continue
        raise NoWorkerError

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.functions), daemon=True)
        with self._lock:
            if self._ended:
                raise NoWorkerError
            try:
                with _STARTING:
                    process.start()
            except (
                Exception
            ) as error:  # no more processes, functions that cannot be sent, a script in a worker
                ours.close()
                raise NoWorkerError from error
            finally:
                theirs.close()
            self._process = process
        return ours

    def _send(self, pipe: Connection, message: bytes) -> None:
        try:
            pipe.send_bytes(message)
        except OSError:
            raise _LostError(self._drop(pipe)) from None

    def _receive(self, pipe: Connection, seconds: float | None, what: str) -> bytes:
        """The next message. Raises _LostError when the process dies, takes too long or grows too large first."""
        process = self._process
        assert process is not None
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            if self.memory is not None and what:
                left = LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
            ready = wait([pipe, process.sentinel], left)
            if pipe in ready or (ready and pipe.poll()):
                try:
                    return pipe.recv_bytes()
                except (OSError, EOFError):
                    raise _LostError(self._drop(pipe)) from None
            if ready:
                raise _LostError(self._drop(pipe))
            if until is not None and time.monotonic() >= until:
                self._drop(pipe, kill=True)
                raise _LostError(f"{what or 'starting'} took more than {seconds:g} s")
            if what and self._too_large():
                self._drop(pipe, kill=True)
                raise _LostError(f"{what} took more than {(self.memory or 0) / 2**30:.3g} GiB of memory")

    def _too_large(self) -> bool:
        if self.memory is None or self._process is None:
            return False
        size = resident_bytes(self._process.pid)
        return size is not None and size > self.memory

    def _drop(self, pipe: Connection | None = None, kill: bool = False) -> str:
        """Forgets a process, which is gone or goes now, and says how it ended."""
        pipe, process = pipe or self._pipe, self._process
        self._pipe = self._process = None
        if pipe is not None:
            pipe.close()
        if process is None:
            return ""
        if not kill and process.pid is not None:
            process.join(DEATH_SECONDS)  # the pipe closes a moment before the process is gone
        process.kill()
        process.join(DEATH_SECONDS)
        with _STARTING:  # another thread may just be reaping it
            code = process.exitcode
        return f"decoding ended its process ({_cause(code)})"


def resident_bytes(pid: int | None) -> int | None:
    """Memory that a process holds, or None where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def guarded(function: Callable[[Item], Value], item: Item) -> tuple[Value | None, str | None]:
    """(value, None) or (None, one-line error): not every exception can be sent between processes."""
    try:
        return function(item), None
    except EvacapError as error:
        return None, error.message
    except Exception as error:
        return None, _words(error)


def _work(pipe: Connection, functions: tuple[Callable[[Any], Any], Callable[[Any], Any] | None]) -> None:
    """What the process does, until its pipe is closed."""
    # Ctrl-C reaches all processes of the group: it is left to the parent, and so is the terminal, on which decord
    # prints complaints past all of its settings; what matters comes back as an error.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send_bytes(READY)
        while True:
            message = pipe.recv_bytes()
            pipe.send_bytes(TAKEN)
            pipe.send_bytes(_reply(functions, message))
    except (OSError, EOFError):  # nobody is there any more
        pass


def _reply(functions: tuple[Callable[[Any], Any], Callable[[Any], Any] | None], message: bytes) -> bytes:
    try:
        careful, item = pickle.loads(message)
    except Exception as error:
        return pickle.dumps((None, _words(error)))
    function = functions[careful]
    assert function is not None
    result = guarded(function, item)
    try:
        return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return pickle.dumps((None, _words(error)))


def _end_with_parent() -> None:
    """A process in the middle of an item does not outlive whoever wants its answer."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
