"""What a store gives back, to one process and to many."""

from __future__ import annotations

import os
import pickle
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from evacap_cli.data.store import Store
from evacap_cli.data.store.index import shard_path
from evacap_cli.data.store.reading import MAX_OPEN_SHARDS
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.features.settings import FeatureSettings

from .toys import SETTINGS, Toy, deeds, members, names, sample_of, toys, write


@pytest.fixture(scope="module", params=["jpeg", "raw"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / request.param
    write(folder, deeds(21, t7="fail"), frames_format=request.param)
    return folder


def test_clips_survive_the_store(folder: Path) -> None:
    store = Store(folder)
    made = [toy for toy in toys(21) if toy.key != "t7"]
    assert store.keys == [toy.key for toy in made]
    assert len(store) == 20
    assert store.settings == SETTINGS
    samples = [sample_of(toy) for toy in made]
    fbank, frames = store.fbank(range(20)), store.frames(range(20))
    assert (fbank.dtype, frames.dtype, frames.shape) == (np.float16, np.uint8, (20, 3, 3, 16, 16))
    np.testing.assert_array_equal(fbank, np.stack([s.fbank for s in samples]).astype(np.float16))
    for i, sample in enumerate(samples):
        assert store.has_picture([i])[0] == (sample.frames is not None)
        expected = np.zeros_like(frames[i]) if sample.frames is None else sample.frames
        tolerance = 0 if folder.name == "raw" else 3
        assert np.abs(frames[i].astype(int) - expected).max() <= tolerance
        assert store.captions(i) == ["a dog barks", "rain"]
        assert store.extra(i) == {"of": store.keys[i]}
    assert store.failed == [
        {"key": "t7", "source": "t7.mp4", "status": "failed", "error": "there is no sound in it"}
    ]
    rows = np.array([5, 5, 0])
    np.testing.assert_array_equal(store.fbank(rows), fbank[rows])


def test_the_index_has_every_clip(folder: Path) -> None:
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(folder / "index.parquet").to_pylist()
    assert [row["key"] for row in rows] == [toy.key for toy in toys(21)]
    assert [row["status"] for row in rows[3:8]] == ["ok", "audio-only", "ok", "ok", "failed"]
    assert (rows[4]["error"], rows[4]["frames"]) == ("dark", [])
    assert (rows[3]["start"], rows[3]["end"], rows[3]["seconds"]) == (1, 11, 10)
    held = {}
    for row in rows:  # offsets mean the same to whoever opens the shard without us
        if row["shard"] is not None:
            for suffix in ("json", "fbank"):
                at = row[suffix]
                with shard_path(folder, row["shard"]).open("rb") as file:
                    file.seek(at["offset"])
                    held[f"{row['key']}.{suffix}"] = file.read(at["size"])
    found = {name.removesuffix(".npy"): data for name, data in members(folder).items()}
    assert held == {name: data for name, data in found.items() if name.endswith(("json", "fbank"))}


def test_shards_are_webdataset_s(folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(str(path) for path in folder.glob("shard-*.tar"))
    assert len(shards) == 5
    data = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")
    seen = {sample["__key__"]: sample for sample in data}
    assert set(seen) == set(Store(folder).keys)
    picture = {"frames.npy"} if folder.name == "raw" else {"00.jpg", "01.jpg", "02.jpg"}
    for key, sample in seen.items():
        pictureless = sample_of(Toy(key)).frames is None
        parts = {name for name in sample if not name.startswith("__")}
        assert parts == {"json", "fbank.npy"} | (set() if pictureless else picture)
        np.testing.assert_array_equal(sample["fbank.npy"], sample_of(Toy(key)).fbank.astype(np.float16))
        assert sample["json"]["captions"] == ["a dog barks", "rain"]
    with tarfile.open(
        shards[0]
    ) as tar:  # a clip's members stand together, or readers of streams take them apart
        keys = [name.split(".")[0] for name in tar.getnames()]
    assert [key for i, key in enumerate(keys) if key not in keys[:i]] == [
        key for i, key in enumerate(keys) if i == 0 or keys[i - 1] != key
    ]


class Reader:
    """What training's own reader does."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __len__(self) -> int:
        return 40

    def __getitem__(self, place: int) -> torch.Tensor:
        row = place * 7 % len(self.store)
        parts = [self.store.fbank([row]).ravel(), self.store.frames([row]).ravel()]
        return torch.from_numpy(np.concatenate(parts))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="fork")
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_many_processes_read_at_random(folder: Path, context: str) -> None:
    if (context, folder.name) == ("spawn", "raw"):
        pytest.skip("the same as with pictures as JPEG, and slow")
    reader = Reader(Store(folder))
    here = [reader[i] for i in range(40)]  # opens files, which the forked must not share
    there = DataLoader(reader, batch_size=None, num_workers=2, multiprocessing_context=context)
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine, theirs)


def open_below(folder: Path) -> int:
    """How many files of a folder this process has open."""
    opened = [Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return sum(os.readlink(file).startswith(str(folder)) for file in opened if os.path.lexists(file))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_open_files_are_bounded(tmp_path: Path) -> None:
    write(tmp_path / "s", toys(100), shard_clips=1)
    store = Store(tmp_path / "s")
    for rows in (range(100), reversed(range(100))):
        for row in rows:
            store.fbank([row])
            assert open_below(tmp_path) <= MAX_OPEN_SHARDS
    assert open_below(tmp_path) == MAX_OPEN_SHARDS
    wrong: list[int] = []

    def read(seed: int, store: Store) -> None:
        for row in np.random.default_rng(seed).permutation(100).tolist():
            if not np.array_equal(store.fbank([row])[0], sample_of(Toy(f"t{row}")).fbank.astype(np.float16)):
                wrong.append(row)

    threads = [threading.Thread(target=read, args=[i, store]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert open_below(tmp_path) <= MAX_OPEN_SHARDS
    del store, threads, thread
    assert open_below(tmp_path) == 0


def test_a_changed_store_is_refused_in_another_process(tmp_path: Path) -> None:
    write(tmp_path / "s", toys(3))
    sent = pickle.dumps(Store(tmp_path / "s"))
    assert len(sent) < 1000  # paths, not clips
    assert pickle.loads(sent).keys == ["t0", "t1", "t2"]
    write(tmp_path / "s", toys(5))
    with pytest.raises(EvacapError, match="changed while it was in use"):
        pickle.loads(sent)


def test_fingerprint_covers_clips_captions_and_settings(tmp_path: Path) -> None:
    changed = Toy("t1", ("another",))
    for name, items in {"a": toys(4), "b": toys(4), "c": toys(5), "d": toys(4, t1=changed)}.items():
        write(tmp_path / name, items, shard_clips=1 + (name == "b"))
    a, b, c, d = (Store(tmp_path / name).fingerprint() for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def damage(folder: Path, number: int, at: int) -> Path:
    """Turns every bit of one byte round."""
    path = shard_path(folder, number)
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)
    return path


def test_damage_is_reported_with_shard_and_key(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in names(folder):
        (copy / name).write_bytes((folder / name).read_bytes())
    index = Store(copy)
    where = {key: i for i, key in enumerate(index.keys)}
    damage(copy, 0, int(index._fbank[where["t1"], 0]) + 130)
    cut = damage(copy, 1, int(index._frames[index._first_frame[where["t5"]], 0]) + 130)
    os.truncate(cut, int(index._fbank[where["t6"], 0]) + 5)
    gone = shard_path(copy, 2)
    gone.unlink()
    store = Store(copy)
    jpeg = folder.name == "jpeg"
    frames = "00.jpg" if jpeg else "frames.npy"
    for read, key, name, path, reason in (
        (store.fbank, "t1", "fbank.npy", shard_path(copy, 0), "its checksum is wrong"),
        (store.frames, "t5", frames, cut, "its checksum is wrong"),
        (store.fbank, "t6", "fbank.npy", cut, "the shard is truncated"),
        (store.frames, "t6", frames, cut, "the shard is truncated"),
        (store.fbank, "t10", "fbank.npy", gone, "No such file"),
    ):
        with pytest.raises(EvacapError) as caught:
            read([where["t0"], where[key]])
        assert caught.value.message.startswith(f"{path}: {key}.{name} cannot be read: ")
        assert reason in caught.value.message
    assert np.array_equal(store.fbank([where["t0"]]), index.fbank([where["t0"]]))


def test_other_features_are_named_with_both_values(tmp_path: Path) -> None:
    write(tmp_path / "s", toys(1))
    store = Store(tmp_path / "s")
    store.check(SETTINGS)
    values = SETTINGS.to_dict()
    other = FeatureSettings.from_dict({**values, "image_size": 32, "fbank_mean": -4.0})
    with pytest.raises(UsageError) as caught:
        store.check(other)
    assert "fbank_mean = -4.346 in the store, -4.0 wanted" in caught.value.message
    assert "image_size = 16 in the store, 32 wanted" in caught.value.message
    store.check(FeatureSettings.from_dict({**values, "image_size": 32, "frames": 1}), picture=False)
    with pytest.raises(UsageError, match="fbank_mean") as caught:
        store.check(other, picture=False)
    assert "image_size" not in caught.value.message


def test_a_folder_that_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvacapError, match="not a feature store"):
        Store(tmp_path)
    write(tmp_path / "s", toys(1))
    note = tmp_path / "s" / "store.yaml"
    text = note.read_text()
    for wrong, named in (
        (text.replace("format: 1", "format: 9"), "reads format 1, not 9"),
        (text.replace("complete: true", "complete: false"), "not finished"),
        ("{", "damaged"),
        ("- a", "reads format 1, not None"),
        (text.replace("mel_bins: 8", "mel_bins: -8"), "damaged"),
    ):
        assert wrong != text
        note.write_text(wrong)
        with pytest.raises(EvacapError, match=named):
            Store(tmp_path / "s")
    note.write_text(text)
    (tmp_path / "s" / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(EvacapError, match=r"index\.parquet: damaged"):
        Store(tmp_path / "s")


def test_a_store_with_only_failures(tmp_path: Path) -> None:
    write(tmp_path / "s", deeds(2, t0="fail", t1="fail"))
    store = Store(tmp_path / "s")
    assert (len(store), len(store.failed)) == (0, 2)
    assert store.fbank([]).shape == (0, 16, 8)
