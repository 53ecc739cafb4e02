"""The frame that a model sees has the shape that a player shows. Files: PyAV, with a pixel's shape in the stream."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.errors import MediaError
from evacap_cli.media import READERS, follow_frames, open_media, read_frames
from evacap_cli.media.container import LARGEST_PICTURE
from evacap_cli.media.pyav_reader import shown_size

from .clips import BOTTOM, TOP, write

ONE = 65_536
TURN = (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)  # a quarter
MIRROR = (-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
# coded width and height, width over height of a pixel, what is shown
SHAPES = [
    ((96, 64), Fraction(1), (96, 64)),
    ((90, 60), Fraction(8, 9), (90, 68)),  # NTSC DVD, 4:3
    ((72, 58), Fraction(16, 15), (77, 58)),  # PAL DVD, 4:3
    ((72, 58), Fraction(64, 45), (102, 58)),  # PAL DVD, 16:9
    ((96, 72), Fraction(4, 3), (128, 72)),  # HDV
    ((96, 108), Fraction(2), (192, 108)),  # half the width
    ((96, 54), Fraction(1, 2), (96, 108)),  # half the height
    ((48, 58), Fraction(32, 15), (102, 58)),  # SVCD, 16:9
    ((64, 48), Fraction(1000), (64, 48)),  # not believed
    ((64, 48), Fraction(1, 1000), (64, 48)),
]
# suffix, encoder, whether decord reads it
KINDS = [("mp4", "libx264", True), ("mov", "mpeg4", True), ("ts", "libx264", True), ("avi", "mpeg4", True),
         ("mkv", "libx264", False), ("mpg", "mpeg2video", False)]  # fmt: skip


def check(frame: np.ndarray, size: tuple[int, int]) -> None:
    """Shape, and that `picture` fills it: upright, dark and light in their places."""
    width, height = size
    assert frame.shape == (height, width, 3)
    assert frame[height // 4, width // 4].mean() == pytest.approx(TOP, abs=10)
    assert frame[height * 3 // 4, width // 4].mean() == pytest.approx(BOTTOM, abs=10)


@pytest.mark.parametrize(("coded", "pixel", "expected"), SHAPES)
def test_pixels_that_are_not_square(
    tmp_path: Path, coded: tuple[int, int], pixel: Fraction, expected: tuple[int, int]
) -> None:
    path = write(tmp_path / "clip.mp4", 0.5, size=coded, pixel=pixel)
    for readers in (["decord"], ["pyav"], READERS):
        check(read_frames(path, [0.25], readers=readers)[0], expected)
    with open_media(path) as media:
        (frames,) = follow_frames(media, [[0.25]], lambda frame: frame)
        assert not isinstance(frames, str | None)
        check(frames[0], expected)


@pytest.mark.parametrize(("suffix", "codec", "by_decord"), KINDS)
def test_kinds_of_file(tmp_path: Path, suffix: str, codec: str, by_decord: bool) -> None:
    path = write(
        tmp_path / f"clip.{suffix}", 0.5, size=(96, 72), video=codec, audio=None, fps=25, pixel=Fraction(4, 3)
    )
    for readers in (["pyav"], READERS, *[["decord"]] * by_decord):
        check(read_frames(path, [0.25], readers=readers)[0], (128, 72))


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(("matrix", "expected"), [(TURN, (72, 128)), (MIRROR, (128, 72))])
def test_stretched_before_it_is_turned(
    tmp_path: Path, suffix: str, matrix: Sequence[int], expected: tuple[int, int]
) -> None:
    path = write(tmp_path / f"clip.{suffix}", 0.5, size=(96, 72), pixel=Fraction(4, 3), matrix=matrix)
    for readers in (READERS, ["pyav"]):
        (frame,) = read_frames(path, [0.25], readers=readers)
        assert frame.shape == (expected[1], expected[0], 3)
        if matrix is MIRROR:
            check(frame[:, ::-1], expected)
        else:  # what was on the left is on top, with its top on the right
            check(frame[:, ::-1].transpose(1, 0, 2), (128, 72))
    with pytest.raises(MediaError, match="rotated or mirrored"):
        read_frames(path, [0.25], readers=["decord"])


def test_a_large_picture_is_not_made_larger() -> None:
    assert shown_size(8192, 8192, Fraction(2)) == (8192, 4096)
    assert shown_size(8192, 8192, Fraction(1, 2)) == (4096, 8192)
    for shape in (Fraction(1, 4), Fraction(8, 9), Fraction(1), Fraction(4, 3), Fraction(4)):
        for size in ((8192, 8192), (720, 576), (1, 1), (20_000, 3000)):
            width, height = shown_size(*size, shape)
            assert width * height <= LARGEST_PICTURE
            assert min(width, height) >= 1
