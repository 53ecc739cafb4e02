"""Kills one `evacap caption` run repeatedly with `kill -9` at random times and checks its output:

    python benchmarks/caption_kills.py [--clips 200] [--kills 25] [--seed 0] [--model demo] [--json FILE]

Creates a folder of different clips and captions it once without interruption. A second run writes another table and is
killed repeatedly, together with its workers: during start-up, or after a random number of further clips. It is then
allowed to finish. At the end, the two tables are compared byte by byte, and the captioned clips in the journal are
counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import av
import numpy as np

RATE = 16000
STARTING = 0.2  # share of kills during start-up
START_SECONDS = 8.0  # duration of the start-up


def make_clip(path: Path, seconds: float, seed: int) -> None:
    """Writes a clip with a tone of unique pitch and moving noise."""
    generator = np.random.default_rng(seed)
    with av.open(str(path), "w") as file:
        video, audio = file.add_stream("h264", rate=5), file.add_stream("aac", rate=RATE)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        for _ in range(int(seconds * 5)):
            picture = generator.integers(0, 256, (64, 64, 3), np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        times = np.arange(int(seconds * RATE)) / RATE
        wave = 0.3 * np.sin(2 * np.pi * (200 + 20 * seed) * times).astype(np.float32)
        for at in range(0, len(wave) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = RATE, at
            file.mux(audio.encode(frame))
        for stream in (video, audio):
            file.mux(stream.encode(None))


def start(folder: Path, out: Path, more: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "evacap_cli", "caption", folder, "-o", out, "--quiet", *more]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, start_new_session=True)


def captioned(journal: Path) -> list[str]:
    """The inputs in the complete lines of the journal."""
    lines = journal.read_bytes().splitlines(True) if journal.exists() else []
    records = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [record["input"][0] for record in records if "input" in record]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chance, more = random.Random(args.seed), ["--model", args.model, "--batch-size", "2"]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder, peace, out = place / "videos", place / "peace.csv", place / "out.csv"
        folder.mkdir()
        for i in range(args.clips):
            make_clip(folder / f"{i:05d}.mp4", 1.0, i)
        began = time.monotonic()
        with start(folder, peace, more) as process:
            process.communicate()
        seconds = time.monotonic() - began
        print(f"{args.clips} clips, uninterrupted: {seconds:.1f} s, exit {process.returncode}", flush=True)
        journal = Path(f"{out}.journal")
        counts: Counter[str] = Counter()
        while counts["killed"] < args.kills:
            before = captioned(journal)
            at_start = chance.random() < STARTING
            wanted = min(len(before) + round(chance.random() * args.clips / args.kills), args.clips - 1)
            with start(folder, out, more) as process:
                until = time.monotonic() + chance.random() * START_SECONDS
                while process.poll() is None and (
                    time.monotonic() < until if at_start else len(captioned(journal)) < wanted
                ):
                    time.sleep(0.01)
                time.sleep(chance.random() * 0.1)
                with suppress(ProcessLookupError):  # the run finished before the kill
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            after = captioned(journal)
            counts["killed" if process.returncode == -signal.SIGKILL else "ended before"] += 1
            counts["rows lost"] += after[: len(before)] != before
            torn = journal.exists() and not journal.read_bytes().endswith(b"\n")
            counts["lines torn"] += torn
            print(f"kill {counts['killed']}: {len(before)} -> {len(after)} inputs done", flush=True)
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"evacap caption exited with code {process.returncode}")
        with start(folder, out, more) as process:
            process.communicate()
        done = Counter(captioned(journal))
        with out.open(newline="", encoding="utf-8") as file:
            rows = [row["video"] for row in csv.DictReader(file)]
        same = out.read_bytes() == peace.read_bytes()
    told = {
        "clips": args.clips,
        **counts,
        "exit": process.returncode,
        "rows": len(rows),
        "rows twice": len(rows) - len(set(rows)),
        "as in peace": same,
        "in order": rows == sorted(rows),
        "captioned twice": sum(count - 1 for count in done.values()),
    }
    print(json.dumps(told))
    if args.json:
        args.json.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
