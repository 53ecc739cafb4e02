"""Gate and entropy over time, from the folder of `evacap caption --curves`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

POINTS = 64  # of a curve in a page
Key = tuple[str, float | None, float | None]
Curve = tuple[tuple[float | None, ...], ...]
Confidences = tuple[tuple[str, float], ...]
NOTHING: tuple[Curve, Confidences] = ((), ())


class CurveFiles:
    """The files of a folder of `--curves`, by the file, start and end of their clip. Only their names are in memory.

    A damaged file is left out.
    """

    def __init__(self, folder: Path | None) -> None:
        self._paths: dict[Key, Path] = {}
        for path in folder.rglob("*.npz") if folder is not None and folder.is_dir() else ():
            with suppress(Exception), np.load(path, allow_pickle=False) as kept:
                key = str(kept["video"]), round(float(kept["start"]), 3), round(float(kept["end"]), 3)
                self._paths[key] = path

    def read(self, key: Key) -> tuple[Curve, Confidences]:
        """Gate and entropy of a clip, and the confidence of each word where the model has it. Both are empty for a clip
        without a file."""
        path = self._paths.get(key)
        if path is None:
            return NOTHING
        with suppress(Exception), np.load(path, allow_pickle=False) as kept:
            confidences: Confidences = ()
            if "words" in kept:
                values = (round(float(value), 2) for value in kept["confidences"])
                confidences = tuple(zip(map(str, kept["words"]), values, strict=True))
            return tuple(_curve(kept[name]) for name in ("gate", "entropy")), confidences
        return NOTHING


def _curve(values: np.ndarray) -> tuple[float | None, ...]:
    chosen = values[np.linspace(0, len(values) - 1, min(POINTS, len(values))).round().astype(int)]
    return tuple(round(float(value), 2) if np.isfinite(value) else None for value in chosen)
