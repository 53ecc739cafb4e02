"""Infers model settings from tensor shapes, and names the settings to change if a file does not fit."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from evacap_cli.errors import EvacapError
from evacap_cli.model.published import WORDS
from evacap_cli.tasks.training.config import RunConfig

_AXES = (
    (r"encoder\.tag_head\.1\.", ("encoder.tag_classes", "encoder.width")),
    (r"encoder\.pos_embed_a$", ("", "encoder.audio_frames", "encoder.width")),
    (r"encoder\.pos_embed_v$", ("", "encoder.image_size", "encoder.width")),
    (r"encoder\.modality_", ("", "", "encoder.width")),
    (r"encoder\.patch_embed_a\.", ("encoder.width", "", "encoder.audio_patch", "encoder.audio_patch")),
    (r"encoder\.patch_embed_v\.", ("encoder.width", "", "encoder.image_patch", "encoder.image_patch")),
    (r"encoder\..*\.fc1\.", ("encoder.mlp_ratio", "encoder.width")),
    (r"encoder\..*\.fc2\.weight", ("encoder.width", "encoder.mlp_ratio")),
    (r"encoder\.", ("encoder.width", "encoder.width")),
    (r"decoder\.project_memory\.0\.weight", ("decoder.width", "encoder.width")),
    (r"decoder\.(words\.|output_bias)", ("decoder.vocab_size", "decoder.width")),
    (r"decoder\.positions\.", ("decoder.positions", "decoder.width")),
    (r"decoder\..*\.widen\.", ("decoder.feedforward", "decoder.width")),
    (r"decoder\..*\.narrow\.weight", ("decoder.width", "decoder.feedforward")),
    (r"decoder\.", ("decoder.width", "decoder.width")),
)
"""Parameter name patterns, and the settings that determine the axes; "" for none."""
_STACKS = (
    ("encoder.blocks_a", "encoder.depth"),
    ("encoder.blocks_v", "encoder.picture_depth"),
    ("encoder.blocks_u", "encoder.shared_depth"),
    ("decoder.layers", "decoder.layers"),
)
_NOT_TENSOR_SIZES = ("audio_frames", "image_size", "audio_patch", "image_patch", "mlp_ratio")


def size_settings(name: str, found: Sequence[int], wanted: Sequence[int]) -> set[str]:
    """Returns the settings that give parameter `name` the shape `found` instead of `wanted`, such as
    `model.decoder.width=48`; without a value if the setting has another unit than the axis."""
    if len(found) != len(wanted):
        return {"model.encoder.frames, model.encoder.picture_tokens"} if "patch_embed_v" in name else set()
    axes = next((axes for pattern, axes in _AXES if re.match(pattern, name)), ())
    return {
        f"model.{setting}" + ("" if setting.endswith(_NOT_TENSOR_SIZES) else f"={size}")
        for setting, size, ours in zip(axes, found, wanted, strict=False)
        if setting and size != ours
    }


def depth_settings(found: Collection[str], wanted: Collection[str]) -> set[str]:
    """Returns the settings of the stacks whose number of blocks differs between file and model, by our names."""
    settings = set()
    for stack, setting in _STACKS:
        in_file, in_model = (
            len({match[1] for name in names if (match := re.match(rf"{re.escape(stack)}\.(\d+)\.", name))})
            for names in (found, wanted)
        )
        if in_file and in_model and in_file != in_model:
            settings.add(f"model.{setting}={in_file}")
    return settings


def avcap_sizes(state: dict[str, Tensor], base: RunConfig) -> dict[str, Any]:
    """Infers settings from the shapes of AVCap's tensors; mel bins and image size are those of `base`. Raises
    EvacapError if a tensor is missing."""

    def shape(name: str) -> torch.Size:
        if name not in state:
            raise EvacapError(f"{name} is not in the file", "get the complete file")
        return state[name].shape

    def blocks(names: str) -> int:
        return len({match[1] for name in state if (match := re.match(names + r"\.(\d+)\.", name))})

    audio = shape("av_encoder.patch_embed_a.proj.weight")
    has_picture = "av_encoder.modality_v" in state
    encoder, layer = base.model.encoder, "textual.transformer.encoder.layer"
    rows = encoder.mel_bins // audio[2]
    audio_frames = shape("av_encoder.pos_embed_a")[1] // rows * audio[3]
    picture: dict[str, Any] = {}
    frames, fps, seconds = base.features.frames, base.features.fps, base.features.seconds
    if has_picture:
        patch = shape("av_encoder.patch_embed_v.proj.weight")
        tubelets = shape("av_encoder.pos_embed_v")[1] // (encoder.image_size // patch[-1]) ** 2
        span, frames = frames / fps, 2 * tubelets if len(patch) == 5 else 1
        fps = frames / span
        picture = {"image_patch": patch[-1], "picture_depth": blocks("av_encoder.blocks_v")}
    if audio_frames != encoder.audio_frames:
        seconds = audio_frames / 100  # a frame is 10 ms
    tags = "av_encoder.mlp_head.1.weight"
    return {
        "model": {
            **({} if has_picture else {"fusion": "audio-only"}),
            "encoder": {
                **picture,
                "width": audio[0],
                "audio_patch": list(audio[2:]),
                "audio_frames": audio_frames,
                "frames": frames,
                "depth": blocks("av_encoder.blocks_a"),
                "shared_depth": blocks("av_encoder.blocks_u"),
                "picture_tokens": "tubelet",
                "tag_classes": state[tags].shape[0] if tags in state else 0,
            },
            "decoder": {
                "vocab_size": shape(WORDS)[0],
                "width": shape(WORDS)[1],
                "layers": blocks(layer),
                "feedforward": shape(f"{layer}.0.intermediate.dense.weight")[0],
                "positions": shape("textual.embedding.positions.weight")[0],
            },
        },
        "features": {"audio_frames": audio_frames, "seconds": seconds, "frames": frames, "fps": fps},
    }
