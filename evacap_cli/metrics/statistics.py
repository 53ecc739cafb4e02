"""Sufficient statistics of metrics for resampling: per-clip rows and the function from their sum to a corpus value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """A metric whose corpus value depends only on sums over the clips.

    rows: (N, K), one row per clip; value: maps (R, K) sums of R samples of N clips to (R,) corpus values.
    """

    rows: Array
    value: Callable[[Array], Array]


def mean_of(per_clip: Array) -> Statistic:
    """The statistic of a metric that is the mean of its per-clip values. per_clip: (N,)."""
    count = len(per_clip)
    return Statistic(per_clip[:, None], lambda sums: sums[:, 0] / count)


@dataclass
class Measured:
    """The results of one scorer by metric name: a corpus value and a value per clip."""

    corpus: dict[str, float] = field(default_factory=dict)
    per_clip: dict[str, Array] = field(default_factory=dict)  # (N,) each
    statistics: dict[str, Statistic] = field(default_factory=dict)

    def add(self, name: str, corpus: float, per_clip: Array, statistic: Statistic | None = None) -> None:
        """Adds a metric. Without `statistic`, its corpus value is the mean over clips."""
        self.corpus[name], self.per_clip[name] = float(corpus), per_clip
        self.statistics[name] = statistic or mean_of(per_clip)
