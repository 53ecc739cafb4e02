"""Times captioning by stage and number of frames: Figure 2."""

from __future__ import annotations

import csv
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evacap_cli.atomic import written_whole
from evacap_cli.errors import EvacapError, MediaError, UsageError
from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.media import TRACKS, is_track
from evacap_cli.model import CaptionModel, build_model, load_checkpoint, load_preset, preset_names
from evacap_cli.model.packing import pack
from evacap_cli.report.latency import TimingRow, Timings
from evacap_cli.report.paper_results import printed_ratio
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.clips import ClipSettings, load_clip
from evacap_cli.tasks.devices import pick_device, pick_precision

STAGES = ("encode audio", "encode video", "fuse", "generate")
DECODE = "decode"  # from a file to features
DECODINGS = ("cached", "recompute")
PRESETS = ("evacap-base", "avcap-base", "audio-base")
GPU_RUNS, CPU_RUNS = (5, 10), (1, 3)  # warm-up and timed runs: the paper's, and fewer for slow CPUs
OUTLIER = 1.5  # times the median
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SpeedOptions:
    """What is timed; None: a value that suits the device. frames: frames per clip, 0 for audio only."""

    frames: tuple[int, ...] = (0, 1, 4, 8, 18)
    decodings: tuple[str, ...] = ("cached",)
    batch_size: int = 1
    beam: int = 4
    words: int = 20
    warmup: int | None = None
    runs: int | None = None
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    threads: int | None = None
    audio_track: str | None = None
    """The audio track of real files, see `ClipSettings`."""

    def __post_init__(self) -> None:
        wrong = [
            f"--{name} {value}: must be {least} or more"
            for name in ("batch-size", "beam", "words", "warmup", "runs", "threads")
            if (value := getattr(self, name.replace("-", "_"))) is not None
            and value < (least := 0 if name == "warmup" else 1)
        ]
        if not self.frames or any(count < 0 for count in self.frames):
            wrong.append("--frames: give numbers of 0 or more")
        unknown = [name for name in self.decodings if name not in DECODINGS]
        wrong += [f"--decoding {name}: must be one of {', '.join(DECODINGS)}" for name in unknown]
        if self.audio_track is not None and not is_track(self.audio_track):
            wrong.append(f"--audio-track {self.audio_track!r} must be {TRACKS}")
        if wrong:
            raise UsageError("; ".join(wrong))


def measure(models: Sequence[str], options: SpeedOptions, progress: Progress | None = None) -> Timings:
    """Times models (presets with random weights, or checkpoints) on random clips.

    All captions have the same number of words, because random weights would stop anywhere. Raises UsageError.
    """
    device, autocast = _device_and_precision(options)
    rows: list[TimingRow] = []
    for name in models:
        timed_model = TimedModel.open(name)  # one model at a time in memory
        jobs = [
            (n, decoding)
            for n in (options.frames if timed_model.has_picture else (0,))
            for decoding in options.decodings
        ]
        for done, (frames, decoding) in enumerate(jobs):
            if progress:
                progress(f"{timed_model.name}, {frames} frames, {decoding}", done, len(jobs))
            row = TimingRow(timed_model.name, timed_model.fusion, timed_model.preset, frames, decoding)
            rows.append(row)
            try:
                model = timed_model.model(frames, device, autocast, options.compile)
            except UsageError as error:
                row.note = error.message
                continue
            features = FeatureSettings.from_dict(timed_model.features)
            fbank, pixels = noise_clips(features, frames, options.batch_size, device)
            _time_runs(
                row, partial(_time_stages, model, fbank, pixels, decoding, options, autocast), options, device
            )
    _compare(rows)
    return Timings(asdict(options), environment(device, autocast), rows)


def noise_clips(
    features: FeatureSettings, frames: int, batch_size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns random fbank (B, T, F) and pixels (B, N, 3, S, S), None without frames."""
    generator = torch.Generator().manual_seed(0)
    fbank = torch.randn(batch_size, features.audio_frames, features.mel_bins, generator=generator).to(device)
    if not frames:
        return fbank, None
    size = features.image_size
    return fbank, torch.randn(batch_size, frames, 3, size, size, generator=generator).to(device)


def measure_files(
    models: Sequence[str], folder: Path, options: SpeedOptions, progress: Progress | None = None
) -> Timings:
    """Times models on real files, one at a time, including decoding. Every file is a run. Raises EvacapError."""
    device, autocast = _device_and_precision(options)
    paths = [source.path for source in find_sources([folder])]
    rows = []
    reason = ""
    for timed_model in (TimedModel.open(name) for name in models):
        features = FeatureSettings.from_dict(timed_model.features)
        frames = features.frames if timed_model.has_picture else 0
        model = timed_model.model(frames, device, autocast, options.compile)
        for decoding in options.decodings:
            row = TimingRow(timed_model.name, timed_model.fusion, timed_model.preset, frames, decoding)
            for number, path in enumerate([paths[0], *paths]):  # the first file also serves as warm-up
                if progress:
                    progress(f"{timed_model.name}, {decoding}", number, len(paths) + 1)
                began = time.perf_counter()
                try:
                    clip = load_clip(path, ClipSettings(features, frames, audio_track=options.audio_track))
                except MediaError as error:
                    reason = f"{path}: {error.message}"
                    continue
                fbank = torch.from_numpy(clip.fbank)[None].to(device)
                pixels = None
                if clip.frames is not None:
                    pixels = normalize_frames(torch.from_numpy(clip.frames)[None].to(device), features)
                laps = {DECODE: time.perf_counter() - began}
                laps |= _time_stages(model, fbank, pixels, decoding, options, autocast)
                if number:
                    row.raw.append({**laps, "all": sum(laps.values())})
            if not row.raw:
                raise EvacapError(
                    f"{folder}: none of its {len(paths)} files could be decoded; the last: {reason}",
                    "use another folder",
                )
            _summarise(row, 1)
            rows.append(row)
    return Timings(asdict(options), environment(device, autocast), rows)


@dataclass
class TimedModel:
    """A model to time, built for any number of frames."""

    name: str
    preset: str
    fusion: str
    features: dict[str, Any]
    built: CaptionModel | None
    _compiled: bool = False

    @classmethod
    def open(cls, name: str) -> TimedModel:
        if name in preset_names():
            preset = load_preset(name)
            features = FeatureSettings.from_dict(preset.features).to_dict()
            return cls(name, name, preset.model.fusion, features, None)
        checkpoint = load_checkpoint(name)
        preset_name = str(checkpoint.metadata.get("preset", ""))
        return cls(
            checkpoint.name,
            preset_name,
            checkpoint.model.config.fusion,
            checkpoint.features,
            checkpoint.model,
        )

    @property
    def has_picture(self) -> bool:
        return self.fusion != "audio-only"

    def model(
        self, frames: int, device: torch.device, autocast: torch.dtype | None, compiled: bool
    ) -> CaptionModel:
        """Returns the model packed for inference, or compiled. Raises UsageError like `plain`."""
        model = self.plain(frames).to(device).eval()
        if not compiled:
            return pack(model, autocast)
        if not self._compiled:
            model.compile_blocks()
            self._compiled = True
        return model

    def plain(self, frames: int) -> CaptionModel:
        """Returns the model, neither packed nor compiled. Raises UsageError if it does not support `frames`."""
        if self.built is None or (frames and self._in_pairs and self.built.config.encoder.frames != frames):
            if self.name not in preset_names():
                own = self.built.config.encoder.frames if self.built else 0
                raise UsageError(f"takes {own} frames, in pairs")
            config = load_preset(self.name).model
            encoder = replace(config.encoder, frames=frames or config.encoder.frames)
            if problems := encoder.problems():
                raise UsageError("; ".join(problems))
            torch.manual_seed(0)
            self.built = build_model(replace(config, encoder=encoder))
            self._compiled = False
        return self.built

    @property
    def _in_pairs(self) -> bool:
        return self.built is not None and self.built.config.encoder.picture_tokens == "tubelet"


def _device_and_precision(options: SpeedOptions) -> tuple[torch.device, torch.dtype | None]:
    device = pick_device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return device, pick_precision(options.precision, device)


@torch.inference_mode()
def _time_stages(
    model: CaptionModel,
    fbank: torch.Tensor,
    pixels: torch.Tensor | None,
    decoding: str,
    options: SpeedOptions,
    autocast: torch.dtype | None,
) -> dict[str, float]:
    """Returns the seconds of each stage of one batch."""
    device, laps = fbank.device, {}

    def lap(stage: str, since: float) -> float:
        wait_for(device)
        now = time.perf_counter()
        laps[stage] = now - since
        return now

    with torch.autocast(device.type, autocast, enabled=autocast is not None):
        wait_for(device)
        at = time.perf_counter()
        heard = model.encode_audio(fbank)
        at = lap("encode audio", at)
        seen = None
        if pixels is not None and model.has_picture:
            seen = model.encode_picture(pixels)
            at = lap("encode video", at)
        memory = model.fuse(heard, seen)
        at = lap("fuse", at)
        model.decode(memory, options.beam, options.words, options.words, cached=decoding == "cached")
        lap("generate", at)
    return laps


def wait_for(device: torch.device) -> None:
    """Waits until a device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _time_runs(
    row: TimingRow, run: Callable[[], dict[str, float]], options: SpeedOptions, device: torch.device
) -> None:
    defaults = GPU_RUNS if device.type == "cuda" else CPU_RUNS
    warmup, runs = (
        given if given is not None else defaults[i] for i, given in enumerate((options.warmup, options.runs))
    )
    reset_peak(device)
    for number in range(warmup + runs):
        laps = run()
        if number >= warmup:
            row.raw.append({**laps, "all": sum(laps.values())})
    row.peak_bytes = peak_bytes(device)
    _summarise(row, options.batch_size)


def _summarise(row: TimingRow, batch_size: int) -> None:
    stages = list(dict.fromkeys(stage for laps in row.raw for stage in laps))
    row.seconds = {
        stage: float(np.median([laps[stage] for laps in row.raw if stage in laps])) for stage in stages
    }
    whole = np.array([laps["all"] for laps in row.raw])
    middle = row.seconds["all"]
    row.p95 = float(np.quantile(whole, 0.95))
    row.spread = float(np.ptp(whole) / middle)
    row.outliers = int((whole > OUTLIER * middle).sum())
    row.clips_per_second = batch_size / middle


def _compare(rows: Sequence[TimingRow]) -> None:
    """Sets each row's time relative to audio only: the audio-only model, or else the same model without frames."""
    for row in rows:
        alone = [
            other
            for other in rows
            if other.seconds and other.decoding == row.decoding and not other.frames
            and (other.fusion == "audio-only" or other.model == row.model)
        ]  # fmt: skip
        base = next((other for other in alone if other.fusion == "audio-only"), alone[0] if alone else None)
        if base is not None and row.seconds:
            row.to_audio_only = row.seconds["all"] / base.seconds["all"]
        row.paper = printed_ratio(row.preset, row.frames)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not always permitted; the peak is then that of the whole process
            return


def peak_bytes(device: torch.device) -> int | None:
    """Returns the peak memory since `reset_peak`, of a GPU or of this process; None if it is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if device.type != "cpu" or not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def environment(device: torch.device, autocast: torch.dtype | None) -> dict[str, Any]:
    """Describes the machine and software of a measurement."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "precision": "fp32" if autocast is None else str(autocast).removeprefix("torch."),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def processor() -> str:
    """Returns the name of the CPU, if the system provides it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "unknown"


def write_times(timed: Timings, folder: Path, page: str) -> None:
    """Writes `speed.csv`, `speed.json` with every run, and `speed.md` (`page`)."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "speed.md") as aside:
        aside.write_text(page, "utf-8")
    with written_whole(folder / "speed.json") as aside:
        content = {"options": timed.options, "environment": timed.environment,
                   "rows": [asdict(row) for row in timed.rows]}  # fmt: skip
        aside.write_text(json.dumps(content, indent=1), "utf-8")
    with written_whole(folder / "speed.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        stages = [DECODE, *STAGES, "all"]
        numbers = ("p95", "spread", "outliers", "clips_per_second", "peak_bytes", "to_audio_only", "paper")
        table.writerow(["model", "frames", "decoding", *stages, *numbers, "note"])
        for row in timed.rows:
            cells = [row.seconds.get(stage) for stage in stages] + [getattr(row, name) for name in numbers]
            table.writerow([row.model, row.frames, row.decoding,
                            *("" if cell is None else f"{cell:.6g}" for cell in cells), row.note])  # fmt: skip
