"""The GIT-style text decoder (Wang et al. 2022): the prefix attends to itself, words attend to the prefix and to
earlier words.

The prefix does not depend on words, so its keys and values are computed once per clip and used by every beam and step.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from evacap_cli.model.config import DecoderConfig

KeysValues = list[tuple[Tensor, Tensor]]
"""Per layer: keys and values (B, h, T, d_head)."""


class DecoderLayer(nn.Module):
    """One post-norm BERT layer."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.widen = nn.Linear(config.width, config.feedforward)
        self.narrow = nn.Linear(config.feedforward, config.width)
        self.output_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.drop = nn.Dropout(config.dropout)
        self.mlp_checkpointing = False
        """Whether training recomputes the hidden values of the MLP instead of keeping them."""

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, T, d) to q, k, v (B, h, T, d_head)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, T, d). q: its queries. k, v: keys and values to attend to. mask: bool, broadcast to (B, h, T, T_k)."""
        dropout = self.dropout if self.training else 0.0
        look = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        x = self.attention_norm(x + self.drop(self.out(look.transpose(1, 2).flatten(2))))
        return self.output_norm(x + self.drop(self.mlp(x)))

    def mlp(self, x: Tensor) -> Tensor:
        if self.mlp_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self._mlp, x, use_reentrant=False, preserve_rng_state=False)
        return self._mlp(x)

    def _mlp(self, x: Tensor) -> Tensor:
        return self.narrow(gelu(self.widen(x)))


class TextDecoder(nn.Module):
    """Computes word logits from memory tokens. Word embedding and output layer share their weight."""

    layer: type[DecoderLayer] = DecoderLayer

    def __init__(self, config: DecoderConfig, memory_width: int) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        """Whether training recomputes the activations inside layers instead of keeping them."""
        self.project_memory = nn.Sequential(nn.Linear(memory_width, config.width), nn.LayerNorm(config.width))
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.embedding_norm = nn.LayerNorm(config.width, eps=config.embedding_norm_eps)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(self.layer(config) for _ in range(config.layers))
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.vocabulary: nn.Module | None = None
        """The packed output layer of `logits`; None if the weights are not packed."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        return self.output_bias.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the inputs; packed layers may compute in another precision."""
        return self.output_bias.dtype

    @property
    def output_parameters(self) -> list[Tensor]:
        """The parameters that `logits` uses."""
        return [self.words.weight, self.output_bias]

    @property
    def stack(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.layers))

    def _run(self, layer: DecoderLayer, *inputs: Any) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def embed(self, tokens: Tensor, position: Tensor) -> Tensor:
        """tokens and position: int64 (B, T). Returns (B, T, d)."""
        return self.drop(self.embedding_norm(self.words(tokens) + self.positions(position)))

    def encode_prefix(self, memory: Tensor, mask: Tensor | None) -> KeysValues:
        """memory: (B, P, d), mask: bool (B, P), True for tokens that exist. Returns the keys and values of each
        layer."""
        mask = None if mask is None else mask[:, None, None]
        x = self.project_memory(memory)
        cache = []
        for index, layer in enumerate(self.stack):
            q, k, v = layer.project(x)
            cache.append((k, v))
            if index + 1 < len(self.layers):  # the last layer's output for the prefix is not used
                x = self._run(layer, x, q, k, v, mask)
        return cache

    def hidden(self, prefix: KeysValues, mask: Tensor | None, tokens: Tensor) -> Tensor:
        """The hidden states (B, T, d) of all positions of `tokens` (B, T); each sees the prefix and earlier words."""
        B, T = tokens.shape
        past = torch.ones(T, T, dtype=torch.bool, device=tokens.device).tril()[None, None].expand(B, 1, T, T)
        P = prefix[0][0].shape[2]
        seen = (
            torch.ones(B, 1, T, P, dtype=torch.bool, device=tokens.device)
            if mask is None
            else mask[:, None, None].expand(B, 1, T, P)
        )
        attn_mask = torch.cat((seen, past), dim=-1)
        x = self.embed(tokens, torch.arange(T, device=tokens.device).expand(B, T))
        for layer, (keys, values) in zip(self.stack, prefix, strict=True):
            q, k, v = layer.project(x)
            x = self._run(layer, x, q, torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2), attn_mask)
        return x

    def forward(self, memory: Tensor, mask: Tensor | None, tokens: Tensor) -> Tensor:
        """Teacher-forced word logits (B, T, vocab) of memory (B, P, d), mask: bool (B, P), for tokens (B, T)."""
        return self.logits(self.hidden(self.encode_prefix(memory, mask), mask, tokens))

    def step(
        self, cache: KeysValues, slots: Tensor, visible: Tensor, tokens: Tensor, position: Tensor, prefix: int
    ) -> Tensor:
        """Returns the logits (B, K, vocab) of the next word for K beams of every clip.

        cache: buffers (B, h, S, d_head); the keys and values of this step are written to `slots`, int64 (K,). visible:
        bool (B, 1, K, S), the slots that each beam may see. tokens: int64 (B, K), the last word of each beam, at
        `position` (). prefix: the number of slots of the memory, which are the first (not used here).
        """
        x = self.embed(tokens, position.expand_as(tokens))
        for layer, (keys, values) in zip(self.stack, cache, strict=True):
            q, k, v = layer.project(x)
            keys.index_copy_(2, slots, k)
            values.index_copy_(2, slots, v)
            x = layer(x, q, keys, values, visible)
        return self.logits(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., d) to (..., vocab). For inference in fp32, because half precision cannot distinguish the best words."""
        if torch.is_grad_enabled():
            return linear(hidden, self.words.weight, self.output_bias)
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(self.words.weight.dtype)
            if self.vocabulary is not None:
                return self.vocabulary(hidden)
            return linear(hidden, self.words.weight, self.output_bias)
