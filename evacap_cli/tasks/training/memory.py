"""Estimates the memory of training from a step on fake tensors, which have shapes but no data."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from evacap_cli.model import ModelConfig, build_model
from evacap_cli.model.chunked import MAX_LOGITS
from evacap_cli.tasks.training.parameter_groups import freeze
from evacap_cli.tasks.training.settings import TrainSettings

WORDS = 20


def estimate_memory(
    config: ModelConfig, settings: TrainSettings, clips: int, dtype: torch.dtype | None, world: int = 1
) -> dict[str, float]:
    """Returns gigabytes per process with `clips` in a portion: `weights` (with gradients, optimizer state and averaged
    weights), `activations` for the backward pass of 20-word captions, and their `total`. world: processes that share
    the weights if `settings.shard`.

    Counted, not measured: kernel workspaces and allocator fragmentation add about 10-20 %.
    """
    encoder = config.encoder
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage  # a reference, so that no later storage gets the same address
        return tensor

    with FakeTensorMode():
        model = build_model(config).train()
        freeze(model, settings.freeze)
        model.set_checkpointing(settings.checkpointing, settings.mlp_checkpointing)
        parameters = {p.untyped_storage()._cdata for p in model.parameters()}
        fbank = torch.empty(clips, encoder.audio_frames, encoder.mel_bins)
        pixels = torch.empty(clips, encoder.frames, 3, encoder.image_size, encoder.image_size)
        tokens = torch.zeros(clips, min(WORDS, config.decoder.positions), dtype=torch.long)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", dtype, enabled=dtype is not None),
        ):
            seen = model.encode_picture(pixels) if model.has_picture else None
            memory = model.fuse(model.encode_audio(fbank), seen)
            for decoder in model.decoders if model.trains_audio_decoder else model.decoders[-1:]:
                hidden = decoder.hidden(
                    decoder.encode_prefix(memory.tokens, memory.mask), memory.mask, tokens
                )
                if tokens.numel() * config.decoder.vocab_size <= MAX_LOGITS:
                    decoder.logits(hidden).float().log_softmax(-1)
                else:  # only gradients are kept, see `chunked_sum`
                    for x in (hidden, *decoder.output_parameters):
                        keep(torch.empty_like(x))
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
    # trained parameters also have a gradient and AdamW's two moments
    weights = 4 * ((1 + bool(settings.ema)) * total + 3 * trained) / 1e9
    if settings.shard and world > 1:
        from evacap_cli.tasks.training.sharding import tower_blocks

        blocks = {p for block in tower_blocks(model) for p in block.parameters()}
        gathered = [
            p for p in model.parameters() if p not in blocks
        ]  # and the gradients of those that are trained
        weights = weights / world + 4 * sum(p.numel() * (1 + p.requires_grad) for p in gathered) / 1e9
    activations = sum(storage.nbytes() for storage in kept.values()) / 1e9
    return {
        "weights": round(weights, 2),
        "activations": round(activations, 2),
        "total": round(weights + activations, 2),
    }
