"""Functions that yield: value by value, whatever happens in between."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import DecodePool, Outcome
from evacap_cli.media.worker import resident_bytes

from .streams import careful, endless, endless_or_not, greedy, stream


def plain(outcomes: list[Outcome]) -> list[tuple[Any, str | None, bool]]:
    return [(outcome.value, outcome.error, outcome.last) for outcome in outcomes]


def fail() -> None:
    raise MediaError("it broke off")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_every_value_has_an_outcome_and_the_last_is_marked(workers: int) -> None:
    items = [[1, 2, 3], [], [4], [5, fail, 6], [fail]]
    with DecodePool(workers, stream) as pool:
        outcomes = list(pool.imap(items))
    assert plain(outcomes) == [
        (1, None, False),
        (2, None, False),
        (3, None, True),
        (None, None, True),
        (4, None, True),
        (5, None, False),
        (None, "it broke off", True),
        (None, "it broke off", True),
    ]
    assert [outcome.item for outcome in outcomes] == [items[i] for i in (0, 0, 0, 1, 2, 3, 3, 4)]


@pytest.mark.slow
def test_a_crash_keeps_earlier_values() -> None:
    items = [[1, 2, partial(os._exit, 3), 4], [5, 6]]
    with DecodePool(1, stream) as pool:
        outcomes = plain(list(pool.imap(items)))
    assert outcomes == [
        (1, None, False),
        (2, None, False),
        (None, "decoding ended its process (exit code 3)", True),
        (5, None, False),
        (6, None, True),
    ]


@pytest.mark.slow
def test_the_rescue_resumes_at_the_crash() -> None:
    items = [[1, 2, partial(os._exit, 3), 4, 5], [partial(os._exit, 3)], [6, 7, partial(os._exit, 3)]]
    with DecodePool(1, stream, rescue=careful) as pool:
        outcomes = plain(list(pool.imap(items)))
    assert outcomes == [
        (1, None, False),
        (2, None, False),
        (("careful", 4), None, False),
        (("careful", 5), None, True),
        (None, None, True),
        (6, None, False),
        (7, None, True),
    ]


@pytest.mark.slow
def test_a_rescue_that_also_dies() -> None:
    with DecodePool(1, stream, rescue=stream) as pool:
        outcomes = plain(list(pool.imap([[1, partial(os._exit, 3)]])))
    died = "decoding ended its process (exit code 3)"
    assert outcomes == [(1, None, False), (None, f"{died}; then: {died}", True)]


@pytest.mark.slow
def test_time_is_counted_for_each_value() -> None:
    slow = partial(time.sleep, 0.7)  # gives None, a sign of life and no value
    items = [[slow, 1, slow, 2, slow, slow, slow, 3], [4, partial(time.sleep, 60), 5], [6]]
    with DecodePool(1, stream, timeout=2.0) as pool:
        outcomes = plain(list(pool.imap(items)))
    assert outcomes == [
        (1, None, False),
        (2, None, False),
        (3, None, True),
        (4, None, False),
        (None, "decoding took more than 2 s", True),
        (6, None, True),
    ]


@pytest.mark.slow
def test_the_rescue_has_time_for_skipped_values() -> None:
    slow = partial(time.sleep, 0.7)
    items = [[slow, 1, slow, 2, slow, 3, partial(_exit_once, os.getpid()), 4]]
    with DecodePool(1, stream, timeout=2.0, rescue=_slowly) as pool:
        outcomes = plain(list(pool.imap(items)))
    assert outcomes == [(1, None, False), (2, None, False), (3, None, False), (4, None, True)]


def _exit_once(_: int) -> None:
    os._exit(3)


def _slowly(steps: Any) -> Any:
    return stream([step for step in steps if getattr(step, "func", None) is not _exit_once])


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_without_end_waits_for_its_reader(tmp_path: Path, ordered: bool) -> None:
    log = tmp_path / "log"
    with DecodePool(1, endless, ahead=3) as pool:
        outcomes = pool.imap([log], ordered=ordered)
        for number in range(20):
            outcome = next(outcomes)
            assert outcome.value is not None
            assert outcome.value[0] == number
            assert not outcome.last
        time.sleep(1.0)
        made = log.stat().st_size
        assert pool._waiting <= 3
        assert made <= 20 + 3 + 3  # waiting, held, on its way, in the making
        time.sleep(0.5)
        assert log.stat().st_size == made
        assert next(outcomes).value[0] == 20  # type: ignore[index]


@pytest.mark.slow
def test_many_streams_share_one_bound(tmp_path: Path) -> None:
    logs = [tmp_path / str(i) for i in range(3)]
    with DecodePool(3, endless, ahead=4) as pool:
        outcomes = pool.imap(logs, ordered=False)
        next(outcomes)
        while not all(log.exists() for log in logs):
            time.sleep(0.1)
        time.sleep(1.0)
        assert pool._waiting <= 4 + 3


@pytest.mark.slow
def test_an_endless_stream_does_not_block_others(tmp_path: Path) -> None:
    items: list[Any] = [tmp_path / "log", *[[i, i] for i in range(6)]]
    seen = []
    with DecodePool(2, endless_or_not, ahead=4) as pool:
        for outcome in pool.imap(items, ordered=False):
            if not isinstance(outcome.item, Path):
                seen.append(outcome.value)
            if len(seen) == 12:
                break
    assert seen == [i for i in range(6) for _ in range(2)]


def test_order_of_streams() -> None:
    items = [[partial(divmod, i, 2), *range(i)] for i in range(12)]
    with DecodePool(3, stream, ahead=4) as pool:
        outcomes = list(pool.imap(items))
    assert [outcome.value for outcome in outcomes] == [
        v for i in range(12) for v in (divmod(i, 2), *range(i))
    ]
    assert [outcome.item for outcome in outcomes if outcome.last] == items


@pytest.mark.slow
def test_closing_a_stream_keeps_the_pool(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with DecodePool(1, endless_or_not, ahead=2) as pool:
        outcomes = pool.imap([log])
        assert next(outcomes).value is not None
        outcomes.close()  # type: ignore[attr-defined]
        (outcome,) = pool.imap([[7]])
        assert outcome.value == 7
        made = log.stat().st_size
        time.sleep(0.5)
        assert log.stat().st_size == made
        assert pool._waiting == 0


@pytest.mark.slow
@pytest.mark.skipif(resident_bytes(os.getpid()) is None, reason="/proc")
def test_memory_is_watched_without_a_reader() -> None:
    """The limit holds for a worker that is ahead of its reader, too."""
    with DecodePool(1, greedy, ahead=1, memory=2**29) as pool:
        outcomes = pool.imap([2**24])
        assert next(outcomes).value == 0
        time.sleep(3.0)
        rest = list(outcomes)
    assert [outcome.value for outcome in rest] == [1, 2, 3, 4, None]
    assert rest[-1].error == "decoding took more than 0.5 GiB of memory"


@pytest.mark.slow
def test_an_unpicklable_value_ends_only_its_stream() -> None:
    with DecodePool(1, stream) as pool:
        outcomes = list(pool.imap([[1, partial(open, os.devnull), 3], [4]]))
    assert outcomes[0].value == 1
    assert [outcome.last for outcome in outcomes][-2:] == [True, True]
    assert outcomes[-2].error is not None
    assert outcomes[-2].error.startswith("TypeError: ")
    assert outcomes[-1].value == 4


def test_inline_streams_are_lazy_and_closed() -> None:
    ended = []

    def count(first: int) -> Any:
        try:
            number = first
            while True:
                yield number
                number += 1
        finally:
            ended.append(number)

    pool: DecodePool[int, int] = DecodePool(0, count)
    outcomes = pool.imap([5, 6])
    assert [next(outcomes).value for _ in range(3)] == [5, 6, 7]
    outcomes.close()  # type: ignore[attr-defined]
    assert ended == [8]  # one ahead, to know whether it is the last


@pytest.mark.slow
def test_arrays_arrive_unchanged() -> None:
    arrays = [np.arange(300_000, dtype=np.float32) * i for i in range(4)]
    with DecodePool(1, stream) as pool:
        outcomes = list(pool.imap([arrays]))
    for outcome, array in zip(outcomes, arrays, strict=True):
        np.testing.assert_array_equal(outcome.value, array)
