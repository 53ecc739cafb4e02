"""A training run from what a user names: a configuration, manifests, an output folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from evacap_cli.data.arrays import ClipArrays, Sample, build_arrays
from evacap_cli.data.manifest import Entry, read_manifest
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel, Preset, Tokenizer, build_model, load_checkpoint
from evacap_cli.model.presets import merge, preset_from_dict, preset_names, read_preset, resolve
from evacap_cli.tasks.batches import FeatureBatches
from evacap_cli.tasks.clips import ClipSettings, load_clip
from evacap_cli.tasks.devices import pick_device
from evacap_cli.tasks.training import Progress, TrainSettings, fit


def read_config(config: str, overrides: Sequence[str]) -> Preset:
    """A preset by name or a YAML file (which may build on a preset by `base`), with `section.key=value` over it."""
    if config in preset_names():
        values = read_preset(config)
    elif Path(config).is_file():
        try:
            loaded = yaml.safe_load(Path(config).read_text("utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"{config}: not YAML ({error})") from error
        if not isinstance(loaded, dict):
            raise UsageError(
                f"{config}: holds no sections", "the sections are base, about, model, features, training"
            )
        values = resolve(loaded)
    else:
        raise UsageError(f"{config}: no preset and no file", f"the presets are {', '.join(preset_names())}")
    for override in overrides:
        values = merge(values, _nested(override))
    return preset_from_dict(config, values)


def _nested(override: str) -> dict[str, Any]:
    name, equals, text = override.partition("=")
    if not equals or "." not in name:
        raise UsageError(
            f"{override!r}: not an override", "write section.key=value, such as training.lr=3e-4"
        )
    value: Any = yaml.safe_load(text)
    if isinstance(value, str):  # YAML 1.1 takes 3e-4 for text
        with suppress(ValueError):
            value = float(value)
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def make_sample(item: tuple[str, tuple[str, ...]], settings: ClipSettings) -> Sample:
    """A manifest's entry, decoded (in a worker)."""
    path, captions = item
    clip = load_clip(path, settings)
    return Sample(path, clip.fbank, clip.frames, captions)


def prepare_clips(
    manifest: Path,
    folder: Path,
    settings: ClipSettings,
    workers: int,
    prepared: Callable[[int, int], None] | None,
) -> ClipArrays:
    """Decodes a manifest's clips once, into `folder`."""
    entries: list[Entry] = read_manifest(manifest)
    features = settings.features
    listed = hashlib.sha256(repr([(str(e.path), e.captions) for e in entries]).encode()).hexdigest()[:12]
    shape = (features.frames, 3, features.image_size, features.image_size)
    items = [(str(entry.path), entry.captions) for entry in entries]
    make = partial(make_sample, settings=settings)
    return build_arrays(folder, items, make, f"{features.fingerprint()}/{listed}", shape, workers, prepared)


def train_from_manifest(
    config: str,
    overrides: Sequence[str],
    data: Path,
    out: Path,
    val: Path | None = None,
    init: str | None = None,
    resume: bool = True,
    workers: int = 2,
    device: str = "auto",
    precision: str = "auto",
    prepared: Callable[[int, int], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Everything `evacap train` does; returns `fit`'s summary."""
    tell = note or (lambda text: None)
    preset = read_config(config, overrides)
    features = FeatureSettings.from_dict(preset.features)
    training = dict(preset.training)
    if precision != "auto":
        training["precision"] = precision
    settings = TrainSettings.from_dict(training)
    encoder = preset.model.encoder
    if (features.image_size, features.frames) != (encoder.image_size, encoder.frames) or (
        features.mel_bins,
        features.audio_frames,
    ) != (encoder.mel_bins, encoder.audio_frames):
        raise UsageError("features and model.encoder differ in image_size, frames, mel_bins or audio_frames",
                         "give both the same values")  # fmt: skip
    chosen = pick_device(device)
    clip_settings = ClipSettings(features, None if preset.model.fusion != "audio-only" else 0)
    batches = {}
    for name, manifest in (("train", data), ("val", val)):
        if manifest is None:
            continue
        arrays = prepare_clips(manifest, out / "clips" / name, clip_settings, workers, prepared)
        tell(f"{name}: {len(arrays)} clips, {len(arrays.failed)} could not be read")
        for failure in arrays.failed[:10]:
            tell(f"  {failure['item']}: {failure['error']}")
        if not len(arrays):
            raise EvacapError(f"{manifest}: not one of its clips could be read", "see the causes above")
        batches[name] = FeatureBatches(arrays, features, preset.model.fusion != "audio-only")
    tokenizer, model = _start(preset, batches["train"].arrays, init, settings.seed)
    tell(f"model {config}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, "
         f"{len(tokenizer)} words, on {chosen}")  # fmt: skip
    return fit(model, tokenizer, batches["train"], settings, features, out, batches.get("val"), chosen, resume,
               {"preset": config, "overrides": list(overrides)}, progress)  # fmt: skip


def _start(preset: Preset, arrays: ClipArrays, init: str | None, seed: int) -> tuple[Tokenizer, CaptionModel]:
    """The tokenizer and the model a run begins with: fresh, or those of a checkpoint."""
    if init is not None:
        checkpoint = load_checkpoint(init)
        if checkpoint.model.config.fusion != preset.model.fusion:
            raise UsageError(
                f"--init {init}: its fusion is {checkpoint.model.config.fusion}, the run's {preset.model.fusion}"
            )
        return checkpoint.tokenizer, checkpoint.model
    captions = [text for clip in arrays.clips for text in clip["captions"]]
    tokenizer = Tokenizer.train(captions, preset.model.decoder.vocab_size)
    torch.manual_seed(seed)
    config = preset.model.to_dict()
    config["decoder"]["vocab_size"] = len(tokenizer)
    return tokenizer, build_model(type(preset.model).from_dict(config))
