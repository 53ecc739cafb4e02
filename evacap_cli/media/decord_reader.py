"""Reads frames with decord, the first reader, and checks that its timestamps are right."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HEADS = re.compile(
    rb"....(ftyp|moov|mdat|free|skip|wide|pnot|styp|sidx)"  # MP4, QuickTime
    rb"|\x1aE\xdf\xa3|RIFF....AVI |FLV\x01|OggS\0|\x30\x26\xb2\x75"  # Matroska, AVI, Flash, Ogg, ASF
    rb"|\0\0\x01[\xb3\xba]|(....)?G",  # MPEG, MPEG-TS
    re.DOTALL,
)
_importing = threading.Lock()


def read_with_decord(
    path: Path, times: Sequence[float], start: float, first_frame: float, size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (n, frame): the frame, (H, W, 3) uint8, shown at the next n of the ascending `times` (seconds).

    decord counts packets and assigns the i-th decoded frame to the i-th packet. If packets are decoded but not shown
    (clips cut without re-encoding) or cannot be decoded (no initial key frame), its frames are seconds away from
    their timestamps. It is therefore rejected if its first frame is not at `first_frame`, the time of the first frame
    that is really shown. `start`: start of the track. `size`: width and height to which frames are scaled, for square
    pixels; -1 keeps the coded size. Raises RuntimeError and decord's own errors.
    """
    decord = load_decord()
    reader = decord.VideoReader(f"file:{path}", width=size[0], height=size[1], num_threads=1)
    stamps = np.sort(np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0]) + start
    if abs(stamps[0] - first_frame) > 1e-3:
        raise RuntimeError(f"its first frame is at {stamps[0]:.3f} s, not at {first_frame:.3f} s")
    # its timestamps are float32: equal times differ by less than 1e-5
    shown = np.maximum(0, np.searchsorted(stamps, np.asarray(times) + 1e-5, side="right") - 1)
    for index, count in zip(*np.unique(shown, return_counts=True), strict=True):
        frame = reader[int(index)].asnumpy()
        if frame.ndim != 3 or frame.shape[2] != 3:
            raise RuntimeError(f"a frame of shape {frame.shape}")
        yield int(count), frame


def opens_only_itself(path: Path) -> bool:
    """Whether a file's first bytes are those of a container that holds its own pictures.

    decord has no option to restrict formats, and its bundled FFmpeg would open the files that a playlist names. FFmpeg
    detects a playlist by its first bytes, so a file that starts with one of `HEADS` is not a playlist.
    """
    with path.open("rb") as file:
        return HEADS.match(file.read(12)) is not None


def load_decord() -> ModuleType:
    """Imports decord on first use, without log output and without the CUDA libraries that it would load."""
    with _importing:
        loaded = sys.modules.get("decord")
        if loaded is not None:
            return loaded
        with _hidden("nvidia"):
            decord = importlib.import_module("decord")
        decord.logging.set_level(decord.logging.QUIET)
        return decord


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Hides a package from imports inside the context.

    decord loads every library of the `nvidia` packages that torch installs: 0.4 s and 640 MB in each worker, for a
    GPU decoder that is not used here.
    """
    before: Any = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[package]
        else:
            sys.modules[package] = before
