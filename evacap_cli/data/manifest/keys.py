"""Clip keys that are valid names of files and archive members."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 80  # with a store's suffixes, the name stays within the 100 bytes of a tar header


class Keys:
    """Makes keys of `[A-Za-z0-9_-]` that are unique in one manifest and the same in every run.

    A key is the clip's name with `_` instead of `/`. If other characters are replaced too, or an earlier clip has the
    same key, a short hash follows. Clips therefore keep their keys when rows are appended to the manifest. A key that
    would begin with `-`, which tar and other tools read as an option, gets the prefix `_`.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def make(self, name: str, identity: str) -> str:
        """The key of the clip `name`. `identity` is unique to the clip."""
        readable = name.replace("/", "_")
        if readable.startswith("-"):
            readable = "_" + readable
        key = re.sub(r"[^A-Za-z0-9_-]", "_", readable)[:_LONGEST]
        if key != readable or not key or key in self._taken:
            stem, attempt, again = key[: _LONGEST - 9], 0, identity
            while True:
                key = f"{stem or 'clip'}-{hashlib.sha256(again.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
                if key not in self._taken:
                    break
                attempt, again = attempt + 1, f"{identity}\n{attempt}"
        self._taken.add(key)
        return key
