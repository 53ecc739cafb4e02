"""LAVCap's fusion (Rho et al. 2025, "LAVCap: LLM-based Audio-Visual Captioning using Optimal Transport").

Entropic optimal transport assigns audio tokens to frames. The plan transports the tokens of each modality to the other
one. In training, its value aligns the two towers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from evacap_cli.model.config import EncoderConfig, ModelConfig
from evacap_cli.model.fused import Fused, Tags

MAX_LOG_SCALE = 4.6052
"""Maximum of the logarithm of the loss's scale: the scale is at most 100 (as in the public code of the paper)."""
INITIAL_LOG_SCALE = math.log(1 / 0.07)


@torch.no_grad()
def transport_plan(
    similarity: Tensor, mask: Tensor | None = None, epsilon: float = 0.1, iterations: int = 50
) -> Tensor:
    """Sinkhorn's algorithm in the log domain, for the cost -similarity and uniform marginals.

    similarity: (..., n, m). mask: bool (..., m), True for columns that exist, at least one. Returns float32 (..., n,
    m): rows sum to 1 / n exactly; columns converge to 1 over the number of columns. No gradient flows through it.
    """
    with torch.autocast(similarity.device.type, enabled=False):
        scores = similarity.float() / epsilon
        n, m = scores.shape[-2:]
        columns = torch.full((*scores.shape[:-2], m), -math.log(m), device=scores.device)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None, :], float("-inf"))
            columns = (-mask.sum(dim=-1, keepdim=True).float().log()).expand_as(columns)
        u = scores.new_zeros(*scores.shape[:-1])
        v = scores.new_zeros(columns.shape)
        for _ in range(iterations):
            v = columns - (scores + u[..., None]).logsumexp(dim=-2)
            if mask is not None:
                v = v.masked_fill(~mask, 0.0)
            u = -math.log(n) - (scores + v[..., None, :]).logsumexp(dim=-1)
        return (scores + u[..., None] + v[..., None, :]).exp()


class OptimalTransport(nn.Module):
    """[sound; transported picture] followed by [transported sound; picture], and a projection to the towers' width.

    As in the paper, audio tokens are means over frequency, and there is one visual token per frame; all have unit
    length. A transported token is the mean of the other modality's tokens, weighted by the plan.
    """

    has_gate = False
    cues = ("transport",)
    trained_by_match = ("fusion.scale",)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        encoder = config.encoder
        self.config = config.transport
        patches = isinstance(encoder, EncoderConfig)
        self.rows = encoder.audio_grid[0] if patches else 1
        self.frame_tokens = encoder.frame_tokens if patches else 1
        self.project = nn.Linear(2 * encoder.width, encoder.width)
        self.scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE))
        """Logarithm of the factor of the similarities in the loss."""

    def plan(self, similarity: Tensor, mask: Tensor | None) -> Tensor:
        return transport_plan(similarity, mask, self.config.epsilon, self.config.iterations)

    def hear(self, audio: Tensor) -> Tensor:
        """(B, T_a, d), frequency rows first, to unit tokens (B, n, d) of the columns."""
        return normalize(audio.unflatten(1, (self.rows, -1)).mean(dim=1), dim=-1)

    def see(self, picture: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, T_v, d) to unit tokens (B, m, d) of the frames, and bool (B, m), True for frames that exist."""
        frames = normalize(picture.unflatten(1, (-1, self.frame_tokens)).mean(dim=2), dim=-1)
        return frames, None if mask is None else mask.unflatten(1, (-1, self.frame_tokens)).any(dim=2)

    def forward(
        self, audio: Tensor, picture: Tensor | None, mask: Tensor | None, tags: Tags | None = None
    ) -> Fused:
        """audio: (B, T_a, d). picture: (B, T_v, d) or None. mask: bool (B, T_v), True for tokens that exist. tags: not
        used.

        The tokens of the result are (B, n + m, d), and (B, n, d) without a picture. `cues` is (B, 1): the value of the
        plan, sum of Q x similarity in [-1, 1], NaN for clips without a picture.
        """
        sound = self.hear(audio)
        if picture is None:
            return self._without_picture(sound)
        frames, exists = self.see(picture, mask)
        there = None
        if exists is not None:
            there = exists.any(dim=1)
            exists = exists | ~there[:, None]
        similarity = sound @ frames.transpose(1, 2)
        plan = self.plan(similarity, exists)
        value = (plan * similarity.float()).sum(dim=(1, 2))
        to_sound = (plan / plan.sum(dim=2, keepdim=True)).to(frames.dtype) @ frames
        # a column that does not exist has no mass; its token is masked
        to_frames = (plan / plan.sum(dim=1, keepdim=True).clamp(min=1e-30)).to(sound.dtype).transpose(
            1, 2
        ) @ sound
        if there is not None:
            to_sound = torch.where(there[:, None, None], to_sound, 0.0)
            value = torch.where(there, value, torch.nan)
        pairs = torch.cat((torch.cat((sound, to_sound), -1), torch.cat((to_frames, frames), -1)), dim=1)
        fused = Fused(self.project(pairs), cues=value[:, None])
        if there is not None and exists is not None:
            fused.mask = torch.cat((exists.new_ones(sound.shape[:2]), exists & there[:, None]), dim=1)
        return fused

    def _without_picture(self, sound: Tensor) -> Fused:
        cues = sound.new_full((len(sound), 1), torch.nan, dtype=torch.float32)
        return Fused(self.project(torch.cat((sound, torch.zeros_like(sound)), dim=-1)), cues=cues)

    def match_loss(
        self, audio: Tensor, picture: Tensor, mask: Tensor | None, tags: Tags | None = None
    ) -> Tensor:
        """The alignment loss: cross-entropy of scale x (sum of Q x similarity) over the batch, each sound against all
        pictures and each picture against all sounds, added up. Clips without a picture do not take part.

        The public code compares the tokens of one clip with one another instead of the clips of a batch.
        """
        frames, exists = self.see(picture, mask)
        sound = self.hear(audio)
        if exists is not None:
            some = exists.any(dim=1)
            sound, frames, exists = sound[some], frames[some], exists[some]
        if len(sound) < 2:
            return 0 * (sound.sum() + frames.sum() + self.scale)
        similarity = torch.einsum("ind,jmd->ijnm", sound, frames)
        wide = None if exists is None else exists[None].expand(len(sound), -1, -1)
        values = (self.plan(similarity, wide) * similarity.float()).sum(dim=(2, 3))
        logits = self.scale.float().clamp(0.0, MAX_LOG_SCALE).exp() * values
        own = torch.arange(len(logits), device=logits.device)
        return cross_entropy(logits, own) + cross_entropy(logits.T, own)
