"""Which picture each sound is heard with: its own, another clip's, half of each, or none that shows anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evacap_cli.data.store import Store
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.world.events import Catalogue

SEED = 7


@dataclass(frozen=True)
class Condition:
    """`rows`: the clips whose sound is heard. `donors`: of whose picture the second half is (`half`) or all of it, None
    for the clips' own. `blank`: nothing but black. `frozen`: the first frame throughout."""

    name: str
    rows: np.ndarray
    donors: np.ndarray | None = None
    half: bool = False
    blank: bool = False
    frozen: bool = False


def conditions(store: Store, catalogue: Catalogue) -> list[Condition]:
    """Every clip with its own picture (kinds are told apart later); those whose picture fits, with others."""
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
    """For every clip of `rows` another of them that has nothing to do with it: none of its sounds is heard there, and
    nothing that is seen there could make one of them. Drawn at random, each as likely as any."""
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
