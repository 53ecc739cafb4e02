"""What an interrupted writer leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STUCK = """
import signal, sys, threading
from pathlib import Path
from evacap_cli.atomic import written_whole
from evacap_cli.tasks.captioning import background_writer

background_writer.INTERRUPT_SECONDS = 0.2
begun = threading.Event()

def job():
    with written_whole(Path(sys.argv[1])) as aside:
        aside.write_text("half")
        begun.set()
        threading.Event().wait()

try:
    with background_writer.BackgroundWriter() as writer:
        writer.put(job)
        begun.wait(30)
        print(sorted(path.name for path in Path(sys.argv[1]).parent.iterdir()))
        INTERRUPT
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "interrupt",
    [
        "raise KeyboardInterrupt",
        "threading.Timer(0.5, signal.pthread_kill, [threading.get_ident(), signal.SIGINT]).start()",
    ],
    ids=["while results are made", "while the last jobs are written"],
)
def test_an_unfinished_job_leaves_no_temporary_file(interrupt: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", STUCK.replace("INTERRUPT\n", f"{interrupt}\n"), tmp_path / "a.png"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout.strip(), run.stderr) == (130, "['a.png.tmp']", "")
    assert not list(tmp_path.iterdir())
