"""All settings of the conversion of audio and frames to tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from evacap_cli.errors import UsageError

WINDOWS = ("hamming", "hanning")
SPECTROGRAMS = ("kaldi", "yamnet")
PADDINGS = ("zero", "repeat")
WINDOW_SECONDS = 0.025  # length of an fbank window
HOP_SECONDS = 0.010  # hop between windows


@dataclass(frozen=True)
class FeatureSettings:
    """The input format of a model. Checkpoints and feature stores contain their settings.

    `fbank_mean` and `fbank_std` default to AVCap's statistics of AudioCaps, `image_mean` and `image_std` to ImageNet's.
    `window` is `hamming` (the EVACap paper) or `hanning` (the weights of CAV-MAE and AVCap). It applies only to the
    `kaldi` spectrogram; `yamnet` has its own window. `padding` extends short clips by zeros (`zero`) or by repeating
    the clip (`repeat`).
    """

    sample_rate: int = 16_000  # Hz
    seconds: float = 10.0  # length of a clip
    mel_bins: int = 128
    audio_frames: int = 1024  # fbank frames, 10 ms apart
    window: str = "hamming"
    fbank_mean: float = -4.346
    fbank_std: float = 4.332
    frames: int = 18  # video frames per clip
    fps: float = 2.0  # video frames per second
    image_size: int = 224  # pixels, square
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    spectrogram: str = "kaldi"  # or yamnet
    padding: str = "zero"  # or repeat

    def __post_init__(self) -> None:
        for name in ("image_mean", "image_std"):  # YAML and JSON give lists
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        wrong = [
            f"{name} = {getattr(self, name)!r} (more than 0)"
            for name in (
                "sample_rate",
                "seconds",
                "mel_bins",
                "audio_frames",
                "fbank_std",
                "fps",
                "image_size",
            )
            if not getattr(self, name) > 0
        ]
        if self.frames < 0:
            wrong.append(f"frames = {self.frames!r} (0 or more)")
        choices = {"window": WINDOWS, "spectrogram": SPECTROGRAMS, "padding": PADDINGS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                wrong.append(f"{name} = {getattr(self, name)!r} (one of {', '.join(known)})")
        if (
            len(self.image_mean) != 3
            or len(self.image_std) != 3
            or not all(std > 0 for std in self.image_std)
        ):
            wrong.append("image_mean, image_std (three numbers each, image_std more than 0)")
        if wrong:
            raise UsageError("feature settings out of range: " + "; ".join(wrong))

    def to_dict(self) -> dict[str, Any]:
        """The settings as numbers, strings and lists for YAML and JSON. `from_dict` reads them.

        Omits `spectrogram` and `padding` at their defaults, so that older stores and checkpoints keep their
        fingerprints.
        """
        values = asdict(self)
        for field in fields(self):
            if field.name in ("spectrogram", "padding") and values[field.name] == field.default:
                del values[field.name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSettings:
        """Settings from a mapping. Missing names keep their defaults. Raises UsageError for unknown names."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise UsageError(
                f"unknown feature settings: {', '.join(unknown)}", cure=f"known ones are {', '.join(known)}"
            )
        return cls(**values)

    def fingerprint(self) -> str:
        """12 hex digits that change with every setting."""
        # hash floats, so that 10 and 10.0 are equal
        plain = {
            name: float(value) if isinstance(value, (int, float)) else value
            for name, value in self.to_dict().items()
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
