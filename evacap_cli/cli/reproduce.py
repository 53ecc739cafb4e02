"""`evacap reproduce`: the paper's Tables 1 to 4 and Figure 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import MACHINE, Debug, Device, Json, Quiet, say, summary
from evacap_cli.cli.evaluate import JavaProgram, stages
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.errors import UsageError

INITIAL = "Initial weights"


def reproduce(
    out: Annotated[
        Path, typer.Argument(help="Folder for all results. Run the same command again to resume.")
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Feature stores (evacap prepare) of the training, validation and test clips: give it three times, in "
            "this order.",
            show_default="synthetic clips; the scale paper needs stores",
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            help="paper: full-size presets. demo: small presets and 3 seeds, some hours on 2 cores. smoke: a test of "
            "the command; its numbers mean nothing."
        ),
    ] = "demo",
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="table1, table2, table3, table4 or figure2. Repeat for several.", show_default="all"
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Random seeds of the training, separated by commas.", show_default="0; demo: 0,1,2"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the steps with their time and disk space, then exit.")
    ] = False,
    init_encoder: Annotated[
        list[Path] | None,
        typer.Option(help="Published weights of the encoder (CAV-MAE).", rich_help_panel=INITIAL),
    ] = None,
    init_decoder: Annotated[
        Path | None, typer.Option(help="Published weights of the decoder (GIT).", rich_help_panel=INITIAL)
    ] = None,
    vocab: Annotated[
        Path | None,
        typer.Option(
            help="File vocab.txt of bert-base-uncased.",
            show_default="the file from evacap weights fetch-vocab",
            rich_help_panel=INITIAL,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Processes of each training, started by torchrun.",
            show_default="one per GPU",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that decode and load clips.", show_default="2; smoke: 0", rich_help_panel=MACHINE
        ),
    ] = None,
    java: JavaProgram = None,
    device: Device = "auto",
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train, evaluate and time every system of the paper, and compare the results with its tables.

    Writes tables.md, tables.csv, figure2.svg, report.html and environment.json to OUT.

    Examples:
    evacap reproduce out --dry-run
    evacap reproduce out --scale demo --only table3
    evacap reproduce out --scale paper --data train.store --data val.store --data test.store
    """
    from evacap_cli.report.tables import print_table
    from evacap_cli.tasks.reporting.pages import command_fact
    from evacap_cli.tasks.reproducing.plan import processes_by_default
    from evacap_cli.tasks.reproducing.run import ReproduceOptions, Reproduction
    from evacap_cli.tasks.reproducing.steps import Machine
    from evacap_cli.tasks.reproducing.writing import summary_line

    if processes is not None and processes < 1:
        raise UsageError(f"--processes {processes}: must be 1 or more")
    if workers is not None and workers < 0:
        raise UsageError(f"--workers {workers}: must be 0 or more")
    machine = Machine(workers, device, processes or processes_by_default(), java)
    options = ReproduceOptions(
        scale,
        tuple(data or ()),
        tuple(only or ()),
        _seeds(seeds),
        tuple(init_encoder or ()),
        init_decoder,
        vocab,
        machine,
    )
    made = Reproduction(out, options)
    header, rows, notes = made.table()
    if dry_run:
        if json:
            summary({"steps": [dict(zip(header, row, strict=True)) for row in rows], "notes": notes})
        else:
            print_table(header, rows, notes)
        return
    if not quiet:
        for note in notes:
            say(note)
    with ProgressBar("reproduce", quiet=quiet) as bar:
        try:
            made.run(stages(bar), say if not quiet else lambda text: None)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("run the same command again to resume") from None
    found = made.write(command_fact()[1])
    if json:
        counts = {name: len(rows) for name, rows in found.items()}
        summary({"out": str(out), "numbers": counts, "summary": summary_line(found)})
    else:
        print((out / "tables.md").read_text("utf-8"), end="")
    if not quiet:
        say(f"tables, figure and page: {out}")


def _seeds(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise UsageError(
            f"--seeds {text}: is no list of whole numbers", "write them with commas: 0,1,2"
        ) from None
