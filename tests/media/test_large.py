"""Files larger than 4 GiB, which take no room on the disk: all but two seconds of them is a hole."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.media import read_audio, survey_file

from .clips import heard

RATE, SIZE = 48_000, 5 * 2**30  # Hz, bytes of the samples
SECONDS = SIZE / (4 * RATE)
AT = 23_000  # seconds: behind the 4 GiB
FORMAT = struct.pack("<HHIIHH", 1, 2, RATE, 4 * RATE, 4, 16)
GUID = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
RIFF_GUID = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


def wav(stated: int) -> bytes:
    """The head of a WAV file whose samples have this size, as it says."""
    head = (
        b"RIFF"
        + struct.pack("<I", min(stated + 36, 2**32 - 1))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + FORMAT
    )
    return head + b"data" + struct.pack("<I", stated)


HEADS = {
    "wrapped.wav": wav(SIZE % 2**32),  # recorders that know 32 bits only, or a pipe's largest size
    "pipe.wav": wav(2**31 - 4096),
    "unknown.wav": wav(0),
    "live.wav": wav(2**32 - 1),
    "a.wav": b"RF64" + b"\xff" * 4 + b"WAVEds64" + struct.pack("<IQQQI", 28, SIZE + 100, SIZE, SIZE // 4, 0)
    + b"fmt " + struct.pack("<I", 16) + FORMAT + b"data" + b"\xff" * 4,
    "a.w64": RIFF_GUID + struct.pack("<Q", SIZE + 104) + b"wave" + GUID + b"fmt " + GUID + struct.pack("<Q", 40)
    + FORMAT + b"data" + GUID + struct.pack("<Q", SIZE + 24),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="files with holes")
@pytest.mark.parametrize("name", HEADS)
def test_audio_after_four_gibibytes(name: str, tmp_path: Path) -> None:
    times = np.arange(2 * RATE) / RATE
    tone = (12_000 * np.sin(2 * np.pi * 1000 * times)).astype("<i2")[:, None].repeat(2, axis=1)
    with (tmp_path / name).open("wb") as file:
        file.write(HEADS[name])
        file.seek(4 * RATE * AT, 1)
        file.write(tone.tobytes())
        file.truncate(len(HEADS[name]) + SIZE)
    seen = survey_file(tmp_path / name)
    assert seen.seconds == pytest.approx(SECONDS, abs=0.1)
    assert heard(read_audio(tmp_path / name, AT + 0.5, AT + 1.5)) == pytest.approx(1000, abs=2)
    assert not read_audio(tmp_path / name, AT - 3, AT - 2).any()


@pytest.mark.skipif(sys.platform != "linux", reason="files with holes")
def test_data_after_the_samples_is_ignored(tmp_path: Path) -> None:
    """Titles behind the samples of a WAV file whose size wrapped; and behind those of one whose size is right."""
    head, behind = wav(SIZE % 2**32), b"LIST" + struct.pack("<I", 64_000) + b"\x7f" * 64_000
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(head)
        file.seek(SIZE, 1)
        file.write(behind)
    assert survey_file(path).seconds == pytest.approx(SECONDS, abs=0.01)
    assert not read_audio(path, SECONDS - 1).any()
    head, size = wav(2**31), 2**31
    with path.open("wb") as file:
        file.write(head)
        file.seek(size, 1)
        file.write(behind)
    assert survey_file(path).seconds == pytest.approx(size / (4 * RATE), abs=0.01)
    assert not read_audio(path, size / (4 * RATE) - 1).any()


@pytest.mark.skipif(sys.platform != "linux", reason="files with holes")
def test_a_large_wav_that_was_cut_is_read_to_its_end(tmp_path: Path) -> None:
    """Less is there than the header states, though more than 2 GiB."""
    head, size = wav(3 * 2**30), 5 * 2**29
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    assert survey_file(path).seconds == pytest.approx(size / (4 * RATE), abs=0.1)
    assert len(read_audio(path, size / (4 * RATE) - 1)) == pytest.approx(16_000, abs=1600)
