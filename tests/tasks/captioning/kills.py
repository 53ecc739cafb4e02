"""A run that is killed over and over: python -m tests.tasks.captioning.kills FOLDER OUT MODEL SEED KILLS

Each is a fork of this process, which avoids repeated imports, and is killed at a random moment of its work: some time
after a number of inputs is done. Prints the journal's whole lines after each kill as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from evacap_cli import Captioner
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.options import OutputOptions
from evacap_cli.tasks.captioning.run import caption_files


def lines(journal: Path) -> list[str]:
    """The whole lines of a journal."""
    text = journal.read_text("ascii") if journal.exists() else ""
    return [line for line in text.splitlines(True) if line.endswith("\n")]


def main(folder: Path, out: Path, model: Path, seed: int, kills: int) -> list[list[str]]:
    captioner, chance, journal = (
        Captioner.load(model, device="cpu"),
        random.Random(seed),
        Path(f"{out}.journal"),
    )
    count, seen = len(list(folder.iterdir())), []
    for kill in range(kills):
        wanted = round(count * (kill + chance.random()) / kills)
        child = os.fork()
        if not child:
            try:
                options = CaptionOptions(workers=0, batch_size=3, max_words=3)
                caption_files(captioner, find_sources([folder]), OutputOptions(out), options)
            finally:
                os._exit(0)
        while len(lines(journal)) < wanted and not os.waitid(
            os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            time.sleep(0.001)
        time.sleep(chance.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.append(lines(journal))
    return seen


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:]))))  # type: ignore[call-arg]
