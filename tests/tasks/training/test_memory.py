"""The estimate of memory, against what a step really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evacap_cli.model import build_model, load_preset
from evacap_cli.model.fused import Fused
from evacap_cli.tasks.training import TrainSettings
from evacap_cli.tasks.training.memory import estimate_memory


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", ["evacap-tiny", "avcap-tiny", "audio-tiny", "evacap-no-gate-tiny", "evidence-tiny"]
)
def test_estimated_activations_equal_those_of_a_step(preset: str) -> None:
    config = load_preset(preset).model
    config = replace(config, decoder=replace(config.decoder, vocab_size=2000))
    model, encoder = build_model(config).train(), config.encoder
    own = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fbank = torch.zeros(8, encoder.audio_frames, encoder.mel_bins)
        pixels = torch.zeros(8, encoder.frames, 3, encoder.image_size, encoder.image_size)
        seen = model.encode_picture(pixels) if model.has_picture else None
        tokens = torch.zeros(8, 20, dtype=torch.long)
        heard = model.encode_audio(fbank)
        for memory in (model.fuse(heard, seen), Fused(heard))[: len(model.decoders)]:
            model.logits(memory, tokens).float().log_softmax(-1)
    real = sum(storage.nbytes() for storage in kept.values()) / 1e9
    found = estimate_memory(config, TrainSettings(), 8, None)
    assert found["activations"] == pytest.approx(real, rel=0.1, abs=0.011)


@pytest.mark.slow
def test_a_second_decoder_is_counted() -> None:
    """That of the first it keeps what it learns from, unless it is frozen."""
    config = load_preset("evidence-base").model
    one = replace(config, evidence=replace(config.evidence, decoders=1))
    single, both, seeing = (
        estimate_memory(model, TrainSettings(freeze=freeze), 8, None)
        for model, freeze in ((one, ()), (config, ()), (config, ("decoder",)))
    )
    with torch.device("meta"):
        weights = sum(p.numel() for p in build_model(config).decoder.parameters()) * 4 / 1e9
    assert both["activations"] > 1.1 * single["activations"]
    assert seeing["activations"] == single["activations"]
    copies = 4  # the weights, their gradient and AdamW's two moments
    assert both["weights"] == pytest.approx(single["weights"] + copies * weights, abs=0.011)
    assert seeing["weights"] == pytest.approx(single["weights"] + weights, abs=0.011)


@pytest.mark.slow
def test_memory_options_lower_the_estimate() -> None:
    config = load_preset("evacap-base").model
    plain = estimate_memory(config, TrainSettings(), 2, None)
    again = estimate_memory(config, TrainSettings(checkpointing=True), 2, None)
    partly = estimate_memory(config, TrainSettings(mlp_checkpointing=True), 2, None)
    narrow = estimate_memory(config, TrainSettings(), 2, torch.bfloat16)
    frozen = estimate_memory(config, TrainSettings(freeze=("encoder",)), 2, None)
    averaged = estimate_memory(config, TrainSettings(ema=0.999), 2, None)
    sharded = [estimate_memory(config, TrainSettings(shard=True), 2, None, world) for world in (1, 4)]
    assert again["activations"] < 0.2 * plain["activations"]
    assert again["activations"] < partly["activations"] < 0.6 * plain["activations"]
    assert narrow["activations"] < 0.8 * plain["activations"]
    assert frozen["total"] < 0.5 * plain["total"]
    assert sharded[0] == plain
    assert sharded[1]["weights"] < 0.5 * plain["weights"]
    assert averaged["weights"] == pytest.approx(plain["weights"] * 5 / 4, rel=0.01)
