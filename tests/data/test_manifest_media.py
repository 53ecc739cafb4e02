"""Media of manifests that name ids (AudioCaps) or other people's folders (AVCap)."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from evacap_cli.data.manifest import Entry, read_manifest
from evacap_cli.data.manifest.media_index import MediaIndex

AUDIOCAPS = Path(__file__).with_name(
    "test_manifest_audiocaps.csv"
)  # 7 clips of AudioCaps' test.csv, 5 captions each
ID = "fsBR7e_X_0Y"


def media(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def manifest(folder: Path, *rows: str, columns: str = "youtube_id,start_time") -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([f"{columns},caption", *(f"{row},x" for row in rows)]), "utf-8")
    return path


def find(folder: Path, row: str, columns: str = "youtube_id,start_time") -> Entry:
    (entry,) = read_manifest(manifest(folder, row, columns=columns), folder / "media")
    return entry


def test_audiocaps_own_table_against_clips_named_in_four_styles(tmp_path: Path) -> None:
    found = media(
        tmp_path,
        "7fmOlUlwoNg.mp4",
        "6BJ455B1aAs_0_10.mkv",
        "one/two/YGOD8Bt5LfDE_100000_110000.wav",
        "more/-EQByFLFqig_000021.WEBM",
    )
    media(
        tmp_path,
        "YQSuFyFm3Lc_10_20.mp4",
        "7fmOlUlwoNg.jpg",
        "7fmOlUlwoNg.mp4.part",
        "._-NsC63dA01g.mp4",
        ".x/-NsC63dA01g.mp4",
    )
    entries = read_manifest(AUDIOCAPS, tmp_path)
    by_id = {e.source: e for e in entries}
    assert Counter(e.path is not None for e in entries) == {True: 4, False: 3}
    assert [by_id[i].path for i in ("7fmOlUlwoNg", "6BJ455B1aAs", "GOD8Bt5LfDE", "-EQByFLFqig")] == found
    assert by_id["YQSuFyFm3Lc"].error.endswith("matches YQSuFyFm3Lc from 230 s, only YQSuFyFm3Lc_10_20.mp4")
    assert by_id["-NsC63dA01g"].error == f"no file name below {tmp_path} contains -NsC63dA01g"
    assert all(e.start is None and e.end is None and (e.path is None) == bool(e.error) for e in entries)

    with AUDIOCAPS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [e.source for e in entries] == list(dict.fromkeys(row["youtube_id"] for row in rows))
    for e in entries:
        assert e.captions == tuple(row["caption"] for row in rows if row["youtube_id"] == e.source)
        assert len(e.captions) == 5
    assert by_id["7fmOlUlwoNg"].key == "7fmOlUlwoNg_20"
    assert by_id["-NsC63dA01g"].key == "_-NsC63dA01g_10"


@pytest.mark.parametrize(
    "name",
    [
        "{}.mp4", "{}_30.mp4", "{}_30_40.mp4", "{}_030_040.mp4", "{}_000030.mp4", "{}_30000_40000.mp4",
        "{}_30.0_40.0.mp4", "{}_30.000_40.000.wav", "{}-30-40.flac", "{}_30s_40s.mp4", "Y{}.ogg", "Y{}_30000_40000.MKV",
        "a/b c/Y{}_30.m4a", "A title 2020 [{}].mp4", "title-{}.webm", "audiocaps_{}_30.mp4", "{}_audio.wav",
        "{}_30_40_audio.wav", "set_Y{}_30.mp4",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "clip", [ID, "-0123456789", "_abcdefgh-_", "Yabcdefghij", "abcdefgh_30", "-----------"]
)
def test_supported_file_names(tmp_path: Path, name: str, clip: str) -> None:
    (path,) = media(tmp_path / "media", name.format(clip))
    media(tmp_path / "media", "other.mp4")
    assert find(tmp_path, f"{clip},30").path == path


@pytest.mark.parametrize(
    "name",
    [
        "{}_60_70.mp4", "{}_300.mp4", "{}_3.mp4", "{}_720p.mp4", "{}.f137.mp4", "{}x.mp4", "x{}.mp4", "YY{}.mp4",
        "{}.jpg", "{}.mp4.part", ".{}.mp4", ".hidden/{}.mp4", "{}/clip.mp4", "frames/frame_3/{}.mp4",
    ],
)  # fmt: skip
def test_names_of_other_files(tmp_path: Path, name: str) -> None:
    media(tmp_path / "media", name.format(ID))
    entry = find(tmp_path, f"{ID},30")
    assert entry.path is None
    assert str(tmp_path / "media") in entry.error
    assert ID in entry.error


def test_short_ids_are_no_part_of_longer_words(tmp_path: Path) -> None:
    (path,) = media(tmp_path / "media", "deep/12_30_40.mp4")
    media(tmp_path / "media", "12_other.mp4", "112.mp4", "x-12.mp4", "12 [12].mp4")
    assert find(tmp_path, "12,30").path == path
    assert find(tmp_path, "1,30").path is None


def test_the_file_named_with_the_start_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    bare, thirty, sixty = media(folder, f"{ID}.mp4", f"{ID}_30_40.wav", f"{ID}_60000_70000.mp4")
    rows = manifest(tmp_path, f"{ID},30", f"{ID},60", f"{ID},60.0")
    assert [(e.path, len(e.captions), e.key) for e in read_manifest(rows, folder)] == [
        (thirty, 1, f"{ID}_30"),
        (sixty, 2, f"{ID}_60"),
    ]
    assert find(tmp_path, f"{ID},90").path == bare
    entries = read_manifest(manifest(tmp_path, f"{ID},30", f"{ID},90"), folder)
    assert entries[0].path == thirty
    assert (
        entries[1].path is None
    )  # it is ambiguous whether the bare file is the clip at 30 s or the one at 90 s
    assert entries[1].error == f"{bare}: start time is unknown, one of 30, 90 expected"


def test_without_a_start_parts_are_ambiguous(tmp_path: Path) -> None:
    (one,) = media(tmp_path / "media", f"{ID}_30_40.mp4")
    assert find(tmp_path, ID, columns="youtube_id").path == one
    media(tmp_path / "media", f"{ID}_60_70.mp4")
    entry = find(tmp_path, ID, columns="youtube_id")
    assert entry.path is None
    assert "several segments" in entry.error
    (bare,) = media(tmp_path / "media", f"{ID}.mp4")
    assert find(tmp_path, ID, columns="youtube_id").path == bare


def test_equally_good_files_are_chosen_in_a_fixed_order(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    order = [f"b/{ID}.mp4", f"a/z/{ID}.webm", f"Y{ID}.mp4", f"[{ID}].mp4", f"{ID}.flac", f"a/{ID}.wav"]
    paths = media(folder, *reversed(order))[::-1]
    for path in paths:
        assert find(tmp_path, f"{ID},30").path == path
        path.unlink()


def test_segments_of_whole_and_of_cut_videos(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    (bare,) = media(folder, f"{ID}.mp4")
    rows = manifest(tmp_path, f"{ID},30,40", f"{ID},60,65.5", columns="youtube_id,start,end")
    assert [(e.path, e.start, e.end, e.key) for e in read_manifest(rows, folder)] == [
        (bare, 30, 40, f"{ID}_30_40"),
        (bare, 60, 65.5, f"{ID}_60_65-5"),
    ]
    bare.unlink()
    (cut,) = media(folder, f"{ID}_30000_40000.mp4")
    columns = "youtube_id,start_time,start,end"
    for row, part in {
        "30,30,40": (cut, None, None),
        "30,30,33": (cut, 0, 3),
        "30,33,36": (cut, 3, 6),
        "30,,36": (cut, 0, 6),
        "30,2,5": (None, None, None),
        ",30,40": (cut, None, None),
        "30,,": (cut, None, None),
    }.items():
        entry = find(tmp_path, f"{ID},{row}", columns)
        assert (entry.path, entry.start, entry.end) == part, row
        assert (entry.path is None) == ("begins after" in entry.error)


def test_links_are_followed_once(tmp_path: Path) -> None:
    (path,) = media(tmp_path / "disk", f"{ID}.mp4")
    folder = tmp_path / "media"
    folder.mkdir()
    try:
        (folder / "linked").symlink_to(tmp_path / "disk")
        (tmp_path / "disk" / "back").symlink_to(folder)
    except OSError:
        pytest.skip("no links here")
    assert find(tmp_path, f"{ID},30").path == folder / "linked" / path.name


def test_unreadable_folders_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = media(tmp_path / "media", f"closed/{ID}.mp4")
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if Path(folder) == path.parent:
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert f"1 folders cannot be read, for example {path.parent}" in find(tmp_path, f"{ID},30").error


def test_media_beside_the_manifest_are_found_without_a_folder(tmp_path: Path) -> None:
    (path,) = media(tmp_path, f"media/{ID}.mp4")
    assert read_manifest(manifest(tmp_path, f"{ID},30"))[0].path == path


def test_the_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media(tmp_path / "media", *(f"{i:011d}.mp4" for i in range(50)))
    walk, calls = os.walk, []
    monkeypatch.setattr(os, "walk", lambda *given, **named: calls.append(given) or walk(*given, **named))
    rows = manifest(tmp_path, *(f"{i:011d},{i}" for i in range(100)))
    entries = read_manifest(rows, tmp_path / "media")
    assert Counter(e.path is not None for e in entries) == {True: 50, False: 50}
    assert len(calls) == 1
    MediaIndex(tmp_path / "media", {})
    assert len(calls) == 1  # nothing to look for


def avcap(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "test.json"
    path.write_text(json.dumps(rows), "utf-8")
    return path


def row(clip: str, start: int, caption: str) -> dict[str, object]:
    name = f"{clip}_{start * 1000}_{start * 1000 + 10000}"
    return {"audiocap_id": "1", "youtube_id": clip, "start_time": str(start), "caption": caption, "labels": "/m/09x0r",
            "audio_path": f"{name}.wav", "video_path": f"{name}.jpg", "torch_id": 0}  # fmt: skip


def test_avcap_json_with_waveforms_and_frames(tmp_path: Path) -> None:
    data = tmp_path / "audiocaps"
    a, b, _ = media(data, *(f"waveforms/{clip}_20000_30000.wav" for clip in ("a" * 11, "b" * 11, "c" * 11)))
    frames = media(data, *(f"frames/frame_{i}/{'a' * 11}_20000_30000.jpg" for i in (0, 2, 10)))
    media(data, f"frames/frame_1/{'c' * 11}_20000_30000.jpg", "frames/frame_x/1.jpg", "frames/frame_5")
    rows = [
        row("a" * 11, 20, "One"),
        row("b" * 11, 20, "Two"),
        row("a" * 11, 20, "Three"),
        row("d" * 11, 20, "Four"),
    ]
    for path, folder in ((avcap(tmp_path, rows), data), (avcap(data, rows), None)):
        first, second, missing = read_manifest(path, folder)
        assert (first.path, first.captions, first.pictures) == (a, ("One", "Three"), tuple(frames))
        assert (second.path, second.captions, second.pictures) == (b, ("Two",), ())
        assert (first.key, first.start, first.end) == (f"{'a' * 11}_20000_30000", None, None)
        assert missing.path is None
        assert str(data / "ddddddddddd_20000_30000.wav") in missing.error
        assert f"no file name below {data} contains ddddddddddd" in missing.error


def test_avcap_json_with_videos_instead(tmp_path: Path) -> None:
    (video,) = media(tmp_path, f"videos/Y{ID}_30.mp4")
    media(tmp_path, f"frames/frame_0/{ID}_30000_40000.jpg")
    (entry,) = read_manifest(avcap(tmp_path, [row(ID, 30, "One")]))
    assert (entry.path, entry.pictures, entry.key) == (video, (), f"{ID}_30000_40000")
    (entry,) = read_manifest(avcap(tmp_path, [row(ID, 60, "One")]))
    assert entry.path is None  # another part of the video


def test_audiocaps_table_finds_the_frames_of_avcap_folders(tmp_path: Path) -> None:
    data = tmp_path / "media"
    media(data, f"test/waveforms/{ID}_30000_40000.wav")
    frames = media(data, *(f"test/frames/frame_{i}/{ID}_30000_40000.jpg" for i in range(12)))
    assert find(tmp_path, f"{ID},30").pictures == tuple(frames)


def test_row_numbers_are_not_ids(tmp_path: Path) -> None:
    media(tmp_path, "17.mp4")
    path = tmp_path / "m.csv"
    path.write_text("id,video,caption\n17,gone17.mp4,x\n18,gone17.mp4,y\n", "utf-8")
    (entry,) = read_manifest(path)
    assert (entry.path, entry.captions) == (None, ("x", "y"))


def test_rows_with_only_frames_have_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("video_path,caption\na.jpg,x\n", "utf-8")
    (entry,) = read_manifest(path)
    assert (entry.source, entry.error) == ("a.jpg", "line 2 has only pictures, no audio file")
