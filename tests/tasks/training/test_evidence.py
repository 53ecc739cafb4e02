"""Learning which sounds and pictures belong together, and to caption without the latter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evacap_cli.model import CaptionModel, Tokenizer, load_checkpoint
from evacap_cli.tasks.training import fit

from .colours import FEATURES, Colours, make_tokenizer, settings, small_model

SWITCH = {"sms": 0.0, "modality_dropout": 0.35, "gate_stability": 0.0, "consistency": 0.0}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Stop(Exception):
    pass


@pytest.mark.slow
def test_stopped_and_resumed_the_switch_has_the_same_weights(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    model = small_model(tokenizer, "evidence")
    fit(model, tokenizer, Colours(), settings(**SWITCH), whole, validation=Colours(8))

    def stop(progress: Any) -> None:
        if progress.step == 12:
            raise Stop

    first = small_model(tokenizer, "evidence")
    with pytest.raises(Stop):
        fit(first, tokenizer, Colours(), settings(**SWITCH), parts, Colours(8), progress=stop)
    resumed = small_model(tokenizer, "evidence", seed=99)
    fit(resumed, tokenizer, Colours(), settings(**SWITCH), parts, validation=Colours(8))
    curves = [
        [{name: line[name] for name in ("step", "caption", "match")} for line in log_of(folder)]
        for folder in (whole, parts)
    ]
    assert curves[0] == curves[1]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


@pytest.mark.slow
def test_the_switch_learns_to_match_pairs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Clips of one colour and one tone each: their own pictures get a higher probability than others'."""
    data = Colours()
    fit(small_model(tokenizer, "evidence"), tokenizer, data, settings(**SWITCH, epochs=20), tmp_path)
    log = log_of(tmp_path)
    assert log[-1]["match"] < 0.8 * log[0]["match"]
    assert log[-1]["caption"] < 0.5 * log[0]["caption"]
    model: Any = load_checkpoint(tmp_path / "last").model
    fbank, pixels, _ = data.batch(range(12)).inputs(torch.device("cpu"), FEATURES)
    right = model.generate(fbank, pixels, max_words=3).evidence
    wrong = model.generate(fbank, pixels.roll(1, 0), max_words=3).evidence
    assert (right > wrong).float().mean() > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("fusion", "overrides"), [("evidence", {"match": 0.0}), ("cross-attention", {})])
def test_without_evidence_it_is_not_logged(
    fusion: str, overrides: dict[str, float], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = small_model(tokenizer, fusion)
    before = {name: p.clone() for name, p in model.named_parameters()}
    fit(model, tokenizer, Colours(8), settings(**{**SWITCH, **overrides}), tmp_path)
    assert all("match" not in line for line in log_of(tmp_path))
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    compares = {name: p for name, p in model.named_parameters() if name.startswith("fusion.evidence.")}
    assert set(compares) <= still
    assert bool(compares) == (fusion == "evidence")
    assert not any(
        p.requires_grad for p in compares.values()
    )  # or several processes would wait for their gradients
    assert "fusion.out.weight" not in still


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [(), ("decoder",), ("picture_decoder",)])
def test_only_unfrozen_decoders_learn(freeze: tuple[str, ...], tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = small_model(tokenizer, "evidence")
    before = {name: p.clone() for name, p in model.named_parameters()}
    fit(model, tokenizer, Colours(), settings(**{**SWITCH, "freeze": freeze, "epochs": 6}), tmp_path)
    learned = {name: not torch.equal(p, before[name]) for name, p in model.named_parameters()}
    for part in ("decoder", "picture_decoder"):
        words = {was for name, was in learned.items() if name.startswith(f"{part}.")}
        assert words == {part not in freeze}, part
    own, seeing = model.decoder.state_dict(), model.decoders[1].state_dict()
    assert not any(torch.equal(own[name], seeing[name]) for name in own)  # they began alike
    log = log_of(tmp_path)
    assert log[-1]["caption"] < 0.9 * log[0]["caption"]
    kept = load_checkpoint(tmp_path / "last").model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_fraction_of_clips_is_trained_without_picture(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, drawn = CaptionModel.forward, []

    def noted(self: CaptionModel, *args: Any) -> Any:
        drawn.append(args[8])
        return plain(self, *args)

    monkeypatch.setattr(CaptionModel, "forward", noted)
    for name in ("first", "again"):
        fit(small_model(tokenizer), tokenizer, Colours(), settings(modality_dropout=0.35), tmp_path / name)
    half = len(drawn) // 2
    steps = torch.stack(drawn[:half])
    assert steps.shape == (20, 8)
    assert 0.25 < steps.float().mean() < 0.45
    assert len({tuple(step.tolist()) for step in steps}) > 10
    assert torch.equal(steps, torch.stack(drawn[half:]))
    drawn.clear()
    fit(small_model(tokenizer), tokenizer, Colours(8), settings(modality_dropout=0.0), tmp_path / "none")
    assert set(drawn) == {None}


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["entropy-gate", "cross-attention", "concat", "evidence"])
def test_without_pictures_picture_parameters_are_unchanged(
    fusion: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = small_model(tokenizer, fusion)
    before = {name: p.clone() for name, p in model.named_parameters()}
    overrides = {
        "modality_dropout": 1.0,
        "match": 0.0,
        "weight_decay": 0.0,
        "sms": 0.0,
        "gate_stability": 0.0,
    }
    fit(model, tokenizer, Colours(8), settings(**overrides), tmp_path)
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    towers = {name for name in before if name.startswith(("encoder.blocks_v", "encoder.patch_embed_v"))}
    assert towers
    assert towers <= still
    assert not any(name.startswith("encoder.blocks_a") for name in still)
