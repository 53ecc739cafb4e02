"""Clips that take no decoding, some of which harm whoever makes them, and stores of them."""

from __future__ import annotations

import os
import signal
import tarfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evacap_cli.data.store import Sample, StoreReport, write_store
from evacap_cli.errors import MediaError
from evacap_cli.features.settings import FeatureSettings

SETTINGS = FeatureSettings(audio_frames=16, mel_bins=8, frames=3, image_size=16)


@dataclass(frozen=True)
class Toy:
    """`deed`: what making it does, instead of making it."""

    key: str
    captions: tuple[str, ...] = ("a dog barks", "rain")
    error: str = ""
    deed: str = ""

    @property
    def source(self) -> str:
        return f"{self.key}.mp4"


def toys(count: int, **changes: Toy) -> list[Toy]:
    """Toys t0, t1, ...; by key, others in their place."""
    return [changes.get(f"t{i}", Toy(f"t{i}")) for i in range(count)]


def deeds(count: int, **done: str) -> list[Toy]:
    return toys(count, **{key: Toy(key, deed=deed) for key, deed in done.items()})


def sample_of(toy: Toy) -> Sample:
    """Different for every key; every fifth has no picture."""
    random = np.random.default_rng(zlib.crc32(toy.key.encode()))
    fbank = random.normal(size=(16, 8)).astype(np.float32)
    colours = random.integers(0, 256, (3, 3, 1, 1), dtype=np.uint8)
    pictureless = toy.key.endswith(("4", "9"))
    frames = None if pictureless else np.repeat(np.repeat(colours, 16, 2), 16, 3)
    return Sample(fbank, frames, 1.0, 11.0, extra={"of": toy.key}, picture_error="dark" * pictureless)


def make(toy: Toy) -> Sample:
    if toy.deed == "die":
        os._exit(3)
    if toy.deed == "kill":
        signal.raise_signal(signal.SIGKILL)
    if toy.deed == "hang":
        time.sleep(600)
    if toy.deed == "eat":
        eaten = [np.ones(2**22) for _ in range(64)]  # 2 GiB, and it keeps them
        time.sleep(600 * len(eaten))
    if toy.deed == "fail":
        raise MediaError("there is no sound in it")
    if toy.deed == "wrong":
        return replace(sample_of(toy), fbank=np.zeros((3, 8), np.float32))
    return sample_of(toy)


def make_slowly(toy: Toy) -> Sample:
    time.sleep(0.01)
    return sample_of(toy)


def write(folder: Path, items: Sequence[Toy], **options: Any) -> StoreReport:
    """A store in shards of four, made in this process."""
    return write_store(folder, items, make, SETTINGS, **{"workers": 0, "shard_clips": 4, **options})


def members(folder: Path) -> dict[str, bytes]:
    """Every member of every shard. Fails where a shard is torn or a member there twice."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("shard-*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                file = tar.extractfile(info)
                assert file is not None
                assert info.name not in found, info.name
                found[info.name] = file.read()
                assert len(found[info.name]) == info.size
        assert path.stat().st_size % tarfile.RECORDSIZE == 0, f"{path} has no end"
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
