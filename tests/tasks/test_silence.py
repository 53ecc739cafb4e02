"""Silence is not captioned as if it were heard; a store may have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.features import FeatureSettings
from evacap_cli.media import read_audio
from evacap_cli.tasks.captioning.engine import Captioner
from evacap_cli.tasks.captioning.inputs.clip_reader import read_source
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.clips import Clip, ClipSettings, is_silent, load_clip

from ..media.clips import tone, write

FEATURES = FeatureSettings(frames=2, image_size=32, seconds=2.0, audio_frames=200, fps=1.0)
STORED = ClipSettings(FEATURES)
CAPTIONED = replace(STORED, silence=False)
SECONDS = 3.0
WHOLE = "no sound: the track is silent"


def zeros(rate: int, channels: int) -> np.ndarray:
    return np.zeros((channels, round(SECONDS * rate)))


def dither(rate: int, channels: int) -> np.ndarray:
    """What a mixer makes of nothing: triangular noise of two steps of 16 bits, rounded to steps."""
    random = np.random.default_rng(0)
    size = channels, round(SECONDS * rate)
    return np.round(random.random(size) - random.random(size)) / (2**15 - 1)


def offset(rate: int, channels: int) -> np.ndarray:
    return np.full((channels, round(SECONDS * rate)), -1 / 127)


# suffix, encoder, rate, layout, sound
SILENT = [
    ("wav", "pcm_s16le", 16_000, "mono", zeros),
    ("wav", "pcm_u8", 8_000, "mono", offset),  # 127 instead of 128, as many telephones have it
    ("wav", "pcm_s16le", 48_000, "5.1", zeros),
    ("mp4", "aac", 44_100, "stereo", zeros),
    ("mp3", "libmp3lame", 44_100, "stereo", zeros),
    ("webm", "libopus", 48_000, "stereo", zeros),
    ("ogg", "vorbis", 44_100, "stereo", zeros),
    ("wav", "pcm_s16le", 16_000, "mono", dither),
    ("flac", "flac", 44_100, "mono", dither),
    ("wav", "pcm_s16le", 48_000, "stereo", dither),
    ("mp3", "libmp3lame", 16_000, "mono", dither),
    ("m4a", "aac", 44_100, "mono", dither),
    ("webm", "libopus", 48_000, "mono", dither),
]


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "codec", "rate", "layout", "make"), SILENT)
def test_silent_tracks(tmp_path: Path, suffix: str, codec: str, rate: int, layout: str, make) -> None:
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    video = {"mp4": "libx264"}.get(suffix)
    path = write(
        tmp_path / f"clip.{suffix}",
        SECONDS,
        video=video,
        audio=codec,
        rate=rate,
        layout=layout,
        samples="s16" if codec == "flac" else None,
        wave=make(rate, channels),
    )
    with pytest.raises(MediaError) as caught:
        load_clip(path, CAPTIONED)
    assert caught.value.message == WHOLE
    assert caught.value.cure
    with pytest.raises(MediaError) as caught:
        list(read_source(Source(str(path), str(path)), replace(CAPTIONED, segment=1.0)))
    assert caught.value.message == WHOLE
    assert np.isfinite(load_clip(path, STORED).fbank).all()  # a store takes it, as a clip with nothing in it


def faint(rate: int) -> np.ndarray:
    return tone(SECONDS, rate) * 2 * 10 ** (-75 / 20)


def click(rate: int) -> np.ndarray:
    sound = np.zeros((1, round(SECONDS * rate)))
    sound[0, rate : rate + 20] = 0.01
    return sound


def out_of_phase(rate: int) -> np.ndarray:
    return np.concatenate([tone(SECONDS, rate), -tone(SECONDS, rate)])


def one_side(rate: int) -> np.ndarray:
    return np.concatenate([np.zeros((1, round(SECONDS * rate))), faint(rate)])


@pytest.mark.parametrize("make", [faint, click, out_of_phase, one_side])
def test_faint_and_short_sounds_are_accepted(tmp_path: Path, make) -> None:
    sound = make(16_000)
    layout = "mono" if len(sound) == 1 else "stereo"
    path = write(tmp_path / "clip.wav", video=None, audio="pcm_s24le", rate=16_000, layout=layout, wave=sound)
    assert not is_silent(read_audio(path))
    assert load_clip(path, CAPTIONED).end == 2.0


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound from 4 to 6 s of 8."""
    rate = 16_000
    sound = np.zeros((1, 8 * rate))
    sound[:, 4 * rate : 6 * rate] = tone(2.0, rate)
    path = tmp_path_factory.mktemp("partly") / "clip.flac"
    return write(path, video=None, audio="flac", samples="s16", rate=rate, layout="mono", wave=sound)


def test_a_silent_segment_is_named(partly: Path) -> None:
    assert load_clip(partly, CAPTIONED).start == pytest.approx(4.0, abs=0.11)
    for part, words in (
        ({"start": 0.0, "end": 3.0}, "no sound: the track is silent from 0 to 2 s"),
        ({"start": 6.5}, "no sound: the track is silent from 6.5 to 8 s"),
    ):
        with pytest.raises(MediaError) as caught:
            load_clip(partly, CAPTIONED, **part)
        assert caught.value.message == words
    with pytest.raises(MediaError, match="silent from 0 to 2 s"):
        load_clip(partly, replace(CAPTIONED, window="start"))


def pieces(path: Path, settings: ClipSettings, **part: float) -> list[tuple[float, float]]:
    found = read_source(Source(str(path), str(path), **part), settings)
    assert not isinstance(found, Clip)
    return [(clip.start, clip.end) for clip in found if clip is not None]


def test_silent_segments_are_left_out(partly: Path) -> None:
    cut = replace(CAPTIONED, segment=2.0)
    assert pieces(partly, cut) == [(4.0, 6.0)]
    assert pieces(partly, replace(cut, hop=1.0)) == [(3.0, 5.0), (4.0, 6.0), (5.0, 7.0)]
    assert pieces(partly, replace(cut, silence=True)) == [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 8.0)]
    with pytest.raises(MediaError, match=r"no sound: the track is silent from 6 s on$"):
        pieces(partly, cut, start=6.0)
    with pytest.raises(MediaError, match=r"no sound: the track is silent from 0 to 3 s$"):
        pieces(partly, cut, end=3.0)
    with pytest.raises(MediaError, match="nothing in it is louder than -3 dBFS"):
        pieces(partly, replace(cut, min_rms=-3.0))


def test_rows(tiny: Path, partly: Path, tmp_path: Path) -> None:
    captioner = Captioner.load(tiny, device="cpu")
    path = write(tmp_path / "clip.mp4", rate=44_100, wave=zeros(44_100, 2))
    row = captioner.caption(path)
    assert (row.status, row.error, row.caption, row.score) == ("failed", WHOLE, "", None)
    rows = captioner.caption([path, partly], segment=2.0)
    assert [(row.status, row.start) for row in rows] == [("failed", None), ("audio-only", 4.0)]
