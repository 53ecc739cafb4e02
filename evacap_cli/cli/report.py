"""`evacap report`: writes an HTML page of results."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evacap_cli.cli.common import MACHINE, Debug, Json, Quiet, say, shown, summary
from evacap_cli.cli.progress import ProgressBar

if TYPE_CHECKING:
    from evacap_cli.tasks.reporting.pictures import PictureOptions

PICTURES = "Pictures"
ReportPage = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="PAGE.html",
        help="Also write an HTML page of the result: tables, figures, and each clip with pictures and sound.",
        rich_help_panel="Output",
    ),
]
EmbedMedia = Annotated[
    bool,
    typer.Option(
        "--embed-media",
        help="Embed a small copy of each clip in the page, which plays without the original file.",
        rich_help_panel=PICTURES,
    ),
]


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="A caption table (.csv, .jsonl, .parquet), or the folder of evaluate, robustness, speed or train. "
            "Several results of the same kind are compared."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The page.", show_default="TABLE.html or FOLDER/report.html"),
    ] = None,
    embed_media: EmbedMedia = False,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures",
            help="Frames and spectrogram of each clip, which is decoded again.",
            rich_help_panel=PICTURES,
        ),
    ] = True,
    inline: Annotated[
        float,
        typer.Option(
            help="Most MB of pictures in the page. If there are more, all are in the folder PAGE_files next to it.",
            rich_help_panel=PICTURES,
        ),
    ] = 20.0,
    curves: Annotated[
        Path | None,
        typer.Option(
            help="Folder of `caption --curves`.",
            show_default="as the table was made",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Decoding processes.", show_default="number of cores minus 1", rich_help_panel=MACHINE
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(help="Time limit for decoding one clip, in seconds.", rich_help_panel=MACHINE),
    ] = 60.0,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write an HTML page of a result, to sort, filter and play its clips in a browser, without a network.

    Examples:
    evacap report out.csv -o report.html
    evacap report ours.csv theirs.csv -o compared.html
    evacap report table3
    """
    from evacap_cli.tasks.reporting.results import report_results

    options = picture_options(pictures, embed_media, inline, workers, timeout)
    with ProgressBar("pictures", quiet=quiet) as bar:
        made = report_results(results, out, options, curves, bar.update)
    if json:
        summary(made)
    if not quiet:
        say_page(made)


def picture_options(
    pictures: bool = True,
    copies: bool = False,
    inline: float = 20.0,
    workers: int | None = None,
    timeout: float = 60.0,
) -> PictureOptions:
    from evacap_cli.tasks.reporting.pictures import PictureOptions

    count = max(1, (os.cpu_count() or 2) - 1) if workers is None else workers
    return PictureOptions(pictures, copies, int(inline * 1e6), count, timeout)


def check_report(page: Path | None) -> None:
    """Raises UsageError if the page cannot be written."""
    if page is not None:
        from evacap_cli.tasks.reporting.pages import check_page

        check_page(page)


def add_page(make: Callable[[ProgressBar], dict[str, object]], quiet: bool, debug: bool) -> None:
    """Writes the page of a complete result. If that fails, prints the error and exits with code 1."""
    try:
        with ProgressBar("report", quiet=quiet) as bar:
            made = make(bar)
    except Exception as error:
        if debug:
            raise
        say(f"error: no report: {getattr(error, 'message', None) or f'{type(error).__name__}: {error}'}")
        say("  cure: the results are complete; `evacap report` can write the page")
        raise typer.Exit(1) from None
    if not quiet:
        say_page(made)


def add_folder_page(folder: Path, page: Path, quiet: bool, debug: bool) -> None:
    """Writes the page of a folder of results."""
    from evacap_cli.tasks.reporting.pages import command_fact
    from evacap_cli.tasks.reporting.results import report_folders

    add_page(lambda bar: report_folders([folder], page, [command_fact()], progress=bar.update), quiet, debug)


def say_page(made: dict[str, object]) -> None:
    """Prints the path of a page, the number of clips without pictures, and the files that were not found."""
    unseen = f"; {made['without_pictures']} clips have no pictures" if made.get("without_pictures") else ""
    say(f"report: {made['report']}{unseen}")
    if made.get("missing_files"):
        example = shown(str(made["missing_example"]))
        say(
            f"  {made['missing_files']} of {made['clips']} clips have no pictures and no player: {example} is not found"
        )
        say(
            "  cure: run `evacap report` in the folder in which `evacap caption` ran; file names are relative to it"
        )
