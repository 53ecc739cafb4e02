"""Encodes captions as padded tokens for a training step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from evacap_cli.model import Tokenizer


def encode_captions(tokenizer: Tokenizer, captions: Sequence[str], max_words: int) -> tuple[Tensor, Tensor]:
    """Returns token ids int64 (B, L) and the mask of target tokens, bool (B, L): all but bos and padding."""
    rows = [torch.tensor(tokenizer.encode(caption, max_words)) for caption in captions]
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad)
    lengths = torch.tensor([len(row) for row in rows])
    position = torch.arange(tokens.shape[1])
    return tokens, (position > 0) & (position < lengths[:, None])
