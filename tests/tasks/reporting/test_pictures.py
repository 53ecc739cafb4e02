"""Pictures of clips, and where they are kept."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from evacap_cli.errors import MediaError
from evacap_cli.tasks.reporting.pictures import (
    FRAMES,
    SIDE,
    SPECTROGRAM,
    PictureFiles,
    PictureJob,
    PictureOptions,
    draw,
    draw_all,
    draw_file,
)


def test_a_file_has_a_strip_a_spectrogram_and_a_copy(clip: Path) -> None:
    strip, spectrogram, copy = draw_file(PictureJob(0, str(clip), 0.0, 2.0, copy=True))
    assert Image.open(io.BytesIO(strip)).size == (SIDE * FRAMES, SIDE)
    assert Image.open(io.BytesIO(spectrogram)).size == SPECTROGRAM
    with av.open(io.BytesIO(copy)) as media:
        assert {stream.type for stream in media.streams} == {"audio", "video"}
        assert media.duration is not None
        assert media.duration / 1e6 == pytest.approx(2.0, abs=0.1)


def test_a_spectrogram_is_bright_where_it_is_loud() -> None:
    fbank = np.full((100, 64), -10.0, np.float32)
    fbank[:50, :32] = 0.0  # low, at the beginning
    strip, spectrogram = draw(fbank, None)
    pixels = np.asarray(Image.open(io.BytesIO(spectrogram)).convert("L"), float)
    high, wide = pixels.shape
    assert strip == b""
    assert pixels[high // 2 + 8 :, : wide // 2 - 8].mean() > pixels[: high // 2 - 8].mean() + 100


def test_unreadable_clips_are_counted_and_others_are_drawn(clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no film")
    jobs = [PictureJob(0, str(bad), 0.0, 2.0), PictureJob(1, str(clip), 0.0, 2.0)]
    files, seen = PictureFiles(tmp_path / "page.html", 10**6), []
    failed = draw_all(
        jobs, 2, files, PictureOptions(workers=0), lambda done, total: seen.append((done, total)), draw_file
    )
    assert failed == 1
    assert seen == [(1, 2), (2, 2)]
    assert files.urls(0) == ("", "", "")
    assert files.urls(1)[0].startswith("data:image/webp;base64,")
    with pytest.raises(MediaError):
        draw_file(jobs[0])


def test_excess_pictures_go_to_a_folder_that_is_kept_clean(tmp_path: Path) -> None:
    page = tmp_path / "my page.html"
    folder = tmp_path / "my page_files"
    files = PictureFiles(page, 10)
    files.add(0, (b"12345", b"", b""))
    assert not folder.exists()
    files.add(1, (b"54321", b"x", b""))
    assert files.urls(0)[0].startswith("./my%20page_files/")
    assert len(list(folder.iterdir())) == 3
    (folder / "own.txt").write_text("stays")
    again = PictureFiles(page, 10)
    again.add(0, (b"12345678901", b"", b""))
    again.clean()
    assert sorted(path.name for path in folder.iterdir()) == sorted([Path(again.urls(0)[0]).name, "own.txt"])
    small = PictureFiles(page, 100)
    small.add(0, (b"1", b"", b""))
    small.clean()
    assert [path.name for path in folder.iterdir()] == ["own.txt"]
