"""Assigns each clip of a test set the picture of another one, reproducibly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evacap_cli.errors import UsageError


def donor_cycle(clips: int) -> np.ndarray:
    """Returns a cyclic random order of clips, int64 (N,), which depends only on their number."""
    return np.random.default_rng(clips).permutation(clips)


@dataclass(frozen=True)
class Pairing:
    """A donor for every clip, and the order in which clips are shuffled as the probability grows.

    donor: int64 (N,), the clip that follows `seed` + 1 positions later in `donor_cycle`, so never the clip itself, and
    each clip once. Every seed gives other donors, and the donors of several seeds are close together in the cycle.
    order: int64 (N,), a permutation.
    """

    seed: int
    donor: np.ndarray
    order: np.ndarray

    @classmethod
    def draw(cls, clips: int, seed: int) -> Pairing:
        """Draws a pairing. Raises UsageError for fewer than two clips, or if the seed is too large for them."""
        if clips < 2:
            raise UsageError(f"{clips} clip: pictures cannot be exchanged", "give at least two clips")
        if not 0 <= seed < clips - 1:
            raise UsageError(
                f"seed {seed}: {clips} clips allow the seeds 0 to {clips - 2}",
                "use another seed, or more clips",
            )
        cycle, donor = donor_cycle(clips), np.empty(clips, np.int64)
        donor[cycle] = np.roll(cycle, -(seed + 1))
        return cls(seed, donor, np.random.default_rng([seed, clips]).permutation(clips))

    def __len__(self) -> int:
        return len(self.donor)

    @property
    def stride(self) -> int:
        """The number of positions from a clip to its donor in the cycle."""
        return self.seed + 1

    def touched(self, share: float) -> np.ndarray:
        """Returns bool (N,), the clips that are shuffled at a `share`. They include those of any smaller share."""
        touched = np.zeros(len(self), bool)
        touched[self.order[: round(share * len(self))]] = True
        return touched
