"""The `evacap` command: registers the subcommands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from evacap_cli.cli import weights
from evacap_cli.cli.caption import caption
from evacap_cli.cli.common import register
from evacap_cli.cli.doctor import doctor
from evacap_cli.cli.evaluate import evaluate
from evacap_cli.cli.prepare import prepare
from evacap_cli.cli.report import report
from evacap_cli.cli.reproduce import reproduce
from evacap_cli.cli.robustness import robustness
from evacap_cli.cli.score import score
from evacap_cli.cli.speed import speed
from evacap_cli.cli.synth import synth
from evacap_cli.cli.train import train
from evacap_cli.version import __version__

app = typer.Typer(
    name="evacap",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: tuple[tuple[Callable[..., None], bool], ...] = (  # with whether they need arguments
    (caption, True), (prepare, True), (train, True), (evaluate, True), (robustness, False), (speed, False),
    (score, True), (reproduce, True), (report, True), (synth, True), (doctor, False),
)  # fmt: skip
for command, needs in COMMANDS:
    register(app, needs_arguments=needs)(command)
app.add_typer(weights.app, name="weights")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"evacap {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Audio captioning for videos: describe what is heard, with the video frames as a guide."""


def main() -> None:
    """Runs the command with the arguments of this process."""
    app(prog_name="evacap")
