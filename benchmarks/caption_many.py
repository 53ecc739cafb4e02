"""Measures time and memory of `evacap caption` for folders with very many inputs:

    python benchmarks/caption_many.py [--counts 1000,10000,100000] [--json FILE]

The inputs are links to a few files. Each folder is captioned by a tiny preset with random weights. The same command
then runs again without new work, and once more with one added file. Memory is the peak of the command's own process.
The links have equal contents, so most of them are detected as copies. With `--each`, the files differ in the bytes
after their last frame, and each one is decoded (100,000 files take hours).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from caption_kills import make_clip

from evacap_cli.model import ModelConfig, Tokenizer, build_model, load_preset, save_checkpoint

WORDS = ("a dog barks twice", "rain falls on a roof", "a bell rings", "an engine idles while a man speaks")
FILES, BELOW = 8, 1000


def tiny(folder: Path) -> Path:
    """Writes a checkpoint of a tiny preset with random weights."""
    chosen = load_preset("evacap-tiny")
    tokenizer = Tokenizer.train(WORDS, 200)
    config = chosen.model.to_dict()
    config["decoder"]["vocab_size"] = len(tokenizer)
    torch.manual_seed(0)
    save_checkpoint(folder / "tiny", build_model(ModelConfig.from_dict(config)), tokenizer, chosen.features)
    return folder / "tiny"


def run(folder: Path, out: Path, model: Path) -> dict[str, float]:
    """Runs one command in a separate process. Returns its seconds and its peak memory in MB."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.execv(
            sys.executable,
            [
                sys.executable,
                "-m",
                "evacap_cli",
                "caption",
                str(folder),
                "-o",
                str(out),
                "--model",
                str(model),
                "-q",
            ],
        )
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"evacap caption: {os.waitstatus_to_exitcode(status)}")
    return {"seconds": round(time.monotonic() - began, 2), "MB": round(usage.ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", default="1000,10000,100000")
    parser.add_argument("--each", action="store_true", help="use different files instead of links")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    told = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = tiny(place)
        for i in range(FILES):
            make_clip(place / f"{i}.mp4", 1.0, i)
        for count in map(int, args.counts.split(",")):
            folder, out = place / f"videos-{count}", place / f"{count}.csv"
            for i in range(count):
                path = folder / f"{i // BELOW:03d}" / f"{i % BELOW:03d}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                if args.each:
                    path.write_bytes((place / f"{i % FILES}.mp4").read_bytes() + bytes(8 + 4 * i % 2**16))
                else:
                    os.link(place / f"{i % FILES}.mp4", path)
            times = {"inputs": count, "first": run(folder, out, model), "again": run(folder, out, model)}
            make_clip(folder / "new.mp4", 1.0, FILES)
            times["one more"] = run(folder, out, model)
            times["journal"] = Path(f"{out}.journal").stat().st_size
            with out.open("rb") as file:
                times["rows"] = sum(1 for _ in file) - 1
            print(json.dumps(times), flush=True)
            told.append(times)
    if args.json:
        args.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
