"""Writes captions of a clip in the style of AudioCaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evacap_cli.world.events import Event, Wording
from evacap_cli.world.rng import RandomSource
from evacap_cli.world.script import SECONDS, Sound

TIMES = {1: "once", 2: "twice", 3: "three times", 4: "four times", 5: "five times"}
LOUDNESS = {
    "loud": ("loudly",),
    "faint": ("faintly", "softly", "quietly"),
    "distant": ("in the distance", "in the distance", "far away"),
}


@dataclass(frozen=True)
class Part:
    """One event with the properties that captions mention."""

    event: Event
    sound: Sound


def _wording(dice: RandomSource, part: Part) -> Wording:
    options = part.event.seen if part.sound.visible else part.event.words_unseen
    return options[0] if dice.chance(0.4) else dice.pick(options)


def _tail(dice: RandomSource, part: Part, alone: bool) -> str:
    """Count, loudness and distance: at most two of them, and only audible ones."""
    words = []
    sound = part.sound
    if sound.count > 1 and dice.chance(0.8):
        words.append("several times" if sound.count > 3 and dice.chance(0.4) else TIMES[sound.count])
    elif sound.count == 1 and dice.chance(0.3):
        words.append("once")
    elif alone and not sound.count and sound.end - sound.start > 0.7 * SECONDS and dice.chance(0.25):
        words.append("repeatedly" if part.event.timing == "stream" else "continuously")
    if sound.loudness in LOUDNESS and dice.chance(0.75):
        words.append(dice.pick(LOUDNESS[sound.loudness]))
    return "".join(f" {w}" for w in words)


def _clause(dice: RandomSource, part: Part, alone: bool = False) -> str:
    subject, verb, _ = _wording(dice, part)
    return f"{subject} {verb}{_tail(dice, part, alone)}"


def _noun(dice: RandomSource, part: Part, alone: bool = False) -> str:
    subject, _, ing = _wording(dice, part)
    return f"{subject} {ing}{_tail(dice, part, alone)}"


def _one(dice: RandomSource, a: Part) -> str:
    return _clause(dice, a, True) if dice.chance(0.65) else _noun(dice, a, True)


def _then(dice: RandomSource, a: Part, b: Part) -> str:
    kind = dice.whole(0, 6)
    if kind <= 1:
        return f"{_clause(dice, a)} followed by {_noun(dice, b)}"
    if kind == 2:
        return f"{_noun(dice, a)} followed by {_noun(dice, b)}"
    if kind == 3:
        return f"{_clause(dice, a)}, then {_clause(dice, b)}"
    if kind == 4:
        return f"{_clause(dice, a)} and then {_clause(dice, b)}"
    if kind == 5:
        return f"{_clause(dice, a)} before {_clause(dice, b)}"
    return f"after {_noun(dice, a)}, {_clause(dice, b)}"


def _together(dice: RandomSource, a: Part, b: Part) -> str:
    if dice.chance(0.35):
        a, b = b, a
    kind = dice.whole(0, 6)
    if kind <= 1:
        return f"{_clause(dice, a)} while {_clause(dice, b)}"
    if kind == 2:
        return f"{_clause(dice, a)} as {_clause(dice, b)}"
    if kind == 3:
        return f"{_clause(dice, a)} and {_clause(dice, b)}"
    if kind == 4:
        return f"{_noun(dice, a)} and {_noun(dice, b)}"
    if kind == 5:
        return f"{_clause(dice, a)} with {_noun(dice, b)}"
    return f"{_noun(dice, a)} with {_noun(dice, b)}"


def _three_in_turn(dice: RandomSource, a: Part, b: Part, c: Part) -> str:
    if dice.chance(0.5):
        return f"{_clause(dice, a)}, then {_clause(dice, b)} followed by {_noun(dice, c)}"
    if dice.chance(0.5):
        return f"{_clause(dice, a)} followed by {_noun(dice, b)} and then {_noun(dice, c)}"
    return f"{_noun(dice, a)} followed by {_noun(dice, b)} and {_noun(dice, c)}"


def _turns_over(dice: RandomSource, a: Part, b: Part, ground: Part) -> str:
    kind = dice.whole(0, 3)
    if kind == 0:
        return f"{_clause(dice, ground)} while {_then(dice, a, b)}"
    if kind == 1:
        return f"{_clause(dice, a)} followed by {_noun(dice, b)} as {_clause(dice, ground)}"
    if kind == 2:
        return f"{_clause(dice, a)}, then {_clause(dice, b)} while {_clause(dice, ground)}"
    return f"{_clause(dice, ground)} as {_clause(dice, a)} and then {_clause(dice, b)}"


def _three_together(dice: RandomSource, a: Part, b: Part, c: Part) -> str:
    a, b, c = dice.shuffled((a, b, c))
    if dice.chance(0.5):
        return f"{_clause(dice, a)} while {_clause(dice, b)} and {_clause(dice, c)}"
    if dice.chance(0.5):
        return f"{_clause(dice, a)} and {_clause(dice, b)} with {_noun(dice, c)}"
    return f"{_noun(dice, a)}, {_noun(dice, b)} and {_noun(dice, c)}"


WRITERS: dict[str, Callable[..., str]] = {
    "one": _one,
    "turns": _then,
    "together": _together,
    "three turns": _three_in_turn,
    "turns over": _turns_over,  # parts: first, second, background
    "three together": _three_together,
}


def write_captions(dice: RandomSource, layout: str, parts: Sequence[Part], count: int = 5) -> tuple[str, ...]:
    """`count` different sentences about `parts` in a layout (a key of WRITERS). The first is used for training."""
    write = WRITERS[layout]
    found: dict[str, None] = {}
    for _ in range(60):
        text = write(dice, *parts)
        found.setdefault(text[0].upper() + text[1:])
        if len(found) == count:
            return tuple(found)
    stem = next(iter(found))  # an unknown category has too few wordings: append generic endings
    endings = (" can be heard", " nearby", " clearly", " throughout", " now and then")
    plain = [stem + e for e in endings if stem + e not in found]
    return (tuple(found) + tuple(plain))[:count]
