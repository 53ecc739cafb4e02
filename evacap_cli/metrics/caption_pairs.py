"""Reads files of candidates and references in common formats and pairs the captions of the same clips."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evacap_cli.data.manifest.tables import Table, plain_name, read_table, whole_number
from evacap_cli.errors import UsageError
from evacap_cli.metrics.clip_names import Named, Names

# columns that name a clip; a file name is more reliable than an id, which may be a row number
_FILES = ("video", "file_name", "filename", "path", "file", "file_path", "video_path", "audio_path", "wav")
_NUMBERS = ("image_id", "audio_id", "id")
_CAPTION_ID = "audiocap_id"  # the id of a caption; used only if no other column names the clip
_NAMES = (*_FILES, "youtube_id", "ytid", "video_id", "clip", "key", *_NUMBERS, _CAPTION_ID)
_TIMES = ("start", "end", "start_time")
# columns of candidates; tables of other systems can have the references beside them, as `caption`
_CAPTION_COLUMNS = (
    "caption_predicted", "predicted_caption", "prediction", "predictions", "predicted", "generated_caption",
    "hypothesis", "candidate", "candidates", "caption", "captions",
)  # fmt: skip
_REFERENCE = re.compile(r"(captions?|references?)([ _]?\d+)?")
_SHOWN = 5
_FORMS = f"""a table (CSV, JSON, JSONL or Parquet) needs a column with clip names ({", ".join(_NAMES[:2])}, ...,
  youtube_id, image_id, id) and a column with captions: `prediction` or `caption` for candidates;
  for references `caption` (one per row), `captions` (a list) or `caption_1`, `caption_2`, ...; COCO result and
  annotation JSON and {{"clip": "caption"}} also work"""


@dataclass(frozen=True)
class Candidate:
    """A row of the candidates."""

    clip: Named
    caption: str
    where: str
    failed: bool = False  # the row has the status `failed`


@dataclass
class Pairs:
    """Clips with a candidate and references, in the order of the references, and lists of skipped or unusual clips."""

    clips: list[str] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # reference clips without a candidate
    failed: list[str] = field(default_factory=list)  # reference clips whose candidate has the status `failed`
    extra: list[str] = field(default_factory=list)  # candidates without references
    empty: list[str] = field(default_factory=list)  # clips with an empty candidate; they are scored
    repeated: list[str] = field(default_factory=list)  # clips with several identical candidates
    unreferenced: list[str] = field(default_factory=list)  # reference clips without a caption

    def only(self, clips: set[str]) -> Pairs:
        """A copy with only `clips`."""
        kept = [i for i, clip in enumerate(self.clips) if clip in clips]
        lists = {
            name: [getattr(self, name)[i] for i in kept] for name in ("clips", "candidates", "references")
        }
        odd = {
            name: [clip for clip in getattr(self, name) if clip in clips] for name in ("empty", "repeated")
        }
        return Pairs(**lists, **odd, **{name: getattr(self, name) for name in LEFT_OUT})

    def counts(self) -> dict[str, int]:
        """The number of clips in each list."""
        return {name: len(getattr(self, name)) for name in ("clips", *LEFT_OUT, "empty", "repeated")}


LEFT_OUT = ("missing", "failed", "extra", "unreferenced")


@dataclass
class References:
    """Clips and their reference captions from one file."""

    path: Path
    clips: list[Named]
    captions: list[list[str]]

    def labels(self) -> list[str]:
        """A unique name for each clip."""
        counts = Counter(clip.names[0] for clip in self.clips)
        labels = [clip.names[0] if counts[clip.names[0]] == 1 else _with_times(clip) for clip in self.clips]
        seen: Counter[str] = Counter()
        for i, label in enumerate(labels):
            seen[label] += 1
            if seen[label] > 1:
                labels[i] = f"{label} #{seen[label]}"
        return labels


def read_references(path: Path) -> References:
    """Reads AudioCaps' CSV, wide tables, tables with one caption per row, lists of captions, and COCO annotations.

    Captions of a clip keep their order, including duplicates; empty captions are dropped. Raises UsageError.
    """
    table = _read(path)
    caption_columns = [name for name in map(plain_name, table.columns) if _REFERENCE.fullmatch(name)]
    clips: dict[tuple[Any, ...], tuple[Named, list[str]]] = {}
    for _, clip, row in _rows(path, table, caption_columns):
        identity = (clip.names[0], clip.start, clip.end, clip.video_start)
        _, captions = clips.setdefault(identity, (clip, []))
        captions += [text for name in caption_columns for text in _texts(row.get(name)) if text.strip()]
    return References(
        path, [clip for clip, _ in clips.values()], [captions for _, captions in clips.values()]
    )


def read_candidates(path: Path) -> list[Candidate]:
    """Reads tables with one caption per clip, such as that of `evacap caption`, and COCO results. Raises UsageError."""
    table = _read(path)
    columns = [plain_name(name) for name in table.columns]
    caption_columns = [name for name in _CAPTION_COLUMNS if name in columns][:1]
    found, wrong = [], []
    for where, clip, row in _rows(path, table, caption_columns):
        texts = _texts(row.get(caption_columns[0]))
        if len(texts) > 1:
            wrong.append(f"{where} has {len(texts)}")
        failed = str(row.get("status") or "").strip().lower() == "failed"
        found.append(Candidate(clip, texts[0] if texts else "", where, failed))
    if wrong:
        raise UsageError(
            f"{path}: a clip must have one candidate caption, but {_some(wrong)}",
            "keep one caption per clip; the references are the second argument",
        )
    return found


def pair(candidates: list[Candidate], path: Path, references: References) -> Pairs:
    """Pairs the candidates from `path` with the references of the same clips.

    Raises UsageError if a name matches several clips, a clip has different candidates, or no clip matches.
    """
    labels, names = references.labels(), Names(references.clips)
    chosen: dict[int, Candidate] = {}
    result, repeated = Pairs(), dict[str, None]()
    ambiguous: list[str] = []
    different: dict[str, str] = {}
    for candidate in candidates:
        found = names.find(candidate.clip)
        if not found:
            result.extra.append(_with_times(candidate.clip))
        elif len(found) > 1:
            ambiguous.append(
                f"{candidate.where}: {candidate.clip.names[0]!r} matches {_some([labels[i] for i in found])}"
            )
        elif (before := chosen.setdefault(found[0], candidate)) is not candidate:
            repeated[labels[found[0]]] = None
            if (before.caption, before.failed) != (candidate.caption, candidate.failed):
                label = labels[found[0]]
                different.setdefault(label, f"{label} ({before.where}, {candidate.where})")
    problems, cures = [], []
    if ambiguous:
        problems.append(f"names that match several clips ({len(ambiguous)}): {_some(ambiguous)}")
        cures.append("use the clip names of the references")
    if different:
        problems.append(
            f"clips with different captions ({len(different)}): {_some(list(different.values()))}"
        )
        cures.append("keep one caption per clip")
    if not chosen and not problems:
        here, there = (_some([repr(n) for n in some], 3) for some in (result.extra, labels))
        problems.append(f"no clip of it is in {references.path}: clips here: {here}; clips there: {there}")
        cures.append("use the clip names of the references")
    if problems:
        raise UsageError(f"{path}: {'; '.join(problems)}", "; ".join(cures))
    result.repeated = list(repeated)
    _fill(result, labels, chosen, references)
    return result


def _fill(result: Pairs, labels: list[str], chosen: dict[int, Candidate], references: References) -> None:
    for i, (label, captions) in enumerate(zip(labels, references.captions, strict=True)):
        candidate = chosen.get(i)
        if not captions:
            result.unreferenced.append(label)
        elif candidate is None:
            result.missing.append(label)
        elif candidate.failed:
            result.failed.append(label)
        else:
            if not candidate.caption.strip():
                result.empty.append(label)
            result.clips.append(label)
            result.candidates.append(candidate.caption)
            result.references.append(captions)


def _read(path: Path) -> Table:
    known = {*_NAMES, *_TIMES, *_CAPTION_COLUMNS, "status"}
    return read_table(path, lambda name: name in known or bool(_REFERENCE.fullmatch(name)), mapping=True)


def _rows(
    path: Path, table: Table, caption_columns: list[str]
) -> Iterator[tuple[str, Named, dict[str, Any]]]:
    """Yields the position of each row, its clip and its cells. Raises UsageError if required columns are missing."""
    columns = [plain_name(name) for name in table.columns]
    lacking = [] if caption_columns else ["captions"]
    if not any(name in columns for name in _NAMES):
        lacking.insert(0, "clip names")
    if lacking or not table.rows:
        problem = f"no column with {' and none with '.join(lacking)}" if lacking else "no rows"
        raise UsageError(
            f"{path}: has {problem}; its columns are: {', '.join(table.columns) or 'none'}", _FORMS
        )
    nameless = []
    for where, row in table.rows:
        filled = {name: text for name in _NAMES if (text := _name(row.get(name)))}
        filled |= {name: whole_number(filled[name]) for name in (*_NUMBERS, _CAPTION_ID) if name in filled}
        numbers = [text for name, text in filled.items() if name in _NUMBERS]
        names = [text for name, text in filled.items() if name not in (*_NUMBERS, _CAPTION_ID)]
        if not names:
            names, numbers = numbers or list(filled.values()), []
        if names:
            start, end, video_start = (_seconds(row.get(name)) for name in _TIMES)
            named = Named(tuple(dict.fromkeys(names)), start, end, video_start, tuple(dict.fromkeys(numbers)))
            yield where, named, row
        elif any(text.strip() for name in caption_columns for text in _texts(row.get(name))):
            nameless.append(where)
    if nameless:
        raise UsageError(
            f"{path}: captions without a clip name: {_some(nameless)}", "give the clip name in each row"
        )


def _name(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)  # Parquet stores an integer column with gaps as floats
    return "" if value is None or isinstance(value, (list, dict)) or value != value else str(value).strip()


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(text) for text in values if text is not None and text == text]


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(str(value).strip())
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _with_times(clip: Named) -> str:
    times = [clip.start if clip.start is not None else clip.video_start, clip.end]
    return " ".join([clip.names[0], *(f"{seconds:g}" for seconds in times if seconds is not None)])


def _some(items: list[str], most: int = _SHOWN) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
