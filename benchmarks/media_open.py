"""Times what captioning reads of ordinary MP4 files, against another version of evacap:

    python -m benchmarks.media_open --against DIR [--clips 12] [--rounds 5] [--seconds 8,30,90]

DIR is a checkout of the other version (`git worktree add DIR COMMIT`). Both run side by side, each in a process of its
own, and take turns file by file, so that whatever else the machine does strikes both. Compared are the seconds of
processor time that `load_clip` takes, by length of file; the ratio is the median over all pairs. The files are H.264
with AAC, 640 x 360 at 25 frames a second, and are made here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent.parent


def read() -> None:
    """The reading process: takes the names of files on stdin, one a line, and answers with the seconds each takes."""
    from evacap_cli.features import FeatureSettings
    from evacap_cli.tasks.clips import ClipSettings, load_clip

    settings = ClipSettings(FeatureSettings())
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        load_clip(line.rstrip("\n"), settings)
        print(json.dumps([time.process_time() - processor, time.perf_counter() - wall]), flush=True)


def start(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.Popen(
        [sys.executable, __file__, "--read"], env=environment, text=True, cwd=folder,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def ask(process: subprocess.Popen[str], path: Path) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline())[0])


def draw(t: float, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8: coloured blocks that move to the left, 60 pixels a second."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    return np.roll(blocks.repeat(20, axis=0).repeat(20, axis=1), -round(60 * t), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, required=True, help="checkout of another version")
    parser.add_argument("--clips", type=int, default=12, help="files of each length")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is read")
    parser.add_argument("--seconds", default="8,30,90", help="lengths of files, with commas")
    options = parser.parse_args()

    sys.path.insert(0, str(HERE))
    from tests.media.clips import write

    with tempfile.TemporaryDirectory() as temporary:
        print("| seconds a file | other version, ms | this version, ms | ratio |\n|---|---|---|---|")
        processes = [start(options.against), start(HERE)]
        for seconds in map(float, options.seconds.split(",")):
            paths = [Path(temporary, f"{seconds:g}-{number}.mp4") for number in range(options.clips)]
            for path in paths:
                if path == paths[0]:
                    write(path, seconds, fps=25, size=(640, 360), gop=50, draw=draw)
                else:
                    path.write_bytes(paths[0].read_bytes())
            for process in processes:
                ask(process, paths[0])  # not counted: what is loaded on first use
            pairs = []
            for number in range(options.rounds):
                for path in paths:
                    order = processes if number % 2 else processes[::-1]
                    took = {process.pid: ask(process, path) for process in order}
                    pairs.append([took[process.pid] for process in processes])
            other, this = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(now / before for before, now in pairs)
            print(f"| {seconds:g} | {other:.1f} | {this:.1f} | {ratio:.3f} |", flush=True)
        for process in processes:
            process.kill()


if __name__ == "__main__":
    read() if sys.argv[1:] == ["--read"] else main()
