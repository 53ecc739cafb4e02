"""What `import evacap_cli` offers. Others build on it: a change here is a change for them, and for CHANGELOG.md."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields

import evacap_cli
from evacap_cli import Captioner
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.rows import Row


def test_names() -> None:
    assert evacap_cli.__all__ == ["Captioner", "__version__"]
    assert all(hasattr(evacap_cli, name) for name in evacap_cli.__all__)
    assert isinstance(evacap_cli.__version__, str)


def test_signatures() -> None:
    assert str(inspect.signature(Captioner.load)) == (
        "(model: 'str | Path' = 'demo', device: 'str' = 'auto', precision: 'str' = 'auto') -> 'Captioner'"
    )
    assert str(inspect.signature(Captioner.caption)) == (
        "(self, inputs: 'str | Path | Iterable[str | Path]', **options: 'Any') -> 'Row | list[Row]'"
    )


def test_options_of_caption_and_their_defaults() -> None:
    assert {field.name: field.default for field in fields(CaptionOptions)} == {
        "frames": None,
        "beam": 4,
        "max_words": 20,
        "batch_size": None,
        "workers": None,
        "window": "loudest",
        "audio_only": False,
        "timeout": 300.0,
        "memory": 4.0,
        "segment": None,
        "hop": None,
        "min_rms": None,
        "same_frames": 0.0,
        "audio_track": None,
    }


def test_fields_of_a_row_and_their_defaults() -> None:
    assert {field.name: field.default for field in fields(Row)} == {
        "video": MISSING,
        "start": None,
        "end": None,
        "caption": "",
        "score": None,
        "gate": None,
        "entropy": None,
        "mismatch": None,
        "status": "failed",
        "error": "",
        "heard": (),
        "seen": (),
        "note": "",
    }
