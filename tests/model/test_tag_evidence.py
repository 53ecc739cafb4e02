"""What tags say of whether sound and picture belong together, against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model.config import EvidenceConfig
from evacap_cli.model.packing import pack
from evacap_cli.model.tag_encoder import pooled_frames
from evacap_cli.model.tag_evidence import FLOOR, TEMPERATURE, TagEvidence, shares

from .tagged import ENCODER, random_heard, random_seen, random_ties, tag_model

CLIPS = 5
NO_TOKENS = torch.zeros(0)  # tokens, which are not used


def evidence_of(seed: int = 0) -> TagEvidence:
    """Ties, and an affinity that has learned other numbers, some of them below 0."""
    evidence = TagEvidence(ENCODER)
    evidence.start_from(random_ties(seed=seed))
    with torch.no_grad():
        learned = torch.randn(evidence.affinity.shape, generator=torch.Generator().manual_seed(seed))
        evidence.affinity.add_(learned * 0.1)
        evidence.scale.fill_(1.5)
        evidence.offset.fill_(-0.5)
    return evidence


def tags_of(clips: int = CLIPS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tags of sounds and of pictures as `CaptionModel.fuse` compares them."""
    seen = pooled_frames(random_seen(clips, seed), ENCODER.seen, ENCODER.picture_classes)
    return random_heard(clips, seed), seen


def plain_shares(heard: Tensor) -> list[float]:
    """Of one clip, (T_a, 2 + windows)."""
    parts = [math.exp(value / TEMPERATURE) for value in heard[:, 1].tolist()]
    return [part / sum(parts) for part in parts]


def plain_support(table: Tensor, heard: Tensor, seen: Tensor) -> float:
    """Of one sound (T_a, 2 + windows) and one picture (T_v, 3)."""
    return sum(
        w * float(table[int(i), int(j)]) * q
        for (i, w) in zip(heard[:, 0].tolist(), plain_shares(heard), strict=True)
        for j, _, q in seen.tolist()
    )


def plain_matcher(evidence: TagEvidence, heard: Tensor, seen: Tensor) -> float:
    support = plain_support(evidence.affinity.detach(), heard, seen)
    log = math.log(support + FLOOR) if support > 0 else math.log(FLOOR) + support / FLOOR
    return evidence.scale.item() * log + evidence.offset.item()


def plain_cues(evidence: TagEvidence, heard: Tensor, seen: Tensor) -> dict[str, float]:
    ties = evidence.ties
    support = plain_support(ties, heard, seen)
    classes = [(int(j), q) for j, _, q in seen.tolist()]
    usual = sum(float(ties[:, j].mean()) * q for j, q in classes)
    tied = sum(float(ties[:, j].max()) * q for j, q in classes)
    shown = max(sum(float(ties[int(i), j]) * q for j, q in classes) for i in heard[:, 0].tolist())
    return {
        "matcher": plain_matcher(evidence, heard, seen),
        "support": math.log(support + FLOOR),
        "lift": math.log(support + FLOOR / 4) - math.log(usual + FLOOR / 4),
        "foreign": tied - shown,
        "silent": 1 - tied,
    }


def test_shares_add_up_and_follow_the_logit_in_the_clip() -> None:
    heard = random_heard(CLIPS)
    found = shares(heard)
    torch.testing.assert_close(found, torch.tensor([plain_shares(row) for row in heard]))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(CLIPS))
    louder = heard.clone()
    louder[..., 2:] += 3  # in windows
    assert torch.equal(shares(louder), found)


@pytest.mark.parametrize("seed", range(3))
def test_cues_are_as_defined(seed: int) -> None:
    evidence, (heard, seen) = evidence_of(seed), tags_of(seed=seed)
    with torch.no_grad():
        found = evidence(NO_TOKENS, NO_TOKENS, None, (heard, seen))
    assert found.shape == (CLIPS, len(evidence.cues))
    assert found.dtype == torch.float32
    for b in range(CLIPS):
        expected = plain_cues(evidence, heard[b], seen[b])
        assert tuple(expected) == evidence.cues
        assert found[b].tolist() == pytest.approx(list(expected.values()), abs=1e-4)


def test_cues_of_obvious_pairs() -> None:
    """A dog barks beside a dog, beside a drum, which sounds otherwise, and beside a cloud, which is silent."""
    evidence = TagEvidence(ENCODER)
    ties = torch.zeros(ENCODER.audio_classes, ENCODER.picture_classes)
    ties[3, 10] = ties[4, 11] = 1.0  # bark and dog, beat and drum
    evidence.start_from(ties)
    heard = torch.tensor([[[3.0, 4.0, 4.0], [400.0, -8.0, -8.0]]]).expand(3, -1, -1)
    seen = torch.tensor([[[10.0, 9.0, 0.9]], [[11.0, 9.0, 0.9]], [[500.0, 9.0, 0.9]]])
    with torch.no_grad():
        cues = dict(zip(evidence.cues, evidence(NO_TOKENS, NO_TOKENS, None, (heard, seen)).T, strict=True))
    assert cues["foreign"].tolist() == pytest.approx([0.0, 0.9, 0.0], abs=1e-6)
    assert cues["silent"].tolist() == pytest.approx([0.1, 0.1, 1.0], abs=1e-6)
    assert cues["support"][0] > cues["support"][1] == cues["support"][2]
    assert cues["lift"][0] > cues["lift"][2] > cues["lift"][1]
    assert cues["matcher"][0] > cues["matcher"][1]
    shown = evidence.shown((heard, seen))
    torch.testing.assert_close(shown, torch.tensor([[0.9, 0.0], [0.0, 0.0], [0.0, 0.0]]))


def test_shares_of_each_class_in_the_picture() -> None:
    evidence, (heard, seen) = evidence_of(), tags_of()
    found = evidence.shown((heard, seen))
    for b in range(CLIPS):
        for t, i in enumerate(heard[b, :, 0].tolist()):
            expected = sum(float(evidence.ties[int(i), int(j)]) * q for j, _, q in seen[b].tolist())
            assert found[b, t].item() == pytest.approx(expected, abs=1e-6)


def test_every_sound_is_paired_with_every_picture() -> None:
    evidence, (heard, seen) = evidence_of(), tags_of()
    with torch.no_grad():
        found = evidence.pairs((heard, seen))
        own = evidence(NO_TOKENS, NO_TOKENS, None, (heard, seen))[:, evidence.cues.index("matcher")]
    assert found.shape == (CLIPS, CLIPS)
    for a in range(CLIPS):
        for v in range(CLIPS):
            assert found[a, v].item() == pytest.approx(plain_matcher(evidence, heard[a], seen[v]), abs=1e-4)
    torch.testing.assert_close(found.diagonal(), own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cues_are_computed_in_fp32(dtype: torch.dtype) -> None:
    """Neither what is learned from, nor what is decided by."""
    evidence, tags = evidence_of(), tags_of()
    with torch.no_grad():
        plain = evidence.pairs(tags), evidence(NO_TOKENS, NO_TOKENS, None, tags)
        with torch.autocast("cpu", dtype):
            found = evidence.pairs(tags), evidence(NO_TOKENS, NO_TOKENS, None, tags)
    for ours, theirs in zip(found, plain, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("masked", [(), (1,), (0, 3), tuple(range(CLIPS))])
def test_loss_is_cross_entropy_over_all_pairs(masked: tuple[int, ...]) -> None:
    """The clips' own pairs count as much as all others; clips without a picture have none to give."""
    evidence, (heard, seen) = evidence_of(), tags_of()
    mask = torch.ones(CLIPS, ENCODER.seen, dtype=torch.bool)
    for row in masked:
        mask[row] = False
    losses, weights = [], []
    for a in range(CLIPS):
        for v in range(CLIPS):
            if v in masked:
                continue
            p = 1 / (1 + math.exp(-plain_matcher(evidence, heard[a], seen[v])))
            losses.append(-math.log(p if a == v else 1 - p))
            weights.append(CLIPS - 1 if a == v else 1)
    expected = sum(x * w for x, w in zip(losses, weights, strict=True)) / max(sum(weights), 1)
    found = evidence.loss(NO_TOKENS, NO_TOKENS, mask if masked else None, (heard, seen))
    assert found.item() == pytest.approx(expected, abs=1e-5)
    found.backward()
    assert evidence.affinity.grad is not None
    assert evidence.affinity.grad.isfinite().all()
    assert bool(evidence.affinity.grad.any()) == (len(masked) < CLIPS)


def test_a_batch_of_one_clip_has_a_loss() -> None:
    evidence, tags = evidence_of(), tags_of(1)
    assert evidence.loss(NO_TOKENS, NO_TOKENS, None, tags).isfinite()


@pytest.mark.slow
def test_training_separates_pairs_and_keeps_the_ties() -> None:
    evidence, tags = TagEvidence(ENCODER), tags_of(8)
    evidence.start_from(random_ties())
    before = evidence.ties.clone()
    optimiser = torch.optim.Adam(evidence.parameters(), lr=0.02)
    first = evidence.loss(NO_TOKENS, NO_TOKENS, None, tags).item()
    for _ in range(60):
        optimiser.zero_grad()
        evidence.loss(NO_TOKENS, NO_TOKENS, None, tags).backward()
        optimiser.step()
    logits = evidence.pairs(tags).detach()
    assert evidence.loss(NO_TOKENS, NO_TOKENS, None, tags).item() < 0.5 * first
    others = logits.masked_fill(torch.eye(8, dtype=torch.bool), torch.nan).nanmean(dim=1)
    assert (logits.diagonal() > others + 1).float().mean() > 0.8
    assert torch.equal(evidence.ties, before)


def test_it_starts_from_the_ties() -> None:
    """By value: what is learned later does not change the table that was given."""
    evidence, ties = TagEvidence(ENCODER), random_ties()
    assert not evidence.affinity.any()
    evidence.start_from(ties)
    assert torch.equal(evidence.ties, ties)
    assert torch.equal(evidence.affinity.detach(), ties)
    assert evidence.affinity.requires_grad
    with torch.no_grad():
        evidence.affinity.add_(1)
    assert torch.equal(evidence.ties, ties)
    evidence.ties.add_(1)
    assert torch.equal(ties, random_ties())


def test_probability_is_a_logistic_regression_of_the_cues() -> None:
    evidence = evidence_of()
    cues = torch.randn(4, 3, len(evidence.cues), generator=torch.Generator().manual_seed(0))
    matcher = evidence.cues.index("matcher")
    torch.testing.assert_close(
        evidence.probability(cues), cues[..., matcher].sigmoid()
    )  # before it is calibrated
    weights = torch.linspace(-1, 2, len(evidence.cues))
    evidence.weights.copy_(weights)
    evidence.bias.fill_(0.7)
    found = evidence.probability(cues)
    assert found.shape == (4, 3)
    for place in [(0, 0), (3, 2)]:
        z = 0.7 + sum(float(w) * float(c) for w, c in zip(weights, cues[place], strict=True))
        assert found[place].item() == pytest.approx(1 / (1 + math.exp(-z)), abs=1e-6)
    cues[1, 1] = torch.nan
    assert evidence.probability(cues)[1, 1].isnan()


@pytest.mark.parametrize("packed", [False, True])
def test_the_switch_follows_the_match_probability(packed: bool) -> None:
    model = tag_model("evidence", 1)
    evidence = model.fusion.evidence
    assert isinstance(evidence, TagEvidence)
    heard, seen = random_heard(6, 1), random_seen(6, 1)
    if packed:
        pack(model, None)
    with torch.inference_mode():
        tags = heard, pooled_frames(seen, ENCODER.seen, ENCODER.picture_classes)
        expected = evidence.probability(evidence(NO_TOKENS, NO_TOKENS, None, tags))
    out = model.generate(heard, seen, max_words=4, towers=True)
    assert out.evidence is not None
    assert out.gate is not None
    torch.testing.assert_close(out.evidence, expected)
    assert 0 < out.gate.sum() < 6
    assert torch.equal(out.gate, (expected >= model.config.evidence.threshold).float())


def test_logits_of_classes_in_a_matching_picture_are_raised() -> None:
    evidence, (heard, seen) = evidence_of(), tags_of()
    config = EvidenceConfig(threshold=0.5, confirmation=3.0, confirmed_logit=4.0)
    with torch.no_grad():
        evidence.bias -= evidence(NO_TOKENS, NO_TOKENS, None, (heard, seen))[
            :, 0
        ].median()  # open for about half
        probability = evidence.probability(evidence(NO_TOKENS, NO_TOKENS, None, (heard, seen)))
        found = evidence.confirm((heard, seen), config)
    raised = 0
    for b in range(CLIPS):
        certainty = max(0.0, (float(probability[b]) - 0.5) / 0.5)
        for i, row in enumerate(heard[b].tolist()):
            lift = 3.0 * certainty * float(evidence.shown((heard, seen))[b, i])
            expected = [row[0], *(max(value, min(value + lift, 4.0)) for value in row[1:])]
            assert found[b, i].tolist() == pytest.approx(expected, abs=1e-5)
            raised += found[b, i].tolist() != row
    assert raised
    assert any(torch.equal(found[b], heard[b]) for b in range(CLIPS) if probability[b] <= 0.5)


def test_without_a_picture_logits_are_unchanged() -> None:
    evidence, (heard, seen) = evidence_of(), tags_of()
    evidence.bias.fill_(9.0)
    nothing = torch.zeros_like(seen)
    with torch.no_grad():
        found = evidence.confirm((heard, nothing), EvidenceConfig(confirmation=9.0))
    torch.testing.assert_close(found, heard, rtol=0, atol=0)


@pytest.mark.parametrize(("shown", "logit"), [(10.0, 4.0), (11.0, -2.0)])
def test_captions_use_confirmed_tags_and_report_the_original_ones(shown: float, logit: float) -> None:
    """Class 3 is faint. A picture of its source, 10, raises it to the limit; another picture does not."""
    model: Any = tag_model("evidence")
    model.fusion.config = replace(model.fusion.config, confirmation=20.0, confirmed_logit=4.0)
    ties = torch.zeros(ENCODER.audio_classes, ENCODER.picture_classes)
    ties[3, 10] = 1.0
    model.fusion.evidence.start_from(ties)
    model.fusion.evidence.bias.fill_(50.0)  # every picture matches
    heard, seen = random_heard(1), random_seen(1)
    heard[0, 0] = torch.tensor([3.0, *[-2.0] * (heard.shape[2] - 1)])
    heard[0, 1:, 0] = torch.arange(20.0, 20.0 + heard.shape[1] - 1)
    seen[..., 0] = shown
    with torch.inference_mode():
        fused = model.fuse(heard, seen)
        plain = model.fuse(heard, None)
    assert torch.equal(fused.heard, heard)
    assert plain.confirmed is None
    assert float(fused.confirmed[0, 0, 1]) == logit
    assert torch.equal(fused.confirmed[:, 1:], heard[:, 1:])
