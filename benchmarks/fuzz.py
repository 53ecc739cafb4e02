"""Reads thousands of damaged media files as captioning does, and prints the outcomes:

    python -m benchmarks.fuzz [--count 3000] [--seed 1] [--segments] [--workers 1] [--timeout 60] [--keep DIR]

The files are those of `tests/media/fuzz.py` with another seed. Prints the outcomes by kind of file, and the causes.
Files that killed a worker are copied to DIR and read again by the safe reader that captioning falls back to.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.media.crafted import craft
from tests.media.fuzz import Row, fuzz, make_seeds, outcomes, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--count", type=int, default=3000, help="number of damaged files, in addition to the crafted ones"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--segments", action="store_true", help="read the files in segments, as --segment does"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds a file")
    parser.add_argument("--memory", type=float, default=2.0, help="GiB a worker")
    parser.add_argument("--keep", type=Path, help="folder for files that killed a worker")
    options = parser.parse_args()
    limits = (options.workers, options.timeout, round(options.memory * 2**30), options.segments)

    began = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lost = folder / "lost"
        lost.mkdir()
        for row in outcomes(files(folder, options.count, options.seed), *limits):
            rows.append(row)
            if row.how == "lost":
                shutil.copy(row.path, lost)
                print(f"lost: {row.path.name}: {row.why}", flush=True)
            row.path.unlink()
        again = list(outcomes(sorted(lost.iterdir()), *limits, careful=True))
        if options.keep:
            shutil.copytree(lost, options.keep, dirs_exist_ok=True)
    print(table(rows))
    print("\ncauses:")
    causes = Counter((row.how, re.sub(r"\d+(\.\d+)?", "N", row.why)) for row in rows if row.why)
    for (how, why), count in causes.most_common():
        print(f"{count:7} {how}: {why}")
    print(f"\nlost, then read by the safe reader: {dict(Counter(row.how for row in again))}")
    for row in again:
        print(f"  {row.path.name}: {row.how} {row.why}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    seconds = time.monotonic() - began
    print(f"{len(rows)} files, {len(rows)} rows, {seconds:.0f} s; this process: at most {memory:.0f} MiB")


def files(folder: Path, count: int, seed: int) -> Iterator[Path]:
    yield from craft(folder)
    yield from fuzz(folder, make_seeds(folder), count, seed)


if __name__ == "__main__":
    main()
