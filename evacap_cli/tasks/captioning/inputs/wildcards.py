"""Expands wildcards, for shells that do not and for quoted names."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import Counter
from typing import NamedTuple

from evacap_cli.tasks.captioning.inputs.folders import NO_MEDIA, Wanted, is_media, path_sort_key, walk


class Match(NamedTuple):
    """A path that matches a pattern. base: the pattern's folder before its first wildcard, '' for the working
    directory. error: the reason, for a folder that cannot be read."""

    path: str
    base: str
    error: str = ""


def expand_wildcard(pattern: str, left_out: Counter[str], wanted: Wanted = is_media) -> list[Match]:
    """Returns the paths that match a pattern, sorted: `*`, `?`, `[abc]`, and `**` for nested folders. Hidden files do
    not match.

    A pattern with a suffix, such as `*.dat`, matches all files and folders. A pattern without one (`*`, `clip?`)
    matches folders and `wanted` files; other files are counted in `left_out`. A path that exists as written, such as
    `[old]`, is taken literally.
    """
    if not glob.has_magic(pattern) or "\0" in pattern:
        return []
    parts = pattern.replace(os.sep, "/").split("/")
    plain = next(
        (i for i, part in enumerate(parts) if glob.has_magic(part) and not _exists(parts[: i + 1])), 0
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


def _exists(parts: list[str]) -> bool:
    """Whether a name with wildcard characters exists as written."""
    return os.path.lexists("/".join(parts))


def has_literal_suffix(pattern: str) -> bool:
    """Whether a pattern has a suffix without wildcards, as `*.dat` does and `*` does not."""
    suffix = os.path.splitext(pattern)[1]
    return bool(suffix) and not glob.has_magic(suffix)


def _below(
    head: str, base: str, parts: list[str], exact: bool, left_out: Counter[str], wanted: Wanted
) -> list[Match]:
    """Returns the files below `head` that match a pattern with `**` first. Python's glob would follow link cycles."""
    tree = walk(head or ".", lambda name: True, Counter())
    start = head if not head or head.endswith("/") else f"{head}/"
    found = []
    for name in tree.files:
        path = start + name
        if name in tree.unreadable:
            found.append(Match(path, base, tree.unreadable[name]))
        elif _matches(parts, names := name.split("/"), whole=False):
            if (exact and _matches(parts, names)) or wanted(path):
                found.append(Match(path, base))
            else:
                left_out[NO_MEDIA] += 1
    return found


def _matches(parts: list[str], names: list[str], whole: bool = True) -> bool:
    """Whether the names of a path match the parts of a pattern; unless `whole`, whether the first names do."""
    if not parts:
        return not names or not whole
    if parts[0] == "**":
        return any(_matches(parts[1:], names[i:], whole) for i in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _matches(parts[1:], names[1:], whole)
