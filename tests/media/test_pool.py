"""Workers that die and hang for real. Items are calls, so that only the standard library is pickled for
them.
"""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import DecodePool


def call(item):
    """After a moment, as a decoder takes: a worker that dies before it was heard from breaks the whole pool."""
    time.sleep(0.2)
    return item()


good = partial(divmod, 7, 2)


def raise_media_error() -> None:
    raise MediaError("no audio track", "add one")


@pytest.mark.slow
def test_results_come_in_order() -> None:
    items = [partial(time.sleep, 0.3), *(partial(divmod, i, 2) for i in range(10))]
    with DecodePool(2, call, ahead=4) as pool:
        outcomes = list(pool.imap(items))
    assert [outcome.item for outcome in outcomes] == items
    assert [outcome.value for outcome in outcomes] == [None, *(divmod(i, 2) for i in range(10))]
    assert all(outcome.error is None for outcome in outcomes)


@pytest.mark.slow
def test_a_worker_that_dies_or_hangs_fails_only_its_item() -> None:
    items = [
        good,
        partial(os._exit, 3),
        good,
        partial(signal.raise_signal, signal.SIGKILL),
        good,
        partial(time.sleep, 60),
        good,
        partial(divmod, 1, 0),
        good,
    ]
    with DecodePool(2, call, timeout=1.5) as pool:
        outcomes = list(pool.imap(items))
        again = list(pool.imap([good]))
    assert [outcome.value for outcome in outcomes[::2]] == [(3, 1)] * 5
    assert [outcome.error for outcome in outcomes[1::2]] == [
        "decoding ended its process (exit code 3)",
        "decoding ended its process (SIGKILL)",
        "decoding took more than 1.5 s",
        outcomes[7].error,
    ]
    assert outcomes[7].error is not None
    assert outcomes[7].error.startswith("ZeroDivisionError: ")
    assert again[0].value == (3, 1)


@pytest.mark.slow
def test_the_rescue_gets_items_that_killed_a_worker() -> None:
    rescue = operator.attrgetter("args")
    with DecodePool(1, call, rescue=rescue) as pool:
        died, fine, failed = pool.imap([partial(os._exit, 5), good, partial(divmod, 1, 0)])
    assert (died.value, died.error) == ((5,), None)
    assert fine.value == (3, 1)
    assert failed.error is not None  # an error that was reported is not tried again


@pytest.mark.slow
def test_a_rescue_that_also_dies() -> None:
    with DecodePool(1, call, rescue=call) as pool:
        (outcome,) = pool.imap([partial(os._exit, 5)])
    assert outcome.error is not None
    assert outcome.error.count("exit code 5") == 2


@pytest.mark.slow
def test_the_lookahead_is_bounded() -> None:
    taken = 0

    def items() -> Iterator[partial]:
        nonlocal taken
        for _ in range(15):
            taken += 1
            yield good

    with DecodePool(1, call, ahead=5) as pool:
        for done, _ in enumerate(pool.imap(items()), start=1):
            assert taken <= done + 5
    assert taken == 15


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_large_results_and_programming_errors(workers: int) -> None:
    items = [partial(np.full, (300, 1000), 2.0)]
    with DecodePool(workers, call) as pool:
        (outcome,) = pool.imap(items)
    assert outcome.value is not None
    assert outcome.value.shape == (300, 1000)


def test_workers_do_not_print(capfd: pytest.CaptureFixture[str]) -> None:
    with DecodePool(1, call) as pool:
        (outcome,) = pool.imap([partial(os.write, 2, b"noise")])
    assert outcome.value == 5
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_workers_that_fail_to_start(tmp_path: Path) -> None:
    """A script without its guard would start itself in every worker."""
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from evacap_cli.media import DecodePool\n"
        "with DecodePool(1, math.sqrt) as pool:\n"
        "    list(pool.imap([1, 4]))\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    ended = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("the decoding workers do not start")


def test_inline() -> None:
    items = [good, raise_media_error, partial(divmod, 1, 0)]
    with DecodePool(0, call) as pool:
        outcomes = list(pool.imap(items))
    assert outcomes[0].value == (3, 1)
    assert outcomes[1].error == "no audio track"
    assert outcomes[2].error is not None
    assert outcomes[2].error.startswith("ZeroDivisionError: ")


def test_inline_takes_items_one_at_a_time() -> None:
    endless = iter(lambda: good, None)
    with DecodePool(0, call) as pool:
        outcomes = pool.imap(endless)
        assert [next(outcomes).value for _ in range(3)] == [(3, 1)] * 3


@pytest.mark.slow
def test_leaving_early_does_not_wait() -> None:
    began = time.monotonic()
    with DecodePool(2, call) as pool:
        outcomes = pool.imap([good, partial(time.sleep, 300), partial(time.sleep, 300)])
        assert next(outcomes).value == (3, 1)
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_an_unpicklable_result_fails_only_its_item() -> None:
    unpicklable = partial(getattr, signal, "getsignal")  # gives a function; modules cannot be pickled
    with DecodePool(1, call) as pool:
        first, second = pool.imap([unpicklable, good])
    assert first.error is not None
    assert second.value == (3, 1)
