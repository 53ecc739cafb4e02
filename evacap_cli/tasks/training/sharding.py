"""Shards weights, gradients and optimizer state over the processes of a run (FSDP2).

Imports take a second, so that only runs with `training.shard` import this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from evacap_cli.errors import UsageError
from evacap_cli.model import CaptionModel
from evacap_cli.tasks.training.distributed import Ranks


class Sharding:
    """Shards models with the sizes of `model`, and converts between whole and sharded states.

    The blocks of the towers are gathered one at a time, all other parameters once per portion: which of the others a
    process uses depends on its clips, and all processes must gather the same.
    """

    def __init__(self, model: CaptionModel, device: torch.device, ranks: Ranks) -> None:
        if model.config.decoder.kind == "causal-lm":
            raise UsageError(
                "training.shard: does not support language models as decoders (model.decoder.kind is causal-lm)",
                "leave it out; training.checkpointing=true also saves memory",
            )
        self.device, self.ranks = device, ranks
        self.mesh = init_device_mesh(device.type, (ranks.world,))
        empty: dict[int, Any] = {
            id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()
        }
        self.empty = deepcopy(model, empty)  # has no weights; sharded models cannot be copied

    def shard(self, model: CaptionModel) -> None:
        """Moves a model to the device, block by block, and keeps the share of this process. In place."""
        numbers = {p for p in model.parameters() if not p.ndim}  # which cannot be sharded
        for number in numbers:
            number.data = number.data.to(self.device)
        for block in tower_blocks(model):
            fully_shard(block, mesh=self.mesh)
        fully_shard(model, mesh=self.mesh, ignored_params=numbers)

    def average_numbers(self, model: CaptionModel) -> None:
        """Averages the gradients of parameters that are not sharded, because they are single numbers."""
        for parameter in model.parameters():
            if not parameter.ndim and parameter.grad is not None:
                parameter.grad = self.ranks.sum(parameter.grad) / self.ranks.world

    def whole_model(self, model: CaptionModel) -> CaptionModel:
        """Returns an unsharded copy on the device. Every process must call it."""
        whole = deepcopy(self.empty)
        whole.load_state_dict(
            {name: self.whole(value) for name, value in model.state_dict().items()}, assign=True
        )
        return whole.to(self.device)

    def whole(self, tensor: Tensor) -> Tensor:
        """Returns a whole tensor. Every process must call it."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def gather(self, state: Any) -> Any:
        """Returns a state with whole tensors, in the memory of the first process only. Every process must call it."""
        if isinstance(state, DTensor):
            whole = self.whole(state)
            return whole.cpu() if self.ranks.first else None
        if isinstance(state, Mapping):
            return {key: self.gather(value) for key, value in state.items()}
        if isinstance(state, list):
            return [self.gather(value) for value in state]
        return state

    def scatter(self, weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
        """Returns the share of this process of whole weights, for `load_state_dict` of a sharded module."""
        own = module.state_dict()
        return {name: _share(value, own.get(name)) for name, value in weights.items()}

    def scatter_optimizer(self, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Returns the share of this process of a whole state, for `load_state_dict` of an optimizer."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        shares = {
            index: {name: _share(value, parameters[index]) for name, value in values.items()}
            for index, values in state["state"].items()
        }
        return {**state, "state": shares}


def tower_blocks(model: CaptionModel) -> list[nn.Module]:
    """The modules that are sharded on their own: every process runs each of them exactly once per portion."""
    towers = [getattr(model.encoder, name, ()) for name in ("blocks_a", "blocks_v")]
    return [block for blocks in towers for block in blocks]


def _share(value: Tensor, like: Tensor | None) -> Tensor:
    """Returns the share of a whole tensor if `like`, its counterpart, is sharded."""
    if not isinstance(like, DTensor) or value.shape != like.shape:  # such as the step of an optimizer
        return value
    share = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return share.clone()  # not a view, which would keep the whole tensor
