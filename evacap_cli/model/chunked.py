"""Sums over rows that are computed part by part, with their gradients, so that no large intermediate value is kept.

The logits of all words of a batch take as much memory as the largest activations: 48 captions of 20 words and 30,522
words are 117 MB in fp32, and the loss and its gradient need several tensors of this size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

MAX_LOGITS = 2**24
"""Maximum number of logits at once: 64 MB in fp32."""
SCALE = 256.0
"""Factor of the sum while its gradients are computed, so that those of unlikely words do not vanish in fp16."""
SumOf = Callable[..., Tensor]
"""Maps parts of the inputs, (r, ...) each, to the sum () over their rows."""


def chunked_sum(function: SumOf, inputs: Sequence[Tensor], parameters: Sequence[Tensor], rows: int) -> Tensor:
    """Returns `function(*inputs)`, which is a sum over the rows of the inputs, from parts of at most `rows` rows.

    inputs: (R, ...) each. parameters: the tensors that `function` also uses. Gradients reach the inputs and the
    parameters that need one. They are computed with the sum, part by part, so that nothing is computed twice and the
    backward pass only scales them.
    """
    if len(inputs[0]) <= rows:
        return function(*inputs)
    if not torch.is_grad_enabled():
        parts = _parts(len(inputs[0]), rows)
        return torch.stack([function(*(x[part] for x in inputs)) for part in parts]).sum()
    return _ChunkedSum.apply(function, rows, len(inputs), *inputs, *parameters)


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: SumOf, rows: int, count: int, *tensors: Tensor) -> Tensor:
        inputs, parameters = tensors[:count], tensors[count:]
        needed = [i for i, wanted in enumerate(ctx.needs_input_grad[3:]) if wanted]
        gradients = {i: torch.zeros_like(tensors[i]) for i in needed}
        values = []
        for place in _parts(len(inputs[0]), rows):
            parts = [x[place].detach().requires_grad_(i in gradients) for i, x in enumerate(inputs)]
            with torch.set_grad_enabled(bool(needed)):
                value = function(*parts)
            values.append(value.detach())
            if not needed:
                continue
            leaves = [parts[i] if i < count else parameters[i - count] for i in needed]
            found = torch.autograd.grad(value, leaves, torch.full_like(value, SCALE), allow_unused=True)
            for i, gradient in zip(needed, found, strict=True):
                if gradient is not None:
                    into = gradients[i][place] if i < count else gradients[i]
                    into += gradient / SCALE
        ctx.needed = needed
        ctx.save_for_backward(*gradients.values())
        return torch.stack(values).sum()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = outputs
        found: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for i, gradient in zip(ctx.needed, ctx.saved_tensors, strict=True):
            found[3 + i] = gradient * output
        return tuple(found)


def _parts(length: int, rows: int) -> Iterator[slice]:
    return (slice(start, start + rows) for start in range(0, length, rows))
