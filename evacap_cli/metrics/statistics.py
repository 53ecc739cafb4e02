"""What a metric leaves behind for resampling: sums over clips, and how a corpus value comes from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Statistic:
    """A metric whose corpus value depends on sums over the clips only.

    rows: (N, K), what each clip adds; value: (R, K) sums of R draws of N clips -> (R,) corpus values.
    """

    rows: Array
    value: Callable[[Array], Array]


def mean_of(per_clip: Array) -> Statistic:
    """A metric that is the mean of its clips' values. per_clip: (N,)."""
    count = len(per_clip)
    return Statistic(per_clip[:, None], lambda sums: sums[:, 0] / count)


@dataclass
class Measured:
    """What one scorer found: values by metric's name, one for the corpus and one for each clip."""

    corpus: dict[str, float] = field(default_factory=dict)
    per_clip: dict[str, Array] = field(default_factory=dict)  # (N,) each
    statistics: dict[str, Statistic] = field(default_factory=dict)

    def add(self, name: str, corpus: float, per_clip: Array, statistic: Statistic | None = None) -> None:
        """Adds a metric; without a statistic it is the mean over clips."""
        self.corpus[name], self.per_clip[name] = float(corpus), per_clip
        self.statistics[name] = statistic or mean_of(per_clip)
