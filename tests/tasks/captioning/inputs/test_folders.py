"""Whatever is in a folder."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from tests.media.clips import write
from tests.media.crafted import jpeg

NOBODY = 65534


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def below(folder: Path) -> list[str]:
    return [source.relative for source in find_sources([folder])]


@pytest.fixture
def ordinary() -> Iterator[Path]:
    """A folder, and no rights but those of its files, which root has not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        if root := os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        yield folder
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
        for path in folder.rglob("*"):
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_only_media_files_in_order(tmp_path: Path) -> None:
    make(
        tmp_path,
        "b.mp4",
        "a.MKV",
        "c/d.wav",
        "c-x.wav",
        "c/e/f.webm",
        "c/notes.txt",
        "p.jpg",
        "mp4",
        "d.mp4/g.ts",
    )
    make(tmp_path, ".hidden.mp4", ".cache/h.mp4", "._a.mp4")
    found = find_sources([tmp_path])
    assert [source.relative for source in found] == [
        "a.MKV", "b.mp4", "c/d.wav", "c/e/f.webm", "c-x.wav", "d.mp4/g.ts",
    ]  # fmt: skip
    assert [source.name for source in found] == [f"{tmp_path}/{source.relative}" for source in found]
    assert [source.path for source in found] == [source.name for source in found]
    assert found.left_out == {"no media": 3, "hidden": 3}


def test_a_named_hidden_folder_is_searched(tmp_path: Path) -> None:
    make(tmp_path, ".h/a.mp4")
    assert below(tmp_path / ".h") == ["a.mp4"]


@pytest.mark.timeout(20)
def test_links_are_followed_without_cycles(tmp_path: Path) -> None:
    make(tmp_path, "in/x/a.mp4", "in/y/b.mp4", "out/c.mp4", "out/d/e.mp4")
    (tmp_path / "in/x/up").symlink_to("..")
    (tmp_path / "in/x/self").symlink_to(".")
    (tmp_path / "in/0-y").symlink_to("y")
    (tmp_path / "in/file.mp4").symlink_to("../out/c.mp4")
    (tmp_path / "in/away").symlink_to("../out")
    (tmp_path / "out/back").symlink_to("../in")
    (tmp_path / "in/loop").symlink_to("loop")
    (tmp_path / "in/gone.mp4").symlink_to("nowhere")
    (tmp_path / "in/gone.txt").symlink_to("nowhere")
    found = find_sources([tmp_path / "in"])
    assert [source.relative for source in found] == [
        "away/c.mp4", "away/d/e.mp4", "file.mp4", "gone.mp4", "x/a.mp4", "y/b.mp4",
    ]  # fmt: skip
    assert found[3].error == "a broken link"
    assert [source.same_as for source in found] == [None, None, 0, None, None, None]
    assert found.left_out == {"links to folders that are already included": 4, "no media": 2}


@pytest.mark.timeout(20)
def test_folders_all_linked_to_each_other(tmp_path: Path) -> None:
    """There are more than 10! ways through them."""
    for i in range(12):
        make(tmp_path, f"{i}/a.mp4")
        for j in range(12):
            (tmp_path / f"{i}/to{j}").symlink_to(f"../{j}")
    assert sorted(below(tmp_path)) == sorted(f"{i}/a.mp4" for i in range(12))
    assert len(find_sources([tmp_path / "**/*.mp4"])) == 12
    assert len(below(tmp_path / "0")) == 12


def test_names_in_any_script_or_encoding(tmp_path: Path) -> None:
    odd = [
        "日本語.mp4",
        "عربى.mkv",
        "😀 a  b.wav",
        "-o.mp4",
        "'\"$(x);.mp4",
        "line\nend\t\x1b[31m.mp4",
        "a:b.mp4",
    ]
    make(tmp_path, *odd)
    raw = [os.fsencode(tmp_path) + b"/" + name for name in (b"\xff\xfe.mp4", b"caf\xe9/\xe9.wav")]
    os.mkdir(os.path.dirname(raw[1]))
    for name in raw:
        with open(name, "wb") as file:
            file.write(name)
    found = find_sources([tmp_path])
    assert not [source.error for source in found if source.error]
    assert {os.fsencode(source.path) for source in found} == {os.fsencode(tmp_path / n) for n in odd} | set(
        raw
    )
    assert all(os.path.isfile(source.path) for source in found)


def test_pipes_sockets_and_links_to_them_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "a.mp4")
    os.mkfifo("pipe.mp4")
    os.symlink("pipe.mp4", "to-pipe.mp4")
    os.symlink("/dev/zero", "zero.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock.mp4")
        found = find_sources(["."])
    assert [source.name for source in found] == ["a.mp4"]
    assert found.left_out == {"pipes, sockets or devices": 4}


def test_unreadable_folders_are_failures(ordinary: Path) -> None:
    make(ordinary, "a.mp4", "b.mp4", "closed/c.mp4", "d/e.mp4")
    (ordinary / "b.mp4").chmod(0)
    (ordinary / "closed").chmod(0)
    why = "cannot be read: Permission denied"
    found = find_sources([ordinary])
    assert [(source.relative, source.error) for source in found] == [
        ("a.mp4", ""), ("b.mp4", why), ("closed", why), ("d/e.mp4", ""),
    ]  # fmt: skip
    assert found[2].path == str(ordinary / "closed")
    named = find_sources([ordinary / "b.mp4", ordinary / "closed/c.mp4", ordinary / "closed"])
    assert [source.error for source in named] == [why] * 3
    assert [(s.relative, s.error) for s in find_sources([ordinary / "**/*.mp4"])] == [
        ("a.mp4", ""), ("b.mp4", why), ("closed", why), ("d/e.mp4", ""),
    ]  # fmt: skip


def test_a_folder_that_breaks_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.mp4", "b/c.mp4", "d/e.mp4")
    scandir = os.scandir

    def broken(path: str) -> object:
        if path.endswith("/b"):
            raise OSError(5, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", broken)
    found = find_sources([tmp_path])
    assert [(s.relative, s.error) for s in found] == [
        ("a.mp4", ""), ("b", "cannot be read: Input/output error"), ("d/e.mp4", ""),
    ]  # fmt: skip


def test_empty_files_are_failures(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert [source.error for source in find_sources([tmp_path])] == ["the file is empty"]


def test_same_names_with_other_extensions_and_in_other_folders(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "a.mkv", "a.wav", "x/a.mp4", "y/a.mp4")
    assert below(tmp_path) == ["a.mkv", "a.mp4", "a.wav", "x/a.mp4", "y/a.mp4"]


@pytest.mark.slow
def test_files_of_any_suffix_by_their_content(tmp_path: Path) -> None:
    sound = write(tmp_path / "a.flac", 0.5, video=None, audio="flac").read_bytes()
    film = write(tmp_path / "b.mp4", 0.5).read_bytes()
    mute = write(tmp_path / "c.mkv", 0.5, audio=None).read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in {
        "known.mp4": b"whatever it holds", "sound": sound, "film.part": film, "below.d/film.dat": film,
        "mute.dat": mute, "notes.txt": b"words " * 500, "empty": b"", "table.csv": b"video,caption\n", ".film": film,
        "program": bytes(range(256)) * 300, "picture.jpg": jpeg(),
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("nowhere")
    found = find_sources([folder], any_suffix=True)
    assert [s.relative for s in found] == ["below.d/film.dat", "film.part", "known.mp4", "sound"]
    assert found.left_out == {"no media": 8, "hidden": 1}
    assert [s.relative for s in find_sources([folder / "*"], any_suffix=True)] == [s.relative for s in found]
    assert [s.relative for s in find_sources([folder])] == ["known.mp4"]
