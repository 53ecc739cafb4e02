"""Manifests: reads tables of clips and captions in common formats and finds the media files of the clips."""

from evacap_cli.data.manifest.entries import Entry, read_manifest

__all__ = ["Entry", "read_manifest"]
