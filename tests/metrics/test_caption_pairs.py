from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from evacap_cli.errors import UsageError
from evacap_cli.metrics.caption_pairs import Pairs, pair, read_candidates, read_references

AUDIOCAPS = """audiocap_id,youtube_id,start_time,caption
103549,7fmOlUlwoNg,20,"Rattling, and vibrations"
103548,6BJ455B1aAs,0,A rocket flies
103541,7fmOlUlwoNg,20,A rattle
103540,7fmOlUlwoNg,20,A rattle
"""
TEXTS = [["Rattling, and vibrations", "A rattle", "A rattle"], ["A rocket flies"]]
WIDE = """file_name,caption_1,caption_2,caption_3
7fmOlUlwoNg.wav,"Rattling, and vibrations",A rattle,A rattle
6BJ455B1aAs.wav,A rocket flies,,
"""
JSONL = "".join(
    json.dumps({"video": name, "captions": captions}) + "\n"
    for name, captions in zip(("7fmOlUlwoNg", "6BJ455B1aAs"), TEXTS, strict=True)
)
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "7fmOlUlwoNg.mp4"}, {"id": 2, "file_name": "x/6BJ455B1aAs.mp4"}],
        "annotations": [
            {"image_id": image, "id": 5 + i, "caption": text}
            for i, (image, text) in enumerate(
                [(1, TEXTS[0][0]), (2, TEXTS[1][0]), (1, TEXTS[0][1]), (1, TEXTS[0][2])]
            )
        ],
    }
)


MAPPED = json.dumps({"7fmOlUlwoNg": [{"caption": text} for text in TEXTS[0]], "6BJ455B1aAs": TEXTS[1][0]})
"""As pycocoevalcap takes them, and one text."""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def paired(folder: Path, candidates: str, references: str = AUDIOCAPS, suffix: str = ".csv") -> Pairs:
    path = write(folder, f"candidates{suffix}", candidates)
    return pair(read_candidates(path), path, read_references(write(folder, "references.csv", references)))


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", AUDIOCAPS), ("w.csv", WIDE), ("l.jsonl", JSONL), ("c.json", COCO), ("m.json", MAPPED)],
)
def test_forms_of_references(tmp_path: Path, name: str, text: str) -> None:
    assert read_references(write(tmp_path, name, text)).captions == TEXTS


OURS = """video,start,end,caption,score,gate,entropy,status,error
clips/6BJ455B1aAs.mp4,0.000,10.000,a rocket,-1.2,0.5,0.4,ok,
clips/7fmOlUlwoNg.mp4,3.200,13.200,a rattle,-1.0,0.5,0.4,audio-only,
"""


ONE, OTHER = "6BJ455B1aAs", "7fmOlUlwoNg"
AS_JSON = [{"image_id": ONE, "caption": "a rocket"}, {"image_id": OTHER, "caption": "a rattle"}]
AS_LISTS = [{"id": ONE, "captions": ["a rocket"]}, {"id": OTHER, "captions": ["a rattle"]}]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".csv", OURS),
        (".csv", f"id,caption\n{ONE},a rocket\n{OTHER},a rattle\n"),
        (".csv", f"Caption;File_Name\na rocket;{ONE}.wav\na rattle;{OTHER}.wav\n"),
        (".jsonl", "\n".join(json.dumps(row) for row in AS_JSON)),
        (".json", json.dumps(AS_JSON)),
        (".json", json.dumps(AS_LISTS)),
    ],
)
def test_forms_of_candidates(tmp_path: Path, suffix: str, text: str) -> None:
    found = paired(tmp_path, text, suffix=suffix)
    assert found.clips == ["7fmOlUlwoNg", "6BJ455B1aAs"]  # in the references' order
    assert found.candidates == ["a rattle", "a rocket"]
    assert found.references == TEXTS
    assert found.counts() == {"clips": 2, "missing": 0, "failed": 0, "extra": 0, "unreferenced": 0, "empty": 0,
                              "repeated": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (
            ".csv",
            "file_name,caption,caption_predicted\n7fmOlUlwoNg.wav,a reference,hum\n6BJ455B1aAs.wav,other,bang\n",
        ),
        (".csv", "audiocap_id,youtube_id,prediction,references\n1,7fmOlUlwoNg,hum,x\n2,6BJ455B1aAs,bang,y\n"),
        (".json", json.dumps({"7fmOlUlwoNg.wav": "hum", "6BJ455B1aAs.wav": ["bang"]})),
        (".json", json.dumps({"7fmOlUlwoNg": [{"caption": "hum"}], "6BJ455B1aAs": [{"caption": "bang"}]})),
        (
            ".json",
            json.dumps(
                [
                    {"id": "7fmOlUlwoNg", "predicted_caption": "hum"},
                    {"id": "6BJ455B1aAs", "predicted_caption": "bang"},
                ]
            ),
        ),
    ],
)
def test_captions_of_other_systems(tmp_path: Path, suffix: str, text: str) -> None:
    found = paired(tmp_path, text, suffix=suffix)
    assert found.candidates == ["hum", "bang"]
    assert found.references == TEXTS


@pytest.mark.parametrize(
    "content", [{"a": True}, {"a": [None]}, {"a": "text", "b": None}, {"a": {"caption": "x"}}, {}]
)
def test_other_json_objects_are_refused(tmp_path: Path, content: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="not a list of objects"):
        read_candidates(write(tmp_path, "x.json", json.dumps(content)))


def test_cocos_results_go_with_cocos_annotations(tmp_path: Path) -> None:
    path = write(
        tmp_path, "r.json", '[{"image_id": 2, "caption": "a rocket"}, {"image_id": 1, "caption": "b"}]'
    )
    found = pair(read_candidates(path), path, read_references(write(tmp_path, "c.json", COCO)))
    assert found.candidates == ["b", "a rocket"]
    assert found.references == TEXTS


def test_numbers_of_rows_do_not_split_clips(tmp_path: Path) -> None:
    references = "id,file_name,caption\n1,a.mp4,one\n2,a.mp4,two\n3,b.mp4,three\n"
    found = paired(tmp_path, "id,video,caption\n1,b.mp4,B\n2,a.mp4,A\n", references)
    assert (found.clips, found.candidates) == (["a.mp4", "b.mp4"], ["A", "B"])
    assert found.references == [["one", "two"], ["three"]]


def test_omitted_and_unusual_rows_are_reported(tmp_path: Path) -> None:
    references = "video,caption\na,one\nb,two\nc,three\nd,four\ne,\nf,six\n"
    candidates = (
        'video,caption,status\na,"",ok\nb,said,ok\nb,said,ok\nc,,failed\nz,unknown,ok\ne,five,ok\n'
        'f,"two\nlines, ""quoted"" ||| 😀",ok\n'
    )
    found = paired(tmp_path, candidates, references)
    assert found.clips == ["a", "b", "f"]
    assert found.candidates == ["", "said", 'two\nlines, "quoted" ||| 😀']
    assert (found.missing, found.failed, found.extra) == (["d"], ["c"], ["z"])
    assert (found.unreferenced, found.empty, found.repeated) == (["e"], ["a"], ["b"])


def test_all_ambiguities_are_reported_at_once(tmp_path: Path) -> None:
    references = "video,caption\nx/1.mp4,one\ny/1.mp4,two\n2.mp4,three\n"
    with pytest.raises(UsageError) as caught:
        paired(tmp_path, "video,caption\n1.mp4,one\n2.mp4,here\na/2.mp4,there\n", references)
    assert "line 2: '1.mp4' matches x/1.mp4, y/1.mp4" in caught.value.message
    assert "2.mp4 (line 3, line 4)" in caught.value.message
    assert "one caption" in caught.value.cure


def test_references_as_candidates_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"different captions \(1\): 7fmOlUlwoNg \(line 2, line 4\)"):
        paired(tmp_path, AUDIOCAPS)
    with pytest.raises(UsageError, match="line 1 has 3"):
        read_candidates(write(tmp_path, "l.jsonl", JSONL))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"clips here: 'q'; clips there: '7fmOlUlwoNg', '6BJ455B1aAs'"):
        paired(tmp_path, "video,caption\nq,a\n")
    with pytest.raises(UsageError, match=r"no column with clip names and none with captions.* a, b"):
        paired(tmp_path, "a,b\n1,2\n")
    with pytest.raises(UsageError, match="no rows"):
        paired(tmp_path, "video,caption\n")
    with pytest.raises(UsageError, match="without a clip name: line 3"):
        paired(tmp_path, "video,caption\n7fmOlUlwoNg,a\n,b\n")


def test_parts_of_videos(tmp_path: Path) -> None:
    references = "video,start,end,caption\na.mp4,0,10,one\na.mp4,10,20,two\nb.mp4,0,10,three\n"
    found = paired(
        tmp_path, "video,start,end,caption\nv/a.mp4,10.000,20.000,TWO\nv/a.mp4,0.000,10.000,ONE\n", references
    )
    assert found.candidates == ["ONE", "TWO"]
    assert found.clips == ["a.mp4 0 10", "a.mp4 10 20"]
    assert found.missing == ["b.mp4"]


def test_labels_are_unique(tmp_path: Path) -> None:
    path = write(tmp_path, "r.csv", "youtube_id,start_time,start,caption\nx,1,5,a\nx,2,5,b\n")
    assert len(set(read_references(path).labels())) == 2


def test_only_some_clips(tmp_path: Path) -> None:
    found = paired(tmp_path, OURS).only({"6BJ455B1aAs"})
    assert (found.clips, found.candidates, found.references) == (["6BJ455B1aAs"], ["a rocket"], [TEXTS[1]])


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("c.csv", "image_id,caption\n123.0,a dog\n7.0,a bell\n"),
        ("c.json", '[{"image_id": 123.0, "caption": "a dog"}, {"image_id": 7, "caption": "a bell"}]'),
    ],
)
def test_whole_numbers_that_became_floats_are_the_same_clips(
    tmp_path: Path, name: str, candidates: str
) -> None:
    """As pandas writes a column of ids in which one was missing."""
    coco = {
        "images": [{"id": 123.0}, {"id": 7}],
        "annotations": [{"image_id": 123, "caption": "a dog barks"}, {"image_id": 7.0, "caption": "a bell"}],
    }
    wide = write(tmp_path, "r.csv", "image_id,caption_1\n123,a dog barks\n7,a bell\n")
    path = write(tmp_path, name, candidates)
    for references in (wide, write(tmp_path, "r.json", json.dumps(coco))):
        pairs = pair(read_candidates(path), path, read_references(references))
        assert (pairs.clips, pairs.candidates) == (["123", "7"], ["a dog", "a bell"])
        assert pairs.references == [["a dog barks"], ["a bell"]]


def test_a_very_long_caption_is_read_completely(tmp_path: Path) -> None:
    limit, text = csv.field_size_limit(), "a dog barks and " * 40_000
    path = write(tmp_path, "c.csv", f"video,caption\na.mp4,{text}\nb.mp4,a bell\n")
    assert [len(one.caption) for one in read_candidates(path)] == [len(text), 6]
    assert [len(texts[0]) for texts in read_references(path).captions] == [len(text), 6]
    assert csv.field_size_limit() == limit
