"""What is kept of a clip's gate over time, with a small model and real files."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evacap_cli import Captioner
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.report import gate_figure
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs import gate_curves as module
from evacap_cli.tasks.captioning.outputs.gate_curves import GateCurves, check_gate
from evacap_cli.tasks.captioning.outputs.results import CaptionResult, mean_over_frequency, word_means
from evacap_cli.tasks.captioning.outputs.rows import Row
from evacap_cli.tasks.clips import Clip
from evacap_cli.tasks.mismatch import probability
from evacap_cli.tasks.reporting.curves import CurveFiles
from tests.conftest import Evacap, save_tiny
from tests.media.clips import write

Described = tuple[Source, Clip, Row, CaptionResult]


@pytest.fixture(scope="module")
def demo(tiny: Path) -> Captioner:
    """Thirty-two columns of sound, a gate, and random weights."""
    return Captioner.load(tiny, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write(folder / "film.mp4", 4.0)
    write(folder / "film.wav", 2.0, video=None, audio="pcm_s16le")
    return folder


def described(captioner: Captioner, inputs: list[Path], **options: Any) -> list[Described]:
    calls: list[Described] = []
    list(captioner.rows(find_sources(inputs), CaptionOptions(workers=0, **options),
                        on_clip=lambda *args: calls.append(args)))  # fmt: skip
    return calls


def test_the_mean_over_frequency_of_the_columns_within_the_clip() -> None:
    rows, columns = 4, 32
    tokens = np.random.default_rng(0).random((3, rows * columns)).astype(np.float32)
    for seconds, within in (
        (10.24, 32),
        (10.0, 32),
        (9.6, 30),
        (9.61, 31),
        (3.0, 10),
        (0.32, 1),
        (0.05, 1),
        (60, 32),
    ):
        found = mean_over_frequency(tokens, (rows, columns), 1024, seconds)
        assert found.shape == (3, within)
        for clip in range(3):
            for column in range(within):
                slow = np.mean([tokens[clip, row * columns + column] for row in range(rows)])
                assert found[clip, column] == pytest.approx(slow, abs=1e-6)
    assert mean_over_frequency(tokens, (rows, columns), 1024, 3 * 0.32).shape == (
        3,
        3,
    )  # 0.96 / 0.32 is a little over 3
    assert mean_over_frequency(tokens, (rows, columns), 1024, 0.1 * 3.2 * 7).shape == (3, 7)


def test_columns_follow_the_spectrogram(demo: Captioner) -> None:
    """A change of the sound's last half second changes the last columns most."""
    generator = torch.Generator().manual_seed(0)
    fbank = torch.randn(1, 1024, 128, generator=generator)
    pixels = torch.randn(1, 4, 3, 96, 96, generator=generator)
    tower = demo.checkpoint.model.encoder.audio_tower
    rows, columns = demo.checkpoint.model.config.encoder.audio_grid
    changed = fbank.clone()
    changed[:, 960:] = 3.0
    with torch.inference_mode():
        difference = (tower(changed) - tower(fbank)).abs().mean(dim=2)
        out = demo.checkpoint.model.generate(fbank, pixels, beam=1, max_words=2)
    assert out.gates is not None
    moved = mean_over_frequency(difference.numpy(), (rows, columns), 1024, 10.24)[0]
    assert moved.argmax() >= 30
    curve = mean_over_frequency(out.gates.numpy(), (rows, columns), 1024, 10.24)
    assert curve.mean() == pytest.approx(float(out.gate[0]), abs=1e-6)


@pytest.mark.slow
def test_every_clip_has_values_and_a_plot(demo: Captioner, films: Path, tmp_path: Path) -> None:
    curves = GateCurves(tmp_path / "curves", demo.checkpoint)
    calls = described(demo, [films])
    for each in calls:
        curves.add(*each)
    assert sorted(path.name for path in (tmp_path / "curves").iterdir()) == [
        "film.mp4.npz", "film.mp4.png", "film.wav.npz", "film.wav.png",
    ]  # fmt: skip
    source, _, row, words = calls[0]
    with np.load(tmp_path / "curves" / "film.mp4.npz") as kept:  # nothing in it is a pickle
        assert set(kept) == {"times", "gate", "entropy", "caption", "video", "start", "end"}
        assert kept["caption"] == words.caption == row.caption
        assert kept["video"] == row.video == str(source.name)
        assert (kept["start"], kept["end"]) == (0, pytest.approx(4.0, abs=0.1))
        columns = int(np.ceil(float(kept["end"]) / 0.32))
        assert kept["times"] == pytest.approx((np.arange(columns) + 0.5) * 0.32)
        assert np.array_equal(kept["gate"], words.gate_curve)
        assert np.array_equal(kept["entropy"], words.entropy_curve)
        assert 0 < kept["gate"].min() <= kept["gate"].max() < 1
        assert kept["gate"].dtype == np.float32
    with np.load(tmp_path / "curves" / "film.wav.npz") as heard:
        assert np.array_equal(heard["gate"], np.zeros(7))
        assert np.isnan(heard["entropy"]).all()
        assert len(heard["times"]) == len(heard["entropy"]) == 7
    with Image.open(tmp_path / "curves" / "film.mp4.png") as picture:
        assert picture.size == (800, 430)


@pytest.mark.slow
def test_a_segment_has_the_times_of_its_file(demo: Captioner, films: Path, tmp_path: Path) -> None:
    curves = GateCurves(tmp_path, demo.checkpoint, segmented=True)
    for each in described(demo, [films / "film.mp4"], segment=1.5):
        curves.add(*each)
    names = sorted(path.name for path in tmp_path.glob("*.npz"))
    assert names[:2] == ["film.mp4.0-1.5.npz", "film.mp4.1.5-3.npz"]
    with np.load(tmp_path / names[1]) as kept:
        assert kept["start"] == 1.5
        assert kept["times"] == pytest.approx(1.5 + (np.arange(5) + 0.5) * 0.32)
    assert len(list(tmp_path.glob("*.png"))) == len(names)


def test_the_picture_shows_the_clip_at_its_times(
    demo: Captioner, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = []
    monkeypatch.setattr(
        gate_figure, "draw_gates", lambda view, path: (views.append(view), path.write_bytes(b"x"))
    )
    curves = GateCurves(tmp_path, demo.checkpoint, segmented=True)
    calls = described(demo, [films / "film.mp4"], segment=2.0)
    for each in calls:
        curves.add(*each)
    assert views[1].frame_times == pytest.approx([2.25, 2.75, 3.25, 3.75])
    assert views[1].title == calls[1][3].caption
    assert views[1].name.endswith("film.mp4, 2-4 s")
    assert views[1].fbank is calls[1][1].fbank
    assert views[1].times[0] == pytest.approx(2.16)


@pytest.fixture(scope="module")
def one(demo: Captioner, films: Path) -> Described:
    (only,) = described(demo, [films / "film.wav"])
    return only


NAMES = {
    "a/b/c.mp4": "a/b/c.mp4",
    "../../etc/passwd": "etc/passwd",
    "/etc/passwd": "etc/passwd",
    "a/../../b.mp4": "a/b.mp4",
    "..": "input",
    "./x.mp4": "x.mp4",
    "a\0b.mp4": "ab.mp4",
    "犬 $x$ %n\n\x1b[2J.mp4": "犬 $x$ %n\n\x1b[2J.mp4",
    "\udce9.mp4": "\udce9.mp4",
    "half \ud800.mp4": "half \\ud800.mp4",
    "-rf": "-rf",
    "x" * 200 + ".mp4": "x" * 200 + ".mp4",
}


@pytest.mark.slow
@pytest.mark.parametrize("relative", NAMES)
def test_names_cannot_leave_the_folder(
    relative: str, demo: Captioner, one: Described, tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "curves"
    curves = GateCurves(folder, demo.checkpoint)
    source = replace(one[0], relative=relative, name=relative, path=relative)
    curves.add(source, *one[1:])
    for suffix in (".npz", ".png"):
        assert (folder / (NAMES[relative] + suffix)).stat().st_size > 1000
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) == 2
    assert all(folder in path.resolve().parents for path in found)


def test_without_a_relative_path_the_file_name_is_used(
    demo: Captioner, one: Described, tmp_path: Path
) -> None:
    curves = GateCurves(tmp_path, demo.checkpoint)
    source = replace(one[0], relative="", path="/somewhere/x.mp4")
    assert curves.base_path(source, one[1]) == tmp_path / "x.mp4"


@pytest.mark.slow
def test_models_without_a_gate_are_refused_first(
    tiny_tubelets: Path, tiny_audio: Path, tmp_path: Path
) -> None:
    for model in (tiny_tubelets, tiny_audio):
        checkpoint = Captioner.load(model, device="cpu").checkpoint
        with pytest.raises(UsageError, match=f"{model.name} has no gate"):
            check_gate(checkpoint)
        with pytest.raises(UsageError, match="no gate"):
            GateCurves(tmp_path / "curves", checkpoint)
    assert not (tmp_path / "curves").exists()


def test_failed_plot_does_not_stop_the_run(
    demo: Captioner, one: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("in the picture")

    monkeypatch.setattr(gate_figure, "draw_gates", fails)
    calls: list[str] = []
    GateCurves(tmp_path, demo.checkpoint, log=calls.append).add(*one)
    assert [path.name for path in tmp_path.iterdir()] == ["film.wav.npz"]
    assert len(calls) == 1
    assert "film.wav" in calls[0]
    assert "ZeroDivisionError: in the picture" in calls[0]


def test_a_write_error_leaves_no_partial_file(
    demo: Captioner, one: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, values: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_save", full)
    with pytest.raises(EvacapError, match=r"film\.wav.*No space left"):
        GateCurves(tmp_path, demo.checkpoint).add(*one)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.undo()
    with pytest.raises(EvacapError, match="cannot be written"):
        GateCurves(tmp_path / "file", demo.checkpoint).add(*one)


def test_pieces_of_a_word_share_one_value() -> None:
    pieces, values = ["a", "dog", "bark", "##ing", "##s"], [0.1, 0.2, 0.3, 0.6, 0.9, float("nan")]
    assert word_means(pieces, values) == (("a", 0.1), ("dog", 0.2), ("barkings", pytest.approx(0.6)))
    assert word_means(["##s"], [0.5]) == (("##s", 0.5),)
    assert word_means([], values) == ()


@pytest.mark.slow
def test_confidences_of_words_are_saved_and_drawn(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = Captioner.load(save_tiny(tmp_path, "vact-tiny"), device="cpu", precision="fp32")
    views = []
    draw = gate_figure.draw_gates
    monkeypatch.setattr(gate_figure, "draw_gates", lambda view, path: (views.append(view), draw(view, path)))
    curves = GateCurves(tmp_path / "curves", captioner.checkpoint)
    calls = described(captioner, [films])
    for each in calls:
        curves.add(*each)
    _, clip, row, words = calls[0]
    checkpoint = captioner.checkpoint
    out = checkpoint.model.generate(
        torch.from_numpy(clip.fbank)[None],
        normalize_frames(torch.from_numpy(clip.frames)[None], FeatureSettings.from_dict(checkpoint.features)),
    )
    assert out.confidences is not None
    pieces = checkpoint.tokenizer.pieces(out.tokens[0].tolist())
    assert " ".join(pieces).replace(" ##", "") == " ".join(word for word, _ in words.confidences)
    assert words.confidences == word_means(pieces, out.confidences[0].tolist())
    values = [value for _, value in words.confidences]
    assert all(0 < value < 1 for value in values)
    assert row.gate == pytest.approx(float(out.gate[0]))
    with np.load(tmp_path / "curves" / "film.mp4.npz") as kept:
        assert list(kept["words"]) == [word for word, _ in words.confidences]
        assert kept["confidences"] == pytest.approx(values)
    with np.load(tmp_path / "curves" / "film.wav.npz") as heard:  # no picture, no confidence in it
        assert "words" not in heard
    assert [len(view.words) for view in views] == [len(values), 0]
    axes = next(a for a in gate_figure.gate_figure(views[0]).axes if a.get_label() == "gate")
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(values)
    shown, looked = CurveFiles(tmp_path / "curves"), {}
    for path in (tmp_path / "curves").glob("*.npz"):
        with np.load(path) as kept:
            looked[path.stem] = shown.read((str(kept["video"]), float(kept["start"]), float(kept["end"])))[1]
    assert looked["film.wav"] == ()
    assert looked["film.mp4"] == tuple(
        (word, pytest.approx(value, abs=0.006)) for word, value in words.confidences
    )


@pytest.mark.slow
def test_the_command_saves_curves_and_flags_mismatches(evacap: Evacap, films: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "out.csv", tmp_path / "curves"
    model = ("--model", "entropy-demo", "--device", "cpu", "--max-words", 3, "-q")
    command = ("caption", films, "-o", out, "--curves", kept, "--flag-mismatch", *model)
    result = evacap(*command, "--workers", 0, "--segment", 2)
    assert result.exit_code == 0, result.output
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {f"{Path(row['video']).name}.{float(row['start']):g}" for row in rows} == {
        "film.mp4.0", "film.mp4.2", "film.wav.0",
    }  # fmt: skip
    assert len(list(kept.glob("*.npz"))) == len(list(kept.glob("*.png"))) == len(rows)
    seen = [row for row in rows if row["status"] == "ok"]
    assert all(0.2 < float(row["mismatch"]) < 0.8 for row in seen)
    assert [row["mismatch"] for row in rows if row["status"] == "audio-only"] == [""]
    checkpoint = Captioner.load("entropy-demo", device="cpu").checkpoint
    for row in seen:
        likely = probability(checkpoint, float(row["gate"]), float(row["entropy"]))
        assert float(row["mismatch"]) == pytest.approx(likely, abs=1e-3)


@pytest.mark.slow
def test_the_command_refuses_a_model_without_a_gate(
    evacap: Evacap, films: Path, tiny_tubelets: Path, tmp_path: Path
) -> None:
    model = ("--model", tiny_tubelets, "--workers", 0, "--max-words", 2)
    for out in ((), ("-o", tmp_path / "out.csv")):
        result = evacap("caption", films, *out, "--curves", tmp_path / "curves", *model)
        assert result.exit_code == 2
        assert "avcap-tiny has no gate" in result.stderr
    assert not list(tmp_path.iterdir())
    result = evacap("caption", films, "--flag-mismatch", *model)
    assert result.exit_code == 0
    assert "mismatch" not in result.stdout
    assert "is not calibrated" in result.stderr
