"""Lists of clips with captions, as people have them: tables to rows, rows to clips, clips to their media."""

from evacap_cli.data.manifest.entries import Entry, read_manifest

__all__ = ["Entry", "read_manifest"]
