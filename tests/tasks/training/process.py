"""A process of small runs, for tests that start several with torchrun or kill one:
python -m tests.tasks.training.process JOBS [SECONDS A STEP]

JOBS is JSON: of each run, one after another, its folder, how many clips it has, and its settings. With the setting
`stop`, a run saves and stops after that step.
With KILLS=3,8 in the environment, forks of the process are killed after steps 3 and 8, before it runs to its end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from evacap_cli.tasks.training import Progress, fit, loop
from evacap_cli.tasks.training.distributed import process_group

from .colours import Colours, make_tokenizer, settings, small_model


def killed_after(step: int) -> bool:
    """Forks, and kills the fork as soon as it reports `step`. Returns False in the fork."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(theirs, 1)
        return False
    os.close(theirs)
    with open(ours) as pipe:
        for line in pipe:
            if int(line) >= step:
                os.kill(child, signal.SIGKILL)
                break
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    return True


def main() -> None:
    jobs = json.loads(sys.argv[1])
    pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    torch.set_num_threads(1)
    loop._Run.draw = lambda run: None  # type: ignore[method-assign]  # takes longer than all steps
    tokenizer = make_tokenizer()
    done = 0

    def progress(now: Progress) -> None:
        nonlocal done
        done = now.step
        print(now.step, flush=True)
        time.sleep(pause)

    for last in map(int, filter(None, os.environ.get("KILLS", "").split(","))):
        if not killed_after(last):
            break  # the fork
    with process_group(torch.device("cpu")) as (ranks, device):
        for out, clips, overrides in jobs:
            fusion, last = overrides.pop("fusion", "entropy-gate"), overrides.pop("stop", sys.maxsize)
            fit(small_model(tokenizer, fusion, dropout=0.0), tokenizer, Colours(clips, wordy=True),
                settings(**overrides), Path(out), Colours(9), device, ranks, progress=progress,
                stop=lambda last=last: done >= last)  # fmt: skip


if __name__ == "__main__":
    main()
