"""The exceptions of this package. Only `cli/` converts them to messages and exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class EvacapError(Exception):
    """Base class of all errors. `message` names the file or argument and the cause, `cure` says how to fix it."""

    exit_code = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


class UsageError(EvacapError):
    """An invalid argument or setting."""

    exit_code = 2


class MediaError(EvacapError):
    """A media file that cannot be read. In batch processing it becomes a `failed` row."""


def check_all(*checks: Callable[[], Any]) -> list[Any]:
    """Calls all checks and returns their results. Raises one UsageError that combines all their UsageErrors."""
    results, wrong = [], []
    for check in checks:
        try:
            results.append(check())
        except UsageError as error:
            wrong.append(error)
    if wrong:
        messages, cures = (
            "; ".join(filter(None, (getattr(e, part) for e in wrong))) for part in ("message", "cure")
        )
        raise UsageError(messages, cures)
    return results
