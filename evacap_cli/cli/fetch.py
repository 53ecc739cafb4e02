"""`evacap weights fetch`: published files by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evacap_cli.cli.common import Debug, Json, Quiet, say, shown, summary
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.errors import UsageError

if TYPE_CHECKING:
    from evacap_cli.tasks.fetching.download import Progress
    from evacap_cli.tasks.fetching.fetch import FetchedFile
    from evacap_cli.tasks.fetching.table import PublishedFile


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Names of --list, such as avcap.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the published files and exit.")] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            help="YAML file that changes or adds entries.",
            envvar="EVACAP_WEIGHTS_TABLE",
            show_default="the packaged table",
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            help="SHA-256 that the file must have.", show_default="that of the table or of the first fetch"
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Download published weights by name, once.

    Interrupted downloads continue. Files are verified by their SHA-256 and kept in the cache folder (~/.cache/evacap or
    EVACAP_CACHE). Complete models are imported into a checkpoint for --model. Files are read as data and never run as
    code.

    Examples:
    evacap weights fetch --list
    evacap weights fetch avcap
    evacap caption ./videos --model avcap -o out.csv
    """
    from evacap_cli.tasks.fetching.fetch import file_path
    from evacap_cli.tasks.fetching.table import read_table

    entries = read_table(table)
    if listing:
        if json:
            summary(
                {"files": [{**vars(entry), "here": file_path(entry).is_file()} for entry in entries.values()]}
            )
        else:
            _print_list(list(entries.values()))
        return
    if not names:
        raise UsageError("NAME: give the name of a published file", f"one of: {', '.join(entries)}")
    if sha256 is not None and len(names) > 1:
        raise UsageError("--sha256: belongs to one file", "fetch the files one by one")
    _fetch(names, entries, sha256, quiet, json)


def fetch_vocab(quiet: Quiet = False, json: Json = False, debug: Debug = False) -> None:
    """Download the BERT vocabulary that AVCap and GIT use.

    The file has 0.2 MB. It is verified by checksum and kept in the cache folder (~/.cache/evacap or EVACAP_CACHE).

    Examples:
    evacap weights fetch-vocab
    """
    from evacap_cli.tasks.fetching.fetch import fetch as fetch_file
    from evacap_cli.tasks.fetching.table import read_table
    from evacap_cli.tasks.vocabulary import VOCABULARY

    (found,) = fetch_file(VOCABULARY, read_table())
    if json:
        summary({"out": str(found.path)})
    elif not quiet:
        say(str(found.path))


def _fetch(
    names: list[str], entries: dict[str, PublishedFile], sha256: str | None, quiet: bool, json: bool
) -> None:
    from evacap_cli.tasks.fetching.fetch import fetch as fetch_file

    found: dict[str, FetchedFile] = {}
    with ProgressBar("", unit="MB", quiet=quiet) as bar:

        def progress(name: str) -> Progress:
            bar.begin(name, unit="MB")
            return lambda done, total: bar.update(done // 10**6, total and total // 10**6)

        for name in names:
            files = fetch_file(name, entries, sha256, progress, lambda text: None if quiet else say(text))
            found |= {file.name: file for file in files if file.name not in found}
    if json:
        summary({"files": [{**vars(file), "path": str(file.path)} for file in found.values()]})
    elif not quiet:
        for file in found.values():
            say(f"{file.name}: {file.path} ({'fetched' if file.downloaded else 'already here'}): {file.use}")


def _print_list(entries: list[PublishedFile]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from evacap_cli.tasks.fetching.fetch import file_path

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # in a file, nothing has to fit a window
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("name", "MB", "here", "licence", "what it is for", "source"):
        table.add_column(
            column, overflow="fold", justify="right" if column == "MB" else "left", no_wrap=column == "name"
        )
    for entry in entries:
        size = "?" if entry.megabytes is None else f"{entry.megabytes:g}"
        here = "yes" if file_path(entry).is_file() else ""
        table.add_row(
            entry.name, size, here, shown(entry.licence), shown(entry.about), shown(entry.source or entry.url)
        )
    console.print(table)
