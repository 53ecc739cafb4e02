"""Recorded kernels: the same code as on CUDA with a recorder that runs the function instead of a graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model import FUSIONS, CaptionModel
from evacap_cli.model.beam import BeamSearch, BeamSettings, CachedDecoding
from evacap_cli.model.fused import Fused
from evacap_cli.model.graphs import CHECK_EVERY, MAX_IMAGES, Recordings

from .samples import random_clips, random_model

Function = Callable[[], None]


class Recorder:
    """Runs a function once, as the warm-up of a graph does, and repeats it by running it again."""

    def __init__(self) -> None:
        self.made, self.replays = 0, 0

    def __call__(self, function: Function) -> Function:
        self.made += 1
        function()

        def replay() -> None:
            self.replays += 1
            function()

        return replay


def fails(function: Function) -> Function:
    raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")


def repeats_nothing(function: Function) -> Function:
    return lambda: None


def memory_of(model: CaptionModel, seed: int, batch: int = 3, mask: Tensor | None = None) -> Fused:
    fbank, pixels = random_clips(batch, seed)
    with torch.inference_mode():
        picture = model.encode_picture(pixels) if model.has_picture else None
        return model.fuse(model.encode_audio(fbank), picture, mask)


def same(a: Any, b: Any) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.score, b.score)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "masked"),
    [*((fusion, False) for fusion in FUSIONS), *((fusion, True) for fusion in ("entropy-gate", "evidence"))],
)
def test_recorded_searches_equal_plain_ones(fusion: str, masked: bool) -> None:
    """Bit by bit, on clips that the recording has not seen, whose captions differ in length."""
    mask = torch.tensor([[True] * 3, [True, False, False], [True] * 3]) if masked else None
    lengths = set()
    for number in (1, 2, 7):
        model, recorder = random_model(fusion, number), Recorder()
        memories = [memory_of(model, seed, mask=mask) for seed in range(4)]
        plain = [model.decode(memory, 3, 28) for memory in memories]
        model.recordings = Recordings(recorder)
        found = [model.decode(memory, 3, 28) for memory in memories]
        assert all(same(a, b) for a, b in zip(found, plain, strict=True))
        assert model.recordings.failure is None
        if fusion != "evidence":  # which searches with two decoders, for numbers of clips that differ
            assert recorder.made == 1
            assert recorder.replays >= 3 * CHECK_EVERY
        lengths |= {row.tolist().index(model.eos) for generation in plain for row in generation.tokens}
    assert len(lengths) > 3


def test_a_later_replay_does_not_change_earlier_results() -> None:
    model = random_model("entropy-gate", 4)
    model.recordings = Recordings(Recorder())
    memories = [memory_of(model, seed) for seed in range(3)]
    results = [model.decode(memory) for memory in memories]
    copies = [result.tokens.clone() for result in results]
    model.decode(memories[0])
    assert all(torch.equal(a.tokens, b) for a, b in zip(results, copies, strict=True))
    assert not torch.equal(results[1].tokens, results[2].tokens)


def test_the_first_search_of_a_shape_is_not_recorded() -> None:
    """Each shape has a recording of its own."""
    model, recorder = random_model("gate", 1), Recorder()
    model.recordings = Recordings(recorder)
    made = []
    for batch, beams, words in ((2, 4, 9), (2, 4, 8), (2, 3, 9), (3, 4, 9), (2, 4, 9), (2, 4, 9), (3, 4, 9)):
        model.decode(memory_of(model, 0, batch), beams, words)
        made.append(recorder.made)
    decoding = [0, 0, 0, 0, 1, 1, 2]
    encoding = [0, 2, 2, 2, 2, 2, 4]  # audio and pictures: each batch size once
    assert made == [a + b for a, b in zip(decoding, encoding, strict=True)]


def test_encoders_are_recorded_up_to_a_size() -> None:
    model, recorder = random_model("cross-attention", 2), Recorder()
    clips = [random_clips(4, seed, 2) for seed in range(3)]
    with torch.inference_mode():
        expected = [(model.encode_audio(fbank), model.encode_picture(pixels)) for fbank, pixels in clips]
        model.recordings = Recordings(recorder)
        for _ in range(2):
            for (fbank, pixels), (audio, picture) in zip(clips, expected, strict=True):
                assert torch.equal(model.encode_audio(fbank), audio)
                assert torch.equal(model.encode_picture(pixels), picture)
        assert recorder.made == 2
        large = torch.ones(MAX_IMAGES + 1, 2)
        for _ in range(3):
            assert torch.equal(model.recordings.encode("sums", lambda x: x.sum(1), large), large.sum(1))
    assert recorder.made == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("record", "why"), [(fails, "operation not permitted when"), (repeats_nothing, "other")]
)
def test_without_a_valid_recording_plain_kernels_are_used(
    record: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says why. Nothing is recorded after that."""
    model = random_model("entropy-gate", 4)
    memories = [memory_of(model, seed) for seed in range(4)]
    plain = [model.decode(memory) for memory in memories]
    model.recordings = Recordings(record)
    with caplog.at_level(logging.WARNING):
        assert all(same(model.decode(memory), b) for memory, b in zip(memories, plain, strict=True))
    (line,) = caplog.messages
    assert "launched one by one" in line
    assert why in line
    assert "\n" not in line


@pytest.mark.slow
def test_the_number_of_recordings_is_bounded() -> None:
    model, recorder = random_model("audio-only", 0), Recorder()
    model.recordings = Recordings(recorder, most=2)
    memory = Fused(memory_of(random_model("audio-only", 0), 0).tokens)
    for _ in range(3):
        for words in (5, 6, 7, 8):
            model.decode(memory, 2, words)
    assert recorder.made == 2


def test_training_and_searches_without_a_cache_are_not_recorded() -> None:
    model, recorder = random_model("gate", 1), Recorder()
    model.recordings = Recordings(recorder)
    memory = memory_of(random_model("gate", 1), 0)
    fbank, pixels = random_clips(3, 0)
    for _ in range(3):
        model.decode(memory, cached=False)
        model.encode_audio(fbank)
        model.encode_picture(pixels)
    assert recorder.made == 0


def test_recordings_of_inference_mode_do_not_disturb_other_modes() -> None:
    """Tensors of inference mode cannot be written outside it."""
    model, recorder = random_model("gate", 1), Recorder()
    model.recordings = Recordings(recorder)
    fbank, pixels = random_clips(3, 0)
    with torch.inference_mode():
        for _ in range(3):
            model.encode_audio(fbank), model.encode_picture(pixels)
    assert recorder.made == 2
    with torch.no_grad():
        audio, picture = model.encode_audio(fbank), model.encode_picture(pixels)
    with torch.inference_mode():
        assert torch.equal(audio, model.encode_audio(fbank))
        assert torch.equal(picture, model.encode_picture(pixels))


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["entropy-gate", "adaptive"])
def test_python_reads_no_value_in_a_step(fusion: str) -> None:
    """A value that Python reads would break the graph that the compiler traces, as it would a recording."""
    model = random_model(fusion, 4)
    memory = memory_of(model, 0)
    settings = BeamSettings(beams=3, max_length=12, min_length=3)
    with torch.inference_mode():
        expected = BeamSearch(
            CachedDecoding(model.decoder, memory.tokens, memory.mask, settings),
            3,
            settings,
            torch.device("cpu"),
        ).run()
        decoding = CachedDecoding(model.decoder, memory.tokens, memory.mask, settings)
        search = BeamSearch(decoding, 3, settings, torch.device("cpu"))
        step = torch.compile(search.advance, backend="eager", fullgraph=True)
        found = search.run(step, CHECK_EVERY)
    assert torch.equal(found.tokens, expected.tokens)
