"""Clips of a manifest in a store, as `caption` would hear and see them."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evacap_cli.data.manifest import Entry
from evacap_cli.data.store import Store
from evacap_cli.errors import EvacapError, MediaError, UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.media.worker import resident_bytes
from evacap_cli.tasks.clips import ClipSettings, load_clip, load_entry
from evacap_cli.tasks.preparing import features_of, group_failures, prepare

from ..media.clips import heard, time_shown, tone, write

TINY = features_of("evacap-tiny")
MANIFEST = "video,start,end,caption\n"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds; picture and pitch say the time."""
    return write(tmp_path_factory.mktemp("long") / "long.mp4", 4.0)


def manifest(folder: Path, *rows: str, columns: str = "video,caption") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "manifest.csv"
    path.write_text("\n".join([columns, *rows]) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("frames_format", ["jpeg", "raw"])
def test_stored_features_equal_those_of_captioning(clip: Path, tmp_path: Path, frames_format: str) -> None:
    path = manifest(tmp_path / "in", f"{clip},one", f"{clip},two")
    report = prepare(path, tmp_path / "s", TINY, workers=0, frames_format=frames_format)
    assert report.counts == {"ok": 1, "audio-only": 0, "missing": 0, "failed": 0}
    store, expected = Store(tmp_path / "s"), load_clip(clip, ClipSettings(TINY))
    assert expected.frames is not None
    assert store.captions(0) == ["one", "two"]
    np.testing.assert_array_equal(store.fbank([0])[0], expected.fbank.astype(np.float16))
    difference = np.abs(store.frames([0])[0].astype(int) - expected.frames)
    assert difference.max() == 0 if frames_format == "raw" else 0 < difference.mean() < 2


def test_segments_come_from_the_manifest(long: Path, tmp_path: Path) -> None:
    path = manifest(tmp_path / "in", f"{long},1,2,a", f"{long},3,,b", f"{long},,0.5,c", f"{long},9,10,d",
                    columns="video,start,end,caption")  # fmt: skip
    report = prepare(path, tmp_path / "s", replace(TINY, image_size=32), workers=0, frames_format="raw")
    assert [row["error"] for row in report.failed] == ["the part from 9 s on is not in it: it ends at 4.00 s"]
    store = Store(tmp_path / "s")
    assert [store.captions(i) for i in range(3)] == [["a"], ["b"], ["c"]]
    for i, (start, seconds) in enumerate([(1, 1), (3, 1), (0, 0.5)]):
        shown = [time_shown(frame.transpose(1, 2, 0)) for frame in store.frames([i])[0]]
        count = TINY.frames
        wanted = [start + (k + 0.5) * min(seconds, count / TINY.fps) / count for k in range(count)]
        assert shown == pytest.approx(wanted, abs=0.12)


def test_extracted_frames_replace_the_video(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "waveforms").mkdir(parents=True)
    write(folder / "waveforms" / "a.wav", 1.0, video=None, audio="pcm_s16le")
    for i, grey in enumerate((10, 120, 240)):
        (folder / "frames" / f"frame_{i}").mkdir(parents=True)
        Image.new("RGB", (40, 30), (grey,) * 3).save(folder / "frames" / f"frame_{i}" / "a.jpg")
    (folder / "m.json").write_text('[{"audio_path": "a.wav", "video_path": "a.jpg", "caption": "x"}]')
    prepare(folder / "m.json", tmp_path / "s", replace(TINY, frames=3), workers=0)
    greys = Store(tmp_path / "s").frames([0])[0].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(greys, (10, 120, 240), atol=3)
    (folder / "frames" / "frame_1" / "a.jpg").write_text("no picture")
    report = prepare(folder / "m.json", tmp_path / "t", replace(TINY, frames=3), workers=0)
    assert report.counts["audio-only"] == 1
    assert not Store(tmp_path / "t").has_picture([0])[0]


def test_entries_without_a_file_and_with_too_little_sound(tmp_path: Path) -> None:
    settings = ClipSettings(TINY)
    with pytest.raises(MediaError, match="no such file"):
        load_entry(Entry("a", "a", (), None), settings)
    short = write(tmp_path / "short.wav", video=None, audio="pcm_s16le", wave=tone(0.02, 44_100))
    with pytest.raises(MediaError, match="shorter than 25 ms"):
        load_entry(Entry("a", "a", (), short), settings)
    with pytest.raises(MediaError, match="from 2 to 1 s is empty"):
        load_clip(short, settings, start=2.0, end=1.0)


def test_audio_and_frames_start_with_the_segment(long: Path) -> None:
    clip = load_clip(long, ClipSettings(replace(TINY, mel_bins=128, seconds=0.2)), start=1.0)
    from evacap_cli.media import read_audio

    assert (clip.start, clip.end) == (1.0, 1.2)
    assert heard(read_audio(long, clip.start, clip.end)) == pytest.approx(1200, abs=10)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"frames_format": "png", "timeout": 0.0}, "--frames-format png must be jpeg or raw; --timeout 0.0 must"),
        ({"jpeg_quality": 101}, "--jpeg-quality 101 must be from 1 to 100"),
        ({"window": "x", "workers": -1}, "--window x must be one of .*; --workers -1 must be 0 or more"),
        ({"memory": -1.0, "shard_clips": 0}, "--memory -1.0 .*; --shard-clips 0 must be 1 or more"),
    ],
)  # fmt: skip
def test_all_wrong_options_are_reported_at_once(
    tmp_path: Path, options: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        prepare(tmp_path / "nothing.csv", tmp_path / "s", TINY, **options)


def test_features_come_from_a_preset_or_a_checkpoint(tiny: Path, tmp_path: Path) -> None:
    assert features_of() == features_of("evacap-base") == FeatureSettings()
    assert features_of(model=tiny) == TINY
    with pytest.raises(UsageError, match="--preset and --model both"):
        features_of("evacap-tiny", tiny)
    broken = shutil.copytree(tiny, tmp_path / "broken")
    (broken / "config.yaml").write_text("[")
    with pytest.raises(EvacapError, match=r"damaged checkpoint"):
        features_of(model=broken)


def test_causes_are_counted_by_kind() -> None:
    rows = [
        {"key": f"k{i}", "source": f"k{i}.mp4", "status": "failed", "error": f"k{i}.mp4: it ends at {i}.5 s"}
        for i in range(5)
    ]
    rows += [{"key": "m", "source": "m", "status": "missing", "error": "no file name contains m"}]
    first, second = group_failures(rows)
    assert (first.count, first.error, first.first) == (
        5,
        "k0.mp4: it ends at 0.5 s",
        ["k0.mp4", "k1.mp4", "k2.mp4"],
    )
    assert (second.count, second.status) == (1, "missing")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_memory_does_not_grow_with_the_clips(clip: Path, tmp_path: Path) -> None:
    """Raw pictures of 100 clips are 120 MB."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(100):
        os.link(clip, folder / f"{i}.mp4")
    path = manifest(folder, *(f"{i}.mp4,x" for i in range(100)))
    features = replace(TINY, image_size=256, frames=6)
    held: dict[int, int] = {}

    def note(done: int, total: int) -> None:
        held[done] = resident_bytes(os.getpid()) or 0

    report = prepare(path, tmp_path / "s", features, workers=0, frames_format="raw", progress=note)
    assert report.bytes > 100 * 6 * 3 * 256**2
    assert max(held[i] for i in range(50, 101)) - max(held[i] for i in range(25, 51)) < 25e6
