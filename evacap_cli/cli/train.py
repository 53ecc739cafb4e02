"""`evacap train`: trains a model from settings and a feature store or manifest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import INTERRUPTED, MACHINE, Debug, Device, Json, Precision, Quiet, say, summary
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.errors import UsageError

INITIAL = "Initial weights"
REPEAT_SECONDS = 2.0
"""A second signal within this time is a repetition: a terminal, `timeout` and torchrun may send one more than once."""


def train(
    config: Annotated[str, typer.Argument(help="Name of a preset, or a YAML file with the same sections.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change, such as training.lr=3e-4 model.fusion=gate."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Training clips: a feature store (evacap prepare) or a manifest. Required unless --dry-run."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder of the run: checkpoints, log and curves. Required unless --dry-run."
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            help="Validation clips: a feature store or a manifest. Selects the checkpoint that is kept as best.",
            show_default="no validation",
        ),
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(help="Folder of the media files of a manifest.", show_default="folder of the manifest"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print settings, parameter counts, steps and estimated memory, then exit."
        ),
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint to start from. Its tokenizer is kept.",
            show_default="random weights",
            rich_help_panel=INITIAL,
        ),
    ] = None,
    init_encoder: Annotated[
        list[Path] | None,
        typer.Option(
            help="Published weights of the encoder: CAV-MAE, or YAMNet and EfficientNet-lite0 for tag towers. Repeat "
            "for several files.",
            rich_help_panel=INITIAL,
        ),
    ] = None,
    init_decoder: Annotated[
        Path | None,
        typer.Option(
            help="Published weights of the decoder: GIT. Uses the vocabulary of BERT.",
            rich_help_panel=INITIAL,
        ),
    ] = None,
    vocab: Annotated[
        Path | None,
        typer.Option(
            help="File vocab.txt of bert-base-uncased.",
            show_default="the file from evacap weights fetch-vocab",
            rich_help_panel=INITIAL,
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Pattern of published tensor names that may be missing or unused. Repeat for several patterns.",
            rich_help_panel=INITIAL,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Resume the run in OUT if there is one.")] = True,
    workers: Annotated[
        int, typer.Option(help="Data loading processes per training process.", rich_help_panel=MACHINE)
    ] = 2,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a captioner from a preset or a YAML file.

    Run the same command again to resume an interrupted run from its last save.

    Examples:
    evacap train evacap-tiny --data train.store --val val.store -o runs/first training.epochs=5
    evacap train evacap-base --dry-run
    torchrun --nproc-per-node 4 -m evacap_cli train evacap-base --data train.store -o runs/base
    """
    from evacap_cli.tasks.training.distributed import started_first
    from evacap_cli.tasks.training.loop import Progress
    from evacap_cli.tasks.training.run import RunCallbacks, RunOptions, plan_run
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
    first = started_first()
    quiet, json = quiet or not first, json and first
    training, stop = False, _Stop(first)
    with stop.handle_signals(), ProgressBar("prepare", quiet=quiet) as bar:

        def show(now: Progress) -> None:
            nonlocal training
            if not training:
                bar.begin("train", now.steps, "steps", now.step - 1)
                training = True
            bar.update(now.step, note=f"loss {now.loss:.4f}, {now.clips_per_second:.1f} clips/s")
            if now.note and not quiet:
                say(f"step {now.step}: loss {now.loss:.4f}, {now.note}")

        callbacks = RunCallbacks(say if not quiet else lambda text: None, bar.update, show, stop)
        try:
            result = train_run(config, changes, out, options, callbacks)
        except KeyboardInterrupt:
            if not first:
                raise typer.Exit(INTERRUPTED) from None
            saved = (out / FILE).exists()
            raise KeyboardInterrupt(
                *["run the same command again to resume from the last save"] * saved
            ) from None
    if result["stopped"]:
        if not first:
            raise typer.Exit(INTERRUPTED)
        raise KeyboardInterrupt(
            f"saved at step {result['step']} of {result['steps']}; run the same command again to resume"
        )
    if not quiet:
        saved_in = f"{out / 'last'}" + (f" and {out / 'best'}" if result["best"] is not None else "")
        early = f", stopped early after {result['step']}," if result["ended_early"] else ""
        say(f"{result['steps']} steps{early} in {result['seconds'] / 60:.1f} min; checkpoints: {saved_in}")
    if json:
        summary(result)


class _Stop:
    """Handles Ctrl-C and SIGTERM during training: the first one finishes and saves the current step. Before the first
    step, and the second time, they end the command immediately."""

    def __init__(self, prints: bool) -> None:
        self.prints = prints
        self.training = False
        self.requested = 0.0  # time of the first signal

    def __call__(self) -> bool:
        """Whether to stop; training calls this after every step, in every process."""
        self.training = True
        return self.requested > 0

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Installs the handlers, except for ignored signals, as Ctrl-C is in background jobs of a shell."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        replaced = {
            number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)
        }
        try:
            for number in replaced:
                signal.signal(number, self._handle)
        except ValueError:  # not the main thread
            yield
            return
        try:
            yield
        finally:
            for number, handler in replaced.items():
                signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        now = time.monotonic()
        if not self.training or (self.requested and now - self.requested > REPEAT_SECONDS):
            raise KeyboardInterrupt
        if not self.requested:
            self.requested = now
            if self.prints:  # not with print, which the signal may have interrupted
                os.write(2, b"interrupted; saving after this step; interrupt again to exit immediately\n")
