"""CUDA graphs: kernels are recorded once and launched together, instead of one by one from Python.

At batch size 1, a GPU mostly waits for launches: a caption of 20 words takes thousands of small kernels. Each recording
is for one shape of its inputs. It is made when a shape occurs for the second time, and its first result is compared
with the plain computation. If recording fails or the results differ, the plain computation is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from evacap_cli.model.beam import BeamSearch, BeamSettings, CachedDecoding, Hypotheses
from evacap_cli.model.decoder import TextDecoder
from evacap_cli.model.lexicon import Rules

CHECK_EVERY = 4
"""Words between two checks whether all clips are done. Each check waits for the device; extra words change nothing."""
MAX_RECORDINGS = 16
"""Maximum number of recordings per model. Each holds the memory of its inputs, results and intermediate values."""
MAX_IMAGES = 32
"""Maximum number of images or sounds in a recorded pass of an encoder. Larger batches keep the device busy anyway."""

Recording = TypeVar("Recording")
Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Records a function of tensors that keep their storage, and returns a function that replays it on their new values."""


class RulesOf(Protocol):
    """The lexicon that makes the rules of a search."""

    def rules(self, allowed: Tensor) -> Rules: ...


class Deviation(RuntimeError):
    """A recording does not repeat what it recorded."""


def record_cuda(function: Callable[[], None]) -> Callable[[], None]:
    """`Record` for CUDA. Runs the function once before, because libraries allocate memory at their first use."""
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    # autocast's cache of converted weights would be freed while the graph still reads them
    with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
    return graph.replay


class Recordings:
    """The recordings of one model on one device."""

    def __init__(self, record: Record = record_cuda, most: int = MAX_RECORDINGS) -> None:
        self.record, self.most = record, most
        self.failure: str | None = None
        """The reason for recording nothing more; None while recording works."""
        self._seen: set[Hashable] = set()
        self._recorded: dict[Hashable, object] = {}

    def search(
        self, decoder: TextDecoder, memory: Tensor, mask: Tensor | None, settings: BeamSettings,
        lexicon: RulesOf | None = None, allowed: Tensor | None = None,
    ) -> Hypotheses | None:  # fmt: skip
        """The hypotheses of `BeamSearch` with `CachedDecoding`, or None if the caller must search without a recording.

        memory: (B, P, d). mask: bool (B, P) or None. lexicon and allowed, bool (B, V): both or none.
        """
        key = (id(decoder), memory.shape, memory.dtype, mask is None, allowed is None, settings, _autocast())

        def build(record: Record) -> RecordedSearch:
            return RecordedSearch(record, decoder, memory, mask, settings, lexicon, allowed)

        found = self._get(key, RecordedSearch, build)
        return None if found is None else found(memory, mask, allowed)

    def encode(self, name: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Returns `function(x)`. name: identifies the function."""
        if len(x) > MAX_IMAGES:
            return function(x)
        key = (name, x.shape, x.dtype, _autocast())
        found = self._get(key, RecordedFunction, lambda record: RecordedFunction(record, function, x))
        return function(x) if found is None else found(x)

    def _get(
        self, key: Hashable, kind: type[Recording], build: Callable[[Record], Recording]
    ) -> Recording | None:
        """The recording for `key`, which is made when the key occurs for the second time."""
        wanted = key in self._seen and key not in self._recorded and len(self._recorded) < self.most
        if wanted and self.failure is None:
            try:
                self._recorded[key] = build(self.record)
            except RuntimeError as error:  # an operation that cannot be recorded, too little memory
                self.failure = " ".join(str(error).split())[:200]
                self._recorded.clear()
                logging.getLogger(__name__).warning(
                    "kernels are launched one by one: recording them failed (%s)", self.failure
                )
        self._seen.add(key)
        found = self._recorded.get(key)
        return found if isinstance(found, kind) else None


class RecordedFunction:
    """A function of one tensor, for one shape. Raises RuntimeError if it cannot be recorded."""

    def __init__(self, record: Record, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.input, self.output = x.clone(), torch.empty(0)

        def run() -> None:
            self.output = function(self.input)

        self.replay = record(run)
        plain, recorded = function(x), self(x)
        if plain.shape != recorded.shape or not torch.allclose(plain, recorded, rtol=1e-3, atol=1e-3):
            raise Deviation("the recording of an encoder returns other values")

    def __call__(self, x: Tensor) -> Tensor:
        self.input.copy_(x)
        self.replay()
        return self.output.clone()


class RecordedSearch:
    """Beam search with a recorded step, for one shape. Raises RuntimeError if it cannot be recorded."""

    def __init__(
        self, record: Record, decoder: TextDecoder, memory: Tensor, mask: Tensor | None, settings: BeamSettings,
        lexicon: RulesOf | None, allowed: Tensor | None,
    ) -> None:  # fmt: skip
        self.decoding = CachedDecoding(decoder, memory, mask, settings)
        self.allowed = None if allowed is None else allowed.clone()
        rules = None if lexicon is None or self.allowed is None else lexicon.rules(self.allowed)
        self.beams = BeamSearch(self.decoding, len(memory), settings, memory.device, rules)
        plain = self.beams.run().clone()
        self._reset(memory, mask)  # recording runs a step, which needs room
        self.replay = record(self.beams.advance)
        recorded = self(memory, mask, allowed)
        if not torch.equal(plain.tokens, recorded.tokens):
            raise Deviation("the recording of a step returns other captions")

    def __call__(self, memory: Tensor, mask: Tensor | None, allowed: Tensor | None) -> Hypotheses:
        if self.allowed is not None and allowed is not None:
            self.allowed.copy_(allowed)
        self._reset(memory, mask)
        return self.beams.run(self.replay, CHECK_EVERY).clone()

    def _reset(self, memory: Tensor, mask: Tensor | None) -> None:
        self.decoding.reset(memory, mask)
        self.beams.reset()


def _autocast() -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
