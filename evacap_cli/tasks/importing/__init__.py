"""Published checkpoints into our models: files to names, names to places, sizes to sizes."""

from evacap_cli.tasks.importing.imports import (
    empty_model,
    import_avcap,
    import_cav_mae,
    import_git,
    import_network,
    import_networks,
    save_part,
)
from evacap_cli.tasks.importing.tensor_matching import Imported, Row

__all__ = [
    "Imported",
    "Row",
    "empty_model",
    "import_avcap",
    "import_cav_mae",
    "import_git",
    "import_network",
    "import_networks",
    "save_part",
]
