"""`evacap caption` with inputs and a table in an S3-compatible store on this machine."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Evacap
from ..data.bulk.shards import write_parquet, write_tar
from ..media.clips import write

BUCKET = "s3://bucket"


@pytest.fixture
def store(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file system of a store with the bucket `bucket`; the working directory is empty."""
    s3.mkdir("bucket")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return s3


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write(folder / "a.mp4", 0.4)
    write(folder / "b.m4a", 0.5, video=None)
    (folder / "c.mp4").write_bytes(b"damaged")
    return folder


def rows(text: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.decode(), newline=""), strict=True))


@pytest.mark.slow
def test_a_folder_and_a_table(store: Any, clips: Path, tiny: Path, tmp_path: Path, evacap: Evacap) -> None:
    for path in clips.iterdir():
        store.pipe(f"bucket/videos/{path.name}", path.read_bytes())
    store.pipe("bucket/videos/notes.txt", b"not media")
    common = ("--model", tiny, "--device", "cpu", "--workers", 0)
    assert evacap("caption", clips, "-o", tmp_path / "local.csv", *common).exit_code == 3
    command = ("caption", f"{BUCKET}/videos", "-o", f"{BUCKET}/out/table.csv", *common)
    done = evacap(*command, "--json")
    assert done.exit_code == 3, done.stderr
    assert json.loads(done.stdout)["out"] == f"{BUCKET}/out/table.csv"
    assert f"copied to {BUCKET}/out/table.csv" in done.stderr
    table = store.cat("bucket/out/table.csv")
    assert table == Path("table.csv").read_bytes()
    found, expected = rows(table), rows((tmp_path / "local.csv").read_bytes())
    assert [row.pop("video") for row in found] == [
        f"{BUCKET}/videos/{name}" for name in ("a.mp4", "b.m4a", "c.mp4")
    ]
    for row in expected:
        del row["video"]
    assert found == expected

    # the journal is in the working directory: the table is copied again, and clips are not captioned again
    store.rm("bucket/out/table.csv")
    again = evacap(*command)
    assert "3 reused" in again.stderr
    assert store.cat("bucket/out/table.csv") == table
    for path in Path().iterdir():
        path.unlink()
    refused = evacap(*command)
    assert (refused.exit_code, "already exists" in refused.stderr) == (2, True), refused.stderr
    assert not list(Path().iterdir())
    assert evacap(*command, "--overwrite").exit_code == 3


@pytest.mark.slow
def test_shards(store: Any, clips: Path, tiny: Path, tmp_path: Path, evacap: Evacap) -> None:
    content = {path.name: path.read_bytes() for path in clips.iterdir()}
    columns = {"id": ["x"], "video": [content["a.mp4"]]}
    for path in (
        write_tar(tmp_path / "s-0.tar", {"a.mp4": content["a.mp4"]}),
        write_tar(tmp_path / "s-1.tar", {"b.m4a": content["b.m4a"]}),
        write_parquet(tmp_path / "p.parquet", columns),
    ):
        store.pipe(f"bucket/{path.name}", path.read_bytes())
    names = [f"{BUCKET}/s-{{0..1}}.tar", f"{BUCKET}/p.parquet"]
    done = evacap(
        "caption", *names, "-o", f"{BUCKET}/t.jsonl", "--model", tiny, "--device", "cpu", "--workers", 0
    )
    assert done.exit_code == 0, done.stderr
    found = [json.loads(line) for line in store.cat("bucket/t.jsonl").splitlines()]
    assert [row["status"] for row in found] == ["ok", "audio-only", "ok"]
    assert found[0]["caption"] == found[2]["caption"]


@pytest.mark.slow
def test_an_object_store_that_refuses_the_table(store: Any, clips: Path, tiny: Path, evacap: Evacap) -> None:
    command = ("caption", clips / "a.mp4", "-o", "s3://nowhere/t.csv", "--model", tiny, "--device", "cpu",
               "--workers", 0)  # fmt: skip
    failed = evacap(*command)
    assert (failed.exit_code, "-o s3://nowhere/t.csv: cannot be written" in failed.stderr) == (1, True), (
        failed.stderr
    )
    assert "the table is complete in t.csv" in failed.stderr
    store.mkdir("nowhere")
    assert evacap(*command).exit_code == 0
    assert store.cat("nowhere/t.csv") == Path("t.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("https://host/t.csv", "cannot be written"),
        ("s3://bucket/folder", "the output is one table"),
        ("s3://bucket/{shard}.csv", "the output is one table"),
        ("nothing://bucket/t.csv", "not a known protocol"),
        ("s3://bucket/t.mp4", "no output has the suffix"),
    ],
)
def test_wrong_outputs(store: Any, clips: Path, evacap: Evacap, out: str, message: str) -> None:
    done = evacap("caption", clips, "-o", out)
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
    assert not list(Path().iterdir())
