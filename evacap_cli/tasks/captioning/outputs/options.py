"""Where the rows of a run go, and what they look like there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evacap_cli.errors import UsageError, check_all
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.outputs.journal import OVERWRITE_CURE
from evacap_cli.tasks.captioning.outputs.writers import FilePerInput, Output, open_output

MAX_LISTED = 5  # files in a message


@dataclass(frozen=True)
class OutputOptions:
    """Where rows go, and what they look like there; see `open_output`. out: None for a stream.

    curves: a folder, see `GateCurves`. retry_failed: inputs with failed rows are captioned again. overwrite: nothing
    that is there counts.
    """

    out: Path | None = None
    kind: str | None = None
    excel: bool = False
    merge: bool = False
    mismatch: bool = False
    curves: Path | None = None
    retry_failed: bool = False
    overwrite: bool = False
    tags: bool = False

    def check(self, segmented: bool) -> None:
        """Raises UsageError for what cannot be."""
        wrong = []
        if self.merge and not segmented:
            wrong.append("--merge is of segments: give --segment, too")
        if self.out is None:
            needs = {
                "--format": self.kind,
                "--retry-failed": self.retry_failed,
                "--overwrite": self.overwrite,
            }
            wrong += [f"{name} is of a file: name it with -o" for name, given in needs.items() if given]
        if self.curves is not None and self.curves.exists() and not self.curves.is_dir():
            wrong.append(f"--curves {self.curves}: is not a folder")
        check_all(*(partial(_refuse, what) for what in wrong), *([] if self.out is None else [self.open]))

    def inputs(self, names: Sequence[str]) -> list[str]:
        """Those that are not this output: `*` names what the last run wrote, too."""
        if self.out is None:
            return list(names)
        own = {os.path.abspath(path) for path in (self.out, self.open().journal)}
        return [name for name in names if self.out.is_dir() or os.path.abspath(name) not in own]

    def open(self) -> Output:
        assert self.out is not None
        return open_output(self.out, self.kind, self.excel, self.merge, self.mismatch, self.tags)


def check_existing(output: Output, sources: Sequence[Source], target: OutputOptions) -> None:
    """Raises UsageError when files are where a first run is to write its own."""
    if not isinstance(output, FilePerInput) or target.overwrite or output.journal.exists():
        return
    there = [path for source in sources if (path := output.place(source)).exists()]
    if there:
        named = "".join(f"\n  {path}" for path in there[:MAX_LISTED]) + "\n  ..." * (len(there) > MAX_LISTED)
        raise UsageError(
            f"-o {target.out}: {len(there)} files are there already, but not {output.journal.name}, which would say "
            f"how they were made:{named}",
            OVERWRITE_CURE,
        )


def _refuse(what: str) -> None:
    raise UsageError(what)
