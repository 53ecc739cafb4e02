"""The one family of errors; only `cli/` turns them into messages and exit codes."""

from __future__ import annotations


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
