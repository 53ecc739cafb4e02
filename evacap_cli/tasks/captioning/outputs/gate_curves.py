"""Saves gate and entropy over time for every clip, as numbers and as a plot."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from evacap_cli.atomic import written_whole
from evacap_cli.data.files import disk_errors
from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings, frame_times
from evacap_cli.tasks.captioning.outputs.results import CaptionResult, column_seconds, mean_over_frequency
from evacap_cli.tasks.captioning.outputs.rows import readable_path

if TYPE_CHECKING:
    from evacap_cli.model import Checkpoint
    from evacap_cli.tasks.captioning.inputs.sources import Source
    from evacap_cli.tasks.captioning.outputs.rows import Row
    from evacap_cli.tasks.clips import Clip

CURE = "fix this, then run the same command again to resume"
MAX_NAME_LENGTH = 90  # characters of a path that a plot shows, from its end


def check_gate(checkpoint: Checkpoint) -> None:
    """Raises UsageError if a model has no gate."""
    if not checkpoint.model.has_gate:
        raise UsageError(
            f"--curves: {checkpoint.name} has no gate (its fusion is {checkpoint.model.config.fusion})",
            "use a model with a gate, such as demo, or omit --curves",
        )


class GateCurves:
    """A folder with `NAME.npz` and `NAME.png` for every clip. NAME is the input's `relative` and, if `segmented`,
    `.START-END` in seconds.

    The npz has `times` (seconds on the file's clock, the center of each column of audio tokens), `gate` and `entropy`
    (float32, same length, NaN if missing), `caption`, `video`, `start` and `end`. With `fusion: adaptive` it also has
    `words` (of the caption) and `confidences` (float32, same length: how much of each word comes from the picture).
    Raises UsageError if the model has no gate. `log` gets messages for the user.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        segmented: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> None:
        check_gate(checkpoint)
        self.folder, self.segmented, self.log = folder, segmented, log or (lambda _: None)
        self.features = FeatureSettings.from_dict(checkpoint.features)
        grid = checkpoint.model.config.encoder.curve_grid
        self.column = column_seconds(grid, self.features.audio_frames)
        self.columns = grid[1]

    def base_path(self, source: Source, clip: Clip) -> Path:
        """Returns the path of both files without `.npz` and `.png`, always below the folder."""
        name = (source.relative or os.path.basename(source.path)).replace("\0", "")
        try:
            os.fsencode(name)
        except UnicodeEncodeError:  # lone surrogates, which file systems reject
            name = readable_path(name)
        relative = PurePath(name)
        parts = [part for part in relative.parts if part not in ("..", relative.anchor)] or ["input"]
        if self.segmented:
            parts[-1] += f".{_seconds(clip.start)}-{_seconds(clip.end)}"
        return self.folder.joinpath(*parts)

    def add(self, source: Source, clip: Clip, row: Row, result: CaptionResult) -> None:
        """Saves a captioned clip, and replaces existing files. Raises EvacapError if the disk fails."""
        base_path = self.base_path(source, clip)
        numbers = self.numbers(clip, result)
        with disk_errors(base_path, CURE):
            base_path.parent.mkdir(parents=True, exist_ok=True)
            about: dict[str, object] = {
                "caption": result.caption,
                "video": row.video,
                "start": clip.start,
                "end": clip.end,
            }
            if result.confidences:
                words, values = zip(*result.confidences, strict=True)
                about |= {"words": np.array(words), "confidences": np.array(values, np.float32)}
            _write(base_path, ".npz", lambda aside: _save(aside, {**numbers, **about}))
            try:
                _write(base_path, ".png", lambda aside: self._draw(aside, source, clip, result, numbers))
            except OSError:
                raise
            except Exception as error:  # a missing plot does not stop a run
                name = readable_path(source.name)
                self.log(f"{name}: the gate curve was not plotted: {type(error).__name__}: {error}")

    def numbers(self, clip: Clip, result: CaptionResult) -> dict[str, np.ndarray]:
        """Returns `times`, `gate` and `entropy`."""
        length = len(mean_over_frequency(np.empty(self.columns), (1, self.columns), self.features.audio_frames,
                               clip.end - clip.start))  # fmt: skip
        # a clip without a picture also has a gate, which is closed
        gate, entropy = (
            np.full(length, math.nan if mean is None else mean, np.float32) if curve is None else curve
            for curve, mean in ((result.gate_curve, result.gate), (result.entropy_curve, result.entropy))
        )
        times = clip.start + (np.arange(length) + 0.5) * self.column
        return {
            "times": times,
            "gate": np.asarray(gate, np.float32),
            "entropy": np.asarray(entropy, np.float32),
        }

    def _draw(
        self, path: Path, source: Source, clip: Clip, result: CaptionResult, numbers: dict[str, np.ndarray]
    ) -> None:
        from evacap_cli.report.gate_figure import GateView, draw_gates

        count = 0 if clip.frames is None else len(clip.frames)
        seen = frame_times(clip.end - clip.start, self.features, count)
        name = readable_path(source.name)
        name = name if len(name) <= MAX_NAME_LENGTH else f"…{name[-MAX_NAME_LENGTH:]}"
        view = GateView(
            result.caption,
            f"{name}, {_seconds(clip.start)}-{_seconds(clip.end)} s",
            clip.start,
            clip.end,
            fbank=clip.fbank,
            frames=clip.frames,
            frame_times=clip.start + np.array(seen),
            note=clip.picture_error,
            high=self.features.sample_rate / 2,
            times=numbers["times"],
            gate=numbers["gate"],
            entropy=numbers["entropy"],
            words=result.confidences,
        )
        draw_gates(view, path)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _save(path: Path, values: dict[str, object]) -> None:
    with path.open("wb") as file:  # given a name, numpy would append .npz
        np.savez(file, **values)  # type: ignore[arg-type]


def _write(base_path: Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Writes a file atomically. Does not sync, because thousands of files would each wait for the disk."""
    path = base_path.with_name(base_path.name + suffix)
    with written_whole(path, sync=False) as aside:
        write(aside)
