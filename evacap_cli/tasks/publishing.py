"""`evacap weights push`: writes a checkpoint with its model card to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import load_checkpoint, packaged_models
from evacap_cli.model.checkpoint import CARD, CONFIG, TOKENIZER, WEIGHTS
from evacap_cli.model.hub import HUB, HubModel, endpoint, hub_errors

_FRONT_MATTER = {"library_name": "evacap", "tags": ["audio-captioning", "audio-visual"]}
"""Metadata of the card, by which the Hub finds models."""


@dataclass(frozen=True)
class Upload:
    """What is written to the Hub: the content of the card, and the other files of the checkpoint, by name."""

    name: str
    card: str
    files: dict[str, Path]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes, by name."""
        return {CARD: len(self.card.encode()), **{k: path.stat().st_size for k, path in self.files.items()}}


def prepare_upload(model: str, name: str) -> Upload:
    """Returns what `push` writes for a checkpoint folder. Loads the checkpoint, so that no damaged one is published.

    name: ORG/NAME, also with `hf:`. Raises UsageError for packaged models and single files.
    """
    full = HUB + name.removeprefix(HUB)
    if HubModel.parse(full).revision:
        raise UsageError(f"{name}: a revision cannot be written to", f"write {full.partition('@')[0]}")
    checkpoint = load_checkpoint(model)
    folder = checkpoint.path
    if model in packaged_models() or model.startswith(HUB):
        raise UsageError(f"{model}: is published already", "name the folder of a checkpoint of yours")
    if folder.is_file():
        raise UsageError(
            f"{model}: is a single file without a model card", "name the folder of the checkpoint"
        )
    path = folder / CARD
    card = path.read_text("utf-8") if path.is_file() else f"# {folder.name}\n"
    if full not in card:
        card = (
            f"{card.rstrip()}\n\n## Use\n\n```sh\nevacap caption videos --model {full} -o captions.csv\n```\n"
        )
    if not card.startswith("---\n"):
        card = f"---\n{yaml.safe_dump(_FRONT_MATTER, sort_keys=False)}---\n\n{card}"
    return Upload(full, card, {file: folder / file for file in (CONFIG, TOKENIZER, WEIGHTS)})


def push(upload: Upload, private: bool = False, message: str = "") -> str:
    """Writes the files to the Hub in one commit and returns its address. Makes the repository if there is none.

    `private` is for a new repository. Uses the token of HF_TOKEN or `hf auth login`. Raises EvacapError.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    repo = HubModel.parse(upload.name).repo
    token = get_token()
    if not token:
        raise EvacapError(
            f"{upload.name}: writing to the Hub needs a token",
            "`hf auth login` with a write token, or set HF_TOKEN",
        )
    api = HfApi(endpoint=endpoint(), token=token, library_name="evacap")
    operations = [CommitOperationAdd(CARD, upload.card.encode())]
    operations += [CommitOperationAdd(file, path) for file, path in upload.files.items()]
    with hub_errors(upload.name):
        api.create_repo(repo, private=private or None, exist_ok=True)
        commit = api.create_commit(
            repo, operations, commit_message=message or "Upload a checkpoint of evacap"
        )
    return str(commit.commit_url)
