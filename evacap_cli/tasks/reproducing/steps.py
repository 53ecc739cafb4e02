"""Runs a step of a reproduction with the task of the corresponding command."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evacap_cli.atomic import written_whole
from evacap_cli.data.store import Store
from evacap_cli.errors import EvacapError
from evacap_cli.features import FeatureSettings
from evacap_cli.metrics.bootstrap import draw
from evacap_cli.metrics.suite import Settings, choose_metrics
from evacap_cli.model import build_model, load_preset
from evacap_cli.model.towers import load_towers
from evacap_cli.report.latency import times_table
from evacap_cli.report.robustness_figure import tables
from evacap_cli.report.tables import markdown
from evacap_cli.tasks.calibrating import calibrate
from evacap_cli.tasks.evaluation import EvaluateOptions, Show, evaluate, table, write_evaluation
from evacap_cli.tasks.preparing import prepare
from evacap_cli.tasks.reproducing.plan import SHARES, SYSTEMS, TIMED, Scale, Step
from evacap_cli.tasks.robustness import SweepOptions, sweep, write_sweep
from evacap_cli.tasks.speed import measure, write_times
from evacap_cli.tasks.store_tags import compute_tags
from evacap_cli.tasks.synthesis import synthesize
from evacap_cli.tasks.training.config import read_config
from evacap_cli.tasks.training.run import RunCallbacks, RunOptions, train
from evacap_cli.tasks.training.state import FILE

SETS = ("train", "val", "test")
WORLD_SEED = 1000
"""Seed of the training clips; the seeds of val and test follow it."""
START_PRESET = "evacap-no-gate"
"""The method of the model that all others are initialised from: cross-attention, trained on some clips without their
picture."""


@dataclass(frozen=True)
class ReproductionPaths:
    """The paths of a reproduction. stores: train, val and test. inits: files of published weights for full-size
    models."""

    out: Path
    stores: tuple[Path, Path, Path]
    init_encoder: tuple[Path, ...] = ()
    init_decoder: Path | None = None
    vocab: Path | None = None

    def folder(self, name: str) -> Path:
        return self.out / "steps" / name

    def checkpoint(self, name: str, which: str) -> Path:
        return self.folder(name) / which

    @property
    def tags(self) -> Path:
        """The folder of the tags of all clips, which the systems share; see `compute_tags`."""
        return self.out / "clips" / "tags"


@dataclass(frozen=True)
class Machine:
    """workers: None for those of the scale. processes: for training; torchrun starts more than one."""

    workers: int | None = None
    device: str = "auto"
    processes: int = 1
    java: str | None = None


def carry_out(step: Step, scale: Scale, places: ReproductionPaths, machine: Machine, show: Show) -> None:
    """Runs a step, and resumes it if it was interrupted. Raises EvacapError."""
    _KINDS[step.kind](step, scale, places, machine, show)


def _make_clips(step: Step, scale: Scale, places: ReproductionPaths, machine: Machine, show: Show) -> None:
    assert scale.clips is not None
    features = FeatureSettings.from_dict(read_config(scale.preset(SYSTEMS["evacap"])).features.to_dict())
    for place, (name, clips, store) in enumerate(zip(SETS, scale.clips, places.stores, strict=True)):
        folder = store.with_suffix(".clips")
        workers = max(1, machine.workers or 0)
        synthesize(
            folder, clips, WORLD_SEED + place, workers=workers, progress=_progress(show, f"{name}, drawing")
        )
        prepare(folder / "captions.csv", store, features, workers=machine.workers or 0,
                progress=_progress(show, f"{name}, features"))  # fmt: skip
        if scale.size == "tags":
            model = load_towers(build_model(load_preset(scale.preset(SYSTEMS["evacap"])).model))
            compute_tags(model, Store(store), features, places.tags / name, _progress(show, f"{name}, tags"))


def training_command(
    step: Step, scale: Scale, places: ReproductionPaths
) -> tuple[str, list[str], RunOptions]:
    """The preset, overrides and options of a training step."""
    train_store, val, _ = places.stores
    options = RunOptions(train_store, val, init_encoder=places.init_encoder, init_decoder=places.init_decoder,
                         vocab=places.vocab, tags=places.tags)  # fmt: skip
    if not step.system:
        own = ("training.modality_dropout=0.3", "training.sms=0.0", "training.consistency=0.0",
               f"training.epochs={scale.start_epochs}")  # fmt: skip
        options = replace(options, init=scale.start_init or None)
        return f"{START_PRESET}-{scale.size}", [*scale.overrides, *own], options
    system = SYSTEMS[step.system]
    if scale.start_epochs:
        options = replace(options, init=str(places.checkpoint("start", "last")))
    return scale.preset(system), list(scale.settings(system, step.seed)), options


def _train(step: Step, scale: Scale, places: ReproductionPaths, machine: Machine, show: Show) -> None:
    preset, overrides, options = training_command(step, scale, places)
    options, folder = (
        replace(options, workers=machine.workers or 0, device=machine.device),
        places.folder(step.name),
    )
    if machine.processes > 1:
        command = torchrun(preset, overrides, options, folder, machine.processes)
        if subprocess.run(command, check=False).returncode:
            raise EvacapError(
                f"{step.name}: training failed: {shlex.join(command)}", "the lines above say why"
            )
    else:
        train(preset, overrides, folder, options,
              RunCallbacks(progress=lambda now: show(step.name, now.step, now.steps)))  # fmt: skip
    if step.system == "evidence":  # the switch needs a calibration
        calibrate(str(places.checkpoint(step.name, scale.checkpoint)), places.stores[1], device=machine.device,
                  overwrite=True, progress=_progress(show, f"{step.name}, calibration"),
                  tags=places.tags / "val")  # fmt: skip
    (folder / FILE).unlink(
        missing_ok=True
    )  # contains the optimizer's state, which a finished run does not need
    for name in {"last", "best"} - {scale.checkpoint} - ({"last"} if not step.system else set()):
        shutil.rmtree(folder / name, ignore_errors=True)


def torchrun(preset: str, overrides: list[str], options: RunOptions, out: Path, processes: int) -> list[str]:
    """The command of `evacap train` in several processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "evacap_cli",
               "train", preset, *overrides, "--data", str(options.data), "--val", str(options.val), "-o", str(out),
               "--workers", str(options.workers), "--device", options.device]  # fmt: skip
    for name, value in (
        ("init", options.init),
        ("init-decoder", options.init_decoder),
        ("vocab", options.vocab),
    ):
        command += [] if value is None else [f"--{name}", str(value)]
    for file in options.init_encoder:
        command += ["--init-encoder", str(file)]
    return command


def _options(scale: Scale, places: ReproductionPaths, machine: Machine) -> EvaluateOptions:
    return EvaluateOptions(
        device=machine.device,
        scoring=Settings(choose_metrics(scale.metrics), machine.java),
        tags=places.tags / "test",
    )


def _evaluate(step: Step, scale: Scale, places: ReproductionPaths, machine: Machine, show: Show) -> None:
    checkpoint = places.checkpoint(f"train-{step.system}-{step.seed}", scale.checkpoint)
    found = evaluate([str(checkpoint)], places.stores[2], _options(scale, places, machine), show)
    folder = places.folder(step.name)
    write_evaluation(found, folder, markdown(*table(found)))
    with written_whole(folder / "draws.npz") as aside, aside.open("wb") as file:
        drawn = draw(found[0].scores.statistics)
        np.savez(file, names=np.array(list(drawn)), values=np.stack(list(drawn.values())))


def _robustness(step: Step, scale: Scale, places: ReproductionPaths, machine: Machine, show: Show) -> None:
    checkpoint = places.checkpoint(f"train-{step.system}-{step.seed}", scale.checkpoint)
    options = SweepOptions(SHARES, seeds=scale.donors, evaluate=_options(scale, places, machine))
    made = sweep([str(checkpoint)], Store(places.stores[2]), options, show)
    shown = tables(made.models, options.perturb, options.graded)
    page = "\n".join(f"## {title}\n\n{markdown(header, rows)}" for title, header, rows in shown)
    write_sweep(made, places.folder(step.name), page)


def _speed(step: Step, scale: Scale, places: ReproductionPaths, machine: Machine, show: Show) -> None:
    names = [scale.preset(SYSTEMS[key]) for key in TIMED]
    timed = measure(names, replace(scale.speed, device=machine.device), show)
    write_times(timed, places.folder(step.name), markdown(*times_table(timed)))


def _progress(show: Show, what: str) -> Callable[[int, int], None]:
    return lambda done, total: show(what, done, total)


_KINDS: dict[str, Callable[[Step, Scale, ReproductionPaths, Machine, Show], None]] = {
    "clips": _make_clips, "train": _train, "evaluate": _evaluate, "robustness": _robustness, "speed": _speed,
}  # fmt: skip
