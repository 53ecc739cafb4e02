"""Tags: the sound and object classes that a model with tag towers finds in a clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evacap_cli.errors import UsageError

if TYPE_CHECKING:
    from evacap_cli.model import Checkpoint

MAX_TAGS = 5  # classes per row
MIN_CONFIDENCE = 0.05  # classes below it are left out, except the best sound class
MAX_SHOWN = 0.99  # the largest confidence shown: outputs have two digits and nothing is certain
ACTIVE_SHARE = 0.5  # a class is active in windows with this share of the confidence in its best window
TIME_STEP = 0.01  # seconds: times are rounded to it, and spans at most this far apart are joined


@dataclass(frozen=True)
class Tag:
    """A class. confidence: the network's, for the whole clip, 0 to 1. times: spans in which a sound is active, as
    (start, end) in seconds on the file's clock."""

    name: str
    confidence: float
    times: tuple[tuple[float, float], ...] = ()


def heard_tags(
    numbers: np.ndarray, names: Sequence[str], start: float, end: float, window: float
) -> tuple[Tag, ...]:
    """Returns the best classes of a clip's sound, at most `MAX_TAGS`: the first one, and others with a confidence of
    at least `MIN_CONFIDENCE`.

    numbers: float32 (T_a, 2 + windows), a row of `Generation.heard`: class, logit in the clip, logit in each window.
    names: of all classes. start, end: of the clip in seconds. window: seconds per window.

    A class is active in the windows in which its confidence is at least half (`ACTIVE_SHARE`) of that in its best
    window. Consecutive windows are joined. A short clip is repeated to fill all windows: windows that start after its
    end are left out, and the last one ends with the clip.
    """
    edges = [start + i * window for i in range(numbers.shape[1] - 1)]
    spans = [
        (_time(edges[i], start, end), _time(edges[i + 1], start, end))
        for i in range(len(edges) - 1)
        if i == 0 or edges[i] + TIME_STEP <= end
    ]
    return _best(
        Tag(names[int(row[0])], _sigmoid(row[1]), _active_spans(row[2 : 2 + len(spans)], spans))
        for row in numbers
    )


def seen_tags(numbers: np.ndarray, names: Sequence[str]) -> tuple[Tag, ...]:
    """Returns the classes of a clip's picture with a confidence of at least `MIN_CONFIDENCE`, at most `MAX_TAGS`.

    numbers: float32 (T_v, 3), a row of `Generation.seen`: class, logit, probability. names: of all classes.
    """
    tags = (Tag(names[int(index)], round(float(chance), 4)) for index, _, chance in numbers)
    return _best(tag for tag in tags if tag.confidence >= MIN_CONFIDENCE)


def join_tags(runs: Iterable[Sequence[Tag]]) -> tuple[Tag, ...]:
    """Joins the tags of neighboring clips: each class once, with its highest confidence and all its times.

    Spans that touch or overlap are joined. At most `MAX_TAGS` classes are kept.
    """
    found: dict[str, Tag] = {}
    for tag in (tag for run in runs for tag in run):
        known = found.get(tag.name, tag)
        times = _join_spans(known.times + tag.times)
        found[tag.name] = Tag(tag.name, max(known.confidence, tag.confidence), times)
    return _best(found.values())


def tags_text(tags: Iterable[Tag]) -> str:
    """Formats tags for a table cell: `Dog .91; Bark .77`."""
    return "; ".join(f"{tag.name} {f'{_shown(tag.confidence):.2f}'[1:]}" for tag in tags)


def tags_json(tags: Iterable[Tag]) -> list[dict[str, Any]]:
    """Returns tags for a JSON line; only sounds have `times`."""
    return [
        {"class": tag.name, "confidence": _shown(tag.confidence)}
        | ({"times": [list(span) for span in tag.times]} if tag.times else {})
        for tag in tags
    ]


def to_lists(tags: Iterable[Tag]) -> list[Any]:
    """Converts tags for the journal; `from_lists` is the inverse."""
    return [[tag.name, tag.confidence, tag.times] for tag in tags]


def from_lists(values: Iterable[Any]) -> tuple[Tag, ...]:
    return tuple(
        Tag(name, confidence, tuple((start, end) for start, end in times))
        for name, confidence, times in values
    )


def check_tags(checkpoint: Checkpoint) -> None:
    """Raises UsageError if a model has no tag towers."""
    if not checkpoint.model.has_tag_towers:
        raise UsageError(
            f"--tags: {checkpoint.name} names no classes (its towers are {checkpoint.model.config.towers})",
            "use a model with tag towers, such as demo, or omit --tags",
        )


def _best(tags: Iterable[Tag]) -> tuple[Tag, ...]:
    """Returns the best tag and those with at least `MIN_CONFIDENCE`, best first."""
    ranked = sorted(tags, key=lambda tag: -tag.confidence)[:MAX_TAGS]
    return tuple(tag for i, tag in enumerate(ranked) if i == 0 or tag.confidence >= MIN_CONFIDENCE)


def _active_spans(
    logits: Sequence[float], spans: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], ...]:
    """Returns the spans of the windows with at least `ACTIVE_SHARE` of the best confidence."""
    confidences = [_sigmoid(logit) for logit in logits]
    threshold = ACTIVE_SHARE * max(confidences)
    return _join_spans(span for span, p in zip(spans, confidences, strict=True) if p >= threshold)


def _join_spans(times: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for start, end in sorted(times):
        if joined and start <= joined[-1][1] + TIME_STEP:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return tuple(joined)


def _time(seconds: float, start: float, end: float) -> float:
    """Rounds a time and clamps it to the clip."""
    return max(start, min(end, round(seconds, 2)))


def _sigmoid(logit: float) -> float:
    return round(1 / (1 + math.exp(-float(logit))), 4)


def _shown(confidence: float) -> float:
    return min(MAX_SHOWN, round(confidence, 2))
