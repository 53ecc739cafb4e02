"""A folder of real recordings (ESC-50's layout) as additional voices: metadata, filters and a cache of waves."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from evacap_cli.errors import MediaError, UsageError
from evacap_cli.world.dsp import SAMPLE_RATE, Wave

OPEN_LICENSES = ("CC0", "CC-BY")  # licences that allow training of a redistributed model


@dataclass
class RecordingBank:
    """Recordings by category. Waves are decoded on first use and cached (about 320 KB each)."""

    folder: Path
    categories: dict[str, tuple[str, ...]]  # category -> files, sorted by name
    rows: dict[str, dict[str, str]]  # file -> its row of the metadata
    _waves: dict[str, Wave] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        folds: Sequence[int] | None = None,
        licenses: Sequence[str] | None = None,
    ) -> RecordingBank:
        """Reads `metadata.csv` (columns file, category, optionally fold and license); the audio is in `audio/`.

        `folds` and `licenses` keep only rows with one of these values. Raises UsageError if the folder, its metadata
        or its columns are missing, or if no row is left.
        """
        folder = Path(folder)
        table = folder / "metadata.csv"
        if not folder.is_dir():
            raise UsageError(
                f"recordings: {folder} is not a folder", "Give a folder with metadata.csv and audio/."
            )
        if not table.is_file():
            raise UsageError(
                f"recordings: {folder} has no metadata.csv",
                "Create one with the columns file,category and optionally fold,license.",
            )
        with open(table, newline="", encoding="utf-8-sig") as f:
            rows = list(csv.DictReader(f))
        columns = rows[0].keys() if rows else ()
        wanted = ["file", "category", *(["fold"] if folds else []), *(["license"] if licenses else [])]
        missing = [c for c in wanted if c not in columns]
        if missing:
            raise UsageError(
                f"recordings: {table} has no column {', '.join(missing)}",
                f"It has: {', '.join(columns) or 'no rows'}.",
            )
        if folds:
            kept = {str(x) for x in folds}
            rows = [r for r in rows if str(r["fold"]).strip() in kept]
        if licenses:
            rows = [r for r in rows if str(r["license"]).strip() in set(licenses)]
        if not rows:
            raise UsageError(
                f"recordings: no row of {table} "
                f"has fold {list(folds or [])} and license {list(licenses or [])}",
                "Use folds and licenses that are in the table.",
            )
        names: dict[str, list[str]] = {}
        for row in rows:
            names.setdefault(row["category"].strip(), []).append(row["file"])
        ordered = {c: tuple(sorted(files)) for c, files in sorted(names.items())}
        return cls(folder, ordered, {r["file"]: r for r in rows})

    def wave(self, file: str) -> Wave:
        """The decoded file without leading and trailing silence: (S,) float32, 16 kHz, unit peak."""
        if file not in self._waves:
            path = self.folder / "audio" / file
            if not path.exists():
                path = self.folder / file
            self._waves[file] = trim(decode(path))
        return self._waves[file]


def decode(path: Path) -> Wave:
    """Decodes a file to (S,) float32 at 16 kHz mono. Raises MediaError."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise MediaError(f"{path}: no audio track")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            parts = [
                out.to_ndarray().reshape(-1)
                for frame in container.decode(audio=0)
                for out in resampler.resample(frame)
            ]
            parts += [out.to_ndarray().reshape(-1) for out in resampler.resample(None)]
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot be read as audio ({error})") from error
    if not parts:
        raise MediaError(f"{path}: has no samples")
    return np.concatenate(parts).astype(np.float32)


def trim(x: Wave, below: float = 0.004) -> Wave:
    """Trims both ends where the level is below `below` of the peak, and scales the rest to unit peak."""
    peak = float(np.abs(x).max()) if len(x) else 0.0
    if peak <= 0:
        return np.zeros(SAMPLE_RATE // 10, np.float32)
    x = x / np.float32(peak)
    loud = np.flatnonzero(np.abs(x) > below)
    return x[loud[0] : loud[-1] + 1]


def stretch_to(
    wave: Wave, seconds: float, speed: float, offset: float, sustained: bool, g: np.random.Generator
) -> Wave:
    """Fits a recording to `seconds`. It is resampled by `speed`. If it is longer, it is cut at `offset` (0 to 1 of the
    excess); if it is shorter, it is repeated (cross-faded if `sustained`, otherwise with pauses)."""
    n = max(1, round(seconds * SAMPLE_RATE))
    if abs(speed - 1) > 0.004:
        places = np.arange(0, len(wave) - 1, speed)
        wave = np.interp(places, np.arange(len(wave)), wave).astype(np.float32)
    if len(wave) >= n:
        first = int(offset * (len(wave) - n))
        return wave[first : first + n].copy()
    out = np.zeros(n, np.float32)
    overlap = min(len(wave) // 4, SAMPLE_RATE // 4) if sustained else min(len(wave) // 8, SAMPLE_RATE // 100)
    piece = wave.copy()
    ramp = np.linspace(0, 1, overlap, dtype=np.float32)
    if overlap:
        piece[:overlap] *= np.sqrt(ramp)
        piece[-overlap:] *= np.sqrt(ramp[::-1])
    at = 0
    while at < n:
        stop = min(n, at + len(piece))
        out[at:stop] += piece[: stop - at]
        at += len(piece) - overlap if sustained else len(piece) + int(g.uniform(0.2, 1.1) * SAMPLE_RATE)
    return out
