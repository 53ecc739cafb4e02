"""`evacap robustness`: scores captions of clips with swapped or degraded pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import (
    MACHINE,
    SOME_FAILED,
    BatchSize,
    Debug,
    Device,
    Json,
    Precision,
    Quiet,
    parse_numbers,
    say,
    say_precision,
    say_unavailable,
    summary,
)
from evacap_cli.cli.evaluate import Beam, JavaProgram, MaxWords, Metrics, stages
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.cli.report import ReportPage, add_folder_page, check_report

DEMOS = ("demo", "entropy-demo", "avcap-demo", "audio-demo")


def robustness(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint or packaged model. Repeat for several models.",
            show_default="the four packaged models",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Feature store (evacap prepare) of the test clips and their reference captions.",
            show_default="the built-in benchmark",
        ),
    ] = None,
    probs: Annotated[
        str, typer.Option(help="Shares of the clips to perturb, 0 to 1, separated by commas.")
    ] = "0,0.05,0.5,1",
    perturb: Annotated[
        str,
        typer.Option(
            help="Perturbation: shuffle, swap-audio, black, noise, freeze or drop-video; noise-audio and shift apply "
            "to all clips."
        ),
    ] = "shuffle",
    levels: Annotated[
        str | None,
        typer.Option(
            help="Levels of noise-audio (signal-to-noise ratio in dB) or shift (seconds), separated by commas.",
            show_default="40,30,20,10,0 or 0.5,1,2,4",
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Random seeds, separated by commas. Results are the mean over seeds.")
    ] = "0,1,2",
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for robustness.csv, .json, .md and .png.")
    ] = Path("robustness"),
    report_page: ReportPage = None,
    beam: Beam = 4,
    max_words: MaxWords = 20,
    metrics: Metrics = None,
    java: JavaProgram = None,
    batch_size: BatchSize = None,
    workers: Annotated[
        int,
        typer.Option(help="Processes that decode the built-in benchmark.", rich_help_panel=MACHINE),
    ] = 2,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Score captions of clips with swapped pictures (Table 3).

    Without options, it compares the packaged models on a built-in benchmark of real recordings and photographs. The
    exit code is 3 if a metric cannot be computed.

    Examples:
    evacap robustness --probs 0,0.05,0.5,1
    evacap robustness --model runs/evacap/best --model runs/avcap/best --data test.store -o table3
    evacap robustness --model demo --perturb black --metrics CIDEr
    """
    from evacap_cli.metrics.suite import Settings, choose_metrics
    from evacap_cli.report.robustness_figure import draw_sweep, tables
    from evacap_cli.report.tables import markdown, print_table
    from evacap_cli.tasks.evaluation import EvaluateOptions, check_output
    from evacap_cli.tasks.robustness import SweepOptions, open_data, sweep, write_sweep

    scoring = Settings(choose_metrics(metrics), java)
    options = SweepOptions(
        parse_numbers("--probs", probs, "0,0.5,1", float),
        perturb,
        None if levels is None else parse_numbers("--levels", levels, "20,10,0", float),
        parse_numbers("--seeds", seeds, "0,1,2", int),
        EvaluateOptions(beam, max_words, batch_size, device, precision, scoring),
    )
    check_output(out)
    check_report(report_page)
    say_precision(precision, device, quiet)
    names = model or list(DEMOS)
    with ProgressBar("built-in benchmark", quiet=quiet) as bar:
        show = stages(bar)
        store = open_data(data, names, workers, lambda done, total: show("built-in benchmark", done, total))
        made = sweep(names, store, options, show)
    shown = tables(made.models, options.perturb, options.graded)
    page = "\n".join(f"## {title}\n\n{markdown(header, rows)}" for title, header, rows in shown)
    write_sweep(made, out, page)
    draw_sweep(made.models, options.perturb, options.graded, out / "robustness.png")
    if json:
        from evacap_cli.tasks.robustness import as_dict

        summary({**as_dict(made), "pairings": str(out / "robustness.json"), "out": str(out)})
    else:
        for title, header, rows in shown:
            print(title)
            print_table(header, rows)
        print(f"{len(store)} clips, hash of their names {made.id_hash}, {len(options.seeds)} seeds")
    if not quiet:
        say(f"results: {out}")
    if report_page is not None:
        add_folder_page(out, report_page, quiet, debug)
    unavailable = {name: reason for each in made.models for name, reason in each.unavailable.items()}
    say_unavailable(unavailable)
    if unavailable:
        raise typer.Exit(SOME_FAILED)
