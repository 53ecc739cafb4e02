"""Compares `evacap caption --ray local` with the engine of one machine:

    python -m benchmarks.cluster [--clips 500] [--few 20] [--pairs 2] [--model demo] [--write]

The clips are copies of sample_data/videos that differ after their last frame, so that none is a duplicate. Every run is
a process of its own, and the kinds of run take turns: this machine's engine, one model actor, two model actors with
half of the cores each. Ray's processes have the priority of the others. Every kind also runs with few clips (`--few`),
which shows the start-up. The cost of a clip is the difference of the two runs per additional clip. The script fails
unless all tables have the same rows. `--write` writes benchmarks/results/cluster.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
SAMPLES = sorted((HERE.parent / "sample_data/videos").iterdir())
RESULTS = HERE / "results/cluster.md"
KINDS = {"one machine": None, "1 actor": 1, "2 actors": 2}
MARK = "EVACAP_BENCHMARK_RUN"  # in the environment of a run's processes
LARGEST_DIFFERENCE = 1e-3  # of numbers: batches and threads differ


@dataclass
class Run:
    """One run. connected: seconds until the cluster is there. seconds: in all. cpu: CPU seconds of all its processes.
    load: average load of the machine."""

    connected: float
    seconds: float
    cpu: float
    load: float


@dataclass
class Cost:
    """What two runs of a kind show. startup, seconds and cpu per clip: in seconds."""

    connected: float
    startup: float
    seconds: float
    cpu: float
    load: float

    @classmethod
    def of(cls, few: Run, many: Run, clips: int) -> Cost:
        """clips: how many more the second run has."""
        wall, cpu = (many.seconds - few.seconds) / clips, (many.cpu - few.cpu) / clips
        return cls(many.connected, few.seconds, wall, cpu, (few.load + many.load) / 2)


def cpu_seconds() -> float:
    """Returns the CPU time of all processes with this run's mark in their environment, also those of Ray. Linux."""
    ticks, mark = 0, f"{MARK}={os.environ[MARK]}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def caption(folder: Path, out: Path, model: str, actors: int) -> None:
    """Captions a folder in this process, and prints the times as JSON. actors: 0 for this machine's engine."""
    from evacap_cli import Captioner
    from evacap_cli.tasks.captioning.inputs.discovery import find_sources
    from evacap_cli.tasks.captioning.options import CaptionOptions
    from evacap_cli.tasks.captioning.outputs.options import OutputOptions
    from evacap_cli.tasks.captioning.run import caption_files
    from evacap_cli.tasks.cluster.pipeline import LOCAL, ClusterOptions, connected

    cores = os.cpu_count() or 1
    decoders = max(1, cores - 1)
    sources, captioner = find_sources([folder]), Captioner.load(model, "cpu", "fp32")
    ends: list[tuple[float, float]] = []

    def show(done: int, clips: int, rows: Sequence[object]) -> None:
        if done == len(sources) and not ends:
            ends.append((time.monotonic(), cpu_seconds()))

    options = CaptionOptions(batch_size=8, workers=decoders)
    began = joined = time.monotonic()
    if actors:
        cluster = ClusterOptions(LOCAL, cpus=cores / actors, workers=(actors, actors), decoders=decoders)
        with connected(cluster):
            joined = time.monotonic()
            caption_files(captioner, sources, OutputOptions(out), options, show, cluster=cluster)
    else:
        caption_files(captioner, sources, OutputOptions(out), options, show)
    end, cpu = ends[0]
    run = Run(joined - began, end - began, cpu, os.getloadavg()[0])
    print(json.dumps(vars(run)))


def measure(folder: Path, out: Path, model: str, actors: int | None) -> Run:
    command = [sys.executable, "-m", "benchmarks.cluster", "--run", str(folder), str(out), str(actors or 0)]
    done = subprocess.run(
        [*command, "--model", model], cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True,
        env=os.environ | {MARK: secrets.token_hex(8), "RAY_worker_niceness": "0"},  # Ray's default is 15
    )  # fmt: skip
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def differing(one: Path, other: Path) -> int:
    """Returns the number of rows whose bytes differ. Fails if anything but the last digits of numbers differs."""
    rows, others = (list(csv.DictReader(path.open(newline=""))) for path in (one, other))
    assert [row["video"] for row in rows] == [row["video"] for row in others]
    if one.read_bytes() == other.read_bytes():
        return 0
    for row, theirs in zip(rows, others, strict=True):
        for name, value in row.items():
            if value != theirs[name]:
                assert abs(float(value) - float(theirs[name])) < LARGEST_DIFFERENCE, (row, theirs)
    return sum(row != theirs for row, theirs in zip(rows, others, strict=True))


def report(
    found: dict[str, list[Cost]], differences: dict[str, int], clips: int, few: int, model: str
) -> str:
    def middle(kind: str, name: str) -> float:
        return statistics.median(getattr(cost, name) for cost in found[kind])

    def ratio(name: str, kind: str, other: str) -> str:
        runs = zip(found[kind], found[other], strict=True)
        pairs = [getattr(one, name) / getattr(two, name) for one, two in runs]
        return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"

    loads = [cost.load for costs in found.values() for cost in costs]
    pairs = len(next(iter(found.values())))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [
        "# Captions on a Ray cluster of one machine",
        "",
        f"Measured on {datetime.now(timezone.utc):%Y-%m-%d} at {commit} with "
        f"`python -m benchmarks.cluster --clips {clips} --few {few} --pairs {pairs} --model {model}`:",
        f"{os.cpu_count()} cores, {platform.machine()}, average load {min(loads):.1f} to {max(loads):.1f} during the "
        "runs, which take turns.",
        f"Medians. Start-up is a whole run with {few} clips, with loading of the model.",
        "",
        "| run | connect, s | start-up, s | s per further clip | CPU s per further clip |",
        "|---|---|---|---|---|",
        *(
            f"| {kind} | {middle(kind, 'connected'):.1f} | {middle(kind, 'startup'):.1f} "
            f"| {middle(kind, 'seconds'):.2f} | {middle(kind, 'cpu'):.2f} |"
            for kind in found
        ),
        "",
        f"- Overhead of 1 actor over one machine, in time: {ratio('seconds', '1 actor', 'one machine')}.",
        f"- The same in CPU time, which other work affects less: {ratio('cpu', '1 actor', 'one machine')}.",
        f"- Speed-up of 2 actors over 1 actor: {ratio('seconds', '1 actor', '2 actors')}. Both use all cores.",
        *(
            f"- {kind}: {clips} of {clips} rows in order with the captions and statuses of one machine; "
            + (
                f"numbers of {count} rows differ in the last digits."
                if count
                else "the files are equal, byte by byte."
            )
            for kind, count in differences.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--few", type=int, default=20, help="clips of the runs that show the start-up")
    parser.add_argument("--pairs", type=int, default=2, help="runs of each kind")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--run", nargs=3, metavar=("FOLDER", "OUT", "ACTORS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        caption(Path(args.run[0]), Path(args.run[1]), args.model, int(args.run[2]))
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folders = {count: place / f"{count} clips" for count in (args.few, args.clips)}
        for count, folder in folders.items():
            folder.mkdir()
            for i in range(count):
                sample = SAMPLES[i % len(SAMPLES)]
                content = sample.read_bytes() + bytes(8 + 4 * i)
                (folder / f"{i:05d}{sample.suffix}").write_bytes(content)
        found: dict[str, list[Cost]] = {kind: [] for kind in KINDS}
        differences = dict.fromkeys(list(KINDS)[1:], 0)
        for pair in range(args.pairs):
            for kind in list(KINDS) if pair % 2 else list(KINDS)[::-1]:
                runs = []
                for count, folder in folders.items():
                    out = place / f"{kind}-{pair}-{count}.csv"
                    runs.append(measure(folder, out, args.model, KINDS[kind]))
                    print(kind, count, vars(runs[-1]), flush=True)
                found[kind].append(Cost.of(*runs, args.clips - args.few))
            for kind in differences:
                tables = (place / f"{each}-{pair}-{args.clips}.csv" for each in ("one machine", kind))
                differences[kind] = max(differences[kind], differing(*tables))
    page = report(found, differences, args.clips, args.few, args.model)
    print(page)
    if args.write:
        RESULTS.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
