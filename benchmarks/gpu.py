"""Measures evacap on a GPU against its aims, in one run of at most 8 minutes:

    git clone https://github.com/JongSuk1/AVCap && pip install six boto3 requests
    python benchmarks/gpu.py [--avcap AVCap] [--out gpu.json]

Prints a table of the aims with `pass`, `miss` or `not measured` and the reason, and further values without an aim.
Models have full size and random weights, 18 frames and captions of 20 words with beam size 4, except that captions of
different precisions are compared with the packaged models on `sample_data`. `--dry-run` runs every measurement with
small sizes on any device: it tests the script, and its values are marked as such.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from against_avcap import public_model
from limit import fastest, operations
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from training_step import measure_step

from evacap_cli.features import FeatureSettings
from evacap_cli.model.attention import attention_path, entropy_attention
from evacap_cli.report.latency import TimingRow
from evacap_cli.report.tables import markdown
from evacap_cli.tasks.captioning.engine import Captioner
from evacap_cli.tasks.devices import PRECISIONS, pick_device, pick_precision
from evacap_cli.tasks.speed import SpeedOptions, TimedModel, environment, measure, noise_clips, wait_for

SAMPLES = Path(__file__).parents[1] / "sample_data" / "videos"
NOMINAL = {"H200": 989e12, "A100": 312e12}
"""Dense bf16 operations per second by name of the card, from NVIDIA's data sheets. For others, the rate of a large
product is measured."""


@dataclass(frozen=True)
class Sizes:
    preset: str = "evacap-base"
    frames: int = 18
    words: int = 20
    batch: int = 64
    training_batch: int = 48
    runs: int = 10
    attention: tuple[int, int, int, int] = (12, 512, 3528, 64)
    """Heads, queries, keys and head size."""
    product: int = 8192
    models: tuple[str, ...] = ("demo", "entropy-demo")
    clips: int | None = None
    starts: int = 2


DRY = Sizes("evacap-tiny", 2, 3, 2, 2, 2, (2, 48, 40, 16), 256, ("entropy-demo",), 1, 1)


@dataclass(frozen=True)
class Aim:
    """A value that is to be at most, or at least, `bound`."""

    text: str
    bound: float
    at_least: bool

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


AIMS = {
    "one clip": Aim("evacap-base, 18 frames, batch size 1: ms", 12, False),
    "public": Aim("times the speed of the public AVCap, 18 frames, batch size 1", 80, True),
    "batch": Aim("evacap-base, 18 frames, batch size 64: clips/s", 600, True),
    "picture tower": Aim("picture tower, batch size 64: share of the bf16 peak", 0.6, True),
    "training": Aim("training evacap-base, bf16, batch size 48: clips/s", 150, True),
    "training memory": Aim("training evacap-base, bf16, batch size 48: GB", 40, False),
    "attention bf16": Aim("entropy_attention / plain fused attention, bf16", 3, False),
    "attention fp32": Aim("entropy_attention / plain fused attention, fp32", 3, False),
    "captions": Aim("share of captions in fp32, bf16 and fp16 equal to the CPU's in fp32", 1, True),
    "first caption": Aim("`evacap caption` of one file with demo, from start to exit: s", 5, False),
    "cpu": Aim("CPU: seconds per clip, after / before", 1, False),
}
"""Everything that a run is to show. What has no value at the end is `not measured`."""


TRAINING = {"plain": (False, False), "mlp_checkpointing": (False, True), "checkpointing": (True, False)}
"""Settings that trade time for memory: `checkpointing`, `mlp_checkpointing`. Both aims of training are for one of them,
the fastest that takes no more memory than its aim."""


@dataclass
class Results:
    values: dict[str, float] = field(default_factory=dict)
    """By the key of the aim."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a value is missing."""
    other: dict[str, object] = field(default_factory=dict)
    """Values without an aim."""

    def table(self, dry: bool) -> list[list[str]]:
        rows = []
        for key, aim in AIMS.items():
            value = self.values.get(key)
            if value is None:
                result = f"not measured: {self.reasons.get(key, 'no measurement ran')}"
            elif dry:
                result = "not measured: dry run with small sizes"
            else:
                result = "pass" if aim.met(value) else "miss"
            rows.append([aim.text, str(aim), "" if value is None else f"{value:.4g}", result])
        return rows


class Run:
    """The measurements on one device. Each writes what it finds to `results`."""

    def __init__(self, device: torch.device, sizes: Sizes, avcap: Path | None) -> None:
        self.device, self.sizes, self.avcap, self.results = device, sizes, avcap, Results()

    def measure(self, seconds: float) -> Results:
        """Runs the measurements until `seconds` have passed. One that fails does not stop the others."""
        began = time.perf_counter()
        for keys, estimate, measurement in self.measurements():
            if time.perf_counter() - began + estimate > seconds:
                self.miss(keys, "no time left")
                continue
            print(f"{time.perf_counter() - began:.0f} s: {', '.join(keys)}", file=sys.stderr, flush=True)
            try:
                measurement()
            except Exception as error:  # out of memory, a kernel that is missing: the others still count
                self.miss(keys, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        self.miss(("cpu",), "run benchmarks/limit.py --device cpu before and after a change, on one machine")
        self.results.other["minutes"] = round((time.perf_counter() - began) / 60, 2)
        return self.results

    def measurements(self) -> list[tuple[tuple[str, ...], float, Callable[[], None]]]:
        """Keys of the aims, an estimate in seconds, and the measurement; the most important first."""
        return [
            (("one clip",), 20, self.one_clip),
            (("public",), 30, self.public),
            (("batch", "picture tower"), 60, self.batch),
            (("attention bf16",), 5, partial(self.attention, "bf16")),
            (("attention fp32",), 5, partial(self.attention, "fp32")),
            (("training", "training memory"), 90, self.training),
            (("first caption",), 30, self.first_caption),
            (("captions",), 90, self.captions),
        ]

    def miss(self, keys: tuple[str, ...], reason: str) -> None:
        for key in keys:
            if key not in self.results.values:
                self.results.reasons[key] = reason

    def one_clip(self) -> None:
        for precision in ("fp32", "bf16"):
            row = self._timed(1, precision)
            milliseconds = {stage: round(1e3 * took, 2) for stage, took in row.seconds.items()}
            self.results.other[f"one clip, {precision}: ms by stage"] = milliseconds
        self.results.values["one clip"] = 1e3 * row.seconds["all"]
        self.results.other["one clip: GPU"] = self._launches()

    def public(self) -> None:
        if self.avcap is None:
            return self.miss(("public",), "needs --avcap")
        if "one clip" not in self.results.values:
            return self.miss(("public",), "EVACap itself was not measured")
        sizes = self.sizes
        features = FeatureSettings.from_dict(TimedModel.open("evacap-base").features)
        fbank, pixels = noise_clips(features, sizes.frames, 1, self.device)
        assert pixels is not None
        run = public_model(self.avcap, sizes.frames, self.device, sizes.words)
        seconds = fastest(partial(run, fbank, pixels.transpose(1, 2)), self.device, 3)
        self.results.other["public AVCap, fp32: ms"] = round(1e3 * seconds, 1)
        self.results.values["public"] = 1e3 * seconds / self.results.values["one clip"]

    def batch(self) -> None:
        sizes, precision = self.sizes, "bf16"
        row = self._timed(sizes.batch, precision)
        assert row.clips_per_second is not None
        self.results.values["batch"] = row.clips_per_second
        self.results.other["batch: ms by stage"] = {
            stage: round(1e3 * took, 1) for stage, took in row.seconds.items()
        }
        self.results.other["batch: peak GB"] = None if row.peak_bytes is None else row.peak_bytes / 1e9
        model = TimedModel.open(sizes.preset)
        fbank, pixels = noise_clips(
            FeatureSettings.from_dict(model.features), sizes.frames, 1, torch.device("cpu")
        )
        counted = operations(model.plain(sizes.frames).eval(), fbank, pixels, 1, 1)["encode video"]
        peak, source = self._peak()
        rate = counted * sizes.batch / row.seconds["encode video"]
        self.results.values["picture tower"] = rate / peak
        self.results.other["picture tower: TFLOP/s"] = [rate / 1e12, f"peak {peak / 1e12:.4g}, {source}"]

    def attention(self, precision: str) -> None:
        heads, queries, keys, size = self.sizes.attention
        dtype = PRECISIONS[precision] or torch.float32
        inputs = [
            torch.randn(1, heads, n, size, device=self.device, dtype=dtype) for n in (queries, keys, keys)
        ]
        leaves = [x.clone().requires_grad_() for x in inputs]

        def forward(form: Callable[..., Any]) -> Callable[[], Any]:
            return torch.no_grad()(lambda: form(*inputs))

        def both(form: Callable[..., Any]) -> Callable[[], Any]:
            def run() -> None:
                found = form(*leaves)
                parts: tuple[Tensor, ...] = found if isinstance(found, tuple) else (found,)
                torch.autograd.grad([x.float().sum() for x in parts], leaves)

            return run

        milliseconds = {
            f"{name} {what}": 1e3 * self._per_call(wrap(form))
            for what, wrap in (("forward", forward), ("forward and backward", both))
            for name, form in (("entropy", entropy_attention), ("plain", scaled_dot_product_attention))
        }
        self.results.values[f"attention {precision}"] = (
            milliseconds["entropy forward"] / milliseconds["plain forward"]
        )
        self.results.other[f"attention {precision}: ms"] = {
            "path": attention_path(self.device, dtype, size).value,
            **{name: round(value, 4) for name, value in milliseconds.items()},
        }

    def training(self) -> None:
        sizes, steps, found = self.sizes, [], {}
        for name, (blocks, mlp) in TRAINING.items():
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(self.device)
            try:
                step = measure_step(
                    sizes.preset, sizes.training_batch, "bf16", str(self.device), blocks, sizes.runs // 2, mlp
                )
            except torch.OutOfMemoryError:
                found[name] = "out of memory"
                continue
            steps.append(step)
            found[name] = f"{step['clips/s']:.4g} clips/s, {step['peak GB']:.4g} GB"
        self.results.other["training"] = found
        fits = [step for step in steps if AIMS["training memory"].met(step["peak GB"])]
        best = max(fits or steps, key=lambda step: step["clips/s"])
        self.results.values["training"] = best["clips/s"]
        self.results.values["training memory"] = best["peak GB"]

    def captions(self) -> None:
        """Of the packaged models on the sample videos."""
        paths = sorted(SAMPLES.iterdir())[: self.sizes.clips]
        same, total, found = 0, 0, {}
        for model in self.sizes.models:
            expected = self._captions(model, torch.device("cpu"), "fp32", paths)
            for precision in PRECISIONS:
                captions = self._captions(model, self.device, precision, paths)
                equal = sum(a == b for a, b in zip(captions, expected, strict=True))
                found[f"{model}, {precision}"] = f"{equal} of {len(paths)}"
                same, total = same + equal, total + len(paths)
        self.results.values["captions"] = same / total
        self.results.other["captions equal to the CPU's"] = found

    def first_caption(self) -> None:
        clip, seconds = min(SAMPLES.glob("*.mp4")), []
        with tempfile.TemporaryDirectory() as folder:
            for number in range(self.sizes.starts):  # the first run reads the disk
                out = Path(folder) / f"{number}.jsonl"
                command = [sys.executable, "-m", "evacap_cli", "caption", str(clip), "-o", str(out), "--quiet",
                           "--device", str(self.device)]  # fmt: skip
                began = time.perf_counter()
                subprocess.run(
                    command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
                )
                seconds.append(time.perf_counter() - began)
        self.results.values["first caption"] = seconds[-1]
        self.results.other["first caption: s of each run"] = [round(took, 2) for took in seconds]

    def _timed(self, batch: int, precision: str) -> TimingRow:
        sizes = self.sizes
        options = SpeedOptions((sizes.frames,), batch_size=batch, words=sizes.words, runs=sizes.runs,
                               device=str(self.device), precision=precision)  # fmt: skip
        (row,) = measure([sizes.preset], options).rows
        if row.note:
            raise RuntimeError(row.note)
        return row

    def _launches(self) -> str:
        """Kernel launches of one clip, and how long the GPU works on them."""
        if self.device.type != "cuda":
            return "not measured: needs CUDA"
        autocast = pick_precision("bf16", self.device)
        subject = TimedModel.open(self.sizes.preset)
        model = subject.model(self.sizes.frames, self.device, autocast, False)
        fbank, pixels = noise_clips(
            FeatureSettings.from_dict(subject.features), self.sizes.frames, 1, self.device
        )

        def run() -> None:
            words = self.sizes.words
            with torch.autocast("cuda", autocast, enabled=autocast is not None):
                model.generate(fbank, pixels, beam=4, max_words=words, min_words=words)
            wait_for(self.device)

        run()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            run()
        averages = profile.key_averages()
        launches = sum(entry.count for entry in averages if "LaunchKernel" in entry.key)
        kernels = [entry for entry in averages if entry.device_type == torch.autograd.DeviceType.CUDA]
        busy = sum(entry.self_device_time_total for entry in kernels) / 1e3
        return f"{launches} kernel launches, busy for {busy:.1f} ms"

    def _peak(self) -> tuple[float, str]:
        """bf16 operations per second."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        for card, rate in NOMINAL.items():
            if card in name:
                return rate, "data sheet"
        n = self.sizes.product
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        return 2 * n**3 / fastest(lambda: a @ b, self.device), "measured"

    def _per_call(self, run: Callable[[], Any], calls: int = 20) -> float:
        """Seconds per call of several in a row, so that the waiting for launches does not count."""
        calls = calls if self.device.type == "cuda" else 1

        def several() -> None:
            for _ in range(calls):
                run()

        return fastest(several, self.device, self.sizes.runs) / calls

    @staticmethod
    def _captions(model: str, device: torch.device, precision: str, paths: list[Path]) -> list[str]:
        rows = Captioner.load(model, str(device), precision).caption(paths)
        return [str(row.caption) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--avcap", type=Path, help="clone of the public AVCap code")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--seconds", type=float, default=460, help="no measurement starts that would end later"
    )
    parser.add_argument("--out", type=Path, help="also write the results as JSON")
    parser.add_argument("--dry-run", action="store_true", help="small sizes, on any device")
    args = parser.parse_args()
    device = pick_device(args.device)
    if device.type == "cpu" and not args.dry_run:
        parser.error("no GPU found; --dry-run tests the script without one")
    run = Run(device, DRY if args.dry_run else Sizes(), args.avcap)
    results = run.measure(args.seconds)
    notes = [f"- {name}: {value}" for name, value in results.other.items()]
    about = environment(device, pick_precision("bf16", device))
    table = results.table(args.dry_run)
    print(markdown(("measured", "aim", "value", "result"), table, [json.dumps(about), "\n".join(notes)]))
    if args.out is not None:
        content = {"dry run": args.dry_run, "results": table, "other": results.other, **about}
        args.out.write_text(json.dumps(content, indent=1), "utf-8")


if __name__ == "__main__":
    main()
