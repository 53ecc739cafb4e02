"""Runs `evacap train`: reads settings, prepares data, builds the model and trains it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from evacap_cli.data.files import locked
from evacap_cli.data.manifest import read_manifest
from evacap_cli.data.store import Store
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import (
    CaptionModel,
    Checkpoint,
    Tokenizer,
    build_model,
    load_checkpoint,
    parameter_counts,
)
from evacap_cli.model.causal_lm import load_tokenizer
from evacap_cli.model.meta import without_weights
from evacap_cli.tasks.batches import Batches, FeatureBatches
from evacap_cli.tasks.devices import pick_device, pick_precision, precision_note
from evacap_cli.tasks.importing import import_cav_mae, import_git, import_networks
from evacap_cli.tasks.preparing import describe_store, prepare_inside
from evacap_cli.tasks.store_tags import TagBatches, read_tags, write_tags
from evacap_cli.tasks.training.config import RunConfig, read_config
from evacap_cli.tasks.training.distributed import Ranks, process_group, world_size
from evacap_cli.tasks.training.initialization import fresh_model
from evacap_cli.tasks.training.loading import Plan, can_share_memory
from evacap_cli.tasks.training.loop import Progress, fit
from evacap_cli.tasks.training.memory import estimate_memory
from evacap_cli.tasks.training.parameter_groups import freeze, parameter_groups
from evacap_cli.tasks.vocabulary import find_vocabulary

T = TypeVar("T")


@dataclass(frozen=True)
class RunOptions:
    """The data, initial weights and resources of a run. `init`: a checkpoint. `init_encoder`: files with weights of
    CAV-MAE or, for tag towers, YAMNet and EfficientNet-lite0. `init_decoder`: a file with weights of GIT. `vocab`: the
    vocabulary of BERT. `media`: the folder of a manifest's files. `tags`: the folder for the tags of the clips, which
    models with tag towers are trained on; None for one in the folder of the run."""

    data: Path | None = None
    val: Path | None = None
    media: Path | None = None
    init: str | None = None
    init_encoder: tuple[Path, ...] = ()
    init_decoder: Path | None = None
    vocab: Path | None = None
    allow: tuple[str, ...] = ()
    resume: bool = True
    workers: int = 2
    device: str = "auto"
    tags: Path | None = None


@dataclass
class RunCallbacks:
    """Callbacks of a run; by default they do nothing."""

    note: Callable[[str], None] = lambda text: None
    prepared: Callable[[int, int], None] | None = None
    progress: Callable[[Progress], None] | None = None
    stop: Callable[[], bool] = lambda: False
    """Whether to save and stop the run after the current step."""


def plan_run(config: str, overrides: Sequence[str], options: RunOptions) -> dict[str, Any]:
    """Returns what `train --dry-run` shows: all settings, parameters, memory per process and, with `data`, the steps.

    For a manifest, the steps assume that every clip with a file can be read.
    """
    settings = read_config(config, overrides)
    with without_weights():
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
            "GB": estimate_memory(settings.model, settings.training, max(clips, 1), dtype, world)
            if settings.model.decoder.kind == "git"
            else "not estimated with a language model",
        },
    }
    if options.data is not None:
        if options.data.is_dir():
            found = len(_open(options.data, settings))
        else:
            found = sum(entry.path is not None for entry in read_manifest(options.data, options.media))
        plan = Plan(found, settings.training, world)
        shown["steps"] = {"clips": found, "steps an epoch": plan.per_epoch, "steps": plan.steps,
                          "processes": world}  # fmt: skip
    return shown


def train(
    config: str,
    overrides: Sequence[str],
    out: Path,
    options: RunOptions,
    callbacks: RunCallbacks | None = None,
) -> dict[str, Any]:
    """Runs `evacap train`. Returns the summary of `fit`."""
    callbacks = callbacks or RunCallbacks()
    settings = read_config(config, overrides)
    if options.data is None:
        raise UsageError("--data is missing", "give a feature store, or a manifest of clips with captions")
    if settings.training.patience and options.val is None:
        raise UsageError("training.patience needs validation clips", "give them with --val, or set it to 0")
    with process_group(pick_device(options.device)) as (ranks, device), _locked(out, ranks):
        if device.type == "cpu":
            torch.set_flush_denormal(True)  # denormal gradients are many times slower on a CPU
        if not ranks.first:
            callbacks = RunCallbacks(stop=callbacks.stop)
        workers = options.workers
        if workers and not can_share_memory():
            callbacks.note(
                "no shared memory (/dev/shm): clips are read in the training process, as with --workers 0"
            )
            workers = 0
        if note := precision_note(settings.training.precision, device):
            callbacks.note(note)
        picture = settings.model.fusion != "audio-only"
        features: dict[str, FeatureBatches] = {}
        for name, source in (("train", options.data), ("val", options.val)):
            if source is not None:
                store = _prepare_store(source, out / "clips" / name, settings, options, ranks, callbacks)
                for line in describe_store(name, store):
                    callbacks.note(line)
                _check_captions(store, source)
                features[name] = FeatureBatches(store, settings.features, picture)
        tokenizer, model = _initialize(settings, features["train"].store, options, callbacks)
        total = parameter_counts(model)["total"]
        callbacks.note(
            f"model {config}: {total / 1e6:.2f} M parameters, {len(tokenizer)} words, on {device}"
            + (f" and {ranks.world - 1} more" if ranks.world > 1 else "")
        )
        identity = {
            "clips": features["train"].store.fingerprint(),
            "model": str(sorted(model.config.to_dict().items())),
        }
        batches: Mapping[str, Batches] = features
        if model.has_tag_towers and not settings.training.augments:
            batches = _tag_batches(model.to(device), features, options.tags or out / "tags", ranks, callbacks)
            workers = 0  # there is nothing to read
        return fit(model, tokenizer, batches["train"], settings.training, out, batches.get("val"), device, ranks,
                   workers, options.resume, identity,
                   {"preset": config, "overrides": list(overrides)}, callbacks.progress, callbacks.stop)  # fmt: skip


@contextmanager
def _locked(out: Path, ranks: Ranks) -> Iterator[None]:
    """Locks the folder of the run in the first process. Raises EvacapError in all if another run writes it."""
    with ExitStack() as stack:
        _in_all(ranks, lambda: stack.enter_context(locked(out, "run")) if ranks.first else None)
        yield


def _in_all(ranks: Ranks, action: Callable[[], T]) -> T:
    """Calls `action` in every process. If it fails in one, raises the error in all, so that none waits for another."""
    failure: EvacapError | None = None
    results: list[T] = []
    try:
        results.append(action())
    except EvacapError as error:
        failure = error
    for found in ranks.gather(failure):
        if found is not None:
            raise found
    return results[0]


def _tag_batches(
    model: CaptionModel,
    features: Mapping[str, FeatureBatches],
    folder: Path,
    ranks: Ranks,
    callbacks: RunCallbacks,
) -> dict[str, TagBatches]:
    """Replaces features by their tags. Each process computes a share of them."""

    def write() -> None:
        for name, data in features.items():
            write_tags(
                model, data.store, data.features, folder / name, callbacks.prepared, ranks.rank, ranks.world
            )

    def read() -> dict[str, TagBatches]:
        return {
            name: TagBatches(data, read_tags(model, data.store, folder / name))
            for name, data in features.items()
        }

    _in_all(ranks, write)
    return _in_all(ranks, read)


def _prepare_store(
    source: Path,
    folder: Path,
    settings: RunConfig,
    options: RunOptions,
    ranks: Ranks,
    callbacks: RunCallbacks,
) -> Store:
    """Opens the store `source`, or the store in `folder` that the first process prepares from the manifest `source`."""
    if not source.is_dir():

        def prepare() -> None:
            if ranks.first:
                prepare_inside(source, folder, settings.features, media=options.media, workers=options.workers,
                               progress=callbacks.prepared)  # fmt: skip

        _in_all(ranks, prepare)
        return _open(folder, settings)
    return _open(source, settings)


def _open(folder: Path, settings: RunConfig) -> Store:
    store = Store(folder)
    store.check(settings.features, picture=settings.model.fusion != "audio-only")
    if not len(store):
        raise EvacapError(f"{folder}: none of its clips could be read", "its index.parquet has the reasons")
    return store


def _check_captions(store: Store, source: Path) -> None:
    missing = [store.keys[i] for i in range(len(store)) if not store.captions(i)]
    if missing:
        raise EvacapError(
            f"{source}: {len(missing)} clips have no caption, the first is {missing[0]}",
            "remove them from the manifest",
        )


def _initialize(
    settings: RunConfig, store: Store, options: RunOptions, callbacks: RunCallbacks
) -> tuple[Tokenizer, CaptionModel]:
    """Returns the tokenizer and the initial model: new, with published weights, or from a checkpoint."""
    if options.init is not None:
        checkpoint = load_checkpoint(options.init)
        if checkpoint.model.config.fusion == settings.model.fusion:
            _report_unused(checkpoint, settings, callbacks)
            return checkpoint.tokenizer, checkpoint.model
        return checkpoint.tokenizer, _transfer(checkpoint, settings, callbacks)
    if settings.model.decoder.kind == "causal-lm":
        if options.vocab is not None or options.init_decoder is not None:
            raise UsageError(
                "--vocab and --init-decoder are for our decoder, and model.decoder.kind is causal-lm",
                "leave them out: the language model brings its own words and weights",
            )
        tokenizer = load_tokenizer(settings.model.decoder)
    elif options.vocab is not None or options.init_decoder is not None:
        tokenizer = Tokenizer.from_vocab(find_vocabulary(options.vocab))
    else:
        captions = [text for i in range(len(store)) for text in store.captions(i)]
        tokenizer = Tokenizer.train(captions, settings.model.decoder.vocab_size)
    model = fresh_model(settings, tokenizer)
    for file in options.init_encoder:
        load = import_networks if model.has_tag_towers else import_cav_mae
        callbacks.note(f"{file}: {load(file, model, allow=options.allow).summary()}")
    if options.init_decoder is not None:
        callbacks.note(
            f"{options.init_decoder}: {import_git(options.init_decoder, model, options.allow).summary()}"
        )
    model.copy_audio_decoder()
    return tokenizer, model


def _report_unused(checkpoint: Checkpoint, settings: RunConfig, callbacks: RunCallbacks) -> None:
    """Notes the model settings of the run that a checkpoint with the same fusion overrides."""
    own = checkpoint.model.config
    wanted = replace(
        settings.model, decoder=replace(settings.model.decoder, vocab_size=own.decoder.vocab_size)
    )
    unused = [
        f"model.{part}.{name} {json.dumps(value)} (it has {json.dumps(has[name])})"
        for part, has in own.to_dict().items()
        if isinstance(has, dict)
        for name, value in wanted.to_dict()[part].items()
        if value != has[name]
    ]
    if unused:
        callbacks.note(f"{checkpoint.path}: keeps its own sizes, ignoring {', '.join(unused)}")


def _transfer(checkpoint: Checkpoint, settings: RunConfig, callbacks: RunCallbacks) -> CaptionModel:
    """Builds a model with the run's fusion, and copies all parameters that it shares with a checkpoint of another
    fusion. Both decoders of a model start from the checkpoint's only one; a single decoder starts from the checkpoint's
    picture decoder, if the model has a picture.

    Raises UsageError if a shared parameter has another size.
    """
    model = fresh_model(settings, checkpoint.tokenizer)
    known, wanted = checkpoint.model.state_dict(), model.state_dict()
    if model.picture_decoder is not None:
        known |= {f"picture_{name}": value for name, value in known.items() if name.startswith("decoder.")}
    elif checkpoint.model.picture_decoder is not None and model.has_picture:
        known |= {name: known[f"picture_{name}"] for name in known if name.startswith("decoder.")}
    taken = {name: value for name, value in known.items() if name in wanted}
    if other := [name for name, value in taken.items() if value.shape != wanted[name].shape]:
        raise UsageError(
            f"--init {checkpoint.path}: {len(other)} of its tensors have other sizes, the first is {other[0]}",
            f"use a preset with its sizes; its own is {checkpoint.metadata.get('preset', 'unknown')}",
        )
    model.load_state_dict(taken, strict=False)
    fresh = sorted({".".join(name.split(".")[:2]) for name in wanted if name not in taken})
    callbacks.note(f"{checkpoint.path}: its fusion is {checkpoint.model.config.fusion}; {len(taken)} of {len(wanted)} "
              f"tensors copied, new: {', '.join(fresh) or 'none'}")  # fmt: skip
    return model
