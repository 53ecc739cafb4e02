"""Wildcards, for shells that leave them to us and for names in quotes."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import Counter
from typing import NamedTuple

from evacap_cli.tasks.captioning.inputs.folders import NO_MEDIA, Wanted, is_media, path_sort_key, walk


class Match(NamedTuple):
    """A path that a pattern stands for. base: the folder that the pattern names without wildcards, '' for the working
    directory. error: why it cannot be looked into, for a folder met on the way."""

    path: str
    base: str
    error: str = ""


def expand_wildcard(pattern: str, left_out: Counter[str], wanted: Wanted = is_media) -> list[Match]:
    """What a pattern stands for, sorted: `*`, `?`, `[abc]`, and `**` for folders in folders; none hidden.

    `*.dat` is every file that it fits, folders too. A pattern that does not say a suffix (`*`, `clip?`) stands for
    folders and what is `wanted`; other files are counted in `left_out`. A folder that is there as written, such as
    `[old]`, is meant.
    """
    if not glob.has_magic(pattern) or "\0" in pattern:
        return []
    parts = pattern.replace(os.sep, "/").split("/")
    plain = next(
        (i for i, part in enumerate(parts) if glob.has_magic(part) and not _is_there(parts[: i + 1])), 0
    )
    base = "/".join(parts[:plain]) or ("/" if plain else "")
    start = f"{glob.escape(base).rstrip('/')}/" if base else ""
    exact, parts = has_literal_suffix(pattern), parts[plain:]
    if "**" in parts:
        at = parts.index("**")
        heads = glob.glob(start + "/".join(parts[:at])) if at else [base]
        matches = [
            match for head in heads for match in _below(head, base, parts[at:], exact, left_out, wanted)
        ]
    else:
        matches = []
        for path in glob.glob(start + "/".join(parts)):
            if exact or os.path.isdir(path) or wanted(path):
                matches.append(Match(path, base))
            else:
                left_out[NO_MEDIA] += 1
    return sorted(matches, key=lambda match: path_sort_key(match.path))


def _is_there(parts: list[str]) -> bool:
    """Whether a name with `[` in it is meant as it is written."""
    return os.path.lexists("/".join(parts))


def has_literal_suffix(pattern: str) -> bool:
    """Whether a pattern says which files it means, as `*.dat` does and `*` does not."""
    suffix = os.path.splitext(pattern)[1]
    return bool(suffix) and not glob.has_magic(suffix)


def _below(
    head: str, base: str, parts: list[str], exact: bool, left_out: Counter[str], wanted: Wanted
) -> list[Match]:
    """The files below `head` that fit a pattern beginning with `**`; Python's glob follows links in circles."""
    tree = walk(head or ".", lambda name: True, Counter())
    start = head if not head or head.endswith("/") else f"{head}/"
    found = []
    for name in tree.files:
        path = start + name
        if name in tree.unreadable:
            found.append(Match(path, base, tree.unreadable[name]))
        elif _fits(parts, names := name.split("/"), whole=False):
            if (exact and _fits(parts, names)) or wanted(path):
                found.append(Match(path, base))
            else:
                left_out[NO_MEDIA] += 1
    return found


def _fits(parts: list[str], names: list[str], whole: bool = True) -> bool:
    """Whether the names of a path fit the parts of a pattern; if not `whole`, whether the first of them do."""
    if not parts:
        return not names or not whole
    if parts[0] == "**":
        return any(_fits(parts[1:], names[i:], whole) for i in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _fits(parts[1:], names[1:], whole)
