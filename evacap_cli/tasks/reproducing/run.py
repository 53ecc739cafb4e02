"""A reproduction with the options of a user: checks and plans it, runs its steps, and writes the results.

A finished step has a marker in its folder. The same command resumes at the first step without one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from evacap_cli.atomic import written_whole
from evacap_cli.data.files import disk_errors, locked
from evacap_cli.data.store import Store
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.evaluation import Show, check_output
from evacap_cli.tasks.reproducing.comparison import Comparison, compare, detection_results
from evacap_cli.tasks.reproducing.plan import SCALES, TABLES, Step, hours, plan
from evacap_cli.tasks.reproducing.steps import SETS, Machine, ReproductionPaths, carry_out
from evacap_cli.tasks.reproducing.writing import write_all
from evacap_cli.tasks.speed import environment
from evacap_cli.version import __version__

OPTIONS, DONE = "reproduce.json", "done.json"


@dataclass(frozen=True)
class ReproduceOptions:
    """scale: one of SCALES. data: the stores of train, val and test, or none. only: some of TABLES; none for all.
    seeds: training seeds; none for those of the scale."""

    scale: str = "demo"
    data: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    init_encoder: tuple[Path, ...] = ()
    init_decoder: Path | None = None
    vocab: Path | None = None
    machine: Machine = field(default_factory=Machine)


class Reproduction:
    """The steps in the folder `out`, and which of them are done. Raises UsageError for invalid options."""

    def __init__(self, out: Path, options: ReproduceOptions) -> None:
        check_output(out)
        if options.scale not in SCALES:
            raise UsageError(f"--scale {options.scale}: is none of {', '.join(SCALES)}")
        if len(options.data) not in (0, len(SETS)):
            raise UsageError(
                f"--data: {len(options.data)} stores given", f"give three, in this order: {', '.join(SETS)}"
            )
        scale = SCALES[options.scale]
        if options.data:
            scale = replace(scale, clips=None)
        elif scale.clips is None:
            raise UsageError(
                f"--scale {scale.name} needs stores of clips", "give --data three times: train, val, test"
            )
        if len(set(options.seeds)) < len(options.seeds) or any(seed < 0 for seed in options.seeds):
            raise UsageError("--seeds: give different numbers, 0 or more")
        if options.machine.workers is None:
            options = replace(options, machine=replace(options.machine, workers=scale.workers))
        self.out, self.options, self.scale = out, options, scale
        self.seeds = options.seeds or scale.seeds
        stores = options.data or tuple(out / "clips" / f"{name}.store" for name in SETS)
        self.places = ReproductionPaths(
            out, (stores[0], stores[1], stores[2]), options.init_encoder, options.init_decoder, options.vocab
        )
        counts = scale.clips or tuple(len(Store(store)) for store in stores)
        self.clips = (counts[0], counts[1], counts[2])
        self.steps = self._plan(options.only)
        self._check_identity()

    def _plan(self, only: Sequence[str]) -> list[Step]:
        return plan(self.scale, only, self.clips, self.seeds)

    def _identity(self) -> dict[str, Any]:
        """The settings that all steps in a folder share."""
        data = [Store(store).fingerprint() for store in self.options.data]
        inits = [
            str(path) for path in (*self.options.init_encoder, self.options.init_decoder) if path is not None
        ]
        return {"scale": self.scale.name, "seeds": list(self.seeds), "data": data, "init": inits}

    def _check_identity(self) -> None:
        path = self.out / OPTIONS
        if not path.is_file():
            return
        found = json.loads(path.read_text("utf-8"))
        if other := [name for name, value in self._identity().items() if found.get(name) != value]:
            differences = ", ".join(
                f"{name} {found.get(name)!r}, not {self._identity()[name]!r}" for name in other
            )
            raise UsageError(f"{self.out}: holds a reproduction with {differences}", "give another folder")

    def done(self, step: Step) -> float | None:
        """The seconds that a step took; None if it is not done."""
        path = self.places.folder(step.name) / DONE
        return float(json.loads(path.read_text("utf-8"))["seconds"]) if path.is_file() else None

    def expected(self, step: Step) -> float:
        """The expected seconds of a step, from finished steps of the same kind if there are any."""
        done = [(each.seconds, taken) for each in self.steps if each.kind == step.kind
                and (taken := self.done(each)) is not None]  # fmt: skip
        guessed, took = (sum(values) for values in zip(*done, strict=True)) if done else (1.0, 1.0)
        return step.seconds * took / guessed

    def table(self) -> tuple[list[str], list[list[str]], list[str]]:
        """Header, rows and notes of the plan."""
        rows, left, disk = [], 0.0, 0.0
        for step in self.steps:
            taken = self.done(step)
            expected = 0.0 if taken is not None else self.expected(step)
            left += expected
            disk += 0.0 if taken is not None else step.megabytes
            state = "to do" if taken is None else f"done in {hours(taken)}"
            rows.append(
                [step.name, state, hours(expected) if taken is None else "", f"{step.megabytes:,.0f} MB"]
            )
        train, val, test = self.clips
        notes = [
            f"scale {self.scale.name}: {train:,} clips for training, {val:,} for validation, {test:,} for the test; "
            f"seeds {', '.join(map(str, self.seeds))}",
            f"left: about {hours(left)} (estimated: {self.scale.costs.machine}) and {disk / 1e3:,.1f} GB of disk",
        ]
        return ["step", "state", "takes about", "disk"], rows, notes

    def run(self, show: Show, log: Callable[[str], None]) -> None:
        """Runs the steps that are left. Raises EvacapError."""
        left = [step for step in self.steps if self.done(step) is None]
        self._check_disk(left)
        with locked(self.out, "reproduction"):
            with disk_errors(self.out), written_whole(self.out / OPTIONS) as aside:
                aside.write_text(json.dumps(self._identity(), indent=1), "utf-8")
            self._run(left, show, log)

    def _run(self, left: Sequence[Step], show: Show, log: Callable[[str], None]) -> None:
        for number, step in enumerate(left):
            log(f"step {number + 1} of {len(left)}: {step.name}, about {hours(self.expected(step))}")
            began = time.monotonic()
            carry_out(step, self.scale, self.places, self.options.machine, show)
            seconds = round(time.monotonic() - began, 2)
            folder = self.places.folder(step.name)
            folder.mkdir(parents=True, exist_ok=True)
            with written_whole(folder / DONE) as aside:
                aside.write_text(
                    json.dumps({"seconds": seconds, "finished": time.strftime("%Y-%m-%d %H:%M:%S %z")})
                )

    def _check_disk(self, left: Sequence[Step]) -> None:
        needed = sum(step.megabytes for step in left) * 1e6
        there = next(
            folder for folder in (self.out.absolute(), *self.out.absolute().parents) if folder.exists()
        )
        free = shutil.disk_usage(there).free
        if free < needed:
            raise EvacapError(
                f"{self.out}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free",
                "free some space, or give another folder",
            )

    def results(self) -> dict[str, list[Comparison]]:
        """The numbers of all tables whose steps are done, including steps of earlier commands."""
        folder, found = self.out / "steps", {}
        for table in TABLES:
            if all(self.done(step) is not None for step in self._plan([table])):
                found[table] = compare(table, self.scale, self.seeds, folder)
                if table == "table3":
                    found["mismatch"] = list(detection_results(self.seeds, folder))
        return found

    def write(self, command: str) -> dict[str, list[Comparison]]:
        """Writes all files, and returns the contents of the tables."""
        found = self.results()
        with disk_errors(self.out):
            write_all(found, self.out, self._environment(command),
                      self.places.folder("speed") if "figure2" in found else None)  # fmt: skip
        return found

    def _environment(self, command: str) -> dict[str, Any]:
        device = pick_device(self.options.machine.device)
        steps = {step.name: taken for step in self._plan(()) if (taken := self.done(step)) is not None}
        stores = {
            name: _described(path)
            for name, path in zip(SETS, self.places.stores, strict=True)
            if path.exists()
        }
        return {
            "scale": self.scale.name,
            "seeds": list(self.seeds),
            "command": command,
            "evacap": __version__,
            "cuda": torch.version.cuda,
            **environment(device, pick_precision("auto", device)),
            "stores": stores,
            "steps": steps,
        }


def _described(path: Path) -> dict[str, Any]:
    store = Store(path)
    return {"path": str(path), "clips": len(store), "fingerprint": store.fingerprint()}
