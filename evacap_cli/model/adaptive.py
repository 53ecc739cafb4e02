"""V-ACT (Liu et al. 2023, "Visually-Aware Audio Captioning With Adaptive Audio-Visual Attention").

In every layer of the decoder, the text attends to the sound and to the picture separately, and a confidence weighs the
two for each word.

The paper gives no formula for the confidence, and the published code does not contain it. Here a linear map of the
text's state x gives it: c = sigmoid(w . x + b), and the text receives (1 - c) * sound + c * picture.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from evacap_cli.model.config import DecoderConfig, EncoderConfig, ModelConfig
from evacap_cli.model.decoder import DecoderLayer, KeysValues, TextDecoder
from evacap_cli.model.evidence import pooled_tags
from evacap_cli.model.fused import Fused, Tags


class AdaptiveFusion(nn.Module):
    """The memory of `AdaptiveDecoder`: the audio tokens, the best tags of the audio if set, and one token per frame."""

    has_gate = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        encoder = config.encoder
        self.frame_tokens = encoder.frame_tokens if isinstance(encoder, EncoderConfig) else 1
        self.tags = config.adaptive.tags
        if self.tags:
            self.tag_tokens = nn.Embedding(encoder.tag_classes, encoder.width)
            nn.init.normal_(self.tag_tokens.weight, std=0.02)

    def forward(
        self, audio: Tensor, picture: Tensor | None, mask: Tensor | None, tags: Tags | None = None
    ) -> Fused:
        """audio: (B, T_a, d). picture: (B, T_v, d) or None, T_v a multiple of the tokens of a frame. mask: bool
        (B, T_v), True for tokens that exist. tags: the first, logits (B, T_a, C) of the audio tokens, is used if
        `adaptive.tags` is set. The tokens of the result are (B, T_a + tags + N, d)."""
        parts = [audio]
        if self.tags and tags is not None:
            best = pooled_tags(tags[0]).topk(self.tags, dim=1).indices
            parts.append(self.tag_tokens(best).to(audio.dtype))
        heard = sum(part.shape[1] for part in parts)
        if picture is None:
            return Fused(torch.cat(parts, dim=1))
        frames = picture.unflatten(1, (-1, self.frame_tokens)).mean(dim=2)  # (B, N, d)
        if mask is not None:
            exists = mask.unflatten(1, (-1, self.frame_tokens)).any(dim=2)
            mask = torch.cat((mask.new_ones(len(mask), heard), exists), dim=1)
        return Fused(torch.cat((*parts, frames.to(audio.dtype)), dim=1), mask)


class AdaptiveLayer(DecoderLayer):
    """A post-norm layer with two cross-attentions between its self-attention and its feed-forward part."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        width = config.width
        self.query = nn.Linear(width, width)
        self.hear, self.see = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.hear_out, self.see_out = nn.Linear(width, width), nn.Linear(width, width)
        self.confidence = nn.Linear(width, 1)
        self.context_norm = nn.LayerNorm(width, eps=config.norm_eps)

    def context(self, memory: Tensor, sounds: int) -> tuple[Tensor, Tensor]:
        """memory: (B, P, d); the first `sounds` tokens are the audio tokens. Returns keys and values (B, h, P,
        d_head)."""
        parts = (self.hear(memory[:, :sounds]), self.see(memory[:, sounds:]))
        k, v = torch.cat(parts, dim=1).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def forward(  # type: ignore[override]
        self, x: Tensor, own: tuple[Tensor, Tensor, Tensor], mask: Tensor | None, context: tuple[Tensor, Tensor],
        sounds: int, seen: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """x: (B, T, d). own: its queries, keys and values. mask: bool, broadcast to (B, h, T, T_k). context: keys and
        values (B, h, P, d_head) of the memory. seen: bool (B, 1, 1 or T, P - sounds), True for frames that exist; None
        if all do.

        Returns the layer's output (B, T, d) and the confidence in the picture (B, T), 0 without a picture.
        """
        dropout = self.dropout if self.training else 0.0

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            look = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
            return look.transpose(1, 2).flatten(2)

        x = self.attention_norm(x + self.drop(self.out(attend(*own, mask))))
        keys, values = context
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        context_features = self.hear_out(attend(q, keys[:, :, :sounds], values[:, :, :sounds], None))
        confidence = x.new_zeros(x.shape[:2])
        if keys.shape[2] > sounds:
            confidence = torch.sigmoid(self.confidence(x)).squeeze(-1)
            if seen is not None:
                present = seen.any(dim=-1, keepdim=True)
                seen = seen | ~present
                confidence = torch.where(present[:, 0, :, 0], confidence, 0.0)
            shown = self.see_out(attend(q, keys[:, :, sounds:], values[:, :, sounds:], seen))
            weight = confidence[..., None].to(context_features.dtype)
            context_features = torch.lerp(context_features, shown, weight)
        x = self.context_norm(x + self.drop(context_features))
        return self.output_norm(x + self.drop(self.mlp(x))), confidence


class AdaptiveDecoder(TextDecoder):
    """A decoder whose layers are `AdaptiveLayer`. The buffers are those of `TextDecoder`: in each layer, the keys and
    values of the memory come first, then those of the words. The text attends to memory and words separately."""

    layer = AdaptiveLayer

    def __init__(self, config: DecoderConfig, memory_width: int, sounds: int) -> None:
        """sounds: the number of audio tokens, which are the first tokens of the memory."""
        super().__init__(config, memory_width)
        self.sounds = sounds

    def encode_prefix(self, memory: Tensor, mask: Tensor | None) -> KeysValues:
        x = self.project_memory(memory)
        return [cast("AdaptiveLayer", layer).context(x, self.sounds) for layer in self.stack]

    def hidden(self, prefix: KeysValues, mask: Tensor | None, tokens: Tensor) -> Tensor:
        return self._all(prefix, mask, tokens)[0]

    def confidences(self, memory: Tensor, mask: Tensor | None, tokens: Tensor) -> Tensor:
        """The weight of the picture at each position of `tokens` (B, T), mean over layers: float32 (B, T) in [0, 1].
        Position t predicts word t + 1."""
        return self._all(self.encode_prefix(memory, mask), mask, tokens)[1]

    def _all(self, prefix: KeysValues, mask: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor]:
        B, T = tokens.shape
        past = torch.ones(T, T, dtype=torch.bool, device=tokens.device).tril()
        seen = None if mask is None else mask[:, None, None, self.sounds :]
        x = self.embed(tokens, torch.arange(T, device=tokens.device).expand(B, T))
        found = []
        for layer, context in zip(self.stack, prefix, strict=True):
            x, confidence = self._run(layer, x, layer.project(x), past, context, self.sounds, seen)
            found.append(confidence.float())
        return x, torch.stack(found).mean(dim=0)

    def step(
        self, cache: KeysValues, slots: Tensor, visible: Tensor, tokens: Tensor, position: Tensor, prefix: int
    ) -> Tensor:
        x = self.embed(tokens, position.expand_as(tokens))
        seen, past = visible[..., self.sounds : prefix], visible[..., prefix:]
        for layer, (keys, values) in zip(self.stack, cache, strict=True):
            q, k, v = layer.project(x)
            keys.index_copy_(2, slots, k)
            values.index_copy_(2, slots, v)
            own = (q, keys[:, :, prefix:], values[:, :, prefix:])
            context = (keys[:, :, :prefix], values[:, :, :prefix])
            x, _ = layer(x, own, past, context, self.sounds, seen)
        return self.logits(x)
