"""Checkpoint folders: a loaded checkpoint equals the saved one, and damage is reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import (
    FUSIONS,
    CaptionModel,
    ModelConfig,
    Tokenizer,
    load_checkpoint,
    packaged_models,
    resolve_model,
    save_checkpoint,
)
from evacap_cli.model.checkpoint import CARD, CONFIG, TOKENIZER, WEIGHTS, export_checkpoint
from evacap_cli.model.config import EvidenceConfig

from .samples import DECODER, ENCODER, fresh_model, random_clips, random_model

FEATURES = {"frames": 3, "window": "hamming"}


def tokenizer_of() -> Tokenizer:
    return Tokenizer.train(["a b c d e f g h i j k l m n o p q r s"], DECODER.vocab_size)


def saved(
    folder: Path, fusion: str = "entropy-gate", dtype: torch.dtype | None = None
) -> tuple[Path, CaptionModel]:
    model = random_model(fusion, 9)
    save_checkpoint(folder / "mine", model, tokenizer_of(), FEATURES, {"über": "🐕", "epoch": 3}, dtype)
    return folder / "mine", model


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_loaded_model_gives_the_same_captions(fusion: str, tmp_path: Path) -> None:
    path, model = saved(tmp_path, fusion)
    loaded = load_checkpoint(path)
    fbank, pixels = random_clips(4, 9)
    ours, theirs = model.generate(fbank, pixels), loaded.model.generate(fbank, pixels)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.score, theirs.score)
    assert loaded.model.config == model.config
    assert not loaded.model.training
    assert (loaded.name, loaded.path, loaded.features) == ("mine", path, FEATURES)
    assert loaded.metadata == {"über": "🐕", "epoch": 3}
    assert [loaded.tokenizer.decode(row) for row in theirs.tokens.tolist()]
    assert not any(p.is_meta for p in loaded.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("decoders", [1, 2])
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_checkpoint_keeps_the_calibration_of_a_switch(
    decoders: int, single: bool, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    """Its settings, weights and bias, and what it says with each decoder, as a folder and as one file."""
    encoder = replace(ENCODER, tag_classes=5)
    switch = EvidenceConfig(width=24, threshold=0.375, windows=2, decoders=decoders)
    config = ModelConfig("evidence", encoder, DECODER, switch)
    torch.manual_seed(0)
    model: Any = CaptionModel(config).eval()
    evidence = model.fusion.evidence
    with torch.no_grad():
        evidence.weights.copy_(torch.tensor([1.5, -2.0, 0.25, 0.5]))
        evidence.bias.fill_(0.5)
        for decoder in model.decoders[1:]:  # which began as the first did
            decoder.output_bias.normal_()
    save_checkpoint(tmp_path / "mine", model, tokenizer_of(), FEATURES, dtype=None if single else dtype)
    path = tmp_path / "mine"
    if single:
        path = tmp_path / "one.safetensors"
        export_checkpoint(load_checkpoint(tmp_path / "mine"), path, dtype)
    loaded: Any = load_checkpoint(path).model
    assert loaded.config == config
    assert loaded.cues == ("cosine", "best", "matcher", "tags")
    assert loaded.fusion.evidence.weights.tolist() == [1.5, -2.0, 0.25, 0.5]
    assert loaded.fusion.evidence.bias.item() == 0.5
    assert len(loaded.decoders) == decoders
    for name, value in model.state_dict().items():
        kept = value if dtype is None else value.to(dtype).float()
        assert torch.equal(loaded.state_dict()[name], kept), name
    ours, theirs = (each.generate(*random_clips(4, 9)) for each in (model, loaded))
    assert ours.evidence.isfinite().all()
    assert ours.evidence.std() > 1e-4
    tolerance = 0.0 if dtype is None else 5e-3
    torch.testing.assert_close(theirs.evidence, ours.evidence, rtol=0, atol=tolerance)
    if dtype is None:
        assert torch.equal(theirs.cues, ours.cues)
        assert torch.equal(theirs.tokens, ours.tokens)


def test_the_folder_has_the_documented_files(tmp_path: Path) -> None:
    path, model = saved(tmp_path)
    assert {file.name for file in path.iterdir()} == {CONFIG, WEIGHTS, TOKENIZER, CARD}
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]  # nothing is left beside it
    assert set(load_file(path / WEIGHTS)) == set(model.state_dict())
    config = yaml.safe_load((path / CONFIG).read_text("utf-8"))
    assert set(config) == {"model", "features", "metadata"}
    assert config["model"]["encoder"]["audio_patch"] == [16, 16]


def test_a_half_precision_file_is_half_as_large_and_captions(tmp_path: Path) -> None:
    full, model = saved(tmp_path / "full")
    half, _ = saved(tmp_path / "half", dtype=torch.float16)
    assert (half / WEIGHTS).stat().st_size < 0.6 * (full / WEIGHTS).stat().st_size
    assert {t.dtype for t in load_file(half / WEIGHTS).values()} == {torch.float16}
    loaded = load_checkpoint(half).model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # what was saved is not changed
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())
    out = loaded.generate(*random_clips(2))
    assert out.score.isfinite().all()


@pytest.mark.parametrize("fusion", ["entropy-gate", "evidence"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_can_be_loaded_in_half_precision(fusion: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """And then take features in full precision, as they come."""
    loaded = load_checkpoint(saved(tmp_path, fusion)[0], dtype=dtype).model
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert loaded.generate(*random_clips(2)).score.isfinite().all()


def test_a_second_save_replaces_the_first(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    (path / "old note").write_text("from before")
    other = fresh_model("gate", 3)
    save_checkpoint(path, other, tokenizer_of(), {})
    loaded = load_checkpoint(path)
    assert loaded.model.config.fusion == "gate"
    assert torch.equal(loaded.model.decoder.words.weight, other.decoder.words.weight)
    assert not (path / "old note").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_leftovers_of_an_interrupted_save_do_no_harm(tmp_path: Path) -> None:
    for name in ("mine.tmp", "mine.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / WEIGHTS).write_bytes(b"half of it")
    path, model = saved(tmp_path)
    assert torch.equal(load_checkpoint(path).model.decoder.words.weight, model.decoder.words.weight)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_save_stopped_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    path, model = saved(tmp_path)
    (path / "deep" / "deeper").mkdir(parents=True)
    path.rename(path.with_name("mine.old"))  # as far as it came
    assert torch.equal(load_checkpoint(path).model.decoder.words.weight, model.decoder.words.weight)
    save_checkpoint(path, fresh_model("gate", 3), tokenizer_of(), FEATURES)
    assert load_checkpoint(path).model.config.fusion == "gate"
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_the_model_uses_the_special_tokens_of_the_tokenizer(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    text = (path / TOKENIZER).read_text("utf-8").replace("[BOS]", "[CLS]").replace("[EOS]", "[SEP]")
    (path / TOKENIZER).write_text(text, "utf-8")
    loaded = load_checkpoint(path)
    assert (loaded.model.bos, loaded.model.eos, loaded.model.pad) == (1, 2, 0)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, TOKENIZER])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    (path / name).unlink()
    with pytest.raises(EvacapError, match=f"not a checkpoint: {name} missing"):
        load_checkpoint(path)


def test_a_folder_that_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvacapError, match=f"{CONFIG}, {WEIGHTS}, {TOKENIZER}"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_damaged_weights_are_reported(keep: int, tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[:keep])
    with pytest.raises(EvacapError, match="damaged checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: [", "damaged checkpoint"),
        (b"\xff\xfe\x00\x01", "damaged checkpoint"),
        (b"", "no section `model`"),
        (b"just words", "no section `model`"),
        (b"features: {}", "no section `model`"),
        (b"model: []", "no section `model`"),
        (b"model: {fusion: glue}", "glue"),
    ],
)
def test_a_damaged_configuration_is_reported(content: bytes, message: str, tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    (path / CONFIG).write_bytes(content)
    with pytest.raises(EvacapError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("section", "setting", "value"),
    [("encoder", "width", 64), ("encoder", "depth", 2), ("decoder", "vocab_size", 9)],
)
def test_weights_that_do_not_fit_the_configuration(
    section: str, setting: str, value: int, tmp_path: Path
) -> None:
    path, _ = saved(tmp_path)
    config = yaml.safe_load((path / CONFIG).read_text("utf-8"))
    config["model"][section][setting] = value
    (path / CONFIG).write_text(yaml.safe_dump(config), "utf-8")
    with pytest.raises(EvacapError, match="does not fit its configuration"):
        load_checkpoint(path)


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="--model no/such/model") as caught:
        resolve_model("no/such/model")
    assert all(name in caught.value.cure for name in packaged_models())


def test_packaged_names_and_folders_are_resolved(tmp_path: Path) -> None:
    assert resolve_model(tmp_path) == tmp_path
    assert resolve_model(str(tmp_path)) == tmp_path
    for name in packaged_models():
        assert (resolve_model(name) / CONFIG).is_file()


def test_a_folder_named_like_a_packaged_model_hides_it_only_as_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = packaged_models()[0]
    Path(name).mkdir()
    assert resolve_model(name).is_absolute()
    (Path(name) / CONFIG).touch()
    assert resolve_model(name) == Path(name)
