"""Processes that are killed while they write a store. Prints what happened as JSON.

python -m tests.data.kills FOLDER steps EVERY   before the first step of the disk, and each EVERY-th after it, in
                                                stores FOLDER/step-*
python -m tests.data.kills FOLDER times SEED TIMES COMMAND...
                                                at random times before and between the shards of one store that
                                                COMMAND writes
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .toys import toys, write

STEPS = ("replace", "fsync")  # of `os`; with Path.unlink, by which a store comes to be whole


def forked(call: Callable[[], object], kill: Callable[[], bool] | None = None) -> int:
    """Runs `call` in a process of its own, killed as soon as `kill` is true; its status as of `os.wait`."""
    child = os.fork()
    if not child:
        code = 70
        try:
            call()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 71
        finally:
            os._exit(code)
    while kill is not None:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if kill():
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.001)
    return os.waitpid(child, 0)[1]


def killed_before(step: int, call: Callable[[], object]) -> None:
    """Runs `call` until it is about to do its `step`-th step, counted from 0."""
    left = step

    def counted(act: Callable[..., object]) -> Callable[..., object]:
        def counts(*args: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*args, **named)

        return counts

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign, assignment]
    call()


def at_steps(folder: Path, every: int) -> dict[str, object]:
    """The steps of a first run, of one that adds clips and finds a shard missing, and of one that overwrites."""

    def run(place: Path) -> None:
        write(place, toys(4), shard_clips=3)

    def overwrite(place: Path) -> None:
        write(place, toys(4), shard_clips=3, overwrite=True)

    write(
        folder / "first", toys(1)
    )  # what is slow the first time, here, or every process would need its time for it
    counts = []
    for name, call in (("first", run), ("added", run), ("overwrite", overwrite)):
        for step in range(0, 1000, every):
            place = folder / f"step-{name}-{step}"
            if name != "first":
                write(place, toys(2), shard_clips=3)
            if name == "added":
                (place / "shard-000000.tar").unlink()
            if (
                forked(lambda step=step, call=call, place=place: killed_before(step, lambda: call(place)))
                == 0
            ):
                counts.append(step // every + 1)
                break
    return {"steps": counts}


def at_times(folder: Path, seed: int, times: int, args: list[str]) -> dict[str, object]:
    """The command, killed `times` times; where it was too quick, again. How many shards there were each time."""
    from evacap_cli.cli.app import app

    def command(out: Path, kill: Callable[[], bool] | None = None) -> int:
        return forked(lambda: app([*args, "-o", str(out), "--quiet"]), kill)

    with suppress(
        SystemExit
    ):  # what is slow the first time, here, or every process would need its time for it
        app([*args, "-o", str(folder / "undisturbed"), "--quiet"])
    once = command(folder / "once")
    made = sorted(file.stat().st_mtime for file in (folder / "once").glob("shard-*.tar"))
    between = (made[-1] - made[0]) / (len(made) - 1)  # seconds
    rng, out, kills, shards = random.Random(seed), folder / "killed", 0, [0]

    def count() -> int:
        return len(list(out.glob("shard-*.tar")))

    while kills < times:
        wanted = min(
            shards[-1] + rng.randrange(2), len(made)
        )  # a process that finds all ends without another one
        delay, reached = rng.random() * between, float("inf")

        def kill(wanted: int = wanted, delay: float = delay) -> bool:
            nonlocal reached
            if count() >= wanted:
                reached = min(reached, time.monotonic())
            return time.monotonic() - reached >= delay

        kills += command(out, kill) == signal.SIGKILL
        shards.append(count())
    return {"once": once, "last": command(out), "shards": shards[1:], "kills": kills}


def main() -> None:
    folder, what, *rest = sys.argv[1:]
    if what == "steps":
        print(json.dumps(at_steps(Path(folder), int(rest[0]))))
    else:
        print(json.dumps(at_times(Path(folder), int(rest[0]), int(rest[1]), rest[2:])))


if __name__ == "__main__":
    main()
