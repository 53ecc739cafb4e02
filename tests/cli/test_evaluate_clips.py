"""`evacap evaluate` of a manifest and of shards: as of a store that `evacap prepare` made of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from evacap_cli.data.files import locked
from evacap_cli.data.store import Store
from evacap_cli.tasks.preparing import features_of, prepare

from ..conftest import Evacap
from ..data.bulk.shards import write_parquet, write_tar
from ..media.clips import write
from ..servers import FileServer, serving

CAPTIONS = ("a tone rises", "a short tone", "a low tone hums")
QUICK = ("--metrics", "BLEU,CIDEr", "--beam", 2, "--max-words", 6, "--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and a damaged one: as files with a manifest, in two tar files, and in a Parquet file."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(len(CAPTIONS)):
        write(folder / f"{i}.mp4", 0.4 + 0.1 * i)
    (folder / "3.mp4").write_bytes(b"damaged")
    texts = [*CAPTIONS, "nothing"]
    media = [(folder / f"{i}.mp4").read_bytes() for i in range(len(texts))]
    lines = ["video,caption", *(f"{i}.mp4,{text}" for i, text in enumerate(texts))]
    (folder / "clips.csv").write_text("\n".join(lines))
    for shard, rows in enumerate(((0, 1), (2, 3))):
        files = {f"{i}.mp4": media[i] for i in rows} | {f"{i}.txt": texts[i].encode() for i in rows}
        write_tar(folder / f"test-{shard}.tar", files)
    names = [str(i) for i in range(len(texts))]
    write_parquet(folder / "test.parquet", {"key": names, "video": media, "caption": texts})
    return folder


def captions(out: Path) -> dict[str, str]:
    (table,) = out.glob("predictions-*.csv")
    with table.open(newline="", encoding="utf-8") as file:
        return {row["key"]: row["caption"] for row in csv.DictReader(file)}


@pytest.mark.slow
def test_manifests_and_shards_give_the_results_of_a_store(
    evacap: Evacap, folder: Path, tiny: Path, tmp_path: Path
) -> None:
    prepare(folder / "clips.csv", tmp_path / "store", features_of(model=tiny), workers=0)
    stored = evacap(
        "evaluate", "--model", tiny, "--data", tmp_path / "store", *QUICK, "-o", tmp_path / "0", "--json"
    )
    assert stored.exit_code == 0, stored.output
    expected = json.loads(stored.stdout)
    for i, name in enumerate(("clips.csv", "test-{0..1}.tar", "test-*.tar", "test.parquet"), 1):
        out = tmp_path / str(i)
        args = ("evaluate", "--model", tiny, "--data", folder / name, *QUICK, "-o", out, "--json")
        made = evacap(*args)
        assert made.exit_code == 3, made.output  # one clip is damaged
        assert "test clips: 3 clips, 1 more could not be read" in made.stderr
        found = json.loads(made.stdout)
        assert (expected["failed"], found["failed"]) == (0, 1)
        assert found["models"][0]["metrics"] == expected["models"][0]["metrics"]
        assert list(captions(out).values()) == list(captions(tmp_path / "0").values())
    before = {path: path.stat().st_mtime_ns for path in (out / "clips").glob("shard-*")}
    again = evacap(*args)
    assert json.loads(again.stdout)["models"][0]["metrics"] == expected["models"][0]["metrics"]
    assert before == {path: path.stat().st_mtime_ns for path in (out / "clips").glob("shard-*")}
    page = evacap("report", out)
    assert page.exit_code == 0, page.output


@pytest.mark.slow
def test_shards_at_urls(evacap: Evacap, folder: Path, tiny: Path, tmp_path: Path) -> None:
    contents = {f"/test-{i}.tar": (folder / f"test-{i}.tar").read_bytes() for i in (0, 1)}
    fsspec.filesystem("memory").pipe({f"/bucket{name}": content for name, content in contents.items()})
    with serving(FileServer()) as server:
        server.files = contents
        names = {
            "range": f"{server.url}/test-{{0..1}}.tar",
            "pattern": "memory://bucket/test-*.tar",
            "local": str(folder / "test-{0..1}.tar"),
        }
        for kind, name in names.items():
            made = evacap("prepare", name, "-o", tmp_path / kind, "--model", tiny, "--workers", 0)
            assert made.exit_code == 3, made.output
    local = Store(tmp_path / "local")
    assert len(local) == len(CAPTIONS)
    for kind in ("range", "pattern"):
        store = Store(tmp_path / kind)
        assert store.keys == local.keys
        assert store.fingerprint() == local.fingerprint()
        assert (store.fbank([0, 1, 2]) == local.fbank([0, 1, 2])).all()
        assert (store.frames([0, 1, 2]) == local.frames([0, 1, 2])).all()
    for url, message in (
        ("memory://bucket/none-*.tar", "memory://bucket/none-*.tar: is no shard with media"),
        ("memory://bucket/clips.csv", "is no shard with media"),
        ("nothing://bucket/a.tar", "nothing:// is not a known protocol"),
    ):
        refused = evacap("prepare", url, "-o", tmp_path / "none", "--model", tiny)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.output
        assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_shards_in_an_object_store(evacap: Evacap, s3: Any, folder: Path, tiny: Path, tmp_path: Path) -> None:
    s3.mkdir("bucket")
    for i in (0, 1):
        s3.pipe(f"bucket/test-{i}.tar", (folder / f"test-{i}.tar").read_bytes())
    found = []
    for data in ("s3://bucket/test-*.tar", folder / "test-*.tar"):
        out = tmp_path / str(len(found))
        made = evacap("evaluate", "--model", tiny, "--data", data, *QUICK, "--workers", 1, "-o", out)
        assert made.exit_code == 3, made.output  # one clip is damaged
        found.append(captions(out))
    assert found[0] == found[1]
    assert len(found[0]) == len(CAPTIONS)


@pytest.mark.slow
def test_what_is_refused(evacap: Evacap, folder: Path, tiny: Path, tmp_path: Path) -> None:
    data = ("--data", folder / "clips.csv", *QUICK)
    (tmp_path / "other.csv").write_text(f"video,caption\n{folder / '0.mp4'},rain\n")
    out = tmp_path / "out"
    prepare(tmp_path / "other.csv", out / "clips", features_of(model=tiny), workers=0)
    for args, code, message in (
        (("--model", tiny, *data), 2, "-o is missing"),
        (("--captions", folder / "clips.csv", *data, "-o", out), 2, "--model is missing"),
        (("--model", tiny, "--model", "demo", *data, "-o", out), 2, "--model demo: needs other features"),
        (("--model", tiny, "--data", out / "clips", "--media", folder), 2, "--media"),
        (("--model", tiny, *data, "-o", out), 2, f"delete {out / 'clips'}"),
        (("--model", tiny, "--data", folder / "none.csv", "-o", tmp_path / "none"), 2, "none.csv"),
    ):
        refused = evacap("evaluate", *args)
        assert (refused.exit_code, message in refused.stderr) == (code, True), refused.output
    with locked(tmp_path / "busy" / "clips", "store"):
        refused = evacap("evaluate", "--model", tiny, *data, "-o", tmp_path / "busy")
    assert refused.exit_code == 1
    assert "another process is writing this store" in refused.stderr
    assert "delete" not in refused.stderr
