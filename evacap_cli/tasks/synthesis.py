"""Writes clips of the procedural world as video files, with captions and ground truth."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np

from evacap_cli.atomic import written_whole
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.world import SECONDS, ClipScript, RecordingBank, World, render_audio, render_frame

FPS = 10
WIDTH, HEIGHT = 320, 240
FORMAT = 1  # increase it when the same options give different clips
PART = ".part"  # suffix of files that are being written
OPTIONS_FILE = "synth.json"
Progress = Callable[[int, int], None]  # clips done, clips in all


@dataclass(frozen=True)
class SynthOptions:
    """The options that determine the content of clips. `kinds`: weights of matched, off-screen, dubbed, distractor."""

    seed: int = 1
    recordings: str | None = None
    folds: tuple[int, ...] = ()
    licenses: tuple[str, ...] = ()
    kinds: tuple[float, float, float, float] = (0.65, 0.12, 0.08, 0.15)

    def world(self) -> World:
        """Returns the world of these options. Raises UsageError for an unusable recordings folder."""
        matched, off_screen, dubbed, distractor = self.kinds
        return World(
            self.seed,
            self.recordings,
            self.folds or None,
            self.licenses or None,
            matched=matched,
            off_screen=off_screen,
            dubbed=dubbed,
            distractor=distractor,
        )


def identity(options: SynthOptions, world: World) -> dict[str, Any]:
    """Returns what two runs must share to give the same clips. Recordings are compared by name, not by folder."""
    digest = ""
    if world.recordings:
        names = "\n".join(f"{c}/{f}" for c, files in world.recordings.categories.items() for f in files)
        digest = hashlib.sha256(names.encode()).hexdigest()[:16]
    return {
        "format": FORMAT,
        "seed": options.seed,
        "kinds": list(options.kinds),
        "folds": list(options.folds),
        "licenses": list(options.licenses),
        "recordings": digest,
    }


def write_clip(script: ClipScript, path: Path, bank: RecordingBank | None = None) -> int:
    """Renders one clip to mp4 (H.264 yuv420p 320x240 at 10 fps, AAC mono 16 kHz), atomically. Returns its size."""
    wave = render_audio(script, bank)
    with (
        written_whole(path, sync=False, temporary=path.with_name(path.name + PART)) as aside,
        av.open(str(aside), "w", format="mp4", options={"movflags": "+faststart"}) as out,
    ):
        video = out.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        # one thread, cpu-independent: reproducible files; a key frame every 2 s: fast seeking
        video.options = {"crf": "21", "preset": "medium", "threads": "1", "g": str(2 * FPS)} | {
            "x264-params": "cpu-independent=1"
        }
        video.time_base = Fraction(1, FPS)
        audio = out.add_stream("aac", rate=16_000, layout="mono")
        audio.bit_rate = 64_000
        for i in range(round(SECONDS * FPS)):
            frame = av.VideoFrame.from_ndarray(render_frame(script, i / FPS, WIDTH, HEIGHT), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        step = 1024
        for start in range(0, len(wave), step):
            sound = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(wave[None, start : start + step]), "fltp", "mono"
            )
            sound.sample_rate, sound.pts, sound.time_base = 16_000, start, Fraction(1, 16_000)
            out.mux(audio.encode(sound))
        out.mux(audio.encode(None))
    return path.stat().st_size


# one world per worker process, made by the pool's initializer
_WORKER: dict[str, World] = {}


def _start_worker(options: SynthOptions) -> None:
    _WORKER["world"] = options.world()


def _work(i: int, path: str) -> int:
    world = _WORKER["world"]
    return write_clip(world.script(i), Path(path), world.recordings)


def _render_all(
    options: SynthOptions, world: World, todo: Sequence[tuple[int, Path]], workers: int
) -> Iterator[int]:
    """Yields the sizes of the clips as they are written, in any order."""
    if workers <= 1 or len(todo) < 2:
        for i, path in todo:
            yield write_clip(world.script(i), path, world.recordings)
        return
    try:
        # spawn: no inherited locks of FFmpeg's or torch's threads
        with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (options,)) as pool:
            waiting: set[Future[int]] = set()
            try:
                for i, path in todo:
                    waiting.add(pool.submit(_work, i, str(path)))
                    if len(waiting) >= 4 * workers:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        yield from (f.result() for f in done)
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (f.result() for f in done)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool as error:
        raise EvacapError(
            f"a worker process died while clips were written ({error})",
            "Run again with --workers 1; finished clips are kept.",
        ) from error


def _write_aside(path: Path, text: str) -> None:
    with written_whole(path, temporary=path.with_name(path.name + PART)) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def _check_folder(out: Path, wanted: dict[str, Any], overwrite: bool) -> bool:
    """Whether the clips in `out` can be kept. Raises EvacapError if they were made with other options."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"-o: {out} is a file", "Give a folder; it is created if it does not exist.")
    table = out / OPTIONS_FILE
    if overwrite:
        return False
    if table.is_file():
        try:
            found = json.loads(table.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        other = [
            f"{key}: {found.get(key)!r} there, {value!r} requested"
            for key, value in wanted.items()
            if found.get(key) != value
        ]
        if other:
            raise EvacapError(
                f"{out} has clips made with other options ({'; '.join(other)})",
                "Give another folder, or --overwrite to replace the clips.",
            )
        return True
    existing = [n for n in ("videos", "captions.csv", "manifest.jsonl") if (out / n).exists()]
    if existing:
        raise EvacapError(
            f"{out} already has {', '.join(existing)}, which `evacap synth` did not make (no {OPTIONS_FILE})",
            "Give another folder, or --overwrite to replace them.",
        )
    return False


def clip_name(i: int) -> str:
    """Returns the path of clip `i` relative to the output folder."""
    return f"videos/clip-{i:05d}.mp4"


def captions_table(scripts: Sequence[ClipScript], captions: int) -> str:
    """Returns the CSV table with columns video, caption_1 .. caption_N."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(["video", *(f"caption_{k + 1}" for k in range(captions))])
    for script in scripts:
        writer.writerow([clip_name(script.index), *script.captions[:captions]])
    return text.getvalue()


def manifest_lines(scripts: Sequence[ClipScript]) -> str:
    """Returns the ground truth of each clip, one JSON object per line, with sorted keys."""
    lines = (
        json.dumps({"video": clip_name(s.index), **s.to_dict()}, sort_keys=True, ensure_ascii=False)
        for s in scripts
    )
    return "".join(line + "\n" for line in lines)


def synthesize(
    out: str | Path,
    clips: int,
    seed: int = 1,
    *,
    captions: int = 5,
    recordings: str | Path | None = None,
    folds: Sequence[int] = (),
    licenses: Sequence[str] = (),
    kinds: Sequence[float] = (0.65, 0.12, 0.08, 0.15),
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes `clips` clips of world `seed` to `out`: videos/clip-00000.mp4 .., captions.csv, manifest.jsonl.

    Existing clips are kept if all options are the same. `captions`: 1 to 5 columns. `progress` is called with
    (done, total) after each clip. Returns a summary: out, clips, written, kept, bytes, kinds, sounds, objects.
    Raises UsageError for invalid arguments and EvacapError for a folder with other clips.
    """
    problems = []
    if clips < 1:
        problems.append(f"--clips: {clips} is not at least 1")
    if not 1 <= captions <= 5:
        problems.append(f"--captions: {captions} is not between 1 and 5")
    if workers < 1:
        problems.append(f"--workers: {workers} is not at least 1")
    if len(kinds) != 4:
        problems.append(f"kinds: {list(kinds)} are not 4 weights (matched, off-screen, dubbed, distractor)")
    if (folds or licenses) and recordings is None:
        problems.append("--folds and --licenses need --recordings")
    if problems:
        raise UsageError("; ".join(problems), "See `evacap synth --help`.")

    out = Path(out)
    options = SynthOptions(
        int(seed),
        None if recordings is None else str(recordings),
        tuple(int(f) for f in folds),
        tuple(licenses),
        (float(kinds[0]), float(kinds[1]), float(kinds[2]), float(kinds[3])),
    )
    world = options.world()
    wanted = identity(options, world)
    keep = _check_folder(out, wanted, overwrite)
    try:
        (out / "videos").mkdir(parents=True, exist_ok=True)
        if not keep:
            for old in (out / "videos").iterdir():
                if re.fullmatch(r"clip-\d{5,}\.mp4(\.part)?", old.name):
                    old.unlink()
            for name in ("captions.csv", "manifest.jsonl"):
                (out / name).unlink(missing_ok=True)
        _write_aside(out / OPTIONS_FILE, json.dumps(wanted, sort_keys=True, indent=1) + "\n")
        scripts = [world.script(i) for i in range(clips)]
        paths = [out / clip_name(i) for i in range(clips)]
        todo = [(i, p) for i, p in enumerate(paths) if not p.exists()]
        done = clips - len(todo)
        if progress:
            progress(done, clips)
        for _ in _render_all(options, world, todo, workers):
            done += 1
            if progress:
                progress(done, clips)
        _write_aside(out / "captions.csv", captions_table(scripts, captions))
        _write_aside(out / "manifest.jsonl", manifest_lines(scripts))
        size = sum(p.stat().st_size for p in paths)
    except OSError as error:
        raise EvacapError(
            f"cannot write to {out}: {error.strerror or error}",
            "Check the folder, its permissions and the free space.",
        ) from error
    return {
        "out": str(out),
        "clips": clips,
        "written": len(todo),
        "kept": clips - len(todo),
        "bytes": size,
        "kinds": dict(sorted(Counter(s.kind for s in scripts).items())),
        "sounds": len(world.sound_classes),
        "objects": len(world.object_classes),
    }
