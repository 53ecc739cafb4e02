"""decord as the first reader of frames, and when it is to be believed."""

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
    """(n, frame): the frame, (H, W, 3) uint8, that is shown at the next n of the rising `times` (seconds).

    decord counts packets, and takes the i-th frame that it decodes for the i-th packet. Where packets are
    decoded but not shown (clips cut without re-encoding) or cannot be decoded (no key frame to begin with),
    its pictures are seconds away from its timestamps. Hence `start`, the time at which the track starts, and
    `first_frame`, that of the first frame which is really shown: decord is refused when its own is another.
    `size`: width and height that frames are brought to, for square pixels; -1 leaves them as they are.
    Raises RuntimeError, or whatever decord raises.
    """
    decord = load_decord()
    reader = decord.VideoReader(f"file:{path}", width=size[0], height=size[1], num_threads=1)
    stamps = np.sort(np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0]) + start
    if abs(stamps[0] - first_frame) > 1e-3:
        raise RuntimeError(f"its first frame is at {stamps[0]:.3f} s, the file's at {first_frame:.3f} s")
    # its timestamps are float32: what is meant to be equal differs by less than the 1e-5 of a finer clock
    shown = np.maximum(0, np.searchsorted(stamps, np.asarray(times) + 1e-5, side="right") - 1)
    for index, count in zip(*np.unique(shown, return_counts=True), strict=True):
        frame = reader[int(index)].asnumpy()
        if frame.ndim != 3 or frame.shape[2] != 3:
            raise RuntimeError(f"a frame of shape {frame.shape}")
        yield int(count), frame


def opens_only_itself(path: Path) -> bool:
    """Whether a file's first bytes are those of a container that holds its own pictures.

    decord cannot be told which kinds of file to read, and FFmpeg, of which it brings a version of its own, would open
    whatever a playlist names. It knows a playlist by its first bytes: what begins like this is none.
    """
    with path.open("rb") as file:
        return HEADS.match(file.read(12)) is not None


def load_decord() -> ModuleType:
    """decord, imported on first use, quiet, and without the CUDA libraries it would load beside itself."""
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
    """Makes a package not be found for a while.

    decord loads every library of the `nvidia` packages, which torch brings along: 0.4 s and 640 MB in each
    worker, for a GPU decoder that is not used here.
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
