"""The two towers of CAV-MAE (Gong et al. 2023): a ViT for audio, a ViT for frames, and a block that both share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from evacap_cli.model.config import EncoderConfig


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """x: (B, T, d); attn_mask: bool, broadcast to (B, h, T, T), True where a query may attend."""
        return self.attend(self.qkv(x), attn_mask)

    def attend(self, qkv: Tensor, attn_mask: Tensor | None) -> Tensor:
        """qkv: (B, T, 3 d), queries, keys and values."""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, h, T, d / h) each
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.proj(x.transpose(1, 2).flatten(2))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of images (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A pre-norm transformer block. `modalities`: names of the pairs of norms of a block that several modalities
    share."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, modalities: tuple[str, ...] = ("",)) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attn = SelfAttention(width, heads)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, width))
        )
        self.norm1 = nn.ModuleDict({name or "own": nn.LayerNorm(width) for name in modalities})
        self.norm2 = nn.ModuleDict({name or "own": nn.LayerNorm(width) for name in modalities})
        self.mlp_checkpointing = False
        """Whether training recomputes the norms and the hidden values of the MLP instead of keeping them."""

    def forward(self, x: Tensor, modality: str = "own", mask: Tensor | None = None) -> Tensor:
        """x: (B, T, d); mask: bool (B, T), True for tokens that exist. Returns (B, T, d)."""
        attn_mask = None if mask is None else mask[:, None, None, :]
        if not (self.mlp_checkpointing and self.training and torch.is_grad_enabled()):
            x = x + self.attn(self.norm1[modality](x), attn_mask=attn_mask)
            return x + self.mlp(self.norm2[modality](x))
        # The recomputation ends with the last value that is needed: the inputs of the last linear layers
        qkv = _recomputed(lambda x: self.attn.qkv(self.norm1[modality](x)), x)
        x = x + self.attn.attend(qkv, attn_mask)
        return x + _recomputed(lambda x: self.mlp(self.norm2[modality](x)), x)


def _recomputed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)`, of which the graph keeps only x."""
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)


class ConvStem(nn.Module):
    """A 7x7 convolution of stride 4, then 3x3 convolutions of stride 2, down to one position per patch (after Xiao et
    al. 2021)."""

    def __init__(self, channels: int, width: int, patch: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = (side // 4 for side in patch)
        if any(side < 8 or side & (side - 1) for side in patch):
            raise ValueError(f"a convolutional stem needs patch sides of 8, 16, 32, ..., got {patch}")
        size = width // 6
        layers: list[nn.Module] = [
            nn.Conv2d(channels, size, 7, stride=4, padding=3),
            ChannelNorm(size),
            nn.GELU(),
        ]
        while rows > 1 or columns > 1:
            stride = (2 if rows > 1 else 1, 2 if columns > 1 else 1)
            rows, columns = max(rows // 2, 1), max(columns // 2, 1)
            wider = min(size * 2, width)
            layers += [nn.Conv2d(size, wider, 3, stride=stride, padding=1), ChannelNorm(wider), nn.GELU()]
            size = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(size, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last))


class TwoTowerEncoder(nn.Module):
    """Audio and picture towers with their shared block.

    `unified`: the shared block runs once over the concatenated tokens of both modalities (CAV-MAE's joint path, which
    AVCap uses) instead of on each modality with separate norms. `picture=False` omits the picture tower.
    """

    def __init__(self, config: EncoderConfig, picture: bool = True, unified: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        """Whether training recomputes the activations inside blocks instead of keeping them."""
        d = config.width
        self.patch_embed_a = self._patches(1, config.audio_patch)
        self.modality_a = nn.Parameter(torch.zeros(1, 1, d))
        self.pos_embed_a = nn.Parameter(_sincos(*config.audio_grid, d))
        self.blocks_a = self._blocks(config.depth)
        if picture:
            self.patch_embed_v = self._patches(3, (config.image_patch,) * 2, picture=True)
            self.modality_v = nn.Parameter(torch.zeros(1, 1, d))
            side = config.image_size // config.image_patch
            tubelets = config.positions // config.frame_tokens
            self.pos_embed_v = nn.Parameter(_sincos(side, side, d).repeat(1, tubelets, 1))
            self.blocks_v = self._blocks(config.picture_depth or config.depth)
        joint = ("joint",) if unified and picture else ("a", "v") if picture else ("a",)
        self.blocks_u = self._blocks(config.shared_depth, joint)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(d) for name in joint})
        self.tag_head = (
            nn.Sequential(nn.LayerNorm(d), nn.Linear(d, config.tag_classes)) if config.tag_classes else None
        )
        self._initialise()

    @property
    def in_pairs(self) -> bool:
        """Whether a visual token covers two frames."""
        return self.config.picture_tokens == "tubelet" and self.config.frames > 1

    def _patches(self, channels: int, patch: tuple[int, int], picture: bool = False) -> nn.Module:
        config = self.config
        if config.stem == "conv":
            return ConvStem(channels, config.width, patch)
        if picture and self.in_pairs:
            return nn.Conv3d(channels, config.width, kernel_size=(2, *patch), stride=(2, *patch))
        return nn.Conv2d(channels, config.width, kernel_size=patch, stride=patch)

    def _blocks(self, depth: int, modalities: tuple[str, ...] = ("",)) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio, modalities) for _ in range(depth)
        )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.startswith("modality"):
                nn.init.normal_(parameter, std=0.02)
            elif name in ("patch_embed_a.weight", "patch_embed_v.weight"):
                nn.init.xavier_uniform_(parameter.flatten(1))

    def _run(self, blocks: nn.ModuleList, x: Tensor, *further: Any) -> Tensor:
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for block in blocks:
            x = checkpoint(block, x, *further, use_reentrant=False) if again else block(x, *further)
        return x

    def audio_tower(self, fbank: Tensor) -> Tensor:
        """fbank: (B, T, F), normalised. Returns tokens (B, T_a, d) before the shared block, frequency rows first."""
        x = self.patch_embed_a(fbank.transpose(1, 2).unsqueeze(1))  # (B, d, rows, columns)
        x = x.flatten(2).transpose(1, 2) + self.pos_embed_a + self.modality_a
        return self._run(self.blocks_a, x)

    def picture_tower(self, pixels: Tensor) -> Tensor:
        """pixels: (B, N, 3, S, S), normalised. Returns tokens (B, T_v, d) before the shared block.

        Frame tokens: T_v = N * S^2 / P^2, with attention inside each frame. Tubelets: half as many, with attention over
        all.
        """
        B, N = pixels.shape[:2]
        if self.in_pairs:
            if self.config.frames != N:
                raise ValueError(f"this model takes {self.config.frames} frames, got {N}")
            x = self.patch_embed_v(pixels.transpose(1, 2)).flatten(2).transpose(1, 2)  # (B, N/2 * patches, d)
            return self._run(self.blocks_v, x + self.pos_embed_v + self.modality_v)
        x = self.patch_embed_v(pixels.flatten(0, 1)).flatten(2).transpose(1, 2)  # (B * N, patches, d)
        x = self._run(self.blocks_v, x + self.pos_embed_v + self.modality_v)
        return x.unflatten(0, (B, N)).flatten(1, 2)

    def align_audio(self, x: Tensor) -> Tensor:
        """Runs the shared block with the audio norms on the tokens of the audio tower, (B, T_a, d)."""
        return self.norms["a"](self._run(self.blocks_u, x, "a"))

    def align_picture(self, x: Tensor) -> Tensor:
        """Runs the shared block with the picture norms on the tokens of the picture tower, (B, T_v, d), inside each
        frame."""
        B, T, _ = x.shape
        if self.config.picture_tokens == "frame":
            x = x.reshape(-1, self.config.frame_tokens, x.shape[-1])
        return self.norms["v"](self._run(self.blocks_u, x, "v")).reshape(B, T, -1)

    def token_mask(self, frame_mask: Tensor | None, tokens: int) -> Tensor | None:
        """The visual tokens that exist, bool (B, T_v), from the frames that exist, bool (B, N); None if all do.

        tokens: T_v. A tubelet exists if both of its frames do.
        """
        if frame_mask is None or bool(frame_mask.all()):
            return None
        if self.in_pairs:
            frame_mask = frame_mask.unflatten(1, (-1, 2)).all(dim=2)
        return frame_mask.repeat_interleave(tokens // frame_mask.shape[1], dim=1)

    def join(self, audio: Tensor, picture: Tensor | None, mask: Tensor | None) -> Tensor:
        """Runs the shared block on the concatenated tokens of both towers. Returns (B, T_a + T_v, d).

        mask: bool (B, T_a + T_v), True for tokens that exist; None if all do.
        """
        x = audio if picture is None else torch.cat((audio, picture), dim=1)
        return self.norms["joint"](self._run(self.blocks_u, x, "joint", mask))


def _sincos(rows: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions (1, rows * columns, width), half of the channels for each axis."""
    quarter = width // 4
    omega = 1.0 / 10000 ** (torch.arange(quarter) / quarter)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    parts = [f(axis.flatten()[:, None] * omega) for axis in (x, y) for f in (torch.sin, torch.cos)]
    table = torch.cat(parts, dim=1)
    return nn.functional.pad(table, (0, width - table.shape[1]))[None]
