"""What captions rest on: numbers of tag towers to tags, tags to text, and tags of real files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evacap_cli.errors import UsageError
from evacap_cli.features import FeatureSettings, normalize_frames
from evacap_cli.model import Checkpoint, Generation
from evacap_cli.model.lexicon import audioset_classes, imagenet_classes
from evacap_cli.tasks.captioning.engine import Captioner
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.rows import Row
from evacap_cli.tasks.captioning.outputs.tags import (
    Tag,
    check_tags,
    from_lists,
    heard_tags,
    join_tags,
    seen_tags,
    tags_json,
    tags_text,
    to_lists,
)
from evacap_cli.tasks.clips import ClipSettings, load_clip
from tests.media.clips import write
from tests.tasks.captioning.tagged import save_tagged, stripes

NAMES = tuple(f"class {i}" for i in range(20))
WINDOW = 2.016
DOG = Tag("Dog", 0.9123, ((0.0, 4.03), (6.05, 8.06)))


def numbers(*rows: tuple[float, ...]) -> np.ndarray:
    """Rows of (class, confidence, confidence in each window) as the model has them."""
    values = np.array(rows, np.float64)
    values[:, 1:] = np.log(values[:, 1:] / (1 - values[:, 1:]))
    return values.astype(np.float32)


# -- sounds --------------------------------------------------------------------------------------------------------


def test_heard_tags_have_times() -> None:
    heard = numbers((3, 0.91, 0.9, 0.5, 0.1, 0.44, 0.46), (0, 0.5, 0.01, 0.01, 0.01, 0.01, 0.8))
    assert heard_tags(heard, NAMES, 0.0, 10.0, WINDOW) == (
        Tag("class 3", 0.91, ((0.0, 4.03), (8.06, 10.0))),
        Tag("class 0", 0.5, ((8.06, 10.0),)),
    )


@pytest.mark.parametrize("seconds", [0.03, 1.0, 2.016, 2.0165, 4.5, 9.99, 10.0])
def test_times_equal_those_of_a_reference_search(seconds: float) -> None:
    """Windows after the end of a clip repeat it: they have no times, and none is the best of them."""
    generator = np.random.default_rng(int(seconds * 1000))
    start = 30.7
    given = numbers(
        *((i, 0.9 - i / 100, *generator.uniform(0.01, 0.99, 5)) for i in generator.permutation(20))
    )
    for tag in heard_tags(given, NAMES, start, start + seconds, WINDOW):
        row = next(row for row in given if NAMES[int(row[0])] == tag.name)
        inside = 1 / (1 + np.exp(-row[2 : 2 + max(1, int(np.ceil((seconds - 0.01) / WINDOW)))]))
        for t in np.arange(0.005, seconds, 0.05):
            window = min(int(t / WINDOW), len(inside) - 1)
            if abs(t / WINDOW - round(t / WINDOW)) < 0.01:
                continue  # times are rounded
            wanted = inside[window] >= inside.max() / 2
            assert any(a <= start + t <= b for a, b in tag.times) == wanted
        assert all(start <= a < b <= start + seconds for a, b in tag.times)
        assert all(
            later[0] > earlier[1] + 0.01 for earlier, later in zip(tag.times, tag.times[1:], strict=False)
        )


def test_at_most_five_classes_are_heard_and_at_least_one() -> None:
    many = numbers(*((i, 0.9 - i / 10, 0.5) for i in range(8)))
    assert [tag.name for tag in heard_tags(many, NAMES, 0, 1, 2.0)] == [f"class {i}" for i in range(5)]
    assert [tag.name for tag in heard_tags(many[::-1], NAMES, 0, 1, 2.0)] == [f"class {i}" for i in range(5)]
    few = numbers((1, 0.3, 0.5), (2, 0.051, 0.5), (3, 0.049, 0.5))
    assert [tag.name for tag in heard_tags(few, NAMES, 0, 1, 2.0)] == ["class 1", "class 2"]
    (quiet,) = heard_tags(few[2:], NAMES, 0, 1, 2.0)
    assert quiet == Tag("class 3", 0.049, ((0, 1),))


# -- pictures ------------------------------------------------------------------------------------------------------


def test_seen_tags() -> None:
    seen = np.array([(7, 9.0, 0.62), (1, 5.0, 0.05), (2, 4.0, 0.04)], np.float32)
    assert seen_tags(seen, NAMES) == (Tag("class 7", 0.62), Tag("class 1", 0.05))
    assert seen_tags(seen[2:], NAMES) == ()
    many = np.array([(i, 1.0, 0.1 + i / 100) for i in range(8)], np.float32)
    assert [tag.name for tag in seen_tags(many, NAMES)] == [f"class {i}" for i in (7, 6, 5, 4, 3)]


# -- tags to text and back -----------------------------------------------------------------------------------------


def test_text_has_two_digits() -> None:
    tags = [
        Tag("Dog", 0.9149),
        Tag("Bark", 0.77),
        Tag("Vehicle horn, car horn, honking", 0.1),
        Tag("Hum", 0.0004),
    ]
    assert tags_text(tags) == "Dog .91; Bark .77; Vehicle horn, car horn, honking .10; Hum .00"
    assert tags_text([Tag("Dog", 1.0), Tag("Bark", 0.996)]) == "Dog .99; Bark .99"
    assert tags_text([]) == ""


def test_json_has_times_of_sounds() -> None:
    assert tags_json([DOG, Tag("beagle", 0.9999)]) == [
        {"class": "Dog", "confidence": 0.91, "times": [[0.0, 4.03], [6.05, 8.06]]},
        {"class": "beagle", "confidence": 0.99},
    ]


def test_stored_tags_are_read_back() -> None:
    tags = (DOG, Tag("beagle", 0.62))
    assert from_lists(json.loads(json.dumps(to_lists(tags)))) == tags
    assert from_lists(to_lists(())) == ()


def test_tags_of_neighbours_are_joined_by_class() -> None:
    first = (DOG, Tag("Hum", 0.2, ((0.0, 10.0),)))
    second = (
        Tag("Rain", 0.95, ((10.0, 12.02),)),
        Tag("Hum", 0.4, ((10.0, 16.05),)),
        Tag("Dog", 0.3, ((12.02, 14.03),)),
    )
    assert join_tags([first, second]) == (
        Tag("Rain", 0.95, ((10.0, 12.02),)),
        Tag("Dog", 0.9123, ((0.0, 4.03), (6.05, 8.06), (12.02, 14.03))),
        Tag("Hum", 0.4, ((0.0, 16.05),)),  # one stretch
    )
    faint = [(Tag(f"class {i}", 0.01 + i / 1000, ((0.0, 1.0),)),) for i in range(9)]
    assert join_tags(faint) == faint[8]  # the best of what was nearly nothing
    assert len(join_tags([(Tag(f"class {i}", 0.5),) for i in range(9)])) == 5
    assert join_tags([(), ()]) == ()


# -- models and files ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return Captioner.load(save_tagged(tmp_path_factory.mktemp("models"), "evidence-tags"), device="cpu")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write(folder / "film.mp4", 3.0, draw=stripes)
    write(folder / "black.mp4", 1.0, draw=lambda t, w, h: np.zeros((h, w, 3), np.uint8))
    write(folder / "silent.mp4", 1.0, audio=None)
    write(folder / "sound.wav", 12.0, video=None, audio="pcm_s16le")
    return folder


def generated(checkpoint: Checkpoint, film: Path) -> Generation:
    """By the plain way through the model."""
    features = FeatureSettings.from_dict(checkpoint.features)
    clip = load_clip(film, ClipSettings(features))
    pixels = None if clip.frames is None else normalize_frames(torch.from_numpy(clip.frames)[None], features)
    return checkpoint.model.generate(torch.from_numpy(clip.fbank)[None], pixels, beam=1, max_words=1)


@pytest.mark.slow
def test_rows_have_heard_and_seen_tags(captioner: Captioner, films: Path) -> None:
    """In one batch; a picture that shows nothing, or is not there, has no classes."""
    rows = {Path(row.video).name: row for row in captioner.caption([films], max_words=1)}
    for name in ("film.mp4", "black.mp4", "sound.wav"):
        row, out = rows[name], generated(captioner.checkpoint, films / name)
        assert out.heard is not None
        best = [
            (int(i), p)
            for i, p in zip(out.heard[0, :, 0], out.heard[0, :, 1].sigmoid().tolist(), strict=True)
        ]
        wanted = [(audioset_classes()[i], p) for n, (i, p) in enumerate(best[:5]) if n == 0 or p >= 0.05]
        assert [tag.name for tag in row.heard] == [name for name, _ in wanted]
        assert [tag.confidence for tag in row.heard] == pytest.approx([p for _, p in wanted], abs=1e-3)
        assert all(row.start <= a < b <= row.end for tag in row.heard for a, b in tag.times)
        assert all(tag.times for tag in row.heard)
    assert rows["sound.wav"].start == pytest.approx(2.0, abs=0.1)  # the file's clock
    out = generated(captioner.checkpoint, films / "film.mp4")
    assert out.seen is not None
    seen = [(imagenet_classes()[int(i)], p) for i, _, p in out.seen[0, :5].tolist() if p >= 0.05]
    assert seen
    assert [(tag.name, tag.times) for tag in rows["film.mp4"].seen] == [(name, ()) for name, _ in seen]
    assert [tag.confidence for tag in rows["film.mp4"].seen] == pytest.approx([p for _, p in seen], abs=1e-3)
    assert rows["black.mp4"].seen == rows["sound.wav"].seen == ()
    assert rows["black.mp4"].status == "ok"
    failed = rows["silent.mp4"]
    assert (failed.status, failed.heard, failed.seen) == ("failed", (), ())


@pytest.mark.slow
def test_times_of_a_segment_count_from_the_file_start(captioner: Captioner, films: Path) -> None:
    options = CaptionOptions(workers=0, max_words=1, segment=5.0)
    ((_, rows),) = captioner.rows(find_sources([films / "sound.wav"]), options)
    assert len(rows) == 3
    for row in rows:
        times = [t for tag in row.heard for span in tag.times for t in span]
        assert times
        assert row.start <= min(times) < max(times) <= row.end


def test_an_audio_only_model(films: Path, tmp_path: Path) -> None:
    captioner = Captioner.load(save_tagged(tmp_path, "audio-tags"), device="cpu")
    row = captioner.caption(films / "film.mp4", max_words=1)
    assert isinstance(row, Row)
    assert row.heard
    assert (row.status, row.seen) == ("ok", ())
    check_tags(captioner.checkpoint)


def test_a_model_without_tags(tiny: Path, films: Path) -> None:
    captioner = Captioner.load(tiny, device="cpu")
    row = captioner.caption(films / "film.mp4", max_words=1)
    assert (row.status, row.heard, row.seen) == ("ok", (), ())
    with pytest.raises(UsageError, match="evacap-tiny names no classes") as caught:
        check_tags(captioner.checkpoint)
    assert "omit --tags" in caught.value.cure
