from __future__ import annotations

import os
from pathlib import Path

import pytest

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.captioning.sources import expand_inputs


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.mp4", "a.MKV", "c/d.wav", "c/e/f.webm", "c/notes.txt", ".g.mp4", ".h/i.mp4", "[x].mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*inputs: str) -> list[str]:
    return [str(path) for path in expand_inputs(inputs)]


def test_a_folder_is_all_media_below_it_sorted_and_not_hidden(tree: Path) -> None:
    assert names(".") == ["[x].mp4", "a.MKV", "b.mp4", "c/d.wav", "c/e/f.webm"]
    assert names("c") == ["c/d.wav", "c/e/f.webm"]


def test_inputs_keep_their_order_and_what_is_named_is_taken(tree: Path) -> None:
    assert names("c/notes.txt", "b.mp4", "a.MKV", "b.mp4") == ["c/notes.txt", "b.mp4", "a.MKV", "b.mp4"]
    assert names(".g.mp4") == [".g.mp4"]


def test_wildcards(tree: Path) -> None:
    assert names("*.mp4") == ["[x].mp4", "b.mp4"]
    assert names("**/*.w*") == ["c/d.wav", "c/e/f.webm"]
    assert names("?", "b*") == ["c/d.wav", "c/e/f.webm", "b.mp4"]
    assert names("[x].mp4") == ["[x].mp4"]


def test_links_to_nowhere_are_inputs(tree: Path) -> None:
    os.symlink("nowhere", "link.mp4")
    assert names("link.mp4") == ["link.mp4"]


def test_all_that_is_missing_is_named(tree: Path) -> None:
    with pytest.raises(UsageError) as caught:
        names("b.mp4", "x.mp4", "*.avi", "", "n" * 5000)
    assert "x.mp4" in caught.value.message
    assert "*.avi" in caught.value.message
    assert "''" in caught.value.message
    assert "b.mp4" not in caught.value.message


def test_nothing_to_do_is_an_error(tree: Path) -> None:
    with pytest.raises(EvacapError, match="no media files in 'empty'") as caught:
        names("empty")
    assert caught.value.exit_code == 1
    assert names("empty", "b.mp4") == ["b.mp4"]
