"""Which clips get another's picture when a test set is shuffled, so that a sweep can be repeated exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evacap_cli.errors import UsageError


def donor_cycle(clips: int) -> np.ndarray:
    """All clips in one random order, int64 (N,), the same for as many clips; the first follows the last."""
    return np.random.default_rng(clips).permutation(clips)


@dataclass(frozen=True)
class Pairing:
    """A donor for every clip, and the order in which clips are shuffled as the probability grows.

    donor: int64 (N,), never the clip itself and each clip once: the one that stands `seed` + 1 places on in the circle
    of all clips, as likely any as another. Seeds thus give every clip other donors, and whoever walks round the circle
    meets those of several seeds soon after one another. order: int64 (N,), a permutation.
    """

    seed: int
    donor: np.ndarray
    order: np.ndarray

    @classmethod
    def draw(cls, clips: int, seed: int) -> Pairing:
        """UsageError for fewer than two clips, and for a seed that they are too few for."""
        if clips < 2:
            raise UsageError(f"{clips} clip cannot be given another's picture", "give at least two clips")
        if not 0 <= seed < clips - 1:
            raise UsageError(
                f"seed {seed}: {clips} clips have the seeds 0 to {clips - 2}", "give another, or more clips"
            )
        walk, donor = donor_cycle(clips), np.empty(clips, np.int64)
        donor[walk] = np.roll(walk, -(seed + 1))
        return cls(seed, donor, np.random.default_rng([seed, clips]).permutation(clips))

    def __len__(self) -> int:
        return len(self.donor)

    @property
    def stride(self) -> int:
        """How many places after a clip its donor stands in the circle."""
        return self.seed + 1

    def touched(self, share: float) -> np.ndarray:
        """bool (N,): the clips that are shuffled when a `share` of them is; those of a smaller share among them."""
        touched = np.zeros(len(self), bool)
        touched[self.order[: round(share * len(self))]] = True
        return touched
