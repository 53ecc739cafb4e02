from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest

from evacap_cli.metrics.spice_cache import TupleCache


def test_entries_are_shared_between_processes(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "captions.sqlite"
    parsed = {"a dog": [["dog"]], "": [], "ü 😀 'x'": [["dog", "big"], ["dog", "cat", "chase"]]}
    TupleCache(path).put(parsed)
    cache = TupleCache(path)
    assert cache.get([*parsed, "unknown"]) == parsed
    assert not cache.trouble


def test_it_is_bounded_and_keeps_recent_entries(tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    cache = TupleCache(path, capacity=50)
    cache.put({f"old {i}": [] for i in range(40)})
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE captions SET used = 1")
    TupleCache(path, capacity=50).get(["old 7"])  # used again today
    cache.put({f"new {i}": [] for i in range(30)})
    kept = TupleCache(path).get([f"old {i}" for i in range(40)] + [f"new {i}" for i in range(30)])
    assert len(kept) == 45
    assert "old 7" in kept
    assert all(f"new {i}" in kept for i in range(30))


def _put(path: Path, who: int) -> int:
    cache = TupleCache(path)
    for i in range(30):
        cache.put({f"{who} {i} {j}": [[str(j)]] for j in range(20)})
        cache.get([f"{1 - who} {i} {j}" for j in range(20)])
    return 0 if cache.trouble else len(cache.get([f"{who} {i} {j}" for i in range(30) for j in range(20)]))


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(_put, [path, path], [0, 1])) == [600, 600]
    names = [f"{who} {i} {j}" for who in (0, 1) for i in range(30) for j in range(20)]
    assert len(TupleCache(path).get(names)) == 1200


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    path.write_bytes(b"no database" * 1000)
    cache = TupleCache(path)
    cache.put({"a": [["a"]]})
    assert not cache.trouble
    assert TupleCache(path).get(["a"]) == {"a": [["a"]]}


def test_an_unusable_path_only_disables_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TupleCache(tmp_path / "file" / "captions.sqlite")
    cache.put({"a": [["a"]]})
    assert cache.get(["a"]) == {"a": [["a"]]}  # kept in memory
    assert str(tmp_path) in cache.trouble


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_file_is_used(tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    TupleCache(path).put({"a": [["a"]]})
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    assert TupleCache(path).get(["a"]) == {"a": [["a"]]}
    tmp_path.chmod(0o700)


def test_without_a_path_nothing_is_written() -> None:
    cache = TupleCache(None)
    cache.put({"a": [["a"]]})
    assert cache.get(["a", "b"]) == {"a": [["a"]]}
