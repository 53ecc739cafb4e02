"""A world of four colours and four tones that anyone can learn, and a model small enough to do so at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel, DecoderConfig, EncoderConfig, ModelConfig, Tokenizer
from evacap_cli.tasks.batches import Augmentation, Batch, pick_caption
from evacap_cli.tasks.training import TrainSettings

WORDS = ("a dog barks", "rain falls on a roof", "a bell rings twice", "an engine idles")
FEATURES = FeatureSettings(mel_bins=32, audio_frames=64, image_size=32, frames=2, fps=0.2)
SETTINGS = TrainSettings(epochs=4, batch_size=8, lr=3e-3, warmup_epochs=0.5, betas=(0.9, 0.99), weight_decay=0.01,
                         freq_mask=2, time_mask=4, noise=False, sms=0.3, save_every=5, log_every=1)  # fmt: skip


def settings(**overrides: object) -> TrainSettings:
    return TrainSettings.from_dict({**SETTINGS.to_dict(), **overrides})


class Colours:
    """Clip i has the tone and the colour of class i % 4. Clips of `broken` sound like nothing a number can say."""

    towers, features = False, FEATURES

    def __init__(self, size: int = 40, broken: Sequence[int] = (), wordy: bool = False) -> None:
        self.size, self.broken, self.wordy = size, broken, wordy

    def __len__(self) -> int:
        return self.size

    def key(self, index: int) -> str:
        return f"clip-{index}"

    def captions(self, index: int) -> list[str]:
        text = WORDS[index % 4]
        return [text, f"{text} {text}"] if self.wordy else [text]

    def batch(self, rows: Sequence[int], augmentation: Augmentation | None = None) -> Batch:
        fbank, pixels = (
            torch.zeros(len(rows), 64, 32),
            torch.zeros(len(rows), 2, 3, 32, 32, dtype=torch.uint8),
        )
        for place, row in enumerate(rows):
            fbank[place, :, row % 4 * 8 : row % 4 * 8 + 8] = 2.0
            pixels[place, :, row % 3, row % 4 * 8 : row % 4 * 8 + 8] = 255
            if row in self.broken:
                fbank[place] = torch.nan
        chosen = [
            texts[0] if augmentation is None else pick_caption(texts, augmentation.generator(row))
            for row, texts in ((row, self.captions(row)) for row in rows)
        ]
        return Batch(fbank, pixels, None, chosen)


def make_tokenizer() -> Tokenizer:
    return Tokenizer.train(WORDS, 200)


def small_model(
    tokenizer: Tokenizer, fusion: str = "entropy-gate", seed: int = 0, dropout: float = 0.1
) -> CaptionModel:
    torch.manual_seed(seed)
    encoder = EncoderConfig(audio_frames=64, mel_bins=32, image_size=32, frames=2, width=32, depth=1, heads=2,
                            tag_classes=5)  # fmt: skip
    decoder = DecoderConfig(vocab_size=len(tokenizer), width=32, layers=1, heads=2, feedforward=64, positions=32,
                            dropout=dropout)  # fmt: skip
    return CaptionModel(ModelConfig(fusion, encoder, decoder))
