"""`evacap caption`: files, folders, wildcards, lists and URLs to captions."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evacap_cli.cli.common import (
    MACHINE,
    MEDIA,
    SOME_FAILED,
    AudioTrack,
    Debug,
    Device,
    Json,
    Precision,
    Quiet,
    Verbose,
    say,
    say_precision,
    shown,
    summary,
)
from evacap_cli.cli.meter import Meter
from evacap_cli.errors import UsageError

if TYPE_CHECKING:
    from evacap_cli.tasks.captioning.rows import Row
    from evacap_cli.tasks.captioning.target import Report

MODEL, LONG, OUT = "Model and search", "Long recordings", "Output"
READING = "evacap_cli.tasks.captioning.reading"
STATUSES = ("ok", "audio-only", "failed")
MOST_FAILED = 8
MOST_NOTES = 1000  # in the summary for programs


def caption(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Video or sound files, folders (searched below), wildcards, URLs, manifests; - is a list on stdin."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            rich_help_panel=OUT,
            help="Table or subtitles to write, by suffix; with -f a folder, of a file per input. Without it, CSV goes "
            "to stdout. What is done is kept in OUT.journal: stopped, the same command goes on; run again, it adds "
            "what is new.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            rich_help_panel=OUT,
            show_default="by OUT's suffix",
            help="csv, jsonl, parquet, srt or vtt; with -o FOLDER.",
        ),
    ] = None,
    excel: Annotated[
        bool,
        typer.Option(
            "--excel", rich_help_panel=OUT, help="CSV whose cells no spreadsheet takes for formulas."
        ),
    ] = False,
    flag_mismatch: Annotated[
        bool,
        typer.Option(
            "--flag-mismatch",
            rich_help_panel=OUT,
            help="A column with the probability that the picture is not of the sound.",
        ),
    ] = False,
    tags: Annotated[
        bool,
        typer.Option(
            "--tags",
            rich_help_panel=OUT,
            help="Columns with what the caption rests on: the classes heard and seen, and how surely. JSON lines have "
            "the times of sounds, too.",
        ),
    ] = False,
    curves: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUT, help="Folder for gate and entropy over time: numbers and a picture a clip."
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", rich_help_panel=OUT, help="Try inputs again that failed before."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            rich_help_panel=OUT,
            help="Caption all afresh, and replace an OUT that is there, whatever made it.",
        ),
    ] = False,
    segment: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=LONG,
            help="A row for each piece of so many seconds; silent pieces are left out.",
            show_default="one row",
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=LONG,
            show_default="--segment",
            help="Seconds from the beginning of a piece to that of the next.",
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", rich_help_panel=LONG, help="One row for neighbouring pieces with equal captions."
        ),
    ] = False,
    min_rms: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=LONG,
            show_default="all are captioned",
            help="Leave out pieces that are quieter, in dBFS, such as -50.",
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="Without --segment, which 10 s of a longer file: loudest, start or middle.",
            rich_help_panel=LONG,
        ),
    ] = "loudest",
    frames: Annotated[
        int | None,
        typer.Option(
            help="Pictures a clip, spread over it.",
            show_default="as the model was trained",
            rich_help_panel=MEDIA,
        ),
    ] = None,
    audio_only: Annotated[
        bool, typer.Option("--audio-only", help="Do not look at pictures.", rich_help_panel=MEDIA)
    ] = False,
    audio_track: AudioTrack = None,
    same_frames: Annotated[
        float,
        typer.Option(
            help="Levels of 255 by which a picture may differ from the one before, in the mean over it, and not be "
            "looked at again.",
            rich_help_panel=MEDIA,
        ),
    ] = 0.0,
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
            help="Clips the model takes at once; halved where memory does not suffice.",
            show_default="8, on CUDA 32",
            rich_help_panel=MACHINE,
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
        float, typer.Option(help="Seconds that decoding one clip may take.", rich_help_panel=MACHINE)
    ] = 300.0,
    memory: Annotated[
        float,
        typer.Option(help="GiB that one decoding process may hold; 0: no limit.", rich_help_panel=MACHINE),
    ] = 4.0,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Caption what is heard in videos or sound files, one row each, in the order given.

    Example: evacap caption ./videos -o out.csv
    """
    from evacap_cli.media import start_ahead

    if workers != 0:
        start_ahead(READING)  # torch takes its time in both processes: at the same time
    from evacap_cli.tasks.captioning.engine import Captioner
    from evacap_cli.tasks.captioning.options import CaptionOptions, together
    from evacap_cli.tasks.captioning.run import caption_files, caption_stream
    from evacap_cli.tasks.captioning.sources import find_sources
    from evacap_cli.tasks.captioning.target import Target

    target = Target(out, kind, excel, merge, flag_mismatch, curves, retry_failed, overwrite, tags)
    options, _ = together(
        lambda: CaptionOptions(frames, beam, max_words, batch_size, workers, window, audio_only, timeout, memory,
                               segment, hop, min_rms, same_frames, audio_track),
        lambda: target.check(segmented=segment is not None),
        lambda: _check_stdout(json and out is None),
    )[:2]  # fmt: skip
    sources = find_sources(target.inputs(inputs))
    say_precision(precision, device, quiet)
    began = time.monotonic()
    captioner = Captioner.load(model, device, precision)
    if verbose:
        for what, count in sources.left_out.items():
            say(f"left out: {count} {what}")
        say(f"{len(sources)} inputs; model {captioner.checkpoint.name} on {captioner.device}, "
            f"loaded in {time.monotonic() - began:.1f} s")  # fmt: skip

    done = 0
    notes: list[dict[str, str]] = []
    no_bar = quiet or (out is None and sys.stdout.isatty())  # the rows themselves show how far it is
    with Meter("caption", len(sources), "clips" if segment is None else "inputs", quiet=no_bar) as meter:

        def show(now: int, clips: int, rows: Sequence[Row]) -> None:
            nonlocal done
            if not clips:
                meter.begin("caption", len(sources), meter.unit, now)
            for row in rows:
                if verbose or (row.status == "failed" and not quiet):
                    say(f"{row.status}: {shown(row.video)}: {shown(row.error or row.caption)}")
                if row.note and verbose:
                    say(f"  {shown(row.note)}")
                if row.note and len(notes) < MOST_NOTES:
                    notes.append({"video": row.video, "note": row.note})
            meter.update(now, note="" if segment is None else f"{clips} captions")
            done = now

        try:
            if out is None:
                report = caption_stream(captioner, sources, target, options, sys.stdout, show, say)
            else:
                report = caption_files(captioner, sources, target, options, show, say)
        except KeyboardInterrupt:
            kept = f"are kept beside {out}; the same command goes on" if out else "rows are printed"
            raise KeyboardInterrupt(f"{done} of {len(sources)} {kept}") from None
    _say_what_came(report, out, quiet, 0 if verbose else sources.left_out.total())
    if json:
        counts = {status: report.counts[status] for status in STATUSES}
        summary({"out": str(out), "model": captioner.checkpoint.name, "clips": report.rows, **counts,
                 "inputs": len(sources), "new": report.new, "reused": report.reused, "unused": report.unused,
                 "seconds": round(report.seconds, 3), "clips_per_second": round(report.rate, 3),
                 "notes": notes})  # fmt: skip
    if report.counts["failed"]:
        raise typer.Exit(SOME_FAILED)


def _check_stdout(wanted_twice: bool) -> None:
    if wanted_twice:
        raise UsageError("--json: stdout is where the table goes, too", "name a file for the table with -o")


def _say_what_came(report: Report, out: Path | None, quiet: bool, left_out: int) -> None:
    if quiet:
        return
    parts = ", ".join(f"{report.counts[status]} {status}" for status in STATUSES)
    before = f"{report.reused} from before; " if report.reused else ""
    rate = f"{report.seconds:.1f} s, {report.rate:.2f} clips/s" if report.new else "nothing new"
    say(f"{report.rows} clips: {parts}; {before}{rate}" + (f" -> {out}" if out else ""))
    if left_out:
        say(f"  {left_out} more in the folders were left out; --verbose says why")
    for row in report.failed[:MOST_FAILED]:
        say(f"  failed before: {shown(row.video)}: {shown(row.error)}")
    if report.failed:
        more = len(report.failed) > MOST_FAILED
        say(("  and more; " if more else "  ") + "--retry-failed tries them again")
    if report.unused:
        say(
            f"  {report.unused} inputs that were captioned before are not among these: {out} has no rows of them"
        )
    if report.changed:
        say(f"  {out}: was changed by something else since it was written, and left as it is")
