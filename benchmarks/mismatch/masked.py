"""Masked reconstruction as in CAV-MAE: a quarter of the patches of each modality is kept, and both modalities together
reconstruct the masked ones.

Trained in addition to tagging and contrast, it tests whether such towers make the attention entropy informative.
"""

from __future__ import annotations

import torch
from pretraining import Pretrainer, PretrainSettings
from torch import Tensor, nn

from evacap_cli.model.encoder import Block, TwoTowerEncoder

KEPT = 0.25
WIDTH, DEPTH, HEADS = 128, 2, 4


class MaskedPretrainer(Pretrainer):
    """Masks patches before the stem, because its convolutions overlap. Only kept patches pass through the towers. A
    small decoder receives the tokens of both modalities and predicts every patch, normalised by its own mean and
    standard deviation (He et al. 2022)."""

    def __init__(self, encoder: TwoTowerEncoder, sounds: int, settings: PretrainSettings) -> None:
        super().__init__(encoder, sounds, settings)
        config = encoder.config
        self.patch = {"a": config.audio_patch, "v": (config.image_patch, config.image_patch)}
        self.place = nn.ParameterDict(
            {"a": encoder.pos_embed_a.detach().clone(), "v": encoder.pos_embed_v.detach().clone()}
        )
        self.hidden = nn.ParameterDict({side: torch.zeros(1, 1, config.width) for side in "av"})
        self.enter = nn.Linear(config.width, WIDTH)
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, 4.0) for _ in range(DEPTH)), nn.LayerNorm(WIDTH))
        self.paint = nn.ModuleDict(
            {
                side: nn.Linear(WIDTH, rows * columns * (3 if side == "v" else 1))
                for side, (rows, columns) in self.patch.items()
            }
        )

    def forward(
        self, fbank: Tensor, pixels: Tensor, sounds: Tensor, things: Tensor, together: Tensor
    ) -> dict[str, Tensor]:
        losses = super().forward(fbank, pixels, sounds, things, together)
        return losses | self.rebuild(fbank.transpose(1, 2).unsqueeze(1), pixels)

    def rebuild(self, sound: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        """sound: (B, 1, F, T); pixels: (B, N, 3, S, S). Returns the mean squared error of masked patches by side."""
        B = len(sound)
        images = {"a": sound, "v": pixels.flatten(0, 1)}
        patches = {side: patches_of(image, self.patch[side]) for side, image in images.items()}
        kept = {side: kept_of(len(x), x.shape[1], x.device) for side, x in patches.items()}
        tokens = {
            side: self.enter(
                self.tokens(side, images[side], kept[side]).reshape(B, -1, self.place["a"].shape[2])
            )
            for side in images
        }
        known = self.blocks(torch.cat((tokens["a"], tokens["v"]), dim=1))
        parts = dict(zip("av", known.split([tokens[side].shape[1] for side in "av"], dim=1), strict=True))
        losses = {}
        for side, target in patches.items():
            painted = self.paint[side](parts[side]).reshape(target.shape).float()
            error = (painted - normalised(target)).square().mean(dim=2)
            hidden = torch.ones_like(error).scatter(1, kept[side], 0.0)
            losses[f"rebuild {side}"] = (error * hidden).sum() / hidden.sum()
        return losses

    def tokens(self, side: str, image: Tensor, kept: Tensor) -> Tensor:
        """Tokens (B, T, d) of all positions of an image (B, C, H, W), from the patches `kept` (B, K)."""
        encoder = self.encoder
        embed, place, modality, blocks = (
            getattr(encoder, f"{name}_{side}") for name in ("patch_embed", "pos_embed", "modality", "blocks")
        )
        x = embed(hide(image, kept, self.patch[side])).flatten(2).transpose(1, 2) + place + modality
        at = kept[..., None].expand(-1, -1, x.shape[2])
        seen = x.gather(1, at)
        for block in blocks:
            seen = block(seen)
        for block in encoder.blocks_u:
            seen = block(seen, side)
        seen = encoder.norms[side](seen)
        whole = self.hidden[side].expand_as(x).to(seen.dtype).scatter(1, at, seen)
        return whole + self.place[side] + modality


def patches_of(image: Tensor, patch: tuple[int, int]) -> Tensor:
    """(B, C, H, W) to patches (B, T, C * rows * columns) in row-major order."""
    rows, columns = patch
    x = image.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # (B, C, H / r, r, W / c, c)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def kept_of(batch: int, tokens: int, device: torch.device) -> Tensor:
    """Random indices (B, K) of a quarter of the tokens, different for each clip."""
    return torch.rand(batch, tokens, device=device).argsort(dim=1)[:, : max(1, round(tokens * KEPT))]


def hide(image: Tensor, kept: Tensor, patch: tuple[int, int]) -> Tensor:
    """The image (B, C, H, W) with 0 in all patches that are not kept."""
    (rows, columns), (height, width) = patch, image.shape[2:]
    shown = torch.zeros(len(image), height * width // (rows * columns), device=image.device)
    shown = shown.scatter(1, kept, 1.0).view(-1, 1, height // rows, width // columns)
    return image * shown.repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3)


def normalised(patches: Tensor) -> Tensor:
    """Patches (B, T, P) minus their mean, divided by their standard deviation."""
    centred = patches.float() - patches.float().mean(dim=2, keepdim=True)
    return centred / (centred.square().mean(dim=2, keepdim=True) + 1e-6).sqrt()
