"""`evacap synth`: clips of the procedural sound-and-sight world, with captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import MACHINE, Debug, Json, Quiet, Verbose, say, summary
from evacap_cli.cli.meter import Meter
from evacap_cli.errors import UsageError


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(
            f"{option}: {text!r} is not a list of whole numbers", "Write, for example, 1,2,3."
        ) from None


def synth(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder to write to; made when it does not exist.")
    ],
    clips: Annotated[int, typer.Option(help="How many 10-second clips.")] = 100,
    seed: Annotated[
        int, typer.Option(help="Seed of the world: the same seed gives the same clips and captions.")
    ] = 1,
    captions: Annotated[int, typer.Option(help="Captions a clip, 1 (training) to 5 (testing).")] = 5,
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real recordings: metadata.csv (file,category,...) and audio/.",
            rich_help_panel="Recordings",
        ),
    ] = None,
    folds: Annotated[
        str,
        typer.Option(help="Use only recordings of these folds, e.g. 1,2,3.", rich_help_panel="Recordings"),
    ] = "",
    licenses: Annotated[
        str,
        typer.Option(
            help="Use only recordings of these licenses, e.g. CC0,CC-BY.", rich_help_panel="Recordings"
        ),
    ] = "",
    matched: Annotated[
        float,
        typer.Option(
            help="Weight of clips in which everything heard is seen.", rich_help_panel="Kinds of clips"
        ),
    ] = 0.65,
    off_screen: Annotated[
        float,
        typer.Option(help="Weight of clips with one source out of sight.", rich_help_panel="Kinds of clips"),
    ] = 0.12,
    dubbed: Annotated[
        float,
        typer.Option(
            help="Weight of clips that show other things than sound.", rich_help_panel="Kinds of clips"
        ),
    ] = 0.08,
    distractor: Annotated[
        float,
        typer.Option(
            help="Weight of clips that also show a silent object.", rich_help_panel="Kinds of clips"
        ),
    ] = 0.15,
    workers: Annotated[int, typer.Option(help="Worker processes.", rich_help_panel=MACHINE)] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace clips made with other options.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make labelled videos of a procedural world: sounds, drawn scenes, captions and the truth about both.

    Example: evacap synth -o world --clips 200 --seed 7
    """
    from evacap_cli.tasks.synthesis import synthesize

    with Meter("synth", max(clips, 1), quiet=quiet) as meter:
        made = synthesize(
            out,
            clips,
            seed,
            captions=captions,
            recordings=recordings,
            folds=_numbers(folds, "--folds"),
            licenses=tuple(part.strip() for part in licenses.split(",") if part.strip()),
            kinds=(matched, off_screen, dubbed, distractor),
            workers=workers,
            overwrite=overwrite,
            progress=meter.update,
        )
    if not quiet:
        kinds = ", ".join(f"{n} {kind}" for kind, n in made["kinds"].items())
        say(
            f"{made['clips']} clips ({kinds}) in {made['out']}: {made['written']} written, {made['kept']} kept, "
            f"{made['bytes'] / 1e6:.1f} MB"
        )
        if verbose:
            say(f"{made['sounds']} kinds of sounds, {made['objects']} kinds of objects")
    if json:
        summary(made)
