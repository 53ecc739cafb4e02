"""Logs a run: means over steps in `metrics.jsonl`, and TensorBoard files if TensorBoard is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evacap_cli.atomic import written_whole
from evacap_cli.tasks.training.distributed import Ranks

MEANS = ("caption", "gate_stability", "consistency", "gate_matched", "gate_shuffled", "match")
COUNTS = ("shuffled", "clips")


class Tally:
    """Weighted means and counts. Sums stay on the device until they are read."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(2 * len(MEANS) + len(COUNTS), dtype=torch.float64, device=device)

    def add(self, parts: dict[str, Tensor], words: int, clips: int) -> None:
        """Adds the loss terms of a portion. words: target tokens in its `clips`."""
        shuffled = float(parts["shuffled"]) if "shuffled" in parts else 0.0
        weights = {"caption": words, "gate_stability": clips, "consistency": shuffled,
                   "gate_matched": clips - shuffled, "gate_shuffled": shuffled, "match": clips}  # fmt: skip
        for i, name in enumerate(MEANS):
            if name in parts:
                self.sums[2 * i] += parts[name].detach().double() * weights[name]
                self.sums[2 * i + 1] += weights[name]
        self.sums[-2] += shuffled
        self.sums[-1] += clips

    def merge(self, other: Tally) -> None:
        self.sums += other.sums.to(self.sums.device)

    def over(self, ranks: Ranks) -> Tally:
        """Returns the tally summed over all processes, on the CPU."""
        total = Tally()
        total.sums = ranks.sum(self.sums.clone()).cpu()
        return total

    def values(self) -> dict[str, float]:
        """Returns the means that have values, and the counts."""
        sums = self.sums.tolist()
        found = {name: sums[2 * i] / sums[2 * i + 1] for i, name in enumerate(MEANS) if sums[2 * i + 1]}
        return found | {name: int(sums[2 * len(MEANS) + i]) for i, name in enumerate(COUNTS)}


class RunLog:
    """Appends lines to the log. Removes lines after step `first`, from an interrupted run."""

    def __init__(self, out: Path, first: int = 0) -> None:
        self.path = out / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in self.path.read_text("utf-8").splitlines() if 0 < _step(line) <= first]
            with written_whole(self.path) as aside:
                aside.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        self.board = _tensorboard(out / "tensorboard", first)

    def write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in line.items():
                if name != "step" and isinstance(value, int | float):
                    self.board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a `metrics.jsonl`, without an incomplete last line."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if _step(line)]


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0


def _tensorboard(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first + 1)
