from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import READERS, probe, read_frames
from evacap_cli.media.container import open_media
from evacap_cli.media.pyav_reader import Cursor

from .clips import BOTTOM, TICKS, TOP, picture, time_shown, write

ONE = 65_536
NEAR = 0.06  # seconds by which coding blurs the time that a picture shows

# suffix, encoder, its pixel format, sound
VIDEOS = [
    ("mp4", "libx264", "yuv420p", "aac"),
    ("mkv", "libx264", "yuv444p", "flac"),
    ("mov", "libx264", "yuv420p", "pcm_s16le"),
    ("mp4", "libx265", "yuv420p", "libmp3lame"),
    ("webm", "libvpx-vp9", "yuv420p", "libopus"),
    ("webm", "libsvtav1", "yuv420p", "vorbis"),
    ("mp4", "libsvtav1", "yuv420p", "aac"),
    ("avi", "mpeg4", "yuv420p", "libmp3lame"),
    ("mp4", "mpeg4", "yuv420p", "aac"),
    ("avi", "mjpeg", "yuvj420p", "pcm_s16le"),
    ("mov", "prores_ks", "yuv422p10le", "pcm_s24le"),
    ("ts", "libx264", "yuv420p", "aac"),
]


@pytest.fixture(params=READERS)
def readers(request: pytest.FixtureRequest) -> list[str]:
    return [request.param]


def shown(path: Path, times: Sequence[float], readers: Sequence[str] = READERS) -> list[float]:
    return [time_shown(frame) for frame in read_frames(path, times, readers=readers)]


def test_every_encoder_that_these_tests_need_is_there() -> None:
    """So that a build of FFmpeg without one fails here, and says which, before anything else does."""
    needed = {codec for _, *codecs in [(v[0], v[1], v[3]) for v in VIDEOS] for codec in codecs}
    missing = []
    for codec in sorted(needed | {"ffv1", "alac", "pcm_u8", "pcm_f64le"}):
        try:
            av.Codec(codec, "w")
        except ValueError:
            missing.append(codec)
    assert missing == []


@pytest.mark.parametrize(("suffix", "codec", "pixels", "sound"), VIDEOS)
def test_formats(
    tmp_path: Path, readers: list[str], suffix: str, codec: str, pixels: str, sound: str
) -> None:
    path = write(
        tmp_path / f"clip.{suffix}",
        video=codec,
        pixels=pixels,
        audio=sound,
        rate=48_000 if sound == "libopus" else 44_100,
    )
    frames = read_frames(path, [0.05, 0.55, 1.05, 1.95], readers=readers)
    # AVI has no timestamps: its MPEG-4 comes a frame late, as in any player
    tolerance = 0.2 if (suffix, codec) == ("avi", "mpeg4") else NEAR
    assert [time_shown(frame) for frame in frames] == pytest.approx([0, 0.5, 1.0, 1.9], abs=tolerance)
    for frame in frames:
        assert frame.shape == (48, 64, 3)
        assert frame.dtype == np.uint8
        assert frame[12, 16].mean() == pytest.approx(TOP, abs=8)
        assert frame[36, 16].mean() == pytest.approx(BOTTOM, abs=8)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_timestamps_decide(tmp_path: Path, readers: list[str], suffix: str) -> None:
    """Variable frame rate: the last frame at or before the time, also exactly at a frame's own time."""
    times = [0.0, 0.1, 0.15, 0.9, 1.0, 1.9]
    path = write(tmp_path / f"clip.{suffix}", times=times)
    asked = [0.0, 0.05, 0.1, 0.12, 0.15, 0.5, 0.89, 0.9, 0.95, 1.5, 1.95, 5.0]
    expected = [max(t for t in times if t <= at) for at in asked]
    assert shown(path, asked, readers) == pytest.approx(expected, abs=NEAR)


@pytest.mark.parametrize("bframes", ["0", "3"])
def test_frames_that_are_stored_out_of_order(tmp_path: Path, readers: list[str], bframes: str) -> None:
    path = write(tmp_path / "clip.mp4", video_options={"preset": "medium", "bf": bframes}, gop=12)
    asked = [0.05 + 0.1 * i for i in range(20)]
    assert shown(path, asked, readers) == pytest.approx([0.1 * i for i in range(20)], abs=NEAR)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_first_frame_is_used_before_a_late_start(tmp_path: Path, readers: list[str], suffix: str) -> None:
    path = write(tmp_path / f"clip.{suffix}", 3.0, times=[2 + 0.1 * i for i in range(10)])
    asked = [0.0, 1.0, 1.99, 2.0, 2.55, 2.95]
    assert shown(path, asked, readers) == pytest.approx([2.0, 2.0, 2.0, 2.0, 2.5, 2.9], abs=NEAR)


def test_a_late_start_counts_from_the_sound(tmp_path: Path, readers: list[str]) -> None:
    """The clock starts with the earlier of sound and picture, whichever that is."""
    path = write(tmp_path / "clip.mkv", 3.0, times=[1 + 0.1 * i for i in range(20)], audio_start=1.5)
    assert shown(path, [0.05, 0.55, 1.55], readers) == pytest.approx([1.0, 1.5, 2.5], abs=NEAR)


@pytest.mark.parametrize("fps", [1, 10, 30, 120])
def test_frame_rates(tmp_path: Path, readers: list[str], fps: int) -> None:
    path = write(tmp_path / "clip.mp4", fps=fps)
    asked = [(i + 0.5) / 4 for i in range(8)]
    expected = [int(at * fps) / fps for at in asked]
    assert shown(path, asked, readers) == pytest.approx(expected, abs=NEAR)


@pytest.mark.parametrize("at", [0.0, 0.5])
def test_one_frame(tmp_path: Path, readers: list[str], at: float) -> None:
    path = write(tmp_path / "clip.mp4", times=[at])
    assert shown(path, [0.0, 0.25, 1.0, 9.0], readers) == pytest.approx([at] * 4, abs=NEAR)


def test_any_order_and_repetition(tmp_path: Path, readers: list[str]) -> None:
    path = write(tmp_path / "clip.mp4")
    asked = [1.5, 0.0, 1.5, 0.75, 0.71, 1.95, 0.0]
    assert shown(path, asked, readers) == pytest.approx([1.5, 0, 1.5, 0.7, 0.7, 1.9, 0], abs=NEAR)
    assert read_frames(path, [], readers=readers) == []


def turned(matrix: Sequence[int]) -> np.ndarray:
    """What a player shows of `picture(1.0)`, pixel by pixel: (x, y) goes to (a x + c y, b x + d y)."""
    source = picture(1.0)
    a, b, _, c, d = (value // ONE for value in matrix[:5])
    height, width, _ = source.shape
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    out = np.empty((to_y.max() + 1, to_x.max() + 1, 3), dtype=np.uint8)
    out[to_y, to_x] = source
    return out


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(
    "signs",
    [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0)],
)
def test_rotated_and_mirrored_frames_are_upright(
    tmp_path: Path, suffix: str, signs: tuple[int, int, int, int]
) -> None:
    a, b, c, d = (sign * ONE for sign in signs)
    matrix = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    path = write(tmp_path / f"clip.{suffix}", matrix=matrix)
    for readers in (READERS, ["pyav"]):
        (frame,) = read_frames(path, [1.05], readers=readers)
        expected = turned(matrix)
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 8
    if signs == (1, 0, 0, 1):
        assert np.abs(read_frames(path, [1.05], readers=["decord"])[0].astype(int) - expected).mean() < 8
    else:
        with pytest.raises(MediaError, match="decord: not used, the picture is rotated or mirrored"):
            read_frames(path, [1.05], readers=["decord"])


@pytest.mark.parametrize(
    ("size", "codec", "pixels"),
    [
        ((16, 16), "libx264", "yuv420p"),
        ((17, 31), "libx264", "yuv444p"),
        ((31, 17), "ffv1", "bgr0"),
        ((33, 19), "libvpx-vp9", "yuv420p"),
        ((1920, 1080), "libx264", "yuv420p"),
    ],
)
def test_sizes(tmp_path: Path, size: tuple[int, int], codec: str, pixels: str) -> None:
    path = write(tmp_path / "clip.mkv", 1.0, size=size, video=codec, pixels=pixels, fps=5)
    for readers in (READERS, ["pyav"]):
        frames = read_frames(path, [0.1, 0.9], readers=readers)
        assert [frame.shape for frame in frames] == [(size[1], size[0], 3)] * 2
        assert [time_shown(frame) for frame in frames] == pytest.approx([0.0, 0.8], abs=NEAR)


@pytest.mark.parametrize("width", [16, 18, 34, 48, 64, 98, 288, 322])
def test_readers_agree_to_the_pixel_or_decord_is_refused(tmp_path: Path, width: int) -> None:
    """decord2 3.4 takes the padding of a row for further channels where it divides by the width."""

    def draw(t: float, width: int, height: int) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)

    path = write(tmp_path / "clip.mkv", 0.3, size=(width, 20), video="ffv1", pixels="bgr0", draw=draw)
    (frame,) = read_frames(path, [0.1], readers=["pyav"])
    assert np.array_equal(frame, draw(0, width, 20))
    assert np.array_equal(read_frames(path, [0.1])[0], frame)


@pytest.mark.slow
def test_8k(tmp_path: Path) -> None:
    path = write(
        tmp_path / "clip.mov",
        video="mjpeg",
        pixels="yuvj420p",
        size=(7680, 4320),
        times=[0.0, 0.5],
        audio=None,
    )
    small = read_frames(path, [0.1, 0.6], transform=lambda frame: frame[::60, ::60].copy())
    assert [frame.shape for frame in small] == [(72, 128, 3)] * 2
    assert [time_shown(frame) for frame in small] == pytest.approx([0.0, 0.5], abs=NEAR)


def test_transform_gets_each_frame_once_in_order(tmp_path: Path, readers: list[str]) -> None:
    path = write(tmp_path / "clip.mp4")
    seen: list[float] = []

    def transform(frame: np.ndarray) -> np.ndarray:
        seen.append(time_shown(frame))
        return frame[:2, :3].copy()

    frames = read_frames(path, [1.0, 0.5, 0.55, 1.0, 0.0], transform, readers)
    assert [frame.shape for frame in frames] == [(2, 3, 3)] * 5
    assert seen == pytest.approx([0.0, 0.5, 1.0], abs=NEAR)


def test_errors_of_transform_are_raised(tmp_path: Path) -> None:
    def transform(frame: np.ndarray) -> np.ndarray:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        read_frames(write(tmp_path / "clip.mp4", 0.5), [0.0], transform)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_seeks_to_times_far_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = write(
        tmp_path / f"clip.{suffix}",
        60.0,
        size=(32, 16),
        audio=None,
        gop=10,
        draw=lambda t, w, h: picture(t / 16, w, h),
    )
    decoded = 0
    frames_of = Cursor._frames

    def counting(self: Cursor):
        nonlocal decoded
        for frame in frames_of(self):
            decoded += 1
            yield frame

    monkeypatch.setattr(Cursor, "_frames", counting)
    times = [0.55, 25.55, 26.05, 55.55]
    frames = read_frames(path, times, readers=["pyav"])
    assert [time_shown(frame) * 16 for frame in frames] == pytest.approx([0.5, 25.5, 26.0, 55.5], abs=0.8)
    assert decoded < 120  # of 600


def test_seeking_terminates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key frame for all: each seek lands at the start."""
    path = write(
        tmp_path / "clip.mp4",
        60.0,
        size=(32, 16),
        audio=None,
        gop=1000,
        draw=lambda t, w, h: picture(t / 16, w, h),
    )
    decoded = 0
    frames_of = Cursor._frames

    def counting(self: Cursor):
        nonlocal decoded
        for frame in frames_of(self):
            decoded += 1
            yield frame

    monkeypatch.setattr(Cursor, "_frames", counting)
    times = [4.05 * i for i in range(15)]
    frames = read_frames(path, times, readers=["pyav"])
    assert [time_shown(frame) * 16 for frame in frames] == pytest.approx(times, abs=0.8)
    assert decoded < 1500


def cut_without_encoding(source: Path, target: Path, start: float) -> Path:
    """As `ffmpeg -ss START -i SOURCE -c copy TARGET`: what comes before START is kept, and marked as not to
    be shown.
    """
    with (
        av.open(str(source)) as read,
        av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as out,
    ):
        copies = {stream.index: out.add_stream_from_template(stream) for stream in read.streams}
        read.seek(round(start * 1e6))
        for packet in read.demux():
            if packet.dts is None:
                continue
            shift = round(start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
    return target


def test_clips_cut_without_encoding(tmp_path: Path) -> None:
    """decord counts the frames before the cut that no player shows, and would be seconds off."""
    source = write(tmp_path / "source.mp4", 4.0, gop=20, video_options={"preset": "medium", "bf": "2"})
    path = cut_without_encoding(source, tmp_path / "clip.mp4", 1.5)
    assert probe(path).seconds == pytest.approx(2.5, abs=0.15)
    with open_media(path) as media:
        assert media.video is not None
        assert any(entry.is_discard for entry in media.video.index_entries)
    asked = [0.0, 0.55, 1.05, 2.25]
    for readers in (READERS, ["pyav"]):
        assert shown(path, asked, readers) == pytest.approx([1.5, 2.0, 2.5, 3.7], abs=NEAR)
    with pytest.raises(MediaError, match="the file has hidden frames"):
        read_frames(path, asked, readers=["decord"])


def test_a_stream_that_starts_between_key_frames(tmp_path: Path) -> None:
    """What cannot be decoded at the start does not shift what can."""
    source = write(tmp_path / "source.ts", 3.0, gop=10, audio=None)
    path = tmp_path / "clip.ts"
    with av.open(str(source)) as read, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.dts is not None and number >= 5:
                packet.stream = copy
                out.mux(packet)
    # it starts at 0.5 s of the source, whose next key frame is at 1 s
    for readers in (READERS, ["pyav"]):
        assert shown(path, [0.05, 0.55, 1.05, 1.55], readers) == pytest.approx([1, 1, 1.5, 2], abs=NEAR)


def test_no_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.m4a", 1.0, video=None)
    song = write(tmp_path / "song.mp3", 1.0, video=None, audio="libmp3lame", cover=True)
    for silent in (path, song):
        with pytest.raises(MediaError) as caught:
            read_frames(silent, [0.0])
        assert caught.value.message == "no picture"


def test_unknown_reader(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="opencv; there are decord, pyav"):
        read_frames(tmp_path / "clip.mp4", [0.0], readers=["opencv"])


def test_ticks_are_exact() -> None:
    """The clock of the tests can distinguish 120 frames per second."""
    assert Fraction(TICKS, 120).denominator == 1
