"""Blocks of a store that other processes stage, and that the holder of its lock publishes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evacap_cli.data.store import Store
from evacap_cli.data.store.blocks import Block, Recipe, StagedShard, stage_block
from evacap_cli.errors import EvacapError

from .toys import Toy, deeds, members, names, toys, write

REST = ["index.parquet", "store.lock", "store.yaml"]


def backwards(folder: Path, recipe: Recipe[Any], blocks: Sequence[Block[Any]]) -> Iterator[StagedShard]:
    """Stages the last block first, each twice, as if its first attempt was lost."""
    with recipe.pool(0) as pool:
        for block in reversed(blocks):
            stage_block(folder, block, pool)
            yield stage_block(folder, block, pool)


def interrupted(folder: Path, recipe: Recipe[Any], blocks: Sequence[Block[Any]]) -> Iterator[StagedShard]:
    """Ends the run after two blocks; a third one is staged and was not published."""
    with recipe.pool(0) as pool:
        yield from (stage_block(folder, block, pool) for block in blocks[1:3])
        stage_block(folder, blocks[0], pool)
        raise KeyboardInterrupt


def test_equals_a_store_of_one_process(tmp_path: Path) -> None:
    items = [*deeds(10, t1="fail", t3="fail"), Toy("lost", error="no such file")]
    shown: list[tuple[int, int]] = []
    reports = [
        write(tmp_path / "one", items),
        write(
            tmp_path / "many",
            items,
            shard_clips=2,
            distribute=backwards,
            progress=lambda *now: shown.append(now),
        ),
    ]
    assert reports[0].counts == reports[1].counts
    assert reports[0].failed == reports[1].failed
    assert (reports[0].clips, reports[0].new) == (reports[1].clips, reports[1].new) == (8, 10)
    one, many = (Store(tmp_path / name) for name in ("one", "many"))
    assert one.keys == many.keys
    assert one.fingerprint() == many.fingerprint()
    assert members(tmp_path / "one") == members(tmp_path / "many")
    assert shown == [(1, 11), (3, 11), (5, 11), (7, 11), (9, 11), (11, 11)]
    assert [name for name in names(tmp_path / "many") if not name.startswith("shard-")] == REST
    assert not list((tmp_path / "many").glob("*.tmp"))


@pytest.mark.parametrize("resumed_by", [backwards, None])
def test_resumes(tmp_path: Path, resumed_by: Any) -> None:
    folder = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        write(folder, toys(9), shard_clips=2, distribute=interrupted)
    kept = {path.name: path.read_bytes() for path in folder.glob("shard-*.tar")}
    assert len(kept) == 2
    assert len(list(folder.glob("*.tmp"))) == 1
    report = write(folder, toys(9), shard_clips=2, distribute=resumed_by)
    assert (report.clips, report.new, report.damaged) == (9, 5, [])
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    write(tmp_path / "whole", toys(9))
    assert members(folder) == members(tmp_path / "whole")
    assert Store(folder).keys == [f"t{i}" for i in range(9)]
    assert [name for name in names(folder) if not name.startswith("shard-")] == REST


def test_a_late_attempt_changes_nothing(tmp_path: Path) -> None:
    """A process that outlives its run stages a block whose number now belongs to another one."""
    late: list[tuple[Recipe[Any], Block[Any]]] = []

    def stops(folder: Path, recipe: Recipe[Any], blocks: Sequence[Block[Any]]) -> Iterator[StagedShard]:
        late.append((recipe, blocks[-1]))
        raise KeyboardInterrupt
        yield

    folder = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        write(folder, toys(6), shard_clips=4, distribute=stops)
    write(folder, toys(6), shard_clips=2, distribute=backwards)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    recipe, block = late[0]
    assert f"shard-{block.number:06}.tar" in before
    with recipe.pool(0) as pool:
        staged = stage_block(folder, block, pool)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.pop(staged.name)
    assert after == before


def test_the_folder_must_be_visible(tmp_path: Path) -> None:
    late: list[Recipe[Any]] = []

    def elsewhere(folder: Path, recipe: Recipe[Any], blocks: Sequence[Block[Any]]) -> Iterator[StagedShard]:
        late.append(recipe)
        with recipe.pool(0) as pool:
            yield stage_block(tmp_path / "elsewhere", blocks[0], pool)

    with pytest.raises(EvacapError, match="does not exist on the machine") as caught:
        write(tmp_path / "s", toys(1), distribute=elsewhere)
    assert "share" in str(caught.value.cure)
