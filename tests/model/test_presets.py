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
from evacap_cli.model.config import EvidenceConfig, LexiconConfig, TagEncoderConfig
from evacap_cli.model.presets import merge, preset_from_dict, resolve

BASE = [name for name in preset_names() if name.endswith("-base")]
TAGS = [name for name in preset_names() if name.endswith("-tags")]


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


def test_names_of_presets() -> None:
    assert set(BASE) == {
        "audio-base",
        "avcap-base",
        "evacap-base",
        "evacap-no-entropy-base",
        "evacap-no-gate-base",
        "evacap-no-sms-base",
        "evacap-no-sms-no-entropy-base",
        "evidence-base",
        "vact-base",
        "lavcap-base",
    }
    assert {load_preset(name).model.fusion for name in BASE} == set(FUSIONS)
    assert {name.replace("-tags", "-base") for name in TAGS} == set(BASE)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_is_consistent(name: str) -> None:
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
def test_every_base_preset_has_a_tiny_one(name: str) -> None:
    base, tiny = load_preset(name), load_preset(name.replace("-base", "-tiny"))
    assert base.model.fusion == tiny.model.fusion
    for setting in ("sms", "smoothing", "gate_stability", "consistency"):
        assert base.training[setting] == tiny.training[setting]
    assert base.training.get("match") == tiny.training.get("match")
    assert ("match" in base.training) == (base.model.fusion in ("evidence", "optimal-transport"))
    assert replace(base.model.evidence, width=1) == replace(tiny.model.evidence, width=1)
    with torch.device("meta"):
        assert parameter_counts(build_model(tiny.model))["total"] < 12e6


@pytest.mark.slow
@pytest.mark.parametrize("name", TAGS)
def test_every_tags_preset_matches_its_base_preset(name: str) -> None:
    """And differs from other arms on tags in what makes the arm."""
    base, tags = load_preset(name.replace("-tags", "-base")), load_preset(name)
    assert base.model.fusion == tags.model.fusion
    assert (base.model.towers, tags.model.towers) == ("cav-mae", "tags")
    for setting in ("sms", "smoothing", "consistency"):
        assert base.training[setting] == tags.training[setting]
    assert base.training.get("match") == tags.training.get("match")
    arm = load_preset("evacap-tags")
    assert tags.features == arm.features
    assert tags.model.encoder == arm.model.encoder
    assert (tags.model.decoder, tags.model.lexicon) == (arm.model.decoder, arm.model.lexicon)
    assert tags.model.evidence.windows == 1
    with torch.device("meta"):
        model = build_model(tags.model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained < 12e6


def test_features_of_tags_presets_fit_the_networks() -> None:
    preset = load_preset("evacap-tags")
    features, encoder = FeatureSettings.from_dict(preset.features), preset.model.encoder
    assert isinstance(encoder, TagEncoderConfig)
    assert (features.spectrogram, features.padding, features.mel_bins) == ("yamnet", "repeat", 64)
    assert (features.fbank_mean, features.fbank_std) == (0.0, 1.0)
    assert (features.audio_frames - 96) // 48 + 1 == 20
    assert 20 % encoder.windows == 0
    assert features.image_mean == pytest.approx((127 / 255,) * 3, abs=1e-6)
    assert features.image_std == pytest.approx((128 / 255,) * 3, abs=1e-6)
    assert 0 < preset.model.lexicon.confirmed < preset.model.lexicon.confidence


def test_a_configuration_of_tags_survives_a_dictionary() -> None:
    encoder = TagEncoderConfig(heard=7, seen=6, windows=4, width=64, heads=2)
    config = ModelConfig("evidence", encoder, DecoderConfig(), EvidenceConfig(), LexiconConfig(0.3, 0.1, 0.4))
    values = config.to_dict()
    assert values["towers"] == "tags"
    assert values["lexicon"] == {"confidence": 0.3, "confirmed": 0.1, "speech": 0.4}
    assert ModelConfig.from_dict(values) == config
    plain = ModelConfig().to_dict()  # of which older checkpoints know nothing
    assert not {"towers", "lexicon"} & set(plain)
    assert ModelConfig.from_dict({"towers": "tags"}) == ModelConfig(encoder=TagEncoderConfig())
    assert (encoder.audio_tokens, encoder.audio_grid, encoder.curve_grid) == (7, (7, 1), (1, 4))
    assert (encoder.frame_tokens, encoder.tokens_for(5)) == (6, 30)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": {"heard": 0}}, r"encoder\.heard: 0 is less than 1"),
        ({"encoder": {"heard": 522}}, "more than there are classes"),
        ({"encoder": {"seen": 1001}}, "more than there are classes"),
        ({"encoder": {"seen": "few"}}, r"encoder\.seen: 'few' is not a whole number"),
        ({"encoder": {"windows": 21}}, r"encoder\.windows: at most 20 in 1008 frames, got 21"),
        ({"encoder": {"windows": 2, "audio_frames": 143}}, r"at most 1 in 143 frames, got 2"),
        ({"encoder": {"windows": 0}}, r"encoder\.windows: 0 is less than 1"),
        ({"encoder": {"audio_frames": 95}}, r"encoder\.audio_frames: YAMNet takes at least 96, got 95"),
        ({"encoder": {"mel_bins": 128}}, r"encoder\.mel_bins: YAMNet takes 64, got 128"),
        ({"encoder": {"width": 30, "heads": 4}}, "divide evenly by heads, got 30 and 4"),
        ({"encoder": {"heads": 0}}, r"encoder\.heads: 0"),
        ({"encoder": {"depth": 0}}, r"encoder\.depth: 0"),
        ({"encoder": {"picture_depth": 0}}, r"encoder\.picture_depth: 0"),
        ({"encoder": {"network": 3}}, r"encoder\.network: 3 is not a word"),
        (
            {"encoder": {"audio_patch": [16, 16]}},
            r"encoder\.audio_patch: no such setting \(known: audio_frames",
        ),
        ({"encoder": {"audio_classes": 527}}, r"encoder\.audio_classes: no such setting"),
        ({"evidence": {"windows": 2}}, r"evidence\.windows: tag towers compare whole clips \(1\), got 2"),
        ({"lexicon": {"confidence": 1.0}}, r"lexicon\.confidence: 1\.0 must be at least 0 and below 1"),
        ({"lexicon": {"confirmed": -0.1}}, r"lexicon\.confirmed: -0\.1"),
        ({"lexicon": {"confidence": "nan"}}, r"lexicon\.confidence: nan"),
        (
            {"lexicon": {"certain": 0.5}},
            r"lexicon\.certain: no such setting \(known: confidence, confirmed, speech\)",
        ),
        ({"lexicon": "strict"}, "lexicon: 'strict' is not a section"),
        ({"towers": "ears"}, r"model\.towers: 'ears' is none of cav-mae, tags"),
        ({"towers": "cav-mae", "lexicon": {"confidence": 0.5}}, r"model\.lexicon: only for towers: tags"),
        ({"towers": "cav-mae", "encoder": {"heard": 5}}, r"encoder\.heard: no such setting"),
    ],
)
def test_a_wrong_setting_of_tags_is_a_usage_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_dict({"towers": "tags"} | values)


def test_the_paper_and_the_published_baseline() -> None:
    evacap, avcap = load_preset("evacap-base"), load_preset("avcap-base")
    assert evacap.model == ModelConfig("entropy-gate", EncoderConfig(), DecoderConfig())
    assert (evacap.model.encoder.tokens_for(18), evacap.features["window"]) == (3528, "hamming")
    assert (avcap.model.encoder.picture_tokens, avcap.model.encoder.frames) == ("tubelet", 8)
    assert avcap.features["window"] == "hanning"


@pytest.mark.parametrize("fusion", FUSIONS)
def test_only_evidence_presets_have_an_evidence_section(fusion: str) -> None:
    config = ModelConfig(fusion, evidence=EvidenceConfig(width=64, threshold=0.7, windows=3))
    values = config.to_dict()
    assert ("evidence" in values) == (fusion == "evidence")
    read = ModelConfig.from_dict(values)
    assert read.to_dict() == values
    if fusion == "evidence":
        assert values["evidence"] == {
            "width": 64, "threshold": 0.7, "windows": 3, "decoders": 2, "confirmation": 0.0, "confirmed_logit": 4.0
        }  # fmt: skip
        assert read == config


def test_evidence_settings_can_be_overridden() -> None:
    mine = {"base": "evidence-tiny", "model": {"evidence": {"windows": 2}}}
    preset, base = preset_from_dict("mine", resolve(mine)).model, load_preset("evidence-tiny").model
    assert preset.evidence == replace(base.evidence, windows=2)
    assert (preset.encoder, preset.decoder) == (base.encoder, base.decoder)
    assert base.encoder == load_preset("evacap-tiny").model.encoder
    assert base.encoder.audio_grid == (1, 32)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="evacap-huge") as caught:
        load_preset("evacap-huge")
    assert all(name in caught.value.cure for name in preset_names())
    with pytest.raises(UsageError):
        load_preset("../presets/evacap-base")


def test_an_unknown_section_is_named() -> None:
    with pytest.raises(UsageError, match="optimiser, tranining"):
        preset_from_dict("mine.yaml", {"tranining": {}, "optimiser": {}})


def test_settings_override_the_base_by_section() -> None:
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
        ({"encoder": {"stem": "conv", "picture_tokens": "tubelet"}}, "needs picture_tokens .frame."),
        ({"encoder": {"stem": "conv", "audio_patch": [32, 4]}}, "patch sides"),
        ({"encoder": "big"}, "encoder: 'big' is not a section"),
        ({"decoder": [1]}, r"decoder: \[1\] is not a section"),
        ({"evidence": {"confirmation": -1}}, r"evidence\.confirmation: -1\.0 must not be negative"),
        ({"evidence": {"confirmation": 1}}, r"evidence\.confirmation: 1\.0 needs tag towers"),
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
            r"evidence\.heads: no such setting \(known: width, threshold, windows, decoders, confirmation",
        ),
        ({"evidence": "yes"}, "evidence: 'yes' is not a section"),
    ],
)
def test_a_wrong_setting_is_a_usage_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_dict(values)


def test_numbers_in_yaml_notation() -> None:
    config = ModelConfig.from_dict(
        {"encoder": {"audio_patch": [32, 16], "mlp_ratio": 3}, "decoder": {"norm_eps": "1e-6"}}
    )
    assert isinstance(config.encoder, EncoderConfig)
    assert config.encoder.audio_patch == (32, 16)
    assert config.encoder.mlp_ratio == 3.0
    assert config.decoder.norm_eps == 1e-6
    assert ModelConfig.from_dict({}) == ModelConfig()
    assert ModelConfig.from_dict({"encoder": None, "decoder": None}) == ModelConfig()
