"""Manifests in the shapes in which people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from evacap_cli.data.manifest import read_manifest
from evacap_cli.errors import UsageError


def write(folder: Path, text: str) -> Path:
    path = folder / "captions.csv"
    path.write_text(text, "utf-8")
    return path


def test_many_rows_a_video_stay_together(tmp_path: Path) -> None:
    path = write(
        tmp_path, 'video,caption\na.mp4,A dog barks\nb.mp4,"Rain, then thunder"\na.mp4,A dog is barking\n'
    )
    entries = read_manifest(path)
    assert [e.path for e in entries] == [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    assert entries[0].captions == ("A dog barks", "A dog is barking")
    assert entries[1].captions == ("Rain, then thunder",)


def test_wide_form_with_byte_order_mark_and_gaps(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufefffile_name,caption_1,caption_2,caption_3\nx y.mp4,One,,Three\n")
    assert read_manifest(path)[0].captions == ("One", "Three")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("video,text\na,b\n", "caption"),
        ("name,caption\na,b\n", "video"),
        ("", "none"),
        ("video,caption\na.mp4,\n", "a.mp4"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_manifest(write(tmp_path, text))
    assert named in caught.value.message + caught.value.cure


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.csv"):
        read_manifest(tmp_path / "nothing.csv")
    path = tmp_path / "latin.csv"
    path.write_bytes("video,caption\na.mp4,Caf\u00e9\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"(?i)utf-8"):
        read_manifest(path)
