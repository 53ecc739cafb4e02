"""The tags of all clips of a store, computed once. Tag towers are never trained, but are most of the work of a step.

A folder keeps them in files of `PART` clips, so that an interrupted computation resumes. Each file has the identity of
the store and of the towers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from evacap_cli.atomic import written_whole
from evacap_cli.data.files import disk_errors
from evacap_cli.data.store import Store
from evacap_cli.data.store.index import INDEX
from evacap_cli.errors import EvacapError
from evacap_cli.features import FeatureSettings, same_frames
from evacap_cli.model import CaptionModel
from evacap_cli.model.evidence import shows_something
from evacap_cli.tasks.batches import Augmentation, Batch, FeatureBatches

PART = 128
"""Clips per file."""
_BATCH = 16
_COLUMNS = {"audio": ("tags",), "picture": ("tags", "exists", "visible")}


@dataclass
class StoreTags:
    """The tags of N clips (see `tag_encoder`). audio: (N, heard, 2 + windows). picture: (N, frames * seen, 3), None for
    models without a picture. frames: bool (N, frames), those that count as a picture, see `CaptionModel.visible`."""

    audio: Tensor
    picture: Tensor | None
    frames: Tensor | None

    def rows(self, rows: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The tags of some clips, and the frames that count, None if all do."""
        order = list(rows)
        if self.picture is None or self.frames is None:
            return self.audio[order], None, None
        frames = self.frames[order]
        return self.audio[order], self.picture[order], None if bool(frames.all()) else frames


def compute_tags(
    model: CaptionModel,
    store: Store,
    features: FeatureSettings,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> StoreTags:
    """Returns the tags that the towers of a model give for the clips of a store, as far as possible from `folder`.

    Raises EvacapError if the folder cannot be written.
    """
    write_tags(model, store, features, folder, progress)
    return read_tags(model, store, folder)


def write_tags(
    model: CaptionModel,
    store: Store,
    features: FeatureSettings,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Writes the files that are missing in `folder`: of `world` processes, each makes its share. Raises EvacapError."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    parts = [(kind, start) for kind in _kinds(model) for start in range(0, len(store), PART)][rank::world]
    identities = {kind: _identity(model, store, kind) for kind in _kinds(model)}
    data = {kind: FeatureBatches(store, features, kind == "picture") for kind in _kinds(model)}
    total, done = sum(min(PART, len(store) - start) for _, start in parts), 0
    for kind, start in parts:
        path, stop = _path(folder, kind, start), min(start + PART, len(store))
        if _read(path, kind, identities[kind]) is None:
            if progress is not None:
                progress(done, total)
            part = _compute(model, data[kind], range(start, stop), kind)
            with disk_errors(path), written_whole(path) as aside:
                save_file(part, aside, {"identity": identities[kind]})
        done += stop - start
    if progress is not None:
        progress(total, total)


def read_tags(model: CaptionModel, store: Store, folder: Path) -> StoreTags:
    """Reads what `write_tags` wrote. Raises EvacapError if a file is missing or belongs to other clips."""
    found: dict[str, dict[str, Tensor]] = {}
    for kind in _kinds(model):
        identity, parts = _identity(model, store, kind), []
        for start in range(0, len(store), PART):
            path = _path(folder, kind, start)
            if (part := _read(path, kind, identity)) is None:
                raise EvacapError(f"{path}: is missing or damaged", "run the same command again")
            parts.append(part)
        found[kind] = {name: torch.cat([part[name] for part in parts]) for name in _COLUMNS[kind]}
    if not model.has_picture:
        return StoreTags(found["audio"]["tags"], None, None)
    frames = found["picture"]["visible" if model.has_evidence else "exists"]
    return StoreTags(found["audio"]["tags"], found["picture"]["tags"], frames)


def _kinds(model: CaptionModel) -> list[str]:
    return ["audio", "picture"] if model.has_picture else ["audio"]


def _path(folder: Path, kind: str, start: int) -> Path:
    return folder / f"{kind}-{start:06d}.safetensors"


def _identity(model: CaptionModel, store: Store, kind: str) -> str:
    """A hash of the store's index, which has the checksums of all clips, and of a network and its settings."""
    digest = hashlib.sha256((store.folder / INDEX).read_bytes())
    config = model.tag_encoder.config
    digest.update(repr((config.heard, config.windows) if kind == "audio" else config.seen).encode())
    network = model.tag_encoder.network_a if kind == "audio" else model.tag_encoder.network_v
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, kind: str, identity: str) -> dict[str, Tensor] | None:
    """The contents of a file, None if there is none with this identity."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("identity") != identity:
                return None
            return {name: file.get_tensor(name) for name in _COLUMNS[kind]}
    except (OSError, SafetensorError):
        return None


def _compute(model: CaptionModel, data: FeatureBatches, rows: range, kind: str) -> dict[str, Tensor]:
    training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [
            _tags(model, data.batch(range(start, min(start + _BATCH, rows.stop))), data.features, kind)
            for start in range(rows.start, rows.stop, _BATCH)
        ]
    model.train(training)
    columns = zip(*parts, strict=True)
    return {name: torch.cat(column).cpu() for name, column in zip(_COLUMNS[kind], columns, strict=True)}


def _tags(model: CaptionModel, batch: Batch, features: FeatureSettings, kind: str) -> tuple[Tensor, ...]:
    audio, pixels, mask = batch.inputs(model.device, features)
    if kind == "audio":
        return (model.encode_audio(audio),)
    assert pixels is not None
    assert batch.picture is not None
    exists = torch.ones(pixels.shape[:2], dtype=torch.bool, device=pixels.device) if mask is None else mask
    tags = model.encode_picture(pixels, same_frames(batch.picture.to(pixels.device)))
    return tags, exists, shows_something(pixels) & exists


class TagBatches(FeatureBatches):
    """Batches of the tags of a store's clips, not augmented."""

    towers = True

    def __init__(self, data: FeatureBatches, tags: StoreTags) -> None:
        super().__init__(data.store, data.features, data.picture)
        self.tags = tags

    def batch(self, rows: Sequence[int], augmentation: Augmentation | None = None) -> Batch:
        generators = [] if augmentation is None else [augmentation.generator(row) for row in rows]
        return Batch(*self.tags.rows(rows), self.chosen_captions(rows, generators), towers=True)
