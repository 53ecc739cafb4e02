"""Unpacks the containers of recordings and photographs: Debian packages, Qt resources and sound archives.

Every function writes media files (wav, ogg, mp3, jpg, png, ...) to a folder. The results do not depend on the machine.
Containers that are already unpacked are skipped.
"""

import re
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

QT_COMPRESSED, QT_DIRECTORY, QT_COMPRESSED_ZSTD = 1, 2, 4
MEDIA_SUFFIXES = {".wav", ".ogg", ".oga", ".mp3", ".flac", ".opus", ".aif", ".aiff"}
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def download_package(name: str, folder: Path) -> Path:
    """The `.deb` file of the Debian package `name` in `folder`. Downloads it if necessary.

    Raises:
        FileNotFoundError: the package cannot be downloaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        subprocess.run(["apt-get", "download", "-q", name], cwd=folder, capture_output=True, check=False)
        found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        raise FileNotFoundError(
            f"package {name} is not available: run `apt-get update`, or remove it from sources.csv"
        )
    return found[-1]


def unpack_package(archive: Path, folder: Path) -> Path:
    """Unpacks a `.deb` file to `folder`/NAME and returns that folder. Skips packages that are already unpacked."""
    target = folder / archive.name.split("_")[0]
    finished = target / ".unpacked"
    if not finished.exists():
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg", "-x", str(archive), str(target)], check=True)
        finished.touch()
    return target


def unpack_zip(archive: Path, folder: Path, suffixes: set[str]) -> Path:
    """Extracts the members of a zip file (such as a wheel) with one of `suffixes` to `folder`/NAME."""
    target = folder / archive.name.split("-")[0]
    with zipfile.ZipFile(archive) as opened:
        for member in opened.namelist():
            if Path(member).suffix.lower() in suffixes and not (target / member).exists():
                opened.extract(member, target)
    return target


def read_qt_resources(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields the files in a binary Qt resource file (`.rcc`, format versions 1 to 3) as (path, content) pairs.

    The file has a header ("qres", version, offsets of tree, data and names, all big-endian 32 bit), a tree of nodes of
    14 bytes (22 from version 2 on, which adds a modification time), names (length, hash, UTF-16) and data (length,
    content). Source: `qtbase/src/tools/rcc/rcc.cpp`.

    Raises:
        ValueError: `content` is not a Qt resource file.
    """
    magic, version, tree, data, names = struct.unpack(">4s4I", content[:20])
    if magic != b"qres" or version not in (1, 2, 3):
        raise ValueError("not a Qt resource file of version 1, 2 or 3")
    node_size = 14 if version == 1 else 22

    def walk(index: int, parents: str) -> Iterator[tuple[str, bytes]]:
        position = tree + index * node_size
        name_at, flags = struct.unpack(">IH", content[position : position + 6])
        name = ""
        if index:
            length = struct.unpack(">H", content[names + name_at : names + name_at + 2])[0]
            start = names + name_at + 6
            name = content[start : start + 2 * length].decode("utf-16-be")
        path = f"{parents}/{name}" if parents else name
        if flags & QT_DIRECTORY:
            count, first = struct.unpack(">II", content[position + 6 : position + 14])
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        data_at = data + struct.unpack(">I", content[position + 10 : position + 14])[0]
        size = struct.unpack(">I", content[data_at : data_at + 4])[0]
        body = content[data_at + 4 : data_at + 4 + size]
        if flags & QT_COMPRESSED_ZSTD:
            body = subprocess.run(["zstd", "-d", "-c"], input=body, capture_output=True, check=True).stdout
        elif flags & QT_COMPRESSED:
            body = zlib.decompress(body[4:])  # the first 4 bytes are the size of the content
        yield path, body

    return walk(0, "")


def unpack_qt_resources(package: Path, folder: Path, suffixes: set[str]) -> None:
    """Extracts the files with one of `suffixes` from every `.rcc` file below `package` to `folder`."""
    finished = folder / ".unpacked"
    if finished.exists():
        return
    for archive in sorted(package.rglob("*.rcc")):
        for path, body in read_qt_resources(archive.read_bytes()):
            if Path(path).suffix.lower() in suffixes:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(body)
    finished.touch()


def read_sound_archive(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields the sounds in an OpenTTD `.cat` file as (name, WAV content) pairs.

    The file begins with one (offset, length) pair of little-endian 32-bit numbers per sound. The first offset gives the
    number of pairs. Each offset points to the length of the name, the name and a RIFF file.
    """
    count = (struct.unpack("<I", content[:4])[0] & 0x7FFFFFFF) // 8
    for index in range(count):
        offset, length = struct.unpack("<II", content[8 * index : 8 * index + 8])
        offset &= 0x7FFFFFFF
        name_length = content[offset]
        name = content[offset + 1 : offset + 1 + name_length].split(b"\0")[0].decode("latin-1")
        start = content.find(b"RIFF", offset, offset + 300)
        if start >= 0:
            size = struct.unpack("<I", content[start + 4 : start + 8])[0] + 8
            yield f"{index:02d} {name}", content[start : start + min(size, length + 300)]


def unpack_sound_archive(archive: Path, folder: Path) -> dict[str, str]:
    """Extracts the sounds of an OpenTTD `.cat` file to `folder`. Returns {file name: credits in the file}.

    The file name consists of the index and the quoted title at the start of the credits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    credits = {}
    for name, body in read_sound_archive(archive.read_bytes()):
        index, text = name.split(" ", 1)
        title = re.sub(r"[^A-Za-z0-9]+", "_", text.split('"')[1] if '"' in text else text).strip("_")
        target = folder / f"{index}_{title[:60]}.wav"
        if not target.exists():
            target.write_bytes(body)
        credits[target.name] = text
    return credits
