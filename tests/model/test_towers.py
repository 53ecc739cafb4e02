"""Weights that come with the package: the networks compute what their authors' do, and checkpoints share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evacap_cli.errors import EvacapError
from evacap_cli.model import CaptionModel, ModelConfig, Tokenizer, load_checkpoint, save_checkpoint
from evacap_cli.model import towers as towers_module
from evacap_cli.model.checkpoint import CONFIG, WEIGHTS
from evacap_cli.model.config import TagEncoderConfig
from evacap_cli.model.tag_encoder import NETWORKS
from evacap_cli.model.tag_evidence import TagEvidence
from evacap_cli.model.towers import TIES, load_towers, shared_path, shared_weights
from evacap_cli.model.yamnet import BLOCKS, YAMNet

from .samples import DECODER
from .tagged import random_inputs, tag_model
from .test_yamnet import FIXTURE

EFFICIENTNET = FIXTURE.with_name("efficientnet_lite0.safetensors")
"""Logits (2, 1000) of `patterns` by EfficientNet-lite0 with its published fp32 weights."""


def packaged_state(network: nn.Module, name: str) -> dict[str, Tensor]:
    found = shared_weights(f"encoder.{name}.{key}" for key in network.state_dict())
    return {
        key.removeprefix(f"encoder.{name}."): value.float() if value.is_floating_point() else value
        for key, value in found.items()
    }


# ---- the ear


def same_convolution(x: np.ndarray, weight: np.ndarray, stride: int, depthwise: bool) -> np.ndarray:
    """TensorFlow's convolution with SAME padding. x: (H, W, C), weight: (k, k, C) or (k, k, C, C_out)."""
    k = weight.shape[0]
    out = [-(-n // stride) for n in x.shape[:2]]
    pads = [max((m - 1) * stride + k - n, 0) for m, n in zip(out, x.shape[:2], strict=True)]
    x = np.pad(x, [(pad // 2, pad - pad // 2) for pad in pads] + [(0, 0)])
    y = np.zeros((*out, weight.shape[-1]))
    for row in range(out[0]):
        for column in range(out[1]):
            part = x[row * stride : row * stride + k, column * stride : column * stride + k]
            if depthwise:
                y[row, column] = (part * weight).sum(axis=(0, 1))
            else:
                y[row, column] = np.tensordot(part, weight, axes=3)
    return y


def plain_yamnet(state: dict[str, Tensor], patch: np.ndarray) -> np.ndarray:
    """Logits (521,) of one patch (96, 64), in float64."""
    values = {name: value.double().numpy() for name, value in state.items()}

    def kernel(name: str) -> np.ndarray:
        return values[f"{name}.weight"].transpose(2, 3, 1, 0)

    x = np.maximum(same_convolution(patch[..., None], kernel("stem"), 2, False) + values["stem.bias"], 0)
    for i, (stride, _) in enumerate(BLOCKS):
        deep, point = f"blocks.{i}.depthwise", f"blocks.{i}.pointwise"
        x = np.maximum(same_convolution(x, kernel(deep)[:, :, 0], stride, True) + values[f"{deep}.bias"], 0)
        x = np.maximum(x @ kernel(point)[0, 0] + values[f"{point}.bias"], 0)
    return x.mean(axis=(0, 1)) @ values["classifier.weight"].T + values["classifier.bias"]


@pytest.mark.slow
def test_the_audio_network_equals_yamnet() -> None:
    """Random weights against convolutions written out as TensorFlow defines them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = YAMNet().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2.4) if parameter.dim() == 4 else parameter.normal_(std=0.1)
    log_mel = torch.randn(1, 144, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = model(log_mel)[0]
    assert found.std() > 0.1
    for w in range(2):
        expected = plain_yamnet(model.state_dict(), log_mel[0, 48 * w : 48 * w + 96].double().numpy())
        torch.testing.assert_close(found[w].double(), torch.from_numpy(expected), rtol=1e-3, atol=1e-3)
    assert (found[0] - found[1]).abs().max() > 0.01


def test_the_packaged_audio_network_equals_tensorflow() -> None:
    """Below its classifier, which was trained further, it is YAMNet as published, rounded to fp16."""
    model = YAMNet().eval()
    model.load_state_dict(packaged_state(model, "network_a"))
    known = load_file(FIXTURE)
    with torch.inference_mode():
        assert model(known["log_mel"].unsqueeze(0)).isfinite().all()
        model.classifier.weight.copy_(known["classifier.weight"])
        model.classifier.bias.copy_(known["classifier.bias"])
        scores = model(known["log_mel"].unsqueeze(0))[0].sigmoid()
    torch.testing.assert_close(scores, known["scores"], atol=5e-3, rtol=0)


# ---- the eye


def patterns() -> Tensor:
    """Two pictures (2, 3, 224, 224) that a formula draws."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 224), torch.linspace(-1, 1, 224), indexing="ij")
    rings = (12 * (x.square() + y.square()).sqrt()).sin()
    first = torch.stack((rings, x * rings, -rings * y))
    return torch.stack((first, torch.stack(((9 * x).cos() * (7 * y).sin(), x * y, (x + y).cos()))))


@pytest.mark.slow
def test_the_packaged_image_network_equals_the_published_one() -> None:
    """To the rounding of its weights to fp16."""
    import timm  # takes long

    network = timm.create_model(
        TagEncoderConfig().network, num_classes=TagEncoderConfig.picture_classes
    ).eval()
    network.load_state_dict(packaged_state(network, "network_v"))
    known = load_file(EFFICIENTNET)["logits"]
    with torch.inference_mode():
        found = network(patterns())
    torch.testing.assert_close(found, known, atol=0.06, rtol=0)
    assert torch.equal(found.argmax(dim=1), known.argmax(dim=1))
    assert known.std() > 1


# ---- what a fresh model takes from the package


@pytest.mark.parametrize("fusion", ["evidence", "concat", "audio-only"])
def test_a_fresh_model_gets_networks_and_ties(fusion: str) -> None:
    model = tag_model(fusion)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert load_towers(model) is model
    after = model.state_dict()
    names = [name for name in after if name.split(".")[1] in NETWORKS]
    known = shared_weights([*names, TIES])
    assert len(names) > (300 if model.has_picture else 50)
    for name, value in after.items():
        assert value.dtype == before[name].dtype
        if name in names:
            assert torch.equal(value, known[name].to(value.dtype)), name
        elif not name.startswith("fusion.evidence."):
            assert torch.equal(value, before[name]), name
    if fusion == "evidence":
        assert isinstance(model.fusion, nn.Module)
        evidence: Any = model.fusion.evidence
        assert isinstance(evidence, TagEvidence)
        ties = known[TIES].float()
        assert torch.equal(evidence.ties, ties)
        assert torch.equal(evidence.affinity.detach(), ties)
        assert evidence.affinity.requires_grad
    assert not any(p.requires_grad for name, p in model.named_parameters() if name in names)


def test_packaged_ties_are_shares() -> None:
    ties = shared_weights([TIES])[TIES]
    assert ties.shape == (TagEncoderConfig.audio_classes, TagEncoderConfig.picture_classes)
    assert ((ties >= 0) & (ties <= 1)).all()
    assert (ties > 0).any(dim=0).float().mean() > 0.2  # many things sound


def test_a_network_missing_from_the_package_is_named() -> None:
    with torch.device("cpu"):
        model = CaptionModel(ModelConfig("gate", TagEncoderConfig(network="efficientnet_b0"), DECODER))
    with pytest.raises(EvacapError, match=r"no weights for encoder\.network_v") as caught:
        load_towers(model)
    assert "model.encoder.network" in caught.value.cure


# ---- checkpoints that share


@pytest.fixture
def sharing(tmp_path: Path) -> tuple[Path, CaptionModel]:
    """A checkpoint whose file lacks what the package has, and the model that it is of."""
    tokenizer = Tokenizer.train(["a b c d e f g h i j k l m n o p q r s"], DECODER.vocab_size)
    model = load_towers(tag_model("evidence"))
    lacking = [name for name in model.state_dict() if name.split(".")[1] in NETWORKS or name == TIES]
    save_checkpoint(tmp_path / "mine", model, tokenizer, {}, shared=lacking)
    return tmp_path / "mine", model


@pytest.mark.slow
def test_a_checkpoint_takes_missing_networks_from_the_package(sharing: tuple[Path, CaptionModel]) -> None:
    path, model = sharing
    kept = load_file(path / WEIGHTS)
    assert not any(name.split(".")[1] in NETWORKS for name in kept)
    assert TIES not in kept
    assert (path / WEIGHTS).stat().st_size < 4e6  # of which half is the affinity
    loaded = load_checkpoint(path).model
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    inputs = random_inputs(2)
    model.lexicon = loaded.lexicon  # no word twice in a row
    ours, theirs = (each.generate(*inputs, max_words=4) for each in (model, loaded))
    assert torch.equal(ours.tokens, theirs.tokens)
    torch.testing.assert_close(ours.score, theirs.score, rtol=0, atol=1e-4)  # in another layout of memory
    half = load_checkpoint(path, dtype=torch.bfloat16).model
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


@pytest.mark.slow
def test_networks_in_the_checkpoint_take_precedence(sharing: tuple[Path, CaptionModel]) -> None:
    path, model = sharing
    ears = torch.full_like(model.encoder.network_a.classifier.bias, 0.25)  # type: ignore[union-attr, arg-type]
    save_file(load_file(path / WEIGHTS) | {"encoder.network_a.classifier.bias": ears}, path / WEIGHTS)
    state = load_checkpoint(path).model.state_dict()
    assert torch.equal(state["encoder.network_a.classifier.bias"], ears)


@pytest.mark.slow
def test_a_checkpoint_without_sharing_must_be_complete(sharing: tuple[Path, CaptionModel]) -> None:
    path, _ = sharing
    config = yaml.safe_load((path / CONFIG).read_text("utf-8"))
    assert config.pop("shared") is True
    (path / CONFIG).write_text(yaml.safe_dump(config), "utf-8")
    with pytest.raises(EvacapError, match="does not fit its configuration"):
        load_checkpoint(path)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "cut", "lacking"])
def test_a_damaged_package_is_reported(
    damage: str, sharing: tuple[Path, CaptionModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "shared.safetensors"
    if damage == "cut":
        other.write_bytes(shared_path().read_bytes()[:1000])
    elif damage == "lacking":
        save_file({TIES: torch.zeros(521, 1000)}, other)
    monkeypatch.setattr(towers_module, "shared_path", lambda: other)
    message = "does not fit" if damage == "lacking" else "shared.safetensors: cannot be read"
    with pytest.raises(EvacapError, match=message):
        load_checkpoint(sharing[0])
    with pytest.raises(EvacapError, match="no weights for" if damage == "lacking" else "cannot be read"):
        load_towers(tag_model("audio-only"))
