"""Imports published checkpoints: maps their tensors to parameters of our models and resizes them."""

from evacap_cli.tasks.importing.imports import (
    empty_model,
    import_avcap,
    import_cav_mae,
    import_git,
    import_network,
    import_networks,
    save_part,
)
from evacap_cli.tasks.importing.tensor_matching import ImportReport, TensorReport

__all__ = [
    "ImportReport",
    "TensorReport",
    "empty_model",
    "import_avcap",
    "import_cav_mae",
    "import_git",
    "import_network",
    "import_networks",
    "save_part",
]
