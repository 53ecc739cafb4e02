"""Tables at a URL: written in the working directory, then copied whole."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path

from evacap_cli.atomic import TEMPORARY
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.media.container import one_line
from evacap_cli.tasks.captioning.inputs.urls import WEB, check_protocol, is_url, protocol, without_password
from evacap_cli.tasks.captioning.outputs.journal import OVERWRITE_CURE
from evacap_cli.tasks.captioning.outputs.writers import JOURNAL, SHARD

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Protocols whose uploads appear whole or not at all."""


@dataclass(frozen=True)
class RemoteTable:
    """A table at a URL. local: its copy, with the journal beside it."""

    url: str
    local: Path

    @classmethod
    def of(cls, out: str) -> RemoteTable | None:
        """Returns the table for an output that is a URL, None for a path. Raises UsageError."""
        if not is_url(out):
            return None
        shown, name = without_password(out), posixpath.basename(out)
        if protocol(out) in WEB or "::" in out:
            raise UsageError(f"-o {shown}: cannot be written", "use a path, or a URL such as s3://")
        if SHARD in out or not posixpath.splitext(name)[1]:
            raise UsageError(
                f"-o {shown}: at a URL, the output is one table",
                "name a file such as s3://bucket/captions.parquet, or write a local folder and copy it",
            )
        check_protocol(protocol(out))
        return cls(out, Path(name))

    @property
    def shown(self) -> str:
        return without_password(self.url)

    def check(self, overwrite: bool) -> None:
        """Raises UsageError if the table exists and was not written from here, EvacapError if the URL cannot be
        reached."""
        if overwrite or self.local.with_name(self.local.name + JOURNAL).exists():
            return
        try:
            import fsspec

            system, path = fsspec.url_to_fs(self.url)
            exists = system.exists(path)
        except Exception as error:  # every protocol has its own errors
            raise EvacapError(
                f"-o {self.shown}: cannot be reached: {one_line(error)}", "check the name and the credentials"
            ) from error
        if exists:
            raise UsageError(
                f"-o {self.shown}: already exists, but {self.local}{JOURNAL}, which says how it was made, does not",
                OVERWRITE_CURE,
            )

    def upload(self) -> None:
        """Copies the local table to the URL. Raises EvacapError; then the URL has what it had before."""
        try:
            import fsspec

            system, path = fsspec.url_to_fs(self.url)
            if protocol(self.url) in OBJECT_STORES:
                system.put_file(str(self.local), path)
            else:
                system.put_file(str(self.local), path + TEMPORARY)
                system.mv(path + TEMPORARY, path)
        except Exception as error:  # every protocol has its own errors
            raise EvacapError(
                f"-o {self.shown}: cannot be written: {one_line(error)}",
                f"the table is complete in {self.local}; run the same command again to copy it",
            ) from error
