"""Compares the throughput of `evacap prepare` with that of bare worker loops:

    evacap synth -o world --clips 300 --seed 7
    python benchmarks/prepare_throughput.py world/captions.csv [--preset evacap-base] [--workers 2] [--rounds 3]

A bare loop runs in one process on one core: it decodes a clip, computes its fbank and frames, and packs them for the
store. The benchmark measures one loop; as many parallel loops as workers, each on its own core, which is the limit of
the machine; and `prepare` into a new store. The time of `prepare` until its first clip is done (start of the workers)
is excluded and reported separately. Every round measures all of them, so that noise affects all equally. CPU time is
also reported, because noise does not affect it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import date
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from evacap_cli.data.manifest import Entry, read_manifest
from evacap_cli.data.store.members import Encoding, make_packed
from evacap_cli.media.worker import resident_bytes
from evacap_cli.tasks.clips import ClipSettings, load_entry
from evacap_cli.tasks.preparing import available_cores, features_of, prepare

LOOP_CLIPS = 100  # clips per bare loop


def loop(
    core: int, entries: Sequence[Entry], preset: str, frames_format: str, all_ready: Barrier, out: Any
) -> None:
    """Packs clips one by one on one core. Sends the rate in clips/s and the CPU seconds per clip."""
    features = features_of(preset)
    make = partial(load_entry, settings=ClipSettings(features))
    encoding = Encoding(features, frames_format)
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # decord starts its own threads
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core % available_cores()]})
    make_packed(entries[0], make, encoding)
    all_ready.wait()
    began, spent = time.perf_counter(), time.process_time()
    for entry in entries:
        make_packed(entry, make, encoding)
    out.put((len(entries) / (time.perf_counter() - began), (time.process_time() - spent) / len(entries)))


def bare(entries: Sequence[Entry], args: argparse.Namespace, loops: int) -> tuple[float, float]:
    """Runs `loops` parallel loops on different clips. Returns clips/s and CPU seconds per clip."""
    context = multiprocessing.get_context("spawn")
    out, ready = context.SimpleQueue(), context.Barrier(loops)
    rest = (args.preset, args.frames_format, ready, out)
    processes = [
        context.Process(target=loop, args=(i, entries[i::loops][:LOOP_CLIPS], *rest)) for i in range(loops)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [out.get() for _ in processes]
    return sum(rate for rate, _ in found), statistics.mean(spent for _, spent in found)


def whole(args: argparse.Namespace, workers: int) -> dict[str, Any]:
    """Runs `prepare` from start to end. Also measures the peak memory of the command and its workers."""
    folder = Path(tempfile.mkdtemp(dir=args.scratch))
    first: list[tuple[int, float, float]] = []
    peak: dict[str, int] = {"parent": 0, "worker": 0}
    ended = threading.Event()

    def progress(done: int, total: int) -> None:
        if done and not first:
            first.append((done, time.perf_counter(), time.process_time()))

    def watch() -> None:
        while not ended.wait(0.2):
            held = [resident_bytes(child.pid) or 0 for child in multiprocessing.active_children()]
            peak["worker"] = max([peak["worker"], *held])
            peak["parent"] = max(peak["parent"], resident_bytes(os.getpid()) or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        report = prepare(args.manifest, folder / "store", features_of(args.preset), media=args.media, workers=workers,
                         frames_format=args.frames_format, progress=progress)  # fmt: skip
    finally:
        ended.set()
        watcher.join()
        shutil.rmtree(folder)
    (done, at, spent), now = first[0], time.perf_counter()
    return {
        "rate": (report.new - done) / (now - at),
        "start": at - began,
        "parent": (time.process_time() - spent) / max(1, report.new - done),
        "bytes": report.bytes / max(1, report.clips),
        "peak": peak,
        "counts": report.counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--preset", default="evacap-base")
    parser.add_argument("--frames-format", default="jpeg")
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="folder for the stores, which are deleted")
    args = parser.parse_args()
    entries = [entry for entry in read_manifest(args.manifest, args.media) if entry.path is not None]
    rounds: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        (one, spent), (together, _) = bare(entries, args, 1), bare(entries, args, args.workers)
        alone, many = whole(args, 1), whole(args, args.workers)
        rounds.append({
            "one loop clips/s": one, "loops at once clips/s": together,
            "prepare, 1 worker clips/s": alone["rate"], "prepare clips/s": many["rate"],
            "to workers x one loop": many["rate"] / (args.workers * one), "to loops at once": many["rate"] / together,
            "1 worker to one loop": alone["rate"] / one, "start s": many["start"],
            "processor ms a clip": spent * 1e3, "and the parent's": many["parent"] * 1e3,
            "peak parent MB": many["peak"]["parent"] / 1e6, "peak worker MB": many["peak"]["worker"] / 1e6,
        })  # fmt: skip
        print(json.dumps({name: round(value, 3) for name, value in rounds[-1].items()}), flush=True)
    print(json.dumps({
        "preset": args.preset, "frames": args.frames_format, "clips": many["counts"], "workers": args.workers,
        "kB a clip": round(many["bytes"] / 1e3, 1),
        "median": {name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]},
        "cores": available_cores(), "machine": platform.machine(), "torch": torch.__version__,
        "date": str(date.today()),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
