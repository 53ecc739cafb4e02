"""The public AVCap code's numbers at random weights, made on small models; ours must give the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from evacap_cli.model import load_checkpoint
from evacap_cli.model.captioner import CaptionModel
from evacap_cli.model.fused import Fused
from evacap_cli.model.losses import smoothed_cross_entropy
from evacap_cli.tasks.importing import import_avcap, import_cav_mae

Record = Callable[[str, object], None]
FIXTURES = Path(__file__).parent.parent / "fixtures"
NAMES = ("avcap_1frame", "avcap_4frames", "avcap_audio_only")


class Fixture:
    """One file: sizes from its metadata, the published state, inputs and what the public code made of them."""

    def __init__(self, name: str, folder: Path) -> None:
        path = FIXTURES / f"{name}.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            self.sizes = file.metadata()
        self.input = {k.removeprefix("input."): v for k, v in tensors.items() if k.startswith("input.")}
        self.expect = {k.removeprefix("expect."): v for k, v in tensors.items() if k.startswith("expect.")}
        self.file = folder / f"{name}.pth"
        self.listens = self.sizes["mode"] == "audio_captioning"
        state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        torch.save({f"module.{k}": v for k, v in state.items()}, self.file)
        self.overrides = [
            f"model.encoder.heads={self.sizes['heads']}",
            f"model.decoder.heads={self.sizes['decoder_heads']}",
            f"model.encoder.image_size={self.sizes['image_size']}",
            f"features.image_size={self.sizes['image_size']}",
        ]
        self.imported = import_avcap(self.file, folder / name, self._vocabulary(folder / f"{name}.txt"),
                                     "audio-base" if self.listens else "avcap-base", self.overrides)  # fmt: skip
        self.model = load_checkpoint(folder / name).model

    def _vocabulary(self, path: Path) -> Path:
        """As many words as the public model had, with the special ones at their places."""
        special = {
            int(self.sizes[at]): word for at, word in (("pad", "[PAD]"), ("bos", "[CLS]"), ("eos", "[SEP]"))
        }
        special |= {3: "[UNK]", 4: "[MASK]"}
        path.write_text(
            "\n".join(special.get(i, f"w{i}") for i in range(int(self.sizes["vocab"]))) + "\n", "utf-8"
        )
        return path


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fixture]:
    folder = tmp_path_factory.mktemp("published")
    return {name: Fixture(name, folder) for name in NAMES}


@pytest.fixture(params=NAMES)
def fixture(request: pytest.FixtureRequest, fixtures: dict[str, Fixture]) -> Fixture:
    return fixtures[request.param]


def picture_of(fixture: Fixture) -> torch.Tensor:
    """(B, N, 3, S, S); the public code has (B, 3, S, S) for one frame and (B, 3, N, S, S) for more."""
    picture = fixture.input["visual"]
    return picture[:, None] if picture.dim() == 4 else picture.transpose(1, 2)


def memory_of(fixture: Fixture, model: CaptionModel) -> Fused:
    picture = model.encode_picture(picture_of(fixture)) if model.has_picture else None
    return model.fuse(model.encode_audio(fixture.input["audio"]), picture)


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.mark.slow
def test_the_import_reports_every_tensor(fixture: Fixture) -> None:
    """Left out are only norms (and, without a picture, the tower) that this path of the public model never reads."""
    imported, model = fixture.imported, fixture.model
    assert imported.counts.keys() == {"renamed", "left out"}
    assert imported.parameters == sum(p.numel() for p in model.parameters())
    taken = [row.published for row in imported.rows if row.what == "renamed"]
    left = [row.published for row in imported.rows if row.what == "left out"]
    assert len(taken) + len(left) == len(load_published(fixture))
    for name in left:
        norm = ".norm" in name
        picture = any(
            f".{part}" in name for part in ("patch_embed_v", "blocks_v", "pos_embed_v", "modality_v")
        )
        assert norm or name == "textual.output.weight" or (picture and fixture.listens), name
    assert model.has_picture != fixture.listens


def load_published(fixture: Fixture) -> dict[str, torch.Tensor]:
    return torch.load(fixture.file, weights_only=True)


@pytest.mark.slow
@torch.no_grad()
def test_encoder_features(fixture: Fixture, record_property: Record) -> None:
    model = fixture.model
    measured = error(memory_of(fixture, model).tokens, fixture.expect["av_features"])
    record_property("max_abs_error", measured)
    assert measured < 1e-4


@pytest.mark.slow
@torch.no_grad()
def test_features_of_each_modality(fixtures: dict[str, Fixture], record_property: Record) -> None:
    """Each modality alone through the shared block with its own norms: the space EVACap fuses in."""
    fixture = fixtures["avcap_1frame"]
    torch.manual_seed(0)
    model = CaptionModel(replace(fixture.model.config, fusion="cross-attention")).eval()
    import_cav_mae(fixture.file, model)
    ours = {
        "audio": model.encode_audio(fixture.input["audio"]),
        "visual": model.encode_picture(picture_of(fixture)),
    }
    errors = {name: error(ours[name], fixture.expect[f"{name}_features"]) for name in ("audio", "visual")}
    record_property("max_abs_error", errors)
    assert max(errors.values()) < 1e-4


@pytest.mark.slow
@torch.no_grad()
def test_logits_and_loss(fixture: Fixture, record_property: Record) -> None:
    model = fixture.model
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


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_beam(fixture: Fixture, cached: bool, record_property: Record) -> None:
    model = fixture.model
    steps = int(fixture.sizes["max_steps"])
    with torch.no_grad():
        memory = memory_of(fixture, model)
    out = model.decode(memory, beam=int(fixture.sizes["beam_size"]), max_words=steps - 2,
                         length_penalty=float(fixture.sizes["length_penalty"]), cached=cached)  # fmt: skip
    expected = fixture.expect["beam_tokens"]
    ended = (expected == model.eos).long().cumsum(1) > 1  # the public code pads with eos
    assert out.tokens.equal(expected.masked_fill(ended, model.pad))
    measured = error(out.beam_score[:, None], fixture.expect["beam_score"])
    record_property("beam_score_error", measured)
    assert measured < 1e-3
