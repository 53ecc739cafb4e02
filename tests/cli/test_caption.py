"""`evacap caption` as users run it: rows, exit codes, files left behind, and bad input of every kind."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evacap_cli.cli.app import app

from ..conftest import Evacap
from ..media.clips import write

COLUMNS = ["video", "start", "end", "caption", "score", "gate", "entropy", "status", "error"]
ODD_NAME = 'a "b", c;\nd \U0001f600.mp4'
INLINE = ("--workers", "0", "--max-words", "3")


def read(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def start(*args: object, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "evacap_cli", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options,
    )  # type: ignore[call-overload]  # fmt: skip


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what goes wrong in the field."""
    folder = tmp_path_factory.mktemp("bad") / "videos"
    (folder / "below").mkdir(parents=True)
    good = write(folder / "below" / "good.mp4").read_bytes()
    (folder / ODD_NAME).write_bytes(good)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "truncated.mp4").write_bytes(good[: len(good) // 2])
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    write(folder / "silent.mp4", audio=None)
    write(folder / "sound.m4a", video=None)
    write(folder / "short.mp4", 0.2)
    write(folder / "shortest.wav", 0.02, video=None, audio="pcm_s16le")
    (folder / ".hidden.mp4").write_bytes(good)
    (folder / "notes.txt").write_text("not media")
    return folder


@pytest.fixture(scope="module")
def captioned_bad(bad: Path, tiny: Path) -> tuple[int, dict[str, dict[str, str]], str, str]:
    """Exit code, rows by name, stdout and stderr of one run over `bad`, decoding in a worker."""
    out = bad.parent / "out.csv"
    result = CliRunner().invoke(app, ["caption", str(bad), "-o", str(out), "--model", str(tiny), "--json"])
    rows = read(out)
    assert [row["video"] for row in rows] == sorted(row["video"] for row in rows)
    return (
        result.exit_code,
        {os.path.relpath(row["video"], bad): row for row in rows},
        result.stdout,
        result.stderr,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("below/good.mp4", "ok", ""),
        (ODD_NAME, "ok", ""),
        ("short.mp4", "ok", ""),
        ("sound.m4a", "audio-only", ""),
        ("silent.mp4", "failed", "no audio track"),
        ("empty.mp4", "failed", "empty"),
        ("text.mp4", "failed", "not a media file"),
        ("truncated.mp4", "failed", "not a media file"),
        ("gone.mp4", "failed", "a broken link"),
        ("shortest.wav", "failed", "25 ms"),
    ],
)
def test_each_bad_file_has_its_row(captioned_bad, name: str, status: str, error: str) -> None:
    row = captioned_bad[1][name]
    assert list(row) == COLUMNS
    assert (row["status"], error in row["error"]) == (status, True)
    assert bool(row["error"]) == bool(error)
    assert "\n" not in row["error"]
    captioned = status != "failed"
    assert all(bool(row[column]) == captioned for column in ("start", "end", "score", "gate"))
    assert bool(row["entropy"]) == (status == "ok")


def test_bad_files_do_not_stop_the_others(captioned_bad) -> None:
    code, rows, stdout, stderr = captioned_bad
    assert code == 3
    assert len(rows) == 10
    summary = json.loads(stdout)
    assert (summary["clips"], summary["ok"], summary["audio-only"], summary["failed"]) == (10, 3, 1, 6)
    assert "10 clips: 3 ok, 1 audio-only, 6 failed" in stderr
    assert (
        "  2 other files in the folders were skipped; --verbose shows why; --any-suffix also tries files"
        in stderr
    )
    assert "Traceback" not in stderr


def test_an_unreadable_file(evacap: Evacap, tiny: Path, clip: Path, tmp_path: Path) -> None:
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("root reads everything")
    locked = tmp_path / "locked.mp4"
    locked.write_bytes(clip.read_bytes())
    locked.chmod(0)
    result = evacap("caption", locked, "--model", tiny, *INLINE)
    assert result.exit_code == 3
    assert "Permission denied" in result.stdout


def test_a_name_that_is_not_utf8(tiny: Path, clip: Path, tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"bad\xff.mp4")).write_bytes(clip.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    result = CliRunner().invoke(app, ["caption", str(tmp_path), "--model", str(tiny), *INLINE, "--verbose"])
    assert result.exit_code == 0
    assert r"bad\xff.mp4" in result.stdout
    assert r"bad\xff.mp4" in result.stderr


def test_names_are_escaped_on_the_terminal(evacap: Evacap, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "red\x1b[31m\nerror: all is lost.mp4").write_bytes(b"")
    result = evacap("caption", tmp_path, "-o", tmp_path / "o.csv", "--model", tiny, *INLINE)
    assert result.exit_code == 3
    assert "\x1b" not in result.stderr
    assert "\nerror:" not in result.stderr


def test_rows_on_stdout_when_there_is_no_output_file(evacap: Evacap, tiny: Path, clip: Path) -> None:
    result = evacap("caption", clip, clip, "--model", tiny, *INLINE, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    head, first, second = result.stdout.splitlines()
    assert head.split(",") == COLUMNS
    assert first == second
    row = dict(zip(COLUMNS, first.split(","), strict=True))
    assert (row["start"], row["end"], row["status"]) == ("0.000", "2.000", "ok")


def test_jsonl_has_the_same_columns_and_numbers(
    evacap: Evacap, tiny: Path, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.jsonl"
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    assert evacap("caption", clip, bad, "-o", out, "--model", tiny, *INLINE).exit_code == 3
    good, failed = map(json.loads, out.read_text("utf-8").splitlines())
    assert list(good) == list(failed) == COLUMNS
    assert (good["start"], good["end"], good["status"]) == (0.0, 2.0, "ok")
    assert 0 <= good["gate"] <= 1
    assert (failed["start"], failed["caption"], failed["gate"], failed["error"]) == (
        None,
        "",
        None,
        "the file is empty",
    )


def test_an_audio_only_model(evacap: Evacap, tiny_audio: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    assert evacap("caption", clip, "-o", out, "--model", tiny_audio, *INLINE).exit_code == 0
    (row,) = read(out)
    assert (row["status"], row["gate"], row["entropy"]) == ("ok", "", "")


def test_audio_only_on_request(evacap: Evacap, tiny: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    assert evacap("caption", clip, "-o", out, "--model", tiny, "--audio-only", *INLINE).exit_code == 0
    (row,) = read(out)
    assert (row["status"], row["error"], float(row["gate"])) == ("audio-only", "", 0.0)


def test_an_undecodable_picture_gives_an_audio_only_row(
    evacap: Evacap, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write(tmp_path / "a.mp4"), tmp_path / "o.csv"

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("bitstream\nerror")

    monkeypatch.setattr("evacap_cli.tasks.clips.read_frames", refuse)
    assert evacap("caption", source, "-o", out, "--model", tiny, *INLINE).exit_code == 0
    (row,) = read(out)
    assert (row["status"], row["error"]) == ("audio-only", "RuntimeError: bitstream error")
    assert row["caption"] is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (
            ["nowhere.mp4", "not there either.mp4", "*.mkv"],
            2,
            ["nowhere.mp4", "not there either.mp4", "*.mkv"],
        ),
        (["CLIP", "-o", "new/folder/o.csv"], 2, ["new/folder", "mkdir -p"]),
        (["CLIP", "-o", "o.txt"], 2, [".txt", ".csv", ".jsonl", ".vtt"]),
        (["CLIP", "-o", "."], 2, [".csv"]),
        (["CLIP", "--json"], 2, ["--json", "-o"]),
        (["CLIP", "--model", "demmo"], 2, ["demmo"]),
        (["CLIP", "--model", "empty"], 1, ["empty", "model.safetensors"]),
        (["CLIP", "--device", "gpu"], 2, ["gpu", "cuda"]),
        (["CLIP", "--precision", "int8"], 2, ["int8", "bf16"]),
        (["CLIP", "--window", "quietest"], 2, ["quietest", "loudest"]),
        (
            ["CLIP", "--beam", "0", "--frames", "0", "--timeout", "0"],
            2,
            ["--beam 0", "--frames 0", "--timeout 0"],
        ),
        (["CLIP", "--max-words", "5000"], 2, ["5000", "63"]),
        (
            ["CLIP", "--max-words", "5000", "--segment", "20"],
            2,
            ["--max-words 5000", "63", "--segment 20", "10 s"],
        ),
        (
            [
                "CLIP",
                "--hop",
                "5",
                "--min-rms",
                "3",
                "--merge",
                "--memory",
                "-1",
                "-o",
                "new/o.csv",
                "--window",
                "all",
            ],
            2,
            ["--hop", "--min-rms 3", "--merge", "--segment", "--memory -1", "mkdir -p", "--window all"],
        ),
        (["CLIP", "--segment", "0"], 2, ["--segment 0"]),
        (
            ["CLIP", "-f", "srt", "--overwrite", "--retry-failed"],
            2,
            ["--format", "--overwrite", "--retry-failed", "-o"],
        ),
        (["CLIP", "-o", "o.csv", "-f", "doc"], 2, ["doc", "vtt"]),
        (["empty"], 1, ["empty", "no media files"]),
    ],
)
def test_wrong_usage_is_reported_before_decoding(
    evacap: Evacap, clip: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    args: list[str], code: int, named: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("evacap_cli.tasks.captioning.engine.read_source", None)
    given = [str(clip) if arg == "CLIP" else arg for arg in args]
    if "--model" not in given:
        given += ["--model", str(tiny)]
    result = evacap("caption", *given)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert all(name in result.stderr for name in ["error: ", *named]), result.stderr
    assert sorted(os.listdir(tmp_path)) == ["empty"]


@pytest.mark.slow
def test_odd_frame_counts_are_refused_for_frame_pairs(
    evacap: Evacap, tiny_tubelets: Path, clip: Path
) -> None:
    result = evacap("caption", clip, "--model", tiny_tubelets, "--frames", "3")
    assert result.exit_code == 2
    assert "pairs" in result.stderr
    assert evacap("caption", clip, "--model", tiny_tubelets, *INLINE).exit_code == 0


def test_internal_errors_show_a_traceback_only_with_debug(
    evacap: Evacap, clip: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("evacap_cli.tasks.captioning.engine._ClipBatcher.add", fail)
    result = evacap("caption", clip, "--model", tiny, *INLINE)
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert "ZeroDivisionError: of ours" in result.stderr
    result = evacap("caption", clip, "--model", tiny, *INLINE, "--debug")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, True)


@pytest.mark.slow
def test_the_old_table_stays_until_the_new_one_is_complete(
    evacap: Evacap, clip: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.csv"
    out.write_text("old")
    args = ("caption", clip, "-o", out, "--model", tiny, *INLINE)
    result = evacap(*args)
    assert (result.exit_code, out.read_text()) == (2, "old")
    assert "--overwrite" in result.stderr
    assert os.listdir(tmp_path) == ["o.csv"]

    def stop(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("evacap_cli.atomic.make_whole", stop)
        result = evacap(*args, "--overwrite")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert out.read_text() == "old"
    assert evacap(*args).exit_code == 0
    assert read(out)
    assert sorted(os.listdir(tmp_path)) == ["o.csv", "o.csv.journal"]


@pytest.mark.slow
def test_a_second_run_reports_finished_rows(evacap: Evacap, clip: Path, tiny: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "videos", tmp_path / "o.csv"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(clip.read_bytes())
    (folder / "b.mp4").write_bytes(b"damaged")
    args = ("caption", folder, "-o", out, "--model", tiny, *INLINE, "--json")
    first = evacap(*args)
    assert (first.exit_code, "reused" in first.stderr) == (3, False)
    again = evacap(*args)
    assert again.exit_code == 3
    assert "2 clips: 1 ok, 0 audio-only, 1 failed; 2 reused; nothing new" in again.stderr
    assert "failed in an earlier run" in again.stderr
    assert "b.mp4" in again.stderr
    assert "--retry-failed" in again.stderr
    summary = json.loads(again.stdout)
    assert {name: summary[name] for name in ("clips", "ok", "failed", "inputs", "new", "reused", "unused")} == {
        "clips": 2, "ok": 1, "failed": 1, "inputs": 2, "new": 0, "reused": 2, "unused": 0,
    }  # fmt: skip
    write(folder / "c.mp4", 0.5)
    (folder / "b.mp4").unlink()
    added = evacap(*args)
    assert (added.exit_code, json.loads(added.stdout)["reused"], json.loads(added.stdout)["unused"]) == (
        0,
        1,
        1,
    )
    assert [Path(row["video"]).name for row in read(out)] == ["a.mp4", "c.mp4"]
    changed = evacap(*args, "--beam", 2)
    assert changed.exit_code == 2
    assert "--beam: 4 then, 2 now" in changed.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_closed_pipe_is_not_an_error(clip: Path, tiny: Path) -> None:
    with start("caption", *[clip] * 8, "--model", tiny, *INLINE, "--quiet", "--batch-size", 1) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"video,")
        process.stdout.close()
        assert process.stderr is not None
        stderr = process.stderr.read()
        process.wait(timeout=60)
    assert (process.returncode, stderr) == (1, b"")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_the_progress_bar_does_not_write_to_stdout(clip: Path, tiny: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "evacap_cli", "caption", clip, clip, "--model", tiny, *INLINE],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        assert process.stdout is not None
        rows = process.stdout.read().decode().splitlines()
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # Linux's way to say that the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    assert len(rows) == 3
    assert rows[0].split(",") == COLUMNS
    assert b"clips/s" in shown
    assert b"caption" in shown


@pytest.mark.parametrize(("workers", "started"), [(2, 1), (1, 1), (0, 0)])
def test_processes_import_torch_while_the_model_loads(
    evacap: Evacap, tmp_path: Path, workers: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[str] = []
    monkeypatch.setattr("evacap_cli.media.start_ahead", modules.append)
    (tmp_path / "clip.mp4").touch()
    result = evacap("caption", tmp_path, "--workers", workers, "--model", tmp_path / "nowhere")
    assert "no such checkpoint" in result.stderr
    assert modules == ["evacap_cli.tasks.captioning.inputs.clip_reader"] * started
