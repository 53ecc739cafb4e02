"""Sends models to actors, through the cluster's object store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from evacap_cli.model import Checkpoint, load_checkpoint
from evacap_cli.model.checkpoint import packaged_models


def send_model(checkpoint: Checkpoint) -> Any:
    """Returns a reference to what `receive_model` loads: the name of a packaged model, or its files."""
    import ray

    if checkpoint.name in packaged_models():
        return ray.put(checkpoint.name)
    path = checkpoint.path
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return ray.put({file.name: file.read_bytes() for file in files})


def receive_model(reference: Any, device: torch.device) -> Checkpoint:
    """Loads a model in an actor."""
    import ray

    content = ray.get(reference) if isinstance(reference, ray.ObjectRef) else reference
    if isinstance(content, str):
        return load_checkpoint(content, device)
    with tempfile.TemporaryDirectory(prefix="evacap-") as folder:
        for name, data in content.items():
            Path(folder, name).write_bytes(data)
        only = Path(folder, next(iter(content)))
        return load_checkpoint(only if len(content) == 1 else folder, device)
