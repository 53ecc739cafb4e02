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
class DrawableObject:
    """A drawn object. places: its backgrounds. sky: belongs in the upper half. silent: can be drawn at rest."""

    places: tuple[str, ...] = ANY
    sky: bool = False
    silent: bool = True


OBJECTS: dict[str, DrawableObject] = {
    "car": DrawableObject((*ROAD, "park", "night")),
    "boat": DrawableObject(WATER),
    "motorcycle": DrawableObject((*ROAD, "park", "night")),
    "ambulance": DrawableObject((*ROAD, "night")),
    "police car": DrawableObject((*ROAD, "night")),
    "fire truck": DrawableObject((*ROAD, "night")),
    "truck": DrawableObject((*ROAD, "meadow")),
    "train": DrawableObject((*ROAD, "meadow", "night")),
    "helicopter": DrawableObject(OUTDOOR + WATER, sky=True),
    "kettle": DrawableObject(("kitchen", "room")),
    "referee": DrawableObject(("meadow", "park", "street")),
    "faucet": DrawableObject(("kitchen", "room")),
    "waterfall": DrawableObject(("forest", "meadow", "park"), silent=False),
    "fountain": DrawableObject(("park", "city", "street"), silent=False),
    "bucket": DrawableObject((*INDOOR, "park", "street")),
    "man": DrawableObject((*ANY, "beach")),
    "woman": DrawableObject((*ANY, "beach")),
    "child": DrawableObject((*ANY, "beach")),
    "laughing person": DrawableObject((*ANY, "beach")),
    "television": DrawableObject(INDOOR),
    "radio": DrawableObject((*INDOOR, "beach", "park")),
    "alarm clock": DrawableObject(INDOOR),
    "microwave": DrawableObject(("kitchen", "office")),
    "vacuum cleaner": DrawableObject(INDOOR),
    "hair dryer": DrawableObject(INDOOR),
    "bell": DrawableObject(("city", "street", "meadow", "room"), sky=True),
    "telephone": DrawableObject(INDOOR),
    "bird": DrawableObject((*NATURE, "street", "lake"), sky=True),
    "drum": DrawableObject((*INDOOR, "park", "street")),
    "guitar": DrawableObject((*INDOOR, "park", "beach")),
    "rain": DrawableObject(OUTDOOR + WATER, sky=True, silent=False),
    "storm cloud": DrawableObject(OUTDOOR + WATER, sky=True, silent=False),
    "tree": DrawableObject(("meadow", "park", "street", "beach")),
    "keyboard": DrawableObject(("office", "room")),
    "walker": DrawableObject((*OUTDOOR, "beach", "office", "room")),
    "door": DrawableObject(INDOOR),
    "audience": DrawableObject(("room", "park", "street")),
    "bee": DrawableObject(("meadow", "park", "forest", "room", "kitchen"), sky=True),
    "clock": DrawableObject(INDOOR, sky=True),
    "cat": DrawableObject((*INDOOR, "park", "street", "night")),
    "cow": DrawableObject(("meadow", "park")),
    "frog": DrawableObject(("lake", "forest", "park", "night")),
    "owl": DrawableObject(("forest", "night", "park"), sky=True),
    "duck": DrawableObject(("lake", "park", "meadow")),
    "saw": DrawableObject(("forest", "room", "park")),
    "dog": DrawableObject((*ANY, "beach")),
    "baby": DrawableObject((*INDOOR, "park")),
    "chainsaw": DrawableObject(("forest", "park", "meadow")),
    "campfire": DrawableObject(("forest", "night", "beach"), silent=False),
    "sneezing person": DrawableObject(ANY),
    "rooster": DrawableObject(("meadow", "park", "street")),
    "sea": DrawableObject(("beach", "plain"), silent=False),
}


def together(a: str, b: str) -> bool:
    """Whether two objects share a background."""
    return not set(thing(a).places).isdisjoint(thing(b).places)


def thing(name: str) -> DrawableObject:
    """The entry of an object. The signs of unknown categories fit all backgrounds."""
    return OBJECTS.get(name, DrawableObject())
