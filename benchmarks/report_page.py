"""Sizes, times and memory of large report pages with real pictures, in chromium:

    python -m benchmarks.report_page FOLDER [--rows 1000,10000] [--plain 100000] [--out FILE.md]

Each row of a table is one second of a file in `sample_data/videos`, at a start and under a name (a hard link) of its
own. `evacap report` decodes every row and writes the page, in a process of its own. Then chromium opens the page from
the disk, and the script measures

- the time until the list is ready, and until the pictures of the first window are there,
- the intervals between animation frames while the mouse wheel scrolls for 5 seconds,
- the time of a text filter.

`--plain`: rows of a table whose page has no pictures. Needs chromium and playwright. FOLDER gets about 200 MB.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evacap_cli.media import probe
from evacap_cli.tasks.reporting.pictures import OWN

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 1.0  # of a clip
SCROLL = 5.0  # seconds of scrolling
HEADER = ("video", "start", "end", "caption", "score", "gate", "mismatch", "heard", "seen", "status", "error")
HEAD = (
    "rows", "page", "report_files/", "writing", "peak memory", "list ready", "first pictures",
    "frames while scrolling: median / 95 % / longest", "frames over 50 ms", "text filter", "clips built", "pages",
)  # fmt: skip
LINE = "\n"
CAPTIONS = (
    "a dog barks",
    "rain falls on a roof",
    "a church bell rings",
    "a man speaks while an engine idles",
)
WINDOW = {"width": 1280, "height": 900}
VISIBLE = (
    "() => [...document.images].filter(i => i.getBoundingClientRect().top < innerHeight)"
    ".every(i => i.complete && i.naturalWidth)"
)
FRAMES = """
async (seconds) => {
  const times = [];
  const end = performance.now() + seconds * 1000;
  await new Promise((done) => {
    const next = (now) => { times.push(now); now < end ? requestAnimationFrame(next) : done(); };
    requestAnimationFrame(next);
  });
  return times.slice(1).map((time, i) => time - times[i]);
}
"""
FILTER = """
() => new Promise((done) => {
  const start = performance.now(), shown = document.getElementById("shown");
  const seen = () => done(performance.now() - start);
  new MutationObserver(seen).observe(shown, { childList: true, characterData: true, subtree: true });
  const text = document.getElementById("text");
  text.value = "church bell";
  text.form.dispatchEvent(new Event("submit", { cancelable: true }));
})
"""


@dataclass(frozen=True)
class Written:
    """A page as `evacap report` wrote it. Sizes in MB, times in seconds.

    files, count: of `report_files/`. alone: their size if no two rows shared a file. memory: peak of the process that
    writes the page, in MB.
    """

    rows: int
    page: float
    files: float
    count: int
    alone: float
    seconds: float
    memory: float


@dataclass(frozen=True)
class Opened:
    """A page in the browser; times in ms."""

    ready: float
    pictures: float
    frames: list[float]
    filtered: float
    built: int
    pages: str


def make_table(folder: Path, rows: int) -> Path:
    """A table of `rows` clips, and their files."""
    rng = random.Random(0)
    videos = sorted((ROOT / "sample_data" / "videos").glob("*.mp4"))
    lengths = {video: probe(str(video)).seconds or SECONDS for video in videos}
    media = folder / f"media-{rows}"
    media.mkdir(parents=True)
    copies = {video: folder / f"media-{rows}" / f"source-{video.name}" for video in videos}
    for video, copy in copies.items():
        shutil.copyfile(video, copy)
    table = folder / f"table-{rows}.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(HEADER)
        for number in range(rows):
            video = videos[number % len(videos)]
            name = media / f"clip-{number:06}.mp4"
            os.link(copies[video], name)
            start = number / rows * max(0.0, lengths[video] - SECONDS - 0.1)
            lines.writerow([
                name.relative_to(folder), f"{start:.3f}", f"{start + SECONDS:.3f}", CAPTIONS[number % len(CAPTIONS)],
                f"{-rng.random():.3f}", f"{rng.random():.3f}", f"{rng.random():.3f}",
                f"Dog {rng.random():.2f}; Rain {rng.random():.2f}", f"sheepdog {rng.random():.2f}", "ok", "",
            ])  # fmt: skip
    return table


def write(table: Path, rows: int, *more: str) -> Written:
    """Writes the page of a table in a process of its own."""
    page = table.with_suffix(".html")
    command = [sys.executable, "-m", "evacap_cli", "report", str(table), "-o", str(page), "--quiet", *more]
    started, memory = time.perf_counter(), 0
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while process.poll() is None:
        memory = max(memory, _peak(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"evacap report failed with exit code {process.returncode}")
    folder = page.with_name(f"{page.stem}_files")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()} if folder.is_dir() else {}
    with page.open(encoding="utf-8") as file:
        alone = sum(sizes[name] for line in file for name in OWN.findall(line) if name in sizes)
    size = page.stat().st_size
    return Written(
        rows, size / 1e6, sum(sizes.values()) / 1e6, len(sizes), alone / 1e6, seconds, memory / 1e6
    )


def _peak(pid: int) -> int:
    """Peak memory of a process so far, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def opened(browser: Any, path: Path) -> Opened:
    """Opens a page, scrolls and filters."""
    context = browser.new_context(viewport=WINDOW)
    page = context.new_page()
    page.set_default_timeout(120_000)
    started = time.perf_counter()
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-ready]", state="attached")
    ready = float(page.get_attribute("html", "data-ready"))
    page.wait_for_function(VISIBLE)
    pictures = (time.perf_counter() - started) * 1000
    page.evaluate("document.getElementById('clips').scrollIntoView()")
    page.mouse.move(600, 500)
    page.evaluate(f"seconds => {{ window.measured = ({FRAMES})(seconds); }}", SCROLL)
    end = time.perf_counter() + SCROLL
    while time.perf_counter() < end:
        page.mouse.wheel(0, 240)
        time.sleep(0.03)
    frames = page.evaluate("() => window.measured")
    built, pages = page.locator("article").count(), page.inner_text("#where")
    filtered = page.evaluate(FILTER)
    if page.locator("#pager").is_hidden():
        pages = "one page"
    context.close()
    return Opened(ready, pictures, frames, filtered, built, pages)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default="1000,10000")
    parser.add_argument("--plain", default="100000")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    made: list[tuple[Written, Path, bool]] = []
    for plain, counts in ((False, options.rows), (True, options.plain)):
        for rows in map(int, filter(None, counts.split(","))):
            table = make_table(options.folder, rows)
            written = write(table, rows, *(("--no-pictures",) if plain else ()))
            print(written, flush=True)
            made.append((written, table.with_suffix(".html"), plain))
    lines = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for written, path, plain in made:
            best = min((opened(browser, path) for _ in range(3)), key=lambda each: each.ready)
            lines.append(_line(written, best, plain))
            print(lines[-1], flush=True)
        version = browser.version
        browser.close()
    text = _report(lines, version)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def _line(written: Written, page: Opened, plain: bool) -> str:
    frames = sorted(page.frames)
    late = sum(frame > 50 for frame in frames) / len(frames)
    cells = [
        f"{written.rows:,}{', no pictures' if plain else ''}", f"{written.page:.1f} MB",
        f"{written.files:.1f} MB ({written.alone:.1f} unshared), {written.count:,} files" if written.count else "-",
        f"{written.seconds:.0f} s", f"{written.memory:.0f} MB",
        f"{page.ready:.0f} ms", f"{page.pictures:.0f} ms",
        f"{statistics.median(frames):.0f} / {frames[int(len(frames) * 0.95)]:.0f} / {frames[-1]:.0f} ms",
        f"{late:.1%}", f"{page.filtered:.0f} ms", str(page.built), page.pages,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _report(lines: list[str], version: str) -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"""# Large report pages

Measured on {time.strftime("%Y-%m-%d")} with `python -m benchmarks.report_page FOLDER`: {os.cpu_count()} CPU cores,
{platform.machine()}, load average {load}, chromium {version} (headless, no GPU), a window of 1280 x 900 pixels.

Each row is one second of a file in `sample_data/videos`, at a start and under a name of its own. Every row is decoded
and drawn. Picture files are named by their content, so rows with the same four frames share one; "unshared" is the
size if none did. Peak memory is that of the process that writes the page; PyTorch and other libraries take about
700 MB of it. Times in the browser are those of the fastest of three openings.

| {" | ".join(HEAD)} |
|{"---|" * len(HEAD)}
{LINE.join(lines)}
"""


if __name__ == "__main__":
    main()
