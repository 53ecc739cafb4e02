"""The one family of errors; only `cli/` turns them into messages and exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class EvacapError(Exception):
    """Something could not be done. `message` says what and why and names the file or argument, `cure` what to do."""

    exit_code = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


class UsageError(EvacapError):
    """A wrong argument or setting."""

    exit_code = 2


class MediaError(EvacapError):
    """A file that cannot be read; where many are processed it becomes a `failed` row."""


def check_all(*checks: Callable[[], Any]) -> list[Any]:
    """What each returns. Raises one UsageError of all that they raise."""
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
