"""The pictures of clips: a strip of frames, a spectrogram, and a small copy to play. Worker processes make them."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

import numpy as np
from PIL import Image

from evacap_cli.atomic import TEMPORARY, written_whole
from evacap_cli.data.files import disk_errors
from evacap_cli.features import FeatureSettings
from evacap_cli.features.settings import HOP_SECONDS, WINDOW_SECONDS
from evacap_cli.media import READERS, DecodePool
from evacap_cli.tasks.clips import SAFE_READERS, ClipSettings, load_clip
from evacap_cli.tasks.reporting.copies import small_copy

FRAMES, SIDE = 4, 112  # frames of a strip, and the side of each in pixels
SPECTROGRAM = (480, 120)  # pixels
MAX_SECONDS = 60.0  # part of a clip that its spectrogram shows
QUALITY = 55
KINDS = ("webp", "webp", "webm")
FILE_NAMES = re.compile(rf"[0-9a-f]{{24}}\.(?:{'|'.join(sorted(set(KINDS)))})(?:{re.escape(TEMPORARY)})?")
"""The names of the files in the folder of a page."""
COLOURS = np.array(
    [(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)], float
)
"""Colours of a spectrogram from faint to loud, as matplotlib's magma."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PictureJob:
    """index: of the clip. start, end: its part of the file, in seconds. copy: whether it gets a copy to play."""

    index: int
    path: str
    start: float
    end: float
    copy: bool = False


class IndexedJob(Protocol):
    """A clip to draw. `index`: of the clip in the page."""

    @property
    def index(self) -> int: ...


Job = TypeVar("Job", bound=IndexedJob)
Drawn = tuple[bytes, bytes, bytes]
"""Files of the frame strip, the spectrogram and the copy. Empty bytes mean that one is missing."""


@dataclass(frozen=True)
class PictureOptions:
    """make: whether there are pictures at all. copies: whether clips get a small copy to play. inline: bytes of
    pictures and copies that the page may contain; if there are more, all are in a folder next to it. workers:
    processes.
    timeout: seconds that one clip may take. memory: GiB that one process may hold."""

    make: bool = True
    copies: bool = False
    inline: int = 20_000_000
    workers: int = 1
    timeout: float = 60.0
    memory: float = 4.0


def draw_all(
    jobs: Iterable[Job],
    total: int,
    into: PictureFiles,
    options: PictureOptions,
    progress: Progress,
    make: Callable[[Job], Drawn],
    rescue: Callable[[Job], Drawn] | None = None,
) -> int:
    """Draws clips in worker processes. Returns how many could not be drawn: they have no pictures.

    rescue: draws clips on which a worker process was lost.
    """
    failed = 0
    memory = int(options.memory * 2**30) or None
    with DecodePool(options.workers, make, options.timeout, rescue=rescue, memory=memory) as pool:
        for done, outcome in enumerate(pool.imap(jobs, ordered=False), 1):
            if outcome.value is None:
                failed += 1
            else:
                into.add(outcome.item.index, outcome.value)
            progress(done, total)
    return failed


def draw_file(job: PictureJob, readers: tuple[str, ...] = READERS) -> Drawn:
    """The pictures of a part of a file. Raises MediaError."""
    seconds = min(max(job.end - job.start, 0.1), MAX_SECONDS)
    features = FeatureSettings(seconds=seconds, audio_frames=max(1, round(seconds * 100)), frames=FRAMES)
    clip = load_clip(job.path, ClipSettings(features, FRAMES), readers, job.start, job.start + seconds)
    heard = (
        round((clip.end - clip.start - WINDOW_SECONDS) / HOP_SECONDS) + 1
    )  # rows of the fbank without padding
    strip, spectrogram = draw(clip.fbank[: max(1, heard)], clip.frames)
    return strip, spectrogram, small_copy(job.path, job.start, job.start + seconds) if job.copy else b""


def draw_file_carefully(job: PictureJob) -> Drawn:
    """Like `draw_file`, without decord and without a copy, for files on which a worker was lost."""
    return draw_file(PictureJob(job.index, job.path, job.start, job.end), SAFE_READERS)


def draw(fbank: np.ndarray, frames: np.ndarray | None) -> tuple[bytes, bytes]:
    """WebP of the frame strip (empty without frames) and of the spectrogram.

    fbank: (T, F), any scale. frames: uint8 (N, 3, S, S).
    """
    strip = b""
    if frames is not None and len(frames):
        chosen = frames[np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)]
        picture = Image.new("RGB", (SIDE * FRAMES, SIDE))
        for place in range(FRAMES):
            frame = chosen[min(place, len(chosen) - 1)].transpose(1, 2, 0)
            picture.paste(
                Image.fromarray(np.ascontiguousarray(frame)).resize((SIDE, SIDE)), (place * SIDE, 0)
            )
        strip = _webp(picture)
    heard = np.asarray(fbank, np.float32).T[::-1]  # high frequencies on top
    low, high = np.percentile(heard, (10, 99.8))
    share = np.clip((heard - low) / max(high - low, 1e-6), 0, 1) * (len(COLOURS) - 1)
    colours = np.stack([np.interp(share, range(len(COLOURS)), COLOURS[:, c]) for c in range(3)], -1).astype(
        np.uint8
    )
    return strip, _webp(Image.fromarray(colours).resize(SPECTROGRAM))


def _webp(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "webp", quality=QUALITY, method=4)
    return file.getvalue()


class PictureFiles:
    """The pictures of a page: in the page up to `inline` bytes; if there are more, all in the folder `NAME_files` next
    to `page`.

    The names of files depend on their content, so that the files of an older page stay complete until the new page is
    written. `clean` then removes files that the page does not use.
    """

    def __init__(self, page: Path, inline: int) -> None:
        self.folder = page.with_name(f"{page.stem}_files")
        self.inline = inline
        self._size = 0
        self._held: dict[int, Drawn] = {}
        self._names: dict[int, tuple[str, ...]] = {}

    def add(self, index: int, drawn: Drawn) -> None:
        """Stores the pictures of a clip. Raises EvacapError if they cannot be written."""
        self._size += sum(map(len, drawn))
        self._held[index] = drawn
        if self._size > self.inline:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                while self._held:
                    place, files = self._held.popitem()
                    self._names[place] = tuple(map(self._write, files, KINDS))

    def urls(self, index: int) -> tuple[str, str, str]:
        """The URLs for `Clip.pictures`."""
        if index in self._names:
            folder = quote(self.folder.name, safe="")
            strip, spectrogram, copy = (f"./{folder}/{name}" if name else "" for name in self._names[index])
        else:
            files = self._held.get(index, (b"", b"", b""))
            strip, spectrogram, copy = (
                _data_url(data, kind) for data, kind in zip(files, KINDS, strict=True)
            )
        return strip, spectrogram, copy

    def clean(self) -> None:
        """Removes the files of older pages, and the folder if it is empty."""
        kept = {name for names in self._names.values() for name in names}
        with suppress(OSError):
            for path in self.folder.iterdir():
                if FILE_NAMES.fullmatch(path.name) and path.name not in kept:
                    path.unlink()
            self.folder.rmdir()  # fails if it contains other files

    def _write(self, data: bytes, kind: str) -> str:
        if not data:
            return ""
        name = f"{hashlib.blake2b(data, digest_size=12).hexdigest()}.{kind}"
        path = self.folder / name
        if not path.exists():
            with written_whole(path, sync=False) as aside:
                aside.write_bytes(data)
        return name


def _data_url(data: bytes, kind: str) -> str:
    mime = "video" if kind == "webm" else "image"
    return f"data:{mime}/{kind};base64,{base64.b64encode(data).decode()}" if data else ""
