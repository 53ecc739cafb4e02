"""`evacap synth`: generates synthetic labelled videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import MACHINE, Debug, Json, Quiet, Verbose, parse_numbers, say, summary
from evacap_cli.cli.progress import ProgressBar


def synth(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder to write to. Created if it does not exist.")
    ],
    clips: Annotated[int, typer.Option(help="Number of clips of 10 seconds.")] = 100,
    seed: Annotated[
        int, typer.Option(help="Random seed. The same seed gives the same clips and captions.")
    ] = 1,
    captions: Annotated[int, typer.Option(help="Captions per clip, 1 to 5.")] = 5,
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real recordings to mix in: metadata.csv (file,category,...) and audio/.",
            show_default="synthetic sounds only",
            rich_help_panel="Recordings",
        ),
    ] = None,
    folds: Annotated[
        str,
        typer.Option(
            help="Use only recordings of these folds, such as 1,2,3.",
            show_default="all",
            rich_help_panel="Recordings",
        ),
    ] = "",
    licenses: Annotated[
        str,
        typer.Option(
            help="Use only recordings of these licences, such as CC0,CC-BY.",
            show_default="all",
            rich_help_panel="Recordings",
        ),
    ] = "",
    matched: Annotated[
        float,
        typer.Option(
            help="Relative share of clips in which every sound source is visible.",
            rich_help_panel="Kinds of clips",
        ),
    ] = 0.65,
    off_screen: Annotated[
        float,
        typer.Option(
            help="Relative share of clips with one source off-screen.", rich_help_panel="Kinds of clips"
        ),
    ] = 0.12,
    dubbed: Annotated[
        float,
        typer.Option(
            help="Relative share of clips that show other objects than those heard.",
            rich_help_panel="Kinds of clips",
        ),
    ] = 0.08,
    distractor: Annotated[
        float,
        typer.Option(
            help="Relative share of clips that also show a silent object.", rich_help_panel="Kinds of clips"
        ),
    ] = 0.15,
    workers: Annotated[int, typer.Option(help="Worker processes.", rich_help_panel=MACHINE)] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace clips that were made with other options.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Generate synthetic labelled videos for training and tests.

    Writes videos/, captions.csv and manifest.jsonl, which lists the sources of every clip and whether they are visible.

    Examples:
    evacap synth -o world --clips 200 --seed 7
    evacap synth -o world --clips 2000 --recordings ./recordings --folds 1,2,3
    """
    from evacap_cli.tasks.synthesis import synthesize

    with ProgressBar("synth", max(clips, 1), quiet=quiet) as bar:
        made = synthesize(
            out,
            clips,
            seed,
            captions=captions,
            recordings=recordings,
            folds=parse_numbers("--folds", folds, "1,2,3", int),
            licenses=tuple(part.strip() for part in licenses.split(",") if part.strip()),
            kinds=(matched, off_screen, dubbed, distractor),
            workers=workers,
            overwrite=overwrite,
            progress=bar.update,
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
