"""The captioning engine from Python: order, batches, frames, long files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from evacap_cli import Captioner
from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.model import Generation
from evacap_cli.tasks.captioning.engine import CaptionOptions
from evacap_cli.tasks.captioning.outputs import Row
from evacap_cli.tasks.clips import ClipSettings, load_clip

from ...media.clips import picture, write


@pytest.fixture(scope="module")
def captioner(tiny: Path) -> Captioner:
    return Captioner.load(tiny, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good, silent and damaged files of several lengths, in turn."""
    where = tmp_path_factory.mktemp("clips")
    for i in range(9):
        path = where / f"{i}.mp4"
        if i % 3 == 1:
            path.write_bytes(b"damaged")
        else:
            write(path, 0.5 + 0.1 * i, audio=None if i == 6 else "aac")
    write(where / "9.wav", video=None, audio="pcm_s16le")
    return where


def test_one_file_gives_a_row(captioner: Captioner, clip: Path) -> None:
    row = captioner.caption(clip)
    assert isinstance(row, Row)
    assert (row.video, row.start, row.end, row.status, row.error) == (str(clip), 0.0, 2.0, "ok", "")
    assert row.score is not None
    assert row.score < 0
    assert row.gate is not None
    assert 0 < row.gate < 1
    assert row.entropy is not None
    assert 0 < row.entropy <= 1
    assert captioner.caption(str(clip)) == row


def test_a_list_gives_a_list_and_a_folder_is_one(captioner: Captioner, clip: Path, tmp_path: Path) -> None:
    assert captioner.caption([clip]) == [captioner.caption(clip)]
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    assert len(captioner.caption([tmp_path, clip])) == 2
    for several in (tmp_path, str(tmp_path / "*")):
        (tmp_path / "b.mp4").touch()
        with pytest.raises(UsageError, match="list"):
            captioner.caption(several)


def test_a_file_that_is_not_there(captioner: Captioner) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.mp4"):
        captioner.caption("nowhere.mp4")


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 0), (100, 0), (2, 2)])
def test_rows_do_not_depend_on_batches_and_workers(
    captioner: Captioner, folder: Path, batch_size: int, workers: int
) -> None:
    rows = captioner.caption([folder], batch_size=batch_size, workers=workers)
    statuses = ["ok", "failed", "ok", "ok", "failed", "ok", "failed", "failed", "ok", "audio-only"]
    assert [row.status for row in rows] == statuses
    assert [Path(row.video).name for row in rows] == [*(f"{i}.mp4" for i in range(9)), "9.wav"]
    alone = [captioner.caption(row.video) for row in rows]
    assert [row.caption for row in rows] == [row.caption for row in alone]
    for row, other in zip(rows, alone, strict=True):
        assert row.score == pytest.approx(other.score, abs=1e-4)


def test_rows_come_while_later_files_are_still_to_be_read(captioner: Captioner, clip: Path) -> None:
    taken = []

    def paths():
        for i in range(100):
            taken.append(i)
            yield clip

    rows = captioner.rows(paths(), CaptionOptions(batch_size=2, workers=0))
    assert next(rows).status == "ok"
    rows.close()
    assert len(taken) == 2


def test_many_failures_are_not_held_back(captioner: Captioner, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.touch()
    taken = []

    def paths():
        for i in range(100):
            taken.append(i)
            yield bad

    rows = captioner.rows(paths(), CaptionOptions(batch_size=2, workers=0))
    assert next(rows).error == "the file is empty"
    assert len(taken) <= 10


def test_what_the_model_is_given(captioner: Captioner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip without a picture shares the batch of those that have one, masked."""
    given = {}

    def generate(fbank, pixels, mask, beam, max_words):
        given.update(fbank=fbank, pixels=pixels, mask=mask, beam=beam, max_words=max_words)
        count = len(fbank)
        return Generation(torch.full((count, 3), 2), torch.zeros(count), torch.zeros(count))

    monkeypatch.setattr(captioner.checkpoint.model, "generate", generate)
    rows = captioner.caption([folder / "0.mp4", folder / "9.wav"], frames=3, beam=2, max_words=7)
    assert given["fbank"].shape == (2, 1024, 128)
    assert given["pixels"].shape == (2, 3, 3, 96, 96)
    assert given["mask"].tolist() == [[True] * 3, [False] * 3]
    assert (given["beam"], given["max_words"]) == (2, 7)
    assert [(row.status, row.gate) for row in rows] == [("ok", None), ("audio-only", None)]


def test_half_precision_says_nearly_the_same(captioner: Captioner, tiny: Path, clip: Path) -> None:
    half = Captioner.load(tiny, device="cpu", precision="bf16").caption(clip)
    assert half.score == pytest.approx(captioner.caption(clip).score, abs=0.05)


def test_the_window_of_a_longer_file(captioner: Captioner, tmp_path: Path) -> None:
    rate = 8000
    t = np.arange(25 * rate) / rate
    wave = np.sin(2 * np.pi * 440 * t) * np.where((t > 13) & (t < 22), 0.5, 0.01)
    path = write(
        tmp_path / "long.wav", video=None, audio="pcm_s16le", rate=rate, layout="mono", wave=wave[None]
    )
    loudest, first, middle = (captioner.caption(path, window=w) for w in ("loudest", "start", "middle"))
    assert loudest.start is not None
    assert loudest.end is not None
    assert 12 <= loudest.start <= 13
    assert loudest.end == pytest.approx(loudest.start + 10)
    assert (first.start, first.end) == (0, 10)
    assert (middle.start, middle.end) == (7.5, 17.5)


def test_three_hours_in_bounded_memory(tmp_path: Path) -> None:
    """The sound alone would be 690 MB as 16 kHz floats."""
    rate, seconds = 2000, 3 * 3600
    wave = np.zeros((1, rate * seconds), np.float32)
    wave[0, rate * 7200 : rate * 7210] = 0.5 * np.sin(np.arange(rate * 10) * 0.3)
    path = write(tmp_path / "long.mkv", video="mpeg4", fps=5, times=[0, 3600, 7203, 10799], audio="flac", rate=rate,
                 layout="mono", samples="s16", wave=wave, draw=lambda t, w, h: picture(t / seconds, w, h))  # fmt: skip
    del wave
    tracemalloc.start()
    clip = load_clip(path, ClipSettings(FeatureSettings(frames=4, image_size=32)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clip.start == pytest.approx(7200, abs=0.11)
    assert clip.frames is not None
    assert clip.frames.shape == (4, 3, 32, 32)
    assert peak < 30e6


def test_reading_a_clip_leaves_the_threads_of_this_process_alone(clip: Path) -> None:
    before = torch.get_num_threads()
    load_clip(clip, ClipSettings(FeatureSettings(frames=1, image_size=32)))
    assert torch.get_num_threads() == before
