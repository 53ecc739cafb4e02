"""Saves and loads the full state of a run, in one file that is written atomically."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from evacap_cli.atomic import written_whole
from evacap_cli.errors import EvacapError
from evacap_cli.tasks.training.settings import TrainSettings

FILE = "training.pt"
_IGNORED = ("save_minutes", "save_every", "shard")
"""Settings that do not affect the result, and may change when a run resumes."""


def save_state(out: Path, state: dict[str, Any]) -> None:
    """Writes the state to a temporary file, syncs it, and renames it."""
    with written_whole(out / FILE) as temporary:
        torch.save(state, temporary)


def load_state(out: Path, settings: TrainSettings, identity: dict[str, str]) -> dict[str, Any] | None:
    """Returns the state of the run in `out`, None if there is none. Raises EvacapError with the differences if the run
    has other settings or clips. A setting that is newer than the run had its default."""
    path = out / FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved, was = state["settings"], state["identity"]
    except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        raise EvacapError(
            f"{path}: damaged ({str(error).splitlines()[0]})",
            "restore the file, or start again with --no-resume",
        ) from error
    saved = {**TrainSettings().to_dict(), **saved}
    differing = [f"training.{k} was {saved[k]!r}, is {v!r}" for k, v in settings.to_dict().items()
                 if k not in _IGNORED and saved[k] != v]  # fmt: skip
    differing += [f"{k} was {was.get(k)!r}, is {v!r}" for k, v in identity.items() if was.get(k) != v]
    if differing:
        raise EvacapError(
            f"{out}: holds a run with other settings ({'; '.join(differing)})",
            "use another -o, or --no-resume to start again",
        )
    return state
