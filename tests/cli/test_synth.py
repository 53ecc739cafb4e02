"""Writing clips of the world: files, manifest, reruns, errors."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import av
import pytest
from typer.testing import CliRunner

from evacap_cli.cli.app import app
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.synthesis import manifest_lines, synthesize
from evacap_cli.world import ClipScript, World, render_frame


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "a new folder"
    seen: list[tuple[int, int]] = []
    summary = synthesize(out, 2, 5, progress=lambda done, total: seen.append((done, total)))
    assert summary["written"] == 2
    assert summary["clips"] == 2
    assert seen == [(0, 2), (1, 2), (2, 2)]
    return out


@pytest.mark.slow
def test_files(made: Path) -> None:
    assert sorted(p.name for p in made.iterdir()) == [
        "captions.csv",
        "manifest.jsonl",
        "synth.json",
        "videos",
    ]
    with open(made / "captions.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    world = World(5)
    assert [r["video"] for r in rows] == ["videos/clip-00000.mp4", "videos/clip-00001.mp4"]
    for i, row in enumerate(rows):
        assert tuple(row[f"caption_{k}"] for k in range(1, 6)) == world.script(i).captions
        assert (made / row["video"]).stat().st_size < 500_000


@pytest.mark.slow
def test_the_manifest_matches_the_files(made: Path) -> None:
    lines = (made / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    world = World(5)
    for i, line in enumerate(lines):
        data = json.loads(line)
        assert list(data) == sorted(data)
        assert data.pop("video") == f"videos/clip-{i:05d}.mp4"
        assert ClipScript.from_dict(data) == world.script(i)


def test_manifest_bytes_are_pinned() -> None:
    """A change here changes every shared seed: raise tasks.synthesis.FORMAT with it."""
    text = manifest_lines([World(1).script(i) for i in range(50)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PINNED


PINNED = "a27628a05fff25af"


@pytest.mark.slow
def test_video_is_h264_and_aac_and_shows_the_script(made: Path) -> None:
    script = World(5).script(0)
    with av.open(str(made / "videos" / "clip-00000.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (video.width, video.height, float(video.average_rate or 0)) == (320, 240, 10.0)
        assert (audio.codec_context.name, audio.codec_context.sample_rate) == ("aac", 16_000)
        assert audio.codec_context.layout.name == "mono"
        assert float(container.duration or 0) / 1e6 == pytest.approx(10.0, abs=0.15)
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 100
    wanted = render_frame(script, 3.0)
    assert abs(frames[30].astype(int) - wanted).mean() < 6


@pytest.mark.slow
def test_rerun_keeps_clips_and_extends(made: Path) -> None:
    before = (made / "videos" / "clip-00000.mp4").stat().st_mtime_ns
    manifest = (made / "manifest.jsonl").read_bytes()
    summary = synthesize(made, 2, 5, captions=5)
    assert (summary["written"], summary["kept"]) == (0, 2)
    assert (made / "videos" / "clip-00000.mp4").stat().st_mtime_ns == before
    assert (made / "manifest.jsonl").read_bytes() == manifest


def test_other_options_are_refused_unless_overwritten(tmp_path: Path, made: Path) -> None:
    with pytest.raises(EvacapError, match="seed: 5 there, 6 requested"):
        synthesize(made, 2, 6)
    (tmp_path / "captions.csv").write_text("mine")
    with pytest.raises(EvacapError, match=r"captions\.csv"):
        synthesize(tmp_path, 1, 1)
    assert (tmp_path / "captions.csv").read_text() == "mine"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "clip-00009.mp4").write_text("old")
    (tmp_path / "videos" / "holiday.mp4").write_text("mine")
    assert synthesize(tmp_path, 1, 1, captions=1, overwrite=True)["written"] == 1
    assert sorted(p.name for p in (tmp_path / "videos").iterdir()) == ["clip-00000.mp4", "holiday.mp4"]
    assert (tmp_path / "captions.csv").read_text(encoding="utf-8").startswith("video,caption_1\n")


@pytest.mark.slow
def test_workers_give_the_same_files(tmp_path: Path) -> None:
    synthesize(tmp_path / "one", 2, 9)
    synthesize(tmp_path / "two", 2, 9, workers=2)
    for name in ("manifest.jsonl", "captions.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for name in ("videos/clip-00000.mp4", "videos/clip-00001.mp4"):  # encoders may differ in a byte
        sizes = [(tmp_path / folder / name).stat().st_size for folder in ("one", "two")]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_wrong_arguments_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--clips: 0.*--captions: 6.*--workers: 0"):
        synthesize(tmp_path / "x", 0, 1, captions=6, workers=0)
    with pytest.raises(UsageError, match=r"recordings: .*nowhere"):
        synthesize(tmp_path / "x", 1, 1, recordings=tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        synthesize(tmp_path / "file", 1, 1)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    run = CliRunner().invoke(
        app, ["synth", "-o", str(tmp_path / "w"), "--clips", "1", "--seed", "3", "--json"]
    )
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["written"] == 1
    assert "1 clips" in run.stderr
    again = CliRunner().invoke(app, ["synth", "-o", str(tmp_path / "w"), "--clips", "1", "--seed", "4"])
    assert again.exit_code == 1
    assert "seed: 3 there, 4 requested" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--clips", "0"], "--clips: 0"),
        (["--recordings", "nowhere"], "recordings: nowhere"),
        (["--recordings", ".", "--folds", "one"], "--folds one: not a list"),
        (["--folds", "1"], "--recordings"),
        (["--matched", "-1"], "kinds"),
    ],
)
def test_command_names_wrong_arguments(tmp_path: Path, arguments: list[str], named: str) -> None:
    run = CliRunner().invoke(app, ["synth", "-o", str(tmp_path / "w"), *arguments])
    assert run.exit_code == 2
    assert named in run.stderr
    assert not (tmp_path / "w").exists()
