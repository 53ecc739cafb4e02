"""A training run from what a user names: settings, manifests, an output folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evacap_cli.data.arrays import ClipArrays, Sample, build_arrays
from evacap_cli.data.manifest import Entry, read_manifest
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import (
    CaptionModel,
    ModelConfig,
    Tokenizer,
    build_model,
    load_checkpoint,
    parameter_counts,
)
from evacap_cli.tasks.batches import FeatureBatches
from evacap_cli.tasks.clips import ClipSettings, load_clip
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.training.config import RunConfig, read_config
from evacap_cli.tasks.training.distributed import Ranks, process_group, world_size
from evacap_cli.tasks.training.feeding import Plan
from evacap_cli.tasks.training.groups import freeze, parameter_groups
from evacap_cli.tasks.training.loop import Progress, fit
from evacap_cli.tasks.training.memory import estimate_memory


@dataclass(frozen=True)
class RunOptions:
    """What a run is made from besides its settings. `init`: a checkpoint to start from."""

    data: Path | None = None
    val: Path | None = None
    init: str | None = None
    resume: bool = True
    workers: int = 2
    """Processes that decode the clips, and then read them."""
    device: str = "auto"


@dataclass
class Told:
    """How a run speaks to whoever started it; by default not at all."""

    note: Callable[[str], None] = lambda text: None
    prepared: Callable[[int, int], None] | None = None
    progress: Callable[[Progress], None] | None = None


def plan_run(config: str, overrides: Sequence[str], options: RunOptions) -> dict[str, Any]:
    """What `train --dry-run` shows: all settings, parameters, the memory of one process, and, with `data`, the steps if
    every clip can be read."""
    settings = read_config(config, overrides)
    with torch.device("meta"):
        model = build_model(settings.model)
    freeze(model, settings.training.freeze)
    parameter_groups(model, settings.training.lr_scale)
    world = world_size()
    device = pick_device(options.device)
    dtype = pick_precision(settings.training.precision, device)
    clips = settings.training.batch_size // settings.training.accumulate // world
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    shown: dict[str, Any] = {
        **settings.to_dict(),
        "parameters": {**parameter_counts(model), "trained": trained},
        "memory": {
            "device": str(device),
            "precision": "fp32" if dtype is None else str(dtype).removeprefix("torch."),
            "clips at once": clips,
            "GB": estimate_memory(settings.model, settings.training, max(clips, 1), dtype),
        },
    }
    if options.data is not None:
        clips = len(read_manifest(options.data))
        plan = Plan(clips, settings.training, world)
        shown["steps"] = {
            "clips": clips,
            "steps an epoch": plan.per_epoch,
            "steps": plan.steps,
            "processes": world,
        }
    return shown


def train(
    config: str, overrides: Sequence[str], out: Path, options: RunOptions, told: Told | None = None
) -> dict[str, Any]:
    """Everything `evacap train` does; returns `fit`'s summary."""
    told = told or Told()
    settings = read_config(config, overrides)
    if options.data is None:
        raise UsageError("--data is missing", "give a manifest of clips with captions")
    if settings.training.patience and options.val is None:
        raise UsageError("training.patience needs validation clips", "give them with --val, or set it to 0")
    with process_group(pick_device(options.device)) as (ranks, device):
        if device.type == "cpu":
            torch.set_flush_denormal(True)  # tiny gradients cost a CPU many times a normal one
        if not ranks.first:
            told = Told()
        picture = settings.model.fusion != "audio-only"
        batches = {}
        for name, manifest in (("train", options.data), ("val", options.val)):
            if manifest is not None:
                arrays = _shared(ranks, lambda m=manifest, n=name: prepare_clips(  # type: ignore[misc]
                    m, out / "clips" / n, ClipSettings(settings.features, None if picture else 0), options.workers,
                    told.prepared))  # fmt: skip
                told.note(f"{name}: {len(arrays)} clips, {len(arrays.failed)} could not be read")
                for failure in arrays.failed[:10]:
                    told.note(f"  {failure['item']}: {failure['error']}")
                if not len(arrays):
                    raise EvacapError(
                        f"{manifest}: not one of its clips could be read", "see the causes above"
                    )
                batches[name] = FeatureBatches(arrays, settings.features, picture)
        tokenizer, model = _start(settings, batches["train"].arrays, options)
        told.note(f"model {config}: {parameter_counts(model)['total'] / 1e6:.2f} M parameters, {len(tokenizer)} words, "
                  f"on {device}" + (f" and {ranks.world - 1} more" if ranks.world > 1 else ""))  # fmt: skip
        identity = {
            "clips": _fingerprint(batches["train"].arrays),
            "model": str(sorted(model.config.to_dict().items())),
        }
        return fit(model, tokenizer, batches["train"], settings.training, out, batches.get("val"), device, ranks,
                   options.workers, options.resume, identity,
                   {"preset": config, "overrides": list(overrides)}, told.progress)  # fmt: skip


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


def _shared(ranks: Ranks, make: Callable[[], ClipArrays]) -> ClipArrays:
    """What the first process makes, and the others then find made; all end together when it fails."""
    made, failure = None, None
    if ranks.first:
        try:
            made = make()
        except EvacapError as error:
            failure = error
    for found in ranks.gather(failure):
        if found is not None:
            raise found
    return make() if made is None else made


def _fingerprint(arrays: ClipArrays) -> str:
    listed = [(clip["key"], clip["captions"]) for clip in arrays.clips]
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:12]


def _start(settings: RunConfig, arrays: ClipArrays, options: RunOptions) -> tuple[Tokenizer, CaptionModel]:
    """The tokenizer and the model a run begins with: fresh, or those of a checkpoint."""
    if options.init is not None:
        checkpoint = load_checkpoint(options.init)
        if checkpoint.model.config.fusion != settings.model.fusion:
            raise UsageError(
                f"--init {options.init}: its fusion is {checkpoint.model.config.fusion}, "
                f"the run's {settings.model.fusion}"
            )
        return checkpoint.tokenizer, checkpoint.model
    captions = [text for clip in arrays.clips for text in clip["captions"]]
    tokenizer = Tokenizer.train(captions, settings.model.decoder.vocab_size)
    torch.manual_seed(settings.training.seed)
    decoder = replace(settings.model.decoder, vocab_size=len(tokenizer))
    config: ModelConfig = replace(settings.model, decoder=decoder)
    return tokenizer, CaptionModel(config, tokenizer.bos, tokenizer.eos, tokenizer.pad)
