"""Compares how this and another version of evacap read each kind of media file of the tests:

    python -m benchmarks.media_kinds --against DIR [--out benchmarks/results/media_kinds.md]

DIR is a checkout of the other version (`git worktree add DIR COMMIT`). Both versions read the same files, those of
`tests/media`, each in a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent.parent
LOWEST, STEP = 400.0, 60.0  # Hz, as in tests/media/spoken.py, which needs this version
DARK, SLOPE = 20.0, 18.0  # grey levels, also from there
RATE = 16_000


def describe() -> None:
    """The reading process: reads jobs from stdin, one JSON object per line, and prints a text for each."""
    import av

    av.logging.set_level(None)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            text = {"time": _time, "track": _track, "level": _level, "shape": _shape}[job["group"]](job)
        except Exception as error:
            text = "no track can be named" if isinstance(error, TypeError) else f"fails: {error}"
        print(json.dumps(text), flush=True)


def _pitch(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.argmax(spectrum)) * RATE / len(wave)


def _time(job: dict[str, Any]) -> str:
    """The decoded length, the number of seconds at the right time, and the position of the loudest part."""
    from evacap_cli.media import find_window, read_audio, read_frames

    path, seconds = job["path"], range(job["seconds"])
    length = len(read_audio(path)) / RATE
    right = 0
    for second in seconds:
        wave = read_audio(path, second + 0.2, second + 0.8)
        right += len(wave) > RATE // 2 and abs((_pitch(wave) - LOWEST) / STEP - second) < 0.25
    said = find_window(path, 1e6, "start")[1]  # the length before decoding
    text = f"{said:.1f} s long, {length:.1f} s heard, {right} right, loudest at {find_window(path, 1.0)[0]:.1f} s"
    if job["picture"]:
        frames = read_frames(path, [second + 0.5 for second in seconds])
        shown = [(float(frame[8:-8, 8:-8].mean()) - DARK) / SLOPE for frame in frames]
        text += f", {sum(abs(s - second) < 0.35 for s, second in zip(shown, seconds, strict=True))} pictures right"
    return text


def _track(job: dict[str, Any]) -> str:
    from evacap_cli.media import read_audio

    wave = read_audio(job["path"], 0.5, 1.5, *([job["track"]] if job["track"] else []))
    return f"{round(_pitch(wave), -1):.0f} Hz" if np.abs(wave).max(initial=0) > 1e-3 else "silence"


def _level(job: dict[str, Any]) -> str:
    from evacap_cli.media import read_audio

    wave = read_audio(job["path"])[1600:-1600]
    level = 20 * np.log10(max(float(np.sqrt(np.mean(wave**2))), 1e-6) / job["level"])
    return f"{abs(level) if abs(level) < 0.05 else level:.1f} dB" if level > -60 else "silence"


def _shape(job: dict[str, Any]) -> str:
    from evacap_cli.media import read_frames

    height, width, _ = read_frames(job["path"], [0.25])[0].shape
    return f"{width} x {height}"


def kinds(folder: Path) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Makes a file of each kind. Yields its name, the right result, the test and the job for the readers."""
    from tests.media.clips import write
    from tests.media.kinds import CHOICES, FILMS, LOUDEST, SOUND, SOUNDS, with_tracks
    from tests.media.test_mixing import LAYOUTS
    from tests.media.test_mixing import RATE as rate
    from tests.media.test_shapes import SHAPES

    def place(name: str) -> Path:
        made = folder / name
        made.mkdir(parents=True)
        return made

    right = f"{SOUND}.0 s long, {SOUND}.0 s heard, {SOUND} right, loudest at {LOUDEST}.0 s"
    tests = (
        "test_time.py::test_audio_has_its_true_length",
        "test_time.py::test_audio_and_frames_stay_synchronous",
    )
    for recipes, more, test in ((SOUNDS, "", tests[0]), (FILMS, f", {SOUND} pictures right", tests[1])):
        for name, make in recipes.items():
            path = make(place(f"time-{name}"))
            job = {"group": "time", "path": str(path), "seconds": SOUND, "picture": bool(more)}
            yield name, right + more, f"{test}[{name}]", job
    for number, (name, (tracks, track, hertz)) in enumerate(CHOICES.items()):
        path = with_tracks(place(f"track-{number}") / "a.mkv", *tracks)
        job = {"group": "track", "path": str(path), "track": track}
        yield (
            f"tracks: {name}",
            f"{hertz:.0f} Hz",
            f"test_tracks.py::test_the_chosen_track[{name}]",
            job,
        )
    for number, (name, (layout, channels, level, _)) in enumerate(LAYOUTS.items()):
        path = write(
            place(f"level-{number}") / "a.flac", video=None, audio="flac", samples="s16", rate=rate, layout=layout,
            wave=np.stack(channels),
        )  # fmt: skip
        job = {"group": "level", "path": str(path), "level": float(level)}
        yield f"channels: {name}", "0.0 dB", f"test_mixing.py::test_layouts[{name}-flac-flac-s16-0.001]", job
    for number, (coded, pixel, shown) in enumerate(SHAPES):
        path = write(place(f"shape-{number}") / "a.mp4", 0.5, size=coded, pixel=pixel)
        name = f"{coded[0]} x {coded[1]}, pixels {pixel.numerator}:{pixel.denominator}"
        test = "test_shapes.py::test_pixels_that_are_not_square"
        yield name, f"{shown[0]} x {shown[1]}", test, {"group": "shape", "path": str(path)}


def ask(checkout: Path, jobs: list[dict[str, Any]]) -> list[str]:
    found = subprocess.run(
        [sys.executable, __file__, "--describe"], env=os.environ | {"PYTHONPATH": str(checkout)}, cwd=checkout,
        input="".join(json.dumps(job) + "\n" for job in jobs), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in found.stdout.splitlines()]


def commit(checkout: Path) -> str:
    found = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "an unknown commit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, required=True, help="checkout of another version")
    parser.add_argument("--out", type=Path, default=HERE / "benchmarks" / "results" / "media_kinds.md")
    options = parser.parse_args()

    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as temporary:
        made = list(kinds(Path(temporary)))
        jobs = [job for *_, job in made]
        before, after = ask(options.against, jobs), ask(HERE, jobs)
    lines = [
        "# Kinds of media file: what is heard and seen",
        "",
        f"{len(made)} crafted files, read on {date.today()} by {commit(options.against)} (before) and "
        f"{commit(HERE)} (after) with `python -m benchmarks.media_kinds --against DIR`. Tests are in `tests/media`.",
        "Of sounds: their length before anything is decoded, the seconds heard and how many of these are where they "
        "belong, and where the loudest is found. Encoders' "
        "padding counts: up to 0.1 s more is right.",
        "",
        "| file | right | before | after | test |",
        "|---|---|---|---|---|",
        *(
            "| " + " | ".join((name, right, then, now, f"`{test}`")) + " |"
            for (name, right, test, _), then, now in zip(made, before, after, strict=True)
        ),
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(
        f"{options.out}: {len(made)} files, {sum(b != a for b, a in zip(before, after, strict=True))} read otherwise"
    )


if __name__ == "__main__":
    describe() if sys.argv[1:] == ["--describe"] else main()
