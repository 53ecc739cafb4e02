"""`evacap weights push`: a checkpoint to the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from evacap_cli.cli.common import Debug, Json, Quiet, say, summary


def push(
    model: Annotated[str, typer.Argument(help="Folder of a checkpoint.")],
    name: Annotated[str, typer.Argument(help="ORG/NAME on the Hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.", show_default="public")
    ] = False,
    message: Annotated[str, typer.Option(help="Message of the commit.", show_default="a standard one")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files and the model card. Nothing is sent.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a checkpoint and its model card to the Hugging Face Hub.

    All files are written in one commit. Needs a write token: hf auth login, or HF_TOKEN. The configuration and the card
    are published as they are; read them with --dry-run first.

    Examples:
    evacap weights push runs/first/best ORG/NAME --dry-run
    evacap weights push runs/first/best ORG/NAME --private
    evacap caption ./videos --model hf:ORG/NAME -o out.csv
    """
    from evacap_cli.tasks.publishing import prepare_upload
    from evacap_cli.tasks.publishing import push as push_files

    upload = prepare_upload(model, name)
    if dry_run and not quiet and not json:
        for file in ("README.md", "config.yaml"):
            say(f"--- {file}")
            say(upload.card if file == "README.md" else upload.files[file].read_text("utf-8"))
    address = None if dry_run else push_files(upload, private, message)
    if json:
        summary({"model": upload.name, "files": upload.sizes, "commit": address})
    elif not quiet:
        for file, size in upload.sizes.items():
            say(f"{file}: {size / 1e6:.3f} MB")
        say(f"{upload.name}: {address or 'nothing was sent (--dry-run)'}")
