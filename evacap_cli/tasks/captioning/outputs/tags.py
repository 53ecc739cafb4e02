"""What a caption rests on: the classes that a model with tag towers heard and saw in a clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evacap_cli.errors import UsageError

if TYPE_CHECKING:
    from evacap_cli.model import Checkpoint

MAX_TAGS = 5  # classes of a row
MIN_CONFIDENCE = 0.05  # confidence below which a class is left out, unless nothing else was heard
MAX_SHOWN = 0.99  # of the two digits that outputs show: nothing is certain
ACTIVE_SHARE = 0.5  # of a class's confidence in its best window, with which it counts as heard in another one
TIME_STEP = 0.01  # seconds to which times are rounded; stretches that are no farther apart are one


@dataclass(frozen=True)
class Tag:
    """A class. confidence: of the network, in the whole clip, 0 to 1. times: of sounds, when it is heard, as
    (start, end) in seconds on the file's clock."""

    name: str
    confidence: float
    times: tuple[tuple[float, float], ...] = ()


def heard_tags(
    numbers: np.ndarray, names: Sequence[str], start: float, end: float, window: float
) -> tuple[Tag, ...]:
    """The best classes of a clip's sound, at most `MAX_TAGS`: the first, and those that have at least `MIN_CONFIDENCE`
    confidence.

    numbers: float32 (T_a, 2 + windows), a row of `Generation.heard`: class, logit in the clip, logit in each window.
    names: of all classes. start, end: of the clip in seconds. window: seconds of one window.

    A class is heard in the windows in which its confidence is at least half (`ACTIVE_SHARE`) of that in its best
    window. Following windows make one stretch. A clip that does not fill all windows is heard again from its start: the
    windows that begin after its end are left out, and the last one is cut there.
    """
    edges = [start + i * window for i in range(numbers.shape[1] - 1)]
    spans = [
        (_time(edges[i], start, end), _time(edges[i + 1], start, end))
        for i in range(len(edges) - 1)
        if i == 0 or edges[i] + TIME_STEP <= end
    ]
    return _best(
        Tag(names[int(row[0])], _sigmoid(row[1]), _loudest(row[2 : 2 + len(spans)], spans)) for row in numbers
    )


def seen_tags(numbers: np.ndarray, names: Sequence[str]) -> tuple[Tag, ...]:
    """The best classes of a clip's picture that have at least `MIN_CONFIDENCE` confidence, at most `MAX_TAGS`.

    numbers: float32 (T_v, 3), a row of `Generation.seen`: class, logit, probability. names: of all classes.
    """
    tags = (Tag(names[int(index)], round(float(chance), 4)) for index, _, chance in numbers)
    return _best(tag for tag in tags if tag.confidence >= MIN_CONFIDENCE)


def join_tags(runs: Iterable[Sequence[Tag]]) -> tuple[Tag, ...]:
    """The tags of neighbouring clips as those of one: each class once, with its highest confidence and all its times.

    Stretches that touch or overlap become one. At most `MAX_TAGS` classes stay.
    """
    found: dict[str, Tag] = {}
    for tag in (tag for run in runs for tag in run):
        known = found.get(tag.name, tag)
        times = _stretches(known.times + tag.times)
        found[tag.name] = Tag(tag.name, max(known.confidence, tag.confidence), times)
    return _best(found.values())


def tags_text(tags: Iterable[Tag]) -> str:
    """Tags in a cell of a table: `Dog .91; Bark .77`."""
    return "; ".join(f"{tag.name} {f'{_shown(tag.confidence):.2f}'[1:]}" for tag in tags)


def tags_json(tags: Iterable[Tag]) -> list[dict[str, Any]]:
    """Tags in a JSON line; `times` of sounds only."""
    return [
        {"class": tag.name, "confidence": _shown(tag.confidence)}
        | ({"times": [list(span) for span in tag.times]} if tag.times else {})
        for tag in tags
    ]


def to_lists(tags: Iterable[Tag]) -> list[Any]:
    """Tags as the journal keeps them; `from_lists` reads them back."""
    return [[tag.name, tag.confidence, tag.times] for tag in tags]


def from_lists(values: Iterable[Any]) -> tuple[Tag, ...]:
    return tuple(
        Tag(name, confidence, tuple((start, end) for start, end in times))
        for name, confidence, times in values
    )


def check_tags(checkpoint: Checkpoint) -> None:
    """Raises UsageError for a model that names no classes."""
    if not checkpoint.model.tagged:
        raise UsageError(
            f"--tags: {checkpoint.name} names no classes (its towers are {checkpoint.model.config.towers})",
            "take a model whose towers are tags, such as demo, or leave --tags out",
        )


def _best(tags: Iterable[Tag]) -> tuple[Tag, ...]:
    """The first, and those that have at least `MIN_CONFIDENCE`, best first."""
    ranked = sorted(tags, key=lambda tag: -tag.confidence)[:MAX_TAGS]
    return tuple(tag for i, tag in enumerate(ranked) if i == 0 or tag.confidence >= MIN_CONFIDENCE)


def _loudest(
    logits: Sequence[float], spans: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], ...]:
    """The spans of the windows that have at least `ACTIVE_SHARE` of the confidence of the best one."""
    confidences = [_sigmoid(logit) for logit in logits]
    enough = ACTIVE_SHARE * max(confidences)
    return _stretches(span for span, p in zip(spans, confidences, strict=True) if p >= enough)


def _stretches(times: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for start, end in sorted(times):
        if joined and start <= joined[-1][1] + TIME_STEP:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return tuple(joined)


def _time(seconds: float, start: float, end: float) -> float:
    """Rounded, and inside the clip."""
    return max(start, min(end, round(seconds, 2)))


def _sigmoid(logit: float) -> float:
    return round(1 / (1 + math.exp(-float(logit))), 4)


def _shown(confidence: float) -> float:
    return min(MAX_SHOWN, round(confidence, 2))
