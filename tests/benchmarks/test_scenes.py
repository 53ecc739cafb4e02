"""Clips of the drawn world as features, of the kinds that were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from evacap_cli.features import FeatureSettings
from tests.benchmarks.scripts import scripts_of

SETTINGS = FeatureSettings(frames=2, fps=0.2, image_size=32)
KINDS = ("matched", "off-screen", "dubbed", "distractor")


@pytest.fixture
def scenes() -> Iterator[Any]:
    with scripts_of("mismatch") as script:
        yield script("scenes")


@pytest.mark.parametrize("kind", range(4))
def test_a_world_of_one_kind(scenes: Any, kind: int) -> None:
    weights = tuple(float(place == kind) for place in range(4))
    made = scenes.make_sample(scenes.Scene(3, seed=5), SETTINGS, kinds=weights)
    assert made.extra["kind"] == KINDS[kind]
    assert {scenes.world_of(5, kinds=weights).script(i).kind for i in range(8)} == {KINDS[kind]}


def test_by_default_the_world_is_unchanged(scenes: Any) -> None:
    plain, again = (
        scenes.make_sample(scenes.Scene(0, seed=5), SETTINGS, kinds=kinds) for kinds in (None, None)
    )
    assert np.array_equal(plain.frames, again.frames)
    assert len({scenes.world_of(5).script(i).kind for i in range(40)}) > 1
