"""How the picture is let into the sound: one class for each `fusion` kind (EVACap section 2.2 and its baselines)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from evacap_cli.model.adaptive import AdaptiveFusion
from evacap_cli.model.attention import entropy_attention
from evacap_cli.model.config import ModelConfig, TagEncoderConfig
from evacap_cli.model.evidence import Evidence, pooled_tags
from evacap_cli.model.fused import Fused
from evacap_cli.model.optimal_transport import OptimalTransport
from evacap_cli.model.tag_evidence import TagEvidence


class CrossAttention(nn.Module):
    """Sound asks, picture answers: F = W_o softmax(Q K^T / sqrt(d_head)) V, and A + F (the paper's row "w/o G")."""

    has_gate = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def project(self, audio: Tensor, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, d) tokens to per-head q, k, v (B, h, T, d_head)."""
        split = (self.heads, -1)
        q = self.query(audio).unflatten(-1, split).transpose(1, 2)
        k, v = self.key_value(picture).unflatten(-1, (2, *split)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge(self, heads: Tensor) -> Tensor:
        return self.out(heads.transpose(1, 2).flatten(2))

    def attend(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.project(audio, picture)
        return self.merge(
            scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        )

    def combine(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Fused:
        return Fused(audio + self.attend(audio, picture, mask))

    def forward(self, audio: Tensor, picture: Tensor | None, mask: Tensor | None) -> Fused:
        """audio: (B, T_a, d), picture: (B, T_v, d) or None, mask: bool (B, T_v), True for tokens that exist."""
        if picture is None:
            return self._without_picture(audio)
        if mask is None:
            return self.combine(audio, picture, None)
        present = mask.any(dim=1)
        fused = self.combine(audio, picture, mask | ~present[:, None])
        fused.tokens = torch.where(present[:, None, None], fused.tokens, audio)
        if fused.gate is not None:
            fused.gate = torch.where(present[:, None], fused.gate, 0.0)
        if fused.entropy is not None:
            fused.entropy = torch.where(present[:, None], fused.entropy, torch.nan)
        return fused

    def _without_picture(self, audio: Tensor) -> Fused:
        return Fused(audio, gate=audio.new_zeros(audio.shape[:2]) if self.has_gate else None)


class LearnedGate(CrossAttention):
    """g = sigmoid(W [A; F]) per token: an ordinary gate (rows "w/o E" and "w/o S&E")."""

    has_gate = True

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gate = nn.Linear(2 * width, 1)

    def combine(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Fused:
        seen = self.attend(audio, picture, mask)
        gate = torch.sigmoid(self.gate(torch.cat((audio, seen), dim=-1)))
        return Fused((1 - gate) * audio + gate * seen, gate=gate.squeeze(-1))


class EntropyGate(CrossAttention):
    """g = sigmoid(w_g E + b_g): the more scattered the look, the less the picture may say (equations 2 and 3)."""

    has_gate = True

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gate_weight = nn.Parameter(torch.tensor(-1.0))
        self.gate_bias = nn.Parameter(torch.tensor(0.0))

    def combine(self, audio: Tensor, picture: Tensor, mask: Tensor | None) -> Fused:
        output, entropy = entropy_attention(*self.project(audio, picture), mask)
        seen, entropy = self.merge(output), entropy.mean(dim=1)  # averaged over heads: (B, T_a)
        gate = torch.sigmoid(self.gate_weight * entropy + self.gate_bias)
        weight = gate[..., None].to(audio.dtype)
        return Fused((1 - weight) * audio + weight * seen, gate=gate, entropy=entropy)

    def _without_picture(self, audio: Tensor) -> Fused:
        fused = super()._without_picture(audio)
        fused.entropy = torch.full_like(audio[..., 0], torch.nan)
        return fused


Tags = tuple[Tensor, Tensor]
"""Tag logits of audio and picture tokens, (B, T_a, C) and (B, T_v, C); of tag towers, the tags themselves."""


class EvidenceSwitch(CrossAttention):
    """Cross-attention behind a switch: A + F where sound and picture belong together, and A itself, untouched, where
    they do not. In training the picture is always in, and `match_loss` teaches the evidence to tell."""

    has_gate = True
    trained_by_match = ("fusion.evidence",)

    def __init__(self, config: ModelConfig) -> None:
        encoder = config.encoder
        super().__init__(encoder.width, encoder.heads)
        self.config, self.grid, self.frame_tokens = config.evidence, encoder.audio_grid, encoder.frame_tokens
        self.evidence: Evidence | TagEvidence = (
            TagEvidence(encoder)
            if isinstance(encoder, TagEncoderConfig)
            else Evidence(encoder, config.evidence)
        )

    def match_loss(self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: Tags | None) -> Tensor:
        return self.evidence.loss(audio, picture, mask, self._compared(tags, mask))  # type: ignore[arg-type]

    def _compared(self, tags: Tags | None, mask: Tensor | None) -> Tags | None:
        """Tags as the evidence takes them: of CAV-MAE's tokens, logits (B, C) of each side."""
        if tags is None or isinstance(self.evidence, TagEvidence):
            return tags
        return pooled_tags(tags[0]), pooled_tags(tags[1], mask)

    def forward(
        self, audio: Tensor, picture: Tensor | None, mask: Tensor | None, tags: Tags | None = None
    ) -> Fused:
        """As `CrossAttention`, with the tag logits of all tokens where the encoder has a tag head."""
        B = len(audio)
        if self.training:
            fused = super().forward(audio, picture, mask)
            fused.open = (
                mask.any(dim=1) if mask is not None else audio.new_full((B,), picture is not None).bool()
            )
            return fused
        if picture is None:
            fused = self._without_picture(audio)
            fused.open = audio.new_zeros(B).bool()
            fused.evidence = audio.new_full((B, self.config.windows), torch.nan, dtype=torch.float32)
            fused.cues = audio.new_full((B, len(self.evidence.cues)), torch.nan, dtype=torch.float32)
            return fused
        windows = self._windows(audio, picture, mask, tags)
        asked = [self._ask(*window) for window in windows]
        evidence = torch.stack([self.evidence.probability(cues) for cues in asked], dim=1)  # (B, W)
        cues = asked[0] if len(asked) == 1 else self._ask(audio, picture, mask, tags)
        fits = evidence >= self.config.threshold  # False for NaN
        if fits.shape[1] == 1:
            gate, shown = fits.expand(audio.shape[:2]), fits.expand(picture.shape[:2])
        else:
            gate, shown = self._by_window(fits, picture.shape[1])
        tokens, some = audio, fits.any(dim=1)
        if bool(some.any()):
            visible = shown if mask is None else shown & mask
            looking = None if bool(visible[some].all()) else visible[some]
            open_ = super().combine(audio[some], picture[some], looking).tokens
            tokens = audio.clone()
            tokens[some] = torch.where(gate[some][..., None], open_.to(audio.dtype), audio[some])
        return Fused(tokens, gate=gate.float(), evidence=evidence, cues=cues, open=some)

    def _by_window(self, fits: Tensor, picture_tokens: int) -> tuple[Tensor, Tensor]:
        """fits: bool (B, W), windows whose picture is let in. For each token of sound (B, T_a) and of the picture
        (B, T_v), whether it is in such a window."""
        rows, columns = self.grid
        gate = torch.cat([
            fit[:, None, None].expand(-1, rows, part)
            for fit, part in zip(fits.unbind(1), _parts(columns, fits.shape[1]), strict=True)
        ], dim=2).flatten(1)  # fmt: skip
        frames = picture_tokens // self.frame_tokens
        shown = torch.cat([
            fit[:, None].expand(-1, part * self.frame_tokens)
            for fit, part in zip(fits.unbind(1), _parts(frames, fits.shape[1]), strict=True)
        ], dim=1)  # fmt: skip
        return gate, shown

    def _ask(self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: Tags | None) -> Tensor:
        """Cues (B, K), NaN where there is no picture."""
        present = None if mask is None else mask.any(dim=1)
        if present is not None and mask is not None:
            mask = mask | ~present[:, None]
        cues = self.evidence(audio, picture, mask, self._compared(tags, mask))
        return cues if present is None else torch.where(present[:, None], cues, torch.nan)

    def _windows(
        self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: Tags | None
    ) -> list[tuple[Tensor, Tensor, Tensor | None, Tags | None]]:
        """What is compared, a window at a time: tokens of a stretch of sound, and of the frames shown meanwhile."""
        wanted = min(self.config.windows, self.grid[1], picture.shape[1] // self.frame_tokens)
        if wanted == 1:
            return [(audio, picture, mask, tags)]

        def hear(x: Tensor) -> list[Tensor]:
            return [part.flatten(1, 2) for part in x.unflatten(1, self.grid).tensor_split(wanted, dim=2)]

        def see(x: Tensor) -> list[Tensor]:
            frames = x.unflatten(1, (-1, self.frame_tokens))
            return [part.flatten(1, 2) for part in frames.tensor_split(wanted, dim=1)]

        masks = [None] * wanted if mask is None else see(mask)
        told = [None] * wanted if tags is None else list(zip(hear(tags[0]), see(tags[1]), strict=True))
        return list(zip(hear(audio), see(picture), masks, told, strict=True))


def _parts(length: int, windows: int) -> list[int]:
    """How `tensor_split` shares `length` out."""
    return [length // windows + (i < length % windows) for i in range(windows)]


class Concatenation(nn.Module):
    """AVCap: tokens of both modalities side by side, mixed by the encoder's shared block."""

    has_gate = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()


class AudioOnly(nn.Module):
    """No picture at all."""

    has_gate = False

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()


_KINDS: dict[str, type[nn.Module]] = {
    "entropy-gate": EntropyGate,
    "gate": LearnedGate,
    "cross-attention": CrossAttention,
    "concat": Concatenation,
    "audio-only": AudioOnly,
}
_CONFIGURED: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "evidence": EvidenceSwitch,
    "adaptive": AdaptiveFusion,
    "optimal-transport": OptimalTransport,
}


def build_fusion(config: ModelConfig) -> nn.Module:
    """The module for a `fusion` setting."""
    if config.fusion in _CONFIGURED:
        return _CONFIGURED[config.fusion](config)
    return _KINDS[config.fusion](config.encoder.width, config.encoder.heads)
