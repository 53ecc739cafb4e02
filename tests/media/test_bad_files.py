"""Files that cannot be read, or only in part: each says so in one line, and nothing else is printed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import find_window, probe, read_audio, read_frames

from .clips import heard, pitch, write

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


def test_text_by_the_name_of_mp4(tmp_path: Path, read, capfd) -> None:
    (tmp_path / "a.mp4").write_text("A SECRET in a letter\n" * 200)
    message = refused(read, tmp_path / "a.mp4", capfd)
    assert message == "not a media file: Invalid data found when processing input"


def test_noise(tmp_path: Path, read, capfd) -> None:
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    assert "not a media file" in refused(read, tmp_path / "a.mp4", capfd)


def test_an_index_that_was_never_written(tmp_path: Path, read, capfd) -> None:
    """An mp4 whose recording broke off: the moov box at its end is missing."""
    path = write(tmp_path / "a.mp4", 1.0)
    path.write_bytes(path.read_bytes()[:3000])
    assert "not a media file" in refused(read, path, capfd)


def test_a_missing_file(tmp_path: Path, read, capfd) -> None:
    assert refused(read, tmp_path / "a.mp4", capfd) == "cannot be read: No such file or directory"


def test_a_folder(tmp_path: Path, read, capfd) -> None:
    assert refused(read, tmp_path, capfd) == "a folder, not a file"


def test_a_pipe_does_not_make_it_wait(tmp_path: Path, read, capfd) -> None:
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


def test_names_that_are_not_names(read, capfd) -> None:
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


def test_the_part_that_is_there_is_used(tmp_path: Path, capfd) -> None:
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
