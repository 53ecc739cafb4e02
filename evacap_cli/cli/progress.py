"""Progress on stderr: a bar on a terminal, otherwise a line every 10 seconds, nothing with --quiet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from evacap_cli.cli.common import say

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_SECONDS = 10.0  # seconds between lines if stderr is not a terminal


class ProgressBar:
    """Shows a count with its rate and the remaining time. A context manager."""

    def __init__(self, what: str, total: int | None = None, unit: str = "clips", quiet: bool = False) -> None:
        self.quiet = quiet
        self.rich_bar: Progress | None = None
        self.begin(what, total, unit)

    def __enter__(self) -> ProgressBar:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                       TextColumn("{task.fields[note]}"), TimeRemainingColumn())  # fmt: skip
            # stdout must not be redirected: it would be printed on this console, which is stderr
            self.rich_bar = Progress(
                *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
            )
            self.rich_bar.start()
            self.task = self.rich_bar.add_task(self.what, total=self.total, note="")
        return self

    def __exit__(self, *_: Any) -> None:
        if self.rich_bar is not None:
            self.rich_bar.stop()

    def begin(self, what: str, total: int | None = None, unit: str = "clips", done: int = 0) -> None:
        """Starts a new count, of which `done` are already done."""
        self.what, self.total, self.unit, self.first = what, total, unit, done
        self.started = self.printed = time.monotonic()
        if self.rich_bar is not None:
            self.rich_bar.reset(self.task, total=total, completed=done, description=what, note="")

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Sets the count to `done`; `note` is shown after the rate."""
        self.total = total or self.total
        now = time.monotonic()
        rate = (done - self.first) / max(now - self.started, 1e-9)
        note = ", ".join(filter(None, (f"{rate:.{1 if rate >= 1 else 2}f} {self.unit}/s", note)))
        if self.rich_bar is not None:
            self.rich_bar.update(self.task, completed=done, total=self.total, note=note)
        elif not self.quiet and now - self.printed >= LINE_SECONDS:
            self.printed = now
            left = f", {(self.total - done) / rate:.0f} s left" if self.total and rate else ""
            say(f"{self.what}: {done}/{self.total or '?'} ({note}{left})")
