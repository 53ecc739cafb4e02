"""`python -m tests.cli.waiting_training ARGS`: `evacap ARGS` that waits after step 3 of a training until it is
interrupted, for tests that send the signal."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from itertools import count

from evacap_cli.__main__ import main
from evacap_cli.tasks.training.loop import _Run

STEPS = 3


def waiting(train: Callable[..., object]) -> Callable[..., object]:
    @wraps(train)
    def waits(run: _Run, progress: Callable[[object], None], stop: Callable[[], bool]) -> object:
        steps, deadline = count(1), time.monotonic() + 200

        def stops() -> bool:
            if next(steps) == STEPS:
                while not stop() and time.monotonic() < deadline:
                    time.sleep(0.01)
            return stop()

        return train(run, progress, stops)

    return waits


if __name__ == "__main__":
    _Run.train = waiting(_Run.train)  # type: ignore[method-assign, assignment]
    main()
