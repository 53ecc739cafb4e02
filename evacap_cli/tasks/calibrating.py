"""Calibrates a checkpoint's mismatch probability: `evacap weights calibrate`.

Models with a gate only report it (`caption --flag-mismatch`). Models with the fusion `evidence` also decide by it
whether to use the picture, so it is part of their weights.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from evacap_cli.atomic import folder_written_whole, written_whole
from evacap_cli.data.files import disk_errors
from evacap_cli.data.store import Store
from evacap_cli.errors import UsageError
from evacap_cli.model import Checkpoint, load_checkpoint
from evacap_cli.model.checkpoint import CARD, CONFIG, SUFFIX, WEIGHTS
from evacap_cli.model.hub import HUB
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.mismatch import FOLDS, KEY, FittedCalibration, fit
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.tasks.store_captioner import Captions, InferenceOptions, Progress, StoreCaptioner

DONORS = 4  # other pictures per sound
HEADING = "## Mismatch"
NUMBERS = ("gate", "entropy")


def calibrate(
    model: str,
    data: Path,
    out: Path | None = None,
    about: str = "",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    tags: Path | None = None,
) -> tuple[FittedCalibration, Path]:
    """Fits a model's mismatch score on the clips of a store, and writes it to the checkpoint or to a copy `out`.

    Clips whose `kind` is dubbed have no matching picture. about: description of the clips, for the card. seed: of
    donors and draws. tags: see `InferenceOptions`. Returns the calibration and the path of the checkpoint. Raises
    UsageError if the model has no gate or the output cannot be written, before any clip is read.
    """
    checkpoint = load_checkpoint(model)
    target = _check_output(model, checkpoint, out, overwrite)
    if not checkpoint.model.has_gate:
        raise UsageError(
            f"{model}: has no gate (its fusion is {checkpoint.model.config.fusion}), which calibration needs",
            "calibrate a model whose fusion is evidence, entropy-gate or gate",
        )
    store = Store(data)
    if len(store) < 2 * FOLDS:
        raise UsageError(f"--data {data}: {len(store)} clips are too few", f"give at least {2 * FOLDS}")
    chosen = pick_device(device)
    size = batch_size or (64 if chosen.type == "cuda" else 16)
    # the captions are not used, only their scores
    how = InferenceOptions(1, 1, size, chosen, pick_precision(precision, chosen), tags)
    seeds = np.random.default_rng(seed).choice(len(store) - 1, DONORS, replace=False)
    pairings = [Pairing.draw(len(store), int(each)) for each in seeds]
    own, mixed = StoreCaptioner(checkpoint, store, how).caption_paired(pairings, progress)

    inputs = list(own.cues) or [name for name in NUMBERS if np.isfinite(_number(own, name)).any()]
    matched = _inputs(own, inputs)
    matched[[store.extra(i).get("kind") == "dubbed" for i in range(len(store))]] = np.nan
    try:
        found = fit(matched, np.stack([_inputs(captions, inputs) for captions in mixed]), inputs, seed)
    except ValueError as error:
        raise UsageError(f"--data {data}: {error}", "give a store of more clips with pictures") from error
    date = datetime.now(timezone.utc).date().isoformat()
    note = {**found.to_dict(), "data": f"{about or data.name} (store {store.fingerprint()})", "date": date}
    with disk_errors(target):
        _write(
            checkpoint.path, target, note, card_section(note), _evidence_weights(found) if own.cues else {}
        )
    return found, target


def _inputs(captions: Captions, inputs: list[str]) -> np.ndarray:
    """Returns the inputs of a calibration, (N, K); NaN for clips without a picture."""
    values = np.column_stack([_number(captions, name) for name in inputs]).astype(np.float64)
    if not captions.cues:  # in these models, a gate of 0 means no picture
        values[_number(captions, "gate") == 0] = np.nan
    return values


def _evidence_weights(found: FittedCalibration) -> dict[str, Tensor]:
    """Returns the evidence weights of a model: the negated calibration, because evidence is that of a match."""
    weights, bias = torch.tensor(found.calibration.weights), torch.tensor(found.calibration.bias)
    return {"fusion.evidence.weights": -weights, "fusion.evidence.bias": -bias}


def _number(captions: Captions, name: str) -> np.ndarray:
    values = captions.cues.get(name, getattr(captions, name, None))
    return np.full(len(captions.captions), np.nan) if values is None else values


def _check_output(model: str, checkpoint: Checkpoint, out: Path | None, overwrite: bool) -> Path:
    """Returns the path of the output. Raises UsageError if it cannot be written."""
    source = checkpoint.path
    if out is None and model.startswith(HUB):
        raise UsageError(f"{model}: the downloaded copy is not changed", "name a copy with -o")
    if out is None:
        paths = [source.parent] if source.is_file() else [source, source / CONFIG]
        if checkpoint.model.has_evidence:  # the folder is replaced as a whole
            paths.append(source.resolve().parent)
        if not all(os.access(path, os.W_OK) for path in paths):
            raise UsageError(f"{source}: cannot be written", "name a copy with -o")
        return source
    wrong = []
    if source.is_file() != (out.suffix == SUFFIX):
        kind, cure = (
            ("a file", f"use the suffix {SUFFIX}") if source.is_file() else ("a folder", "name a folder")
        )
        wrong.append((f"-o {out}: {source} is {kind}", cure))
    if out.exists() and not overwrite:
        wrong.append((f"-o {out}: already exists", "use another name, or --overwrite"))
    if out.exists() and out.resolve() == source.resolve():
        wrong.append((f"-o {out}: is the model itself", "omit -o"))
    if not out.absolute().parent.is_dir():
        wrong.append((f"-o {out}: the folder {out.parent} does not exist", f"mkdir -p {out.parent}"))
    if wrong:
        raise UsageError("\n".join(message for message, _ in wrong), "; ".join(cure for _, cure in wrong))
    return out


def _write(source: Path, target: Path, note: dict[str, Any], section: str, state: dict[str, Tensor]) -> None:
    """Writes the checkpoint `source` to `target`, with the note and with `state` over its weights, atomically."""
    if source.is_file():
        with safe_open(source, "pt") as file:
            about = file.metadata()
        config = json.loads(about["config"])
        config["metadata"] = {**(config.get("metadata") or {}), KEY: note}
        with written_whole(target) as aside:
            save_file(load_file(source) | state, aside, {**about, "config": json.dumps(config)})
            aside.chmod(0o644)  # safetensors creates files that only the owner can read
        return
    if target != source or state:  # weights and metadata must change together
        with folder_written_whole(target.resolve()) as aside:
            shutil.copytree(source, aside, dirs_exist_ok=True)
            _annotate(aside, note, section, state)
    else:
        _annotate(target, note, section, state)


def _annotate(folder: Path, note: dict[str, Any], section: str, state: dict[str, Tensor]) -> None:
    if state:
        with written_whole(folder / WEIGHTS) as aside:
            save_file(load_file(folder / WEIGHTS) | state, aside)
            aside.chmod(0o644)  # safetensors creates files that only the owner can read
    config = yaml.safe_load((folder / CONFIG).read_text("utf-8"))
    config["metadata"] = {**(config.get("metadata") or {}), KEY: note}
    card = folder / CARD
    text = card.read_text("utf-8") if card.exists() else f"# {folder.name}\n"
    try:
        with written_whole(folder / CONFIG) as new_config, written_whole(card) as new_card:
            new_config.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "utf-8")
            new_card.write_text(with_section(text, section), "utf-8")
    except BaseException:  # also between the two renames
        if card.exists() and card.read_text("utf-8") != text:
            card.write_text(text, "utf-8")
        raise


def with_section(card: str, section: str) -> str:
    """Returns a model card with this section, which replaces an older one, or else comes before `## Limits` or at the
    end."""
    older = re.search(rf"^{HEADING}$.*?(?=^## |\Z)", card, re.M | re.S)
    if older:
        return (
            card[: older.start()] + section + ("\n" if older.end() < len(card) else "") + card[older.end() :]
        )
    limits = re.search(r"^## Limits$", card, re.M)
    if limits:
        return f"{card[: limits.start()]}{section}\n{card[limits.start() :]}"
    return f"{card.rstrip()}\n\n{section}"


def _listed(inputs: list[str]) -> str:
    if "matcher" in inputs:
        return ", ".join(inputs)
    return f"mean {' and mean '.join(inputs)}"


def card_section(note: dict[str, Any]) -> str:
    """Returns the section of the model card about a calibration."""
    low, high = note["auroc_interval"]
    facts = (
        f"Method: {note['method']}. Inputs: {_listed(note['inputs'])} of a clip.",
        f"Data: {note['data']}, {note['date']}: {note['clips']:,} clips with their own pictures, {note['pairs']:,} "
        "pairs of a clip's sound with another one's picture.",
        f"AUROC {note['auroc']:.3f} (95 %: {low:.3f}-{high:.3f}): a mismatched pair scores higher than a matched one "
        f"in {note['auroc'] * 100:.0f} % of cases; chance is 50 %.",
        f"Brier score {note['brier']:.3f}; a constant 0.5 has 0.250.",
        "The prior of a mismatch is 0.5. If fewer clips are dubbed, the probabilities are too high, and only their "
        "order is meaningful.",
    )
    lines = [
        HEADING,
        "With `--flag-mismatch`, `evacap caption` reports the probability that picture and sound do not match.",
        "",
        *(
            textwrap.fill(
                fact,
                130,
                initial_indent="- ",
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for fact in facts
        ),
        "",
        "| predicted (means of fifths) | observed share of mismatches |",
        "|---|---|",
        *(f"| {mean:.2f} | {share:.2f} |" for mean, share in note["reliability"]),
    ]
    return "\n".join(lines) + "\n"
