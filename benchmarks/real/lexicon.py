"""Writes the packaged lexicon from `data/lexicon.yaml` as JSON, which loads faster, with class indices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml


def write_lexicon(source: Path, classes: Sequence[str], place: Path) -> None:
    """Writes the lexicon. Classes that the audio network lacks are omitted. A word without classes keeps an empty list,
    so it is never allowed."""
    tables = yaml.load(source.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    number = {name: i for i, name in enumerate(classes)}
    words = {
        word: [number[name] for name in names if name in number]
        for word, names in sorted(tables["words"].items())
    }
    lines = [f"{json.dumps(word)}: {json.dumps(found)}" for word, found in words.items()]
    families = [json.dumps(family) for family in tables["families"]]
    place.write_text(
        '{"words": {\n' + ",\n".join(lines) + '\n},\n"families": [\n' + ",\n".join(families) + "\n]}\n",
        "utf-8",
    )


if __name__ == "__main__":
    import evacap_cli
    from evacap_cli.model.lexicon import audioset_classes

    ASSETS = Path(evacap_cli.__file__).parent / "assets"
    write_lexicon(
        Path(__file__).parent / "data" / "lexicon.yaml", audioset_classes(), ASSETS / "lexicon.json"
    )
