"""Makes the shards of a feature store on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evacap_cli.data.store.blocks import Block, Recipe, StagedShard, stage_block
from evacap_cli.tasks.cluster.pipeline import ClusterOptions, Stage, Worker, connected, run_stages


def stage_on_cluster(
    folder: Path, recipe: Recipe[Any], blocks: Sequence[Block[Any]], cluster: ClusterOptions
) -> Iterator[StagedShard]:
    """Stages blocks of the store in `folder`, see `Distribute`. Raises EvacapError if the cluster cannot continue."""
    with connected(cluster):
        yield from run_stages(blocks, [Stage.decoding(_Stager, (folder, recipe), cluster)], cluster)


class _Stager(Worker):
    """Stages blocks, with one decoding process."""

    def __init__(self, folder: Path, recipe: Recipe[Any]) -> None:
        self.folder, self.pool = folder, recipe.pool(1)

    def work(self, block: Block[Any]) -> Iterator[StagedShard]:
        yield stage_block(self.folder, block, self.pool)
