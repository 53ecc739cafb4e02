from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .samples import random_model
from .test_captioner import batch_of


@pytest.mark.parametrize("fusion", ["entropy-gate", "adaptive"])
def test_recomputed_mlps_keep_results_and_use_less_memory(fusion: str) -> None:
    data, runs, kept = batch_of(), [], []
    for wanted in (False, True):
        model = random_model(fusion, 9).train()
        model.set_checkpointing(False, mlp=wanted)
        storages: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor, storages: dict[int, torch.UntypedStorage] = storages) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        torch.manual_seed(0)  # for dropout
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(**data)["loss"]
        kept.append(sum(storage.nbytes() for storage in storages.values()))
        trained = [p for p in model.parameters() if p.requires_grad]
        runs.append((loss, torch.autograd.grad(loss, trained, allow_unused=True)))
    assert torch.equal(runs[0][0], runs[1][0])
    pairs = list(zip(runs[0][1], runs[1][1], strict=True))
    assert all(a is None if b is None else torch.equal(a, b) for a, b in pairs)
    assert kept[1] < 0.9 * kept[0]
