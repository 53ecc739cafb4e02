"""`evacap caption`: files, folders and wildcards to a table of captions."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import (
    MACHINE,
    SOME_FAILED,
    Debug,
    Device,
    Json,
    Precision,
    Quiet,
    Verbose,
    say,
    shown,
    summary,
)
from evacap_cli.cli.meter import Meter
from evacap_cli.errors import UsageError

MODEL, CLIPS = "Model and search", "What is heard and seen"


def caption(
    inputs: Annotated[
        list[str], typer.Argument(help="Video or sound files, folders (searched below), wildcards.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Table to write: .csv or .jsonl. Without it, CSV goes to stdout."),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="Which 10 s of a longer file: loudest, start or middle.",
            rich_help_panel=CLIPS,
        ),
    ] = "loudest",
    frames: Annotated[
        int | None,
        typer.Option(
            help="Pictures a clip, spread over it.",
            show_default="as the model was trained",
            rich_help_panel=CLIPS,
        ),
    ] = None,
    audio_only: Annotated[
        bool, typer.Option("--audio-only", help="Do not look at pictures.", rich_help_panel=CLIPS)
    ] = False,
    model: Annotated[
        str, typer.Option(help="A packaged model or a checkpoint folder.", rich_help_panel=MODEL)
    ] = "demo",
    beam: Annotated[int, typer.Option(help="Hypotheses kept in the search.", rich_help_panel=MODEL)] = 4,
    max_words: Annotated[int, typer.Option(help="Longest caption, in tokens.", rich_help_panel=MODEL)] = 20,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Clips the model takes at once.", show_default="8, on CUDA 32", rich_help_panel=MACHINE
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Decoding processes; 0 decodes in this one, where a damaged file may end or hang it.",
            show_default="cores less one",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that decoding one file may take.", rich_help_panel=MACHINE)
    ] = 300.0,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Caption what is heard in videos or sound files, one row each, in the order given.

    Example: evacap caption ./videos -o out.csv
    """
    from evacap_cli.tasks.captioning.engine import Captioner, CaptionOptions
    from evacap_cli.tasks.captioning.outputs import RowFile, RowStream, check_output
    from evacap_cli.tasks.captioning.sources import expand_inputs

    if out is not None:
        check_output(out)
    elif json:
        raise UsageError("--json: stdout is where the table goes, too", "name a file for the table with -o")
    options = CaptionOptions(frames, beam, max_words, batch_size, workers, window, audio_only, timeout)
    paths = expand_inputs(inputs)
    began = time.monotonic()
    captioner = Captioner.load(model, device, precision)
    captioner.check(options)  # wrong options are refused before the first file is decoded
    if verbose:
        say(f"{len(paths)} files; model {captioner.checkpoint.name} on {captioner.device}, "
            f"loaded in {time.monotonic() - began:.1f} s")  # fmt: skip

    counts: Counter[str] = Counter()
    began = time.monotonic()
    no_bar = quiet or (out is None and sys.stdout.isatty())  # the rows themselves show how far it is
    try:
        with (
            closing(captioner.rows(paths, options)) as rows,  # whatever happens, its workers end first
            RowFile(out) if out else RowStream(sys.stdout) as table,
            Meter("caption", len(paths), quiet=no_bar) as meter,
        ):
            for row in rows:
                table.write(row)
                counts[row.status] += 1
                if verbose or (row.status == "failed" and not quiet):
                    say(f"{row.status}: {shown(row.video)}: {row.error or row.caption}")
                meter.update(counts.total())
    except KeyboardInterrupt:
        kept = f" are in {out}.part" if out else ""
        raise KeyboardInterrupt(f"{counts.total()} of {len(paths)} rows{kept}") from None

    total, seconds = counts.total(), time.monotonic() - began
    rate = total / max(seconds, 1e-9)
    statuses = ("ok", "audio-only", "failed")
    if not quiet:
        parts = ", ".join(f"{counts[status]} {status}" for status in statuses)
        say(f"{total} clips: {parts}; {seconds:.1f} s, {rate:.2f} clips/s" + (f" -> {out}" if out else ""))
    if json:
        summary({"out": str(out), "model": captioner.checkpoint.name, "clips": total,
                 **{status: counts[status] for status in statuses},
                 "seconds": round(seconds, 3), "clips_per_second": round(rate, 3)})  # fmt: skip
    if counts["failed"]:
        raise typer.Exit(SOME_FAILED)
