from __future__ import annotations

from pathlib import Path

import pytest

from evacap_cli.metrics.java import Runtime, find_java

from .java import hide_java


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """The Java that is found, with a folder whose name has a space."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Runtime(find_java(), folder, patience=120)


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide_java(monkeypatch, tmp_path)
