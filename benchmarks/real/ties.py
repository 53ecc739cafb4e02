"""Maps sound labels to the ImageNet classes that their sources may look like: reads and checks `data/ties.yaml`.

python benchmarks/real/ties.py --labels yamnet_class_map.csv --ontology audioset_ontology.json --out ties.npz
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

CLASSES = 1000
SHOWS, SUGGESTS = 1.0, 0.4
DATA = Path(__file__).with_name("data")


@dataclass(frozen=True)
class Labels:
    """AudioSet labels in the order of the audio network's outputs. names: display names; mids: ids in the ontology."""

    names: tuple[str, ...]
    mids: tuple[str, ...]

    @staticmethod
    def read(path: Path) -> Labels:
        """Reads a CSV with the columns `index`, `mid` and `display_name`, one row per label, in order."""
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return Labels(tuple(row["display_name"] for row in rows), tuple(row["mid"] for row in rows))


class Ontology:
    """The parent-child relations of `audioset_ontology.json` (github.com/audioset/ontology)."""

    def __init__(self, entries: Sequence[dict[str, Any]]) -> None:
        self.children: dict[str, list[str]] = {entry["id"]: list(entry["child_ids"]) for entry in entries}
        self.names: dict[str, str] = {entry["id"]: entry["name"] for entry in entries}
        self.parents: dict[str, list[str]] = {}
        for mid, children in self.children.items():
            for child in children:
                self.parents.setdefault(child, []).append(mid)

    @staticmethod
    def read(path: Path) -> Ontology:
        return Ontology(json.loads(path.read_text(encoding="utf-8")))


def read_tables(path: Path = DATA / "ties.yaml") -> dict[str, Any]:
    """Reads the unresolved tables. Raises ValueError for a missing section."""
    tables = yaml.safe_load(path.read_text(encoding="utf-8"))
    missing = [name for name in ("sets", "shows", "suggests", "own_only", "people") if name not in tables]
    if missing:
        raise ValueError(f"{path.name}: missing sections: {', '.join(missing)}")
    return tables


def resolve(items: Iterable[int | str], sets: dict[str, list[int | str]]) -> set[int]:
    """Class indices of a list of indices, ranges ("151-268") and names of sets. Raises ValueError for other items."""
    classes: set[int] = set()
    for item in items:
        if isinstance(item, int):
            classes.add(item)
        elif item in sets:
            classes |= resolve(sets[item], sets)
        else:
            first, dash, last = str(item).partition("-")
            if not (dash and first.isdigit() and last.isdigit() and int(first) < int(last)):
                raise ValueError(f"'{item}' is not an index, a range or a set")
            classes |= set(range(int(first), int(last) + 1))
    if wrong := sorted(index for index in classes if not 0 <= index < CLASSES):
        raise ValueError(f"unknown classes: {wrong}")
    return classes


def load_ties(labels: Labels, ontology: Ontology, tables: dict[str, Any] | None = None) -> torch.Tensor:
    """Weights of ImageNet classes for each label.

    Returns:
        (C, 1000) float32: 1 if a class shows the label's source, 0.4 if it suggests it, otherwise 0. A parent label
        also has the classes of its children, except children with several parents and those in `own_only`.
    """
    tables = read_tables() if tables is None else tables
    sets = tables["sets"] | {"people": tables["people"]}
    # by id, so that labels without an output of the audio network still pass on their classes
    to_mid = {name: mid for mid, name in ontology.names.items()} | dict(
        zip(labels.names, labels.mids, strict=True)
    )
    own: dict[str, np.ndarray] = {}
    for section, weight in (("suggests", SUGGESTS), ("shows", SHOWS)):
        for name, items in tables[section].items():
            if name not in to_mid:
                raise ValueError(f"{section}: unknown label '{name}'")
            row = own.setdefault(to_mid[name], np.zeros(CLASSES, dtype=np.float32))
            indices = sorted(resolve(items, sets))
            row[indices] = np.maximum(row[indices], weight)
    stopped = {to_mid[name] for name in tables["own_only"]}

    def total(mid: str) -> np.ndarray:
        row = own.get(mid, np.zeros(CLASSES, dtype=np.float32)).copy()
        for child in ontology.children.get(mid, ()):
            if len(ontology.parents[child]) == 1 and child not in stopped:
                row = np.maximum(row, total(child))
        return row

    return torch.from_numpy(np.stack([total(mid) for mid in labels.mids]))


def load_people(tables: dict[str, Any] | None = None) -> torch.Tensor:
    """The ImageNet classes that usually imply people in the picture, (1000,) bool."""
    tables = read_tables() if tables is None else tables
    mask = torch.zeros(CLASSES, dtype=torch.bool)
    mask[sorted(resolve(tables["people"], tables["sets"]))] = True
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="CSV: index, mid, display_name")
    parser.add_argument("--ontology", type=Path, required=True, help="audioset_ontology.json")
    parser.add_argument("--out", type=Path, help="npz to write: ties, people, labels")
    parser.add_argument("--show", action="store_true", help="print every label with its classes' names")
    arguments = parser.parse_args()
    labels = Labels.read(arguments.labels)
    ties, people = load_ties(labels, Ontology.read(arguments.ontology)), load_people()
    if arguments.show:
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        for name, row in zip(labels.names, ties, strict=True):
            for grade, weight in (("shows", SHOWS), ("suggests", SUGGESTS)):
                classes = torch.nonzero(torch.isclose(row, torch.tensor(weight))).flatten().tolist()
                short = [info.index_to_description(index).split(",")[0] for index in classes]
                print(f"{name} | {grade} {len(classes)} | {', '.join(short[:40])}")
    shown, tied = (ties == SHOWS).any(1), (ties > 0).any(1)
    print(f"{len(labels.names)} labels: {int(shown.sum())} shown, {int(tied.sum())} shown or suggested")
    print(f"classes tied to no label: {torch.nonzero(~(ties > 0).any(0)).flatten().tolist()}")
    print(f"people: {int(people.sum())} classes")
    if arguments.out:
        np.savez(arguments.out, ties=ties.numpy(), people=people.numpy(), labels=np.array(labels.names))


if __name__ == "__main__":
    main()
