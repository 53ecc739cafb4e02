"""Creates the built-in benchmark of `evacap robustness` and the clips of `sample_data`.

    python -m benchmarks.real.samples W

W is the work folder of `benchmarks.real.recordings`. Three manually created tables in `data/` define the clips:

- `sample_pairs.csv`: key, sound, photo, crop, caption_1, caption_2, labels, kind. Paths are relative to W. Sounds
  joined by " + " follow each other; sounds joined by " | " are mixed. `crop` is left,top,right,bottom as shares of the
  photo.
- `sample_clips.csv`: name, sound, photo, motion, caption_1, caption_2. `motion` is zoom, pan, black or none.
- `sample_credits.csv`: file, package, author, licence, page; read from each package's copyright file.

The command writes `evacap_cli/assets/sample/` (pairs.csv, media, NOTICE) and `sample_data/` (videos, captions.csv,
ATTRIBUTION.md). Of recordings longer than SECONDS, only the loudest part is used.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import matplotlib
import numpy as np
from PIL import Image

from benchmarks.real import archives
from benchmarks.real.recordings import read_table
from evacap_cli.media import SAMPLE_RATE, find_window, probe, read_audio

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mate-backgrounds", "lomiri-wallpapers-16.04")  # their photographs were not used for training
SECONDS = 5.0  # longest recording
PAUSE = 0.4  # seconds between recordings that follow each other
FAINT = -62.0  # level of clips without a sound in dBFS
LOUDNESS, PEAK = 0.1, 0.9  # RMS and maximum sample of a recording (full scale is 1)
SECOND_SOUND = 0.7  # gain of the second of two mixed recordings
SHORT_SIDE = 256  # pixels of a photograph
QUALITY = 80  # of JPEG
OPUS_RATE, AAC_RATE = 32_000, 64_000  # bits per second
SIZE, FPS = (320, 240), 12  # of a video
CLIP_SECONDS = 3.0  # shortest video
KEPT_CLIPS = ("clip-00000", "clip-00003")  # drawn clips of `evacap synth` that stay in sample_data


@dataclass(frozen=True)
class Credit:
    """The author and licence of a file."""

    file: str
    package: str
    author: str
    licence: str
    page: str

    @property
    def line(self) -> str:
        page = f", {self.page}" if self.page else ""
        return f"{Path(self.file).name} of {self.package}, by {self.author}, {self.licence}{page}"


def files_of(field: str) -> list[str]:
    """The files in a `sound` or `photo` field."""
    return [name for part in field.split(" | ") for name in part.split(" + ") if name]


def locate(name: str, work: Path) -> Path:
    """The path of a file in the tables: in the work folder, or one of matplotlib's sample pictures."""
    if name.startswith("matplotlib:"):
        return Path(matplotlib.get_data_path()) / "sample_data" / name.removeprefix("matplotlib:")
    return work / name


def read_sound(path: Path) -> np.ndarray:
    """The loudest SECONDS of a file with normalised loudness and short fades: float32 (samples,) at 16 kHz."""
    start, end = find_window(path, SECONDS, "loudest") if probe(path).seconds > SECONDS else (0.0, SECONDS)
    wave = read_audio(path, start, end)
    wave = wave - wave.mean()
    wave *= min(LOUDNESS / np.sqrt(np.mean(wave**2)), PEAK / np.abs(wave).max())
    ramp = np.linspace(0, 1, SAMPLE_RATE // 100, dtype=np.float32)[: len(wave) // 2]
    wave[: len(ramp)] *= ramp
    wave[len(wave) - len(ramp) :] *= ramp[::-1]
    return wave.astype(np.float32)


def render_sound(field: str, work: Path) -> np.ndarray:
    """Concatenates recordings, or mixes two and repeats the shorter one: float32 (samples,) at 16 kHz."""
    if " | " in field:
        first, second = (read_sound(locate(name, work)) for name in files_of(field))
        length = max(len(first), len(second))
        mixed = np.resize(first, length) + SECOND_SOUND * np.resize(second, length)
        return (mixed * min(1.0, PEAK / np.abs(mixed).max())).astype(np.float32)
    pause = np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
    parts = [part for name in files_of(field) for part in (read_sound(locate(name, work)), pause)]
    return np.concatenate(parts[:-1])


def faint_noise() -> np.ndarray:
    """Microphone noise without a sound: float32 (samples,) at 16 kHz."""
    samples = round(CLIP_SECONDS * SAMPLE_RATE)
    return (10 ** (FAINT / 20) * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


def read_photo(path: Path, crop: str = "") -> Image.Image:
    """Reads a photograph as RGB on a white background, cropped to the shares left,top,right,bottom."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    image = page.convert("RGB")
    if crop:
        left, top, right, bottom = (float(part) for part in crop.split(","))
        image = image.crop(
            (
                round(left * image.width),
                round(top * image.height),
                round(right * image.width),
                round(bottom * image.height),
            )
        )
    return image


def write_photo(image: Image.Image, path: Path) -> None:
    """Writes a JPEG with a short side of SHORT_SIDE pixels, or less if the photograph is smaller."""
    scale = min(1.0, SHORT_SIDE / min(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.LANCZOS).save(path, quality=QUALITY, optimize=True)


def audio_frames(wave: np.ndarray) -> Iterator[av.AudioFrame]:
    """Yields a waveform (samples,) as 16-bit mono frames."""
    samples = (wave * 32767).round().astype(np.int16)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        yield frame


def write_sound(wave: np.ndarray, path: Path) -> None:
    """Writes Ogg Opus, with the same bytes on every run."""
    with av.open(str(path), "w", format="ogg", container_options={"fflags": "+bitexact"}) as made:
        stream = made.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = OPUS_RATE
        for frame in (*audio_frames(wave), None):
            made.mux(stream.encode(frame))


def picture_at(image: Image.Image | None, motion: str, share: float) -> np.ndarray:
    """The frame (H, W, 3) uint8 of a clip at a share (0 to 1) of its length; black without a photograph."""
    width, height = SIZE
    if image is None:
        return np.zeros((height, width, 3), np.uint8)
    zoom = 1.15 if motion == "pan" else 1.0 + 0.15 * share
    wide = min(image.width, image.height * width / height) / zoom
    high = wide * height / width
    left = (image.width - wide) * (share if motion == "pan" else 0.5)
    top = (image.height - high) / 2
    left, top = max(0.0, left), max(0.0, top)
    box = (left, top, min(image.width, left + wide), min(image.height, top + high))
    return np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC, box=box))


def write_video(wave: np.ndarray, image: Image.Image | None, motion: str, path: Path) -> None:
    """Writes an MP4 with H.264 video of a slow camera movement over a photograph, and AAC audio."""
    with av.open(str(path), "w", options={"fflags": "+bitexact", "movflags": "+faststart"}) as made:
        shown = made.add_stream("libx264", rate=FPS, options={"crf": "26", "preset": "slow", "threads": "1"})
        shown.width, shown.height, shown.pix_fmt = *SIZE, "yuv420p"
        heard = made.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        heard.bit_rate = AAC_RATE
        count = round(len(wave) / SAMPLE_RATE * FPS)
        for index in range(count):
            picture = picture_at(image, motion, index / max(1, count - 1))
            made.mux(shown.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        made.mux(shown.encode(None))
        for frame in (*audio_frames(wave), None):
            made.mux(heard.encode(frame))


def empty(folder: Path, keep: Iterable[str] = ()) -> None:
    """Creates an empty folder, or deletes all its files except those whose stem is in `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.stem not in keep:
            path.unlink()


def write_rows(path: Path, header: list[str], rows: Iterable[Iterable[str]]) -> None:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def make_pairs(work: Path, folder: Path, credits: dict[str, Credit]) -> None:
    """Writes the built-in benchmark: pairs.csv, one Opus and one JPEG file per pair, and NOTICE."""
    empty(folder)
    rows, notice = [], [PAIRS_NOTICE]
    for pair in read_table("sample_pairs.csv"):
        sound, photo = f"{pair['key']}.ogg", f"{pair['key']}.jpg"
        write_sound(render_sound(pair["sound"], work), folder / sound)
        write_photo(read_photo(locate(pair["photo"], work), pair["crop"]), folder / photo)
        texts = [pair[name] for name in ("caption_1", "caption_2", "labels", "kind")]
        rows.append([pair["key"], sound, photo, *texts])
        notice += [f"{sound}: {'; '.join(credits[name].line for name in files_of(pair['sound']))}"]
        notice += [f"{photo}: {credits[pair['photo']].line}"]
    header = ["key", "sound", "photo", "caption_1", "caption_2", "labels", "kind"]
    write_rows(folder / "pairs.csv", header, rows)
    (folder / "NOTICE").write_text("\n".join(notice) + "\n", encoding="utf-8")


def make_clips(work: Path, folder: Path, credits: dict[str, Credit]) -> None:
    """Writes `sample_data`: videos, captions.csv and ATTRIBUTION.md."""
    old = folder / "captions.csv"
    with old.open(encoding="utf-8", newline="") as opened:
        kept = [row[:3] for row in csv.reader(opened) if Path(row[0]).stem in KEPT_CLIPS]
    videos = folder / "videos"
    empty(videos, KEPT_CLIPS)
    rows, table = [], [CLIPS_NOTICE]
    for clip in read_table("sample_clips.csv"):
        wave = render_sound(clip["sound"], work) if clip["sound"] else faint_noise()
        wave = np.pad(wave, (0, max(0, round(CLIP_SECONDS * SAMPLE_RATE) - len(wave))))
        image = read_photo(locate(clip["photo"], work)) if clip["photo"] else None
        name = f"{clip['name']}.{'ogg' if clip['motion'] == 'none' else 'mp4'}"
        if clip["motion"] == "none":
            write_sound(wave, videos / name)
        else:
            write_video(wave, image, clip["motion"], videos / name)
        if clip["caption_1"]:
            rows.append([f"videos/{name}", clip["caption_1"], clip["caption_2"]])
        heard = "; ".join(credits[file].line for file in files_of(clip["sound"])) or "faint noise, computed"
        seen = (
            credits[clip["photo"]].line
            if clip["photo"]
            else {"black": "black", "none": "none"}[clip["motion"]]
        )
        table.append(f"| {name} | {heard} | {seen} |")
    table += [f"| {name}.mp4 | synthetic (`evacap synth`) | drawn (`evacap synth`) |" for name in KEPT_CLIPS]
    write_rows(old, ["video", "caption_1", "caption_2"], [*rows, *kept])
    (folder / "ATTRIBUTION.md").write_text("\n".join(table) + "\n", encoding="utf-8")


PAIRS_NOTICE = """\
Sounds and photographs of the built-in benchmark (`evacap robustness` without --data).
Each file was cut, levelled or scaled, and re-encoded by benchmarks/real/samples.py; it stays under the licence of
its original, which is named below. Where a file is a mixture, all licences hold. Packages are Debian's, except
scikit-image and matplotlib. Licence texts: CC BY-SA, CC BY and CC0 at creativecommons.org/licenses; GPL and LGPL at
gnu.org/licenses; Licence Art Libre at artlibre.org. None of these files is linked into the program.
"""
CLIPS_NOTICE = """\
# Where the sample clips come from

Each clip was made by `benchmarks/real/samples.py` from a recording and a photograph, which were cut, levelled, scaled
and re-encoded. It stays under the licences of both. Packages are Debian's, except scikit-image and matplotlib.

| file | sound | picture |
| --- | --- | --- |"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="work folder of benchmarks.real.recordings")
    work: Path = parser.parse_args().work.resolve()
    for name in PACKAGES:
        archives.unpack_package(archives.download_package(name, work / "debs"), work / "x")
    credits = {row["file"]: Credit(**row) for row in read_table("sample_credits.csv")}
    for folder, make in ((ROOT / "evacap_cli/assets/sample", make_pairs), (ROOT / "sample_data", make_clips)):
        make(work, folder, credits)
        files = [path for path in folder.rglob("*") if path.is_file()]
        print(f"{folder.name}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
