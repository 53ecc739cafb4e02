"""Names of published checkpoints: every key has a place of its own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from evacap_cli.model import build_model, load_preset
from evacap_cli.model.published import OUTPUT, Target, kind_of, target_of

KEYS = json.loads((Path(__file__).parent.parent / "fixtures" / "avcap_8frames_keys.json").read_text())
LAYER = "textual.transformer.encoder.layer.3."


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["avcap-base", "evacap-base", "audio-base"])
def test_every_published_key_is_mapped(preset: str) -> None:
    """584 names fill a model: none of its parameters is named twice, and but for its fusion none is left out."""
    with torch.device("meta"):
        own = build_model(load_preset(preset).model).state_dict()
    targets = [target for name in KEYS if name != OUTPUT and (target := target_of(name)) is not None]
    assert max(Counter(targets).values()) == 1
    missing = set(own) - {target.name for target in targets}
    assert all(name.startswith("fusion.") for name in missing)
    for name in KEYS:
        target = target_of(name)
        if target is not None and target.name in own and preset == "avcap-base":
            shape = list(own[target.name].shape)
            assert KEYS[name] == (shape if target.third is None else [shape[0] // 3, *shape[1:]])


def test_unused_keys_are_not_mapped() -> None:
    unread = [name for name in KEYS if target_of(name) is None]
    assert len(unread) == 176
    assert all(".norm" in name and name.split(".")[-2][-2:] in ("_a", "_v") for name in unread)


def test_query_key_and_value_are_thirds_in_this_order() -> None:
    for third, part in enumerate(("query", "key", "value")):
        for kind in ("weight", "bias"):
            assert target_of(f"{LAYER}attention.self.{part}.{kind}") == Target(
                f"decoder.layers.3.qkv.{kind}", third
            )
    assert target_of(f"{LAYER}attention.output.dense.bias") == Target("decoder.layers.3.out.bias")


def test_gits_projection_and_wrapped_names_are_the_same() -> None:
    expected = target_of("textual.av_projection.0.weight")
    assert target_of("module.textual.visual_projection.0.weight") == expected
    assert expected == Target("decoder.project_memory.0.weight")


def test_other_names_pass_unchanged() -> None:
    assert target_of("something.else") == Target("something.else")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (KEYS, "avcap"),
        ([name for name in KEYS if name.startswith("textual")], "git"),
        ([name.removeprefix("av_encoder.") for name in KEYS if name.startswith("av_encoder")], "cav-mae"),
        (["encoder.norms.a.weight", "decoder.words.weight"], "ours"),
        (["layer1.0.conv.weight"], None),
    ],
)
def test_published_names_are_recognised(names: list[str], kind: str | None) -> None:
    assert kind_of(names) == kind
