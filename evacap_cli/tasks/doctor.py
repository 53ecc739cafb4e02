"""Checks the installation, with a remedy for each problem."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evacap_cli.errors import EvacapError


@dataclass(frozen=True)
class CheckResult:
    """The result of a check. status: ok, warn (something optional is missing) or fail."""

    name: str
    status: str
    found: str
    cure: str = ""


class CheckWarning(Exception):
    """Raised by a check if something optional is missing; the arguments are the finding and the cure."""


def run_check(name: str, check: Callable[[], str]) -> CheckResult:
    """Runs a check. An exception becomes its result."""
    try:
        return CheckResult(name, "ok", check())
    except CheckWarning as warning:
        found, cure = warning.args
        return CheckResult(name, "warn", found, cure)
    except Exception as error:
        cure = (
            getattr(error, "cure", "")
            or "pip install --force-reinstall evacap (in a fresh virtual environment)"
        )
        return CheckResult(
            name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", cure
        )


def _python() -> str:
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise CheckWarning(platform.python_version(), "Python 3.10 to 3.13 are supported")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _libraries() -> str:
    """Returns the versions of libraries that must match; an import fails if they do not."""
    for module in ("torch", "torchaudio", "torchvision", "timm"):
        importlib.import_module(module)
    return ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "torchaudio", "torchvision", "timm")
    )


def _devices() -> str:
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    found += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join(found)


def _precision() -> str:
    """Times a tower's matrix product in each precision, in the layout used for captioning."""
    import torch

    from evacap_cli.model.packing import PackedLinear, can_multiply
    from evacap_cli.tasks.devices import PRECISIONS, pick_precision

    x, weight, bias = torch.randn(512, 768), torch.randn(768, 768), torch.zeros(768)
    seconds = {}
    for name, autocast in PRECISIONS.items():
        dtype = autocast or torch.float32
        if not can_multiply(dtype):
            continue
        product, laps = PackedLinear(weight, bias, dtype), []
        for _ in range(5):
            began = time.perf_counter()
            product(x)
            laps.append(time.perf_counter() - began)
        seconds[name] = min(laps)  # other load on the machine only adds time
    best = min(seconds, key=lambda name: seconds[name])
    others = [
        f"{name} takes {took / seconds[best]:.1f} times as long"
        for name, took in seconds.items()
        if name != best
    ]
    found = [f"{best} is fastest on the cpu ({torch.backends.cpu.get_cpu_capability()})", *others]
    if torch.cuda.is_available():
        auto = pick_precision("auto", torch.device("cuda"))
        found.append(f"{'fp32' if auto is None else 'bf16'} is used on the GPU")
    return ", ".join(found)


def _attention() -> str:
    """Names the path of attention with entropy on each device, and compares a result of each with the CPU's."""
    import torch

    from evacap_cli.model.attention import attention_path, entropy_attention
    from evacap_cli.tasks.devices import PRECISIONS, pick_device, pick_precision

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, n, 64, generator=generator) for n in (40, 50, 50))
    mask = torch.arange(50) < torch.tensor([[50], [30]])
    expected = entropy_attention(q, k, v, mask)
    found = []
    for device in dict.fromkeys((torch.device("cpu"), pick_device())):
        paths: dict[str, list[str]] = {}
        for name, autocast in PRECISIONS.items():
            if pick_precision(name, device) != autocast:
                continue
            dtype = autocast or torch.float32
            path = attention_path(device, dtype, q.shape[-1]).value
            paths.setdefault(path, []).append(name)
            results = entropy_attention(
                q.to(device, dtype), k.to(device, dtype), v.to(device, dtype), mask.to(device)
            )
            error = max(
                (a.float().cpu() - b).abs().max().item() for a, b in zip(results, expected, strict=True)
            )
            if not error < (0.001 if autocast is None else 0.05):
                raise EvacapError(
                    f"{path} on {device} in {name} deviates by {error:.2g} from the CPU",
                    "use --device cpu, or another version of PyTorch",
                )
        found.append(f"{device}: " + ", ".join(f"{path} ({', '.join(n)})" for path, n in paths.items()))
    return "; ".join(found)


def _kernels() -> str:
    """Whether this device repeats recorded kernels, tried with a small computation."""
    import torch

    from evacap_cli.model.graphs import Recordings
    from evacap_cli.tasks.devices import pick_device

    device = pick_device()
    if device.type != "cuda":
        return f"{device}: launched one by one (recording is for CUDA)"
    recordings, x = Recordings(), torch.ones(2, 8, device=device)
    for _ in range(2):  # a shape is recorded when it comes again
        recordings.encode("test", lambda x: (x + 1) * 2, x)
    if recordings.failure is not None:
        return f"{device}: launched one by one, recording them failed ({recordings.failure})"
    return f"{device}: recorded as CUDA graphs"


def _reader(reader: str) -> Callable[[], str]:
    def check() -> str:
        from evacap_cli.media import read_audio, read_frames

        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder) / "test.mp4"
            write_test_clip(clip)
            frame = read_frames(clip, [0.5], readers=(reader,))[0]
            sound = read_audio(clip)
        distribution = {"decord": "decord2", "pyav": "av"}[reader]
        version = importlib.metadata.version(distribution)
        return f"{version} read {frame.shape[1]}x{frame.shape[0]} H.264 and {len(sound) / 16000:.1f} s of AAC"

    return check


def write_test_clip(path: Path) -> None:
    """Writes one second of gray and a tone, as H.264 and AAC."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for _ in range(10):
            image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
            container.mux(video.encode(image))
        container.mux(video.encode())
        tone = np.sin(np.arange(16000) * 0.17).astype(np.float32)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(audio.encode(sound))
        container.mux(audio.encode())


def _models() -> str:
    from evacap_cli.model import load_checkpoint, packaged_models

    names = packaged_models()
    if "demo" not in names:
        raise CheckWarning(
            "the demo model is missing", "reinstall evacap, or name a checkpoint folder with --model"
        )
    for name in names:
        load_checkpoint(name)
    return ", ".join(names)


def _caption() -> str:
    from evacap_cli.model import packaged_models
    from evacap_cli.tasks.captioning.engine import Captioner

    if "demo" not in packaged_models():
        raise CheckWarning("skipped without the demo model", "reinstall evacap")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "test.mp4"
        write_test_clip(clip)
        row = Captioner.load("demo", device="cpu").caption(clip)
    return f"a test clip: {getattr(row, 'caption', '')!r}"


def _java() -> str:
    from evacap_cli.metrics.java import MetricError, find_java

    try:
        return str(find_java())
    except MetricError as error:
        raise CheckWarning(f"{error.message}; METEOR and SPICE need it", error.cure) from error


def _spice() -> str:
    """Scores one caption with the packaged files and no cache; every Java must give the same value."""
    from evacap_cli.metrics.spice_files import check_spice_parts
    from evacap_cli.metrics.suite import Settings, score_captions

    check_spice_parts()
    caption, reference, expected = "A dog barks loudly.", "A big dog is barking", 0.8
    scores = score_captions([""], [caption], [[reference]], Settings(("SPICE",), patience=120, threads=1))
    value = scores.values["SPICE"]
    if value is None:
        raise CheckWarning(scores.unavailable["SPICE"], "; ".join(scores.cures))
    if abs(value - expected) > 1e-6:
        raise EvacapError(
            f"{value} for {caption!r}, not {expected}", "try another Java, with JAVA_HOME or --java"
        )
    return f"{value:.4f} for {caption!r}, as expected, with {scores.java}"


def _space() -> str:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    if free < 1:
        raise CheckWarning(f"{free:.1f} GB free in {tempfile.gettempdir()}", "free some space, or set TMPDIR")
    return f"{free:.0f} GB free in {tempfile.gettempdir()}"


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "libraries": _libraries,
    "devices": _devices,
    "precision": _precision,
    "attention": _attention,
    "kernels": _kernels,
    "decord": _reader("decord"),
    "PyAV": _reader("pyav"),
    "models": _models,
    "caption": _caption,
    "java": _java,
    "SPICE": _spice,
    "space": _space,
}
