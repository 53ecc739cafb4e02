"""Captions inputs into an output that is complete, in order, and resumable: what `evacap caption -o` does."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO

from evacap_cli.data.files import disk_errors
from evacap_cli.errors import EvacapError, UsageError, check_all
from evacap_cli.model import Checkpoint
from evacap_cli.tasks.captioning.background_writer import BackgroundWriter
from evacap_cli.tasks.captioning.engine import (
    Captioner,
    ClipCallback,
    caption_sources,
    failed_row,
    original_index,
    rename_rows,
)
from evacap_cli.tasks.captioning.fingerprints import file_fingerprint, inputs_fingerprint, output_settings
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.journal import WRITE_CURE, Journal
from evacap_cli.tasks.captioning.outputs.options import OutputOptions, check_existing
from evacap_cli.tasks.captioning.outputs.results import CaptionResult
from evacap_cli.tasks.captioning.outputs.rows import Row, merge_rows
from evacap_cli.tasks.captioning.outputs.tags import check_tags
from evacap_cli.tasks.captioning.outputs.writers import FilePerInput, Output, RowStream
from evacap_cli.tasks.clips import Clip
from evacap_cli.tasks.cluster.captioning import caption_on_cluster
from evacap_cli.tasks.cluster.pipeline import ClusterOptions, connected

MAX_FAILED_ROWS = 1000  # failed rows that a report keeps
Group = tuple[Source, list[Row]]
Progress = Callable[[int, int, Sequence[Row]], None]
"""Called with the number of inputs done, the number of clips captioned, and the rows of the input just finished.
The first call, before any clip, reports the inputs of earlier runs."""


@dataclass
class CaptionReport:
    """The counts and failures of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    """Rows by status."""
    new: int = 0
    """Inputs captioned by this run, without reused ones, duplicates and unreadable ones."""
    reused: int = 0
    """Rows taken from earlier runs."""
    failed: list[Row] = field(default_factory=list)
    """The first `MAX_FAILED_ROWS` reused rows that failed."""
    unused: int = 0
    """Inputs that earlier runs captioned but this one does not name; they have no row."""
    changed: bool = False
    """Whether another program changed the output; then it is left unchanged."""
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        return self.counts.total()

    @property
    def rate(self) -> float:
        """New rows per second."""
        return (self.rows - self.reused) / max(self.seconds, 1e-9)


def caption_files(
    captioner: Captioner,
    sources: Sequence[Source],
    target: OutputOptions,
    options: CaptionOptions,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
    cluster: ClusterOptions | None = None,
) -> CaptionReport:
    """Captions inputs that are not captioned yet, and writes all rows in the order of the inputs.

    Finished inputs are saved beside the output at once, see `Journal`; after an interruption, the same call resumes.
    Raises UsageError if the output was started with other settings, and EvacapError if another run writes it or the
    disk fails; finished inputs are kept. `log` gets messages for the user. `cluster`: where the work runs, None for
    this machine.
    """
    began = time.monotonic()
    target = _check_target(captioner, target, log)
    if cluster is not None and target.curves is not None:
        raise UsageError("--ray does not draw --curves", "omit one of them")
    settings = output_settings(captioner, options, target.curves)
    output = target.open()
    assert target.out is not None
    check_existing(output, sources, target)
    output.check(sources)
    with Journal(output.journal, target.out, settings, target.overwrite) as journal:
        run = _Run(captioner, sources, target, output, journal)
        run.caption(options, progress or (lambda *_: None), log, cluster)
        run.close()
    run.report.seconds = time.monotonic() - began
    return run.report


def caption_stream(
    captioner: Captioner,
    sources: Sequence[Source],
    target: OutputOptions,
    options: CaptionOptions,
    file: IO[str],
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> CaptionReport:
    """Captions everything, and writes rows as CSV, in order, each as soon as it is ready."""
    began = time.monotonic()
    captioner.check(options)
    target = _check_target(captioner, target, log)
    report, clips = CaptionReport(), 0

    def count(*_: object) -> None:
        nonlocal clips
        clips += 1

    with (
        BackgroundWriter() as writer,
        closing(
            captioner.rows(
                sources, options, log, _clip_callback(captioner, target, options, writer, count, log)
            )
        ) as results,
        RowStream(file, target.excel, target.mismatch, target.tags) as table,
    ):
        for done, (_, rows) in enumerate(results, 1):
            rows = add_mismatch(rows, captioner.checkpoint, target)
            for row in merge_rows(rows) if target.merge else rows:
                table.write(row)
                report.counts[row.status] += 1
            if progress is not None:
                progress(done, max(1, clips), rows)
    report.new, report.seconds = len(sources), time.monotonic() - began
    return report


class _Run:
    """One run over `sources` with an open journal."""

    def __init__(
        self,
        captioner: Captioner,
        sources: Sequence[Source],
        target: OutputOptions,
        output: Output,
        journal: Journal,
    ) -> None:
        assert target.out is not None
        self.captioner, self.sources, self.target, self.out = captioner, sources, target, target.out
        self.output, self.journal = output, journal
        journal.match(sources)
        self.report = CaptionReport(unused=journal.unused)
        self.layout = {"inputs": inputs_fingerprint(sources), "kind": target.kind, "excel": target.excel,
                     "merge": target.merge, "mismatch": target.mismatch}  # fmt: skip
        if target.tags:  # only then: outputs from before this option existed stay valid
            self.layout["tags"] = True
        self.copies: dict[int, list[int]] = defaultdict(list)
        self.todo: set[int] = set()
        for i, source in enumerate(sources):
            if source.same_as is not None:
                self.copies[original_index(sources, i)].append(i)
            elif not source.error and (not journal.done(i) or (target.retry_failed and journal.failed(i))):
                self.todo.add(i)

    def caption(
        self,
        options: CaptionOptions,
        progress: Progress,
        log: Callable[[str], None] | None,
        cluster: ClusterOptions | None = None,
    ) -> None:
        """Captions the inputs that are still to do."""
        self._check_output()
        sources, clips = self.sources, 0
        done = len(sources) - sum(1 + len(self.copies.get(i, ())) for i in self.todo)
        progress(done, 0, [failed_row(source, source.error) for source in sources if source.error])
        if not self.todo:
            return

        def count(*_: object) -> None:
            nonlocal clips
            clips += 1
            progress(done, clips, ())

        work = ((i, sources[i]) for i in sorted(self.todo))
        with ExitStack() as opened:
            if cluster is not None:
                opened.enter_context(connected(cluster))
            writer = opened.enter_context(BackgroundWriter())
            if cluster is not None:
                found = caption_on_cluster(self.captioner, list(work), options, cluster)
            else:
                on_clip = _clip_callback(self.captioner, self.target, options, writer, count, log)
                found = caption_sources(self.captioner, work, options, False, log, on_clip)
            results = opened.enter_context(closing(found))
            for number, rows in results:
                writer.put(partial(self._save, number, rows))
                done += 1 + len(self.copies.get(number, ()))
                self.report.new += 1
                progress(done, max(1, clips), rows)

    def close(self) -> None:
        """Writes the output unless it is up to date, and counts its rows."""
        finished, out, groups = self.journal.finished, self.out, self._groups()
        whole = finished is not None and finished["look"] == self.layout
        if isinstance(self.output, FilePerInput):
            if (last := self.journal.last) and {
                **last["look"],
                "inputs": self.layout["inputs"],
            } == self.layout:
                groups = self._missing(self.output, groups)
        elif self.report.changed or (whole and out.exists()):
            for _ in groups:
                pass
            return
        if not whole:
            self.journal.finish(None)
        with disk_errors(out, WRITE_CURE):
            self.output.close(groups)
            if not whole:
                self.journal.finish({"look": self.layout, "content": file_fingerprint(out)})

    def _missing(self, output: FilePerInput, groups: Iterator[Group]) -> Iterator[Group]:
        """Yields the inputs whose file is missing. Existing files may have been edited by hand and are kept."""
        return (group for group in groups if not output.path_of(group[0]).exists())

    def _save(self, number: int, rows: list[Row]) -> None:
        """Writes the outputs of an input first, then its journal line: a line means that the outputs are on disk."""
        with disk_errors(self.out, WRITE_CURE):
            for i in (number, *self.copies.get(number, ())):
                self.output.finished(self.sources[i], self._final_rows(rows, self.sources[i]))
        self.journal.append(number, self.sources[number], rows)

    def _groups(self) -> Iterator[Group]:
        """Yields all inputs with their rows, and counts the rows."""
        report = self.report
        for i, source in enumerate(self.sources):
            first = original_index(self.sources, i)
            if error := self.sources[first].error:
                rows = [failed_row(source, error)]
            else:
                rows = self._final_rows(self.journal.rows(first, source), source)
            report.counts.update(row.status for row in rows)
            if first not in self.todo and not error:
                report.reused += len(rows)
                if len(report.failed) < MAX_FAILED_ROWS:
                    report.failed += [row for row in rows if row.status == "failed"]
            yield source, rows

    def _final_rows(self, rows: list[Row], source: Source) -> list[Row]:
        return add_mismatch(rename_rows(rows, source), self.captioner.checkpoint, self.target)

    def _check_output(self) -> None:
        """Detects whether another program changed the output. Raises EvacapError if the output would be replaced."""
        finished, out = self.journal.finished, self.out
        if not finished or not out.is_file() or finished["content"] == file_fingerprint(out):
            return
        if self.todo or finished["look"] != self.layout:
            raise EvacapError(
                f"-o {out}: was changed by something else since it was written",
                "move it away and run the same command again, or use --overwrite, which captions everything again",
            )
        self.report.changed = True


def add_mismatch(rows: list[Row], checkpoint: Checkpoint, target: OutputOptions) -> list[Row]:
    """Adds the calibrated mismatch probability to rows, if `target` asks for it."""
    if not target.mismatch:
        return rows
    from evacap_cli.tasks.mismatch import probability

    if checkpoint.model.has_evidence:  # the model gives the probability itself
        return rows
    return [replace(row, mismatch=probability(checkpoint, row.gate, row.entropy)) for row in rows]


def _check_target(
    captioner: Captioner, target: OutputOptions, log: Callable[[str], None] | None
) -> OutputOptions:
    """Returns the target, without the column `mismatch` if the model is not calibrated. Raises UsageError if the model
    does not support curves or tags."""
    checks = [check_tags] if target.tags else []
    if target.curves is not None:
        from evacap_cli.tasks.captioning.outputs.gate_curves import check_gate

        checks.append(check_gate)
    check_all(*(partial(check, captioner.checkpoint) for check in checks))
    if not target.mismatch:
        return target
    from evacap_cli.tasks.mismatch import Calibration

    if Calibration.of(captioner.checkpoint) is not None:
        return target
    if log is not None:
        log(f"{captioner.checkpoint.name}: is not calibrated, so the column `mismatch` is left out")
    return replace(target, mismatch=False)


def _clip_callback(
    captioner: Captioner,
    target: OutputOptions,
    options: CaptionOptions,
    writer: BackgroundWriter,
    count: Callable[..., None],
    log: Callable[[str], None] | None,
) -> ClipCallback:
    """Returns the callback for captioned clips: it counts them and queues their gate curves."""
    if target.curves is None:
        return count
    from evacap_cli.tasks.captioning.outputs.gate_curves import GateCurves

    curves = GateCurves(target.curves, captioner.checkpoint, options.segment is not None, log)

    def draw(source: Source, clip: Clip, row: Row, result: CaptionResult) -> None:
        writer.put(partial(curves.add, source, clip, row, result))
        count()

    return draw
