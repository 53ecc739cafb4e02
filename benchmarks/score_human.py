"""Scores AudioCaps' human captions: compares with known values, and times each metric in a first and a second run.

    python benchmarks/score_human.py TEST_CSV [--clips 200] [--known metrics_human.json] [--out score_human.json]

Protocol: clips in file order; the candidate is the first caption of a clip, the references are its other captions. The
first run parses every caption (the cache is empty). The second run uses the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from evacap_cli.metrics.caption_pairs import read_references
from evacap_cli.metrics.spice_cache import TupleCache
from evacap_cli.metrics.suite import Scores, score_captions


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="AudioCaps' test.csv")
    parser.add_argument("--clips", type=int, help="number of clips from the start of the file; default: all")
    parser.add_argument("--known", type=Path, help="known values of the first 200 clips to compare with")
    parser.add_argument("--out", type=Path, help="JSON file for the printed values")
    options = parser.parse_args()
    references = read_references(options.table)
    clips = references.labels()[: options.clips]
    said = references.captions[: options.clips]
    result: dict[str, object] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    }
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "captions.sqlite"
        runs = []
        for name in ("first run", "second run"):
            began = time.monotonic()
            scores = score_captions(
                clips, [s[0] for s in said], [s[1:] for s in said], cache=TupleCache(kept)
            )
            seconds = {"all": round(time.monotonic() - began, 1)}
            seconds |= {scorer: round(took, 2) for scorer, took in scores.seconds.items()}
            print(f"{name}, {len(clips)} clips, {scores.java}: {seconds}", flush=True)
            result[name] = {"seconds": seconds, "values": scores.values, "unavailable": scores.unavailable}
            runs.append(scores)
    first, second = runs
    result["java"], result["clips"] = str(first.java), len(clips)
    for name, value in first.values.items():
        print(f"{name:8} {value}")
    same = all(np.array_equal(first.per_clip[name], second.per_clip[name]) for name in first.per_clip)
    print(f"both runs give each clip the same values: {same}")
    result["runs_equal"] = same
    if options.known is not None and len(clips) == 200:
        result["largest_difference"] = _compare(first, json.loads(options.known.read_text(encoding="utf-8")))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _compare(scores: Scores, known: dict) -> dict[str, float]:  # type: ignore[type-arg]
    differences = {
        name: abs((scores.values[name] or 0) - value) for name, value in known["first_200_clips"].items()
    }
    of_clips = known["spice_per_clip_f_first_200"]
    differences["SPICE per clip"] = max(
        abs(of_clips[clip] - value)
        for clip, value in zip(scores.clips, scores.per_clip["SPICE"], strict=True)
    )
    assert scores.spice is not None
    for name, wanted in known["spice_first_200_f_by_category"].items():
        values = scores.spice.f[name]
        defined = values[~np.isnan(values)]
        assert len(defined) == wanted["clips_defined"], name
        differences[f"SPICE {name}"] = abs(float(defined.mean()) - wanted["mean_f_over_defined"])
    for name, difference in differences.items():
        print(f"{name:20} differs from the known value by {difference:.1e}")
    return differences


if __name__ == "__main__":
    main()
