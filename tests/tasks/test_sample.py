"""Clips of the drawn world as features, of the kinds that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from evacap_cli.features import FeatureSettings
from evacap_cli.tasks.sample import Scene, make_sample, world_of

SETTINGS = FeatureSettings(frames=2, fps=0.2, image_size=32)
KINDS = ("matched", "off-screen", "dubbed", "distractor")


@pytest.mark.parametrize("kind", range(4))
def test_a_world_of_one_kind(kind: int) -> None:
    weights = tuple(float(place == kind) for place in range(4))
    made = make_sample(Scene(3, seed=5), SETTINGS, kinds=weights)  # type: ignore[arg-type]
    assert made.extra["kind"] == KINDS[kind]
    assert {world_of(5, kinds=weights).script(i).kind for i in range(8)} == {KINDS[kind]}  # type: ignore[arg-type]


def test_without_a_wish_the_world_is_as_it_was() -> None:
    plain, again = (
        make_sample(Scene(0, seed=5), SETTINGS),
        make_sample(Scene(0, seed=5), SETTINGS, kinds=None),
    )
    assert np.array_equal(plain.frames, again.frames)
    assert len({world_of(5).script(i).kind for i in range(40)}) > 1
