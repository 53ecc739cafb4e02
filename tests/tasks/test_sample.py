"""The built-in benchmark: its pairs, its files and the stores that are made of it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evacap_cli.features import FeatureSettings
from evacap_cli.media import SAMPLE_RATE, probe, read_audio
from evacap_cli.tasks import sample

KALDI = FeatureSettings(frames=2, fps=0.2, image_size=32)
YAMNET = FeatureSettings(
    spectrogram="yamnet",
    padding="repeat",
    mel_bins=64,
    audio_frames=1008,
    fbank_mean=0.0,
    fbank_std=1.0,
    frames=2,
    fps=0.2,
    image_size=32,
)


def test_every_pair_has_two_captions_labels_and_a_kind() -> None:
    pairs = sample.read_pairs()
    assert len(pairs) >= 48
    assert len({pair.key for pair in pairs}) == len(pairs)
    for pair in pairs:
        first, second = pair.captions
        assert first
        assert second
        assert first != second
        assert all(pair.labels)
    kinds = Counter(pair.kind for pair in pairs)
    assert kinds.keys() == {"plain", "mixed"}
    assert kinds["plain"] > 10 * kinds["mixed"]


@pytest.mark.slow
def test_every_file_is_readable_and_small() -> None:
    for pair in sample.read_pairs():
        assert pair.path is not None
        assert 0.5 <= probe(pair.path).seconds <= 6.0, pair.key
        wave = read_audio(pair.path, 0.0, 6.0)
        assert len(wave) >= SAMPLE_RATE // 2
        assert 0.01 < np.sqrt(np.mean(wave**2)) < 0.5, pair.key
        with Image.open(pair.pictures[0]) as image:
            image.load()
            assert 180 <= min(image.size) <= 320, pair.key
            assert image.mode == "RGB"
    assert sum(path.stat().st_size for path in sample.sample_folder().iterdir()) < 4.5e6


def test_the_notice_names_every_file_with_its_licence() -> None:
    folder = sample.sample_folder()
    lines = (folder / "NOTICE").read_text("utf-8").splitlines()
    media = [path.name for path in folder.iterdir() if path.suffix in (".ogg", ".jpg")]
    assert len(media) == 2 * len(sample.read_pairs())
    licence = re.compile(r"CC-BY|CC0|GPL|Licence Art Libre|public domain|no known copyright restrictions")
    for name in media:
        (line,) = (line for line in lines if line.startswith(f"{name}: "))
        assert ", by " in line
        assert licence.search(line), line


@pytest.mark.parametrize("settings", [KALDI, YAMNET], ids=["kaldi", "yamnet"])
def test_a_store_for_any_features(
    settings: FeatureSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVACAP_CACHE", str(tmp_path))
    pairs = sample.read_pairs()
    few = [pairs[0], next(pair for pair in pairs if pair.kind == "mixed")]
    monkeypatch.setattr(sample, "read_pairs", lambda: few)
    store = sample.sample_store(settings, workers=0)
    assert store.keys == [pair.key for pair in few]
    assert [store.extra(i)["kind"] for i in range(2)] == ["plain", "mixed"]
    assert store.extra(0)["sounds"] == list(few[0].labels)
    made = sorted(path.name for path in tmp_path.glob("sample-*"))
    assert len(made) == 1
    assert settings.fingerprint() in made[0]
    clip = sample.load_pair(few[0], sample.ClipSettings(settings))
    assert clip.fbank.shape == (settings.audio_frames, settings.mel_bins)
    assert clip.frames is not None
    assert clip.frames.shape == (2, 3, 32, 32)
    sample.sample_store(settings, workers=0)  # found, not made again
    assert sorted(path.name for path in tmp_path.glob("sample-*")) == made
