"""What a user points at, as a list of files: files, folders and wildcards, in a stable order."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.media import find_media


@dataclass(frozen=True)
class Source:
    """One input: a file, a URL, or a part of one.

    name: what its rows say in `video`. path: what is opened. start, end: the part in seconds, None where none was
    named. size in bytes, mtime_ns: when it was listed, None where nobody says. error: why it cannot be read, where that
    is known already. same_as: number, in the same list, of an earlier source with the same content and part. relative:
    its place below a folder of outputs.
    """

    name: str
    path: str
    start: float | None = None
    end: float | None = None
    size: int | None = None
    mtime_ns: int | None = None
    error: str = ""
    same_as: int | None = None
    relative: str = ""


def expand_inputs(inputs: Iterable[str | Path]) -> list[Path]:
    """Files in the order of `inputs`; a folder stands for all media below it, sorted, hidden ones left out.

    A file that is named is taken whatever its suffix, twice if named twice. Raises UsageError naming every input that
    does not exist, and EvacapError when there is nothing to caption.
    """
    found: list[Path] = []
    missing, empty = [], []
    for given in map(str, inputs):
        path = Path(given)
        if given and _exists(path):
            matches = find_media(path) if path.is_dir() else [path]
            if not matches:
                empty.append(given)
        else:
            matches = []
            for match in sorted(glob.glob(given, recursive=True)):
                matches += find_media(match) if Path(match).is_dir() else [Path(match)]
            if not matches:
                missing.append(given)
        found += matches
    if missing:
        named = "\n  ".join(repr(name) for name in missing)
        raise UsageError(
            f"no such file or folder:\n  {named}", "check the spelling; wildcards must match something"
        )
    if not found:
        raise EvacapError(f"no media files in {', '.join(repr(n) for n in empty) or 'the inputs'}",
                          "name files, or a folder with videos or sound files in it")  # fmt: skip
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except OSError:  # a name that no file can have
        return False
