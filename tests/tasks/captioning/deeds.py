"""Reading for real workers that does what its file's name says. Also `python -m tests.tasks.captioning.deeds ARGS`:
`evacap ARGS` that reads in this way."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from evacap_cli.tasks.captioning.inputs import clip_reader
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.clips import Clip, ClipSettings


def read(source: Source, settings: ClipSettings) -> Clip | Iterator[Clip]:
    """`kill`: ends its process. `hang`: never comes back. `eat`: takes memory without end. `raise`: raises. `slow`:
    takes a while. Everything else, and all of them in a careful reading, is read."""
    name = Path(source.name).name
    if name.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif name.startswith("hang"):
        time.sleep(10_000)
    elif name.startswith("eat"):
        held = []
        while True:
            held.append(b"\1" * 2**24)
            time.sleep(0.005)
    elif name.startswith("raise"):
        raise ZeroDivisionError("of\nits own")
    elif name.startswith("slow"):
        time.sleep(0.2)
    return clip_reader.read_source(source, settings)


if __name__ == "__main__":
    from evacap_cli.cli.app import app
    from evacap_cli.tasks.captioning import engine
    from tests.tasks.captioning import deeds  # not `__main__`, which workers do not have

    engine.read_source = engine.read_source_carefully = deeds.read  # type: ignore[assignment]
    app(sys.argv[1:])
