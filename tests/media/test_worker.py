"""One worker process: what it survives, and what of it is an item's doing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from typing import Any

import numpy as np
import pytest

from evacap_cli.media import DecodePool, start_ahead
from evacap_cli.media import worker as worker_file
from evacap_cli.media.worker import Answer, NoWorkerError, Worker, resident_bytes

from .test_pool import call

good = partial(divmod, 7, 2)


def hold(size: int) -> None:
    held = np.ones(size, np.uint8)
    time.sleep(60)
    del held


def has_torch() -> bool:
    return "torch" in sys.modules


@contextmanager
def started(**options: Any) -> Iterator[Worker]:
    worker: Worker = Worker(call, **options)
    try:
        yield worker
    finally:
        worker.end()


def run(worker: Worker, item: Any, careful: bool = False) -> Answer:
    (answer,) = worker.run(item, careful)
    return answer


def process_of(worker: Worker) -> int:
    answer = run(worker, os.getpid)
    assert answer.value is not None
    return answer.value


@pytest.mark.slow
def test_a_process_is_replaced_after_many_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_file, "ITEMS_PER_PROCESS", 3)
    with started() as worker:
        ids = [process_of(worker) for _ in range(7)]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4] == ids[5] != ids[6]


@pytest.mark.slow
@pytest.mark.skipif(resident_bytes(os.getpid()) is None, reason="/proc")
def test_memory_that_grows_ends_the_process_and_the_item() -> None:
    small = partial(hold, 2**20)
    with started(memory=2**30, timeout=30.0) as worker:
        answer = run(worker, partial(hold, 2**30))
        assert (answer.error, answer.lost) == ("decoding took more than 1 GiB of memory", True)
        assert run(worker, good).value == (3, 1)
    with started(memory=2**30, timeout=1.0) as worker:
        assert run(worker, small).error == "decoding took more than 1 s"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_process_that_dies_between_items_is_replaced() -> None:
    with started() as worker:
        first = process_of(worker)
        os.kill(first, signal.SIGKILL)
        second = process_of(worker)  # which nobody blames on the item
        assert first != second
        os.kill(second, signal.SIGSTOP)  # it seems to hang before it takes the item
        threading.Timer(0.5, os.kill, [second, signal.SIGKILL]).start()
        assert run(worker, good).value == (3, 1)


@pytest.mark.skipif(not worker_file.FORKED, reason="a server forks them")
def test_workers_have_the_modules_of_the_server_and_the_environment_of_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVACAP_OF_THE_CALLER", "now")
    with started() as worker:
        assert run(worker, partial(os.getenv, "EVACAP_OF_THE_CALLER")).value == "now"
        assert run(worker, has_torch).value


@pytest.mark.slow
@pytest.mark.skipif(not worker_file.FORKED, reason="a server forks them")
def test_a_dead_server_is_replaced() -> None:
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    with started() as worker:
        assert run(worker, good).value == (3, 1)


def test_workers_are_spawned_if_no_server_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket needs a temporary folder that is writable and has a short path."""

    def refuse() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(forkserver, "ensure_running", refuse)
    start_ahead("evacap_cli.media.probe")
    with started() as worker:
        assert run(worker, good).value == (3, 1)


@pytest.mark.parametrize("error", [EOFError, ConnectionRefusedError, BrokenPipeError])
def test_a_dying_server_costs_one_attempt(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """It no longer answers, but has not ended."""
    start, errors = worker_file._start_process, [error]

    def fail_once(module: str) -> Any:
        if errors:
            raise errors.pop()
        return start(module)

    monkeypatch.setattr(worker_file, "_start_process", fail_once)
    monkeypatch.setattr(worker_file, "SERVER_DEATH_SECONDS", 0.0)
    with started() as worker:
        assert run(worker, good).value == (3, 1)
    assert not errors


def test_a_worker_may_be_ended_while_its_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    start, processes = worker_file._start_process, []

    def start_and_end(module: str) -> Any:
        process, pipe = start(module)
        processes.append(process)
        worker.end()
        return process, pipe

    monkeypatch.setattr(worker_file, "_start_process", start_and_end)
    worker: Worker = Worker(call)
    with pytest.raises(NoWorkerError):
        run(worker, good)
    (process,) = processes
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_the_last_attempt_to_start_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_file, "STARTS", 1)
    with started() as worker:
        assert run(worker, good).value == (3, 1)


def test_unpicklable_functions() -> None:
    worker: Worker = Worker(lambda item: item)
    with pytest.raises(NoWorkerError):
        run(worker, good)


def test_unpicklable_items() -> None:
    with started() as worker:
        answer = run(worker, lambda: 1)
        assert answer.error is not None
        assert "local object" in answer.error  # "cannot pickle" or "cannot get" it, by the version of Python
        assert not answer.lost
        assert run(worker, good).value == (3, 1)


@pytest.mark.slow
def test_a_closed_worker_stops_within_an_item() -> None:
    worker: Worker = Worker(call)
    threading.Timer(1.0, worker.end).start()
    assert run(worker, partial(time.sleep, 60)).lost
    with pytest.raises(NoWorkerError):
        run(worker, good)


def test_resident_bytes() -> None:
    assert resident_bytes(None) is None
    assert resident_bytes(2**31 - 7) is None
    mine = resident_bytes(os.getpid())
    assert mine is None or 2**24 < mine < 2**40


@pytest.mark.slow
def test_out_of_order_a_slow_item_does_not_block_others() -> None:
    items = [partial(time.sleep, 3.0), *[good] * 6]
    with DecodePool(2, call) as pool:
        outcomes = list(pool.imap(items, ordered=False))
    assert sorted(map(id, items)) == sorted(id(outcome.item) for outcome in outcomes)
    assert outcomes[0].value == (3, 1)
    assert outcomes[-1].item is items[0]


@pytest.mark.slow
def test_the_rest_of_a_stream_is_not_mixed_into_the_next() -> None:
    with DecodePool(1, call, ahead=4) as pool:
        outcomes = pool.imap([good] * 20)
        assert next(outcomes).value == (3, 1)
        outcomes.close()  # type: ignore[attr-defined]
        (outcome,) = pool.imap([os.getpid])
        assert outcome.value not in (None, (3, 1))
        assert not pool._jobs


def test_items_with_a_broken_stream() -> None:
    def broken() -> Iterator[Any]:
        yield good
        raise ValueError("the list ends here")

    with DecodePool(1, call) as pool, pytest.raises(ValueError, match="the list ends here"):
        list(pool.imap(broken()))
