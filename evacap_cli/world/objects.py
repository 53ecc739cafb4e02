"""All objects that can be seen, each with the backgrounds that it fits."""

from __future__ import annotations

from dataclasses import dataclass

INDOOR = ("room", "kitchen", "office")
ROAD = ("street", "city")
NATURE = ("meadow", "forest", "park", "night")
WATER = ("beach", "lake")
OUTDOOR = ROAD + NATURE
ANY = INDOOR + OUTDOOR
BACKGROUNDS = INDOOR + OUTDOOR + WATER + ("plain",)


@dataclass(frozen=True)
class Thing:
    """A drawn object. places: its backgrounds. sky: belongs in the upper half. silent: can be drawn at rest."""

    places: tuple[str, ...] = ANY
    sky: bool = False
    silent: bool = True


OBJECTS: dict[str, Thing] = {
    "car": Thing((*ROAD, "park", "night")),
    "boat": Thing(WATER),
    "motorcycle": Thing((*ROAD, "park", "night")),
    "ambulance": Thing((*ROAD, "night")),
    "police car": Thing((*ROAD, "night")),
    "fire truck": Thing((*ROAD, "night")),
    "truck": Thing((*ROAD, "meadow")),
    "train": Thing((*ROAD, "meadow", "night")),
    "helicopter": Thing(OUTDOOR + WATER, sky=True),
    "kettle": Thing(("kitchen", "room")),
    "referee": Thing(("meadow", "park", "street")),
    "faucet": Thing(("kitchen", "room")),
    "waterfall": Thing(("forest", "meadow", "park"), silent=False),
    "fountain": Thing(("park", "city", "street"), silent=False),
    "bucket": Thing((*INDOOR, "park", "street")),
    "man": Thing((*ANY, "beach")),
    "woman": Thing((*ANY, "beach")),
    "child": Thing((*ANY, "beach")),
    "laughing person": Thing((*ANY, "beach")),
    "television": Thing(INDOOR),
    "radio": Thing((*INDOOR, "beach", "park")),
    "alarm clock": Thing(INDOOR),
    "microwave": Thing(("kitchen", "office")),
    "vacuum cleaner": Thing(INDOOR),
    "hair dryer": Thing(INDOOR),
    "bell": Thing(("city", "street", "meadow", "room"), sky=True),
    "telephone": Thing(INDOOR),
    "bird": Thing((*NATURE, "street", "lake"), sky=True),
    "drum": Thing((*INDOOR, "park", "street")),
    "guitar": Thing((*INDOOR, "park", "beach")),
    "rain": Thing(OUTDOOR + WATER, sky=True, silent=False),
    "storm cloud": Thing(OUTDOOR + WATER, sky=True, silent=False),
    "tree": Thing(("meadow", "park", "street", "beach")),
    "keyboard": Thing(("office", "room")),
    "walker": Thing((*OUTDOOR, "beach", "office", "room")),
    "door": Thing(INDOOR),
    "audience": Thing(("room", "park", "street")),
    "bee": Thing(("meadow", "park", "forest", "room", "kitchen"), sky=True),
    "clock": Thing(INDOOR, sky=True),
    "cat": Thing((*INDOOR, "park", "street", "night")),
    "cow": Thing(("meadow", "park")),
    "frog": Thing(("lake", "forest", "park", "night")),
    "owl": Thing(("forest", "night", "park"), sky=True),
    "duck": Thing(("lake", "park", "meadow")),
    "saw": Thing(("forest", "room", "park")),
    "dog": Thing((*ANY, "beach")),
    "baby": Thing((*INDOOR, "park")),
    "chainsaw": Thing(("forest", "park", "meadow")),
    "campfire": Thing(("forest", "night", "beach"), silent=False),
    "sneezing person": Thing(ANY),
    "rooster": Thing(("meadow", "park", "street")),
    "sea": Thing(("beach", "plain"), silent=False),
}


def together(a: str, b: str) -> bool:
    """Whether two objects share a background."""
    return not set(thing(a).places).isdisjoint(thing(b).places)


def thing(name: str) -> Thing:
    """The entry of an object. The signs of unknown categories fit all backgrounds."""
    return OBJECTS.get(name, Thing())
