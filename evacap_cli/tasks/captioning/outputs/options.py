"""Output options: where rows are written, and in which format."""

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

MAX_LISTED = 5  # files listed in a message


@dataclass(frozen=True)
class OutputOptions:
    """Where rows are written, and in which format; see `open_output`. out: None for stdout.

    curves: a folder, see `GateCurves`. retry_failed: caption inputs with failed rows again. overwrite: ignore and
    replace an existing output.
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
        """Raises UsageError for options that do not go together."""
        wrong = []
        if self.merge and not segmented:
            wrong.append("--merge needs --segment")
        if self.out is None:
            needs = {
                "--format": self.kind,
                "--retry-failed": self.retry_failed,
                "--overwrite": self.overwrite,
            }
            wrong += [f"{name} needs -o" for name, given in needs.items() if given]
        if self.curves is not None and self.curves.exists() and not self.curves.is_dir():
            wrong.append(f"--curves {self.curves}: is not a folder")
        check_all(
            *(partial(_refuse, message) for message in wrong), *([] if self.out is None else [self.open])
        )

    def inputs(self, names: Sequence[str]) -> list[str]:
        """Returns the names without this output and its journal, which a wildcard may match."""
        if self.out is None:
            return list(names)
        own = {os.path.abspath(path) for path in (self.out, self.open().journal)}
        return [name for name in names if self.out.is_dir() or os.path.abspath(name) not in own]

    def open(self) -> Output:
        assert self.out is not None
        return open_output(self.out, self.kind, self.excel, self.merge, self.mismatch, self.tags)


def check_existing(output: Output, sources: Sequence[Source], target: OutputOptions) -> None:
    """Raises UsageError if files exist that a first run would replace."""
    if not isinstance(output, FilePerInput) or target.overwrite or output.journal.exists():
        return
    paths = dict.fromkeys(output.path_of(source) for source in sources)
    existing = [path for path in paths if path.exists()]
    if existing:
        named = "".join(f"\n  {path}" for path in existing[:MAX_LISTED])
        named += "\n  ..." * (len(existing) > MAX_LISTED)
        raise UsageError(
            f"-o {target.out}: {len(existing)} files already exist, but {output.journal.name}, which says how they "
            f"were made, does not:{named}",
            OVERWRITE_CURE,
        )


def _refuse(message: str) -> None:
    raise UsageError(message)
