"""A worker process that is replaced if it hangs, dies or exceeds its memory limit.

Each worker has its own pipe, so that a death in the middle of a message corrupts no other worker's. The worker reports
when it is ready and when it has received an item, before it unpickles it: an earlier death is not caused by the item.
Yielded values are sent one by one; the worker blocks while its pipe is full.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from evacap_cli.errors import EvacapError
from evacap_cli.media.container import one_line

Item = TypeVar("Item")
Value = TypeVar("Value")

ITEMS_PER_PROCESS = 500  # then the process is replaced: some decoders leak memory on damaged files
STARTS = 3  # attempts to start a process before giving up
START_SECONDS = 600.0  # for a process to import its modules, on a busy machine
LOOK_SECONDS = 0.2  # between checks of a worker's memory
DEATH_SECONDS = 5.0  # for a killed process to end
SERVER_DEATH_SECONDS = 1.0  # for a dying server to end
READY, TAKEN, ALIVE = b"ready", b"taken", b"alive"
FORKED = sys.platform == "linux"
"""Whether workers are forked from a server that has only imported modules. macOS' libraries do not survive a fork."""

Function = Callable[[Item], Value | Iterator[Value | None]]
Message = tuple[Value | None, str | None, bool]

_STARTING = threading.Lock()  # multiprocessing starts and reaps processes one thread at a time


def start_ahead(module: str) -> None:
    """Starts the server from which worker processes are forked; it imports `module` while the caller continues.

    So all workers import it, and the libraries that it uses, only once. Does nothing if a server is running, and where
    workers are spawned.
    """
    with _STARTING, suppress(OSError):  # e.g. no temporary folder is writable: then workers are spawned
        _start_server(module)


def _start_server(module: str) -> None:
    if FORKED:
        with _without_interrupts():
            forkserver.set_forkserver_preload([module])
            forkserver.ensure_running()


def _start_process(module: str) -> tuple[BaseProcess, Connection]:
    """Starts a worker process. `module`: imported by the server, if that has to be started."""
    ours, theirs = multiprocessing.Pipe()
    try:
        with _without_interrupts():
            process = _kind_of_process(module)(target=_work, args=(theirs, dict(os.environ)), daemon=True)
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def _kind_of_process(module: str) -> type[BaseProcess]:
    if FORKED:
        with suppress(OSError):
            _start_server(module)
            return multiprocessing.get_context("forkserver").Process
    return multiprocessing.get_context("spawn").Process


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Blocks SIGINT for processes started inside the context, even before they can ignore it. This process receives
    Ctrl-C at the end of the context."""
    if os.name != "posix":
        yield
        return
    resource_tracker.ensure_running()  # its start would unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class NoWorkerError(Exception):
    """No process can be started, or the worker was ended."""


class _LostError(Exception):
    """The process has ended; the message gives the reason."""


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """One result of a function for an item: `value`, or, if that is None, the one-line `error`, or neither."""

    value: Value | None = None
    error: str | None = None
    last: bool = True
    lost: bool = False  # whether the item lost the process


class Worker(Generic[Item, Value]):
    """Runs `function`, or `rescue`, on one item at a time in its own process.

    `timeout`: seconds per value, from when the process received the item or sent the previous value. `memory`: bytes
    that the process may hold (needs /proc). A lost process is replaced at the next item. One thread at a time may call
    `run`; any thread may call `end`.
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
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._items = 0  # sent to this process
        self._grown = False  # whether `watch` killed it

    def run(self, item: Item, careful: bool = False, passed: int = 0) -> Generator[Answer[Value], None, None]:
        """Yields the result of one item, or each value that the function yields and then an end.

        `careful` calls `rescue` instead of `function`. A yielded None is not a value, but restarts the timeout. The
        first `passed` values are skipped. Closing the generator early ends the process. Raises NoWorkerError.
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
            except _LostError as loss:  # it died while idle: try another one
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
                except Exception as error:  # the rest of the pipe cannot be trusted
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
        """Kills the process if it exceeds its memory limit while its values are not taken."""
        if self._too_large() and self._process is not None:
            self._grown = True
            self._process.kill()

    def end(self) -> None:
        """Ends the process permanently, even during an item."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def _ready(self) -> Connection:
        """Returns the pipe of a process that waits for an item."""
        if self._pipe is not None:
            return self._pipe
        for _ in range(STARTS):
            functions = self._functions()
            try:
                pipe = self._start()
                self._send(pipe, functions)
                self._receive(pipe, START_SECONDS, "")
            except _LostError:
                continue
            self._pipe, self._items = pipe, 0
            return pipe
        raise NoWorkerError

    def _functions(self) -> bytes:
        try:
            return pickle.dumps(self.functions, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise NoWorkerError from error

    def _start(self) -> Connection:
        if self._ended:
            raise NoWorkerError
        try:
            with _STARTING:
                process, pipe = _start_process(_module_of(self.functions[0]))
        except (EOFError, ConnectionError):
            # the server is dying; when it is dead, the next attempt starts another
            time.sleep(SERVER_DEATH_SECONDS)
            raise _LostError("the process did not start") from None
        except Exception as error:  # process limit reached, or a script without a main guard
            raise NoWorkerError from error
        with self._lock:
            self._process = process
            if self._ended:  # meanwhile: a server that still imports delays the start
                process.kill()
        return pipe

    def _send(self, pipe: Connection, message: bytes) -> None:
        try:
            pipe.send_bytes(message)
        except OSError:
            raise _LostError(self._drop(pipe)) from None

    def _receive(self, pipe: Connection, seconds: float | None, what: str) -> bytes:
        """Receives a message. Raises _LostError if the process dies or exceeds its time or memory limit first."""
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
        """Ends and forgets the process; returns how it ended."""
        pipe, process = pipe or self._pipe, self._process
        self._pipe = self._process = None
        self._grown = False
        if pipe is not None:
            pipe.close()
        if process is None:
            return ""
        if not kill and process.pid is not None:
            process.join(DEATH_SECONDS)  # the pipe closes just before the process ends
        process.kill()
        process.join(DEATH_SECONDS)
        with _STARTING:  # another thread may be reaping it
            code = process.exitcode
        return f"decoding ended its process ({_cause(code)})"


def resident_bytes(pid: int | None) -> int | None:
    """Resident memory of a process in bytes, or None if the system does not report it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def values_of(
    function: Function[Item, Value], item: Item, passed: int = 0
) -> Generator[Message[Value], None, None]:
    """Yields (value, error, last): a function's return value, or each value that it yields and then an end. Errors are
    one line each: not every exception can be pickled. None replaces the first `passed` values.
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


def _module_of(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(function.__module__)


def _work(pipe: Connection, environment: dict[str, str]) -> None:
    """Main loop of the process, until its pipe is closed."""
    if os.environ != environment:  # the server's is that of its start
        os.environ.clear()
        os.environ.update(environment)
    # Ctrl-C reaches all processes of the group; only the parent handles it. stderr is discarded: decord prints
    # to it regardless of its settings. Errors are sent through the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `_without_interrupts`
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        functions = pickle.loads(pipe.recv_bytes())
        pipe.send_bytes(READY)
        while True:
            message = pipe.recv_bytes()
            pipe.send_bytes(TAKEN)
            for reply in _replies(functions, message):
                pipe.send_bytes(reply)
    except (OSError, EOFError):  # the parent is gone
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
    """Ends the process with its parent, even during an item."""
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
