"""Progress for people: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from evacap_cli.cli.common import say

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 10.0  # seconds between lines where there is no terminal


class Meter:
    """A count that goes up, with its rate and the time left, on stderr. A context manager."""

    def __init__(self, what: str, total: int | None = None, unit: str = "clips", quiet: bool = False) -> None:
        self.quiet = quiet
        self.bar: Progress | None = None
        self.begin(what, total, unit)

    def __enter__(self) -> Meter:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                       TextColumn("{task.fields[note]}"), TimeRemainingColumn())  # fmt: skip
            # stdout is for data: redirected, it would end up on the console, which is stderr
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.total, note="")
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, what: str, total: int | None = None, unit: str = "clips", done: int = 0) -> None:
        """Starts counting something else, of which `done` are there already."""
        self.what, self.total, self.unit, self.first = what, total, unit, done
        self.started = self.said = time.monotonic()
        if self.bar is not None:
            self.bar.reset(self.task, total=total, completed=done, description=what, note="")

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """`done` so far; `note` is shown beside the rate."""
        self.total = total or self.total
        now = time.monotonic()
        rate = (done - self.first) / max(now - self.started, 1e-9)
        note = ", ".join(filter(None, (f"{rate:.{1 if rate >= 1 else 2}f} {self.unit}/s", note)))
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=self.total, note=note)
        elif not self.quiet and now - self.said >= EVERY:
            self.said = now
            left = f", {(self.total - done) / rate:.0f} s left" if self.total and rate else ""
            say(f"{self.what}: {done}/{self.total or '?'} ({note}{left})")
