"""Caches the network outputs of real recordings and photographs, which several stages use."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from evacap_cli.errors import MediaError
from evacap_cli.features import FeatureSettings, crop_frame, fbank, normalize_frames
from evacap_cli.media import find_window, read_audio, read_frames
from evacap_cli.model.yamnet import YAMNet, patches

FEATURES = FeatureSettings(
    spectrogram="yamnet", padding="repeat", mel_bins=64, audio_frames=1008, fbank_mean=0.0, fbank_std=1.0,
    frames=4, fps=0.4, image_mean=(127 / 255,) * 3, image_std=(128 / 255,) * 3,
)  # fmt: skip
"""Feature settings of all models with tag towers."""


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def load_ear(path: Path) -> YAMNet:
    ear = YAMNet()
    ear.load_state_dict(load_file(path))
    return ear.eval()


def load_eye(path: Path) -> nn.Module:
    eye = timm.create_model("efficientnet_lite0", pretrained=False)
    eye.load_state_dict(load_file(path))
    return eye.eval()


def log_mel(path: str) -> Tensor | None:
    """Log-mel (T, 64) of the segment of a file that `caption` uses; None for a file without audio."""
    try:
        return fbank(torch.from_numpy(read_audio(path, *find_window(path, FEATURES.seconds))), FEATURES)[0]
    except MediaError:
        return None


@torch.inference_mode()
def embed(paths: Sequence[str], ear: YAMNet, cache: Path) -> dict[str, np.ndarray]:
    """Inputs of the audio classifier: (P, 1024) float16 per file with audio, one row per patch. Saved in `cache`, which
    is recomputed for other files or another network."""
    mark = _mark(paths, ear)
    if (found := _kept(cache, mark)) is None:
        found = {}
        for path in paths:
            mel = log_mel(path)
            if mel is not None:
                found[path] = embedding(mel[None], ear)[0].half().numpy()
        _keep(cache, mark, found)
    return found


def embedding(log_mel: Tensor, ear: YAMNet) -> Tensor:
    """Embeddings (B, P, 1024) of log-mel (B, T, 64)."""
    return ear.trunk(patches(log_mel)).mean(dim=(2, 3)).unflatten(0, (len(log_mel), -1))


@torch.inference_mode()
def hear(embedded: np.ndarray, classifier: nn.Linear) -> np.ndarray:
    """Logits (..., C_a) float16 of embeddings (..., 1024)."""
    return classifier(torch.from_numpy(embedded).float()).half().numpy()


@torch.inference_mode()
def see(paths: Sequence[str], eye: nn.Module, cache: Path) -> dict[str, np.ndarray]:
    """Logits (N, C_v) float16 of each photograph (N = 1) or video."""
    mark = _mark(paths, eye)
    if (found := _kept(cache, mark)) is None:
        found = {}
        for path in paths:
            pixels = normalize_frames(torch.stack(frames_of(path)), FEATURES)
            found[path] = eye(pixels).half().numpy()
        _keep(cache, mark, found)
    return found


def frames_of(path: str) -> list[Tensor]:
    """uint8 (3, S, S) each."""
    size = FEATURES.image_size
    if Path(path).suffix.lower() in (".mp4", ".webm", ".mkv"):
        start, end = find_window(path, FEATURES.seconds)
        times = [start + (i + 0.5) * (end - start) / FEATURES.frames for i in range(FEATURES.frames)]
        return [torch.from_numpy(f) for f in read_frames(path, times, lambda x: crop_frame(x, size).numpy())]
    with Image.open(path) as image:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return [crop_frame(np.array(Image.alpha_composite(white, rgba).convert("RGB")), size)]


def _mark(paths: Sequence[str], network: nn.Module) -> str:
    digest = hashlib.sha256("\n".join(paths).encode())
    for value in network.state_dict().values():
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _kept(cache: Path, mark: str) -> dict[str, np.ndarray] | None:
    if not cache.is_file():
        return None
    with np.load(cache) as values:
        if str(values["mark"]) != mark:
            return None
        return dict(
            zip(values["paths"].tolist(), np.split(values["values"], values["ends"][:-1]), strict=True)
        )


def _keep(cache: Path, mark: str, found: dict[str, np.ndarray]) -> None:
    aside = cache.with_name(cache.name + ".tmp.npz")
    ends = np.cumsum([len(x) for x in found.values()])
    np.savez(aside, mark=mark, paths=list(found), values=np.concatenate(list(found.values())), ends=ends)
    aside.replace(cache)
