"""What a user points at: names, wildcards, lists and manifests, and where their outputs are to stand."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
from pathlib import Path

import pytest

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.sources import Source


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.mp4", "a.MKV", "c/d.wav", "c/e/f.webm", "c/notes.txt", ".g.mp4", ".h/i.mp4", "[x].mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*inputs: str | Path) -> list[str]:
    return [source.name for source in find_sources(inputs)]


def listed(text: bytes | str) -> list[tuple[str, str]]:
    stdin = io.BytesIO(text) if isinstance(text, bytes) else io.StringIO(text)
    return [(source.name, source.error) for source in find_sources(["-"], stdin)]


def places(*inputs: str | Path) -> list[str]:
    return [source.relative for source in find_sources(inputs)]


def test_inputs_keep_their_order_and_named_files_are_accepted(tree: Path) -> None:
    assert names("c/notes.txt", "b.mp4", "a.MKV", "b.mp4") == ["c/notes.txt", "b.mp4", "a.MKV", "b.mp4"]
    assert names(".g.mp4", tree / "b.mp4") == [".g.mp4", str(tree / "b.mp4")]


def test_size_and_time_are_those_of_the_file(tree: Path) -> None:
    (source,) = find_sources(["b.mp4"])
    status = os.stat("b.mp4")
    assert (source.size, source.mtime_ns) == (5, status.st_mtime_ns)
    assert (source.start, source.end, source.error, source.same_as) == (None, None, "", None)
    assert pickle.loads(pickle.dumps(source)) == source
    assert len(pickle.dumps(source)) < 300


def test_wildcards(tree: Path) -> None:
    assert names("*.mp4") == ["[x].mp4", "b.mp4"]
    assert names("**/*.w*") == ["c/d.wav", "c/e/f.webm"]
    assert names("?", "b*") == ["c/d.wav", "c/e/f.webm", "b.mp4"]
    assert names("[x].mp4") == ["[x].mp4"]
    assert names("[ab].*") == ["a.MKV", "b.mp4"]
    assert names(tree / "c/**") == [str(tree / "c/d.wav"), str(tree / "c/e/f.webm")]
    assert names("**/e") == ["c/e/f.webm"]
    assert names("**/**/?.webm") == ["c/e/f.webm"]
    assert names(".h/*") == [".h/i.mp4"]


def test_a_wildcard_takes_other_files_only_by_their_suffix(tree: Path) -> None:
    found = find_sources(["c/*"])
    assert [source.name for source in found] == ["c/d.wav", "c/e/f.webm"]
    assert found.left_out == {"no media": 1}
    assert names("c/*.txt") == names("**/*.txt") == ["c/notes.txt"]
    assert names("c/**") == ["c/d.wav", "c/e/f.webm"]
    with pytest.raises(EvacapError, match=r"1 no media") as caught:
        names("c/n*")
    assert caught.value.exit_code == 1


def test_folders_with_brackets_in_their_names(tree: Path) -> None:
    for name in ("[old]/a.mp4", "[old]/sub/b.mp4", "o/c.mp4"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    assert names("[old]/*.mp4") == ["[old]/a.mp4"]
    assert names(tree / "[old]/**/*.mp4") == [f"{tree}/[old]/a.mp4", f"{tree}/[old]/sub/b.mp4"]
    assert names("[old]") == ["[old]/a.mp4", "[old]/sub/b.mp4"]
    assert names("[ol]/*") == ["o/c.mp4"]
    assert places("[old]/*", "[old]/s*/*") == ["a.mp4", "sub/b.mp4", "sub/b~2.mp4"]


def test_all_missing_inputs_are_named(tree: Path) -> None:
    with pytest.raises(UsageError) as caught:
        names("b.mp4", "x.mp4", "*.avi", "", "n" * 5000, "b.mp4/c.mp4", "a\0b", "a\0*")
    for name in ("x.mp4", "*.avi", "''", "'b.mp4/c.mp4'", "a\\x00b"):
        assert name in caught.value.message
    assert "'b.mp4'" not in caught.value.message


def test_no_inputs_is_an_error(tree: Path) -> None:
    with pytest.raises(EvacapError, match="no media files in 'empty'") as caught:
        names("empty")
    assert caught.value.exit_code == 1
    assert names("empty", "b.mp4") == ["b.mp4"]


def test_named_inputs_that_are_not_files_are_failures_with_a_cause(tree: Path) -> None:
    os.mkfifo("pipe.mp4")
    os.symlink("nowhere", "link.mp4")
    os.symlink("round.mp4", "round.mp4")
    Path("zero.mp4").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock.mp4")
        found = find_sources(
            ["pipe.mp4", "sock.mp4", "/dev/null", "link.mp4", "round.mp4", "zero.mp4", "b.mp4"]
        )
    assert [source.error for source in found] == [
        "a named pipe, not a file",
        "a socket, not a file",
        "a device, not a file",
        "a broken link",
        "cannot be read: Too many levels of symbolic links",
        "the file is empty",
        "",
    ]


def test_a_list_on_stdin(tree: Path) -> None:
    assert listed(b"b.mp4\r\n\nc\n./a.MKV") == [
        ("b.mp4", ""),
        ("c/d.wav", ""),
        ("c/e/f.webm", ""),
        ("./a.MKV", ""),
    ]
    assert listed("b.mp4\n*.MKV\n") == [("b.mp4", ""), ("a.MKV", "")]
    assert listed(b"\xef\xbb\xbfb.mp4\n") == [("b.mp4", "")]
    with pytest.raises(EvacapError, match="no media files in '-'"):
        listed(b"\n")


def test_a_nul_separated_list_may_contain_any_name(tree: Path) -> None:
    odd = b"li\nne \xff.mp4"
    Path(os.fsdecode(odd)).write_text("odd")
    assert listed(b"b.mp4\0" + odd + b"\0") == [("b.mp4", ""), (os.fsdecode(odd), "")]


def test_missing_files_of_a_list_are_failures(tree: Path) -> None:
    Path("table.csv").write_text("not,a,manifest\n")
    gone = "no such file or folder"
    assert listed(b"gone.mp4\n*.avi\nb.mp4\ntable.csv\n-\n") == [
        ("gone.mp4", gone), ("*.avi", gone), ("b.mp4", ""), ("table.csv", ""), ("-", gone),
    ]  # fmt: skip


def test_process_stdin(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("é.mp4\nb.mp4".encode())))
    assert names("a.MKV", "-") == ["a.MKV", "é.mp4", "b.mp4"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_a_manifest_with_parts(tree: Path, suffix: str) -> None:
    rows = [
        {"video": "d.wav", "start": 1.5, "end": 3.0, "caption": "a dog"},
        {"video": "e/f.webm", "start": None, "end": None, "caption": "rain"},
        {"video": "d.wav", "start": 4.0, "end": None, "caption": "a bell"},
        {"video": "d.wav", "start": 1.5, "end": 3.0, "caption": "the same part, another caption"},
        {"video": "gone.mp4", "start": 0.0, "end": 1.0, "caption": ""},
        {"video": "d.wav", "start": 5.0, "end": 2.0, "caption": "wrong"},
    ]
    path = Path("c", f"list{suffix}")
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pandas = pytest.importorskip("pandas")
        table = pandas.DataFrame(rows)
        table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    found = find_sources([path, "b.mp4"])
    assert [(s.name, s.start, s.end, s.relative) for s in found if not s.error] == [
        ("c/d.wav", 1.5, 3.0, "d.wav.1.5-3"),
        ("c/e/f.webm", None, None, "e/f.webm"),
        ("c/d.wav", 4.0, None, "d.wav.4-end"),
        ("b.mp4", None, None, "b.mp4"),
    ]
    assert found[0].size == len("c/d.wav")
    assert [(s.name, s.error.split(":")[0]) for s in found if s.error] == [
        ("gone.mp4", "no such file"),
        ("d.wav", "end 2 is not after start 5"),
    ]


def test_tables_that_are_not_manifests_are_reported_with_other_errors(tree: Path) -> None:
    Path("x.csv").write_text("a,b\n1,2\n")
    Path("y.json").write_text("{")
    with pytest.raises(UsageError) as caught:
        names("x.csv", "b.mp4", "gone.mp4", "y.json")
    for name in ("x.csv: no column with paths", "y.json: is not valid JSON", "'gone.mp4'"):
        assert name in caught.value.message
    assert "check the spelling" in caught.value.cure
    assert "video,caption" in caught.value.cure


def test_output_paths_mirror_the_folder_and_keep_extensions(tree: Path) -> None:
    Path("c/d.mp4").write_text("another")
    assert places("c") == ["d.mp4", "d.wav", "e/f.webm"]
    assert places(".") == ["[x].mp4", "a.MKV", "b.mp4", "c/d.mp4", "c/d.wav", "c/e/f.webm"]
    assert places(tree / "c/e/f.webm", "./b.mp4", ".h/../b.mp4") == ["f.webm", "b.mp4", "b~2.mp4"]
    assert places("c/*", f"../{tree.name}/*/*/f.webm") == ["d.mp4", "d.wav", "e/f.webm", "c/e/f.webm"]
    assert places("c/e/../e/*", "*/../b.mp4") == ["f.webm", "c/b.mp4", "empty/b.mp4"]


def test_equal_output_paths_are_made_unique_reproducibly(tree: Path) -> None:
    for folder in ("one", "two", "three"):
        for name in ("a.mp4", "sub/A.mp4", "sub/a.mp4"):
            (tree / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / folder / name).write_text(folder + name)
    found = places("one", "two", "one/a.mp4")
    assert found == ["a.mp4", "sub/A.mp4", "sub/a~2.mp4", "a~2.mp4", "sub/A~3.mp4", "sub/a~4.mp4", "a~3.mp4"]
    assert found == places("one", "two", "one/a.mp4")
    (tree / "three/a~2.mp4").write_text("taken")
    everything = places("one", "two", "three", "one")
    assert len({place.lower() for place in everything}) == len(everything) == 13


def test_output_paths_that_collide_or_are_too_long(tmp_path: Path) -> None:
    for name in ("\u00e9.mp4", "e\u0301.mp4", "n" * 251 + ".mp4", "n" * 250 + "m.mp4"):
        (tmp_path / name).write_text(name)
    raw = os.fsencode(tmp_path) + b"/" + b"\xff" * 250 + b".mp4"
    Path(os.fsdecode(raw)).write_text("bytes")
    found = places(tmp_path)
    assert found[0] == "e\u0301.mp4"
    assert "\u00e9~2.mp4" in found
    assert len(set(found)) == 5
    assert all(place.endswith(".mp4") and len(os.fsencode(place)) <= 200 for place in found)


def test_output_paths_stay_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.mp4").write_text("a")
    table = tmp_path / "in" / "list.csv"
    table.write_text(f"video\n../a.mp4\n{tmp_path}/in/../../x.mp4\n..\n")
    for place in places(table, tmp_path / "in" / ".." / "a.mp4"):
        assert place
        assert not place.startswith("/")
        assert ".." not in place.split("/")


def test_a_source_can_be_constructed() -> None:
    assert Source("a.mp4", "a.mp4") == Source("a.mp4", "a.mp4", None, None, None, None, "", None, "")
