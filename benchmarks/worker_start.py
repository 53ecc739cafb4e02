"""Measures the start of the decoding processes, forked from a server or spawned (Linux):

    python -m benchmarks.worker_start [--workers 1,2,4]

Each worker reads a sample video, as in `evacap caption`. Per start method: seconds until all workers have read one, the
CPU time of all their processes until then, and the memory of these processes, shared pages once (PSS). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from functools import partial
from itertools import repeat
from pathlib import Path

from evacap_cli.features import FeatureSettings
from evacap_cli.media import DecodePool, start_ahead, worker
from evacap_cli.model import load_preset
from evacap_cli.tasks.captioning.inputs.clip_reader import read_source
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.clips import ClipSettings

VIDEOS = Path(__file__).parents[1] / "sample_data" / "videos"
TICKS = os.sysconf("SC_CLK_TCK")


def read(source: Source, settings: ClipSettings) -> int:
    read_source(source, settings)
    time.sleep(0.2)  # so that every worker gets a video
    return os.getpid()


def descendants(pid: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        if parent == pid:
            yield int(folder.name)
            yield from descendants(int(folder.name))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(forked: bool, workers: int) -> dict[str, float]:
    worker.FORKED = forked
    reading = partial(
        read, settings=ClipSettings(FeatureSettings.from_dict(load_preset("evidence-tags").features))
    )
    source = next(iter(find_sources([VIDEOS])))
    began = time.perf_counter()
    start_ahead(read_source.__module__)
    with DecodePool(workers, reading) as pool:
        outcomes = pool.imap(repeat(source), ordered=False)
        seen: set[int] = set()
        while len(seen) < workers:
            outcome = next(outcomes)
            if outcome.value is None:
                raise SystemExit(outcome.error)
            seen.add(outcome.value)
        seconds = time.perf_counter() - began
        processes = list(descendants(os.getpid()))
        return {
            "seconds": round(seconds, 2),
            "cpu_seconds": round(sum(map(cpu_seconds, processes)), 2),
            "megabytes": round(sum(map(megabytes, processes))),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--start", choices=("spawned", "forked"), help="measure one start in this process")
    args = parser.parse_args()
    if args.start is not None:
        print(json.dumps(measure(args.start == "forked", int(args.workers))))
        return
    rows = []
    for workers in args.workers.split(","):
        for start in ("spawned", "forked"):
            command = [sys.executable, "-m", "benchmarks.worker_start", "--workers", workers]
            done = subprocess.run([*command, "--start", start], stdout=subprocess.PIPE, text=True, check=True)
            rows.append({"workers": int(workers), "start": start, **json.loads(done.stdout)})
    machine = f"{platform.machine()}, {os.cpu_count()} CPU cores"
    print(json.dumps({"date": date.today().isoformat(), "machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
