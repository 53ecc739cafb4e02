"""Names of published checkpoints: every key finds its place, and what is left over is listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evacap_cli.errors import EvacapError
from evacap_cli.model import build_model, load_preset
from evacap_cli.model.published import from_published

KEYS = Path(__file__).parent.parent / "fixtures" / "avcap_8frames_keys.json"


def published_state() -> dict[str, Tensor]:
    """The 8-frame checkpoint's names and shapes, without its memory: every tensor is one zero, repeated."""
    return {name: torch.zeros(()).expand(shape) for name, shape in json.loads(KEYS.read_text()).items()}


def numbered_state(layers: int = 2) -> dict[str, Tensor]:
    """A small decoder's published names, each tensor with values of its own."""
    state = {
        "textual.av_projection.0.weight": (4, 6),
        "textual.embedding.words.weight": (5, 4),
        "textual.output.bias": (5,),
    }
    for i in range(layers):
        for part in ("query", "key", "value"):
            state[f"textual.transformer.encoder.layer.{i}.attention.self.{part}.weight"] = (4, 4)
            state[f"textual.transformer.encoder.layer.{i}.attention.self.{part}.bias"] = (4,)
    g = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=g) for name, shape in state.items()}


def test_every_published_avcap_key_finds_its_place() -> None:
    """584 names fill `avcap-base`: nothing missing, nothing left over but norms of the separate paths, which a model
    that joins its modalities does not read."""
    state = published_state()
    assert len(state) == 584
    renamed = from_published(state)
    with torch.device("meta"):
        model = build_model(load_preset("avcap-base").model)
    left = {name: renamed.pop(name) for name in set(renamed) - set(model.state_dict())}
    assert set(left) == {
        *(f"encoder.blocks_u.0.norm{i}.{m}.{k}" for i in (1, 2) for m in "av" for k in ("weight", "bias")),
        *(f"encoder.norms.{m}.{k}" for m in "av" for k in ("weight", "bias")),
    }
    model.load_state_dict(renamed, strict=True, assign=True)  # checks every shape
    assert not any(p.is_meta for p in model.parameters())


def test_the_same_keys_fill_the_separate_paths_of_evacap() -> None:
    """`evacap-base` reads the modalities' own norms instead, but its frames and fusion are not AVCap's."""
    renamed = from_published(published_state())
    with torch.device("meta"):
        own = build_model(load_preset("evacap-base").model).state_dict()
    missing = set(own) - set(renamed)
    assert all(name.startswith("fusion.") for name in missing)
    assert all(".joint." in name for name in set(renamed) - set(own))
    other = {name for name in set(own) & set(renamed) if own[name].shape != renamed[name].shape}
    assert other == {"encoder.patch_embed_v.weight", "encoder.pos_embed_v"}


def test_query_key_and_value_become_one_in_this_order() -> None:
    state = numbered_state()
    renamed = from_published(state)
    for i in range(2):
        for kind in ("weight", "bias"):
            start = f"textual.transformer.encoder.layer.{i}.attention.self"
            parts = [state[f"{start}.{part}.{kind}"] for part in ("query", "key", "value")]
            assert torch.equal(renamed[f"decoder.layers.{i}.qkv.{kind}"], torch.cat(parts))


def test_git_names_and_names_of_a_wrapped_model_are_the_same() -> None:
    """GIT calls the projection visual; a model saved from data-parallel training has `module.` before each name."""
    state = numbered_state()
    expected = from_published(state)
    wrapped = {"module." + name.replace("av_projection", "visual_projection"): v for name, v in state.items()}
    renamed = from_published(wrapped)
    assert set(renamed) == set(expected)
    assert all(torch.equal(renamed[name], expected[name]) for name in expected)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_output_that_is_not_tied_is_refused(prefix: str) -> None:
    state = {prefix + name: value for name, value in numbered_state().items()}
    words = state[prefix + "textual.embedding.words.weight"]
    assert "textual.output.weight" not in from_published(
        {**state, prefix + "textual.output.weight": words.clone()}
    )
    for other in (words + 1e-3, words[:-1]):
        with pytest.raises(EvacapError, match=r"textual\.output\.weight differs"):
            from_published({**state, prefix + "textual.output.weight": other})
    del state[prefix + "textual.embedding.words.weight"]
    with pytest.raises(EvacapError, match=r"textual\.output\.weight differs"):
        from_published({**state, prefix + "textual.output.weight": words})


def test_a_missing_third_is_named() -> None:
    state = numbered_state()
    del state["textual.transformer.encoder.layer.1.attention.self.key.bias"]
    with pytest.raises(EvacapError, match="layer 1 lacks key bias"):
        from_published(state)


def test_other_names_pass_unchanged() -> None:
    value = torch.zeros(2)
    assert set(from_published({"something.else": value})) == {"something.else"}
