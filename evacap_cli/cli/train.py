"""`evacap train`: a preset or YAML and a manifest to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import MACHINE, Debug, Device, Json, Precision, Quiet, say, summary
from evacap_cli.cli.meter import Meter


def train(
    config: Annotated[str, typer.Argument(help="A preset's name or a YAML file of the same sections.")],
    data: Annotated[
        Path, typer.Option(help="Manifest of the training clips (CSV: video,caption or caption_1, ...).")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder of the run: checkpoints, log, prepared clips.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings laid over it, such as training.lr=3e-4 model.fusion=gate."),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(help="Manifest of validation clips; decides which checkpoint is `best`."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose weights to start from (its tokenizer is kept)."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in -o, if there is one.")] = True,
    workers: Annotated[
        int, typer.Option(help="Decoding processes for the clips.", rich_help_panel=MACHINE)
    ] = 2,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a captioner. Stopped at any point, the same command goes on from its last save.

    Example: evacap train evacap-tiny --data world/captions.csv -o runs/first training.epochs=5
    """
    from evacap_cli.tasks.training import Progress
    from evacap_cli.tasks.training_run import train_from_manifest

    training = False
    with Meter("prepare", quiet=quiet) as meter:

        def show(now: Progress) -> None:
            nonlocal training
            if not training:
                meter.begin("train", now.steps, "steps", now.step - 1)
                training = True
            meter.update(now.step, note=f"loss {now.loss:.4f}, {now.clips_per_second:.1f} clips/s")
            if now.validation is not None and not quiet:
                say(f"step {now.step}: loss {now.loss:.4f}, validation {now.validation:.4f}")

        result = train_from_manifest(
            config, overrides or [], data, out, val, init, resume, workers, device, precision,
            prepared=meter.update, progress=show, note=None if quiet else say,
        )  # fmt: skip
    if not quiet:
        kept = f"{out / 'last'}" + (f" and {out / 'best'}" if result["best_validation"] is not None else "")
        say(f"{result['steps']} steps in {result['seconds'] / 60:.1f} min; checkpoints: {kept}")
    if json:
        summary(result)
