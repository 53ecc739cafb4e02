"""Renders General MIDI instruments with a sampled sound font, and speech with a synthesiser.

FluidSynth plays the samples of the `fluid-soundfont-gm` package; eSpeak NG reads sentences. Both must be installed
(`apt-get install fluidsynth espeak-ng`).
"""

import subprocess
import tempfile
import wave
from pathlib import Path

TICKS = 480  # MIDI ticks per beat
SLOT = 6  # seconds from the start of one phrase to the start of the next
SAMPLE_RATE = 32000
DRUM_CHANNEL = 9

Note = tuple[float, float, int, int]  # start and length in seconds, key (0-127), velocity (1-127)

# Phrases around a root key: single notes, a scale, chords.
PHRASES: list[list[tuple[float, float, int, int]]] = [
    [(0.0, 1.2, 0, 100), (1.5, 1.2, 7, 90), (3.0, 1.8, -5, 105)],
    [
        (0.3 * i, 0.28, step, 85 + 4 * i)
        for i, step in enumerate([0, 2, 4, 5, 7, 9, 11, 12, 11, 9, 7, 4, 2, 0])
    ],
    [(0.9 * i, 0.85, base + step, 90) for i, base in enumerate([0, 5, 7, 0, -3]) for step in (0, 4, 7)],
]
# Patterns for a drum kit: a rock beat, a roll on the toms and cymbals, single strokes; keys are General MIDI drums.
BEATS: list[list[tuple[float, float, int, int]]] = [
    [(0.25 * i, 0.2, 42, 80) for i in range(18)]
    + [(0.5 * i, 0.2, 36 if i % 2 == 0 else 38, 110) for i in range(9)],
    [(0.11 * i, 0.1, key, 70 + i) for i, key in enumerate([38] * 12 + [50] * 6 + [47] * 6 + [43] * 6)]
    + [(3.4, 1.0, 49, 120), (3.4, 0.5, 36, 120)],
    [(0.0, 0.5, 36, 110), (1.0, 0.5, 38, 110), (2.0, 0.5, 46, 100), (3.0, 1.5, 49, 110), (4.3, 0.5, 41, 110)],
]
# Single percussion instruments of the drum channel, as (key, labels).
PERCUSSION: list[tuple[int, str]] = [
    (35, "Bass drum;Drum;Percussion"),
    (36, "Bass drum;Drum;Percussion"),
    (37, "Rimshot;Percussion"),
    (38, "Snare drum;Drum;Percussion"),
    (39, "Clapping;Hands"),
    (40, "Snare drum;Drum;Percussion"),
    (41, "Drum;Percussion"),
    (42, "Hi-hat;Cymbal;Percussion"),
    (46, "Hi-hat;Cymbal;Percussion"),
    (47, "Drum;Percussion"),
    (49, "Cymbal;Percussion"),
    (51, "Cymbal;Percussion"),
    (53, "Cymbal;Bell;Percussion"),
    (54, "Tambourine;Percussion"),
    (55, "Cymbal;Percussion"),
    (56, "Cowbell;Percussion"),
    (57, "Cymbal;Percussion"),
    (58, "Percussion"),
    (60, "Drum;Percussion"),
    (61, "Drum;Percussion"),
    (63, "Drum;Percussion"),
    (65, "Drum;Percussion"),
    (67, "Cowbell;Percussion"),
    (69, "Maraca;Rattle (instrument);Percussion"),
    (70, "Maraca;Rattle (instrument);Percussion"),
    (71, "Whistle"),
    (72, "Whistle"),
    (73, "Scrape;Percussion"),
    (74, "Scrape;Percussion"),
    (75, "Wood block;Percussion"),
    (76, "Wood block;Percussion"),
    (77, "Wood block;Percussion"),
    (80, "Percussion"),
    (81, "Bell;Percussion"),
]
# Roots in which melodic programs play; low and high instruments play an octave lower or higher.
ROOTS = (60, 55, 64)
LOW = {32, 33, 34, 35, 36, 37, 38, 39, 42, 43, 47, 57, 58, 67, 70, 87}
HIGH = {9, 72, 74, 14, 112}

SENTENCES = [
    ("en", "Good morning. The train to the city leaves from platform four in ten minutes."),
    ("en", "Please remember to close the window before you leave the house."),
    ("en", "She asked the children to sit down and listen to the story."),
    ("en", "Heavy rain is expected in the north this evening, with strong winds near the coast."),
    ("en", "I bought bread, milk, and a bag of apples at the market."),
    ("en-us", "First, heat the oil in a pan. Then add the onions and stir until they are soft."),
    ("en-us", "Welcome back to the show. Today we talk about gardens and birds."),
    ("en-us", "The meeting has been moved to Thursday afternoon. Please let me know if you can come."),
    ("de", "Guten Tag. Der nächste Zug fährt in wenigen Minuten von Gleis sieben ab."),
    ("fr", "Bonjour à tous. Aujourd'hui nous allons parler du temps et de la mer."),
    ("es", "Buenos días. El mercado abre a las ocho y cierra a las dos de la tarde."),
    ("it", "Buongiorno. Vorrei un caffè e un bicchiere d'acqua, per favore."),
    ("pt", "Bom dia. O ônibus chega à praça em cinco minutos."),
    ("nl", "Goedemorgen. De winkel is vandaag open van negen tot zes uur."),
    ("pl", "Dzień dobry. Pociąg odjeżdża z peronu trzeciego."),
    ("ru", "Доброе утро. Сегодня будет тёплая и солнечная погода."),
]
# eSpeak variants, pitch (0-99), speed (words per minute) and labels.
VOICES = [
    ("m3", 40, 150, "Male speech, man speaking;Speech;Speech synthesizer"),
    ("m7", 25, 170, "Male speech, man speaking;Speech;Speech synthesizer"),
    ("f2", 60, 155, "Female speech, woman speaking;Speech;Speech synthesizer"),
    ("f4", 75, 175, "Female speech, woman speaking;Speech;Speech synthesizer"),
]


def _variable_length(number: int) -> bytes:
    """A number in MIDI's variable-length format: 7 bits per byte; the high bit is set on all but the last byte."""
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append((number & 0x7F) | 0x80)
    return bytes(reversed(parts))


def midi_file(notes: list[Note], program: int, channel: int = 0) -> bytes:
    """A standard MIDI file (format 0, 60 beats per minute) that plays `notes` with one program on one channel."""
    events = [(0, bytes([0xC0 | channel, program]))]
    for start, length, key, velocity in notes:
        key = max(0, min(127, key))
        events.append((round(start * TICKS), bytes([0x90 | channel, key, min(127, velocity)])))
        events.append((round((start + length) * TICKS), bytes([0x80 | channel, key, 0])))
    track, now = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big"), 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        track += _variable_length(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + TICKS.to_bytes(2, "big")
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


def _render(
    phrases: list[list[Note]], program: int, channel: int, sound_font: Path, targets: list[Path]
) -> None:
    """Plays the phrases, one every `SLOT` seconds, and writes one WAV file per phrase."""
    if all(target.exists() for target in targets):
        return
    notes = [
        (start + SLOT * i, length, key, velocity)
        for i, phrase in enumerate(phrases)
        for start, length, key, velocity in phrase
    ]
    notes.append(
        (SLOT * len(phrases) - 0.1, 0.05, 0, 1)
    )  # keeps the player running to the end of the last slot
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "score.mid"), Path(folder, "sound.wav")
        score.write_bytes(midi_file(notes, program, channel))
        command = [
            "fluidsynth",
            "-ni",
            "-q",
            "-g",
            "0.6",
            "-r",
            str(SAMPLE_RATE),
            "-F",
            str(sound),
            str(sound_font),
            str(score),
        ]
        subprocess.run(command, check=True, capture_output=True)
        with wave.open(str(sound)) as opened:
            for target in targets:
                body = opened.readframes(SLOT * SAMPLE_RATE)
                partial = target.with_suffix(".partial")
                with wave.open(str(partial), "wb") as written:
                    written.setparams(opened.getparams())
                    written.writeframes(body)
                partial.replace(target)


def render_instruments(sound_font: Path, programs: dict[int, str], folder: Path) -> dict[Path, str]:
    """Renders every General MIDI program and drum. Returns {WAV file: labels}.

    Args:
        programs: {program number: labels, ';'-joined}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[Path, str] = {}
    for program, labels in programs.items():
        shift = -24 if program in LOW else 12 if program in HIGH else 0
        phrases = [
            [(start, length, root + shift + step, velocity) for start, length, step, velocity in phrase]
            for root, phrase in zip(ROOTS, PHRASES, strict=True)
        ]
        targets = [folder / f"program{program:03d}_{i}.wav" for i in range(len(phrases))]
        _render(phrases, program, 0, sound_font, targets)
        made.update(dict.fromkeys(targets, labels))
    for kit in (0, 8, 16, 24, 25, 32, 40):
        targets = [folder / f"kit{kit:02d}_{i}.wav" for i in range(len(BEATS))]
        _render(BEATS, kit, DRUM_CHANNEL, sound_font, targets)
        made.update(dict.fromkeys(targets, "Drum kit;Drum;Percussion;Musical instrument;Music"))
    strokes = [[(0.7 * i, 0.6, key, 70 + 8 * i) for i in range(7)] for key, _ in PERCUSSION]
    targets = [folder / f"drum{key}.wav" for key, _ in PERCUSSION]
    _render(strokes, 0, DRUM_CHANNEL, sound_font, targets)
    made.update({target: labels for target, (_, labels) in zip(targets, PERCUSSION, strict=True)})
    return made


def render_speech(folder: Path) -> dict[Path, str]:
    """Reads every sentence with two of the voices. Returns {WAV file: labels}."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[Path, str] = {}
    for i, (language, text) in enumerate(SENTENCES):
        for j in (i % 2, 2 + i % 2, (i + 1) % 2) if i < 10 else (i % 2, 2 + i % 2):
            variant, pitch, speed, labels = VOICES[j]
            target = folder / f"speech{i:02d}_{variant}.wav"
            if not target.exists():
                command = [
                    "espeak-ng",
                    "-v",
                    f"{language}+{variant}",
                    "-p",
                    str(pitch),
                    "-s",
                    str(speed),
                    "-w",
                    str(target),
                    text,
                ]
                subprocess.run(command, check=True, capture_output=True)
            made[target] = labels
    return made
