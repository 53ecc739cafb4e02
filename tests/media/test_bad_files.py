"""Files that cannot be read, or only in part: each says so in one line, and nothing else is printed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import audio, container, find_window, probe, pyav_reader, read_audio, read_frames

from .clips import heard, pitch, write
from .crafted import in_matroska, jpeg, matroska, picture_track, silence, sound, sound_track, wav

READS = {
    "probe": probe,
    "read_audio": read_audio,
    "find_window": find_window,
    "read_frames": lambda path: read_frames(path, [0.0]),
}


@pytest.fixture(params=READS)
def read(request: pytest.FixtureRequest):
    return READS[request.param]


def refused(read, path, capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(MediaError) as caught:
        read(path)
    assert capfd.readouterr() == ("", "")
    message = caught.value.message
    assert message
    assert message.isprintable()
    assert len(message) < 250
    return message


def test_an_empty_file(tmp_path: Path, read, capfd) -> None:
    (tmp_path / "a.mp4").touch()
    assert refused(read, tmp_path / "a.mp4", capfd) == "the file is empty"


def test_text_named_mp4(tmp_path: Path, read, capfd) -> None:
    (tmp_path / "a.mp4").write_text("A SECRET in a letter\n" * 200)
    message = refused(read, tmp_path / "a.mp4", capfd)
    assert message == "not a media file: Invalid data found when processing input"


def test_noise(tmp_path: Path, read, capfd) -> None:
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    assert "not a media file" in refused(read, tmp_path / "a.mp4", capfd)


def test_a_missing_index(tmp_path: Path, read, capfd) -> None:
    """An mp4 whose recording broke off: the moov box at its end is missing."""
    path = write(tmp_path / "a.mp4", 1.0)
    path.write_bytes(path.read_bytes()[:3000])
    assert "not a media file" in refused(read, path, capfd)


def test_a_missing_file(tmp_path: Path, read, capfd) -> None:
    assert refused(read, tmp_path / "a.mp4", capfd) == "cannot be read: No such file or directory"


def test_a_folder(tmp_path: Path, read, capfd) -> None:
    assert refused(read, tmp_path, capfd) == "a folder, not a file"


def test_a_pipe_does_not_block(tmp_path: Path, read, capfd) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    assert refused(read, tmp_path / "a.mp4", capfd) == "not a regular file"


def test_an_unreadable_file(tmp_path: Path, read, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", 1.0)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything: let the operating system refuse all the same

        def refuse(*_args: object, **_options: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
    assert refused(read, path, capfd) == "cannot be read: Permission denied"


def test_invalid_names(read, capfd) -> None:
    assert "null" in refused(read, "a\0.mp4", capfd)
    assert refused(read, b"\xff\xfe.mp4".decode("utf-8", "surrogateescape"), capfd)


@pytest.mark.parametrize(
    "name",
    ["with space.mp4", 'it\'s "quoted".mp4', "two\nlines.mp4", "🎈 fête.mp4", "a:b.mp4", "%03d,?#.mp4"],
)
def test_unusual_names(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.mp4", 0.5)
    path = path.rename(tmp_path / name)
    assert probe(path).has_video
    assert len(read_audio(path)) > 7000
    for readers in (["decord"], ["pyav"]):
        assert len(read_frames(path, [0.0, 0.3], readers=readers)) == 2


def test_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mp4", 0.5)
    monkeypatch.chdir(tmp_path)
    assert len(read_audio("a.mp4")) > 7000
    assert len(read_frames("a.mp4", [0.0], readers=["decord"])) == 1


def noisy_picture(t: float, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(round(t * 100)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_readable_part_is_used(tmp_path: Path, capfd) -> None:
    """An mp4 with its index in front, half of whose download is missing."""
    path = write(tmp_path / "a.mp4", 3.0, draw=noisy_picture, options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    waveform = read_audio(path)
    assert 0.8 < len(waveform) / 16_000 < 2.4
    assert heard(waveform[8800:11_200]) == pytest.approx(pitch(0.55), abs=10)
    frames = read_frames(path, [0.1, 2.9])
    assert not np.array_equal(*frames)
    assert find_window(path, 1.0)[1] <= 3.0
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle(tmp_path: Path, capfd) -> None:
    path = write(tmp_path / "a.mp4", 3.0, draw=noisy_picture)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 1500 : middle + 1500] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    waveform = read_audio(path)
    assert heard(waveform[800:3200]) == pytest.approx(pitch(0.05), abs=10)
    assert heard(waveform[-6000:-4800]) == pytest.approx(pitch(2.7), abs=15)
    assert len(read_frames(path, [0.1, 1.5, 2.9])) == 3
    assert capfd.readouterr() == ("", "")


def test_both_readers_are_quoted_when_both_fail(tmp_path: Path, capfd) -> None:
    path = write(tmp_path / "a.mp4", 1.0, audio=None, draw=noisy_picture)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = b"\xff" * (end - start)
    path.write_bytes(data)
    message = refused(lambda path: read_frames(path, [0.0]), path, capfd)
    assert message.startswith("the picture cannot be decoded: decord: ")
    assert "; pyav: " in message


@pytest.fixture(scope="module")
def odd() -> dict[str, bytes]:
    return dict(in_matroska())


@pytest.mark.slow
def test_an_implausible_length_is_measured(tmp_path: Path, odd: dict[str, bytes]) -> None:
    path = tmp_path / "a.mkv"
    for name in ("duration-years", "duration-endless"):
        path.write_bytes(odd[name])
        assert probe(path).seconds == pytest.approx(1.0, abs=0.11)
        assert find_window(path, 2.0)[1] == pytest.approx(1.0, abs=0.11)
    path.write_bytes(odd["time-years"])  # the packets say the same as the header: no gap, but other clocks
    assert probe(path).seconds == pytest.approx(0.6, abs=1e-6)
    assert find_window(path, 0.5) == (0.0, 0.5)
    assert len(read_audio(path, 0.0, 1.0)) == pytest.approx(
        0.6 * 16_000, abs=160
    )  # six packets of a tenth, one by one


def test_an_implausible_start_is_ignored(tmp_path: Path, odd: dict[str, bytes]) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(odd["time-late"])
    assert len(read_audio(path)) == 16_000
    path.write_bytes(odd["apart"])  # the picture does
    assert len(read_audio(path)) == 32_000
    years = 50 * 365 * 86_400_000
    path.write_bytes(matroska([sound_track(), picture_track()], [(2, 0, jpeg()), (1, years, sound(1.0))]))
    assert len(read_audio(path)) == 16_000
    path.write_bytes(odd["time-last"])
    assert len(read_audio(path, 0.5)) == 8000
    assert len(read_audio(path, 50.0, 51.0)) == 0
    (block,) = audio._placed([(1e12, np.ones(8000, np.float32), 8000)], None)
    assert block.time == 0.0


def test_an_unseekable_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Once:
        start_time = 0

        def seek(self, *_where: object, **_how: object) -> None:
            raise PermissionError(1, "Operation not permitted")

    path = write(tmp_path / "a.mkv", 3.0)
    with container.open_media(path) as media:
        replace(media, container=Once()).rewind()  # type: ignore[arg-type]
    monkeypatch.setattr(container.Media, "seek", Once.seek)
    assert heard(read_audio(path, 1.5, 1.75)[800:3200]) == pytest.approx(pitch(1.5), abs=10)


@pytest.mark.slow
def test_total_gaps_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mkv"
    blocks = [(1, 50_000 * i, sound()) for i in range(100)]
    path.write_bytes(matroska([sound_track()], blocks, duration=4_950_100.0))
    assert len(read_audio(path)) == round(4950.1 * 16_000)
    monkeypatch.setattr(audio, "MAX_TIME", 300.0)
    assert len(read_audio(path)) == round(250.1 * 16_000)


def test_the_search_for_the_loudest_window_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    loudness = np.repeat([0.1, 0.3, 0.1, 0.1, 0.9, 0.1], 8000)
    path.write_bytes(wav((np.frombuffer(sound(6.0), np.int16) * loudness).astype(np.int16).tobytes()))
    assert find_window(path, 1.0) == (4.0, 5.0)
    monkeypatch.setattr(audio, "MAX_SEARCHED_SAMPLES", 4 * 8000)
    assert find_window(path, 1.0) == (1.0, 2.0)
    path.write_bytes(silence(80.0))
    assert find_window(path, 1.0) == (0.0, 1.0)


def test_implausible_sample_rates(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for rate in (1, 99, 1_000_001, 2**31 - 1):
        path.write_bytes(wav(sound(1.0), rate))
        with pytest.raises(MediaError, match=f"it claims {rate} samples a second"):
            read_audio(path)
    path.write_bytes(wav(sound(1.0), 100))
    assert len(read_audio(path, 0.0, 2.0)) == 32_000


def test_a_packet_of_hours_is_split(tmp_path: Path) -> None:
    """A hundred samples a second: all of it at 16 kHz would be 160 times as much."""
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska([sound_track(rate=100)], [(1, 0, sound(125.0))]))
    with container.open_media(path) as media:
        longest = max(len(block.samples) for block in audio._blocks(media, 0.0, None))
    assert longest <= 100
    assert len(read_audio(path, 0.0, 2.0)) == 32_000


def test_pictures_larger_than_can_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", 0.5)
    assert len(read_frames(path, [0.1], readers=["pyav"])) == 1
    monkeypatch.setattr(pyav_reader, "LARGEST_PICTURE", 64 * 48 - 1)
    with pytest.raises(MediaError, match="64 x 48 pixels are more than can be decoded"):
        read_frames(path, [0.1], readers=["pyav"])
