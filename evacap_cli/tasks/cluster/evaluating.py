"""Captions the clips of a store on a cluster, in the batches of a run on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from evacap_cli.data.store import Store
from evacap_cli.tasks.cluster.models import receive_model, send_model
from evacap_cli.tasks.cluster.pipeline import ClusterOptions, Stage, Worker, run_stages
from evacap_cli.tasks.devices import pick_device
from evacap_cli.tasks.store_captioner import Captions, InferenceOptions, Progress, StoreCaptioner


def caption_store_on_cluster(
    captioner: StoreCaptioner, cluster: ClusterOptions, progress: Progress | None = None
) -> Captions:
    """Returns what `captioner.caption` returns. Needs a connection, see `connected`. Actors read the store under its
    absolute path. Raises EvacapError if the cluster cannot continue."""
    clips, size = len(captioner.store), captioner.options.batch_size
    blocks = [range(start, min(start + size, clips)) for start in range(0, clips, size)]
    store = Store(captioner.store.folder.absolute())  # actors have other working directories
    arguments = send_model(captioner.checkpoint), store, captioner.options, cluster.device
    parts: dict[int, Captions] = {}
    done = 0
    if progress is not None:
        progress(0, clips)
    for start, captions in run_stages(blocks, [Stage.model(_Captioner, arguments, cluster)], cluster):
        parts[start] = captions
        done += len(captions.captions)
        if progress is not None:
            progress(done, clips)
    return Captions.joined([part for _, part in sorted(parts.items())])


class _Captioner(Worker):
    """Captions ranges of the clips of a store."""

    def __init__(self, model: Any, store: Store, options: InferenceOptions, device: str) -> None:
        chosen = pick_device(device)
        self.captioner = StoreCaptioner(receive_model(model, chosen), store, replace(options, device=chosen))

    def work(self, block: range) -> Iterator[tuple[int, Captions]]:
        yield block.start, self.captioner.caption(clips=block)
