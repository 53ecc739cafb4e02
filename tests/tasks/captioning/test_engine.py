"""The captioning engine from Python: order, batches, frames, long files, and a model that fails."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from evacap_cli import Captioner
from evacap_cli.errors import MediaError, UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.model import Generation
from evacap_cli.tasks.captioning import engine
from evacap_cli.tasks.captioning.batch_captioner import BatchCaptioner
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.results import CaptionResult
from evacap_cli.tasks.captioning.outputs.rows import Row
from evacap_cli.tasks.clips import Clip, ClipSettings, load_clip

from ...media.clips import picture, write

MAX_WORDS = 6
INLINE = CaptionOptions(workers=0, batch_size=2, max_words=MAX_WORDS)


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


@pytest.fixture(scope="module")
def alone(captioner: Captioner, folder: Path) -> list[Row]:
    """The row of each file of `folder` without the others."""
    return [captioner.caption(path, max_words=MAX_WORDS) for path in sorted(folder.iterdir())]


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


def test_a_list_and_a_folder_give_a_list(captioner: Captioner, clip: Path, tmp_path: Path) -> None:
    assert captioner.caption([clip]) == [captioner.caption(clip)]
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    assert len(captioner.caption([tmp_path, clip])) == 2
    for several in (tmp_path, str(tmp_path / "*")):
        (tmp_path / "b.mp4").touch()
        with pytest.raises(UsageError, match="list"):
            captioner.caption(several)


def test_a_missing_input(captioner: Captioner) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.mp4"):
        captioner.caption("nowhere.mp4")


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "workers"), [(3, 0), (100, 0), (2, 2)])
def test_rows_do_not_depend_on_batches_and_workers(
    captioner: Captioner, folder: Path, alone: list[Row], batch_size: int, workers: int
) -> None:
    rows = captioner.caption([folder], batch_size=batch_size, workers=workers, max_words=MAX_WORDS)
    statuses = ["ok", "failed", "ok", "ok", "failed", "ok", "failed", "failed", "ok", "audio-only"]
    assert [row.status for row in rows] == statuses
    assert [Path(row.video).name for row in rows] == [*(f"{i}.mp4" for i in range(9)), "9.wav"]
    assert [row.caption for row in rows] == [row.caption for row in alone]
    for row, other in zip(rows, alone, strict=True):
        assert row.score == pytest.approx(other.score, abs=1e-4)


class Taken(list[Source]):
    """Sources that count how many of them were taken."""

    taken = 0

    def __iter__(self) -> Iterator[Source]:
        for source in super().__iter__():
            self.taken += 1
            yield source


def test_rows_are_returned_before_later_files_are_read(captioner: Captioner, clip: Path) -> None:
    sources = Taken([Source(str(clip), str(clip))] * 100)
    rows = captioner.rows(sources, CaptionOptions(batch_size=2, workers=0))
    assert next(rows)[1][0].status == "ok"
    rows.close()
    assert sources.taken == 2


def test_failures_are_returned_immediately(captioner: Captioner, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.touch()
    sources = Taken([Source(str(bad), str(bad))] * 100)
    rows = captioner.rows(sources, CaptionOptions(batch_size=2, workers=0))
    assert next(rows)[1][0].error == "the file is empty"
    assert sources.taken <= 10


@pytest.mark.slow
def test_a_clip_does_not_wait_for_a_batch_that_never_fills(
    captioner: Captioner, clip: Path, folder: Path
) -> None:
    heard = folder / "9.wav"
    sources = Taken([Source(str(heard), str(heard)), *[Source(str(clip), str(clip))] * 100])
    rows = captioner.rows(sources, CaptionOptions(batch_size=2, workers=0))
    assert next(rows)[1][0].status == "audio-only"
    assert sources.taken <= 10


def test_inputs_of_the_model(captioner: Captioner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips without a picture go apart from those that have one, and pay for no blank ones."""
    given = []

    def generate(fbank, pixels, beam, max_words, same):
        given.append((fbank.shape, *(x is not None and x.shape for x in (pixels, same)), beam, max_words))
        count = len(fbank)
        return Generation(torch.full((count, 3), 2), torch.zeros(count), torch.zeros(count))

    monkeypatch.setattr(captioner.checkpoint.model, "generate", generate)
    files = [folder / "0.mp4", folder / "9.wav", folder / "2.mp4"]
    rows = captioner.caption(files, frames=3, beam=2, max_words=7)
    assert given == [
        ((2, 1024, 128), (2, 3, 3, 96, 96), (2, 3), 2, 7), ((1, 1024, 128), False, False, 2, 7),
    ]  # fmt: skip
    assert [(row.status, row.gate) for row in rows] == [("ok", None), ("audio-only", None), ("ok", None)]


def words(captioner: Captioner, clips: list[Clip], size: int) -> list[CaptionResult]:
    result = BatchCaptioner(captioner.checkpoint, captioner.device, None, 4, MAX_WORDS, size).caption(clips)
    assert all(isinstance(each, CaptionResult) for each in result)
    return result  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("pictures", [True, False])
def test_captions_do_not_depend_on_other_clips(captioner: Captioner, pictures: bool) -> None:
    """In any order and any batch, and far louder neighbours or such with another picture make no difference."""
    generator = np.random.default_rng(3)
    clips = []
    for i in range(5):
        fbank = generator.normal(0, 1 + i / 3, (1024, 128)).astype(np.float32)
        fbank[100 * (i + 1) :] = fbank.min()  # the rest is silence
        frames = generator.integers(0, 256, (4, 3, 96, 96), np.uint8) if pictures else None
        clips.append(Clip(fbank, frames, 0.0, (i + 1) * 1.0))
    alone = [words(captioner, [clip], 1)[0] for clip in clips]
    for size in (2, 5):
        order = generator.permutation(5)
        for i, result in zip(order, words(captioner, [clips[i] for i in order], size), strict=True):
            assert result.caption == alone[i].caption
            assert result.score == pytest.approx(alone[i].score, abs=1e-5)
            assert result.gate == pytest.approx(alone[i].gate, abs=1e-5)
            if pictures:
                np.testing.assert_allclose(result.gate_curve, alone[i].gate_curve, atol=1e-5)
    assert len({each.score for each in alone}) == 5


def test_curves_over_time(captioner: Captioner) -> None:
    """The means over frequency, one for every 0.16 s of the clip."""
    fbank = np.random.default_rng(0).normal(0, 1, (1024, 128)).astype(np.float32)
    frames = np.zeros((4, 3, 96, 96), np.uint8)
    long, short = words(captioner, [Clip(fbank, frames, 3.0, 13.0), Clip(fbank, frames, 0.0, 1.0)], 2)
    rows, columns = captioner.checkpoint.model.config.encoder.audio_grid
    per_second = columns / 10.24
    for result, seconds in ((long, 10), (short, 1)):
        assert result.gate_curve is not None
        assert result.entropy_curve is not None
        assert result.gate_curve.shape == result.entropy_curve.shape == (int(np.ceil(seconds * per_second)),)
        assert result.gate_curve.dtype == np.float32
    grid = [torch.arange(rows)[:, None].expand(rows, columns), torch.arange(columns).expand(rows, columns)]
    describer = BatchCaptioner(captioner.checkpoint, captioner.device, None, 4, MAX_WORDS, 2)
    (curve,) = describer._curves((grid[0] + 10 * grid[1]).reshape(1, -1), [Clip(fbank, frames, 0.0, 10.0)])
    assert curve is not None
    assert curve[:3].tolist() == [(rows - 1) / 2 + 10 * i for i in range(3)]


class Tight:
    """A model that fits so many clips into memory, and fails on some of them whatever there is."""

    def __init__(
        self, captioner: Captioner, room: int, error: type[Exception], bad: float | None = None
    ) -> None:
        self.generate, self.room, self.error, self.bad = captioner.checkpoint.model.generate, room, error, bad
        self.sizes: list[int] = []

    def __call__(self, fbank: torch.Tensor, *rest: object, **more: object) -> Generation:
        self.sizes.append(len(fbank))
        if len(fbank) > self.room:
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if self.bad is not None and self.bad in fbank[:, 0, 0]:
            raise ZeroDivisionError("in\nthe model")
        return self.generate(fbank, *rest, **more)


def clips_of(values: list[float]) -> list[Clip]:
    return [Clip(np.full((1024, 128), value, np.float32), None, 0.0, 10.0) for value in values]


@pytest.mark.slow
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_out_of_memory_halves_the_batch_once_and_for_all(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    clips = clips_of([0.1 * i for i in range(8)])
    alone = [result.caption for result in words(captioner, clips, 1)]
    model = Tight(captioner, 2, error)
    monkeypatch.setattr(captioner.checkpoint.model, "generate", model)
    messages: list[str] = []
    describer = BatchCaptioner(captioner.checkpoint, captioner.device, None, 4, MAX_WORDS, 8, messages.append)
    for _ in range(2):
        assert [result.caption for result in describer.caption(clips)] == alone  # type: ignore[union-attr]
    assert model.sizes == [8, 4, *[2] * 8]
    assert messages == [
        "cpu: out of memory with batch size 8; continuing with 4",
        "cpu: out of memory with batch size 4; continuing with 2",
    ]


def test_out_of_memory_with_one_clip_fails_that_clip(
    captioner: Captioner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioner.checkpoint.model, "generate", Tight(captioner, 0, torch.OutOfMemoryError))
    rows = captioner.caption([folder], batch_size=4)
    assert len(rows) == 10
    assert {row.status for row in rows} == {"failed"}
    assert "out of memory on this clip" in rows[0].error


@pytest.mark.slow
def test_if_the_model_fails_on_a_clip_only_that_clip_fails(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = clips_of([0.1, 0.2, 0.5, 0.3])
    alone = [result.caption for result in words(captioner, clips, 1)]
    monkeypatch.setattr(captioner.checkpoint.model, "generate", Tight(captioner, 9, RuntimeError, bad=0.5))
    result = BatchCaptioner(captioner.checkpoint, captioner.device, None, 4, MAX_WORDS, 8).caption(clips)
    assert result[2] == "the model failed on it: ZeroDivisionError: in the model"
    assert [each.caption for i, each in enumerate(result) if i != 2] == [*alone[:2], alone[3]]  # type: ignore[union-attr]


def test_copies_get_the_rows_of_the_first(captioner: Captioner, clip: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "d.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    write(tmp_path / "c.mp4", 0.7)
    sources = find_sources([tmp_path])
    assert [source.same_as for source in sources] == [None, 0, None, 0]
    messages = []
    results = list(
        captioner.rows(sources, INLINE, on_clip=lambda source, *_: messages.append(Path(source.name).name))
    )
    assert sorted(messages) == ["a.mp4", "c.mp4"]
    rows = [row for _, (row,) in results]
    assert [Path(row.video).name for row in rows] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert rows[0].score == rows[1].score == rows[3].score != rows[2].score


def streamed(source: Source, settings: ClipSettings) -> Iterator[Clip]:
    """A reader of which several clips of a source come, `NAME` having so many, and one of which breaks off."""
    count = int(source.name.split(".")[0])
    for i in range(count):
        fbank = np.full((1024, 128), i / 10, np.float32)
        yield Clip(fbank, None, 10.0 * i, 10.0 * i + 10)
    if "broken" in source.name:
        raise MediaError("the file ends here")


def test_clips_of_all_sources_share_batches(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    generate = captioner.checkpoint.model.generate
    monkeypatch.setattr(engine, "read_source", streamed)
    monkeypatch.setattr(
        captioner.checkpoint.model,
        "generate",
        lambda fbank, *rest, **more: sizes.append(len(fbank)) or generate(fbank, *rest, **more),
    )
    names = ["3", "0", "1", "5.broken", "2"]
    results = list(
        captioner.rows([Source(name, name) for name in names], CaptionOptions(workers=0, batch_size=4))
    )
    assert [source.name for source, _ in results] == names
    assert sizes == [4, 4, 3]
    rows = [rows for _, rows in results]
    assert [len(each) for each in rows] == [3, 1, 1, 6, 2]
    for each in rows:
        assert [row.start for row in each if row.status != "failed"] == [
            10.0 * i for i in range(len([row for row in each if row.status != "failed"]))
        ]
    assert (rows[1][0].status, rows[1][0].error) == ("failed", engine.NO_CLIPS)
    assert (rows[3][5].status, rows[3][5].error) == ("failed", "the file ends here")


def test_half_precision_gives_nearly_equal_captions(captioner: Captioner, tiny: Path, clip: Path) -> None:
    half = Captioner.load(tiny, device="cpu", precision="bf16").caption(clip)
    assert half.score == pytest.approx(captioner.caption(clip).score, abs=0.05)


def test_a_window_of_a_longer_file(captioner: Captioner, tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_long_sound_in_bounded_memory(tmp_path: Path) -> None:
    """Its samples alone are 9.6 MB as stored and 77 MB at 16 kHz."""
    rate, seconds = 2000, 1200
    wave = np.zeros((1, rate * seconds), np.float32)
    wave[0, rate * 800 : rate * 810] = 0.5 * np.sin(np.arange(rate * 10) * 0.3)
    path = write(tmp_path / "long.mkv", video="mpeg4", fps=5, times=[0, 400, 803, 1199], audio="flac", rate=rate,
                 layout="mono", samples="s16", wave=wave, draw=lambda t, w, h: picture(t / seconds, w, h))  # fmt: skip
    del wave
    tracemalloc.start()
    clip = load_clip(path, ClipSettings(FeatureSettings(frames=4, image_size=32)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clip.start == pytest.approx(800, abs=0.11)
    assert clip.frames is not None
    assert clip.frames.shape == (4, 3, 32, 32)
    assert peak < 5e6


def test_reading_a_clip_does_not_change_the_number_of_threads(clip: Path) -> None:
    before = torch.get_num_threads()
    load_clip(clip, ClipSettings(FeatureSettings(frames=1, image_size=32)))
    assert torch.get_num_threads() == before
