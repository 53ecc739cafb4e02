"""The conditions of the benchmark: each clip with its own picture, another clip's, half of each, or a black one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evacap_cli.data.store import Store
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.world.events import Catalogue

SEED = 7


@dataclass(frozen=True)
class Condition:
    """rows: the clips of the audio. donors: the clips of the picture, or of its second half (`half`); None for the own
    picture. blank: black frames. frozen: the first frame repeated."""

    name: str
    rows: np.ndarray
    donors: np.ndarray | None = None
    half: bool = False
    blank: bool = False
    frozen: bool = False


def conditions(store: Store, catalogue: Catalogue) -> list[Condition]:
    """All clips with their own pictures (kinds are separated later), and the matched clips with other pictures."""
    kinds = np.array([store.extra(i)["kind"] for i in range(len(store))])
    fitting = np.flatnonzero(kinds == "matched")
    unlike = unlike_donors(store, fitting, catalogue)
    any_donor = fitting[Pairing.draw(len(fitting), SEED).donor]
    return [
        Condition("own", np.arange(len(store))),
        Condition("unlike", fitting, unlike),
        Condition("any", fitting, any_donor),
        Condition("half", fitting, unlike, half=True),
        Condition("black", fitting, blank=True),
        Condition("frozen", fitting, frozen=True),
    ]


def unlike_donors(store: Store, rows: np.ndarray, catalogue: Catalogue, seed: int = SEED) -> np.ndarray:
    """For every clip of `rows`, an unrelated clip of `rows`, drawn uniformly: it has none of its sounds and shows
    nothing that could make them."""
    could: dict[str, set[str]] = {}
    for event in catalogue.events:
        could.setdefault(event.object, set()).add(event.sound)
    heard = {int(row): set(store.extra(row)["sounds"]) for row in rows}
    said = {
        row: sounds.union(*(could.get(thing, set()) for thing in store.extra(row)["things"]))
        for row, sounds in heard.items()
    }
    rng, found = np.random.default_rng(seed), []
    for row in map(int, rows):
        fit = [other for other in map(int, rows) if other != row and not heard[row] & said[other]]
        if not fit:
            raise ValueError(f"clip {row} has no unlike donor among {len(rows)} clips")
        found.append(fit[rng.integers(len(fit))])
    return np.array(found)
