from __future__ import annotations

import pytest

from evacap_cli.metrics.clip_names import Named, Names


def find(wanted: str | Named, *clips: str | Named) -> list[int]:
    named = [Named((clip,)) if isinstance(clip, str) else clip for clip in clips]
    return Names(named).find(Named((wanted,)) if isinstance(wanted, str) else wanted)


@pytest.mark.parametrize(
    ("wanted", "clip"),
    [
        ("dog.mp4", "dog.mp4"),
        ("videos/dog.mp4", "dog.mp4"),
        ("dog.mp4", "/data/videos/dog.mp4"),
        ("C:\\clips\\dog.mp4", "clips/dog.mp4"),
        ("dog", "dog.wav"),
        ("videos/dog.mp4", "dog"),
        ("./dog.mp4", "dog.mp4"),
        ("caf\u00e9.mp4", "cafe\u0301.mp4"),
        ("397133", "397133"),
    ],
)
def test_a_path_and_its_bare_name_are_the_same(wanted: str, clip: str) -> None:
    assert find(wanted, "other.mp4", clip) == [1]


@pytest.mark.parametrize("wanted", ["Dog.mp4", "dog2.mp4", "do", "og", "dog.mp4.bak", "clip.1"])
def test_another_name_is_another_clip(wanted: str) -> None:
    assert find(wanted, "dog.mp4", "clip.2", "clip") == []


def test_the_same_name_comes_before_the_bare_one() -> None:
    assert find("a/1.mp4", "b/1.mp4", "a/1.mp4") == [1]
    assert find("/data/a/1.mp4", "b/1.mp4", "a/1.mp4") == [1]
    assert find("1", "1.mp4", "1") == [1]


def test_ambiguous_names_are_reported() -> None:
    assert find("1.mp4", "b/1.mp4", "a/1.mp4") == [0, 1]
    assert find("c/1.mp4", "b/1.mp4", "a/1.mp4") == [0, 1]


@pytest.mark.parametrize(
    "wanted",
    [
        "7fmOlUlwoNg",
        "Y7fmOlUlwoNg.wav",
        "a/7fmOlUlwoNg_20.mp4",
        "7fmOlUlwoNg_20_30.flac",
        "Y7fmOlUlwoNg_20000_30000",
    ],
)
def test_files_named_by_youtube_ids(wanted: str) -> None:
    clips = [Named(("6BJ455B1aAs",), video_start=0.0), Named(("7fmOlUlwoNg",), video_start=20.0)]
    assert find(wanted, *clips) == [1]
    assert find("7fmOlUlwoNg_40.mp4", *clips) == []


def test_segments_of_a_file_are_distinguished_by_time() -> None:
    parts = [Named(("a.mp4",), 0.0, 10.0), Named(("a.mp4",), 10.0, 20.0), Named(("b.mp4",), 0.0, 10.0)]
    assert find(Named(("x/a.mp4",), 10.0, 20.0), *parts) == [1]
    assert find(Named(("a.mp4",), 10.001), *parts) == [1]
    assert find("a.mp4", *parts) == [0, 1]
    assert find(Named(("b.mp4",), 3.2, 13.2), *parts) == [2]  # the only one: `caption` chose its loudest part


def test_a_files_name_comes_before_an_id_that_may_be_a_rows_number() -> None:
    clips = [Named(("a.mp4",), numbers=("1",)), Named(("b.mp4",), numbers=("2",))]
    assert find(Named(("b.mp4",), numbers=("1",)), *clips) == [1]
    assert find("2", *clips) == [1]
    assert find(Named(("elsewhere.mp4",), numbers=("2",)), *clips) == [1]
    assert find("2.mp4", *clips) == []  # a number of a row is no file
