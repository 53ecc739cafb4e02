"""Whatever a file holds, there is a row for it: the process that decodes does not die, hang, or grow without end.
The same by the thousand: `python -m benchmarks.fuzz`.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from evacap_cli.media import MEDIA_SUFFIXES

from .crafted import both, craft, matroska, picture_track, png, silence, sound_track
from .fuzz import MUTATIONS, SEEDS, Row, fuzz, make_seeds, outcomes, table

COUNT = 2 * len(SEEDS) * len(MUTATIONS)  # each kind of file in each way, twice
TIMEOUT = 60.0  # seconds: far more than any takes
MEMORY = 2 * 2**30  # bytes


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_seeds(tmp_path_factory.mktemp("seeds"))


def check(rows: Sequence[Row], paths: Sequence[Path]) -> None:
    print("\n" + table(rows), *[f"{row.path.name}: {row.why}" for row in rows if row.how == "lost"], sep="\n")
    assert [row.path for row in rows] == list(paths)
    assert [row for row in rows if row.how == "lost"] == []
    for row in rows:
        assert bool(row.why) == (row.how != "ok"), row
        assert row.why.isprintable(), row
        assert len(row.why) < 600, row
        assert not re.match(r"\w+(Error|Exception): ", row.why), f"nobody foresaw {row}"


@pytest.mark.slow
def test_damaged_files(tmp_path: Path, seeds: dict[str, bytes]) -> None:
    assert COUNT >= 250
    paths = list(fuzz(tmp_path, seeds, COUNT, seed=0))
    rows = list(outcomes(paths, 1, TIMEOUT, MEMORY))
    check(rows, paths)
    counts = Counter(row.how for row in rows)
    # the damage is neither so light that all can be read nor so heavy that nothing is tried
    assert 0.25 * COUNT < counts["ok"] < 0.75 * COUNT
    assert counts["failed"] > 0.25 * COUNT
    kinds = {row.path.suffix for row in rows if row.how == "ok"}
    assert kinds == {f".{suffix}" for suffix, _, sound, _ in SEEDS if sound}
    assert len({row.why for row in rows}) > 10


@pytest.mark.slow
def test_damaged_files_in_segments(tmp_path: Path, seeds: dict[str, bytes]) -> None:
    paths = list(fuzz(tmp_path, seeds, len(SEEDS) * len(MUTATIONS), seed=1))
    rows = list(outcomes(paths, 1, TIMEOUT, MEMORY, segments=True))
    check(rows, paths)
    assert Counter(row.how for row in rows)["ok"] > 0.25 * len(rows)


@pytest.mark.slow
def test_files_with_impossible_claims(tmp_path: Path) -> None:
    paths = list(craft(tmp_path))
    rows = list(outcomes(paths, 1, TIMEOUT, MEMORY))
    check(rows, paths)
    how = {row.path.name.removeprefix("crafted-"): row.how for row in rows}
    for name in (
        *("whole.mkv", "duration-years.mkv", "duration-endless.mkv", "duration-nan.mkv", "scale-one.mkv"),
        *(
            "time-backwards.mkv",
            "time-zigzag.mkv",
            "time-same.mkv",
            "time-years.mkv",
            "time-late.mkv",
            "apart.mkv",
        ),
        *(
            "channels-9.mkv",
            "channels-64.mkv",
            "channels-255.mkv",
            "channels-255.wav",
            "floats.mkv",
            "fps.mkv",
        ),
        *(
            "streams.mkv",
            "claims-a-day.wav",
            "mvhd-duration-full.mp4",
            "mdhd-clock-zero.mp4",
            "stts-8-high.mp4",
        ),
        *("silence-bomb.mka", "png-8000x64.mkv"),
    ):
        assert how[name] == "ok", name
    for name in ("png-16000x16000.mkv", "jpeg-16384x16384.mkv", "bitstream-65535x65535.mkv"):
        assert how[name] == "heard", name
    for name in (
        "rate-1.wav",
        "rate-2147483647.wav",
        "channels-65535.wav",
        "streams.mp4",
        "nested.mp4",
        "streams.ts",
    ):
        assert how[name] == "failed", name
    assert {how[name] for name in how if Path(name).suffix not in MEDIA_SUFFIXES} == {"failed"}


@pytest.mark.slow
def test_a_lost_worker_is_detected(tmp_path: Path) -> None:
    """Or else the tests above would find nothing. A file that takes long, so that there is time to look."""
    path = tmp_path / "a.mka"
    path.write_bytes(silence(seconds=2 * 86_400))
    for timeout, memory, why in (
        (0.05, MEMORY, "decoding took more than 0.05 s"),
        (TIMEOUT, 2**20, "of memory"),
    ):
        (row,) = outcomes([path], 1, timeout, memory)
        assert row.how == "lost"
        assert why in row.why


def test_the_same_seed_gives_the_same_files(tmp_path: Path, seeds: dict[str, bytes]) -> None:
    def made(seed: int) -> list[bytes]:
        return [path.read_bytes() for path in fuzz(tmp_path, seeds, 60, seed)]

    assert made(3) == made(3)
    assert sum(a != b for a, b in zip(made(3), made(4), strict=True)) > 50
    assert sum(data not in seeds.values() for data in made(3)) > 50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only here is it known what a process holds")
def test_a_small_file_of_a_gigantic_picture_takes_no_memory(tmp_path: Path) -> None:
    """1.9 GiB as it is decoded, and it is decoded twice."""
    path = tmp_path / "a.mkv"
    picture = picture_track(codec="MPNG", width=32, height=24)
    path.write_bytes(matroska([sound_track(), picture], both(png(16_000, 16_000))))
    assert path.stat().st_size < 2**17
    (row,) = outcomes([path], 1, TIMEOUT, 2**30)
    assert row.how == "heard"
    assert "the picture cannot be decoded" in row.why
