"""Captions as a training step needs them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from evacap_cli.model import Tokenizer


def encode_captions(tokenizer: Tokenizer, captions: Sequence[str], max_words: int) -> tuple[Tensor, Tensor]:
    """Token numbers int64 (B, L) and which of them are to be predicted, bool (B, L): all but bos and padding."""
    rows = [torch.tensor(tokenizer.encode(caption, max_words)) for caption in captions]
    tokens = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad)
    lengths = torch.tensor([len(row) for row in rows])
    place = torch.arange(tokens.shape[1])
    return tokens, (place > 0) & (place < lengths[:, None])
