"""A few clips with captions, and their values by pycocoevalcap 1.2 itself (SPICE: by the checked launcher)."""

from __future__ import annotations

import json
from pathlib import Path

REFERENCES = {
    "dog": ["A dog barks twice", "Two barks of a large dog", "A dog is barking in the distance"],
    "rain": [
        "Rain falls on a tin roof.",
        "Heavy rain hits a roof",
        "Raindrops patter on a metal roof while wind blows",
    ],
    "man": ["A man speaks while an engine idles", "An idling engine and a man's voice"],
    "bell": ["A church bell rings three times", "A bell tolls; then silence."],
    "train": [
        "A train passes by, blowing its horn",
        "Train horn and wheels on the tracks",
        "A loud train goes past",
    ],
    "birds": ["Birds chirp and leaves rustle", "Small birds sing in green trees"],
    "crowd": ["A crowd cheers and applauds", "People clap and shout (indoors)"],
    "water": ["Water runs from a tap into a sink", "A faucet is turned on and water is running"],
}
CANDIDATES = {
    "dog": "A big dog barks loudly",
    "rain": "Heavy rain hits a roof",  # equal to a reference
    "man": "A woman talks, an engine is running",
    "bell": "Bells ring",
    "train": "A train sounds its horn as it passes by",
    "birds": "",
    "crowd": "people, clapping... and shouting!",
    "water": "Someone washes dishes 😀",
}
KNOWN = json.loads((Path(__file__).parent / "clips_known.json").read_text(encoding="utf-8"))
