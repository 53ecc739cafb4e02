"""`evacap prepare` as people run it, on small real media."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evacap_cli.data.store import Store

from ..conftest import Evacap
from ..data.toys import members, names
from ..media.clips import write
from ..media.kinds import DEFAULT, with_tracks

TINY = ("--preset", "evacap-tiny", "--workers", 0)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good videos, a sound, and four files of which nothing can be made."""
    folder = tmp_path_factory.mktemp("media")
    write(folder / "a.mp4")
    write(folder / "b.mp4", 1.0)
    write(folder / "c.wav", 1.0, video=None, audio="pcm_s16le")
    write(folder / "mute.mp4", 1.0, audio=None)
    (folder / "cut.mp4").write_bytes((folder / "a.mp4").read_bytes()[:2000])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a film")
    return folder


def manifest(path: Path, *videos: str) -> Path:
    path.write_text("video,caption\n" + "".join(f"{name},what {name} sounds like\n" for name in videos))
    return path


@pytest.mark.slow
def test_counts_causes_and_exit_codes(media: Path, tmp_path: Path, evacap: Evacap) -> None:
    good, bad = ("a.mp4", "b.mp4", "c.wav"), ("mute.mp4", "cut.mp4", "empty.mp4", "text.mp4", "gone.mp4")
    path, out = manifest(tmp_path / "m.csv", *good), tmp_path / "s"
    made = evacap("prepare", path, "-o", out, "--media", media, *TINY)
    assert (made.exit_code, made.stdout) == (0, "")
    assert "3 clips: 2 ok, 1 audio-only, 0 missing, 0 failed; 3 new" in made.stderr
    assert f"{out}: 3 clips, 0.8 MB, 273 kB per clip" in made.stderr

    manifest(path, *good, *bad)
    made = evacap("prepare", path, "-o", out, "--media", media, *TINY, "--json")
    assert made.exit_code == 3
    assert "8 clips: 2 ok, 1 audio-only, 1 missing, 4 failed; 4 new" in made.stderr
    assert "1 failed: no audio track: mute.mp4" in made.stderr
    assert "1 missing: no such file: " in made.stderr
    summary = json.loads(made.stdout)
    assert [summary[name] for name in ("clips", "ok", "audio-only", "missing", "failed", "new", "stored", "other")] == [
        8, 2, 1, 1, 4, 4, 3, 0,
    ]  # fmt: skip
    assert sum(cause["count"] for cause in summary["causes"]) == 5
    assert {row["key"] for row in Store(out).failed} == {"mute", "cut", "empty", "text", "gone"}

    manifest(path, *bad)
    made = evacap("prepare", path, "-o", tmp_path / "t", "--media", media, *TINY, "--quiet")
    assert (made.exit_code, made.output) == (1, "")
    made = evacap("prepare", path, "-o", tmp_path / "t", "--media", media, *TINY, "--verbose")
    assert made.exit_code == 1
    assert "nothing new" in made.stderr
    assert "failed: mute.mp4: no audio track" in made.stderr
    assert "missing: gone.mp4: no such file" in made.stderr


@pytest.mark.slow
def test_notes_name_the_track_and_truncation(tmp_path: Path, evacap: Evacap) -> None:
    with_tracks(tmp_path / "two.mkv", (0.0, "eng", DEFAULT), (900.0, "ger", 0))
    data = write(tmp_path / "cut.mp4", 3.0, options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    write(tmp_path / "whole.mp4", 1.0)
    path, out = manifest(tmp_path / "m.csv", "two.mkv", "cut.mp4", "whole.mp4"), tmp_path / "s"
    made = evacap("prepare", path, "-o", out, *TINY, "--json", "--verbose")
    assert made.exit_code == 0, made.output
    track, cut = (row["note"] for row in json.loads(made.stdout)["notes"])
    assert track == "audio track 2 of 2 (ger, 2 channels); 1 is silent"
    assert re.fullmatch(r"cut: [12]\.\d of 3\.0 s are there", cut)
    assert f"two.mkv: {track}" in made.stderr
    assert f"cut.mp4: {cut}" in made.stderr
    again = evacap("prepare", path, "-o", out, *TINY, "--json")
    assert json.loads(again.stdout)["notes"] == []  # nothing was read


@pytest.mark.slow
def test_wrong_usage_gives_a_short_error(media: Path, tmp_path: Path, evacap: Evacap) -> None:
    path, out = manifest(tmp_path / "m.csv", "a.mp4"), tmp_path / "s"
    assert evacap("prepare", path, "-o", out, "--media", media, *TINY).exit_code == 0
    known = (path, "-o", out, "--media", media)
    for args, named in (
        ((tmp_path / "x.csv", "-o", out, *TINY), "x.csv: cannot be read"),
        ((path, "-o", out, "--media", tmp_path / "x", *TINY), "is not a folder"),
        ((*known, "--preset", "huge"), "huge"),
        ((*known, "--model", "demo", *TINY), "--preset and --model"),
        ((*known, *TINY, "--frames-format", "gif"), "--frames-format gif must be jpeg or raw"),
        ((path, "-o", tmp_path, *TINY), "contains files that are not of a store (m.csv, s)"),
        ((*known, "--preset", "evacap-base", "--workers", 0), "frames = "),
        ((*known, *TINY, "--window", "middle"), "window = loudest in the store, middle wanted"),
        ((*known, *TINY, "--frames-format", "raw"), "frames_format = jpeg in the store, raw wanted"),
    ):
        made = evacap("prepare", *args)
        assert made.exit_code == 2, made.stderr
        assert named in made.stderr
        assert "Traceback" not in made.stderr
        assert made.stdout == ""
    manifest(path, "gone.mp4", "a.mp4")
    path.write_text(path.read_text() + "a.mp4,another caption\n")
    made = evacap("prepare", *known, *TINY)
    assert made.exit_code == 2
    assert "captions or source of 1 clips changed" in made.stderr
    made = evacap("prepare", *known, *TINY, "--frames-format", "raw", "--overwrite")
    assert made.exit_code == 3
    assert Store(out).note.frames_format == "raw"


@pytest.mark.slow
def test_failed_clips_are_retried_on_request(media: Path, tmp_path: Path, evacap: Evacap) -> None:
    folder = shutil.copytree(media, tmp_path / "media")
    path, out = manifest(tmp_path / "m.csv", "a.mp4", "cut.mp4", "gone.mp4"), tmp_path / "s"
    args = ("prepare", path, "-o", out, "--media", folder, *TINY, "--json")
    assert json.loads(evacap(*args).stdout)["failed"] == 1
    for name in ("cut.mp4", "gone.mp4"):
        shutil.copy(media / "b.mp4", folder / name)
    found = json.loads(evacap(*args).stdout)
    assert (found["new"], found["failed"], found["missing"], found["ok"]) == (1, 1, 0, 2)
    again = evacap(*args, "--retry-failed")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["ok"] == 3


def test_an_interrupt_says_how_to_resume(
    media: Path, tmp_path: Path, evacap: Evacap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path, out = manifest(tmp_path / "m.csv", "a.mp4", "b.mp4"), tmp_path / "s"
    with monkeypatch.context() as patch:
        patch.setattr("evacap_cli.cli.progress.ProgressBar.update", interrupt)
        made = evacap("prepare", path, "-o", out, "--media", media, *TINY)
    assert (made.exit_code, made.stdout) == (130, "")
    assert f"interrupted; finished clips are in {out}; run the same command again to resume" in made.stderr
    assert evacap("prepare", path, "-o", out, "--media", media, *TINY).exit_code == 0


@pytest.mark.parametrize("form", ["audiocaps", "avcap", "wide", "jsonl", "parquet"])
def test_manifests_of_common_forms(media: Path, tmp_path: Path, evacap: Evacap, form: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    ids = [f"{letter}" * 11 for letter in "abc"]
    if form == "audiocaps":
        path = folder / "test.csv"
        rows = [f"{i},{ids[i // 2]},30,caption {i}" for i in range(6)]
        path.write_text("audiocap_id,youtube_id,start_time,caption\n" + "\n".join(rows))
        (folder / "deep").mkdir()
        shutil.copy(media / "a.mp4", folder / f"{ids[0]}.mp4")
        shutil.copy(media / "b.mp4", folder / "deep" / f"Y{ids[1]}_30000_40000.mp4")
    elif form == "avcap":
        path = folder / "test.json"
        rows = [
            {
                "audio_path": f"{ids[i // 2]}_0_1.wav",
                "video_path": f"{ids[i // 2]}_0_1.jpg",
                "caption": f"caption {i}",
            }
            for i in range(6)
        ]
        path.write_text(json.dumps(rows))
        (folder / "waveforms").mkdir()
        for name in ids[:2]:
            shutil.copy(media / "c.wav", folder / "waveforms" / f"{name}_0_1.wav")
    else:
        for name, source in zip(ids, ("a.mp4", "b.mp4"), strict=False):
            shutil.copy(media / source, folder / f"{name}.mp4")
        wide = [{"file_name": f"{ids[i]}.mp4", "caption_1": f"caption {2 * i}", "caption_2": f"caption {2 * i + 1}"}
                for i in range(3)]  # fmt: skip
        path = folder / f"m.{'csv' if form == 'wide' else form}"
        if form == "wide":
            path.write_text("\n".join(",".join(row) for row in (wide[0], *(row.values() for row in wide))))
        elif form == "jsonl":
            path.write_text("\n".join(map(json.dumps, wide)))
        else:
            import pandas

            pandas.DataFrame(wide).to_parquet(path)
    made = evacap("prepare", path, "-o", tmp_path / "s", *TINY, "--json")
    summary = json.loads(made.stdout)
    assert (made.exit_code, summary["missing"], summary["ok"] + summary["audio-only"]) == (3, 1, 2)
    store = Store(tmp_path / "s")
    assert [store.captions(i) for i in range(2)] == [["caption 0", "caption 1"], ["caption 2", "caption 3"]]
    assert (store.has_picture([0, 1]) == (form != "avcap")).all()
    assert ids[2] in store.failed[0]["source"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_after_kills_the_store_equals_an_undisturbed_one(media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(10):
        source = media / ("a.mp4", "b.mp4", "c.wav", "mute.mp4", "cut.mp4")[i % 5]
        os.link(source, folder / f"{i:02}{source.suffix}")
    path = manifest(folder / "m.csv", *sorted(p.name for p in folder.iterdir()), "gone.mp4")
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",  # its processes are forked, and would wait for threads that they do not have
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.kills", tmp_path, "times", "7", "8", "prepare", path, *map(str, TINY),
         "--shard-clips", "1"],
        capture_output=True, text=True, check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["kills"] == 8
    assert summary["once"] == summary["last"] == 3 << 8
    assert len(set(summary["shards"])) > 2, summary  # it came further in between
    killed, whole = tmp_path / "killed", tmp_path / "undisturbed"
    assert members(killed) == members(whole)
    assert len({name.split(".")[0] for name in members(whole)}) == 6
    a, b = Store(killed), Store(whole)
    assert (a.keys, a.failed, a.fingerprint()) == (b.keys, b.failed, b.fingerprint())
    assert len(a.failed) == 5
    rest = [name for name in names(killed) if not name.startswith("shard-")]
    assert rest == ["index.parquet", "store.lock", "store.yaml"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_killed_while_workers_decode(evacap: Evacap, media: Path, tmp_path: Path) -> None:
    """The workers end with the process that started them, and the next run goes on."""
    folder, out = tmp_path / "in", tmp_path / "s"
    folder.mkdir()
    for i in range(30):
        os.link(media / "a.mp4", folder / f"{i:02}.mp4")
    path = manifest(folder / "m.csv", *(f"{i:02}.mp4" for i in range(30)))
    args = [
        "prepare",
        path,
        "-o",
        out,
        "--preset",
        "evacap-tiny",
        "--shard-clips",
        "3",
        "--json",
        "--workers",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "evacap_cli", *args, "2"], start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and len(list(out.glob("index-*.parquet"))) < 2:
            time.sleep(0.005)
        threads = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [child for thread in threads for child in thread.read_text().split()]
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = evacap(*args, "0")
    summary = json.loads(done.stdout)
    assert (done.exit_code, summary["stored"], summary["ok"]) == (0, 30, 30)
    assert 0 < summary["new"] <= 24
    assert len({name.split(".")[0] for name in members(out)}) == 30
    assert Store(out).keys == [f"{i:02}" for i in range(30)]
    assert len(children) >= 2
    assert not [child for child in children if _is_ours(child)]


def _is_ours(process: str) -> bool:
    try:
        return b"multiprocessing" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
