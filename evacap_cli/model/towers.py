"""Weights in the package that several packaged models share, such as the pre-trained networks of tag towers.

`assets/models/shared.safetensors` contains them, under their names in a model. A packaged checkpoint with `shared:
true` in its `config.yaml` reads from this file the tensors that its own file lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evacap_cli.errors import EvacapError
from evacap_cli.model.captioner import CaptionModel
from evacap_cli.model.tag_encoder import NETWORKS
from evacap_cli.model.tag_evidence import TagEvidence

SHARED = "shared.safetensors"
TIES = "fusion.evidence.ties"


def shared_path() -> Path:
    return Path(str(resources.files("evacap_cli") / "assets" / "models" / SHARED))


def shared_weights(names: Iterable[str]) -> dict[str, Tensor]:
    """Reads the named tensors, as far as the package contains them."""
    try:
        with safe_open(shared_path(), "pt") as file:
            known = set(file.keys())
            return {name: file.get_tensor(name) for name in names if name in known}
    except (SafetensorError, OSError) as error:
        raise EvacapError(f"{shared_path()}: cannot be read ({error})", "install evacap again") from error


def load_towers(model: CaptionModel) -> CaptionModel:
    """Loads the packaged networks, and the table of ties of `TagEvidence`, into a new model with tag towers."""
    state = model.state_dict()
    wanted = [name for name in state if name.split(".")[1] in NETWORKS]
    found = shared_weights([*wanted, TIES])
    if lacking := [name for name in wanted if name not in found or found[name].shape != state[name].shape]:
        raise EvacapError(
            f"the package has no weights for {lacking[0]} and {len(lacking) - 1} more of these towers",
            "leave model.encoder.network as the presets have it",
        )
    model.load_state_dict({name: found[name].to(state[name].dtype) for name in wanted}, strict=False)
    evidence = getattr(model.fusion, "evidence", None)
    if isinstance(evidence, TagEvidence):
        evidence.start_from(found[TIES].to(torch.float32))
    return model
