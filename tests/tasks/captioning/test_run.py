"""Runs with an output: resumption, reuse of finished inputs, and failures of single clips."""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evacap_cli import Captioner
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.tasks.captioning import engine
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.options import OutputOptions
from evacap_cli.tasks.captioning.outputs.rows import Row
from evacap_cli.tasks.captioning.outputs.writers import Output
from evacap_cli.tasks.captioning.run import CaptionReport, caption_files, caption_stream

from ...media.clips import write
from . import deeds

INLINE = CaptionOptions(workers=0, batch_size=2, max_words=4)


@pytest.fixture(scope="module")
def captioner(tiny: Path) -> Captioner:
    return Captioner.load(tiny, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips that differ, two of which cannot be read, and a copy of the second."""
    folder = tmp_path_factory.mktemp("files")
    for i in range(6):
        if i in (1, 4):
            (folder / f"{i}.mp4").write_bytes(b"damaged" * i)
        else:
            write(folder / f"{i}.mp4", 0.4 + 0.1 * i)
    write(folder / "6.wav", video=None, audio="pcm_s16le")
    shutil.copy(folder / "2.mp4", folder / "7 copy.mp4")
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path) -> Path:
    return shutil.copytree(files, tmp_path / "videos")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of all files that are decoded."""
    seen: list[str] = []
    read = engine.read_source

    def note(source, settings):
        seen.append(Path(source.path).name)
        return read(source, settings)

    monkeypatch.setattr(engine, "read_source", note)
    return seen


def run(
    captioner: Captioner, folder: Path, out: Path, options: CaptionOptions = INLINE, **target: object
) -> CaptionReport:
    return caption_files(captioner, find_sources([folder]), OutputOptions(out, **target), options)  # type: ignore[arg-type]


def table(out: Path) -> list[tuple[str, str, str, str]]:
    with out.open(encoding="utf-8", newline="") as file:
        return [
            (Path(row["video"]).name, row["caption"], row["status"], row["score"])
            for row in csv.DictReader(file)
        ]


ALL = ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4", "6.wav", "7 copy.mp4"]


@pytest.mark.slow
def test_rows_are_in_order_and_equal_those_without_a_journal(
    captioner: Captioner, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.csv"
    report = run(captioner, folder, out)
    rows = table(out)
    assert [name for name, *_ in rows] == ALL
    assert rows[7][1:] == rows[2][1:]
    assert dict(report.counts) == {"ok": 5, "failed": 2, "audio-only": 1}
    assert (report.new, report.reused) == (7, 0)
    stream = io.StringIO()
    caption_stream(captioner, find_sources([folder]), OutputOptions(), INLINE, stream)
    assert stream.getvalue() == out.read_bytes().decode()


@pytest.mark.slow
def test_a_second_run_does_nothing(
    captioner: Captioner, folder: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = tmp_path / "o.csv"
    first = run(captioner, folder, out)
    before, written = out.read_bytes(), out.stat().st_mtime_ns
    counted.clear()
    second = run(captioner, folder, out)
    assert (second.new, second.reused, second.counts) == (0, 8, first.counts)
    assert [Path(row.video).name for row in second.failed] == ["1.mp4", "4.mp4"]
    assert (counted, out.stat().st_mtime_ns) == ([], written)
    out.unlink()
    run(captioner, folder, out)
    assert (out.read_bytes(), counted) == (before, [])


@pytest.mark.slow
def test_new_and_changed_inputs_are_added(
    captioner: Captioner, folder: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = tmp_path / "o.csv"
    run(captioner, folder, out)
    write(folder / "3 new.mp4", 0.9)
    write(folder / "5.mp4", 1.1)
    (folder / "0.mp4").unlink()
    counted.clear()
    report = run(captioner, folder, out)
    assert sorted(counted) == ["3 new.mp4", "5.mp4"]
    assert (report.new, report.unused) == (2, 1)
    assert [name for name, *_ in table(out)] == ["1.mp4", "2.mp4", "3 new.mp4", *ALL[3:]]


@pytest.mark.slow
def test_failed_inputs_are_retried_on_request(
    captioner: Captioner, folder: Path, tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.csv"
    with monkeypatch.context() as patch:
        patch.setattr(engine, "read_source", lambda source, settings: 1 / 0)
        assert run(captioner, folder, out).counts == {"failed": 8}
    assert run(captioner, folder, out).reused == 8
    report = run(captioner, folder, out, retry_failed=True)
    assert (report.new, report.counts["failed"]) == (7, 2)
    counted.clear()
    report = run(captioner, folder, out, retry_failed=True)
    assert sorted(counted) == ["1.mp4", "4.mp4"]
    assert (report.new, report.reused) == (2, 6)


@pytest.mark.slow
def test_other_settings_are_refused(
    captioner: Captioner, folder: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = tmp_path / "o.csv"
    run(captioner, folder, out)
    counted.clear()
    with pytest.raises(UsageError, match="--beam: 4 then, 1 now"):
        run(captioner, folder, out, CaptionOptions(workers=0, beam=1, max_words=4))
    with pytest.raises(UsageError, match="--frames: 4 then, 0 now"):
        run(captioner, folder, out, CaptionOptions(workers=0, audio_only=True, max_words=4))
    bf16 = Captioner(captioner.checkpoint, captioner.device, torch.bfloat16)
    with pytest.raises(UsageError, match="--precision: fp32 then, bf16 now"):
        run(bf16, folder, out)
    assert counted == []
    frames = captioner.check(INLINE).features.frames
    assert (
        run(
            captioner,
            folder,
            out,
            CaptionOptions(workers=1, frames=frames, batch_size=5, timeout=9, max_words=4),
        ).new
        == 0
    )
    assert (
        run(captioner, folder, out, CaptionOptions(workers=0, beam=1, max_words=4), overwrite=True).new == 7
    )


@pytest.mark.slow
def test_an_edited_output_is_not_overwritten(captioner: Captioner, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    run(captioner, folder, out)
    out.write_text("mine now")
    assert run(captioner, folder, out).changed
    write(folder / "8.mp4", 0.5)
    with pytest.raises(EvacapError, match="changed by something else"):
        run(captioner, folder, out)
    assert out.read_text() == "mine now"
    out.rename(tmp_path / "mine.csv")
    assert run(captioner, folder, out).new == 1
    assert len(table(out)) == 9


@pytest.mark.slow
def test_it_resumes_after_a_stop_between_any_inputs(
    captioner: Captioner, folder: Path, tmp_path: Path, counted: list[str]
) -> None:
    whole = tmp_path / "whole.csv"
    run(captioner, folder, whole)

    class Stop(BaseException):
        pass

    for stop in (0, 1, 3, 6, 7):
        out = tmp_path / f"{stop}.csv"
        counted.clear()
        came = 0

        def progress(done: int, clips: int, rows: object, stop: int = stop) -> None:
            nonlocal came
            came += bool(clips and rows)
            if came == stop:
                raise Stop

        target = OutputOptions(out)
        try:
            caption_files(captioner, find_sources([folder]), target, INLINE, progress)
        except Stop:
            assert not out.exists()
        run(captioner, folder, out)
        assert out.read_bytes() == whole.read_bytes()
        assert len(counted) <= 7 + 2  # those that were in a batch


@pytest.fixture
def harmful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    names = ["a", "hang", "b", "eat", "raise"]
    for i, name in enumerate(names):
        write(folder / f"{i}.mp4", 0.4 + 0.05 * i).rename(folder / f"{name}.mp4")
    monkeypatch.setattr(engine, "read_source", deeds.read)
    monkeypatch.setattr(engine, "read_source_carefully", deeds.read)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc is needed to measure memory")
def test_workers_that_hang_or_grow_fail_only_their_clip(
    captioner: Captioner, harmful: Path, tmp_path: Path
) -> None:
    """For one that is killed, see `test_shards.py`."""
    options = CaptionOptions(workers=1, batch_size=2, timeout=4, memory=1, max_words=2)
    report = run(captioner, harmful, tmp_path / "o.csv", options)
    with (tmp_path / "o.csv").open(newline="") as file:
        rows = {Path(row["video"]).stem: row for row in csv.DictReader(file)}
    assert list(rows) == sorted(rows)
    assert {name: row["status"] for name, row in rows.items() if row["status"] != "ok"} == dict.fromkeys(
        ("hang", "eat", "raise"), "failed"
    )
    assert report.counts == {"ok": 2, "failed": 3}
    assert "took more than 4 s" in rows["hang"]["error"]
    assert "took more than 1 GiB of memory" in rows["eat"]["error"]
    assert rows["raise"]["error"] == "ZeroDivisionError: of its own"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 12 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", place], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no small disk can be had here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.slow
def test_a_full_disk_keeps_finished_rows(captioner: Captioner, small_disk: Path, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", 0.3)
    folder = tmp_path / "videos"
    folder.mkdir()
    names = [f"{i:02d}{'x' * 190}.mp4" for i in range(60)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(clip.read_bytes() + bytes(4 * (i + 1)))
    out, options = small_disk / "o.csv", CaptionOptions(workers=0, beam=1, max_words=2)
    with pytest.raises(EvacapError, match="No space left") as caught:
        run(captioner, folder, out, options)
    assert "to continue" in caught.value.cure
    assert os.listdir(small_disk) == ["o.csv.journal"]
    journal = (small_disk / "o.csv.journal").read_bytes()
    kept = journal.count(b"\n") - 1
    assert 10 < kept < 60
    assert journal.endswith(b"\n")
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    report = run(captioner, folder, out, options)
    assert (report.new, report.reused) == (60 - kept, kept)
    assert [name for name, *_ in table(out)] == names


def test_an_unwritable_disk(captioner: Captioner, small_disk: Path, folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(EvacapError, match="Read-only file system") as caught:
        run(captioner, folder, small_disk / "o.csv")
    assert caught.value.exit_code == 1
    assert "another -o" in caught.value.cure


@pytest.mark.slow
def test_a_disk_that_fills_up_while_the_table_is_written(
    captioner: Captioner, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.csv"
    run(captioner, folder, out)
    old = out.read_bytes()
    write(folder / "8.mp4", 0.5)

    def full(self: object, groups: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(OutputOptions(out).open()), "close", full)
        with pytest.raises(EvacapError, match="No space left"):
            run(captioner, folder, out)
    assert out.read_bytes() == old
    assert run(captioner, folder, out).new == 0
    assert len(table(out)) == 9


def test_a_folder_that_disappears(captioner: Captioner, folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "results"
    place.mkdir()

    def progress(done: int, clips: int, rows: list[Row]) -> None:
        shutil.rmtree(place, ignore_errors=True)

    with pytest.raises(EvacapError, match="removed during the run") as caught:
        caption_files(captioner, find_sources([folder]), OutputOptions(place / "o.csv"), INLINE, progress)
    assert caught.value.exit_code == 1


@pytest.mark.slow
def test_each_inputs_file_is_written_when_it_is_done(
    captioner: Captioner, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for copies, in whatever order."""
    calls: list[str] = []
    kind: type[Output] = type(OutputOptions(tmp_path / "o.csv").open())
    monkeypatch.setattr(kind, "finished", lambda self, source, rows: calls.append(source.name))
    run(captioner, folder, tmp_path / "o.csv")
    assert sorted(Path(name).name for name in calls) == ALL
    calls.clear()
    run(captioner, folder, tmp_path / "o.csv")
    assert calls == []


@pytest.mark.slow
def test_each_inputs_file_is_not_rewritten(captioner: Captioner, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts"
    out.mkdir()
    (out / "0.mp4.jsonl").write_text("mine")
    with pytest.raises(UsageError, match="1 files already exist"):
        run(captioner, folder, out, kind="jsonl")
    (out / "0.mp4.jsonl").unlink()
    run(captioner, folder, out, kind="jsonl")
    assert sorted(os.listdir(out)) == sorted(["captions.journal", *(f"{name}.jsonl" for name in ALL)])
    texts = {name: (out / f"{name}.jsonl").read_text() for name in ALL}
    assert all("caption" in text for text in texts.values())
    (out / "2.mp4.jsonl").write_text("by hand")
    (out / "3.mp4.jsonl").unlink()
    write(folder / "8.mp4", 0.5)
    journal = (out / "captions.journal").read_bytes()
    assert run(captioner, folder, out, kind="jsonl").new == 1
    assert (out / "2.mp4.jsonl").read_text() == "by hand"
    assert (out / "3.mp4.jsonl").read_text() == texts["3.mp4"]
    assert (out / "8.mp4.jsonl").exists()
    assert (out / "captions.journal").read_bytes().startswith(journal)


@pytest.mark.slow
def test_an_interrupt_within_a_batch_keeps_earlier_rows(
    captioner: Captioner, folder: Path, tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, batches = tmp_path / "o.csv", 0
    generate = captioner.checkpoint.model.generate

    def interrupted(*args: object, **more: object) -> object:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise KeyboardInterrupt
        return generate(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(captioner.checkpoint.model, "generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(captioner, folder, out)
    assert not out.exists()
    counted.clear()
    run(captioner, folder, out)
    assert "0.mp4" not in counted
    assert "2.mp4" not in counted
    assert [name for name, *_ in table(out)] == ALL


@pytest.mark.slow
def test_many_links_to_few_files(captioner: Captioner, tmp_path: Path, counted: list[str]) -> None:
    """What is held for each input stays small, and so does what is kept on disk."""
    (tmp_path / "clips").mkdir()
    for i in range(3):
        write(tmp_path / "clips" / f"{i}.mp4", 0.3 + 0.1 * i)
    run(captioner, tmp_path / "clips", tmp_path / "warm.csv")  # what is imported or kept is not counted
    peaks: dict[int, list[int]] = {}
    for count in (300, 2000):
        folder, out = tmp_path / str(count), tmp_path / f"{count}.csv"
        for i in range(count):
            path = folder / f"{i // 1000:02d}" / f"{i % 1000:03d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(tmp_path / "clips" / f"{i % 3}.mp4", path)
        sources = find_sources([folder])
        counted.clear()
        for new, reused in ((3, 0), (0, count)):
            tracemalloc.start()
            report = caption_files(captioner, sources, OutputOptions(out), INLINE)
            peaks.setdefault(count, []).append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert (report.new, report.reused, report.rows) == (new, reused, count)
        assert len(counted) == 3
        assert out.with_name(f"{out.name}.journal").stat().st_size < 10_000
    assert all(many - few < 300 * 1700 for few, many in zip(peaks[300], peaks[2000], strict=True)), peaks
    rows = table(out)
    assert [name for name, *_ in rows[:3]] == ["000.mp4", "001.mp4", "002.mp4"]
    assert len(rows) == count
    assert rows[0][1:] == rows[3 * 500][1:]


def test_outputs_are_not_inputs_of_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    names = [str(tmp_path / name) for name in ("a.mp4", "o.csv", "o.csv.journal", "sub/o.csv")]
    assert OutputOptions(out).inputs(names) == [names[0], names[3]]
    assert OutputOptions().inputs(names) == names


def test_wrong_outputs_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        OutputOptions(None, "srt", merge=True, overwrite=True, curves=tmp_path / "file").check(
            segmented=False
        )
    for name in ("--format", "--merge", "--overwrite", "--curves"):
        assert name in caught.value.message


@pytest.mark.slow
def test_curves_are_saved_for_captioned_clips(captioner: Captioner, folder: Path, tmp_path: Path) -> None:
    out, curves = tmp_path / "o.csv", tmp_path / "curves"
    run(captioner, folder, out, curves=curves)
    assert sorted(path.name for path in curves.glob("*.npz")) == [
        f"{name}.npz" for name in ALL if name not in ("1.mp4", "4.mp4", "7 copy.mp4")
    ]
    with pytest.raises(UsageError, match="--curves"):
        run(captioner, folder, out)


@pytest.mark.slow
def test_a_calibrated_model_has_a_mismatch_column(
    captioner: Captioner, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows made before without it have it, too: it follows from what is kept."""
    out, calls = tmp_path / "o.csv", list[str]()
    target = OutputOptions(out, mismatch=True)
    caption_files(captioner, find_sources([folder]), target, INLINE, log=calls.append)
    assert "not calibrated" in calls[0]
    assert "mismatch" not in out.read_text().splitlines()[0]
    calibration = {"inputs": ["gate", "entropy"], "weights": [1.0, -1.0], "bias": 0.5}
    monkeypatch.setitem(captioner.checkpoint.metadata, "mismatch", calibration)
    report = caption_files(captioner, find_sources([folder]), target, INLINE)
    assert report.new == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["mismatch"]) for row in rows] == [row["status"] == "ok" for row in rows]
    stream = io.StringIO()
    caption_stream(captioner, find_sources([folder]), OutputOptions(mismatch=True), INLINE, stream)
    assert stream.getvalue() == out.read_bytes().decode()
