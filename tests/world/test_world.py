"""The procedural world: determinism, truth, captions, sound and picture."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from evacap_cli.errors import MediaError, UsageError
from evacap_cli.world import OBJECTS, RECORDED, SYNTHETIC, ClipScript, RecordingBank, World, render_audio
from evacap_cli.world.dsp import VoiceInput
from evacap_cli.world.objects import BACKGROUNDS
from evacap_cli.world.picture import DRAWINGS, act_at, render_frame
from evacap_cli.world.voices import VOICES


@pytest.fixture(scope="module")
def scripts() -> list[ClipScript]:
    world = World(11)
    return [world.script(i) for i in range(400)]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short recordings: a known category, one that joins a synthetic event, an unknown one."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "audio").mkdir()
    rows = [
        ("bark.wav", 1, "dog_bark", "CC0"),
        ("rain.wav", 2, "rain", "CC-BY"),
        ("zap.wav", 2, "laser_zap", "other"),
    ]
    for k, (name, *_) in enumerate(rows):
        rate, seconds = (22_050, 0.6) if k == 0 else (44_100, 1.5)
        t = np.arange(int(rate * seconds)) / rate
        wave = np.sin(2 * np.pi * (300 + 200 * k) * t).astype(np.float32)
        wave[: rate // 5] = 0  # digital silence that is trimmed
        with av.open(str(folder / "audio" / name), "w", format="wav") as out:
            stream = out.add_stream("pcm_s16le", rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray((wave[None] * 20000).astype(np.int16), "s16", "mono")
            frame.sample_rate = rate
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    with open(folder / "metadata.csv", "w", newline="") as f:
        csv.writer(f).writerows([("file", "fold", "category", "license"), *rows])
    return folder


@pytest.mark.slow
def test_same_seed_same_scripts_in_another_process(scripts: list[ClipScript]) -> None:
    code = (
        "import json; from evacap_cli.world import World; w = World(11); "
        "print(json.dumps([w.script(i).to_dict() for i in (0, 7, 31)], sort_keys=True))"
    )
    env = {"PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert json.loads(run.stdout) == json.loads(json.dumps([scripts[i].to_dict() for i in (0, 7, 31)]))


def test_scripts_are_pinned() -> None:
    """A change here changes every shared seed: raise tasks.synthesis.FORMAT with it."""
    captions = [World(1).script(i).captions[0] for i in range(3)]
    assert captions == PINNED


PINNED = [
    "An adult female speaks followed by a bee buzzing faintly",
    "A woman speaks loudly while a keyboard clicks",
    "Someone knocking on a door quietly",
]


def test_scripts_depend_on_seed_and_number(scripts: list[ClipScript]) -> None:
    assert World(12).script(0) != scripts[0]
    assert len({s.captions[0] for s in scripts}) > 300


def test_script_survives_json(scripts: list[ClipScript]) -> None:
    for script in scripts[:60]:
        assert ClipScript.from_dict(json.loads(json.dumps(script.to_dict()))) == script


def test_numbers_in_scripts_have_at_most_three_decimals(scripts: list[ClipScript]) -> None:
    def walk(value: object) -> None:
        if isinstance(value, float):
            assert round(value, 3) == value
        elif isinstance(value, dict):
            for v in value.values():
                walk(v)
        elif isinstance(value, (list, tuple)):
            for v in value:
                walk(v)

    for script in scripts[:100]:
        walk(script.to_dict())


def test_captions_are_five_and_differ(scripts: list[ClipScript]) -> None:
    for script in scripts:
        assert len(set(script.captions)) == 5
        for text in script.captions:
            assert text[0].isupper()
            assert not text.endswith(".")
            assert 2 <= len(text.split()) <= 32
    words = {w for s in scripts for c in s.captions for w in c.lower().replace(",", "").split()}
    assert 200 <= len(words) <= 450


def test_kinds_match_the_script(scripts: list[ClipScript]) -> None:
    counts = Counter(s.kind for s in scripts)
    assert counts["matched"] > 200
    assert min(counts[k] for k in ("off-screen", "dubbed", "distractor")) > 10
    source = {e.name: e.object for e in SYNTHETIC + RECORDED}
    kin = World(11)._kin
    for script in scripts:
        heard = [s for s in script.sounds if s.visible]
        shown = {o.event: o for o in script.seen if o.role == "sounding"}
        assert {s.event for s in heard} == set(shown)
        for s in heard:  # what is seen moves when it sounds
            assert (shown[s.event].start, shown[s.event].end, shown[s.event].hits) == (s.start, s.end, s.hits)
        hidden = [s for s in script.sounds if not s.visible]
        silent = [o for o in script.seen if o.role == "silent"]
        if script.kind == "matched":
            assert not hidden
            assert not silent
        elif script.kind == "off-screen":
            assert len(hidden) == 1
        elif script.kind == "distractor":
            assert not hidden
            assert len(silent) == 1
        else:
            assert not heard
            assert script.seen
        for s in script.sounds:  # nobody could take a stranger for the source
            for o in script.seen:
                if o.role != "sounding":
                    assert not kin[o.object] & kin[source[s.event]]


def test_times_are_inside_the_clip(scripts: list[ClipScript]) -> None:
    for script in scripts:
        for s in script.sounds:
            assert 0 <= s.start < s.end <= 10
            assert all(s.start <= h < s.end for h in s.hits)
            assert s.count in (0, len(s.hits))


def test_families_share_a_sound_and_differ_in_picture() -> None:
    families: dict[str, set[str]] = {}
    for e in SYNTHETIC:
        families.setdefault(e.sound, set()).add(e.object)
        if len({x.object for x in SYNTHETIC if x.sound == e.sound}) > 1:
            assert e.unseen, f"{e.name} needs words for when it is not seen"
            own = {w[0] for w in e.seen} & {w[0] for w in e.unseen}
            assert own <= {"water", "a man", "an engine", "a whistle"}
    assert sum(len(objects) > 1 for objects in families.values()) >= 3
    assert len(families) >= 24


def test_a_hidden_family_member_is_named_only_by_its_sound() -> None:
    world = World(3, matched=0, off_screen=1, dubbed=0, distractor=0)
    names = {"car", "boat", "motorboat", "motorcycle", "motorbike"}
    found = 0
    for i in range(400):
        script = world.script(i)
        hidden = next(s for s in script.sounds if not s.visible)
        others = {s.sound for s in script.sounds if s is not hidden}
        if hidden.sound == "engine idling" and "engine revving" not in others and "siren" not in others:
            found += 1
            assert not names & {w for c in script.captions for w in c.lower().split()}
    assert found > 3


@pytest.mark.parametrize("sound", sorted(VOICES))
def test_voice(sound: str) -> None:
    take = VoiceInput(3.0, (0.1, 0.8, 1.5), 1.0, np.random.default_rng(1))
    wave = VOICES[sound](take)
    assert wave.dtype == np.float32
    assert wave.shape == (48_000,)
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() > 0.01
    again = VOICES[sound](VoiceInput(3.0, (0.1, 0.8, 1.5), 1.0, np.random.default_rng(1)))
    np.testing.assert_array_equal(wave, again)


@pytest.mark.slow
def test_audio_is_not_clipped_and_follows_the_script(scripts: list[ClipScript]) -> None:
    for script in scripts[:25]:
        wave = render_audio(script)
        assert wave.dtype == np.float32
        assert wave.shape == (160_000,)
        assert 0.005 < np.abs(wave).max() <= 1.0
        first = min(s.start for s in script.sounds)
        if first > 1.0:
            before = wave[: int((first - 0.05) * 16_000)]
            assert np.sqrt(np.mean(before**2)) < 10 ** (script.floor / 20) * 1.2
    np.testing.assert_array_equal(render_audio(scripts[0]), render_audio(scripts[0]))


@pytest.mark.slow
def test_loud_is_louder_than_faint(scripts: list[ClipScript]) -> None:
    levels: dict[str, list[float]] = {}
    for script in scripts:
        if len(script.sounds) == 1 and script.sounds[0].loudness in ("loud", "faint"):
            wave = render_audio(script)
            levels.setdefault(script.sounds[0].loudness, []).append(float(np.abs(wave).max()))
    assert min(levels["loud"]) > max(levels["faint"])


def test_every_object_has_a_drawing_and_a_place() -> None:
    assert set(DRAWINGS) == set(OBJECTS)
    assert {e.object for e in SYNTHETIC + RECORDED} == set(OBJECTS)
    assert all(set(t.places) <= set(BACKGROUNDS) for t in OBJECTS.values())


def _clip_with(name: str, role: str = "sounding") -> ClipScript:
    base = World(1, matched=1, off_screen=0, dubbed=0, distractor=0, events=(1, 0, 0)).script(0)
    seen = dict(base.to_dict()["seen"][0], object=name, role=role, x=160.0, y=122.0, size=80.0)
    seen.update(start=0.0, end=10.0, hits=(2.0, 4.0))
    return ClipScript.from_dict({**base.to_dict(), "seen": [seen], "background": "plain"})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OBJECTS, "sign: laser zap"])
def test_drawing_moves_when_it_sounds_and_rests_when_silent(name: str) -> None:
    times = (2.05, 2.3, 2.75, 3.1)
    moving = [render_frame(_clip_with(name), t) for t in times]
    assert moving[0].shape == (240, 320, 3)
    assert moving[0].dtype == np.uint8
    assert any(not np.array_equal(moving[0], f) for f in moving[1:])
    still = [render_frame(_clip_with(name, "silent"), t) for t in times]
    # a person may blink, nothing else moves
    assert all(np.mean(still[0] != f) < 0.01 for f in still[1:])
    # large enough to be recognised: it covers 60 x 60 pixels or more
    blank = _clip_with(name)
    empty = render_frame(ClipScript.from_dict({**blank.to_dict(), "seen": []}), 2.05)
    changed = np.any(np.abs(empty.astype(int) - moving[0]) > 8, axis=2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert rows[-1] - rows[0] > 60
    assert columns[-1] - columns[0] > 60


def test_objects_lie_in_the_central_square_and_do_not_hide_each_other(scripts: list[ClipScript]) -> None:
    for script in scripts:
        for o in script.seen:
            assert o.size >= 40
            assert o.x - 0.9 * o.size >= 40
            assert o.x + 0.9 * o.size <= 280
        for a in script.seen:
            for b in script.seen:
                if a is not b:
                    assert max(abs(a.x - b.x), abs(a.y - b.y)) > 0.9 * (a.size + b.size)


def test_frames_of_other_sizes() -> None:
    script = World(1).script(0)
    assert render_frame(script, 1.0, 160, 120).shape == (120, 160, 3)
    assert render_frame(script, 1.0, 240, 240).shape == (240, 240, 3)


def test_act_outside_the_span_is_off(scripts: list[ClipScript]) -> None:
    seen = next(o for s in scripts for o in s.seen if o.start > 1.0)
    assert not act_at(seen, 0.5).on
    assert act_at(seen, (seen.start + seen.end) / 2).on


def test_recordings_join_and_add_events(recordings: Path) -> None:
    world = World(5, recordings, recorded_voice=1.0)
    assert "dog bark" in world.sound_classes
    assert "laser zap" in world.sound_classes
    assert "sign: laser zap" in world.object_classes
    assert "sneeze" not in world.sound_classes
    used: dict[str, ClipScript] = {}
    for i in range(400):
        for s in world.script(i).sounds:
            if s.recording:
                used.setdefault(s.recording, world.script(i))
    assert set(used) == {"bark.wav", "rain.wav", "zap.wav"}
    for script in used.values():
        wave = world.render_audio(script)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 0.005
        assert len(set(script.captions)) == 5
        render_frame(script, 3.0)
    assert any("laser zap" in c for c in used["zap.wav"].captions)
    with pytest.raises(UsageError, match=r"needs .*\.wav"):
        render_audio(used["bark.wav"])


def test_recordings_are_filtered_and_trimmed(recordings: Path) -> None:
    assert list(RecordingBank.open(recordings, folds=[2]).rows) == ["rain.wav", "zap.wav"]
    bank = RecordingBank.open(recordings, licenses=("CC0", "CC-BY"))
    assert list(bank.rows) == ["bark.wav", "rain.wav"]
    wave = bank.wave("bark.wav")
    assert wave.dtype == np.float32
    assert abs(len(wave) / 16_000 - 0.4) < 0.02
    assert np.abs(wave).max() == pytest.approx(1.0)


def test_unusable_recordings_are_named(tmp_path: Path, recordings: Path) -> None:
    with pytest.raises(UsageError, match=r"recordings: .*nowhere"):
        World(1, tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"metadata\.csv"):
        World(1, tmp_path)
    with pytest.raises(UsageError, match="fold"):
        World(1, recordings, folds=[9])
    (tmp_path / "metadata.csv").write_text("name,kind\na,b\n")
    with pytest.raises(UsageError, match="file, category"):
        World(1, tmp_path)
    (tmp_path / "metadata.csv").write_text("file,category\ngone.ogg,dog_bark\n")
    with pytest.raises(MediaError, match=r"gone\.ogg"):
        RecordingBank.open(tmp_path).wave("gone.ogg")


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="kinds"):
        World(1, matched=-1)
    with pytest.raises(UsageError, match="events"):
        World(1, events=(0, 0, 0))
