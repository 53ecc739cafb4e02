from __future__ import annotations

import numpy as np
import pytest

from evacap_cli.metrics.bootstrap import _draw, compare, intervals
from evacap_cli.metrics.ngrams import bleu
from evacap_cli.metrics.statistics import mean_of

WORDS = ["a", "dog", "cat", "man", "rain", "bell", "barks", "rings", "talks", "loudly", "near", "far"]


def captions(seed: int, count: int) -> tuple[list[str], list[list[str]]]:
    random = np.random.default_rng(seed)
    lines = [" ".join(random.choice(WORDS, size=random.integers(0, 8))) for _ in range(count * 4)]
    return lines[:count], [lines[count + 3 * i : count + 3 * i + 3] for i in range(count)]


def test_each_draw_is_bleu_of_its_clips() -> None:
    """Against scoring the drawn clips from the start, one by one."""
    candidates, references = captions(0, 30)
    statistics = bleu(candidates, references).statistics
    (drawn,) = _draw([statistics], draws=20, seed=3)
    random = np.random.default_rng(3)
    clips = random.integers(30, size=(20, 30))
    for i, chosen in enumerate(clips):
        whole = bleu([candidates[c] for c in chosen], [references[c] for c in chosen]).corpus
        for name, value in whole.items():
            assert drawn[name][i] == pytest.approx(value, abs=1e-12), name


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = {"mean": mean_of(np.arange(50.0))}
    (whole,) = _draw([statistics], 30, 0)
    monkeypatch.setattr("evacap_cli.metrics.bootstrap._BLOCK", 120)
    (parts,) = _draw([statistics], 30, 0)
    assert np.array_equal(whole["mean"], parts["mean"])


def test_the_interval_of_a_mean_has_the_theoretical_width() -> None:
    values = np.random.default_rng(0).normal(2, 1, size=400)
    low, high = intervals({"mean": mean_of(values)}, draws=4000)["mean"]
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_results_depend_only_on_the_seed() -> None:
    statistics = {"mean": mean_of(np.random.default_rng(0).normal(size=50))}
    assert intervals(statistics, seed=1) == intervals(statistics, seed=1) != intervals(statistics, seed=2)


def test_paired_differences_are_more_sensitive_than_intervals() -> None:
    """Clips differ much more than systems do: only the same clips for both show that one is better."""
    random = np.random.default_rng(0)
    hard = random.normal(0, 5, size=200)
    one, other = mean_of(hard + 0.2), mean_of(hard + random.normal(0, 0.3, size=200))
    found = compare({"m": one, "only here": one}, {"m": other})
    assert list(found) == ["m"]
    assert found["m"].p <= 2 / 1001 + 1e-12
    assert found["m"].low > 0
    assert found["m"].value == pytest.approx((one.rows - other.rows).mean())
    apart = intervals({"m": one})["m"]
    assert apart[0] < other.rows.mean() < apart[1]


def test_equal_systems_do_not_differ() -> None:
    one = {"m": mean_of(np.arange(20.0))}
    found = compare(one, one)["m"]
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    back = compare({"m": mean_of(np.arange(20.0))}, {"m": mean_of(np.arange(20.0) + 1)})["m"]
    assert back.value == pytest.approx(-1)
    assert back.p <= 2 / 1001 + 1e-12


def test_p_values_are_uniform_without_a_difference() -> None:
    random = np.random.default_rng(0)
    p = [
        compare({"m": mean_of(random.normal(size=100))}, {"m": mean_of(random.normal(size=100))}, 200)["m"].p
        for _ in range(300)
    ]
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.11


def test_other_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers of clips"):
        compare({"m": mean_of(np.zeros(3))}, {"m": mean_of(np.zeros(4))})
