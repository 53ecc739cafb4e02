"""One process of a small run, for tests that start several with torchrun or kill one:
python -m tests.tasks.training.process OUT CLIPS SETTINGS(json) [SECONDS A STEP]"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from evacap_cli.tasks.training import Progress, fit
from evacap_cli.tasks.training.distributed import process_group

from .colours import Colours, make_tokenizer, settings, small_model


def main() -> None:
    out, clips, overrides = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    fusion = overrides.pop("fusion", "entropy-gate")
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()

    def progress(now: Progress) -> None:
        print(now.step, flush=True)
        time.sleep(pause)

    with process_group(torch.device("cpu")) as (ranks, device):
        fit(small_model(tokenizer, fusion, dropout=0.0), tokenizer, Colours(clips, wordy=True), settings(**overrides),
            out, Colours(9), device, ranks, progress=progress)  # fmt: skip


if __name__ == "__main__":
    main()
