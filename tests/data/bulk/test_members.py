"""Members of shards as files in memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from evacap_cli.data.bulk import members
from evacap_cli.data.bulk.members import Member, member_file
from evacap_cli.data.bulk.parquet import list_parquet, media_column
from evacap_cli.errors import MediaError

from .shards import write_parquet, write_tar


def test_nothing_is_unpacked_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = write_tar(tmp_path / "s.tar", {"1.mp4": b"content" * 999})
    with member_file(str(path), Member("s", "1", ".mp4", 512, 6993)) as file:
        assert file.suffix == ".mp4"
        assert file.read_bytes() == b"content" * 999
        assert os.path.realpath(file).startswith("/memfd:")
        assert [p.name for p in file.parent.iterdir()] == ["clip.mp4"]
        assert file.is_symlink()
    assert [p.name for p in tmp_path.iterdir()] == ["s.tar"]


def test_cut_changed_and_large_members_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "s.tar", {"1.mp4": b"content"})
    with (
        pytest.raises(MediaError, match="ends inside it"),
        member_file(str(path), Member("s", "1", "", 512, 99_999)),
    ):
        pass
    with pytest.raises(MediaError, match="changed"), member_file(str(path), Member("s", "1", "", 512, 7), 5):
        pass
    with (
        pytest.raises(MediaError, match="no such file"),
        member_file(f"{path}x", Member("s", "1", "", 512, 7)),
    ):
        pass
    monkeypatch.setattr(members, "LARGEST_MEMBER", 6)
    with pytest.raises(MediaError, match="too large"), member_file(str(path), Member("s", "1", "", 512, 7)):
        pass


@pytest.mark.parametrize("struct", [False, True])
def test_rows_of_parquet(tmp_path: Path, struct: bool) -> None:
    contents = [b"one", None, b"three", b"four", b"five"]
    cells: list[object] = list(contents)
    if struct:
        cells = [{"bytes": content, "path": f"{i}.flac"} for i, content in enumerate(contents)]
    path = str(write_parquet(tmp_path / "p.parquet", {"other": range(5), "audio": cells}))
    column = media_column(path)
    assert column is not None
    rows = list(list_parquet(path, column))
    assert [row.key for row in rows] == ["0", "1", "2", "3", "4"]
    assert {row.suffix for row in rows} == {".flac" if struct else ""}
    read = []
    for i in (0, 2, 3, 1, 4, 0):  # forward, within a row group, and back
        try:
            with member_file(path, Member("p", str(i), "", i, column=column.name)) as file:
                read.append(file.read_bytes())
        except MediaError as error:
            read.append(error.message.encode())
    assert read == [b"one", b"three", b"four", b"the row has no bytes", b"five", b"one"]


def test_manifests_are_not_shards(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "m.parquet", {"video": ["a.mp4"], "caption": ["a bell"]})
    assert media_column(str(path)) is None
    (tmp_path / "n.parquet").write_bytes(b"no Parquet")
    with pytest.raises(MediaError):
        media_column(str(tmp_path / "n.parquet"))
