"""Mixtures of captions, against scoring the mixed captions themselves."""

from __future__ import annotations

import numpy as np
import pytest

from evacap_cli.metrics.mixture_scores import auroc, select_clips, share_following, sweep_points
from evacap_cli.metrics.suite import Settings, score_captions

REFERENCES = [
    ["a dog barks twice", "a dog is barking"],
    ["rain falls on a roof", "heavy rain on a tin roof"],
    ["an engine idles", "a car engine is running"],
    ["birds sing in a tree", "several birds chirping"],
    ["a man speaks", "a man is talking to a crowd"],
]
OWN = ["a dog barks", "rain on a roof", "an engine idles", "birds chirping in a tree", "a man is talking"]
OTHER = ["a car engine", "a dog barks on a roof", "rain falls", "a man sings", "several birds"]
CLIPS = [f"clip {i}" for i in range(5)]
QUICK = ("BLEU_1", "BLEU_4", "ROUGE_L", "CIDEr")
TOUCHED = np.array([True, False, True, False, False])


def values(captions: list[str], metrics: tuple[str, ...] = QUICK) -> dict[str, float | None]:
    return score_captions(CLIPS, captions, REFERENCES, Settings(metrics)).values


def test_a_mixture_scores_like_its_captions(no_java: None) -> None:
    both = score_captions(CLIPS * 2, OWN + OTHER, REFERENCES * 2, Settings(QUICK), sets=2)
    own, other = (select_clips(both, CLIPS, rows) for rows in (slice(0, 5), slice(5, 10)))
    assert own.values == pytest.approx(values(OWN), abs=1e-9)
    mixed = [b if hit else a for a, b, hit in zip(OWN, OTHER, TOUCHED, strict=True)]
    places = [(0.0, 0, [np.zeros(5, bool)]), (0.4, 0, [TOUCHED]), (1.0, 0, [np.ones(5, bool)])]
    none, some, every = sweep_points(own, [[other]], places)
    assert none.values == pytest.approx(own.values, abs=1e-9)
    assert some.values == pytest.approx(values(mixed), abs=1e-9)
    assert every.values == pytest.approx(values(OTHER), abs=1e-9)
    assert all(kept == 1 for kept in none.kept.values())
    for name in QUICK:
        assert every.kept[name] == pytest.approx(every.values[name] / none.values[name])
        low, high = some.intervals[name]
        assert low < some.values[name] < high


@pytest.mark.slow
def test_a_mixture_has_the_meteor_of_its_captions() -> None:
    """Which is no mean of clips. All captions in one run of its program, which takes seconds to start."""
    mixed = [b if hit else a for a, b, hit in zip(OWN, OTHER, TOUCHED, strict=True)]
    three = score_captions(CLIPS * 3, OWN + OTHER + mixed, REFERENCES * 3, Settings(("METEOR",)), sets=3)
    own, other, expected = (select_clips(three, CLIPS, slice(i, i + 5)) for i in (0, 5, 10))
    (some,) = sweep_points(own, [[other]], [(0.4, 0, [TOUCHED])])
    assert some.values == pytest.approx(expected.values, abs=1e-9)
    assert some.values["METEOR"] != pytest.approx(np.mean([own.values["METEOR"], other.values["METEOR"]]))
    low, high = some.intervals["METEOR"]
    assert low < some.values["METEOR"] < high


def test_seeds_are_averaged(no_java: None) -> None:
    both = score_captions(CLIPS * 2, OWN + OTHER, REFERENCES * 2, Settings(("ROUGE_L",)), sets=2)
    own, other = (select_clips(both, CLIPS, rows) for rows in (slice(0, 5), slice(5, 10)))
    (point,) = sweep_points(own, [[other], [own]], [(1.0, 0, [np.ones(5, bool)] * 2)])
    assert [seed["ROUGE_L"] for seed in point.by_seed] == [other.values["ROUGE_L"], own.values["ROUGE_L"]]
    assert point.values["ROUGE_L"] == pytest.approx(np.mean([other.values["ROUGE_L"], own.values["ROUGE_L"]]))


def test_nearer_is_a_fraction_of_the_captions(no_java: None) -> None:
    own = score_captions(CLIPS, OWN, REFERENCES, Settings(("ROUGE_L",)))
    other = score_captions(CLIPS, OTHER, REFERENCES, Settings(("ROUGE_L",)))
    assert share_following([own], [other])["ROUGE_L"] == 0
    assert share_following([own], [own])["ROUGE_L"] == 0.5


def test_auroc_counts_pairs() -> None:
    assert auroc(np.array([3.0, 2.0]), np.array([1.0, 0.0])) == 1
    assert auroc(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.5
    assert auroc(np.array([0.0, np.nan]), np.array([1.0, np.nan, 2.0])) == 0
    assert np.isnan(auroc(np.array([np.nan]), np.array([1.0])))
