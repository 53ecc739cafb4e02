"""`evacap train`: settings and a feature store (or a manifest) to a checkpoint."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import MACHINE, Debug, Device, Json, Precision, Quiet, say, summary
from evacap_cli.cli.meter import Meter
from evacap_cli.errors import UsageError

BEGIN = "Weights to begin with"
AGAIN_SECONDS = 2.0
"""After which a second signal is meant: a terminal, `timeout` and torchrun may send the same one more than once."""


def train(
    config: Annotated[str, typer.Argument(help="A preset's name or a YAML file of the same sections.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings laid over it, such as training.lr=3e-4 model.fusion=gate."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Feature store (`prepare`) of the training clips, or a manifest of them."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the run: checkpoints, log, curves.")
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(help="Store or manifest of validation clips; decides which checkpoint is `best`."),
    ] = None,
    media: Annotated[
        Path | None, typer.Option(help="Folder of a manifest's media; by default the manifest's own.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print all settings, parameters, steps and memory; train nothing."),
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(help="Checkpoint to start from (its tokenizer is kept).", rich_help_panel=BEGIN),
    ] = None,
    init_encoder: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with CAV-MAE's weights; of tag towers, with YAMNet's or EfficientNet-lite0's. Repeatable.",
            rich_help_panel=BEGIN,
        ),
    ] = None,
    init_decoder: Annotated[
        Path | None,
        typer.Option(help="File with GIT's weights; its words are BERT's.", rich_help_panel=BEGIN),
    ] = None,
    vocab: Annotated[
        Path | None,
        typer.Option(
            help="BERT's vocab.txt.",
            show_default="the one that `weights fetch-vocab` got",
            rich_help_panel=BEGIN,
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Pattern of published names that may be missing or left over.", rich_help_panel=BEGIN
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in -o, if there is one.")] = True,
    workers: Annotated[
        int, typer.Option(help="Reading processes beside each training process.", rich_help_panel=MACHINE)
    ] = 2,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a captioner. Stopped at any point, the same command goes on from its last save.

    Example: evacap train evacap-tiny --data train.store --val val.store -o runs/first training.epochs=5

    On several GPUs: torchrun --nproc-per-node 4 -m evacap_cli train evacap-base --data ... -o ...
    """
    from evacap_cli.tasks.training.loop import Progress
    from evacap_cli.tasks.training.run import RunOptions, Told, plan_run
    from evacap_cli.tasks.training.run import train as train_run
    from evacap_cli.tasks.training.state import FILE

    changes = [*(overrides or []), *([] if precision == "auto" else [f"training.precision={precision}"])]
    options = RunOptions(
        data,
        val,
        media,
        init,
        tuple(init_encoder or ()),
        init_decoder,
        vocab,
        tuple(allow or ()),
        resume,
        workers,
        device,
    )
    if dry_run:
        planned = plan_run(config, changes, options)
        if json:
            summary(planned)
        else:
            import yaml

            print(yaml.safe_dump(planned, sort_keys=False, allow_unicode=True), end="")
        return
    if out is None:
        raise UsageError("--out is missing", "name the run's folder with -o")
    training, stop = False, _Stop()
    with stop.heard(), Meter("prepare", quiet=quiet) as meter:

        def show(now: Progress) -> None:
            nonlocal training
            if not training:
                meter.begin("train", now.steps, "steps", now.step - 1)
                training = True
            meter.update(now.step, note=f"loss {now.loss:.4f}, {now.clips_per_second:.1f} clips/s")
            if now.note and not quiet:
                say(f"step {now.step}: loss {now.loss:.4f}, {now.note}")

        told = Told(say if not quiet else lambda text: None, meter.update, show, stop)
        try:
            result = train_run(config, changes, out, options, told)
        except KeyboardInterrupt:
            saved = (out / FILE).exists()
            raise KeyboardInterrupt(*["the same command goes on from the last save"] * saved) from None
    if result["stopped"]:
        raise KeyboardInterrupt(
            f"saved at step {result['step']} of {result['steps']}; the same command goes on"
        )
    if not quiet:
        kept = f"{out / 'last'}" + (f" and {out / 'best'}" if result["best"] is not None else "")
        early = f", ended early after {result['step']}" if result["ended_early"] else ""
        say(f"{result['steps']} steps{early} in {result['seconds'] / 60:.1f} min; checkpoints: {kept}")
    if json:
        summary(result)


class _Stop:
    """Ctrl-C and SIGTERM while steps are taken: the step is finished and saved. Before, and the second time, they end
    the command at once."""

    def __init__(self) -> None:
        self.stepping = False
        self.asked = 0.0  # when

    def __call__(self) -> bool:
        """What training asks after every step, in every process."""
        self.stepping = True
        return self.asked > 0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Signals that are ignored, as Ctrl-C is by what a shell runs in the background, stay so."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        heard = {
            number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)
        }
        try:
            for number in heard:
                signal.signal(number, self._hear)
        except ValueError:  # not the main thread
            yield
            return
        try:
            yield
        finally:
            for number, handler in heard.items():
                signal.signal(number, handler)

    def _hear(self, *_: object) -> None:
        now = time.monotonic()
        if not self.stepping or (self.asked and now - self.asked > AGAIN_SECONDS):
            raise KeyboardInterrupt
        if not self.asked:
            self.asked = now
            # not by print, in the middle of which the signal may have come
            os.write(2, b"interrupted; saving after this step, once more ends it at once\n")
