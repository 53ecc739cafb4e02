"""Measures the overhead of `evacap caption` over decoding and the model, and its memory by number of clips:

    python benchmarks/caption_speed.py FOLDER [--model demo] [--clips 100] [--memory 100,1000] [--rounds 2]

The clips are copies of FOLDER's MP4 files. An empty box at the end makes each copy different, because equal files are
captioned only once. "Decode alone" runs the same worker processes without the model. "Model alone" runs the same clips,
decoded beforehand, in the same batches. The command runs in a separate process and is timed from the end of model
loading. Memory is the sum of the command and its workers, sampled ten times per second. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evacap_cli.media import DecodePool
from evacap_cli.tasks.captioning.batch_captioner import BatchCaptioner
from evacap_cli.tasks.captioning.engine import Captioner
from evacap_cli.tasks.captioning.inputs.clip_reader import read_source
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.speed import environment

BATCH = 8  # the command's default on a CPU


def make_clips(folder: Path, place: Path, count: int) -> Path:
    """Creates a folder of `count` different files."""
    place.mkdir()
    originals = sorted(folder.rglob("*.mp4"))
    for number, original in enumerate(islice(cycle(originals), count)):
        copy = place / f"{number:06d}.mp4"
        shutil.copyfile(original, copy)
        with copy.open("ab") as file:
            file.write(struct.pack(">I4sQ", 16, b"free", number))
    return place


def decode_alone(captioner: Captioner, folder: Path, options: CaptionOptions) -> tuple[float, list[Any]]:
    sources = find_sources([folder])
    workers = options.workers or max(1, (os.cpu_count() or 2) - 1)
    reading = partial(read_source, settings=captioner.check(options))
    with DecodePool(workers, reading, ahead=2 * BATCH + workers) as pool:
        outcomes = pool.imap(iter(sources), ordered=False)
        clips = [next(outcomes).value]  # the workers have started
        began = time.perf_counter()
        clips += [outcome.value for outcome in outcomes]
    seconds = (time.perf_counter() - began) * len(sources) / (len(sources) - 1)
    return seconds, [clip for clip in clips if clip is not None]


def model_alone(captioner: Captioner, clips: list[Any], options: CaptionOptions) -> float:
    describer = BatchCaptioner(
        captioner.checkpoint, captioner.device, captioner.autocast, options.beam, options.max_words, BATCH
    )
    describer.caption(clips[:2])
    began = time.perf_counter()
    for at in range(0, len(clips), describer.size):
        describer.caption(clips[at : at + describer.size])
    return time.perf_counter() - began


def tree_bytes(root: int) -> int:
    """Resident memory of a process and all its descendants, in bytes."""
    parents, sizes = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
                sizes[int(entry.name)] = int(stat[21]) * os.sysconf("SC_PAGE_SIZE")
            except (OSError, IndexError):
                continue
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(sizes.get(pid, 0) for pid in family)


def command(folder: Path, model: str, out: Path) -> tuple[float, int]:
    """Returns the seconds after model loading, as reported by the command, and its peak memory in bytes."""
    line = [sys.executable, "-m", "evacap_cli", "caption", str(folder), "-o", str(out), "--model", model]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peak[0] = max(peak[0], tree_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    over.set()
    watcher.join()
    found = re.search(r"; ([\d.]+) s, [\d.]+ clips/s", said)
    if process.returncode or found is None:
        raise SystemExit(f"{' '.join(line)}: exit {process.returncode}\n{said}")
    return float(found[1]), peak[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--memory", default="100,1000")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    options, captioner = CaptionOptions(), Captioner.load(args.model)
    seconds: dict[str, list[float]] = {"decode alone": [], "model alone": [], "caption": []}
    with tempfile.TemporaryDirectory() as place:
        folder = make_clips(args.folder, Path(place, "clips"), args.clips)
        for number in range(args.rounds):
            spent, clips = decode_alone(captioner, folder, options)
            seconds["decode alone"].append(spent)
            seconds["model alone"].append(model_alone(captioner, clips, options))
            del clips
            seconds["caption"].append(command(folder, args.model, Path(place, f"{number}.csv"))[0])
        peaks = {}
        for count in filter(None, args.memory.split(",")):
            many = make_clips(args.folder, Path(place, f"memory{count}"), int(count))
            peaks[count] = round(command(many, args.model, Path(place, f"memory{count}.csv"))[1] / 1e6)
    middle = {name: round(float(np.median(times)), 2) for name, times in seconds.items()}
    print(json.dumps({
        "model": args.model, "clips": args.clips, "seconds": middle,
        "raw": {name: [round(t, 2) for t in times] for name, times in seconds.items()},
        "caption / max": round(middle["caption"] / max(middle["decode alone"], middle["model alone"]), 3),
        "peak MB by clips": peaks, **environment(torch.device("cpu"), None),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
