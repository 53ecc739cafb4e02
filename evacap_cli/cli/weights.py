"""`evacap weights`: what is in a checkpoint or a preset."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from evacap_cli.cli.common import Debug, Json, Quiet, guarded, summary

app = typer.Typer(no_args_is_help=True)


@app.callback()
def weights() -> None:
    """What is in a checkpoint or a preset."""


@app.command(no_args_is_help=True)
@guarded
def info(
    models: Annotated[list[str], typer.Argument(help="Presets, packaged models or checkpoint folders.")],
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Parameters in total and by part, in millions; with --json also sizes and feature settings.

    Example: evacap weights info evacap-base avcap-base audio-base
    """
    from evacap_cli.tasks.weights import describe_model

    found = [describe_model(name) for name in models]
    if json:
        summary({"models": found})
    elif not quiet:
        _print_table(found)


def _millions(count: int) -> str:
    """As papers print it: 235 M; a small model keeps a decimal."""
    return f"{count / 1e6:.0f} M" if count >= 20e6 else f"{count / 1e6:.1f} M"


def _print_table(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # in a file, nothing has to fit a window
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("total", justify="right", no_wrap=True)
    parts = [part for part in found[0]["parameters"] if part != "total"]
    for part in parts:
        table.add_column(part, justify="right")
    for model in found:
        counts = model["parameters"]
        cells = [f"{counts[part] / 1e6:.2f}" if counts[part] else "-" for part in parts]
        table.add_row(model["name"], f"{_millions(counts['total'])} ({counts['total'] / 1e6:.2f})", *cells)
    console.print(table)
    for model in found:
        console.print(
            f"{model['name']} ({model['kind']}, fusion {model['fusion']}): {model['about']}", markup=False
        )
