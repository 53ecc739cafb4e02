"""The two towers: token counts, their order, who sees whom."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model import EncoderConfig, load_preset
from evacap_cli.model.encoder import ConvStem, TwoTowerEncoder

from .samples import ENCODER, fresh_model, greatest_error, random_clips

FRAMES: dict[str, Any] = {"picture_tokens": "frame", "frames": 4}
TUBELETS: dict[str, Any] = {"picture_tokens": "tubelet", "frames": 4}
CONV: dict[str, Any] = {"picture_tokens": "frame", "stem": "conv", "width": 48}


def encoder_of(**changes: Any) -> TwoTowerEncoder:
    return fresh_model("entropy-gate", **changes).encoder


def test_token_counts_of_the_published_sizes() -> None:
    """512 tokens of sound; 196 a frame, half of that in tubelets (the paper's 18 frames make 3528)."""
    frame, tubelet = EncoderConfig(), load_preset("avcap-base").model.encoder
    assert (frame.audio_grid, frame.audio_tokens, frame.frame_tokens) == ((8, 64), 512, 196)
    assert [frame.tokens_for(n) for n in (0, 1, 4, 18)] == [0, 196, 784, 3528]
    assert [tubelet.tokens_for(n) for n in (2, 8, 18)] == [196, 784, 1764]
    assert (frame.positions, tubelet.positions) == (196, 784)


@pytest.mark.parametrize(("changes", "per_frame"), [(FRAMES, 4), (TUBELETS, 2), (CONV, 4)])
@torch.no_grad()
def test_towers_return_the_stated_number_of_tokens(changes: dict[str, Any], per_frame: int) -> None:
    encoder = encoder_of(**changes)
    fbank, pixels = random_clips(2, frames=4)
    width = encoder.config.width
    sound, picture = encoder.audio_tower(fbank), encoder.picture_tower(pixels)
    assert sound.shape == (2, encoder.config.audio_tokens, width) == (2, 8, width)
    assert picture.shape == (2, encoder.config.tokens_for(4), width) == (2, 4 * per_frame, width)
    assert encoder.align_audio(sound).shape == sound.shape
    assert encoder.align_picture(picture).shape == picture.shape


@torch.no_grad()
def test_sound_tokens_are_ordered_by_frequency_row_and_then_time() -> None:
    encoder = encoder_of(depth=0)
    fbank = torch.zeros(1, 64, 32)
    for row in range(2):
        for column in range(4):
            touched = fbank.clone()
            touched[:, column * 16 : column * 16 + 16, row * 16 : row * 16 + 16] = 1.0
            moved = (encoder.audio_tower(touched) - encoder.audio_tower(fbank)).abs().amax(dim=(0, 2))
            assert moved.nonzero().flatten().tolist() == [row * 4 + column]


@pytest.mark.parametrize("changes", [FRAMES, CONV])
@torch.no_grad()
def test_frames_are_encoded_independently(changes: dict[str, Any]) -> None:
    """Through tower and shared block, a frame's tokens are the same alone, elsewhere, and beside others."""
    encoder = encoder_of(**changes)
    _, pixels = random_clips(2, frames=4)
    together = encoder.align_picture(encoder.picture_tower(pixels)).unflatten(1, (4, 4))
    for i in range(4):
        alone = encoder.align_picture(encoder.picture_tower(pixels[:, i : i + 1]))
        assert greatest_error(together[:, i], alone) < 1e-5
    reverse = encoder.align_picture(encoder.picture_tower(pixels.flip(1))).unflatten(1, (4, 4))
    assert greatest_error(reverse.flip(1), together) < 1e-5


@torch.no_grad()
def test_tubelets_attend_to_each_other_and_have_positions() -> None:
    encoder = encoder_of(**TUBELETS)
    assert not any(p.requires_grad is False for p in encoder.parameters())
    encoder.pos_embed_v.add_(
        torch.randn(encoder.pos_embed_v.shape, generator=torch.Generator().manual_seed(0))
    )
    _, pixels = random_clips(1, frames=4)
    tokens = encoder.picture_tower(pixels)
    touched = pixels.clone()
    touched[:, 3] += 1.0
    assert (encoder.picture_tower(touched) - tokens).abs().amax(
        dim=2
    ).min() > 0  # also those of frames 0 and 1
    swapped = encoder.picture_tower(pixels[:, [2, 3, 0, 1]]).unflatten(1, (2, 4)).flip(1).flatten(1, 2)
    assert greatest_error(swapped, tokens) > 1e-2  # each pair has positions of its own


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_tubelets_refuse_another_number_of_frames(frames: int) -> None:
    encoder = encoder_of(**TUBELETS)
    with pytest.raises(ValueError, match=f"takes 4 frames, got {frames}"):
        encoder.picture_tower(random_clips(1, frames=frames)[1])


@torch.no_grad()
def test_one_frame_of_a_tubelet_model_is_an_image() -> None:
    encoder = encoder_of(picture_tokens="tubelet", frames=1)
    assert isinstance(encoder.patch_embed_v, torch.nn.Conv2d)
    assert encoder.picture_tower(random_clips(2, frames=1)[1]).shape == (2, 4, 32)


@torch.no_grad()
def test_joined_tokens_do_not_attend_to_masked_tokens() -> None:
    encoder = fresh_model("concat").encoder
    fbank, pixels = random_clips(2)
    sound, picture = encoder.audio_tower(fbank), encoder.picture_tower(pixels)
    mask = torch.ones(2, 8 + 12, dtype=torch.bool)
    mask[0, 8 + 4 :] = False
    joined = encoder.join(sound, picture, mask)
    short = encoder.join(sound[:1], picture[:1, :4], None)
    assert greatest_error(joined[0, :12], short[0]) < 1e-5
    assert greatest_error(joined[1:], encoder.join(sound[1:], picture[1:], None)) < 1e-5
    heard = encoder.join(sound, None, None)
    assert heard.shape == sound.shape


def test_each_path_uses_its_own_norms() -> None:
    """The joint path has one set, the separate paths one for each modality, sound alone only its own."""
    for fusion, names in (
        ("concat", {"joint"}),
        ("entropy-gate", {"a", "v"}),
        ("audio-only", {"a"}),
    ):
        encoder: Any = fresh_model(fusion).encoder
        assert set(encoder.norms) == names
        assert all(set(block.norm1) == names for block in encoder.blocks_u)
        assert hasattr(encoder, "patch_embed_v") == (fusion != "audio-only")


def test_positions_are_initialised_as_sine_embeddings() -> None:
    """Every patch has its own; the same row (of an 8 x 64 grid) shares one half, the same column the other."""
    with torch.device("cpu"):
        table = TwoTowerEncoder(EncoderConfig(width=64, depth=0, heads=4), picture=False).pos_embed_a
    assert table.shape == (1, 512, 64)
    assert torch.cdist(table[0], table[0]).add(torch.eye(512) * 9).min() > 0.05
    grid = table.detach().view(8, 64, 64)
    assert torch.equal(grid[:, :, :32], grid[:1, :, :32].expand(8, 64, 32))
    assert torch.equal(grid[:, :, 32:], grid[:, :1, 32:].expand(8, 64, 32))


@pytest.mark.parametrize("patch", [(8, 8), (16, 16), (32, 32), (32, 16)])
@torch.no_grad()
def test_the_convolutional_stem_returns_one_position_per_patch(patch: tuple[int, int]) -> None:
    stem = ConvStem(3, 48, patch)
    assert stem(torch.randn(2, 3, 64, 96)).shape == (2, 48, 64 // patch[0], 96 // patch[1])


def test_the_convolutional_stem_refuses_other_patches() -> None:
    with pytest.raises(ValueError, match="patch sides"):
        ConvStem(3, 48, (16, 12))


@torch.no_grad()
def test_a_block_equals_its_definition() -> None:
    """x + attention(norm1 x), then + mlp(norm2 ...), the softmax written out, under a mask."""
    block: Any = encoder_of().blocks_a[0]
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False

    def attention(x: Tensor) -> Tensor:
        q, k, v = block.attn.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1) / 4).masked_fill(~mask[:, None, None], float("-inf"))
        return block.attn.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    expected = x + attention(block.norm1["own"](x))
    hidden = torch.nn.functional.gelu(block.mlp.fc1(block.norm2["own"](expected)))
    expected = expected + block.mlp.fc2(hidden)
    assert greatest_error(block(x, mask=mask), expected) < 1e-5
    assert ENCODER.heads == 2
