"""Interrupts every command at evenly spaced moments with Ctrl-C and SIGTERM and checks what is left:

    python -m benchmarks.interrupts [--moments 10] [--only calibrate,export] [--seed 0]

Makes small clips, a store and checkpoints, and runs each command once without an interrupt to learn how long it takes.
An interrupted command must exit with status 130, print `interrupted` once, no traceback, and leave no temporary file. A
command that was done before the signal came must exit with status 0, or by the signal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from safetensors.torch import load_file, save_file

from benchmarks.caption_kills import make_clip
from evacap_cli.model.towers import shared_path
from tests.conftest import save_tiny

CLIPS = 20
TEMPORARY = (".tmp", ".part", ".old")
SAVED = "interrupted; saving after this step"  # what `train` says first


def prepare(place: Path) -> None:
    """Clips, captions, a store, models and a caption table, for all commands to read."""
    (place / "videos").mkdir()
    captions, lines = ["video,caption"], []
    for i in range(CLIPS):
        make_clip(place / "videos" / f"{i}.mp4", 1.0, i)
        captions.append(f"{i}.mp4,a tone rises")
        lines.append(json.dumps({"video": f"{i}.mp4", "caption": "a tone"}))
    (place / "videos" / "captions.csv").write_text("\n".join(captions) + "\n")
    (place / "captions.jsonl").write_text("\n".join(lines) + "\n")
    for preset in ("evidence-tiny", "evacap-tiny"):
        save_tiny(place, preset)
    run = subprocess.run(
        evacap("prepare", "videos/captions.csv", "-o", "store", "--preset", "evacap-tiny"),
        cwd=place,
        check=False,
    )
    assert run.returncode == 0
    run = subprocess.run(
        evacap("caption", "videos", "--model", place / "evacap-tiny", "-o", "table.csv"),
        cwd=place,
        check=False,
    )
    assert run.returncode == 0
    state = load_file(place / "evacap-tiny" / "model.safetensors")
    encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
    save_file(encoder, place / "encoder.safetensors")


def commands(place: Path) -> dict[str, list[object]]:
    model, store, videos = place / "evacap-tiny", place / "store", place / "videos"
    train = (
        "training.epochs=20", "training.batch_size=2", "training.save_minutes=60", "model.encoder.depth=1",
        "model.encoder.picture_depth=1", "model.decoder.layers=1",
    )  # fmt: skip
    quick = ("--metrics", "CIDEr,BLEU", "--beam", 2, "--max-words", 6)
    return {
        "info": ["weights", "info", model],
        "export": ["weights", "export", model, "-o", "out.safetensors"],
        "import": ["weights", "import", "yamnet", shared_path(), "-o", "out"],
        "import part": ["weights", "import", "cav-mae", place / "encoder.safetensors", "--preset", "evacap-tiny",
                        "-o", "out.safetensors"],
        "calibrate": ["weights", "calibrate", place / "evidence-tiny", "--data", store, "-o", "out"],
        "caption": ["caption", videos, "--model", model, "-o", "out.csv", "--curves", "curves", "--report", "p.html"],
        "prepare": ["prepare", videos / "captions.csv", "-o", "out", "--preset", "evacap-tiny"],
        "train": ["train", "evacap-tiny", *train, "--data", store, "-o", "out"],
        "evaluate": ["evaluate", "--model", model, "--data", store, *quick, "-o", "out", "--report", "page.html"],
        "robustness": ["robustness", "--model", model, "--data", store, *quick, "--probs", "0,0.5", "-o", "out",
                       "--report", "page.html"],
        "speed": ["speed", "--model", "evacap-tiny", "--frames", "1,2", "--runs", 3, "--words", 4, "-o", "out",
                  "--report", "page.html"],
        "score": ["score", place / "captions.jsonl", videos / "captions.csv", "-o", "out"],
        "report": ["report", place / "table.csv", "-o", "page.html"],
        "synth": ["synth", "-o", "out", "--clips", 6],
        "doctor": ["doctor"],
    }  # fmt: skip


def evacap(*args: object) -> list[str]:
    return [sys.executable, "-m", "evacap_cli", *map(str, args)]


def start(args: list[object], cwd: Path) -> subprocess.Popen[str]:
    cwd.mkdir()
    return subprocess.Popen(
        evacap(*args), cwd=cwd, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def problem(code: int, said: str, place: Path) -> str:
    """What an interrupted command did wrong; empty if nothing."""
    words = [
        line for line in said.splitlines() if line.startswith("interrupted") and not line.startswith(SAVED)
    ]
    left = [str(path.relative_to(place)) for path in place.rglob("*") if path.name.endswith(TEMPORARY)]
    if left:
        return f"left {left}"
    if code in (0, -signal.SIGINT, -signal.SIGTERM) and not words:
        return ""
    if "Traceback" in said or "Exception ignored" in said:
        return "a traceback"
    # Python exits by SIGINT, which is 130 to a shell, if the interrupt came inside `exec`, as of a dataclass.
    return (
        "" if code in (130, -signal.SIGINT) and len(words) == 1 else f"exit {code}, said {len(words)} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10, help="interrupts of each command")
    parser.add_argument("--only", default="", help="names of commands, with commas")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, bad = random.Random(args.seed), 0
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        prepare(place)
        for title, command in commands(place).items():
            if args.only and title not in args.only.split(","):
                continue
            began = time.monotonic()
            with start(command, place / "run") as process:
                said = process.communicate()[1]
            seconds = time.monotonic() - began
            shutil.rmtree(place / "run")
            if process.returncode:
                print(f"{title}: exit {process.returncode} without an interrupt\n{said}", flush=True)
                bad += 1
                continue
            codes: Counter[int] = Counter()
            for number in range(args.moments):
                sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
                with start(command, place / "run") as process:
                    time.sleep(seconds * (number + chance.random()) / args.moments)
                    if sent == signal.SIGINT:
                        os.killpg(process.pid, sent)  # as a terminal does
                    else:
                        process.send_signal(sent)
                    said = process.communicate()[1]
                codes[process.returncode] += 1
                if wrong := problem(process.returncode, said, place / "run"):
                    bad += 1
                    print(f"{title}, moment {number}, {sent.name}: {wrong}\n{said}", flush=True)
                shutil.rmtree(place / "run")
            print(f"{title}: {seconds:.1f} s; exit codes {dict(codes)}", flush=True)
    print(f"{bad} wrong")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
