"""Names of clips that are fit for files and members of archives."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 80  # with what a store appends it stays within the 100 bytes of a tar header's name


class Keys:
    """Makes keys of `[A-Za-z0-9_-]`, unique within one manifest and the same in every run.

    A key is the clip's name with `_` for folders' `/`. A short hash of the whole name follows where more than that
    was lost, or where a clip before has the key: so clips keep their keys when others are appended to the manifest.
    No key begins with `-`, which tar and other tools take for an option; `_` is put before it.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def make(self, name: str, identity: str) -> str:
        """The key of the clip called `name`; `identity` tells it from all others."""
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
