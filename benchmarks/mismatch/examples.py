"""Captions ten unseen recordings, one of each class, without a picture, with a matching one and with a wrong one.

    python benchmarks/mismatch/examples.py --recordings ESC-10 --model WORK/models/demo \
        -o benchmarks/mismatch/results/examples.md

The audio is only the recording. The matching picture is rendered for a generated clip with only this class; the wrong
one is that of the next class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from naming import Naming
from world import SETS, world

from evacap_cli.features import FeatureSettings, crop_frame, fbank, frame_times, normalize_frames
from evacap_cli.model import load_checkpoint

SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--model", required=True, help="of `package.py`")
    parser.add_argument("--nth", type=int, default=2, help="index of the recording of each class")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    checkpoint, ours = load_checkpoint(args.model), world("test", args.recordings)
    features, naming = FeatureSettings.from_dict(checkpoint.features), Naming(ours.catalogue)
    bank = ours.recordings
    assert bank is not None
    events = {event.recorded: event for event in ours.catalogue.events if event.recorded}
    categories = [category for category in bank.categories if category in events]
    scenes = {}
    for number in range(SETS["test"].clips * 10):
        script = ours.script(number)
        if script.kind == "matched" and len(script.sounds) == 1:
            event = next(e for e in ours.catalogue.events if e.name == script.sounds[0].event)
            scenes.setdefault(event.recorded, script)
        if all(category in scenes for category in categories):
            break

    def picture(category: str) -> torch.Tensor:
        times = frame_times(SECONDS, features)
        frames = [crop_frame(ours.render_frame(scenes[category], t), features.image_size) for t in times]
        return normalize_frames(torch.stack(frames), features)[None]

    lines = [
        "| recording | what it is | picture | caption | named | score | gate | P(mismatch) |",
        "|" + "---|" * 8,
    ]
    right = {"black": 0, "fitting": 0, "wrong": 0}
    for place, category in enumerate(categories):
        name = bank.categories[category][args.nth % len(bank.categories[category])]
        sound = fbank([torch.from_numpy(np.ascontiguousarray(bank.wave(name)))], features)
        wrong = categories[(place + 1) % len(categories)]
        black = normalize_frames(torch.zeros(1, features.frames, 3, *(features.image_size,) * 2), features)
        for label, shown in (("black", black), ("fitting", picture(category)), ("wrong", picture(wrong))):
            out = checkpoint.model.generate(sound, shown)
            caption = checkpoint.tokenizer.decode(out.tokens[0].tolist())
            ok = naming.named(caption, events[category].sound)
            right[label] += ok
            gate = "" if out.gate is None else f"{out.gate[0]:.2f}"
            doubt = "" if out.evidence is None or out.evidence.isnan()[0] else f"{1 - out.evidence[0]:.3f}"
            seen = label if label != "wrong" else f"wrong: {events[wrong].object}"
            said = f"{caption} | {'yes' if ok else 'no'} | {out.score[0]:.2f} | {gate} | {doubt} |"
            lines.append(f"| {name} | {category} | {seen} | {said}")
    counts = ", ".join(f"{label} {count} of {len(categories)}" for label, count in right.items())
    text = (
        f"# {checkpoint.name} on ten unseen recordings\n\nNamed right: {counts}.\n\n"
        + "\n".join(lines)
        + "\n"
    )
    args.out.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
