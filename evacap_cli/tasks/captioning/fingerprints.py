"""Fingerprints of settings, model, inputs and output files, to detect whether rows can be reused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evacap_cli.model import Checkpoint
from evacap_cli.tasks.captioning.engine import Captioner
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.devices import PRECISIONS


def output_settings(captioner: Captioner, options: CaptionOptions, curves: Path | None) -> dict[str, Any]:
    """Returns the effective settings that rows depend on, by option name."""
    clips = captioner.check(options)
    frames = clips.features.frames if clips.frames is None else clips.frames
    precision = next(name for name, dtype in PRECISIONS.items() if dtype == captioner.autocast)
    return {
        "model": {"name": captioner.checkpoint.name, "weights": checkpoint_fingerprint(captioner.checkpoint)},
        "frames": frames,
        "same-frames": options.same_frames,
        "beam": options.beam,
        "max-words": options.max_words,
        "precision": precision,
        "window": options.window if options.segment is None else None,
        "segment": options.segment,
        "hop": options.hop if options.hop is not None else options.segment,
        "min-rms": options.min_rms,
        "audio-track": options.audio_track,
        "curves": None if curves is None else str(curves.absolute()),
    }


def checkpoint_fingerprint(checkpoint: Checkpoint) -> str:
    """Hashes everything that captions depend on: weights, vocabulary, sizes and feature settings."""
    path = checkpoint.path if checkpoint.path.is_file() else checkpoint.path / "model.safetensors"
    rest = [checkpoint.model.config.to_dict(), checkpoint.features, checkpoint.tokenizer.to_text()]
    digest = hashlib.blake2b(json.dumps(rest, sort_keys=True, default=str).encode(), digest_size=16)
    return _hashed(path, digest)


def inputs_fingerprint(sources: Sequence[Source]) -> str:
    """Hashes the names and order of the inputs, and what else determines their rows."""
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        digest.update(repr((source.name, source.error, source.same_as, source.relative)).encode())
    return digest.hexdigest()


def file_fingerprint(out: Path) -> str | None:
    """Hashes an output that is one file; None if there is no such file."""
    return _hashed(out, hashlib.blake2b(digest_size=16)) if out.is_file() else None


def _hashed(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return str(digest.hexdigest())
