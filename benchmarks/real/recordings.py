"""Collects real recordings and photographs from Debian packages and data sets, with labels and licences.

    python -m benchmarks.real.recordings W [--esc10 FOLDER] [--videos FOLDER] [--wheels FOLDER]

The command downloads missing packages of `data/sources.yaml` to W/debs, unpacks them, renders instruments and speech,
and writes three tables:

- W/recordings.csv: path, source, role, labels, licence, author;
- W/photographs.csv: path, source, role, labels, classes (ImageNet indices), licence, author;
- W/real_pairs.csv: sound_path, photo_path, label, for sounds and photographs of the same thing outside the exam.

Labels are AudioSet display names joined by ';', most specific first. They come from the manually created tables
`data/recording_labels.csv` and `data/photograph_labels.csv`, which map file-name patterns of a source to labels. A
recording that matches no pattern has no labels. A second run does only the missing steps.

Roles: `exam` and `exam-esc10` are never used for training; `check` is used to choose settings; `train` is the rest.
Every fifth recording of a training source, by a hash of its name, is a `check` recording.
"""

import argparse
import csv
import fnmatch
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from benchmarks.real import archives, rendering

DATA = Path(__file__).parent / "data"
RULE_LIMIT = 40  # recordings per pattern, unless the table gives a limit
SOURCE_LIMIT = 120  # recordings per source without a matching pattern, unless the source gives a limit
SMALLEST_FILE = 1500  # bytes; smaller files have no sound
# General labels: a sound and a photograph that share only these are not a pair.
GENERAL_LABELS = {
    "Animal",
    "Wild animals",
    "Domestic animals, pets",
    "Music",
    "Musical instrument",
    "Percussion",
    "Plucked string instrument",
    "Water",
    "Tools",
    "Vehicle",
    "Engine",
    "Aircraft",
}
ESC10_LABELS = {
    "baby_cry": "Baby cry, infant cry;Crying, sobbing",
    "chainsaw": "Chainsaw;Power tool",
    "clock_tick": "Tick-tock;Tick;Clock",
    "dog_bark": "Bark;Dog",
    "fire_crackling": "Crackle;Fire",
    "helicopter": "Helicopter;Aircraft",
    "person_sneeze": "Sneeze",
    "rain": "Rain;Water",
    "rooster": "Crowing, cock-a-doodle-doo;Chicken, rooster",
    "sea_waves": "Waves, surf;Ocean;Water",
}
VIDEO_LABELS = {
    "baby cry": "Baby cry, infant cry;Crying, sobbing",
    "cough": "Cough",
    "dog": "Bark;Dog",
    "drum": "Drum kit;Drum;Music",
    "fireworks": "Fireworks;Explosion",
    "gun": "Gunshot, gunfire",
    "hammer": "Hammer;Tools",
    "engine": "Engine;Idling;Car",
    "bird": "Bird vocalization, bird call, bird song;Chirp, tweet;Bird",
    "double bass": "Double bass;Musical instrument;Music",
    "laugh": "Baby laughter;Laughter",
    "paper tearing": "Tearing;Crumpling, crinkling",
    "harp": "Harp;Musical instrument;Music",
    "waterfall": "Waterfall;Water",
    "cheering": "Cheering;Crowd",
    "bongo": "Drum;Percussion;Music",
}


@dataclass(frozen=True)
class Recording:
    """One row of recordings.csv."""

    path: str
    source: str
    role: str
    labels: str
    licence: str
    author: str


@dataclass(frozen=True)
class Photograph:
    """One row of photographs.csv. `classes` are ImageNet indices joined by ';'."""

    path: str
    source: str
    role: str
    labels: str
    classes: str
    licence: str
    author: str


@dataclass(frozen=True)
class Pair:
    """One row of real_pairs.csv: a sound and a photograph of the same thing, and their common label."""

    sound_path: str
    photo_path: str
    label: str


@dataclass(frozen=True)
class Rule:
    """Files of a source whose path matches `pattern` have `labels`; "-" excludes them."""

    pattern: str
    labels: str
    limit: int


@dataclass(frozen=True)
class Source:
    """A package with sounds, see the start of `data/sources.yaml`."""

    name: str
    package: str
    licence: str
    author: str
    folder: str = ""
    container: str = ""
    role: str = "train"
    limit: int = SOURCE_LIMIT


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file in the data folder."""
    with (DATA / name).open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def read_rules() -> dict[str, list[Rule]]:
    """{source: its label rules, in order}."""
    rules: dict[str, list[Rule]] = {}
    for row in read_table("recording_labels.csv"):
        limit = int(row["limit"] or RULE_LIMIT)
        rules.setdefault(row["source"], []).append(Rule(row["pattern"].lower(), row["labels"], limit))
    return rules


def hashed(text: str) -> int:
    """A hash of `text` that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def role_of(source: Source, name: str) -> str:
    """`check` for every fifth recording of a training source, otherwise the role of the source."""
    if source.role == "train" and hashed(f"{source.name}/{name}") % 5 == 0:
        return "check"
    return source.role


def media_files(root: Path, smallest: int) -> list[tuple[str, Path]]:
    """Sound files below `root` of at least `smallest` bytes: (path below root, file), in order of the path's hash."""
    found = []
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            wanted = path.suffix.lower() in archives.MEDIA_SUFFIXES and not path.is_symlink()
            if wanted and path.stat().st_size >= smallest:
                found.append((path.relative_to(root).as_posix(), path))
    return sorted(found, key=lambda item: hashed(item[0]))


def unpack(source: Source, work: Path) -> Path:
    """Unpacks the package of a source and the container inside it. Returns the folder with its sounds."""
    package = archives.unpack_package(archives.download_package(source.package, work / "debs"), work / "x")
    root = package / source.folder
    if source.container == "qt":
        root = work / "x" / "gcompris-resources"
        archives.unpack_qt_resources(package, root, archives.MEDIA_SUFFIXES | archives.PICTURE_SUFFIXES)
    elif source.container == "cat":
        root = work / "x" / "opensfx-sounds"
        archives.unpack_sound_archive(next(package.rglob("*.cat")), root)
    elif source.container.startswith("zip:"):
        archive = package / source.container.removeprefix("zip:")
        root = archives.unpack_zip(archive, work / "x" / "zipped" / source.name, archives.MEDIA_SUFFIXES)
    return root


def choose(source: Source, root: Path, rules: list[Rule]) -> Iterator[Recording]:
    """The recordings of one source, labelled ones first: up to `limit` per rule, and up to the source's `limit`."""
    taken: Counter[str] = Counter()
    labelled: list[Recording] = []
    others: list[Recording] = []
    seen: set[bytes] = set()
    everything = source.role == "exam"
    for name, path in media_files(root, 0 if everything else SMALLEST_FILE):
        digest = hashlib.sha256(path.read_bytes()).digest()
        rule = next((rule for rule in rules if fnmatch.fnmatchcase(name.lower(), rule.pattern)), None)
        if (digest in seen and not everything) or (rule and rule.labels == "-"):
            continue
        seen.add(digest)
        key = rule.pattern if rule else ""
        taken[key] += 1
        if rule and taken[key] > rule.limit and not everything:
            continue
        labels = rule.labels if rule else ""
        row = Recording(str(path), source.name, role_of(source, name), labels, source.licence, source.author)
        (labelled if labels else others).append(row)
    rows = labelled + others
    yield from rows if everything else rows[: source.limit]


def rendered(work: Path, role: Source) -> Iterator[Recording]:
    """Instruments of the sound font and synthesised speech."""
    font = archives.unpack_package(archives.download_package("fluid-soundfont-gm", work / "debs"), work / "x")
    programs = {int(row["program"]): row["labels"] for row in read_table("general_midi.csv")}
    sound_font = next(font.rglob("*.sf2"))
    sounds = rendering.render_instruments(sound_font, programs, work / "rendered" / "instruments")
    for path, labels in sounds.items():
        name = "fluid-soundfont"
        yield Recording(
            str(path), name, role_of(role, path.name), labels, "MIT (Fluid sound font)", "Frank Wen"
        )
    for path, labels in rendering.render_speech(work / "rendered" / "speech").items():
        licence = "synthesised by eSpeak NG (GPL-3+ program; its output carries no licence)"
        yield Recording(str(path), "espeak-ng", role_of(role, path.name), labels, licence, "eSpeak NG")


def esc10(folder: Path) -> Iterator[Recording]:
    """ESC-10: folds 1 to 3 for training, fold 4 as an exam."""
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            role = "train" if int(row["fold"]) <= 3 else "exam-esc10"
            labels = ESC10_LABELS[row["category"]]
            yield Recording(
                str(folder / "audio" / row["file"]), "esc10", role, labels, row["license"], row["author"]
            )


def videos(folder: Path) -> Iterator[Recording]:
    """Real videos with their own sound, used to choose settings."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            labels = VIDEO_LABELS[row["what_sounds"]]
            yield Recording(str(folder / row["video"]), "real-videos", "check", labels, "local use only", "")


def photographs(work: Path, wheels: Path) -> Iterator[Photograph]:
    """The photographs of `data/photograph_labels.csv`, by the first matching pattern; `skip` excludes one."""
    for wheel in sorted(wheels.glob("scikit_*.whl")):
        archives.unpack_zip(wheel, work / "photos", archives.PICTURE_SUFFIXES)
    roots = {"gcompris": work / "x" / "gcompris-resources", "scikit-image": work / "photos"}
    roots["scikit-learn"] = roots["scikit-image"]
    seen = set()
    for row in read_table("photograph_labels.csv"):
        root = roots.get(row["source"])
        if root is None:
            package = archives.download_package(row["source"], work / "debs")
            root = archives.unpack_package(package, work / "x") / "usr/share"
        for path in sorted(root.glob(row["pattern"])):
            if path.is_file() and not path.is_symlink() and path not in seen:
                seen.add(path)
                if row["role"] == "skip":
                    continue
                role = row["role"] or (
                    "check" if hashed(path.relative_to(root).as_posix()) % 5 == 0 else "train"
                )
                yield Photograph(
                    str(path),
                    row["source"],
                    role,
                    row["labels"],
                    row["classes"],
                    row["licence"],
                    row["author"],
                )


def pairs(rows: list[Recording], pictures: list[Photograph]) -> Iterator[Pair]:
    """All pairs of a sound and a photograph that share a label that is not general. Excludes exam items."""
    sounds = [row for row in rows if row.role in ("train", "check")]
    for picture in pictures:
        named = [label for label in picture.labels.split(";") if label and label not in GENERAL_LABELS]
        if picture.role not in ("train", "check"):
            continue
        for sound in sounds:
            heard = sound.labels.split(";")
            shared = next((label for label in named if label in heard), None)
            if shared:
                yield Pair(sound.path, picture.path, shared)


def write_rows(rows: Sequence[Recording | Photograph | Pair], kind: type, path: Path) -> None:
    """Writes dataclass rows as a CSV file atomically."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, [field.name for field in fields(kind)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    partial.replace(path)


def main() -> None:
    """Collects everything and prints the number of recordings by source and role."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="work folder")
    parser.add_argument("--esc10", type=Path, help="folder of ESC-10 with metadata.csv and audio/")
    parser.add_argument("--videos", type=Path, help="folder of real videos with labels.csv")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of scikit-image and scikit-learn")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    sources = [
        Source(**entry)
        for entry in yaml.safe_load((DATA / "sources.yaml").read_text(encoding="utf-8"))["sources"]
    ]
    rules = read_rules()
    rows: list[Recording] = []
    if arguments.esc10:
        rows += esc10(arguments.esc10.resolve())
    if arguments.videos:
        rows += videos(arguments.videos.resolve())
    rows += rendered(work, Source("rendered", "", "", ""))
    for source in sources:
        rows += choose(source, unpack(source, work), rules.get(source.name, []))
    write_rows(rows, Recording, work / "recordings.csv")
    pictures = list(photographs(work, (arguments.wheels or work / "wheels").resolve()))
    write_rows(pictures, Photograph, work / "photographs.csv")
    write_rows(list(pairs(rows, pictures)), Pair, work / "real_pairs.csv")
    for (name, role), count in sorted(Counter((row.source, row.role) for row in rows).items()):
        print(f"{name},{role},{count}")
    print(
        f"recordings: {len(rows)}; with labels: {sum(bool(row.labels) for row in rows)}; photographs: {len(pictures)}"
    )


if __name__ == "__main__":
    main()
