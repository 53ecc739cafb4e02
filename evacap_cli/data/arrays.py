"""Model-ready clips on disk, in chunks of plain arrays that training maps into memory.

A chunk is made aside and renamed when whole, so that a build that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evacap_cli.errors import EvacapError

CHUNK = 64


@dataclass
class Sample:
    """fbank: float16 (T, F), normalised. frames: uint8 (N, 3, S, S), or None for a clip without a picture."""

    key: str
    fbank: np.ndarray
    frames: np.ndarray | None
    captions: Sequence[str]
    labels: dict[str, Any] = field(default_factory=dict)


def build_arrays(
    folder: Path,
    items: Sequence[Any],
    make: Callable[[Any], Sample],
    fingerprint: str,
    frame_shape: tuple[int, ...],
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ClipArrays:
    """Makes a sample of every item in worker processes and writes them to `folder`.

    `make` must be importable by a worker; an `EvacapError` from it leaves the item out and is listed in the chunk.
    `fingerprint` names everything that decides the contents: a folder with another one is refused (`EvacapError`).
    frame_shape: (N, 3, S, S).
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "arrays.json"
    wanted = {"fingerprint": fingerprint, "items": len(items)}
    if note.exists() and (found := json.loads(note.read_text())) != wanted:
        raise EvacapError(
            f"{folder}: made with {found}, wanted {wanted}", "give another folder, or delete this one"
        )
    note.write_text(json.dumps(wanted))
    starts = range(0, len(items), CHUNK)
    jobs = [(str(folder / f"chunk-{s // CHUNK:05d}"), list(items[s : s + CHUNK])) for s in starts]
    todo = [job for job in jobs if not Path(job[0]).exists()]
    done = len(jobs) - len(todo)
    write = partial(_write_chunk, make=make, frame_shape=frame_shape)
    with ProcessPoolExecutor(max(workers, 1), multiprocessing.get_context("spawn")) as pool:
        for finished in as_completed([pool.submit(write, job) for job in todo]):
            finished.result()
            done += 1
            if progress:
                progress(min(done * CHUNK, len(items)), len(items))
    return ClipArrays(folder)


def _write_chunk(
    job: tuple[str, list[Any]], make: Callable[[Any], Sample], frame_shape: tuple[int, ...]
) -> int:
    place, items = Path(job[0]), job[1]
    samples, failed = [], []
    for item in items:
        try:
            samples.append(make(item))
        except EvacapError as error:
            failed.append({"item": str(item), "error": error.message})
    aside = place.with_name(place.name + ".tmp")
    aside.mkdir(exist_ok=True)
    blank = np.zeros(frame_shape, np.uint8)
    if samples:
        np.save(aside / "fbank.npy", np.stack([s.fbank for s in samples]).astype(np.float16))
        np.save(aside / "frames.npy", np.stack([blank if s.frames is None else s.frames for s in samples]))
    clips = [
        {"key": s.key, "captions": list(s.captions), "labels": s.labels, "picture": s.frames is not None}
        for s in samples
    ]
    (aside / "clips.json").write_text(json.dumps({"clips": clips, "failed": failed}))
    aside.rename(place)
    return len(samples)


class ClipArrays:
    """Reads what `build_arrays` wrote. Indexing is over the clips that could be made."""

    def __init__(self, folder: Path) -> None:
        self.clips: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []
        self._where: list[tuple[int, int]] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        for chunk in sorted(p for p in folder.glob("chunk-*") if p.suffix != ".tmp"):
            note = json.loads((chunk / "clips.json").read_text())
            self.failed += note["failed"]
            if note["clips"]:
                self._where += [(len(self._arrays), row) for row in range(len(note["clips"]))]
                self._arrays.append(
                    tuple(np.load(chunk / f"{n}.npy", mmap_mode="r") for n in ("fbank", "frames"))
                )
            self.clips += note["clips"]

    def __len__(self) -> int:
        return len(self.clips)

    def captions(self, index: int) -> list[str]:
        return self.clips[index]["captions"]

    def fbank(self, rows: Sequence[int]) -> np.ndarray:
        """float16 (B, T, F)."""
        return np.stack([self._arrays[c][0][r] for c, r in (self._where[i] for i in rows)])

    def frames(self, rows: Sequence[int]) -> np.ndarray:
        """uint8 (B, N, 3, S, S); zeros for clips without a picture."""
        return np.stack([self._arrays[c][1][r] for c, r in (self._where[i] for i in rows)])

    def has_picture(self, rows: Sequence[int]) -> np.ndarray:
        """bool (B,)."""
        return np.array([self.clips[i]["picture"] for i in rows])
