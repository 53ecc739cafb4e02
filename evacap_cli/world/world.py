"""Generates the script of a clip from a seed and an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evacap_cli.errors import UsageError
from evacap_cli.world.audio import render_audio
from evacap_cli.world.captions import Part, write_captions
from evacap_cli.world.events import RECORDED, SYNTHETIC, Catalogue, Event
from evacap_cli.world.objects import OBJECTS, thing, together
from evacap_cli.world.picture import render_frame
from evacap_cli.world.recordings import RecordingBank
from evacap_cli.world.rng import RandomSource
from evacap_cli.world.script import KINDS, ClipScript, Sound, VisibleObject
from evacap_cli.world.timing import OVERLAPPING, Span, choose_layout, spans

LEVELS = {
    "normal": (-27.0, -20.0),
    "loud": (-14.0, -11.0),
    "faint": (-40.0, -36.0),
    "distant": (-36.0, -31.0),
}
ODD_PLACES = 0.85  # probability to reject a pair of sources without a common background
SEED_LIMIT = 2**31 - 1


class World:
    """Clips 0, 1, 2, ... that depend only on `seed` and the arguments.

    `recordings`: a folder (see RecordingBank) with additional voices; `folds` and `licenses` select its rows.
    `matched`, `off_screen`, `dubbed` and `distractor` are the weights of the kinds of clips, `events` the weights of
    1, 2 and 3 sounds per clip. `recorded_voice` is the probability that an event with both kinds of voices uses a
    recording. Raises UsageError for invalid weights and for an invalid folder.
    """

    def __init__(
        self,
        seed: int,
        recordings: str | Path | RecordingBank | None = None,
        folds: Sequence[int] | None = None,
        licenses: Sequence[str] | None = None,
        *,
        matched: float = 0.65,
        off_screen: float = 0.12,
        dubbed: float = 0.08,
        distractor: float = 0.15,
        events: Sequence[float] = (0.4, 0.42, 0.18),
        recorded_voice: float = 0.5,
    ) -> None:
        self.seed = int(seed)
        self.kind_weights = (matched, off_screen, dubbed, distractor)
        self.count_weights = tuple(events)
        self.recorded_voice = recorded_voice
        for name, weights in (("kinds", self.kind_weights), ("events", self.count_weights)):
            if any(w < 0 for w in weights) or sum(weights) <= 0:
                raise UsageError(
                    f"{name}: weights {weights} must be >= 0 with a positive sum", "Change the weights."
                )
        if len(self.count_weights) != 3:
            raise UsageError(
                f"events: {self.count_weights} must be three weights", "Give those of 1, 2 and 3 events."
            )
        if recordings is None or isinstance(recordings, RecordingBank):
            self.recordings = recordings
        else:
            self.recordings = RecordingBank.open(recordings, folds, licenses)
        categories = tuple(self.recordings.categories) if self.recordings else ()
        self.catalogue = Catalogue.for_categories(categories)
        self._kin = self._kin_of_objects()

    @property
    def sound_classes(self) -> list[str]:
        """Acoustic classes of this world. The members of a family share one class."""
        return self.catalogue.sound_classes

    @property
    def object_classes(self) -> list[str]:
        """Objects that can be seen in this world."""
        extra = [e.object for e in self.catalogue.events if e.object not in OBJECTS]
        return list(OBJECTS) + extra

    def event(self, name: str) -> Event:
        """The event with this name. Raises KeyError."""
        return next(e for e in self.catalogue.events if e.name == name)

    def _kin_of_objects(self) -> dict[str, frozenset[str]]:
        kin: dict[str, set[str]] = {}
        for e in SYNTHETIC + RECORDED + self.catalogue.events:
            kin.setdefault(e.object, {e.object, e.sound}).update(e.kin.split())
            kin[e.object].add(e.sound)
        return {name: frozenset(words) for name, words in kin.items()}

    # --- what sounds

    def _choose_events(self, dice: RandomSource, count: int) -> list[Event]:
        chosen: list[Event] = []
        for _ in range(50):
            if len(chosen) == count:
                break
            e = dice.weighted(self.catalogue.events, [x.weight for x in self.catalogue.events])
            clash = any(e.object == c.object or e.sound == c.sound or (e.noise and c.noise) for c in chosen)
            # most pairs share a background, but a cow may be heard in a kitchen
            odd = not all(together(e.object, c.object) for c in chosen) and dice.chance(ODD_PLACES)
            if not clash and not odd:
                chosen.append(e)
        return chosen

    def _loudness(self, dice: RandomSource, events: Sequence[Event], layout: str) -> list[str]:
        words = [dice.weighted(tuple(LEVELS), (0.6, 0.14, 0.11, 0.15)) for _ in events]
        words = ["faint" if w == "distant" and not e.far else w for w, e in zip(words, events, strict=True)]
        # at most one event per clip stands out, and no noise is so faint that other events mask it
        special = next((k for k, w in enumerate(words) if w != "normal"), -1)
        words = [w if k == special else "normal" for k, w in enumerate(words)]
        if special >= 0 and layout in OVERLAPPING and events[special].noise and words[special] != "loud":
            words[special] = "normal"
        return words

    def _sound(self, dice: RandomSource, event: Event, span: Span, loudness: str, visible: bool) -> Sound:
        files = (
            self.recordings.categories.get(event.recorded, ()) if self.recordings and event.recorded else ()
        )
        use = bool(files) and (not event.synthetic or dice.chance(self.recorded_voice))
        return Sound(
            event=event.name,
            sound=event.sound,
            start=span.start,
            end=span.end,
            hits=span.hits,
            count=span.count,
            loudness=loudness,
            level=dice.between(*LEVELS[loudness]),
            pitch=dice.between(0.84, 1.19),
            seed=dice.whole(0, SEED_LIMIT),
            visible=visible,
            recording=dice.pick(files) if use else "",
            speed=dice.between(0.9, 1.1) if use else 1.0,
            offset=dice.between(0.0, 1.0) if use else 0.0,
        )

    # --- what is seen

    def _strangers(self, heard: Sequence[Event], still: bool) -> list[str]:
        """Objects that cannot be mistaken for the source of a sound in the clip."""
        kin = frozenset().union(*(self._kin[e.object] for e in heard))
        return [o for o in OBJECTS if not (self._kin[o] & kin) and (thing(o).silent or not still)]

    def _seen(
        self, dice: RandomSource, actors: Sequence[tuple[str, str, str, Span]], distant: bool
    ) -> tuple[VisibleObject, ...]:
        """Positions of 1 to 3 objects (object, role, event, span) in the central square without overlap."""
        count = len(actors)
        shrink = 0.85 if distant else 1.0
        if count == 1:
            places = [
                (160 + dice.between(-22, 22), 122 + dice.between(-12, 12), dice.between(70, 96) * shrink)
            ]
        elif count == 2:
            lift = dice.between(-26, 26)
            size = dice.between(51, 58)
            places = [
                (101 + dice.between(-4, 4), 124 + lift, size),
                (219 + dice.between(-4, 4), 124 - lift, size),
            ]
        else:
            size = dice.between(46, 52)
            up = dice.chance(0.5) if not any(thing(a[0]).sky for a in actors) else True
            ys = (168, 168, 66) if up else (72, 72, 176)
            places = [(98, ys[0], size), (222, ys[1], size), (160 + dice.between(-6, 6), ys[2], size)]
        order = dice.shuffled(range(count))
        if count > 1:  # flying objects get the highest position
            ranked = sorted(range(count), key=lambda i: places[i][1])
            flying = [k for k in range(count) if thing(actors[k][0]).sky]
            rest = [k for k in order if k not in flying]
            order = [0] * count
            for spot, k in zip(ranked, flying + rest, strict=True):
                order[k] = spot
        out = []
        for k, (name, role, event, span) in enumerate(actors):
            x, y, size = places[order[k]]
            out.append(
                VisibleObject(
                    object=name,
                    role=role,
                    event=event,
                    x=round(x, 1),
                    y=round(y, 1),
                    size=round(size, 1),
                    flip=dice.chance(0.5),
                    seed=dice.whole(0, SEED_LIMIT),
                    start=span.start,
                    end=span.end,
                    hits=span.hits,
                )
            )
        return tuple(out)

    def _background(self, dice: RandomSource, heard: Sequence[Event], names: Sequence[str]) -> str:
        sources = list(names) or [heard[0].object]
        shared = [p for p in thing(sources[0]).places if all(p in thing(s).places for s in sources[1:])]
        if dice.chance(0.08):
            return "plain"
        return dice.pick(shared or thing(dice.pick(sources)).places)

    # --- the whole

    def script(self, i: int) -> ClipScript:
        """The script of clip `i` (>= 0)."""
        plan, scene = (
            RandomSource("evacap", self.seed, i, "plan"),
            RandomSource("evacap", self.seed, i, "scene"),
        )
        kind = plan.weighted(KINDS, self.kind_weights)
        count = plan.weighted((1, 2, 3), self.count_weights)
        if kind == "off-screen" and count == 1 and plan.chance(0.7):
            count = 2
        if kind in ("dubbed", "distractor"):
            count = min(count, 2)
        layout, events = choose_layout(plan, self._choose_events(plan, count))
        times = spans(plan, layout, events)
        hidden = plan.whole(0, len(events) - 1) if kind == "off-screen" else -1
        visible = [kind != "dubbed" and k != hidden for k in range(len(events))]
        words = self._loudness(plan, events, layout)
        sounds = tuple(
            self._sound(plan, e, t, w, v) for e, t, w, v in zip(events, times, words, visible, strict=True)
        )

        actors = [
            (e.object, "sounding", e.name, t) for e, t, v in zip(events, times, visible, strict=True) if v
        ]
        still = Span(0.0, 0.0)
        if kind == "distractor":
            silent = self._strangers(events, still=True)
            near = [o for o in silent if all(together(o, a[0]) for a in actors)]
            odd = not near or scene.chance(1 - ODD_PLACES)
            actors.append((scene.pick(silent if odd else near), "silent", "", still))
        if kind == "dubbed":
            actors = self._dubbed(scene, events)
        far = any(s.loudness == "distant" for s in sounds)
        indoor = self._background(scene, events, [a[0] for a in actors])
        seen = self._seen(scene, actors, far) if actors else ()
        parts = [Part(e, s) for e, s in zip(events, sounds, strict=True)]
        script = ClipScript(
            key=f"clip-{i:05d}",
            world=self.seed,
            index=i,
            kind=kind,
            sounds=sounds,
            seen=seen,
            background=indoor,
            background_seed=scene.whole(0, SEED_LIMIT),
            room=plan.between(0.15, 0.9),
            wet=plan.between(0.05, 0.2),
            floor=plan.between(-66.0, -52.0),
        )
        return replace(
            script, captions=write_captions(RandomSource("evacap", self.seed, i, "captions"), layout, parts)
        )

    def _dubbed(self, dice: RandomSource, heard: Sequence[Event]) -> list[tuple[str, str, str, Span]]:
        """One or two unrelated objects that move as if they sounded, or stand still."""
        actors: list[tuple[str, str, str, Span]] = []
        names = set(self._strangers(heard, still=False))
        for _ in range(dice.weighted((1, 2), (0.6, 0.4))):
            moving = dice.chance(0.75)
            pool = [
                e for e in SYNTHETIC + RECORDED if e.object in names and (moving or thing(e.object).silent)
            ]
            e = dice.pick(pool)
            names.discard(e.object)
            if moving:
                layout, _ = choose_layout(dice, [e])
                actors.append((e.object, "dubbed", e.name, spans(dice, layout, [e])[0]))
            else:
                actors.append((e.object, "silent", "", Span(0.0, 0.0)))
        return actors

    def render_audio(self, script: ClipScript) -> np.ndarray:
        """(160000,) float32 at 16 kHz."""
        return render_audio(script, self.recordings)

    def render_frame(self, script: ClipScript, t: float, width: int = 320, height: int = 240) -> np.ndarray:
        """The frame at `t` seconds: (height, width, 3) uint8."""
        return render_frame(script, t, width, height)
