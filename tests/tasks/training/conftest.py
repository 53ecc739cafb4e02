from __future__ import annotations

import pytest

from evacap_cli.tasks.training import loop


@pytest.fixture(autouse=True)
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which a run would draw its curves, which takes longer than all its steps here."""
    steps: list[int] = []
    monkeypatch.setattr(loop._Run, "draw", lambda run: steps.append(run.step))
    return steps
