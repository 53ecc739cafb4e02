"""Segments of recordings: the same as each part read on its own, in one pass, with bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.errors import MediaError, UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.media import DecodePool, container
from evacap_cli.tasks.captioning.inputs.clip_reader import check_segments, read_source, read_source_carefully
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.clips import Clip, ClipSettings, load_clip
from tests.media.clips import tone, write

FEATURES = FeatureSettings(frames=4, image_size=32, seconds=4.0, audio_frames=400, fps=1.0)
WHOLE = ClipSettings(FEATURES)
CUT = replace(WHOLE, segment=4.0)


def noisy(t: float, width: int, height: int) -> np.ndarray:
    """A picture that is another one every tenth of a second."""
    return np.random.default_rng(round(t * 10)).integers(0, 255, (height, width, 3), dtype=np.uint8)


def sound(seconds: float, rate: int = 44_100, silent: Sequence[tuple[float, float]] = ()) -> np.ndarray:
    """(2, S): tones and noise, and stretches of silence.

    The noise is not for AAC, whose decoders make up some of it, another one each time.
    """
    wave = 0.3 * tone(seconds, rate, 2) + np.random.default_rng(0).normal(0, 0.05, (2, round(seconds * rate)))
    for start, end in silent:
        wave[:, round(start * rate) : round(end * rate)] = 0
    return wave


def film(
    path: Path, seconds: float = 13.0, rate: int = 44_100, silent: Sequence[tuple[float, float]] = (), **how
) -> Path:  # type: ignore[no-untyped-def]
    return write(path, seconds, rate=rate, wave=sound(seconds, rate, silent), draw=noisy, **how)


def clips(path: Path, settings: ClipSettings = CUT, **part: float) -> list[Clip]:
    result = read_source(Source(str(path), str(path), **part), settings)  # type: ignore[arg-type]
    assert not isinstance(result, Clip)
    return [clip for clip in result if clip is not None]


def times(found: Sequence[Clip]) -> list[tuple[float, float]]:
    return [(clip.start, clip.end) for clip in found]


def assert_same(path: Path, found: Sequence[Clip]) -> None:
    """As each part is when it is read on its own."""
    for clip in found:
        alone = load_clip(path, WHOLE, start=clip.start, end=clip.end)
        assert (alone.start, alone.end) == (clip.start, clip.end)
        np.testing.assert_allclose(clip.fbank, alone.fbank, atol=1e-4)
        np.testing.assert_array_equal(clip.frames, alone.frames)


FILES = {
    "a.mp4": {"rate": 16_000, "gop": 100, "audio": "flac"},
    "b.mp4": {"audio": "alac"},
    "c.mov": {"audio": "pcm_s16le", "video": "mpeg4", "rate": 48_000},
    "d.wav": {"video": None, "audio": "pcm_s16le"},
    "e.flac": {"video": None, "audio": "flac"},
    "f.mp3": {"video": None, "audio": "libmp3lame"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("hop", [None, 1.7, 5.0])
def test_segments_equal_separate_files(tmp_path: Path, name: str, hop: float | None) -> None:
    path = film(tmp_path / name, **FILES[name])
    found = clips(path, replace(CUT, hop=hop))
    assert len(found) == {None: 4, 1.7: 7, 5.0: 3}[hop]
    assert [clip.start for clip in found] == [round(i * (hop or 4.0), 3) for i in range(len(found))]
    assert all((clip.frames is None) == (path.suffix in (".wav", ".flac", ".mp3")) for clip in found)
    assert_same(path, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["f.mkv", "f.mp4"])
def test_files_without_exact_seeking(tmp_path: Path, name: str) -> None:
    """Matroska rounds times to 0.001 s, and AAC has noise that its decoder makes up."""
    path = film(tmp_path / name)
    found = clips(path)
    assert [clip.start for clip in found] == [0, 4, 8, 12]
    for clip in found:
        alone = load_clip(path, WHOLE, start=clip.start, end=clip.end)
        assert np.abs(clip.fbank - alone.fbank).mean() < 0.05
        np.testing.assert_array_equal(clip.frames, alone.frames)


@pytest.mark.parametrize(
    ("seconds", "segment", "hop", "expected"),
    [
        (12.0, 4.0, None, [(0, 4), (4, 8), (8, 12)]),
        (12.3, 4.0, None, [(0, 4), (4, 8), (8, 12)]),  # 0.3 s is less than a tenth of a segment
        (12.5, 4.0, None, [(0, 4), (4, 8), (8, 12), (12, 12.5)]),
        (12.02, 0.1, 4.0, [(0, 0.1), (4, 4.1), (8, 8.1)]),  # 0.02 s is no analysis window
        (9.0, 4.0, 2.0, [(0, 4), (2, 6), (4, 8), (6, 9)]),  # nothing is new from 8 s on
        (8.2, 4.0, 2.0, [(0, 4), (2, 6), (4, 8)]),
        (3.0, 4.0, None, [(0, 3)]),
        (0.05, 4.0, None, [(0, 0.05)]),
        (5.0, 4.0, 1 / 3, [(0, 4), (0.333, 4.333), (0.667, 4.667), (1, 5)]),
    ],
)
def test_times_of_segments(
    tmp_path: Path, seconds: float, segment: float, hop: float | None, expected: list[tuple[float, float]]
) -> None:
    path = film(tmp_path / "f.wav", seconds, video=None, audio="pcm_s16le", rate=16_000)
    assert times(clips(path, replace(CUT, segment=segment, hop=hop))) == expected


def test_a_segment_uses_the_times_of_the_file(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4", audio="flac")
    found = clips(path, start=2.5, end=9.25)
    assert times(found) == [(2.5, 6.5), (6.5, 9.25)]
    assert_same(path, found)
    assert times(clips(path, end=5.0)) == [(0.0, 4.0), (4.0, 5.0)]
    assert times(clips(path, start=8.0, end=100.0)) == [(8.0, 12.0), (12.0, 13.0)]
    for part, words in (
        ({"start": 20.0}, "the part from 20 s on is not in it: it ends at 13.00 s"),
        ({"start": 5.0, "end": 5.0}, "the part from 5 to 5 s is empty"),
    ):
        with pytest.raises(MediaError, match=words):
            clips(path, **part)


@pytest.mark.slow
def test_silent_segments_are_skipped(tmp_path: Path) -> None:
    path = film(tmp_path / "f.wav", 16.0, silent=[(3.9, 8.1), (12.0, 16.0)], video=None, audio="pcm_s16le")
    assert times(clips(path)) == [(0, 4), (4, 8), (8, 12), (12, 16)]
    assert times(clips(path, replace(CUT, min_rms=-60.0))) == [(0, 4), (8, 12)]
    assert times(clips(path, replace(CUT, min_rms=-60.0, hop=2.0)))[:3] == [(0, 4), (2, 6), (6, 10)]
    with pytest.raises(MediaError, match=r"nothing in it is louder than -3\.5 dBFS"):
        clips(path, replace(CUT, min_rms=-3.5))


def test_the_level_is_that_of_a_full_square_wave(tmp_path: Path) -> None:
    wave = np.full((1, 32_000), 0.1)
    wave[:, ::2] *= -1
    path = write(tmp_path / "f.wav", video=None, audio="pcm_s16le", rate=16_000, layout="mono", wave=wave)
    assert len(clips(path, replace(CUT, min_rms=-20.1))) == 1
    with pytest.raises(MediaError, match="louder"):
        clips(path, replace(CUT, min_rms=-19.9))


@pytest.mark.slow
def test_sound_that_starts_late_or_has_gaps(tmp_path: Path) -> None:
    path = film(tmp_path / "late.mp4", 12.0, audio_start=5.0, fps=5, audio="flac")
    late = clips(path)  # 12 s of sound from 5 s on
    assert [clip.start for clip in late] == [4.0, 8.0, 12.0, 16.0]
    assert late[-1].end == pytest.approx(17.0, abs=0.002)
    assert_same(path, late[:2])
    gap = film(tmp_path / "gap.mkv", 24.0, gap=(3.0, 17.0), fps=5)
    assert times(clips(gap)) == [(0.0, 4.0), (16.0, 20.0), (20.0, 24.0)]
    assert times(clips(gap, replace(CUT, hop=0.5)))[-1][1] == 24.0


def test_a_picture_that_ends_early(tmp_path: Path) -> None:
    path = write(
        tmp_path / "f.mp4", wave=sound(13.0), audio="flac", times=[i / 10 for i in range(55)], draw=noisy
    )
    found = clips(path)
    assert [clip.frames is not None for clip in found] == [True, True, False, False]
    assert [clip.picture_error for clip in found] == ["", "", *["the picture ends at 5.50 s"] * 2]
    assert_same(path, found[:2])


def test_one_frame_for_the_whole_audio(tmp_path: Path) -> None:
    path = write(tmp_path / "f.mkv", wave=sound(13.0), times=[0.0], draw=noisy)
    found = clips(path)
    assert len(found) == 4
    for clip in found:
        np.testing.assert_array_equal(clip.frames, found[0].frames)


@pytest.mark.slow
def test_a_picture_that_cannot_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "f.mp4")
    monkeypatch.setattr("evacap_cli.media.frame_stream.Cursor", _broken)
    found = clips(path)
    assert times(found) == [(0, 4), (4, 8), (8, 12), (12, 13)]
    assert {(clip.frames is None, clip.picture_error) for clip in found} == {
        (True, "the picture cannot be decoded: pyav: no decoder for it")
    }


def _broken(_: object) -> None:
    raise RuntimeError("no decoder for it")


@pytest.mark.slow
def test_unusable_frame_removes_the_picture_of_its_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "f.mp4", fps=1)
    count = 0

    def crop(frame: np.ndarray, size: int) -> np.ndarray:
        nonlocal count
        count += 1
        if count == 6:
            raise ValueError("an odd shape")
        return frame[:size, :size]

    monkeypatch.setattr("evacap_cli.tasks.captioning.inputs.clip_reader._crop", crop)
    found = clips(path)
    assert [clip.picture_error for clip in found] == [
        "", "the picture cannot be decoded: pyav: an odd shape", "", "",
    ]  # fmt: skip


@pytest.mark.slow
def test_without_pictures(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4")
    for found in (
        clips(path, replace(CUT, frames=0)),
        clips(film(tmp_path / "f.wav", video=None, audio="pcm_s16le")),
    ):
        assert len(found) == 4
        assert all(clip.frames is None and clip.picture_error == "" for clip in found)
    with pytest.raises(MediaError, match="no audio track"):
        clips(film(tmp_path / "mute.mp4", audio=None))


@pytest.mark.slow
def test_another_number_of_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4")
    for clip in clips(path, replace(CUT, frames=7)):
        alone = load_clip(path, replace(WHOLE, frames=7), start=clip.start, end=clip.end)
        np.testing.assert_array_equal(clip.frames, alone.frames)


@pytest.mark.slow
def test_the_fallback_reads_no_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4")
    source = Source(str(path), str(path))
    careful = [clip for clip in read_source_carefully(source, CUT) if clip is not None]  # type: ignore[union-attr]
    for clip, plain in zip(careful, clips(path), strict=True):
        assert clip.frames is None
        assert clip.picture_error == "a decoder crashed on its frames: captioned from its audio only"
        np.testing.assert_array_equal(clip.fbank, plain.fbank)
    whole = read_source_carefully(source, WHOLE)
    assert isinstance(whole, Clip)
    assert whole.frames is not None


@pytest.mark.slow
def test_one_clip_without_segments(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4")
    clip, alone = (
        read_source(Source("f", str(path), 2.0, 5.0), WHOLE),
        load_clip(path, WHOLE, start=2.0, end=5.0),
    )
    assert isinstance(clip, Clip)
    assert (clip.start, clip.end) == (2.0, 5.0)
    np.testing.assert_array_equal(clip.fbank, alone.fbank)
    np.testing.assert_array_equal(clip.frames, alone.frames)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [CUT, WHOLE])
def test_files_that_change_while_they_are_read(tmp_path: Path, settings: ClipSettings) -> None:
    path = film(tmp_path / "f.mp4")
    status = path.stat()
    listed = Source("f", str(path), size=status.st_size, mtime_ns=status.st_mtime_ns)
    result = read_source(listed, settings)
    assert isinstance(result, Clip) or len(list(result)) == 4
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(MediaError, match="changed while it was read"):
        list(read_source(listed, settings))  # type: ignore[arg-type]


@pytest.mark.slow
def test_recording_of_any_length_is_opened_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = container.av.open
    monkeypatch.setattr(container.av, "open", lambda *args, **kw: opened.append(args) or real(*args, **kw))
    path = film(tmp_path / "f.mp4", 30.0, fps=2)
    opened.clear()
    assert len(clips(path, replace(CUT, segment=1.0))) == 30
    assert len(opened) == 2  # for its sound, and for its pictures


def test_segments_fit_the_model() -> None:
    check_segments(CUT)
    check_segments(WHOLE)
    with pytest.raises(UsageError, match=r"--segment 4\.5: the model takes at most 4 s"):
        check_segments(replace(CUT, segment=4.5))


@pytest.mark.slow
def test_through_workers(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(path.read_bytes()[:300])
    sources = [Source(str(file), str(file)) for file in (path, bad, path)]
    with DecodePool(1, partial(read_source, settings=CUT), timeout=60.0) as pool:
        outcomes = list(pool.imap(sources))
    assert [outcome.last for outcome in outcomes] == [
        False,
        False,
        False,
        True,
        True,
        False,
        False,
        False,
        True,
    ]
    assert outcomes[4].error is not None
    for outcome, plain in zip(outcomes[:4], clips(path), strict=True):
        assert isinstance(outcome.value, Clip)
        np.testing.assert_array_equal(outcome.value.fbank, plain.fbank)


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    peaks = []
    for seconds in (20.0, 100.0):
        path = film(tmp_path / f"{seconds}.mp4", seconds, fps=1, rate=16_000)
        tracemalloc.start()
        result = read_source(Source("f", str(path)), CUT)
        count = sum(clip is not None for clip in result)  # type: ignore[union-attr]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == seconds / 4
    assert peaks[1] < 1.3 * peaks[0] < 13e6  # 80 seconds more of sound would be 5 MB
