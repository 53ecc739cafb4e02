"""Presets and the configurations they make."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.model import (
    FUSIONS,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    build_model,
    load_preset,
    parameter_counts,
    preset_names,
)
from evacap_cli.model.config import EvidenceConfig
from evacap_cli.model.presets import merge, preset_from_dict, resolve

BASE = [name for name in preset_names() if name.endswith("-base")]


@pytest.mark.parametrize(
    ("preset", "millions", "printed"),
    [("audio-base", 153.43, 153), ("avcap-base", 233.18, 233), ("evacap-base", 234.51, 235)],
)
def test_parameters_are_those_of_table_1(preset: str, millions: float, printed: int) -> None:
    with torch.device("meta"):
        model = build_model(load_preset(preset).model)
    counts = parameter_counts(model)
    total = counts.pop("total")
    assert total == sum(counts.values()) == sum(p.numel() for p in model.parameters())
    assert round(total / 1e6, 2) == millions
    assert round(total / 1e6) == printed
    assert (counts["picture tower"] == 0) == (preset == "audio-base")
    gate = 2 if preset == "evacap-base" else 0
    assert counts["fusion"] == (4 * (768**2 + 768) + gate if preset == "evacap-base" else 0)


def test_the_names() -> None:
    assert set(BASE) == {
        "audio-base",
        "avcap-base",
        "evacap-base",
        "evacap-no-entropy-base",
        "evacap-no-gate-base",
        "evacap-no-sms-base",
        "evacap-no-sms-no-entropy-base",
        "evidence-base",
    }
    assert {load_preset(name).model.fusion for name in BASE} == set(FUSIONS)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_agrees_with_itself(name: str) -> None:
    """Model and features are of one size, training knows what to do, and all survive a checkpoint's YAML."""
    preset = load_preset(name)
    size, features = preset.model.encoder, FeatureSettings.from_dict(preset.features)
    assert preset.name == name
    assert preset.about
    assert ModelConfig.from_dict(preset.model.to_dict()) == preset.model
    assert (features.audio_frames, features.mel_bins) == (size.audio_frames, size.mel_bins)
    assert (features.frames, features.image_size) == (size.frames, size.image_size)
    assert features.frames / features.fps <= features.seconds
    assert preset.model.decoder.positions > 42  # bos, 40 words, eos
    for setting in ("epochs", "batch_size", "lr", "sms", "smoothing", "gate_stability", "consistency"):
        assert setting in preset.training
    shuffled = name.startswith("evacap") and "no-sms" not in name and "no-gate" not in name
    assert preset.training["sms"] == (0.05 if shuffled else 0.0)


@pytest.mark.parametrize("name", BASE)
def test_every_base_preset_has_a_small_one_of_its_kind(name: str) -> None:
    base, tiny = load_preset(name), load_preset(name.replace("-base", "-tiny"))
    assert base.model.fusion == tiny.model.fusion
    for setting in ("sms", "smoothing", "gate_stability", "consistency"):
        assert base.training[setting] == tiny.training[setting]
    assert base.training.get("match") == tiny.training.get("match")
    assert ("match" in base.training) == (base.model.fusion == "evidence")
    assert replace(base.model.evidence, width=1) == replace(tiny.model.evidence, width=1)
    with torch.device("meta"):
        assert parameter_counts(build_model(tiny.model))["total"] < 12e6


def test_the_paper_and_the_published_baseline() -> None:
    evacap, avcap = load_preset("evacap-base"), load_preset("avcap-base")
    assert evacap.model == ModelConfig("entropy-gate", EncoderConfig(), DecoderConfig())
    assert (evacap.model.encoder.tokens_for(18), evacap.features["window"]) == (3528, "hamming")
    assert (avcap.model.encoder.picture_tokens, avcap.model.encoder.frames) == ("tubelet", 8)
    assert avcap.features["window"] == "hanning"


@pytest.mark.parametrize("fusion", FUSIONS)
def test_only_what_compares_has_a_section_on_evidence(fusion: str) -> None:
    config = ModelConfig(fusion, evidence=EvidenceConfig(width=64, threshold=0.7, windows=3))
    values = config.to_dict()
    assert ("evidence" in values) == (fusion == "evidence")
    read = ModelConfig.from_dict(values)
    assert read.to_dict() == values
    if fusion == "evidence":
        assert values["evidence"] == {"width": 64, "threshold": 0.7, "windows": 3, "decoders": 2}
        assert read == config


def test_the_switch_is_overridden_as_other_settings() -> None:
    mine = {"base": "evidence-tiny", "model": {"evidence": {"windows": 2}}}
    preset, base = preset_from_dict("mine", resolve(mine)).model, load_preset("evidence-tiny").model
    assert preset.evidence == replace(base.evidence, windows=2)
    assert (preset.encoder, preset.decoder) == (base.encoder, base.decoder)
    assert base.encoder == load_preset("evacap-tiny").model.encoder
    assert base.encoder.audio_grid == (1, 32)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="evacap-huge") as caught:
        load_preset("evacap-huge")
    assert all(name in caught.value.cure for name in preset_names())
    with pytest.raises(UsageError):
        load_preset("../presets/evacap-base")


def test_an_unknown_section_is_named() -> None:
    with pytest.raises(UsageError, match="optimiser, tranining"):
        preset_from_dict("mine.yaml", {"tranining": {}, "optimiser": {}})


def test_settings_are_laid_over_the_base_section_by_section() -> None:
    mine = {"base": "evacap-tiny", "model": {"encoder": {"depth": 2}}, "training": {"lr": 5e-4}}
    preset, base = preset_from_dict("mine", resolve(mine)), load_preset("evacap-tiny")
    assert preset.model.encoder.depth == 2
    assert preset.model.encoder.width == base.model.encoder.width
    assert preset.training == base.training | {"lr": 5e-4}
    assert preset.features == base.features
    below = {"a": {"b": 1}}
    assert merge(below, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert below == {"a": {"b": 1}}


def test_every_problem_is_reported_at_once() -> None:
    """Of every section, whether it is a name, a type or a size."""
    wrong = {
        "fusion": "glue",
        "colour": 1,
        "encoder": {"width": 770, "image_size": 225, "picture_tokens": "cubes", "frames": 0},
        "decoder": {"layers": "six", "depth": 3, "dropout": "much"},
        "evidence": {"threshold": 2, "windows": 0, "decoders": 3},
    }
    with pytest.raises(UsageError) as caught:
        ModelConfig.from_dict(wrong)
    message = caught.value.message
    for part in ("glue", "model.colour", "width", "225", "'cubes'", "frames"):
        assert part in message
    for part in ("decoder.layers: 'six'", "decoder.depth", "known: vocab_size", "decoder.dropout: 'much'"):
        assert part in message
    for part in ("evidence.threshold: 2.0", "evidence.windows: 0", "evidence.decoders: 3"):
        assert part in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": {"heads": 0}}, "width by heads"),
        ({"decoder": {"heads": 0}}, r"decoder\.heads: 0"),
        ({"decoder": {"heads": 5}}, "no multiple of heads 5"),
        ({"decoder": {"layers": 0}}, r"decoder\.layers: 0"),
        ({"encoder": {"audio_patch": [16]}}, r"encoder\.audio_patch: \[16\] is not 2 whole numbers"),
        ({"encoder": {"audio_patch": "16x16"}}, "audio_patch"),
        ({"encoder": {"audio_patch": [0, 16]}}, r"audio_patch\[0\]"),
        ({"encoder": {"picture_depth": "few"}}, "picture_depth"),
        ({"encoder": {"stem": 3}}, r"encoder\.stem"),
        ({"encoder": {"frames": True}}, r"encoder\.frames"),
        ({"encoder": {"mlp_ratio": [4]}}, "mlp_ratio"),
        ({"encoder": {"frames": 5, "picture_tokens": "tubelet"}}, "in pairs"),
        ({"encoder": {"stem": "conv", "picture_tokens": "tubelet"}}, "single frames"),
        ({"encoder": {"stem": "conv", "audio_patch": [32, 4]}}, "patch sides"),
        ({"encoder": "big"}, "encoder: 'big' is not a section"),
        ({"decoder": [1]}, r"decoder: \[1\] is not a section"),
        ({"evidence": {"threshold": 2}}, r"evidence\.threshold: 2\.0 must be between 0 and 1"),
        ({"evidence": {"threshold": -0.1}}, r"evidence\.threshold: -0\.1"),
        ({"evidence": {"threshold": "nan"}}, r"evidence\.threshold: nan"),
        ({"evidence": {"threshold": "half"}}, r"evidence\.threshold: 'half' is not a number"),
        ({"evidence": {"windows": 0}}, r"evidence\.windows: 0 is less than 1"),
        ({"evidence": {"windows": 1.5}}, r"evidence\.windows: 1\.5 is not a whole number"),
        ({"evidence": {"decoders": 3}}, r"evidence\.decoders: 3 is neither 1 nor 2"),
        ({"evidence": {"decoders": 0}}, r"evidence\.decoders: 0 is neither"),
        ({"evidence": {"decoders": "two"}}, r"evidence\.decoders: 'two' is not a whole number"),
        ({"evidence": {"width": 0}}, r"evidence\.width: 0"),
        (
            {"evidence": {"heads": 2}},
            r"evidence\.heads: no such setting \(known: width, threshold, windows, decoders\)",
        ),
        ({"evidence": "yes"}, "evidence: 'yes' is not a section"),
    ],
)
def test_a_wrong_setting_is_a_usage_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_dict(values)


def test_numbers_as_yaml_writes_them() -> None:
    config = ModelConfig.from_dict(
        {"encoder": {"audio_patch": [32, 16], "mlp_ratio": 3}, "decoder": {"norm_eps": "1e-6"}}
    )
    assert config.encoder.audio_patch == (32, 16)
    assert config.encoder.mlp_ratio == 3.0
    assert config.decoder.norm_eps == 1e-6
    assert ModelConfig.from_dict({}) == ModelConfig()
    assert ModelConfig.from_dict({"encoder": None, "decoder": None}) == ModelConfig()
