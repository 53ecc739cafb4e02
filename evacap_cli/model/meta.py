"""Models without weights, on the device `meta`: to read shapes, or to assign weights that are read from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

RANDOM = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules that are built in this context have no weights.

    Their initialisation is skipped: for normally distributed weights on this device, PyTorch would import its compiler,
    which takes as long as importing torch.
    """
    with torch.device("meta"), _SkippedInitialisation():
        yield


class _SkippedInitialisation(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in RANDOM:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
