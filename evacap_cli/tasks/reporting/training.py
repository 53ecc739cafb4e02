"""The page of a training run: curves, gate, sample captions over time, and the settings that differ from the preset."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evacap_cli.errors import EvacapError
from evacap_cli.model.presets import preset_names
from evacap_cli.report.pages import Clip, ClipList, Column, Figure, Page, Table
from evacap_cli.report.pages.figures import Line, line_chart
from evacap_cli.report.training_curves import PANELS
from evacap_cli.tasks.reporting.folders import Facts, prefixes, word_change
from evacap_cli.tasks.reporting.pages import setting_facts, version_facts
from evacap_cli.tasks.reporting.stored_clips import PageTarget

NAN = math.nan
STEPS = 10  # evaluations whose sample captions are shown, the last one always
LINES = {
    "mean gate": {
        "gate_matched": "training, own picture",
        "gate_shuffled": "training, another clip's picture",
        "sample_gate": "validation samples, own picture",
        "sample_gate_shuffled": "validation samples, another clip's picture",
    }
}
"""Panels with more lines than the figure `curves.png`."""
NAMES = {
    "caption": "training loss",
    "validation": "validation loss",
    "validation_cider": "CIDEr",
    "lr": "learning rate",
    "clips_per_second": "clips/s",
    "gate_matched": "gate, own picture",
    "gate_shuffled": "gate, another clip's picture",
    "sample_gate": "gate of the samples, own picture",
    "sample_gate_shuffled": "gate of the samples, another clip's picture",
    "match": "cross-entropy, own pair or not",
}
"""Titles of the columns of `metrics.jsonl`; the other columns keep their names."""
GATES = {
    "gate": ("gate", "mean gate of the clip"),
    "gate_shuffled": ("gate, other picture", "mean gate with the picture of another clip"),
}
"""Label and description of the gates of a sample."""
Log = list[dict[str, Any]]


def training_page(folders: Sequence[Path], facts: Facts, target: PageTarget) -> Page:
    """The page of one run, or of several for comparison. `target` is not used: the samples have no pictures."""
    before = prefixes(folders)
    logs = {prefix: _log(folder) for prefix, folder in zip(before, folders, strict=True)}
    configs = {prefix: _config(folder) for prefix, folder in zip(before, folders, strict=True)}
    last = [log[-1]["step"] for log in logs.values() if log]
    settings = [fact for prefix, config in configs.items() for fact in setting_facts(config, prefix)]
    many = len(folders) > 1
    found = [_evaluations(logs, many), _differences(configs)]
    return Page(
        title="Training: " + " and ".join(folder.absolute().name for folder in folders),
        lead=", ".join(
            f"{prefix}step {log[-1]['step']:,}" if log else f"{prefix}no step yet"
            for prefix, log in logs.items()
        ),
        counts=_counts(logs, before) if last else [],
        facts=[*facts, *settings, *version_facts()],
        figures=_figures(logs),
        tables=[table for table in found if table is not None],
        clips=_samples(logs),
        clips_title="Sample captions over time",
    )


def _counts(logs: Mapping[str, Log], before: Sequence[str]) -> list[tuple[str, str]]:
    """The last and the best numbers of each run."""
    counts = []
    for prefix in before:
        log = logs[prefix]
        for name, title, best in (
            ("validation", "lowest validation loss", min),
            ("validation_cider", "best CIDEr", max),
        ):
            values = [row[name] for row in log if _is_number(row.get(name))]
            if values:
                counts.append((f"{prefix}{title}", f"{best(values):.3f}"))
        skipped = sum("skipped" in row for row in log)
        if skipped:
            counts.append((f"{prefix}skipped steps", str(skipped)))
    return counts


def _figures(logs: Mapping[str, Log]) -> list[Figure]:
    figures = []
    for title, names in PANELS:
        lines = [
            Line(
                f"{prefix}{label or title}",
                [(row["step"], row[name], NAN, NAN) for row in log if _is_number(row.get(name))],
            )
            for prefix, log in logs.items()
            for name, label in LINES.get(title, names).items()
        ]
        figure = line_chart(title, "step", title, lines)
        if figure is not None:
            figures.append(figure)
    return figures


def _evaluations(logs: Mapping[str, Log], many: bool) -> Table | None:
    """The numbers of each evaluation. None before the first one."""
    rows = [
        (prefix, row)
        for prefix, log in logs.items()
        for row in log
        if any(name.startswith("validation") for name in row)
    ]
    columns = list(
        dict.fromkeys(n for _, row in rows for n, value in row.items() if n != "step" and _is_number(value))
    )
    cells = [
        [f"{prefix}{row['step']}" if many else str(row["step"]),
         *(f"{row[n]:.4g}" if _is_number(row.get(n)) else "" for n in columns)]
        for prefix, row in rows
    ]  # fmt: skip
    return Table("Evaluations", ("step", *(NAMES.get(n, n) for n in columns)), cells) if cells else None


def _differences(configs: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """The settings of each run that differ from those of its preset. None if no preset is known."""
    rows = []
    known = False
    for prefix, config in configs.items():
        name = str((config.get("metadata") or {}).get("preset") or "")
        preset = _preset(name)
        if preset is None:
            continue
        known = True
        training = (config.get("metadata") or {}).get("training") or {}
        mine = dict(
            setting_facts(
                {"model": config.get("model"), "features": config.get("features"), "training": training}
            )
        )
        for setting in dict.fromkeys((*preset, *mine)):
            if mine.get(setting) != preset.get(setting):
                rows.append([f"{prefix}{setting}", preset.get(setting, ""), mine.get(setting, "")])
    if not known:
        return None
    names = dict.fromkeys(
        str((config.get("metadata") or {}).get("preset") or "") for config in configs.values()
    )
    note = "" if rows else "All settings are those of the preset."
    return Table(
        f"Settings that differ from the preset {', '.join(filter(None, names))}",
        ("setting", "preset", "run"),
        rows,
        note,
    )


def _preset(name: str) -> dict[str, str] | None:
    """All settings of a preset, or of the preset that a YAML file is based on. None if it is missing."""
    from evacap_cli.tasks.training.config import read_config  # here, because that package imports this module

    try:
        if name not in preset_names() and Path(name).is_file():
            values = yaml.safe_load(Path(name).read_text("utf-8"))
            name = (values.get("base") if isinstance(values, dict) else None) or name
        return dict(setting_facts(read_config(name).to_dict())) if name else None
    except (EvacapError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _samples(logs: Mapping[str, Log]) -> ClipList | None:
    """The captions of a few validation clips at up to `STEPS` evaluations, the latest first. None before the first."""
    taken: list[tuple[str, int, dict[str, dict[str, Any]]]] = []  # (title, step, samples by clip)
    references: dict[str, str] = {}
    for prefix, log in logs.items():
        found = [row for row in log if row.get("samples")]
        chosen = sorted(
            {round(i * (len(found) - 1) / max(1, STEPS - 1)) for i in range(STEPS)} if found else ()
        )
        for row in reversed([found[i] for i in chosen if i < len(found)]):
            samples = {str(sample["clip"]): sample for sample in row["samples"]}
            references |= {clip: str(sample.get("reference", "")) for clip, sample in samples.items()}
            taken.append((f"{prefix}step {row['step']:,}", row["step"], samples))
    if not taken:
        return None
    columns, places = [], []
    for i, (title, _, _) in enumerate(taken):
        for name, (label, text) in GATES.items():
            if any(_is_number(sample.get(name)) for _, _, samples in taken for sample in samples.values()):
                columns.append(Column(f"{label} ({title})", 3, text if i == 0 else "", i, label))
                places.append((i, name))
    change = Column("different words", 2, "share of words that only the latest caption or the reference has")

    def every() -> Iterator[Clip]:
        for clip, reference in references.items():
            rows = [samples.get(clip, {}) for _, _, samples in taken]
            texts = [str(row.get("caption", "")) for row in rows]
            values = [rows[i].get(name) for i, name in places]
            yield Clip(clip, (*texts, reference),
                       (word_change(texts[0], reference), *(v if _is_number(v) else None for v in values)))  # fmt: skip

    return ClipList(every, (change, *columns), (*(title for title, _, _ in taken), "reference"))


def _config(folder: Path) -> dict[str, Any]:
    """The contents of config.yaml of the last checkpoint; empty if there is none."""
    path = folder / "last" / "config.yaml"
    values = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None
    return values if isinstance(values, dict) else {}


def _log(folder: Path) -> Log:
    """The lines of metrics.jsonl; a line that a kill cut off is left out."""
    found = []
    for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
