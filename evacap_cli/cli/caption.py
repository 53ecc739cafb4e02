"""`evacap caption`: captions files, folders, wildcards, lists and URLs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evacap_cli.cli.cluster import CpusPerWorker, GpusPerWorker, Ray, RayWorkers, cluster_options
from evacap_cli.cli.common import (
    MACHINE,
    MEDIA,
    SOME_FAILED,
    AudioTrack,
    Debug,
    DecodingMemory,
    DecodingTimeout,
    Device,
    Json,
    Precision,
    Quiet,
    Verbose,
    decoding_workers,
    say,
    say_precision,
    shown,
    summary,
)
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.cli.report import EmbedMedia, ReportPage, add_page, picture_options
from evacap_cli.errors import UsageError

if TYPE_CHECKING:
    from evacap_cli.tasks.captioning.inputs.sources import Sources
    from evacap_cli.tasks.captioning.outputs.rows import Row
    from evacap_cli.tasks.captioning.run import CaptionReport

MODEL, LONG, OUT = "Model and beam search", "Long recordings", "Output"
READING = "evacap_cli.tasks.captioning.inputs.clip_reader"
STATUSES = ("ok", "audio-only", "failed")
MAX_FAILED = 8
MAX_NOTES = 1000  # notes in the JSON summary


def caption(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Video or audio files, folders (searched recursively), wildcards, URLs, manifests or shards "
            "(WebDataset .tar, .parquet with bytes). - reads a list of paths from stdin."
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            rich_help_panel=OUT,
            metavar="PATH",
            help="File to write: .csv, .jsonl, .parquet, .srt or .vtt. With --format, a folder with one file per "
            "input. {shard} in the name gives a file per shard, also .tar. Progress is kept in OUT.journal: "
            "run the same command again to resume or to add new inputs. A table may also be a URL, such as "
            "s3://bucket/out.parquet; its copy and its journal are in the working directory.",
            show_default="CSV on stdout",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            rich_help_panel=OUT,
            show_default="from the suffix of OUT",
            help="Format of the files in the folder OUT: csv, jsonl, parquet, srt or vtt.",
        ),
    ] = None,
    excel: Annotated[
        bool,
        typer.Option(
            "--excel", rich_help_panel=OUT, help="Mark CSV cells that a spreadsheet would run as formulas."
        ),
    ] = False,
    flag_mismatch: Annotated[
        bool,
        typer.Option(
            "--flag-mismatch",
            rich_help_panel=OUT,
            help="Add the column mismatch: the probability that the picture does not belong to the sound.",
        ),
    ] = False,
    tags: Annotated[
        bool,
        typer.Option(
            "--tags",
            rich_help_panel=OUT,
            help="Add the columns heard and seen: the AudioSet and ImageNet classes behind the caption, with "
            "confidences. JSONL output also has times. Needs a model with tag towers.",
        ),
    ] = False,
    curves: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUT,
            help="Folder for gate and entropy over time: one .npz and one .png per clip.",
            show_default="not written",
        ),
    ] = None,
    report_page: ReportPage = None,
    embed_media: EmbedMedia = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", rich_help_panel=OUT, help="Retry the inputs that failed in an earlier run."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            rich_help_panel=OUT,
            help="Discard an existing OUT and caption all inputs again.",
        ),
    ] = False,
    segment: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=LONG,
            help="Split each input into segments of this many seconds, one row each. Silent segments get no row.",
            show_default="one row per input",
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=LONG,
            show_default="--segment",
            help="Seconds from the start of one segment to the start of the next.",
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", rich_help_panel=LONG, help="Merge adjacent segments with equal captions into one row."
        ),
    ] = False,
    min_rms: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=LONG,
            show_default="no limit",
            help="Skip segments whose RMS level is below this, in dBFS, such as -50.",
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="Which 10 s of a longer file to use without --segment: loudest, start or middle.",
            rich_help_panel=LONG,
        ),
    ] = "loudest",
    frames: Annotated[
        int | None,
        typer.Option(
            help="Video frames per clip, spread evenly over it.",
            show_default="as in training",
            rich_help_panel=MEDIA,
        ),
    ] = None,
    audio_only: Annotated[
        bool, typer.Option("--audio-only", help="Ignore the video stream.", rich_help_panel=MEDIA)
    ] = False,
    audio_track: AudioTrack = None,
    same_frames: Annotated[
        float,
        typer.Option(
            help="Reuse the encoding of the previous frame if the mean pixel difference is at most this many levels "
            "(0 to 255). 0: identical frames only.",
            rich_help_panel=MEDIA,
        ),
    ] = 0.0,
    any_suffix: Annotated[
        bool,
        typer.Option(
            "--any-suffix",
            help="In folders, also caption files with other suffixes, or none, if they contain audio.",
            rich_help_panel=MEDIA,
        ),
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            help="Packaged model (demo, entropy-demo, avcap-demo, audio-demo), checkpoint, fetched model, or "
            "hf:ORG/NAME.",
            rich_help_panel=MODEL,
        ),
    ] = "demo",
    beam: Annotated[int, typer.Option(help="Beam width.", rich_help_panel=MODEL)] = 4,
    max_words: Annotated[
        int, typer.Option(help="Maximum length of a caption, in tokens.", rich_help_panel=MODEL)
    ] = 20,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Clips per batch. Halved automatically if memory runs out.",
            show_default="8; 32 on CUDA",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    workers: Annotated[int | None, decoding_workers("number of cores minus 1")] = None,
    timeout: DecodingTimeout = 300.0,
    memory: DecodingMemory = 4.0,
    ray: Ray = None,
    ray_workers: RayWorkers = "1",
    gpus_per_worker: GpusPerWorker = 0.0,
    cpus_per_worker: CpusPerWorker = 1.0,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Caption what is heard in video and audio files.

    Writes one row per input, in input order. A file that cannot be captioned gets a row with status failed and the
    cause; the exit code is then 3.

    Examples:
    evacap caption ./videos -o out.csv
    evacap caption film.mkv --segment 10 --merge -o film.vtt
    evacap caption ./videos -o subtitles -f vtt
    evacap caption ./videos -o out.jsonl --flag-mismatch --tags
    """
    from evacap_cli.media import start_ahead

    if workers != 0 and ray is None:
        start_ahead(READING)  # imports torch while this process lists the inputs and does the same
    from evacap_cli.errors import check_all
    from evacap_cli.tasks.captioning.inputs.discovery import find_sources
    from evacap_cli.tasks.captioning.options import CaptionOptions
    from evacap_cli.tasks.captioning.outputs.options import OutputOptions
    from evacap_cli.tasks.captioning.outputs.remote import RemoteTable

    remote = None if to is None else RemoteTable.of(to)
    out = None if to is None else Path(to) if remote is None else remote.local
    target = OutputOptions(out, kind, excel, merge, flag_mismatch, curves, retry_failed, overwrite, tags)
    options, _ = check_all(
        lambda: CaptionOptions(frames, beam, max_words, batch_size, workers, window, audio_only, timeout, memory,
                               segment, hop, min_rms, same_frames, audio_track),
        lambda: target.check(segmented=segment is not None),
        lambda: _check_stdout(json and out is None),
        lambda: _check_report(report_page, embed_media, out),
        lambda: _check_ray(ray, out, curves),
    )[:2]  # fmt: skip
    if remote is not None:
        remote.check(overwrite)
    cluster = cluster_options(ray, ray_workers, gpus_per_worker, cpus_per_worker, workers)
    sources = find_sources(target.inputs(inputs), any_suffix=any_suffix)
    from evacap_cli.tasks.captioning.engine import Captioner
    from evacap_cli.tasks.captioning.run import caption_files, caption_stream

    say_precision(precision, device, quiet)
    began = time.monotonic()
    captioner = Captioner.load(model, device, precision)
    if verbose:
        for what, count in sources.left_out.items():
            say(f"skipped: {count} {what}")
        say(f"{len(sources)} inputs; model {captioner.checkpoint.name} on {captioner.device}, "
            f"loaded in {time.monotonic() - began:.1f} s")  # fmt: skip

    done = 0
    notes: list[dict[str, str]] = []
    no_bar = quiet or (out is None and sys.stdout.isatty())  # the rows themselves show the progress
    with ProgressBar("caption", len(sources), "clips" if segment is None else "inputs", quiet=no_bar) as bar:

        def show(now: int, clips: int, rows: Sequence[Row]) -> None:
            nonlocal done
            if not clips:
                bar.begin("caption", len(sources), bar.unit, now)
            for row in rows:
                if verbose or (row.status == "failed" and not quiet):
                    say(f"{row.status}: {shown(row.video)}: {shown(row.error or row.caption)}")
                if row.note and verbose:
                    say(f"  {shown(row.note)}")
                if row.note and len(notes) < MAX_NOTES:
                    notes.append({"video": row.video, "note": row.note})
            bar.update(now, note="" if segment is None else f"{clips} captions")
            done = now

        try:
            if out is None:
                report = caption_stream(captioner, sources, target, options, sys.stdout, show, say)
            else:
                report = caption_files(captioner, sources, target, options, show, say, cluster)
        except KeyboardInterrupt:
            saved = "are saved; run the same command again to resume" if out else "are printed"
            raise KeyboardInterrupt(f"{done} of {len(sources)} inputs {saved}") from None
    shown_out = str(out if remote is None else remote.shown)
    if remote is not None and not report.changed:
        remote.upload()
    _say_report(report, out, quiet, _skipped(sources, verbose, any_suffix))
    if remote is not None and not report.changed and not quiet:
        say(f"  copied to {remote.shown}")
    if json:
        counts = {status: report.counts[status] for status in STATUSES}
        summary({"out": shown_out, "model": captioner.checkpoint.name, "clips": report.rows, **counts,
                 "inputs": len(sources), "new": report.new, "reused": report.reused, "unused": report.unused,
                 "seconds": round(report.seconds, 3), "clips_per_second": round(report.rate, 3),
                 "notes": notes})  # fmt: skip
    if report_page is not None and out is not None:
        from evacap_cli.tasks.reporting.captions import CaptionRun, report_captions
        from evacap_cli.tasks.reporting.pages import command_fact

        run = CaptionRun([command_fact()], report.seconds, report.rate, curves)
        pictures = picture_options(copies=embed_media, workers=workers)
        add_page(lambda bar: report_captions(out, report_page, pictures, run, bar.update), quiet, debug)
    if report.counts["failed"]:
        raise typer.Exit(SOME_FAILED)


def _check_stdout(wanted_twice: bool) -> None:
    if wanted_twice:
        raise UsageError("--json: the table is also on stdout", "name a file for the table with -o")


def _skipped(sources: Sources, verbose: bool, any_suffix: bool) -> str:
    """Returns a note on files in folders that are no inputs, and the options about them; "" if there are none."""
    from evacap_cli.tasks.captioning.inputs.folders import NO_MEDIA

    count = sources.left_out.total()
    hints = [] if verbose else ["--verbose shows why"]
    if sources.left_out[NO_MEDIA] and not any_suffix:
        hints.append("--any-suffix also tries files with other suffixes")
    return f"{count} other files in the folders were skipped; {'; '.join(hints)}" if count and hints else ""


def _check_ray(address: str | None, out: Path | None, curves: Path | None) -> None:
    if address is not None and out is None:
        raise UsageError("--ray needs -o")
    if address is not None and curves is not None:
        raise UsageError("--ray does not draw --curves", "omit one of them")


def _check_report(page: Path | None, embed_media: bool, out: Path | None) -> None:
    if embed_media and page is None:
        raise UsageError("--embed-media needs --report")
    if page is None:
        return
    from evacap_cli.tasks.captioning.outputs.writers import SHARD
    from evacap_cli.tasks.reporting.pages import check_page
    from evacap_cli.tasks.reporting.tables import READERS

    check_page(page)
    if out is None or out.suffix.lower() not in READERS or out.is_dir() or SHARD in out.name:
        raise UsageError(
            f"--report {page}: needs a table", f"name one with -o, with the suffix {', '.join(READERS)}"
        )


def _say_report(report: CaptionReport, out: Path | None, quiet: bool, skipped: str) -> None:
    if quiet:
        return
    parts = ", ".join(f"{report.counts[status]} {status}" for status in STATUSES)
    reused = f"{report.reused} reused; " if report.reused else ""
    rate = f"{report.seconds:.1f} s, {report.rate:.2f} clips/s" if report.new else "nothing new"
    say(f"{report.rows} clips: {parts}; {reused}{rate}" + (f" -> {out}" if out else ""))
    if skipped:
        say(f"  {skipped}")
    for row in report.failed[:MAX_FAILED]:
        say(f"  failed in an earlier run: {shown(row.video)}: {shown(row.error)}")
    if report.failed:
        more = len(report.failed) > MAX_FAILED
        say(("  and more; " if more else "  ") + "--retry-failed retries them")
    if report.unused:
        say(
            f"  {report.unused} inputs of earlier runs are not among these inputs; {out} has no rows for them"
        )
    if report.changed:
        say(f"  {out}: was changed by something else since it was written, and is left unchanged")
