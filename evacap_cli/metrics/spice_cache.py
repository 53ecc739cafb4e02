"""A persistent cache of parsed captions, so that SPICE parses every caption only once."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path

Tuples = list[list[str]]
CAPACITY = 400_000  # captions in the cache, about 150 MB; the least recently used are removed first
_WAIT = 60.0  # seconds to wait for the lock of another process
_DAY = 86_400


class TupleCache:
    """Maps captions to their tuples, in memory and in a file that several processes can use at once.

    If the file cannot be used, `trouble` gives the reason and the cache stays in memory. A damaged file is replaced.
    With `path` None, the cache has no file.
    """

    def __init__(self, path: Path | None, capacity: int = CAPACITY) -> None:
        self.path, self.capacity, self.trouble = path, capacity, ""
        self._memory: dict[str, Tuples] = {}
        if path is not None:
            self._prepare(path, again=True)

    def _prepare(self, path: Path, again: bool) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as file, file:
                file.execute(
                    "CREATE TABLE IF NOT EXISTS captions "
                    "(caption TEXT PRIMARY KEY, tuples TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID"
                )
        except sqlite3.OperationalError as error:
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            if again and path.is_file():
                with suppress(OSError):
                    path.unlink()
                self._prepare(path, again=False)
            else:
                self._give_up(error)
        except OSError as error:
            self._give_up(error)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(str(self.path), timeout=_WAIT)

    def _give_up(self, error: Exception) -> None:
        self.trouble = f"parsed captions are not cached: {self.path}: {error}"
        self.path = None

    def get(self, captions: Iterable[str]) -> dict[str, Tuples]:
        """The tuples of the captions that are in the cache."""
        wanted = dict.fromkeys(captions)
        found = {caption: self._memory[caption] for caption in wanted if caption in self._memory}
        if self.path is None:
            return found
        today = int(time.time()) // _DAY
        try:
            with closing(self._connect()) as file, file:
                stale = []
                for caption in wanted:
                    row = file.execute(
                        "SELECT tuples, used FROM captions WHERE caption = ?", (caption,)
                    ).fetchone()
                    if row is not None:
                        found[caption] = json.loads(row[0])
                        if row[1] != today:
                            stale.append((today, caption))
                if stale:
                    file.executemany("UPDATE captions SET used = ? WHERE caption = ?", stale)
        except (sqlite3.Error, ValueError) as error:
            self._give_up(error)
        return found

    def put(self, parsed: Mapping[str, Tuples]) -> None:
        """Adds tuples by caption. If there are more than `capacity`, removes the least recently used."""
        self._memory |= parsed
        if self.path is None or not parsed:
            return
        today = int(time.time()) // _DAY
        rows = [(caption, json.dumps(tuples), today) for caption, tuples in parsed.items()]
        try:
            with closing(self._connect()) as file, file:
                file.executemany("INSERT OR REPLACE INTO captions VALUES (?, ?, ?)", rows)
                (count,) = file.execute("SELECT COUNT(*) FROM captions").fetchone()
                if count > self.capacity:
                    file.execute(
                        "DELETE FROM captions WHERE caption IN (SELECT caption FROM captions ORDER BY used LIMIT ?)",
                        (count - self.capacity + self.capacity // 10,),
                    )
        except sqlite3.Error as error:
            self._give_up(error)
