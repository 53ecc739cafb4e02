"""Files that grow or change while they are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evacap_cli.errors import MediaError
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.local_files import local_file
from evacap_cli.tasks.captioning.inputs.sources import Source

CHANGED = "^changed while it was read"
Perturbation = Callable[[Source], object]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"content")
    return find_sources([path])[0]


def grow(source: Source) -> None:
    with open(source.path, "ab") as file:
        file.write(b"more")


def rewrite(source: Source) -> None:
    Path(source.path).write_bytes(b"CONTENT")
    os.utime(source.path, ns=(0, 1))


def test_an_unchanged_file_is_accepted(source: Source) -> None:
    with local_file(source) as path:
        assert path == Path(source.path)
        assert path.read_bytes() == b"content"
    with local_file(Source(source.name, source.path)) as path:  # without size and time
        assert path.exists()


def read(source: Source, change: Perturbation, error: Exception | None = None) -> None:
    with local_file(source):
        change(source)
        if error:
            raise error


@pytest.mark.parametrize("change", [grow, rewrite])
def test_a_change_since_it_was_listed(source: Source, change: Perturbation) -> None:
    change(source)
    ran: list[Source] = []
    with pytest.raises(MediaError, match=CHANGED) as caught:
        read(source, ran.append)
    assert not ran
    assert "--retry-failed" in caught.value.cure


@pytest.mark.parametrize("change", [grow, rewrite])
def test_a_change_while_it_is_read(source: Source, change: Perturbation) -> None:
    with pytest.raises(MediaError, match=CHANGED):
        read(source, change)
    (again,) = find_sources([source.path])
    assert (again.size, again.mtime_ns) != (source.size, source.mtime_ns)  # it did come that far
    with pytest.raises(MediaError, match=CHANGED):
        read(replace(again, size=None, mtime_ns=None), lambda source: os.utime(source.path))


def test_sizes_are_named(source: Source) -> None:
    with pytest.raises(MediaError, match="read: 7 bytes, then 11"):
        read(source, grow)


def test_half_a_file_is_reported_as_changed_not_damaged(source: Source) -> None:
    with pytest.raises(MediaError, match=CHANGED):
        read(source, grow, MediaError("not a media file"))


def test_other_errors_stay_what_they_are(source: Source) -> None:
    for error in (MediaError("no audio track"), KeyError("x")):
        with pytest.raises(type(error)) as caught:
            read(source, lambda _: None, error)
        assert caught.value is error


def test_a_deleted_file(source: Source) -> None:
    os.unlink(source.path)
    with pytest.raises(MediaError, match="cannot be read: No such file"), local_file(source):
        pass
