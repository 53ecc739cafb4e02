"""Encodes the arrays and pictures of one clip as members of a shard, and decodes them."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from evacap_cli.errors import EvacapError
from evacap_cli.features.settings import FeatureSettings

FRAMES_FORMATS = ("jpeg", "raw")


class StoreItem(Protocol):
    """The input of a sample and its fields in the store's index, such as a manifest's `Entry`.

    `key` is unique and a valid file name. A non-empty `error` says why no sample can be made.
    """

    @property
    def key(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def error(self) -> str: ...


AnyItem = TypeVar("AnyItem", bound=StoreItem)


@dataclass
class Sample:
    """The features of one clip.

    fbank: float (T, F), normalised. frames: uint8 (N, 3, S, S), or None for a clip without a picture; `picture_error`
    may then give the reason. start, end: seconds in the source. captions: None means those of the item. extra: more
    metadata, JSON-serialisable. note: a one-line remark on how the source was read.
    """

    fbank: np.ndarray
    frames: np.ndarray | None
    start: float = 0.0
    end: float = 0.0
    captions: Sequence[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    picture_error: str = ""
    note: str = ""


@dataclass(frozen=True)
class Encoding:
    """How samples are encoded: `frames` is one of FRAMES_FORMATS, `quality` the JPEG quality, 1 to 100."""

    settings: FeatureSettings
    frames: str = "jpeg"
    quality: int = 95


@dataclass
class Packed:
    """A sample as members of a shard, (suffix, bytes, crc32) each, and its index fields."""

    members: list[tuple[str, bytes, int]]
    captions: list[str]
    start: float
    end: float
    status: str
    error: str = ""
    note: str = ""


def make_packed(item: AnyItem, make: Callable[[AnyItem], Sample], encoding: Encoding) -> Packed:
    """Encodes `make(item)`. Raises EvacapError if a shape differs from the settings."""
    sample = make(item)
    settings = encoding.settings
    _check("fbank", sample.fbank, (settings.audio_frames, settings.mel_bins))
    captions = [str(text) for text in (item.captions if sample.captions is None else sample.captions)]
    about = {
        "captions": captions,
        "source": item.source,
        "seconds": round(sample.end - sample.start, 3),
        "start": round(sample.start, 3),
        "end": round(sample.end, 3),
        **({"extra": sample.extra} if sample.extra else {}),
        **({"note": sample.note} if sample.note else {}),
    }
    contents = [
        ("json", json.dumps(about, ensure_ascii=False).encode()),
        ("fbank.npy", _npy(sample.fbank.astype(np.float16))),
    ]
    status = "audio-only" if sample.frames is None and settings.frames else "ok"
    if sample.frames is not None and settings.frames:
        _check("frames", sample.frames, (settings.frames, 3, settings.image_size, settings.image_size))
        if encoding.frames == "raw":
            contents.append(("frames.npy", _npy(sample.frames)))
        else:
            contents += [
                (f"{i:02}.jpg", _jpeg(frame, encoding.quality)) for i, frame in enumerate(sample.frames)
            ]
    members = [(suffix, data, zlib.crc32(data)) for suffix, data in contents]
    error = sample.picture_error if status == "audio-only" else ""
    return Packed(members, captions, sample.start, sample.end, status, error, sample.note)


def array_of(data: bytes, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Decodes a .npy member. Raises ValueError if its shape or dtype differs."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"contains {array.dtype} {array.shape} instead of {np.dtype(dtype)} {shape}")
    return array


def picture_of(data: bytes, size: int) -> np.ndarray:
    """Decodes a JPEG to (3, size, size) uint8. Raises ValueError or OSError if it is something else."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.size != (size, size) or image.mode != "RGB":
            raise ValueError(f"is {image.mode} {image.size} instead of RGB {(size, size)}")
        return np.asarray(image).transpose(2, 0, 1)


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise EvacapError(f"{name} has shape {array.shape}, but the settings require {shape}")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    """Encodes (3, S, S) uint8 as JPEG without chroma subsampling, which would save a fifth but cost 2.5 dB."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(
        buffer, "JPEG", quality=quality, subsampling=0
    )
    return buffer.getvalue()
