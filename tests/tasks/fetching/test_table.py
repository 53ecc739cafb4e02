from __future__ import annotations

from pathlib import Path

import pytest

from evacap_cli.errors import UsageError
from evacap_cli.tasks.fetching.table import read_table


def test_the_packaged_table_describes_each_file() -> None:
    table = read_table()
    assert {"avcap", "cav-mae-scale++", "git-base", "git-base-textcaps", "bert-base-uncased"} <= table.keys()
    for entry in table.values():
        assert entry.url.startswith("https://")
        assert entry.source.startswith("https://")
        assert entry.about
        assert entry.licence != "not stated"
        assert entry.megabytes
    assert len({entry.file for entry in table.values()}) == len(table)


def test_a_table_of_the_user_changes_keys_and_adds_entries(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "avcap: {url: 'https://mirror.example/a.pth', needs: []}\n"
        "mine: {kind: git, url: 'https://mirror.example/b.pt', file: b.pt}\n"
    )
    table, packaged = read_table(mine), read_table()
    assert (table["avcap"].url, table["avcap"].needs) == ("https://mirror.example/a.pth", ())
    assert (table["avcap"].licence, table["avcap"].file) == ("MIT", "AVCap.pth")
    assert (table["mine"].licence, table["mine"].needs) == ("not stated", ())
    assert table["git-base"] == packaged["git-base"]
    assert [*table] == [*packaged, "mine"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("../x: {kind: git, url: 'https://e.example/b', file: b}", "`../x` is not a name"),
        ("x: text", "x: is not a mapping"),
        ("x: {kind: git, file: b}", "x: lacks `url`"),
        ("x: {kind: pickle, url: 'https://e.example/b', file: b}", "x: `kind` is one of avcap"),
        ("x: {kind: git, url: 'ftp://e.example/b', file: b}", "x: `url` starts with https://"),
        ("x: {kind: git, url: 'https://e.example/b', file: ../b}", "x: `file` is a file name"),
        ("x: {kind: git, url: 'https://e.example/b', file: b, sha256: 12ab}", "x: `sha256` is not a text"),
        ("x: {kind: git, url: 'https://e.example/b', file: b, sha256: ab}", "x: `sha256` is 64"),
        ("x: {kind: git, url: 'https://e.example/b', file: b, hash: ab}", "x: unknown key `hash`"),
        ("x: {kind: git, url: 'https://e.example/b', file: b, needs: avcap}", "x: `needs` is not a list"),
        ("x: {kind: git, url: 'https://e.example/b', file: b, needs: [x]}", "x: `needs` x, which"),
        ("x: {kind: git, url: 'https://e.example/b', file: b, megabytes: big}", "x: `megabytes`: a number"),
    ],
)  # fmt: skip
def test_errors_are_named(row: str, problem: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(row.replace("12ab", "12"))
    with pytest.raises(UsageError) as caught:
        read_table(mine)
    assert caught.value.message.startswith(f"--table {mine}: ")
    assert problem in caught.value.message


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("x: {}\ny: {kind: git}\n")
    with pytest.raises(UsageError) as caught:
        read_table(mine)
    for problem in ("x: lacks `kind`", "x: lacks `url`", "y: lacks `file`"):
        assert problem in caught.value.message


@pytest.mark.parametrize("text", ["a: [", "- a", "\xff"])
def test_a_missing_table_is_reported(text: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="is not"):
        read_table(mine)
    with pytest.raises(UsageError, match="cannot be read"):
        read_table(tmp_path / "none.yaml")
