"""The options of commands that can run on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evacap_cli.tasks.cluster.pipeline import ClusterOptions

CLUSTER = "Cluster"

Ray = Annotated[
    str | None,
    typer.Option(
        help="Run on a Ray cluster: auto, an address, or local for one on this machine. Needs evacap[ray].",
        show_default="this process",
        rich_help_panel=CLUSTER,
    ),
]
RayWorkers = Annotated[
    str, typer.Option(help="Number of model actors, or a range such as 2-64.", rich_help_panel=CLUSTER)
]
GpusPerWorker = Annotated[
    float, typer.Option(help="GPUs per model actor; fractions share one.", rich_help_panel=CLUSTER)
]
CpusPerWorker = Annotated[
    float, typer.Option(help="Cores per model actor; fractions are allowed.", rich_help_panel=CLUSTER)
]


def cluster_options(
    address: str | None,
    workers: str = "1",
    gpus: float = 0.0,
    cpus: float = 1.0,
    decoders: int | None = None,
) -> ClusterOptions | None:
    """Returns where a run is distributed, None without `--ray`. decoders: 0 means the default. Raises UsageError."""
    if address is None:
        return None
    from evacap_cli.tasks.cluster.pipeline import ClusterOptions, check_ray, parse_workers

    check_ray()
    return ClusterOptions(address, gpus, cpus, parse_workers(workers), decoders or None)
