"""The training loop on a world of four colours and four tones that anyone can learn."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.model import (
    CaptionModel,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    Tokenizer,
    load_checkpoint,
)
from evacap_cli.tasks.training import TrainSettings, encode_captions, fit, learning_rate

WORDS = ("a dog barks", "rain falls on a roof", "a bell rings twice", "an engine idles")
FEATURES = FeatureSettings(mel_bins=32, audio_frames=64, image_size=32, frames=2, fps=0.2)
SETTINGS = TrainSettings(epochs=4, batch_size=8, lr=3e-3, warmup_epochs=0.5, betas=(0.9, 0.99), weight_decay=0.01,
                         freq_mask=2, time_mask=4, noise=False, sms=0.3, save_every=5, log_every=1)  # fmt: skip


class Colours:
    """Clip i has the tone and the colour of class i % 4."""

    towers = False

    def __init__(self, size: int = 40) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def captions(self, index: int) -> list[str]:
        return [WORDS[index % 4]]

    def batch(self, rows, device, augment=None):
        fbank, pixels = torch.zeros(len(rows), 64, 32), torch.zeros(len(rows), 2, 3, 32, 32)
        for place, row in enumerate(rows):
            fbank[place, :, row % 4 * 8 : row % 4 * 8 + 8] = 2.0
            pixels[place, :, row % 3, row % 4 * 8 : row % 4 * 8 + 8] = 2.0
        return fbank, pixels, None


def small_model(tokenizer: Tokenizer, fusion: str = "entropy-gate", seed: int = 0) -> CaptionModel:
    torch.manual_seed(seed)
    encoder = EncoderConfig(audio_frames=64, mel_bins=32, image_size=32, frames=2, width=32, depth=1, heads=2,
                            tag_classes=0)  # fmt: skip
    decoder = DecoderConfig(
        vocab_size=len(tokenizer), width=32, layers=1, heads=2, feedforward=64, positions=32
    )
    return CaptionModel(ModelConfig(fusion, encoder, decoder))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(WORDS, 200)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_learns_and_keeps_a_checkpoint_that_captions(tokenizer: Tokenizer, tmp_path: Path) -> None:
    settings = TrainSettings.from_dict({**vars(SETTINGS), "epochs": 40, "sms": 0.0})
    data = Colours()
    summary = fit(
        small_model(tokenizer), tokenizer, data, settings, FEATURES, tmp_path, validation=Colours(8)
    )
    log = log_of(tmp_path)
    assert log[-1]["caption"] < 0.25 * log[0]["caption"]
    lowest = min(line["validation"] for line in log if "validation" in line)
    assert summary["best_validation"] == pytest.approx(lowest, abs=1e-6)
    kept = load_checkpoint(tmp_path / "best")
    fbank, pixels, _ = data.batch(range(4), None)
    said = [kept.tokenizer.decode(t.tolist()) for t in kept.model.generate(fbank, pixels).tokens]
    assert said == list(WORDS)
    assert kept.features == FEATURES.to_dict()
    assert kept.metadata["training"]["lr"] == SETTINGS.lr


def test_stopped_and_resumed_gives_the_same_curve_and_weights(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    model = small_model(tokenizer)
    fit(model, tokenizer, Colours(), SETTINGS, FEATURES, whole, validation=Colours(8))

    class Stop(Exception):
        pass

    def stop(progress) -> None:
        if progress.step == 12:
            raise Stop

    with pytest.raises(Stop):
        fit(
            small_model(tokenizer), tokenizer, Colours(), SETTINGS, FEATURES, parts, Colours(8), progress=stop
        )
    resumed = small_model(tokenizer, seed=99)  # its weights must come from the save
    fit(resumed, tokenizer, Colours(), SETTINGS, FEATURES, parts, validation=Colours(8))
    curve = {line["step"]: line["caption"] for line in log_of(parts)}
    assert curve == {line["step"]: line["caption"] for line in log_of(whole)}
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_other_settings_are_not_mixed_into_a_run(tokenizer: Tokenizer, tmp_path: Path) -> None:
    fit(small_model(tokenizer), tokenizer, Colours(8), SETTINGS, FEATURES, tmp_path)
    other = TrainSettings.from_dict({**vars(SETTINGS), "lr": 1e-5})
    with pytest.raises(EvacapError, match=r"lr was 0.003, is 1e-05"):
        fit(small_model(tokenizer), tokenizer, Colours(8), other, FEATURES, tmp_path)


def test_reports_what_shuffling_did(tokenizer: Tokenizer, tmp_path: Path) -> None:
    fit(small_model(tokenizer), tokenizer, Colours(), SETTINGS, FEATURES, tmp_path)
    log = log_of(tmp_path)
    assert sum(line["shuffled"] for line in log) > 0
    assert all(("gate_shuffled" in line) == (line["shuffled"] > 0) for line in log)
    assert all("consistency" in line for line in log if line["shuffled"] > 0)


@pytest.mark.parametrize("fusion", ["concat", "audio-only", "gate", "cross-attention"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_fusion_trains(tokenizer: Tokenizer, tmp_path: Path, fusion: str, precision: str) -> None:
    settings = TrainSettings.from_dict({**vars(SETTINGS), "epochs": 6, "precision": precision})
    fit(small_model(tokenizer, fusion), tokenizer, Colours(), settings, FEATURES, tmp_path)
    log = log_of(tmp_path)
    assert log[-1]["caption"] < log[0]["caption"]


def test_frozen_parts_stay(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = small_model(tokenizer)
    model.encoder.requires_grad_(False)
    before = [p.clone() for p in model.encoder.parameters()]
    fit(model, tokenizer, Colours(8), SETTINGS, FEATURES, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, model.encoder.parameters(), strict=True))


def test_schedule_warms_up_and_ends_where_it_should() -> None:
    s = TrainSettings(warmup_epochs=1, epochs=10)
    rates = [learning_rate(i, 1000, 100, s) for i in range(1000)]
    assert rates[0] == s.start_lr
    assert rates[100] == pytest.approx(s.lr)
    assert max(rates) == pytest.approx(s.lr)
    assert rates[-1] == pytest.approx(s.final_lr, rel=0.05)
    assert all(a > b for a, b in itertools.pairwise(rates[100:]))


def test_captions_become_tokens_and_targets(tokenizer: Tokenizer) -> None:
    tokens, wanted = encode_captions(tokenizer, ["a dog barks", "rain falls on a roof"], 40)
    assert tokens[:, 0].tolist() == [tokenizer.bos] * 2
    assert tokens[0, 4] == tokenizer.eos
    assert wanted.sum(dim=1).tolist() == [4, 6]
    assert not wanted[:, 0].any()


def test_wrong_settings_are_all_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        TrainSettings.from_dict({"lr": "fast", "sms": 1.5, "epoch": 3, "precision": "int3", "batch_size": 0})
    for word in ("lr", "sms", "epoch", "precision", "batch_size"):
        assert f"training.{word}" in caught.value.message
