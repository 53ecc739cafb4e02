"""Captions the sounds of videos, with the picture as a guide that the model can ignore.

>>> from evacap_cli import Captioner
>>> Captioner.load("demo").caption("clip.mp4").caption
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evacap_cli.version import __version__

if TYPE_CHECKING:
    from evacap_cli.tasks.captioning.engine import Captioner

__all__ = ["Captioner", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports `Captioner` on first use: its dependencies take seconds to import."""
    if name == "Captioner":
        from evacap_cli.tasks.captioning.engine import Captioner

        return Captioner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
