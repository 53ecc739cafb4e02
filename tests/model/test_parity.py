"""The public AVCap code's numbers at random weights, made on small models; ours must give the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from evacap_cli.model import DecoderConfig, EncoderConfig, ModelConfig
from evacap_cli.model.captioner import CaptionModel
from evacap_cli.model.fusion import Fused
from evacap_cli.model.losses import smoothed_cross_entropy
from evacap_cli.model.published import from_published

Record = Callable[[str, object], None]
FIXTURES = Path(__file__).parent.parent / "fixtures"
NAMES = ("avcap_1frame", "avcap_4frames", "avcap_audio_only")


class Fixture:
    """One file: sizes from its metadata, the published state, inputs and what the public code made of them."""

    def __init__(self, name: str) -> None:
        path = FIXTURES / f"{name}.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            self.sizes = file.metadata()
        self.state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        self.input = {k.removeprefix("input."): v for k, v in tensors.items() if k.startswith("input.")}
        self.expect = {k.removeprefix("expect."): v for k, v in tensors.items() if k.startswith("expect.")}

    def model(self, fusion: str, fresh: tuple[str, ...] = ()) -> CaptionModel:
        """Ours with the published state, loaded strictly but for parts named in `fresh`, which it does not have."""
        size = {k: int(v) for k, v in self.sizes.items() if v.isdigit()}
        config = ModelConfig(
            fusion=fusion,
            encoder=EncoderConfig(
                audio_frames=size["audio_frames"],
                mel_bins=size["mel_bins"],
                image_size=size["image_size"],
                frames=size["frames"],
                picture_tokens="tubelet",
                width=size["embed_dim"],
                depth=size["modality_depth"],
                shared_depth=size["unified_depth"],
                heads=size["heads"],
                tag_classes=0,
            ),
            decoder=DecoderConfig(
                vocab_size=size["vocab"],
                width=size["decoder_hidden"],
                layers=size["decoder_layers"],
                heads=size["decoder_heads"],
                feedforward=size["decoder_feedforward"],
                positions=size["max_caption_length"],
            ),
        )
        model = CaptionModel(config, bos=size["bos"], eos=size["eos"], pad=size["pad"]).eval()
        state = from_published(self.state)
        self.unread = set(state) - set(model.state_dict())
        state = {k: v for k, v in state.items() if k not in self.unread}
        own = {k: v for k, v in model.state_dict().items() if k.startswith(fresh or ("none",))}
        model.load_state_dict({**state, **own}, strict=True)  # nothing missing
        return model


@pytest.fixture(params=NAMES)
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return Fixture(request.param)


def fusion_of(fixture: Fixture) -> str:
    return "audio-only" if fixture.sizes["mode"] == "audio_captioning" else "concat"


def picture_of(fixture: Fixture) -> torch.Tensor:
    """(B, N, 3, S, S); the public code has (B, 3, S, S) for one frame and (B, 3, N, S, S) for more."""
    picture = fixture.input["visual"]
    return picture[:, None] if picture.dim() == 4 else picture.transpose(1, 2)


def memory_of(fixture: Fixture, model: CaptionModel) -> Fused:
    picture = model.encode_picture(picture_of(fixture)) if model.has_picture else None
    return model.fuse(model.encode_audio(fixture.input["audio"]), picture)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def test_state_dict_names_leave_only_other_paths_behind(fixture: Fixture) -> None:
    """Left over are only norms (and, without a picture, the tower) that this path of the public model never reads."""
    model = fixture.model(fusion_of(fixture))
    if model.has_picture:
        assert {name.split(".")[-2] for name in fixture.unread} == {"a", "v"}
    else:
        picture = ("encoder.patch_embed_v", "encoder.blocks_v", "encoder.pos_embed_v", "encoder.modality_v")
        assert all(n.startswith(picture) or n.split(".")[-2] in ("v", "joint") for n in fixture.unread)


@torch.no_grad()
def test_encoder_features(fixture: Fixture, record_property: Record) -> None:
    model = fixture.model(fusion_of(fixture))
    measured = error(memory_of(fixture, model).tokens, fixture.expect["av_features"])
    record_property("max_abs_error", measured)
    assert measured < 1e-4


@torch.no_grad()
def test_features_of_each_modality(record_property: Record) -> None:
    """Each modality alone through the shared block with its own norms: the space EVACap fuses in."""
    fixture = Fixture("avcap_1frame")
    model = fixture.model("cross-attention", fresh=("fusion.",))
    ours = {
        "audio": model.encode_audio(fixture.input["audio"]),
        "visual": model.encode_picture(picture_of(fixture)),
    }
    errors = {name: error(ours[name], fixture.expect[f"{name}_features"]) for name in ("audio", "visual")}
    record_property("max_abs_error", errors)
    assert max(errors.values()) < 1e-4


@torch.no_grad()
def test_logits_and_loss(fixture: Fixture, record_property: Record) -> None:
    model = fixture.model(fusion_of(fixture))
    tokens, wanted = fixture.input["tokens"], fixture.input["need_predict"].bool()
    logits = model.logits(memory_of(fixture, model), tokens)
    measured = error(logits, fixture.expect["logits"])
    record_property("max_abs_error", measured)
    assert measured < 1e-4
    rows = wanted[:, 1:]
    loss = smoothed_cross_entropy(
        logits[:, :-1][rows], tokens[:, 1:][rows], float(fixture.sizes["label_smoothing"])
    )
    record_property("loss_error", error(loss, fixture.expect["loss"]))
    assert error(loss, fixture.expect["loss"]) < 1e-5


@pytest.mark.parametrize("cached", [True, False])
def test_beam(fixture: Fixture, cached: bool, record_property: Record) -> None:
    model = fixture.model(fusion_of(fixture))
    steps = int(fixture.sizes["max_steps"])
    with torch.no_grad():
        memory = memory_of(fixture, model)
    out = model.describe(memory, beam=int(fixture.sizes["beam_size"]), max_words=steps - 2,
                         length_penalty=float(fixture.sizes["length_penalty"]), cached=cached)  # fmt: skip
    expected = fixture.expect["beam_tokens"]
    ended = (expected == model.eos).long().cumsum(1) > 1  # the public code pads with eos
    assert out.tokens.equal(expected.masked_fill(ended, model.pad))
    measured = error(out.beam_score[:, None], fixture.expect["beam_score"])
    record_property("beam_score_error", measured)
    assert measured < 1e-3
