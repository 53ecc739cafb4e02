"""One worker process that may hang, die or grow at any moment, and is replaced when it did.

Each has a pipe of its own, so that what dies in the middle of a message spoils nobody else's. The worker says when it
is ready and when it has taken an item, before it looks at it: a death before that is not the item's doing. What a
function yields is sent value by value; a pipe that nobody reads makes it wait.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
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
READY, TAKEN, ALIVE = b"ready", b"taken", b"alive"

Function = Callable[[Item], Value | Iterator[Value | None]]
Message = tuple[Value | None, str | None, bool]

_STARTING = threading.Lock()  # multiprocessing starts and reaps processes one thread at a time
_AHEAD: list[tuple[SpawnProcess, Connection]] = []  # that nobody wanted yet


def start_ahead(module: str) -> None:
    """Starts a process for the next worker that wants one: it imports `module` while this one gets ready, too.

    It ends with this process, wanted or not. Where none can be started, the worker that needs one will say so.
    """
    with _STARTING, suppress(Exception):
        _AHEAD.append(_spawn(module))


def _spawn(module: str = "") -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, module), daemon=True)
    try:
        with _without_interrupts():
            process.start()
    except Exception:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started meanwhile does not hear Ctrl-C, not even before it comes to ignoring it; this process does,
    afterwards at the latest."""
    if os.name != "posix":
        yield
        return
    resource_tracker.ensure_running()  # its start would let them in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class NoWorkerError(Exception):
    """No process can be started, or the worker was ended."""


class _LostError(Exception):
    """The process is gone; the message says why."""


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """One thing that a function made of an item: `value`, or, when that is None, the one-line `error`, or neither."""

    value: Value | None = None
    error: str | None = None
    last: bool = True  # whether nothing follows
    lost: bool = False  # whether the process was lost over it


class Worker(Generic[Item, Value]):
    """Runs `function`, or `rescue`, on one item at a time in a process of its own.

    `timeout`: seconds for one value, counted from when the process took the item or made the value before. `memory`:
    bytes that the process may hold (where /proc tells). A lost process is replaced when the next item comes. One thread
    at a time may call `run`; any may call `end`.
    """

    def __init__(
        self,
        function: Function[Item, Value],
        rescue: Function[Item, Value] | None = None,
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
        self._grown = False  # whether `watch` ended it

    def run(self, item: Item, careful: bool = False, passed: int = 0) -> Generator[Answer[Value], None, None]:
        """What comes of one item: a value, or all that the function yields, as it is made, and at last an end.

        `careful` asks the rescue. A None that is yielded is no value, but a sign of life, from which time is counted
        afresh. The first `passed` values are left out. Left early, it ends the process. Raises NoWorkerError.
        """
        try:
            message = pickle.dumps((careful, item, passed), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            yield Answer(error=_words(error))
            return
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
            yield from self._answers(pipe)
            return
        yield Answer(error=reason, lost=True)

    def _answers(self, pipe: Connection) -> Iterator[Answer[Value]]:
        done = False
        try:
            while not done:
                reply = self._receive(pipe, self.timeout, "decoding")
                try:
                    answer: Answer[Value] | None = None if reply == ALIVE else Answer(*pickle.loads(reply))
                except Exception as error:  # who knows what follows it
                    self._drop(kill=True)
                    answer = Answer(error=_words(error))
                done = answer is not None and answer.last
                if self._too_large() or (done and self._items >= ITEMS_PER_PROCESS):
                    if not done:
                        raise _LostError(self._outgrown(pipe))
                    self._drop()
                if answer is not None:
                    yield answer
        except _LostError as loss:
            done = True
            yield Answer(error=str(loss), lost=True)
        finally:
            if not done:
                self._drop(pipe, kill=True)

    def watch(self) -> None:
        """Ends a process that has grown too large while nobody took its values."""
        if self._too_large() and self._process is not None:
            self._grown = True
            self._process.kill()

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
            functions, pipe = self._functions(), self._start()
            try:
                self._send(pipe, functions)
                self._receive(pipe, START_SECONDS, "")
                self._pipe, self._items = pipe, 0
            except _LostError:
                continue
        raise NoWorkerError

    def _functions(self) -> bytes:
        try:
            return pickle.dumps(self.functions, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise NoWorkerError from error

    def _start(self) -> Connection:
        with self._lock:
            if self._ended:
                raise NoWorkerError
            try:
                with _STARTING:
                    self._process, pipe = _AHEAD.pop() if _AHEAD else _spawn()
            except Exception as error:  # no more processes, a script in a worker
                raise NoWorkerError from error
        return pipe

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
                    raise _LostError(self._outgrown(pipe) if self._grown else self._drop(pipe)) from None
            if ready:
                raise _LostError(self._outgrown(pipe) if self._grown else self._drop(pipe))
            if until is not None and time.monotonic() >= until:
                self._drop(pipe, kill=True)
                raise _LostError(f"{what or 'starting'} took more than {seconds:g} s")
            if what and self._too_large():
                raise _LostError(self._outgrown(pipe))

    def _too_large(self) -> bool:
        if self.memory is None or self._process is None:
            return False
        size = resident_bytes(self._process.pid)
        return size is not None and size > self.memory

    def _outgrown(self, pipe: Connection) -> str:
        self._drop(pipe, kill=True)
        return f"decoding took more than {(self.memory or 0) / 2**30:.3g} GiB of memory"

    def _drop(self, pipe: Connection | None = None, kill: bool = False) -> str:
        """Forgets a process, which is gone or goes now, and says how it ended."""
        pipe, process = pipe or self._pipe, self._process
        self._pipe = self._process = None
        self._grown = False
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


def values_of(
    function: Function[Item, Value], item: Item, passed: int = 0
) -> Generator[Message[Value], None, None]:
    """(value, error, last): what a function returns, or what it yields and then an end. Errors are one line each: not
    every exception can be sent between processes. Instead of the first `passed` values it yields None.
    """
    try:
        result = function(item)
        if not isinstance(result, Iterator):
            yield (None if passed else result), None, True
            return
        with closing(result) if isinstance(result, Generator) else nullcontext():
            for value in result:
                left_out = value is not None and passed > 0
                passed -= left_out
                yield (None if left_out else value), None, False
        yield None, None, True
    except EvacapError as error:
        yield None, error.message, True
    except Exception as error:
        yield None, _words(error), True


def _work(pipe: Connection, module: str) -> None:
    """What the process does, until its pipe is closed."""
    # Ctrl-C reaches all processes of the group: it is left to the parent, and so is the terminal, on which decord
    # prints complaints past all of its settings; what matters comes back as an error.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `_without_interrupts`
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if module:
        importlib.import_module(module)
    try:
        functions = pickle.loads(pipe.recv_bytes())
        pipe.send_bytes(READY)
        while True:
            message = pipe.recv_bytes()
            pipe.send_bytes(TAKEN)
            for reply in _replies(functions, message):
                pipe.send_bytes(reply)
    except (OSError, EOFError):  # nobody is there any more
        pass


def _replies(
    functions: tuple[Callable[[Any], Any], Callable[[Any], Any] | None], message: bytes
) -> Iterator[bytes]:
    try:
        careful, item, passed = pickle.loads(message)
    except Exception as error:
        yield pickle.dumps((None, _words(error), True))
        return
    function = functions[careful]
    assert function is not None
    for result in values_of(function, item, passed):
        if result[0] is None and not result[2]:
            yield ALIVE
            continue
        try:
            reply = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            yield pickle.dumps((None, _words(error), True))
            return
        yield reply


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
