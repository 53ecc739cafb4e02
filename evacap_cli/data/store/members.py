"""What stands in a store's shards for one clip: arrays and pictures as bytes, and back."""

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
    """What a sample is made of, as the store's index names it; a manifest's `Entry` is one.

    `key` is unique and fit for a file name; `error` says why nothing can be made of it, and is empty otherwise.
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
    """One clip, ready for a model.

    fbank: float (T, F), normalised. frames: uint8 (N, 3, S, S), or None for a clip without a picture, and then
    `picture_error` may say why. start and end in seconds of the source. captions: None for those of the item. extra:
    whatever else is known of the clip, fit for JSON. note: what is worth knowing of how its source was read, one line.
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
    """How samples become bytes: `frames` is one of FRAMES_FORMATS, `quality` JPEG's, 1 to 100."""

    settings: FeatureSettings
    frames: str = "jpeg"
    quality: int = 95


@dataclass
class Packed:
    """A sample as members of a shard, (suffix, bytes, crc32) each, and its part of the index."""

    members: list[tuple[str, bytes, int]]
    captions: list[str]
    start: float
    end: float
    status: str
    error: str = ""
    note: str = ""


def make_packed(item: AnyItem, make: Callable[[AnyItem], Sample], encoding: Encoding) -> Packed:
    """`make(item)` as bytes. EvacapError where it has not the shape of the settings."""
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
    """What a .npy member holds. Raises ValueError when it is something else than asked for."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"holds {array.dtype} {array.shape} instead of {np.dtype(dtype)} {shape}")
    return array


def picture_of(data: bytes, size: int) -> np.ndarray:
    """(3, size, size) uint8 of a JPEG. Raises ValueError or OSError when it is something else."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.size != (size, size) or image.mode != "RGB":
            raise ValueError(f"is {image.mode} {image.size} instead of RGB {(size, size)}")
        return np.asarray(image).transpose(2, 0, 1)


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise EvacapError(f"{name} of shape {array.shape}, where the settings say {shape}")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    """(3, S, S) uint8 as JPEG, with colours at full resolution: half of it would save a fifth and cost 2.5 dB."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(
        buffer, "JPEG", quality=quality, subsampling=0
    )
    return buffer.getvalue()
