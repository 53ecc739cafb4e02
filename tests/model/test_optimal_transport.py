"""Transport plans against POT's, and LAVCap's fusion and loss against their definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from evacap_cli.errors import UsageError
from evacap_cli.model import ModelConfig, Objective
from evacap_cli.model.optimal_transport import MAX_LOG_SCALE, OptimalTransport, transport_plan

from .samples import DECODER, ENCODER, fresh_model, greatest_error, random_clips, random_words

Record = Callable[[str, object], None]


def similarities(*shape: int, seed: int = 0) -> Tensor:
    """Cosines of random unit vectors, (B, n, m)."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(shape[0], shape[1], 16, generator=g), torch.randn(shape[0], shape[2], 16, generator=g)
    return torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).transpose(1, 2)


def fusion_of(seed: int = 0) -> OptimalTransport:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return OptimalTransport(ModelConfig("optimal-transport", ENCODER, DECODER))


def tokens_of(batch: int = 3) -> tuple[Tensor, Tensor]:
    """Sound (B, 2 rows x 4 columns, 32) and picture (B, 3 frames x 4, 32)."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, 8, 32, generator=g), torch.randn(batch, 12, 32, generator=g)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(64, 20), (5, 9), (1, 4), (7, 1)])
@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_plans_are_those_of_pot(n: int, m: int, epsilon: float, record_property: Record) -> None:
    import ot  # takes long, as SciPy does

    found = similarities(3, n, m, seed=n)
    plans = transport_plan(found, epsilon=epsilon, iterations=50)
    errors = []
    for similarity, plan in zip(found, plans, strict=True):
        expected = ot.bregman.sinkhorn_log(
            [], [], -similarity.double(), epsilon, numItermax=50, stopThr=0, warn=False
        )
        errors.append(greatest_error(plan.double(), expected))
    record_property("max_abs_error", max(errors))
    assert max(errors) < 1e-5


def test_marginals_are_uniform_over_unmasked_tokens() -> None:
    mask = torch.tensor([[True] * 6, [True, True, False, True, False, False]])
    plan = transport_plan(similarities(2, 9, 6), mask)
    assert torch.allclose(plan.sum(2), torch.full((2, 9), 1 / 9), atol=1e-6)
    expected = mask / mask.sum(1, keepdim=True)
    assert torch.allclose(plan.sum(1), expected, atol=1e-4)
    alone = transport_plan(similarities(2, 9, 6)[1:, :, mask[1]])
    assert greatest_error(plan[1][:, mask[1]], alone[0]) < 1e-6


@pytest.mark.parametrize("shape", [(1, 512, 3528), (2, 4096, 3)])
def test_very_long_inputs(shape: tuple[int, int, int]) -> None:
    plan = transport_plan(similarities(*shape), epsilon=0.02, iterations=5)
    assert bool(plan.isfinite().all())
    assert plan.sum().item() == pytest.approx(shape[0], rel=1e-3)


@pytest.mark.parametrize("value", [1.0, 0.0, -1.0])
def test_identical_tokens_get_equal_mass(value: float) -> None:
    plan = transport_plan(torch.full((2, 4, 5), value), epsilon=0.01)
    assert torch.allclose(plan, torch.full_like(plan, 1 / 20), atol=1e-6)


@torch.no_grad()
def test_the_fusion_equals_its_definition(record_property: Record) -> None:
    import ot

    module, (audio, picture) = fusion_of(), tokens_of(3)
    mask = torch.tensor([[True] * 12, [True] * 8 + [False] * 4, [False] * 12])
    fused = module(audio, picture, mask)
    assert fused.mask is not None
    assert fused.cues is not None
    errors = []
    for i, frames in enumerate((3, 2, 0)):
        sound = torch.stack([audio[i, [c, 4 + c]].mean(0) for c in range(4)])  # over frequency
        sound = sound / sound.norm(dim=1, keepdim=True)
        seen = picture[i].unflatten(0, (3, 4)).mean(1)[:frames]
        seen = seen / seen.norm(dim=1, keepdim=True)
        if frames:
            plan = ot.bregman.sinkhorn_log(
                [], [], -(sound @ seen.T).double(), 0.1, numItermax=50, stopThr=0, warn=False
            ).float()
            left = torch.cat((sound, plan @ seen / plan.sum(1, keepdim=True)), dim=1)
            right = torch.cat((plan.T @ sound / plan.sum(0)[:, None], seen), dim=1)
            pairs = torch.cat((left, right))
            errors.append(abs(fused.cues[i, 0].item() - (plan * (sound @ seen.T)).sum().item()))
        else:
            pairs = torch.cat((sound, torch.zeros(4, 32)), dim=1)
            assert bool(fused.cues[i].isnan().all())
        assert fused.mask[i].tolist() == [True] * (4 + frames) + [False] * (3 - frames)
        expected = pairs @ module.project.weight.T + module.project.bias
        errors.append(greatest_error(fused.tokens[i, : 4 + frames], expected))
    record_property("max_abs_error", max(errors))
    assert max(errors) < 1e-5
    assert bool(fused.tokens.isfinite().all())


def test_the_loss_is_contrastive_over_the_batch(record_property: Record) -> None:
    """Clips without a picture have no part."""
    module, (audio, picture) = fusion_of(), tokens_of(4)
    mask = torch.ones(4, 12, dtype=torch.bool)
    mask[2] = False
    mask[3, 4:] = False
    loss = module.match_loss(audio, picture, mask)
    values = torch.zeros(3, 3)
    rows = [0, 1, 3]
    for i, sound in enumerate(rows):
        for j, seen in enumerate(rows):
            cues = module(audio[sound : sound + 1], picture[seen : seen + 1], mask[seen : seen + 1]).cues
            assert cues is not None
            values[i, j] = cues[0, 0]
    logits = values / 0.07
    expected = sum(-(each.log_softmax(1).diagonal().mean()) for each in (logits, logits.T))
    record_property("max_abs_error", abs(loss.item() - float(expected)))
    assert loss.item() == pytest.approx(float(expected), abs=1e-4)
    loss.backward()
    assert module.scale.grad is not None
    assert module.scale.grad.abs().item() > 0


def test_the_scale_is_capped() -> None:
    module, (audio, picture) = fusion_of(), tokens_of(4)
    losses = []
    for scale in (MAX_LOG_SCALE, MAX_LOG_SCALE + 1):
        module.scale.data.fill_(scale)
        losses.append(module.match_loss(audio, picture, None).item())
    assert losses[0] == losses[1]
    assert math.exp(MAX_LOG_SCALE) == pytest.approx(100, rel=1e-4)


def test_no_gradient_through_the_plan() -> None:
    similarity = similarities(1, 3, 4).requires_grad_()
    assert not transport_plan(similarity).requires_grad


@pytest.mark.slow
def test_training_aligns_the_towers() -> None:
    """A few steps lower the alignment loss; the loss of a single clip is 0."""
    model = fresh_model("optimal-transport", 1).train()
    fbank, pixels = random_clips(6, 1)
    tokens, wanted = random_words(6, 7, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        parts = model(fbank, pixels, tokens, wanted, objective=Objective(0.0, 0.0, 0.0, match=1.0))
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["match"].item())
    assert losses[-1] < losses[0] - 0.3
    alone = model(fbank[:1], pixels[:1], tokens[:1], wanted[:1], objective=Objective(match=1.0))
    assert alone["match"].item() == 0.0


def test_wrong_settings_are_refused() -> None:
    values = ModelConfig("optimal-transport", ENCODER, DECODER).to_dict()
    with pytest.raises(UsageError, match=r"transport\.epsilon: 0\.0 must be above 0"):
        ModelConfig.from_dict(values | {"transport": {"epsilon": 0}})
