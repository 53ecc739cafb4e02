"""`evacap speed`: what it times and what it writes, never how long it took."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from evacap_cli.model.attention import attention_path
from evacap_cli.report.latency import TimingRow
from evacap_cli.tasks.speed import _compare, _summarise

from ..conftest import Evacap
from ..media.clips import write
from ..media.kinds import with_tracks

QUICK = ("--words", 3, "--runs", 2, "--warmup", 0, "--beam", 2)


@pytest.mark.slow
def test_every_model_frames_and_decoding_has_a_row(evacap: Evacap, tmp_path: Path) -> None:
    models = ("--model", "evacap-tiny", "--model", "avcap-demo", "--model", "audio-tiny")
    args = ("speed", "--frames", "0,1,4", "--decoding", "cached,recompute", *models, *QUICK)
    result = evacap(*args, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [(row["model"], row["frames"], row["decoding"]) for row in rows] == [
        (model, frames, decoding)
        for model, counts in (("evacap-tiny", (0, 1, 4)), ("avcap-demo", (0, 1, 4)), ("audio-tiny", (0,)))
        for frames in counts
        for decoding in ("cached", "recompute")
    ]
    for row in rows:
        stages = ["encode audio", *(["encode video"] if row["frames"] else []), "fuse", "generate", "all"]
        assert list(row["seconds"]) == stages
        assert len(row["raw"]) == 2
        assert all(sum(run[s] for s in stages[:-1]) == pytest.approx(run["all"]) for run in row["raw"])
        assert row["to_audio_only"] > 0
    paper = {(row["model"], row["frames"]): row["paper"] for row in rows}
    assert paper["evacap-tiny", 1] == pytest.approx(2.369 / 2.351)
    assert paper["evacap-tiny", 4] is None
    assert rows[-2]["to_audio_only"] == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "speed.csv", "speed.json", "speed.md", "speed.png",
    ]  # fmt: skip
    saved = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert saved["environment"]["threads"] >= 1
    with (tmp_path / "out" / "speed.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_tubelets_follow_the_frame_count_of_the_checkpoint(evacap: Evacap, tmp_path: Path) -> None:
    result = evacap("speed", "--frames", "3", "--model", "avcap-base", *QUICK, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "tubelets take frames in pairs" in result.stdout
    assert "n/a" in result.stdout


@pytest.mark.slow
def test_real_files_are_decoded_too(evacap: Evacap, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.mp4")
    write(folder / "b.mp4", 1.0)
    (folder / "c.mp4").write_bytes(b"bad")
    result = evacap(
        "speed", "--end-to-end", folder, "--model", "demo", *QUICK, "-o", tmp_path / "out", "--json"
    )
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["rows"]
    assert len(row["raw"]) == 2
    assert row["seconds"]["decode"] > 0
    assert row["seconds"]["encode video"] > 0


@pytest.mark.slow
def test_the_track_of_files_can_be_chosen(evacap: Evacap, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with_tracks(folder / "a.mkv", (0.0, "eng", 0), (900.0, "ger", 0))
    args = (
        "speed",
        "--end-to-end",
        folder,
        "--model",
        "demo",
        *QUICK,
        "-o",
        tmp_path / "out",
        "--audio-track",
    )
    assert evacap(*args, "ger").exit_code == 0
    result = evacap(*args, "3")
    assert result.exit_code == 1
    assert "no audio track '3': there are 1 (eng, 2 channels), 2 (ger, 2 channels)" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--frames", "1,x"), "not a list of whole numbers"),
        (("--frames", "-1"), "numbers of 0 or more"),
        (("--decoding", "greedy"), "greedy: must be one of cached, recompute"),
        (("--audio-track", "2"), "--audio-track needs --end-to-end"),
        (("--audio-track", "0", "--end-to-end", "."), "--audio-track '0' must be a number, from 1 on"),
        (("--words", "0"), "--words 0: must be 1 or more"),
        (("--model", "nowhere"), "--model nowhere"),
        (("--end-to-end", "nowhere"), "no such file"),
    ],
)
def test_impossible_options_are_named(
    evacap: Evacap, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    result = evacap("speed", "--model", "demo", *QUICK, "-o", tmp_path / "out", *args)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def row(model: str, fusion: str, frames: int, *seconds: float) -> TimingRow:
    made = TimingRow(model, fusion, "", frames, "cached", raw=[{"generate": s, "all": s} for s in seconds])
    _summarise(made, 2)
    return made


def test_medians_spread_and_outliers() -> None:
    made = row("a", "gate", 1, 1.0, 1.1, 4.0)
    assert made.seconds == {"generate": 1.1, "all": 1.1}
    assert made.spread == pytest.approx(3 / 1.1)
    assert made.outliers == 1
    assert made.clips_per_second == pytest.approx(2 / 1.1)
    assert 1.1 < made.p95 <= 4


def test_audio_only_is_the_baseline() -> None:
    rows = [row("a", "gate", 0, 2.0), row("a", "gate", 4, 4.0), row("b", "audio-only", 0, 1.0)]
    _compare(rows)
    assert [each.to_audio_only for each in rows] == [2, 4, 1]
    _compare(rows[:2])
    assert [each.to_audio_only for each in rows[:2]] == [1, 2]


@pytest.mark.slow
def test_debug_names_the_attention_kernel(evacap: Evacap, tmp_path: Path) -> None:
    attention_path.cache_clear()
    args = (
        "speed",
        "--model",
        "evacap-tiny",
        "--frames",
        "1",
        "--threads",
        1,
        *QUICK,
        "-o",
        tmp_path / "out",
    )
    result = evacap(*args, "--device", "cpu", "--debug")
    assert result.exit_code == 0, result.output
    kernel = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert [line for line in result.stderr.splitlines() if line.startswith("debug:")] == [
        f"debug: attention with entropy on cpu, float32, head size 64: {kernel}"
    ]
    attention_path.cache_clear()
    assert "debug:" not in evacap(*args, "--device", "cpu").stderr
