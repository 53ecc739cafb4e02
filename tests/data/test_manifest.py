"""Manifests in the shapes in which people have them: tables, forms and keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evacap_cli.data.manifest import read_manifest
from evacap_cli.data.manifest.keys import Keys
from evacap_cli.errors import UsageError


def write(folder: Path, text: str, name: str = "captions.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


def media(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def as_parquet(path: Path, columns: dict[str, Any]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_many_rows_a_video_stay_together(tmp_path: Path) -> None:
    media(tmp_path, "a.mp4", "b.mp4")
    path = write(
        tmp_path,
        'video,caption\na.mp4,A dog barks\nb.mp4,"Rain, then thunder"\na.mp4,A dog is barking\na.mp4,A dog barks\n',
    )
    entries = read_manifest(path)
    assert [e.path for e in entries] == [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    assert entries[0].captions == ("A dog barks", "A dog is barking", "A dog barks")
    assert entries[1].captions == ("Rain, then thunder",)
    assert [(e.key, e.source, e.error) for e in entries] == [("a", "a.mp4", ""), ("b", "b.mp4", "")]


def test_wide_form_with_byte_order_mark_and_gaps(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffFile_Name,caption_1,caption_2,caption_3\nx y.mp4,One, ,Three\nz.mp4\n,,,\n")
    assert [e.captions for e in read_manifest(path)] == [("One", "Three"), ()]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(tmp_path: Path, delimiter: str, end: str) -> None:
    lines = ["video,caption", 'a.mp4,"One, two; three\tfour"', "b.mp4,Two", ""]
    head, first, second, last = lines
    text = end.join(
        [head.replace(",", delimiter), first.replace(",", delimiter, 1), second.replace(",", delimiter), last]
    )
    entries = read_manifest(write(tmp_path, text))
    assert [e.captions for e in entries] == [("One, two; three\tfour",), ("Two",)]


def test_all_file_types_are_equivalent(tmp_path: Path) -> None:
    media(tmp_path, "a.mp4", "b.mp4")
    rows = [
        {"video": "a.mp4", "caption": "One"},
        {"video": "b.mp4", "caption": "Two\u2028lines"},
        {"video": "a.mp4", "caption": "Three"},
    ]
    listed = [
        {"video": "a.mp4", "captions": ["One", "Three"]},
        {"video": "b.mp4", "captions": ["Two\u2028lines", None]},
    ]
    coco = {
        "images": [{"id": 7, "video": "a.mp4"}, {"id": 8, "video": "b.mp4"}],
        "annotations": [{"id": i, "image_id": k, "caption": t} for i, k, t in
                        [(0, 8, "Two\u2028lines"), (1, 7, "One"), (2, 7, "Three")]],
    }  # fmt: skip
    given = [
        write(tmp_path, "video,caption\na.mp4,One\nb.mp4,Two\u2028lines\na.mp4,Three\n"),
        write(tmp_path, json.dumps(rows), "rows.json"),
        write(tmp_path, json.dumps({"data": rows}), "data.json"),
        write(tmp_path, json.dumps(coco), "coco.json"),
        write(tmp_path, "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "rows.jsonl"),
        write(tmp_path, json.dumps(listed), "listed.json"),
        as_parquet(tmp_path / "rows.parquet", {name: [row[name] for row in rows] for name in rows[0]}),
        as_parquet(tmp_path / "listed.pq", {name: [row[name] for row in listed] for name in listed[0]}),
    ]
    first = read_manifest(given[0])
    assert [e.captions for e in first] == [("One", "Three"), ("Two\u2028lines",)]
    for path in given[1:]:
        assert read_manifest(path) == first, path.name


IDS = ["-0123", "1e5", "=1+1", "007", "nan", "NA", "None", "1.0", "+4", "true"]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_ids_are_kept_as_text(tmp_path: Path, suffix: str) -> None:
    path, folder = tmp_path / f"m{suffix}", tmp_path / "media"
    media(folder, *(f"{i}.mp4" for i in IDS))
    rows = [{"id": i, "caption": "x"} for i in IDS]
    if suffix == ".csv":
        write(tmp_path, "id,caption\n" + "".join(f"{i},x\n" for i in IDS), path.name)
    elif suffix == ".json":
        write(tmp_path, json.dumps(rows), path.name)
    elif suffix == ".jsonl":
        write(tmp_path, "\n".join(map(json.dumps, rows)), path.name)
    else:
        as_parquet(path, {"id": IDS, "caption": ["x"] * len(IDS)})
    entries = read_manifest(path, folder)
    assert [e.source for e in entries] == IDS
    assert [e.path for e in entries] == [folder / f"{i}.mp4" for i in IDS]


def test_numbers_as_ids_and_gaps(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[{"id": 1e5, "caption": NaN}, {"id": 12, "caption": 3}, {"id": 0.50, "caption": null}]',
        "n.json",
    )
    assert [(e.source, e.captions) for e in read_manifest(path)] == [
        ("1e5", ()),
        ("12", ("3",)),
        ("0.50", ()),
    ]
    path = as_parquet(tmp_path / "n.parquet", {"id": [103549.0, float("nan")], "caption": ["One", "Two"]})
    entries = read_manifest(path)  # a gap made whole numbers to floats
    assert [(e.source, e.key, e.captions) for e in entries[:1]] == [("103549", "103549", ("One",))]
    assert entries[1].path is None
    assert entries[1].error == "row 2 has no file and no id"


def test_only_columns_in_use_are_read_of_parquet(tmp_path: Path) -> None:
    path = as_parquet(
        tmp_path / "n.parquet",
        {"Video": ["a.mp4"], "caption": ["One"], "audio": [{"bytes": b"RIFF", "path": "x"}]},
    )
    assert read_manifest(path)[0].captions == ("One",)


def test_relative_and_absolute_paths(tmp_path: Path) -> None:
    home, videos, away = tmp_path / "home", tmp_path / "videos", tmp_path / "away"
    _, plain, spaced, accent, odd, outside = media(
        tmp_path, "home/c.mp4", "videos/a.mp4", "videos/x y/b c.mp4", "videos/cafe\u0301.mp4",
        "videos/\u65e5\u672c #1.mp4", "away/d.wav",
    )  # fmt: skip
    rows = [
        "a.mp4",
        "x y\\b c.mp4",
        "caf\u00e9.mp4",
        "\u65e5\u672c #1.mp4",
        "../away/d.wav",
        str(outside),
        "c.mp4",
        "gone.mp4",
    ]
    entries = read_manifest(write(home, "video,caption\n" + "".join(f"{r},x\n" for r in rows)), videos)
    assert [e.path for e in entries] == [
        plain, spaced, accent, odd, videos / ".." / "away" / "d.wav", away / "d.wav", home / "c.mp4", None,
    ]  # fmt: skip
    assert str(videos / "gone.mp4") in entries[-1].error
    assert str(home / "gone.mp4") in entries[-1].error
    assert [e.source for e in entries] == rows


def test_spellings_of_one_path_are_one_clip(tmp_path: Path) -> None:
    (a,) = media(tmp_path, "v/a.mp4")
    path = write(tmp_path, f"video,caption\nv/a.mp4,1\n./v/a.mp4,2\nv\\a.mp4,3\n{a},4\nv/b/../a.mp4,5\n")
    (entry,) = read_manifest(path)
    assert (entry.path, entry.captions, entry.key) == (a, ("1", "2", "3", "4", "5"), "v_a")


def test_segments_of_a_video_are_separate_clips(tmp_path: Path) -> None:
    (a,) = media(tmp_path, "a.mp4")
    path = write(
        tmp_path,
        "video,start,end,caption\na.mp4,0,10,1\na.mp4,10.5,20,2\na.mp4,0.0,10.0,3\na.mp4,,,4\na.mp4,5,,5\n",
    )
    assert [(e.path, e.start, e.end, e.captions, e.key) for e in read_manifest(path)] == [
        (a, 0, 10, ("1", "3"), "a_0_10"),
        (a, 10.5, 20, ("2",), "a_10-5_20"),
        (a, None, None, ("4",), "a"),
        (a, 5, None, ("5",), "a_5"),
    ]


def test_wrong_rows_fail_only_their_clip(tmp_path: Path) -> None:
    (a,) = media(tmp_path, "a.mp4")
    path = write(
        tmp_path,
        "video,start,end,caption\na.mp4,x,1_0,1\na.mp4,9,3,2\na.mp4,-1,inf,3\n,,,4\na.mp4,1,2,5\na.mp4,x,1_0,6\n",
    )
    entries = read_manifest(path)
    assert [e.path for e in entries] == [None, None, None, None, a]
    assert [e.captions for e in entries] == [("1", "6"), ("2",), ("3",), ("4",), ("5",)]
    assert "start 'x'" in entries[0].error
    assert "end '1_0'" in entries[0].error
    assert "end 3 is not after start 9" in entries[1].error
    assert "'-1'" in entries[2].error
    assert "'inf'" in entries[2].error
    assert entries[3].error == "line 5 has no file and no id"
    assert len({e.key for e in entries}) == 5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("video,text\na,b\n", "with captions; the columns are: video, text"),
        ("name,caption\na,b\n", "with paths or ids; the columns are: name, caption"),
        ("name,text\na,b\n", "with paths or ids and none with captions"),
        ("", "none"),
        ("video,caption\n,\n", "no clips"),
        (
            "video,caption\na.mp4,Rain, then thunder\nb.mp4,x\nc.mp4,1,2,3\n",
            "line 2 has 3 cells, line 4 has 4 cells",
        ),
        ('video,caption\na.mp4,"Rain\nb.mp4,x\n', "line 3: unexpected end of data"),
        ("video,caption,Caption\na,b,c\n", "'caption' twice"),
    ],
)
def test_missing_columns_are_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_manifest(write(tmp_path, text))
    assert named in caught.value.message
    assert "captions.csv" in caught.value.message
    assert caught.value.cure


def test_the_error_lists_all_forms(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_manifest(write(tmp_path, "name,text\n"))
    for named in (
        "video,caption",
        "caption_1",
        "youtube_id,start_time",
        "audio_path,video_path",
        "start,end",
    ):
        assert named in caught.value.cure


def test_captions_are_optional_on_request(tmp_path: Path) -> None:
    path = write(tmp_path, "video\na.mp4\n")
    assert [e.captions for e in read_manifest(path, captioned=False)] == [()]
    with pytest.raises(UsageError, match="with captions"):
        read_manifest(path)
    path = write(tmp_path, "video,caption\na.mp4,\n")
    assert [e.captions for e in read_manifest(path)] == [()]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("a.json", '[{"video": "a"', "is not valid JSON"),
        ("a.json", '{"video": "a", "caption": "b"}', "not a list"),
        ("a.json", '[1, {"video": "a"}, "b"]', "object 1 is not, object 3 is not"),
        ("a.json", "[" * 100_000, "is not valid JSON"),
        ("a.json", "[]", "none"),
        ("a.json", '[{"video": ["a"], "caption": "b"}]', "object 1: video"),
        (
            "a.json",
            '{"images": [{"id": 1}], "annotations": [{"image_id": 2, "caption": "b"}]}',
            "image_id '2'",
        ),
        ("a.json", '{"images": [{"video": "a"}]}', "COCO"),
        ("a.jsonl", '{"video": "a", "caption": "b"}\n{"video"\n', "line 2: is not valid JSON"),
        ("a.parquet", "PAR1 and nothing else", "Parquet"),
    ],
)
def test_broken_tables_are_reported_with_the_cause(tmp_path: Path, name: str, text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_manifest(write(tmp_path, text, name))
    assert named in caught.value.message
    assert name in caught.value.message


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    for name in ("nothing.csv", "nothing.json", "nothing.parquet"):
        with pytest.raises(UsageError, match=re.escape(name)):
            read_manifest(tmp_path / name)
    path = tmp_path / "latin.csv"
    path.write_bytes("video,caption\na.mp4,Caf\u00e9\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"(?i)utf-8"):
        read_manifest(path)
    with pytest.raises(UsageError, match="not a folder"):
        read_manifest(write(tmp_path, "video,caption\na,b\n"), tmp_path / "nowhere")


def test_keys_are_valid_in_archives_and_stable(tmp_path: Path) -> None:
    names = ["a.mp4", "a.wav", "d/a.mp4", "d_a.mp4", "x y.mp4", "x_y.mp4", "-z.mp4", "\u65e5\u672c.mp4", "../a.mp4",
             "a.b.mp4", "l" * 200 + ".mp4", "l" * 201 + ".mp4",
             "a\ud800".encode("utf-8", "surrogatepass").hex()]  # fmt: skip
    path = write(tmp_path, "video,caption\n" + "".join(f"{name},x\n" for name in names))
    keys = [e.key for e in read_manifest(path)]
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", key) for key in keys)
    assert (keys[0], keys[2], keys[5], keys[6]) == ("a", "d_a", "x_y", "_-z")
    assert [re.sub(r"[0-9a-f]{8}$", "#", keys[i]) for i in (1, 3, 4, 7)] == ["a-#", "d_a-#", "x_y-#", "__-#"]
    more = write(tmp_path, path.read_text("utf-8") + "later.mp4,x\nx?y.mp4,x\n", "more.csv")
    assert [e.key for e in read_manifest(more)][: len(names)] == keys


def test_equal_names_and_ids_get_different_keys() -> None:
    keys = Keys()
    assert (
        len({keys.make("a b", "one") for _ in range(5)} | {keys.make("\ud800", "\ud800"), keys.make("", "")})
        == 7
    )
