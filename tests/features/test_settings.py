from __future__ import annotations

import dataclasses
import json
import pickle

import pytest

from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings


def test_survives_json() -> None:
    settings = FeatureSettings(window="hanning", frames=8, image_mean=(0.5, 0.5, 0.5))
    assert FeatureSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert FeatureSettings.from_dict({}) == FeatureSettings()
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(FeatureSettings.from_dict(settings.to_dict()))


def test_unknown_names_are_reported() -> None:
    with pytest.raises(UsageError, match="hop, mels") as caught:
        FeatureSettings.from_dict({"mels": 64, "window": "hanning", "hop": 1})
    assert "mel_bins" in caught.value.cure


def test_all_wrong_values_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        FeatureSettings(window="kaiser", fps=0, frames=-1, spectrogram="linear", padding="edge")
    parts = ["'kaiser'", "hamming, hanning", "fps = 0", "frames = -1"]
    for part in [*parts, "'linear'", "kaldi, yamnet", "'edge'", "zero, repeat"]:
        assert part in caught.value.message


def test_fingerprint_changes_with_every_setting() -> None:
    settings = FeatureSettings()
    others = {
        "window": "hanning",
        "image_mean": (0.1, 0.2, 0.3),
        "image_std": (0.1, 0.2, 0.3),
        "spectrogram": "yamnet",
        "padding": "repeat",
    }
    prints = {settings.fingerprint()}
    for field in dataclasses.fields(settings):
        value = others.get(field.name) or getattr(settings, field.name) + 1
        prints.add(dataclasses.replace(settings, **{field.name: value}).fingerprint())
    assert len(prints) == len(dataclasses.fields(settings)) + 1
    assert all(len(fingerprint) == 12 for fingerprint in prints)


def test_fingerprint_ignores_number_notation() -> None:
    assert FeatureSettings(seconds=10, fps=2).fingerprint() == FeatureSettings().fingerprint()


def test_later_settings_keep_old_fingerprints() -> None:
    """Stores and checkpoints that were made without `spectrogram` and `padding` stay valid."""
    assert FeatureSettings().fingerprint() == "f3c788753966"
    assert not {"spectrogram", "padding"} & set(FeatureSettings().to_dict())
    settings = FeatureSettings(spectrogram="yamnet", padding="repeat")
    assert FeatureSettings.from_dict(settings.to_dict()) == settings
    assert settings.to_dict()["spectrogram"] == "yamnet"
    assert settings.to_dict()["padding"] == "repeat"
