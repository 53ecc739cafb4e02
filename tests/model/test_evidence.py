"""What a comparison of sound and picture says, against plain loops; and which pictures show nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.features.frames import crop_frame
from evacap_cli.model.config import EvidenceConfig
from evacap_cli.model.evidence import POOLS, Evidence, shows_something
from evacap_cli.world import World
from evacap_cli.world.picture import render_frame

from .samples import ENCODER

B, T_A, T_V, C, SIZE = 5, 8, 12, 6, 64
Pair = tuple[Tensor, Tensor]


def evidence_of(tag_classes: int = C) -> Evidence:
    """With weights large enough that clips differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = Evidence(replace(ENCODER, tag_classes=tag_classes), EvidenceConfig(width=16))
        with torch.no_grad():
            for parameter in found.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return found.requires_grad_(False)


def clips() -> tuple[Tensor, Tensor, Pair]:
    """Tokens of sound and picture, and tag logits of both."""
    g = torch.Generator().manual_seed(1)
    audio, picture = torch.randn(B, T_A, 32, generator=g), torch.randn(B, T_V, 32, generator=g)
    return audio, picture, (torch.randn(B, C, generator=g) * 2, torch.randn(B, C, generator=g) * 2)


def some_missing() -> Tensor:
    mask = torch.ones(B, T_V, dtype=torch.bool)
    mask[0, 4:], mask[2, 1:], mask[3, ::2] = False, False, False
    return mask


def unit(x: Tensor) -> Tensor:
    return x / x.square().sum().sqrt()


def plain_side(side: torch.nn.Module, tokens: Tensor) -> Tensor:
    """tokens: (T, d), all of which exist."""
    normed = [side.norm(token) for token in tokens]
    means = []
    for pool in range(POOLS):
        weights = [math.exp(float(token @ side.look.weight[pool] + side.look.bias[pool])) for token in normed]
        means.append(sum(w * token for w, token in zip(weights, normed, strict=True)) / sum(weights))
    return unit(side.mlp(torch.cat(means)))


def plain_learned(own: Evidence, a: Tensor, v: Tensor, heard: Tensor, seen: Tensor) -> dict[str, float]:
    """Of one sound and one picture: tokens (T, d) and tag logits (C,)."""
    cosine = float(plain_side(own.hear, a) @ plain_side(own.see, v))
    tags = sum(
        float(heard[i].sigmoid() * own.tag_pairs[i, j] * seen[j].sigmoid())
        for i in range(C)
        for j in range(C)
    )
    return {"matcher": cosine * math.exp(own.scale) + float(own.offset), "tags": tags + float(own.tag_offset)}


def plain_cues(own: Evidence, a: Tensor, v: Tensor, heard: Tensor, seen: Tensor) -> list[float]:
    means = [sum(unit(token) for token in tokens) / len(tokens) for tokens in (a, v)]
    nearest = [max(float(unit(token) @ unit(other)) for other in v) for token in a]
    learned = plain_learned(own, a, v, heard, seen)
    cosine = float(unit(means[0]) @ unit(means[1]))
    return [cosine, sum(nearest) / len(nearest), learned["matcher"], learned["tags"]]


@pytest.mark.parametrize("masked", [False, True])
def test_cues_equal_their_definitions(masked: bool) -> None:
    own, (audio, picture, tags) = evidence_of(), clips()
    mask = some_missing() if masked else None
    found = own(audio, picture, mask, tags)
    assert own.cues == ("cosine", "best", "matcher", "tags")
    assert found.dtype == torch.float32
    for i in range(B):
        shown = picture[i] if mask is None else picture[i][mask[i]]
        wanted = plain_cues(own, audio[i], shown, tags[0][i], tags[1][i])
        assert found[i].tolist() == pytest.approx(wanted, abs=2e-5)


def test_masked_tokens_are_ignored() -> None:
    own, (audio, picture, tags) = evidence_of(), clips()
    mask = some_missing()
    other = torch.where(mask[..., None], picture, 50.0)
    assert torch.equal(own(audio, picture, mask, tags), own(audio, other, mask, tags))


@pytest.mark.parametrize("masked", [False, True])
def test_every_sound_is_paired_with_every_picture(masked: bool) -> None:
    own, (audio, picture, tags) = evidence_of(), clips()
    mask = some_missing() if masked else None
    found = own.pairs(audio, picture, mask, tags)
    assert set(found) == {"matcher", "tags"}
    for i, j in ((0, 0), (0, 3), (4, 1), (2, 2)):
        shown = picture[j] if mask is None else picture[j][mask[j]]
        wanted = plain_learned(own, audio[i], shown, tags[0][i], tags[1][j])
        assert {name: float(logits[i, j]) for name, logits in found.items()} == pytest.approx(
            wanted, abs=2e-5
        )
    cues = own(audio, picture, mask, tags)
    for name, logits in found.items():
        torch.testing.assert_close(logits.diagonal(), cues[:, own.cues.index(name)])


def plain_loss(own: Evidence, audio: Tensor, picture: Tensor, tags: Pair, blind: set[int]) -> float:
    """Half of the mean over clips with their own pictures, half of that over other pairs, of the cues in turn."""
    pairs = own.pairs(audio, picture, None, tags)
    losses = []
    for logits in pairs.values():
        right = [math.log1p(math.exp(-logits[i, i])) for i in range(B) if i not in blind]
        wrong = [
            math.log1p(math.exp(logits[i, j]))
            for i in range(B)
            for j in range(B)
            if i != j and j not in blind
        ]
        losses.append((sum(right) / len(right) + sum(wrong) / len(wrong)) / 2)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("blind", [set(), {1}, {0, 3}])
def test_the_loss_weights_matching_and_other_pairs_equally(blind: set[int]) -> None:
    """A clip without a picture is heard with the others' pictures, but shows none."""
    own, (audio, picture, tags) = evidence_of(), clips()
    mask = torch.ones(B, T_V, dtype=torch.bool)
    mask[list(blind)] = False
    found = own.loss(audio, picture, mask if blind else None, tags)
    assert found.item() == pytest.approx(plain_loss(own, audio, picture, tags, blind), rel=1e-5)
    changed = picture.clone()
    changed[list(blind)] += 5.0
    assert own.loss(audio, changed, mask, tags).item() == pytest.approx(found.item(), rel=1e-6)


def test_without_pairs_there_is_no_loss() -> None:
    own, (audio, picture, tags) = evidence_of().requires_grad_(), clips()
    nothing = own.loss(audio, picture, torch.zeros(B, T_V, dtype=torch.bool), tags)
    alone = own.loss(audio[:1], picture[:1], None, (tags[0][:1], tags[1][:1]))
    for loss in (nothing, alone):
        assert loss.item() == 0
        own.zero_grad()
        loss.backward()
        assert all(p.grad is not None and not p.grad.any() for p in own.parameters())


@pytest.mark.slow
def test_the_loss_separates_matching_from_other_pairs() -> None:
    """Pictures that are their sounds, with noise: learned in a few steps, and right of clips that were not learned."""
    torch.manual_seed(0)
    own = Evidence(replace(ENCODER, tag_classes=0), EvidenceConfig(width=16))
    optimizer = torch.optim.Adam(own.parameters(), lr=1e-2)

    def drawn() -> Pair:
        audio = torch.randn(16, 1, 32).expand(-1, T_A, -1)
        return audio, audio[:, :1].expand(-1, T_V, -1) + 0.3 * torch.randn(16, T_V, 32)

    for _ in range(80):
        loss = own.loss(*drawn(), None, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    audio, picture = drawn()
    with torch.no_grad():
        right = own.probability(own(audio, picture, None, None))
        wrong = own.probability(own(audio, picture.roll(1, 0), None, None))
    assert right.mean() > 0.7 > 0.3 > wrong.mean()


def test_the_probability_is_a_weighted_sum_of_cues() -> None:
    own = evidence_of()
    cues = torch.tensor([[0.5, 0.2, -1.0, 3.0], [0.1, 0.9, 2.0, -2.0]])
    assert own.probability(cues).tolist() == pytest.approx([1 / (1 + math.e), 1 / (1 + math.exp(-2))])
    own.weights.copy_(torch.tensor([2.0, -1.0, 0.5, 0.25]))
    own.bias.fill_(-0.3)
    totals = [1.0 - 0.2 - 0.5 + 0.75 - 0.3, 0.2 - 0.9 + 1.0 - 0.5 - 0.3]
    assert own.probability(cues).tolist() == pytest.approx([1 / (1 + math.exp(-z)) for z in totals])
    cues[1] = torch.nan
    assert own.probability(cues).isnan().tolist() == [False, True]


def test_without_a_tag_head_there_are_no_tags() -> None:
    own, (audio, picture, _) = evidence_of(0), clips()
    assert own.cues == ("cosine", "best", "matcher")
    assert own.weights.tolist() == [0, 0, 1]
    assert not any(name.startswith("tag") for name in own.state_dict())
    assert own(audio, picture, None, None).shape == (B, 3)
    assert set(own.pairs(audio, picture, None, None)) == {"matcher"}
    tagged = evidence_of()
    assert tagged.tag_pairs.shape == (C, C)
    assert tagged.weights.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cues_are_compared_in_full_precision(dtype: torch.dtype) -> None:
    """Under autocast to the last bit; of weights in half precision as well as these are known."""
    own, (audio, picture, tags) = evidence_of(), clips()
    full = own(audio, picture, some_missing(), tags)
    with torch.autocast("cpu", dtype):
        assert torch.equal(own(audio, picture, some_missing(), tags), full)
    half = own.to(dtype)(audio.to(dtype), picture.to(dtype), some_missing(), tags)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.3 if dtype == torch.bfloat16 else 0.05)


# ---- frames that show nothing


def shown(levels: Tensor) -> bool:
    """Of one frame (3, S, S) in levels of 255."""
    frame = levels.clamp(0, 255).to(torch.uint8)[None, None]
    found = shows_something(normalize_frames(frame, FeatureSettings(image_size=SIZE)))
    assert found.shape == (1, 1)
    assert found.dtype == torch.bool
    return bool(found)


def noise(sigma: float = 80.0, channels: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(2)
    return (torch.randn(channels, SIZE, SIZE, generator=g) * sigma).expand(3, -1, -1)


def smooth(amplitude: float) -> Tensor:
    g = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, 3, 8, 8, generator=g)
    return torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")[0] * amplitude + 128


def drawn(number: int) -> Tensor:
    return crop_frame(render_frame(World(3).script(number), 1.0), SIZE).float()


@pytest.mark.parametrize(
    "frame",
    [
        torch.zeros(3, SIZE, SIZE),
        torch.full((3, SIZE, SIZE), 255),
        torch.tensor([200.0, 30.0, 90.0])[:, None, None].expand(3, SIZE, SIZE),
        128 + noise(0.6),
        128 + noise(),
        128 + noise(channels=1),
        noise(40.0),
        (noise() > 0) * 255.0,
        smooth(0.3),
    ],
    ids=["black", "white", "colour", "dither", "noise", "grey noise", "dark noise", "black or white", "dim"],
)
def test_uniform_and_noise_frames_are_detected(frame: Tensor) -> None:
    assert not shown(frame)


@pytest.mark.parametrize(
    "frame",
    [smooth(60.0), smooth(5.0), smooth(60.0) + noise(20.0), torch.arange(SIZE).expand(3, SIZE, SIZE) * 4],
    ids=["smooth", "faint", "grainy", "ramp"],
)
def test_natural_frames_are_accepted(frame: Tensor) -> None:
    assert shown(frame)


@pytest.mark.parametrize("number", range(6))
def test_drawn_frames_are_accepted(number: int) -> None:
    frame = drawn(number)
    assert shown(frame)
    assert shown(frame / 5)  # in the dark
    assert shown(frame + noise(10.0))


def test_frames_are_judged_separately() -> None:
    """Frozen noise, too, is noise."""
    one, black, seen = 128 + noise(), torch.zeros(3, SIZE, SIZE), smooth(60.0)
    frames = torch.stack(
        [torch.stack(clip) for clip in ((one, one, one), (black, seen, one), (seen, seen, black))]
    )
    pixels = normalize_frames(frames.clamp(0, 255).to(torch.uint8), FeatureSettings(image_size=SIZE))
    assert shows_something(pixels).tolist() == [[False] * 3, [False, True, False], [True, True, False]]
