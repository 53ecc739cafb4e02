"""What all pages have in common: where they are written, links from them, and what made the results."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evacap_cli.atomic import written_whole
from evacap_cli.data.files import disk_errors
from evacap_cli.errors import UsageError
from evacap_cli.report.pages import Page, write_page
from evacap_cli.tasks.captioning.inputs.urls import is_url, without_password
from evacap_cli.version import __version__

PACKAGES = ("torch", "decord2", "av")


def check_page(out: Path) -> None:
    """Raises UsageError where no page can be written."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"report {out}: a page ends with .html", f"name it {out.with_suffix('.html')}")
    if out.is_dir():
        raise UsageError(f"report {out}: is a folder", "name a file in it")


def save_page(page: Page, out: Path) -> None:
    """Writes a page completely or not at all. Raises EvacapError if it cannot be written."""
    with disk_errors(out, "name another file for the page"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(out) as aside, aside.open("wb") as file:
            write_page(page, file)


def link(name: str, page: Path, near: Path) -> tuple[str, str]:
    """(path, URL relative to the page) of a file that a table names relative to the working directory or to the table's
    folder `near`. Both are "" if the file is missing. A web address has a URL and no path."""
    if is_url(name):
        safe = re.match(r"https?://", name, re.I) is not None
        return "", quote(without_password(name), safe=":/?#[]@!$&'()*+,;=%~") if safe else ""
    try:
        path = next((path for path in (Path(name), near / name) if path.is_file()), None)
    except (OSError, ValueError):  # NUL, or longer than any name
        path = None
    if path is None:
        return "", ""
    try:
        relative = os.path.relpath(path, page.parent)
    except ValueError:  # another drive
        return str(path), path.absolute().as_uri()
    return str(path), "./" + quote(relative.replace(os.sep, "/").encode("utf-8", "surrogateescape"))


def setting_facts(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Settings as (name, value), nested ones with dots between their names."""
    facts: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            facts += setting_facts(value, f"{before}{name}.")
        elif value is not None:
            facts.append((f"{before}{name}", str(value)))
    return facts


def version_facts() -> list[tuple[str, str]]:
    versions = [f"evacap {__version__}", f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return [("versions", ", ".join(versions)), ("written", time.strftime("%Y-%m-%d %H:%M:%S %z"))]


def command_fact(arguments: Sequence[str] | None = None) -> tuple[str, str]:
    """The command of this process, without passwords in URLs."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return "command", shlex.join(["evacap", *map(without_password, arguments)])
