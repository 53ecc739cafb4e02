"""`evacap weights calibrate`: a checkpoint learns to say how likely a clip's picture is not of its sound.

What a model with a gate says is only told (`caption --flag-mismatch`); of a model whose fusion is `evidence` it is also
what the switch goes by, and so part of its weights.
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
from evacap_cli.data.store import Store
from evacap_cli.data.store.files import disk_errors
from evacap_cli.errors import UsageError
from evacap_cli.model import Checkpoint, load_checkpoint
from evacap_cli.model.checkpoint import CARD, CONFIG, SUFFIX, WEIGHTS
from evacap_cli.tasks.devices import pick_device, pick_precision
from evacap_cli.tasks.mismatch import FOLDS, KEY, Fitted, fit
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.tasks.store_captioner import Captions, InferenceOptions, Progress, StoreCaptioner

DONORS = 4  # other pictures that each sound is heard with
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
) -> tuple[Fitted, Path]:
    """Fits a model's mismatch score on the clips of a store and writes it into the checkpoint, or into a copy `out`.

    A clip that its store knows to be dubbed (`kind`) has no matching picture. about: what the clips are, for the card.
    seed: of donors and draws. Returns what was found, and where it was written. Raises UsageError for models without a
    gate and for places that cannot be written, before any clip is heard.
    """
    checkpoint = load_checkpoint(model)
    place = _check_place(checkpoint, out, overwrite)
    if not checkpoint.model.has_gate:
        raise UsageError(
            f"{model}: has no gate (its fusion is {checkpoint.model.config.fusion}), which is what tells",
            "calibrate a model whose fusion is evidence, entropy-gate or gate",
        )
    store = Store(data)
    if len(store) < 2 * FOLDS:
        raise UsageError(f"--data {data}: {len(store)} clips are too few", f"give at least {2 * FOLDS}")
    chosen = pick_device(device)
    size = batch_size or (64 if chosen.type == "cuda" else 16)
    # what is said does not matter here, only the numbers beside it
    how = InferenceOptions(1, 1, size, chosen, pick_precision(precision, chosen))
    seeds = np.random.default_rng(seed).choice(len(store) - 1, DONORS, replace=False)
    pairings = [Pairing.draw(len(store), int(each)) for each in seeds]
    own, mixed = StoreCaptioner(checkpoint, store, how).caption_paired(pairings, progress)

    inputs = list(own.cues) or [name for name in NUMBERS if np.isfinite(_number(own, name)).any()]
    matched = _told(own, inputs)
    matched[[store.extra(i).get("kind") == "dubbed" for i in range(len(store))]] = np.nan
    try:
        found = fit(matched, np.stack([_told(said, inputs) for said in mixed]), inputs, seed)
    except ValueError as error:
        raise UsageError(f"--data {data}: {error}", "give a store of more clips with pictures") from error
    date = datetime.now(timezone.utc).date().isoformat()
    note = {**found.to_dict(), "data": f"{about or data.name} (store {store.fingerprint()})", "date": date}
    with disk_errors(place):
        _write(checkpoint.path, place, note, card_section(note), _switch(found) if own.cues else {})
    return found, place


def _told(said: Captions, inputs: list[str]) -> np.ndarray:
    """(N, K); NaN for clips without a picture."""
    values = np.column_stack([_number(said, name) for name in inputs]).astype(np.float64)
    if not said.cues:  # then, and only then, a gate is 0
        values[_number(said, "gate") == 0] = np.nan
    return values


def _switch(found: Fitted) -> dict[str, Tensor]:
    """The weights of a model that goes by what was found: of a match, where a calibration tells of a mismatch."""
    weights, bias = torch.tensor(found.calibration.weights), torch.tensor(found.calibration.bias)
    return {"fusion.evidence.weights": -weights, "fusion.evidence.bias": -bias}


def _number(said: Captions, name: str) -> np.ndarray:
    values = said.cues.get(name, getattr(said, name, None))
    return np.full(len(said.captions), np.nan) if values is None else values


def _check_place(checkpoint: Checkpoint, out: Path | None, overwrite: bool) -> Path:
    """Where the calibration is written: UsageError where it cannot be."""
    source = checkpoint.path
    if out is None:
        places = [source.parent] if source.is_file() else [source, source / CONFIG]
        if checkpoint.model.has_evidence:  # the folder is replaced as a whole
            places.append(source.resolve().parent)
        if not all(os.access(place, os.W_OK) for place in places):
            raise UsageError(f"{source}: cannot be written", "name a copy with -o")
        return source
    wrong = []
    if source.is_file() != (out.suffix == SUFFIX):
        kind = f"a file, and a copy of it ends in {SUFFIX}" if source.is_file() else "a folder, not one file"
        wrong.append((f"-o {out}: {source} is {kind}", "name it so"))
    if out.exists() and not overwrite:
        wrong.append((f"-o {out}: is there already", "give another name, or --overwrite"))
    if out.exists() and out.resolve() == source.resolve():
        wrong.append((f"-o {out}: is the model itself", "leave -o out"))
    if not out.absolute().parent.is_dir():
        wrong.append((f"-o {out}: the folder {out.parent} does not exist", f"mkdir -p {out.parent}"))
    if wrong:
        raise UsageError("\n".join(what for what, _ in wrong), "; ".join(cure for _, cure in wrong))
    return out


def _write(source: Path, place: Path, note: dict[str, Any], section: str, state: dict[str, Tensor]) -> None:
    """The checkpoint at `source` with its note, and `state` over its weights, at `place`: whole, or as it was."""
    if source.is_file():
        with safe_open(source, "pt") as file:
            about = file.metadata()
        config = json.loads(about["config"])
        config["metadata"] = {**(config.get("metadata") or {}), KEY: note}
        with written_whole(place) as aside:
            save_file(load_file(source) | state, aside, {**about, "config": json.dumps(config)})
            aside.chmod(0o644)  # the library writes for its owner alone
        return
    if place != source or state:  # weights and what is said of them must not part
        with folder_written_whole(place.resolve()) as aside:
            shutil.copytree(source, aside, dirs_exist_ok=True)
            _annotate(aside, note, section, state)
    else:
        _annotate(place, note, section, state)


def _annotate(folder: Path, note: dict[str, Any], section: str, state: dict[str, Tensor]) -> None:
    if state:
        with written_whole(folder / WEIGHTS) as aside:
            save_file(load_file(folder / WEIGHTS) | state, aside)
            aside.chmod(0o644)  # the library writes for its owner alone
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
    """A model card with this section: in place of an older one, else before `## Limits`, else at the end."""
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
    """What the card says of a calibration."""
    low, high = note["auroc_interval"]
    facts = (
        f"Method: {note['method']}. Inputs: {_listed(note['inputs'])} of a clip.",
        f"Data: {note['data']}, {note['date']}: {note['clips']:,} clips with their own pictures, {note['pairs']:,} "
        "pairs of a clip's sound with another one's picture.",
        f"AUROC {note['auroc']:.3f} (95 %: {low:.3f}-{high:.3f}): of a matched and a mismatched pair, the mismatched "
        f"one gets the higher number {note['auroc'] * 100:.0f} % of the time; chance has 50 %.",
        f"Brier score {note['brier']:.3f}; saying 0.5 of everything has 0.250.",
        "Beforehand, a mismatch counts as likely as not. Where fewer clips are dubbed, it says too much, and only the "
        "order of its numbers counts.",
    )
    lines = [
        HEADING,
        "With `--flag-mismatch`, `evacap caption` says how likely it is that a clip's picture is not of its sound.",
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
        "| it says (means of fifths) | mismatched in truth |",
        "|---|---|",
        *(f"| {said:.2f} | {was:.2f} |" for said, was in note["reliability"]),
    ]
    return "\n".join(lines) + "\n"
