"""Random choices that are identical on all machines and Python versions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class RandomSource:
    """Random choices based only on `random.Random(text).random()`.

    Python guarantees stable results across versions only for seeding by text (SHA-512) and `random()`, not for
    `choice`, `shuffle` and `sample`.
    """

    def __init__(self, *seed: object) -> None:
        self._random = random.Random("/".join(str(part) for part in seed)).random

    def unit(self) -> float:
        """A float in [0, 1)."""
        return self._random()

    def between(self, low: float, high: float) -> float:
        """A float in [low, high), rounded to 3 decimals, so that JSON preserves it."""
        return round(low + (high - low) * self._random(), 3)

    def whole(self, low: int, high: int) -> int:
        """An int in [low, high], inclusive."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self._random() * len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        left = self._random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A new list in random order (Fisher-Yates)."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = int(self._random() * (i + 1))
            out[i], out[j] = out[j], out[i]
        return out
