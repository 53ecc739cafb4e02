"""Finds inputs in a stable order: files, folders, wildcards, lists, manifests, shards and URLs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO

from evacap_cli.data.bulk.files import expand_range, shard_suffix
from evacap_cli.data.bulk.members import Member
from evacap_cli.errors import EvacapError, MediaError, UsageError
from evacap_cli.tasks.captioning.inputs import urls
from evacap_cli.tasks.captioning.inputs.duplicates import Inode, find_duplicates
from evacap_cli.tasks.captioning.inputs.folders import (
    AnySuffix,
    PathStatus,
    Wanted,
    is_media,
    path_status,
    walk,
)
from evacap_cli.tasks.captioning.inputs.output_paths import OutputPaths
from evacap_cli.tasks.captioning.inputs.shards import is_shard, read_shard
from evacap_cli.tasks.captioning.inputs.sources import Source, Sources
from evacap_cli.tasks.captioning.inputs.wildcards import expand_wildcard

STDIN_NAME = "-"
MANIFESTS = frozenset({".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".pq"})


def find_sources(
    inputs: Iterable[str | Path], stdin: IO[bytes] | IO[str] | None = None, any_suffix: bool = False
) -> Sources:
    """Returns the inputs in the order of `inputs`.

    - A file is taken with any suffix, and twice if named twice. If it cannot be read, it has an `error`.
    - A folder gives all files below it with a media suffix, sorted, without hidden ones. Links are followed, cycles are
      not. A folder that cannot be read is a source with an `error`. With `any_suffix`, files with other suffixes are
      inputs if they have audio; a separate process checks this.
    - Wildcards: see `expand_wildcard`. URLs: see `urls`.
    - A table (`MANIFESTS`) is a manifest, read like `read_manifest`, without captions. Its paths may be URLs. A clip
      whose file is not found has an `error`.
    - A tar file, or a Parquet file with media bytes, is a shard. Each of its keys with media is an input. A damaged
      shard also has a source with an `error`. `shard-{000..999}.tar` is a range of names.
    - `-` is a list on `stdin` (of this process, if None), one name per line or NUL-terminated. Each name is a file,
      folder, wildcard or URL. If it does not exist, it has an `error`.

    `same_as` marks inputs with the same content. Raises UsageError that lists all inputs that do not exist or are
    invalid, and EvacapError if there is nothing to caption.
    """
    given = [os.fspath(name) for name in inputs]
    with AnySuffix() if any_suffix else nullcontext(is_media) as wanted:
        found = _SourceCollector(wanted)
        for name in given:
            if name == STDIN_NAME:
                for line in _read_list(stdin):
                    found.add(line, listed=True)
            else:
                found.add(name)
    return found.checked(given)


class _SourceCollector:
    """Collects sources. One method for each kind of input."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted  # which files in folders are inputs
        self.sources = Sources()
        self.inodes: list[Inode | None] = []
        self.output_paths = OutputPaths()
        self.shards = OutputPaths()
        self.missing: list[str] = []
        self.wrong: dict[str, UsageError] = {}
        self.protocols: set[str] = set()  # URL schemes that were checked

    def add(self, name: str, listed: bool = False) -> None:
        """Adds an input. `listed`: from a list on stdin, where a missing input is a source with an `error`."""
        if not os.path.lexists(name) and len(names := expand_range(name)) > 1:
            for each in names:
                self.add(each, listed)
            return
        try:
            if not urls.is_url(name) or (path := urls.local_path(name)) is None:
                path = name
            if urls.is_url(path):
                self._add_url(path, listed)
            elif (status := path_status(path)) is None:
                self._add_wildcard(path, listed)
            else:
                self._add_path(path, status, name, os.path.basename(path), listed)
        except UsageError as error:
            self.wrong.setdefault(error.message, error)

    def checked(self, given: list[str]) -> Sources:
        """Returns all sources with `same_as` set. Raises UsageError and EvacapError, see `find_sources`."""
        wrong = list(self.wrong.values())
        if self.missing:
            named = "\n  ".join(map(repr, self.missing))
            wrong.insert(0, UsageError(
                f"no such file or folder:\n  {named}", "check the spelling; wildcards must match something"
            ))  # fmt: skip
        if wrong:
            cures = dict.fromkeys(error.cure for error in wrong if error.cure)
            raise UsageError("\n".join(error.message for error in wrong), "; ".join(cures))
        if not self.sources:
            left_out = ", ".join(f"{count} {why}" for why, count in self.sources.left_out.items())
            raise EvacapError(
                f"no media files in {', '.join(map(repr, given)) or 'the inputs'}"
                + (f" (left out: {left_out})" if left_out else ""),
                "name files, or a folder with video or audio files",
            )
        for i, earlier in find_duplicates(self.sources, self.inodes).items():
            self.sources[i] = replace(self.sources[i], same_as=earlier)
        return self.sources

    def _add_path(
        self, path: str, status: PathStatus, name: str, relative: str, listed: bool = False
    ) -> None:
        if status.is_folder:
            self._add_folder(path)
        elif not status.error and is_shard(path):
            self._add_shard(name, path, relative, status)
        elif not listed and os.path.splitext(path)[1].lower() in MANIFESTS and not status.error:
            self._add_manifest(Path(path))
        else:
            self._append(name, path, relative, status)

    def _add_folder(self, folder: str, relative: str = "") -> None:
        """Adds the media files of a folder. relative: path of the folder itself among the outputs."""
        tree = walk(folder, self.wanted, self.sources.left_out)
        top = str(Path(folder))
        for name in tree.files:
            path = name if top == os.curdir else f"{top.rstrip('/')}/{name}".rstrip("/")
            status = PathStatus(error=error) if (error := tree.unreadable.get(name)) else path_status(path)
            output = f"{relative}/{name}" if relative else name
            self._append(path or top, path or top, output or os.path.basename(top), status)

    def _add_wildcard(self, pattern: str, listed: bool) -> None:
        before = self.sources.left_out.total()
        matches = expand_wildcard(pattern, self.sources.left_out, self.wanted)
        for match in matches:
            relative = match.path[len(match.base) :].lstrip("/")
            status = PathStatus(error=match.error) if match.error else path_status(match.path)
            if status is not None and status.is_folder:
                self._add_folder(match.path, relative)
            elif status is not None:
                self._add_path(match.path, status, match.path, relative, listed)
        if not matches and self.sources.left_out.total() == before:
            self._add_missing(pattern, os.path.basename(pattern), listed)

    def _add_missing(self, name: str, relative: str, listed: bool) -> None:
        if listed:
            self._append(name, name, relative, None)
        else:
            self.missing.append(name)

    def _add_url(self, url: str, listed: bool) -> None:
        self._check_protocol(url)
        before = self.sources.left_out.total()
        try:
            found = urls.list_remote(url, self.sources.left_out)
        except MediaError as error:
            self._append(
                urls.without_password(url), url, urls.output_path(url), PathStatus(error=error.message)
            )
            return
        for name in found:
            shown, relative = urls.without_password(name), urls.output_path(name)
            if is_shard(name):
                self._add_shard(shown, name, relative, PathStatus())
            else:
                self._append(shown, name, relative, PathStatus())
        if not found and self.sources.left_out.total() == before:
            self._add_missing(url, urls.output_path(url), listed)

    def _check_protocol(self, url: str) -> None:
        kind = urls.protocol(url)
        if kind not in self.protocols:
            urls.check_protocol(kind)
            self.protocols.add(kind)

    def _add_manifest(self, path: Path) -> None:
        from evacap_cli.tasks.captioning.inputs.manifests import read_parts

        for part in read_parts(path):
            local = urls.local_path(part.path) if urls.is_url(part.path) else part.path
            if local is None:
                self._check_protocol(part.path)
                name, relative = urls.without_password(part.path), urls.output_path(part.path)
                self._append(name, part.path, relative, PathStatus(error=part.error), part.start, part.end)
            else:
                status = PathStatus(error=part.error) if part.error else path_status(local)
                self._append(part.path, local, part.relative, status, part.start, part.end)

    def _add_shard(self, name: str, path: str, relative: str, status: PathStatus) -> None:
        """Adds the clips of a shard."""
        stem = os.path.basename(relative)
        shard = self.shards.assign(stem[: -len(shard_suffix(path))])
        clips = read_shard(path, shard)
        for member in clips.members:
            file = member.key + member.suffix
            error = "the file is empty" if member.size == 0 else ""
            of_member = PathStatus(member.size, status.mtime_ns, status.inode, error)
            self._append(f"{name}/{file}", path, f"{shard}/{file}", of_member, member=member)
        if clips.error:
            self._append(name, path, stem, PathStatus(error=clips.error), member=Member(shard, "", "", 0))

    def _append(
        self,
        name: str,
        path: str,
        relative: str,
        status: PathStatus | None,
        start: float | None = None,
        end: float | None = None,
        member: Member | None = None,
    ) -> None:
        status = status or PathStatus(error="no such file or folder")
        output = self.output_paths.assign(relative, start, end)
        self.sources.append(
            Source(name, path, start, end, status.size, status.mtime_ns, status.error, None, output, member)
        )
        self.inodes.append(status.inode)


def _read_list(stdin: IO[bytes] | IO[str] | None) -> list[str]:
    """Reads the names on `stdin`: NUL-terminated if there is a NUL, else one per line."""
    file = getattr(sys.stdin, "buffer", sys.stdin) if stdin is None else stdin
    content = file.read()
    raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    names = raw.split(b"\0") if b"\0" in raw else (line.removesuffix(b"\r") for line in raw.split(b"\n"))
    return [os.fsdecode(name) for name in names if name]


def expand_inputs(inputs: Iterable[str | Path]) -> list[Path]:
    """Returns the paths of `find_sources`."""
    return [Path(source.path) for source in find_sources(inputs)]
