"""Lists the samples of WebDataset tar files, as video2dataset and img2dataset write them."""

from __future__ import annotations

import os
import re
import tarfile
from dataclasses import dataclass, field

from evacap_cli.data.bulk.files import open_shard, shard_errors
from evacap_cli.errors import MediaError
from evacap_cli.media import AUDIO_SUFFIXES, MEDIA_SUFFIXES

TAR = ".tar"
_NAME = re.compile(r"((?:.*/)?[^.][^./]*)\.([^/]*)", re.DOTALL)  # WebDataset: a key ends at the first dot
_TEXTS = (".json", ".txt")
_LARGEST_TEXT = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class TarFile:
    """A file in a tar file. position, size: of its content in bytes."""

    suffix: str
    position: int
    size: int


@dataclass
class TarSample:
    """The files of one key. media: of the clip. sound: of its sound, if picture and sound are separate files. texts:
    the content of `.json` and `.txt` files by suffix."""

    key: str
    media: TarFile | None = None
    sound: TarFile | None = None
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class TarListing:
    """The samples with media of a tar file, in order. error: why later samples may be missing."""

    samples: list[TarSample]
    error: str = ""


def list_tar(path: str, texts: bool = False) -> TarListing:
    """Lists a tar file, local or remote, by its headers. texts: whether to read the `.json` and `.txt` files, too.

    A damaged file gives the samples before the damage.
    """
    samples: dict[str, TarSample] = {}
    error = ""
    try:
        with shard_errors(), open_shard(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            try:
                while (info := archive.next()) is not None:
                    found = _NAME.fullmatch(info.name.removeprefix("./"))
                    if found is None or not info.isreg() or info.issparse():
                        continue
                    sample = samples.setdefault(found[1], TarSample(found[1]))
                    member = TarFile("." + found[2].rpartition(".")[2].lower(), info.offset_data, info.size)
                    _add(sample, member)
                    if texts and member.suffix in _TEXTS and member.size <= _LARGEST_TEXT:
                        file.seek(member.position)
                        sample.texts[member.suffix] = file.read(member.size)
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    error = (
                        f"the shard is cut or damaged at byte {archive.offset}: later clips may be missing"
                    )
            except tarfile.TarError:
                error = f"the shard is cut or damaged at byte {archive.offset}: later clips may be missing"
    except MediaError as reason:
        error = error or _not_tar(path) or reason.message
    found_media = [sample for sample in samples.values() if sample.media is not None]
    if not found_media and not error:
        error = "no video or audio files in this shard"
    return TarListing(found_media, error)


def _add(sample: TarSample, member: TarFile) -> None:
    """Adds a media file: the picture's before the sound's, otherwise the first."""
    if member.suffix not in MEDIA_SUFFIXES:
        return
    first = sample.media
    if first is None:
        sample.media = member
    elif member.suffix in AUDIO_SUFFIXES and first.suffix not in AUDIO_SUFFIXES:
        sample.sound = sample.sound or member
    elif member.suffix not in AUDIO_SUFFIXES and first.suffix in AUDIO_SUFFIXES:
        sample.media, sample.sound = member, first


def _not_tar(path: str) -> str:
    """Returns the message for a compressed tar file, "" for others."""
    try:
        with shard_errors(), open_shard(path) as file:
            start = file.read(6)
    except MediaError:
        return ""
    compressed = start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
    return (
        f"{os.path.basename(path)} is compressed: decompress it, so that clips can be read alone" * compressed
    )
