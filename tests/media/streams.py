"""Streams for worker processes. Items are lists of steps, so that only these functions are pickled."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def stream(steps: Sequence[Any]) -> Iterator[Any]:
    """Every step, or what it returns if it is a call."""
    time.sleep(0.2)  # as a decoder takes: a worker that dies before it was heard from breaks the whole pool
    for step in steps:
        yield step() if callable(step) else step


def careful(steps: Sequence[Any]) -> Iterator[Any]:
    """The steps that are no calls, each marked."""
    for step in steps:
        if not callable(step):
            yield "careful", step


def endless(log: Path) -> Iterator[np.ndarray]:
    """Numbers, each in an array of a megabyte, and a byte in the file `log` for each that was made."""
    number = 0
    while True:
        with log.open("ab") as file:
            file.write(b".")
        yield np.full(2**17, number, np.float64)
        number += 1


def endless_or_not(item: Any) -> Iterator[Any]:
    return endless(item) if isinstance(item, Path) else stream(item)


def greedy(size: int) -> Iterator[int]:
    """A few values, and then more and more memory, but not without end."""
    yield from range(5)
    held = []
    for _ in range(100):
        held.append(np.ones(size, np.uint8))
        time.sleep(0.01)
    os._exit(9)
