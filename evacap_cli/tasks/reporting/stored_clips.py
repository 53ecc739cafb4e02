"""Pictures and media of the clips of a feature store, for the pages of robustness and evaluate."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from evacap_cli.data.manifest.media_index import MediaIndex
from evacap_cli.data.store import Store
from evacap_cli.data.store.index import NOTE
from evacap_cli.errors import EvacapError
from evacap_cli.report.pages import Clip
from evacap_cli.tasks.reporting.copies import small_copy
from evacap_cli.tasks.reporting.pages import link
from evacap_cli.tasks.reporting.pictures import Drawn, PictureFiles, PictureOptions, Progress, draw, draw_all


@dataclass(frozen=True)
class StoreJob:
    """One clip to draw. row: in the store. path, start, end: the part of the file to copy, if any."""

    index: int
    store: str
    row: int
    path: str = ""
    start: float = 0.0
    end: float = 0.0


class PageTarget:
    """Where a page is written, which pictures it shows, their files, and the callback for progress."""

    def __init__(
        self, out: Path, options: PictureOptions | None = None, progress: Progress | None = None
    ) -> None:
        self.out = out
        self.options = options or PictureOptions(workers=0)
        self.progress: Progress = progress or (lambda done, total: None)
        self.files = PictureFiles(out, self.options.inline)


@dataclass(frozen=True)
class Result:
    """The store that a result names, the folder of the result, and the fingerprint that the store had."""

    store: str
    folder: Path
    fingerprint: str = ""


class StoredClips:
    """The clips of results, with what their stores contain: pictures, media files and references.

    keys: the clips, in the order of the page. A clip that several stores have is taken from the first one. A store that
    is missing or has changed is no error: its clips have no pictures, and `notes` gives the reason.
    """

    def __init__(self, keys: Sequence[str], results: Sequence[Result], target: PageTarget) -> None:
        self.notes: list[str] = []
        self._stores: list[tuple[Store, dict[str, int], dict[str, tuple[str, str]]]] = []
        self._place: dict[str, int] = {}  # key: the store that has it
        self._index = {key: index for index, key in enumerate(keys)}
        self._files = target.files
        for result in dict.fromkeys(results):
            try:
                store = _open(result)
            except EvacapError as error:
                self.notes.append(f"Clips without pictures: {error.message}.")
                continue
            rows = {key: row for row, key in enumerate(store.keys) if key in self._index}
            found = [key for key in rows if key not in self._place]
            media = _find_media(store, found, rows, target.out)
            self._place |= dict.fromkeys(found, len(self._stores))
            self._stores.append((store, rows, media))
        if target.options.make:
            jobs = list(self._jobs(target.options.copies))
            draw_all(jobs, len(jobs), self._files, target.options, target.progress, draw_stored)

    def describe(self, clip: Clip) -> Clip:
        """A clip, by its key, with the pictures, the media file and the times that its store has."""
        if clip.name not in self._place:
            return clip
        store, rows, media = self._stores[self._place[clip.name]]
        _, start, end = store.source(rows[clip.name])
        seen = bool(store.has_picture([rows[clip.name]])[0])
        return replace(
            clip,
            start=start,
            end=end,
            status="ok" if seen else "audio-only",
            href=media.get(clip.name, ("", ""))[1],
            pictures=self._files.urls(self._index[clip.name]),
        )

    def references(self, key: str) -> list[str]:
        if key not in self._place:
            return []
        store, rows, _ = self._stores[self._place[key]]
        return store.captions(rows[key])

    def _jobs(self, copies: bool) -> Iterator[StoreJob]:
        for key, place in self._place.items():
            store, rows, media = self._stores[place]
            _, start, end = store.source(rows[key])
            path = media.get(key, ("", ""))[0] if copies else ""
            yield StoreJob(self._index[key], str(store.folder), rows[key], path, start, end)


def draw_stored(job: StoreJob) -> Drawn:
    """The pictures of a clip from its features, and a copy of its part of the file. Raises EvacapError."""
    store = _opened(job.store)
    frames = store.frames([job.row])[0] if bool(store.has_picture([job.row])[0]) else None
    seconds = job.end - job.start
    settings = store.settings
    heard = (
        round(seconds / settings.seconds * settings.audio_frames) if seconds > 0 else settings.audio_frames
    )
    strip, spectrogram = draw(store.fbank([job.row])[0][: max(1, heard)], frames)
    return strip, spectrogram, small_copy(job.path, job.start, job.end) if job.path else b""


@cache
def _opened(folder: str) -> Store:
    return Store(folder)


def _open(result: Result) -> Store:
    """The store that a result names relative to the working directory, to the folder of the result, or to its parent.
    Raises EvacapError if it is missing or has changed."""
    if not result.store:
        raise EvacapError(f"{result.folder}: does not name its store")
    folders = [Path(), result.folder, result.folder.parent]
    places = [folder / result.store for folder in folders]
    store = Store(next((place for place in places if (place / NOTE).is_file()), places[0]))
    if result.fingerprint and store.fingerprint() != result.fingerprint:
        raise EvacapError(f"{result.store}: changed after the result was made")
    return store


def _find_media(
    store: Store, keys: Sequence[str], rows: Mapping[str, int], page: Path
) -> dict[str, tuple[str, str]]:
    """(path, URL relative to the page) of the media file of each clip that has one."""
    folders = [Path(), *(store.folder / folder for folder in store.note.media), store.folder.parent]
    found: dict[str, tuple[str, str]] = {}
    ids: dict[str, str] = {}
    for key in keys:
        name = store.source(rows[key])[0]
        path, url = _linked(name, page, folders)
        if url:
            found[key] = path, url
        elif name and not os.path.splitext(name)[1]:
            ids[key] = name
    if ids and store.note.media:
        starts = {key: _start_in(key, name) for key, name in ids.items()}
        wanted: dict[str, set[float | None]] = {}
        for key, name in ids.items():
            wanted.setdefault(name, set()).add(starts[key])
        index = MediaIndex(store.folder / store.note.media[0], wanted)
        for key, name in ids.items():
            match = index.find(name, starts[key])
            if match.path is not None:
                found[key] = link(str(match.path), page, Path())
    return found


def _linked(name: str, page: Path, folders: Sequence[Path]) -> tuple[str, str]:
    for folder in folders:
        path, url = link(name, page, folder)
        if url:
            return path, url
    return "", ""


def _start_in(key: str, name: str) -> float | None:
    """The start time in the key of a clip that the manifest identifies by id and time: `ID_30` begins at 30 s."""
    match = re.match(r"_(\d+(?:\.\d+)?)", key.removeprefix(name))
    return float(match[1]) if match else None
