"""Opening a file opens no other file and no address, whatever the file refers to."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import av
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import find_window, probe, read_audio, read_frames
from evacap_cli.media.decord_reader import opens_only_itself

from .clips import write
from .crafted import as_mp4, naming
from .watch import Port, watched

NAMES = sorted(naming("secret.mp4", "127.0.0.1:9"))


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("secret") / "secret.ts", 0.5).read_bytes()


def beside_a_secret(folder: Path, secret: bytes, name: str, address: str) -> Path:
    """A file that names others, which are there."""
    for other in ("secret.mp4", "secret.ts", "numbered-0.jpg", "numbered-1.jpg", "sub.sub"):
        (folder / other).write_bytes(secret)
    path = folder / name
    path.write_bytes(naming("secret.ts" if "m3u8" in name else "secret.mp4", address)[name])
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
@pytest.mark.parametrize("name", NAMES)
def test_files_that_reference_others_are_refused(
    tmp_path: Path, secret: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Port() as port:
        path = beside_a_secret(tmp_path, secret, name, port.address)
        with watched(tmp_path) as opened:
            for read in (probe, find_window, read_audio, lambda path: read_frames(path, [0.0])):
                with pytest.raises(MediaError, match="not a media file"):
                    read(path)
        assert opened == {name}
        assert not port.somebody_came()
    assert not opens_only_itself(path)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_an_external_track_is_not_fetched(tmp_path: Path) -> None:
    whole = write(tmp_path / "secret.mp4", 0.5).read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(dict(as_mp4(whole))["elsewhere"])
    with watched(tmp_path) as opened:
        for read in (read_audio, lambda path: read_frames(path, [0.0])):
            with contextlib.suppress(MediaError):
                read(path)
    assert opened == {"a.mp4"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_the_monitor_detects_file_access_by_ffmpeg(
    tmp_path: Path, secret: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else the tests above would find nothing."""
    monkeypatch.chdir(tmp_path)
    with Port() as port:
        path = beside_a_secret(tmp_path, secret, "file.m3u8", port.address)
        with watched(tmp_path) as opened, av.open(str(path)):
            pass
        assert opened == {"file.m3u8", "secret.ts"}
        path = beside_a_secret(tmp_path, secret, "concat.mp4", port.address)
        with watched(tmp_path) as opened, av.open(str(path)):
            pass
        assert opened == {"concat.mp4", "secret.mp4"}
        path = beside_a_secret(tmp_path, secret, "web.m3u8", port.address)
        with pytest.raises(av.error.FFmpegError):
            av.open(str(path), options={"protocol_whitelist": "file,http,tcp"}, timeout=1.0).close()
        assert port.somebody_came()
        assert not port.somebody_came()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi", "ts", "flv", "mpg", "wmv", "gif"])
def test_files_that_decord_may_open(tmp_path: Path, suffix: str) -> None:
    """It has no list of what it may open: what begins like a container cannot be a playlist."""
    codec = {"webm": "libvpx-vp9", "mpg": "mpeg1video", "flv": "flv", "gif": "gif", "wmv": "wmv2"}.get(
        suffix, "mpeg4"
    )
    pixels = "rgb8" if suffix == "gif" else "yuv420p"
    path = write(tmp_path / f"a.{suffix}", 0.2, video=codec, audio=None, fps=25, pixels=pixels)
    assert opens_only_itself(path)
    for text in (b"#EXTM3U\n", b"ffconcat version 1.0\n", b"v=0\r\n", b"<MPD>", b"\xef\xbb\xbf#EXTM3U"):
        path.write_bytes(text + bytes(200))
        assert not opens_only_itself(path)


def test_decord_is_not_used_for_late_starts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nut", 0.5, video="mpeg4", audio=None)
    assert len(read_frames(path, [0.1])) == 1
    with pytest.raises(MediaError, match="decord: not used, the file does not start like a container"):
        read_frames(path, [0.1], readers=["decord"])
