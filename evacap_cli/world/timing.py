"""Timing: layouts of one to three events in ten seconds, and the strokes of each event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evacap_cli.world.events import Event
from evacap_cli.world.rng import RandomSource
from evacap_cli.world.script import SECONDS

OVERLAPPING = ("together", "turns over", "three together")


@dataclass(frozen=True)
class Span:
    """The time span of an event in seconds of the clip, its strokes, and the number of countable strokes."""

    start: float
    end: float
    hits: tuple[float, ...] = ()
    count: int = 0


def _slots(dice: RandomSource, layout: str) -> list[tuple[float, float]]:
    whole = (dice.between(0.0, 0.8), dice.between(9.2, SECONDS))
    if layout == "one":
        if dice.chance(0.5):
            return [whole]
        start = dice.between(0.2, 3.0)
        return [(start, dice.between(max(6.0, start + 4.0), 9.8))]
    if layout == "turns":
        cut = dice.between(4.2, 5.8)
        return [(whole[0], cut - 0.25), (cut + 0.25, whole[1])]
    if layout == "together":
        return [whole, (dice.between(0.0, 1.6), dice.between(8.2, SECONDS))]
    if layout == "three turns":
        a, b = dice.between(3.1, 3.6), dice.between(6.4, 6.9)
        return [(0.1, a - 0.15), (a + 0.15, b - 0.15), (b + 0.15, 9.95)]
    if layout == "turns over":
        cut = dice.between(4.4, 5.6)
        return [(dice.between(0.2, 0.8), cut - 0.2), (cut + 0.2, dice.between(9.2, 9.9)), (0.0, SECONDS)]
    return [(dice.between(0.0, 1.0), dice.between(9.0, SECONDS)) for _ in range(3)]


def _span(dice: RandomSource, event: Event, slot: tuple[float, float]) -> Span:
    low, high = slot
    if event.timing == "sustained":
        if event.brief[1]:
            length = min(high - low, dice.between(*event.brief))
            low += dice.unit() * (high - low - length)
            high = low + length
        return Span(round(low, 3), round(high, 3))
    gap = dice.between(*event.gap)
    room = high - low - event.last
    most = 1 + int(room / gap) if room > 0 else 1
    hits: list[float] = []
    if event.timing == "counted":
        count = dice.whole(1, min(event.most, most))
        slack = max(0.0, room - gap * (count - 1))
        at = low + slack * dice.unit()
        hits = [at + gap * k for k in range(count)]
    else:
        at = low + 0.05
        while at + event.last <= high or not hits:
            hits.append(at)
            at += gap if event.even else dice.between(*event.gap)
    end = min(SECONDS, hits[-1] + event.last)
    rounded = tuple(round(h, 3) for h in hits)
    return Span(rounded[0], round(end, 3), rounded, len(hits) if event.timing == "counted" else 0)


def choose_layout(dice: RandomSource, events: Sequence[Event]) -> tuple[str, list[Event]]:
    """Chooses a layout for the events. Returns it with the events in its order (background last)."""
    lasting = [e for e in events if e.timing != "counted" and not e.brief[1]]
    if len(events) == 1:
        return "one", list(events)
    if len(events) == 2:
        return ("together" if dice.chance(0.5 if lasting else 0.0) else "turns"), list(events)
    if lasting and dice.chance(0.5):
        ground = dice.pick(lasting)
        return "turns over", [*(e for e in events if e is not ground), ground]
    if len(lasting) >= 2 and dice.chance(0.3):
        return "three together", list(events)
    return "three turns", list(events)


def spans(dice: RandomSource, layout: str, events: Sequence[Event]) -> list[Span]:
    """The span of each event."""
    return [_span(dice, e, s) for e, s in zip(events, _slots(dice, layout), strict=True)]
