"""Fails unless a wheel holds the files of the package and nothing else: python check_wheel.py WHEEL REPOSITORY"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = "evacap_cli"


def main(wheel: Path, repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", PACKAGE], cwd=repository, capture_output=True, text=True, check=True
    )
    wanted = {name for name in listed.stdout.split("\0") if name}
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    found = {name for name in sizes if not name.startswith(metadata)}
    for name in sorted(sizes):
        print(f"{sizes[name]:>12,}  {name}")
    packed, unpacked = wheel.stat().st_size / 1e6, sum(sizes.values()) / 1e6
    print(f"{wheel.name}: {len(sizes)} files, {packed:.1f} MB, unpacked {unpacked:.1f} MB")
    problems = [f"not of the package: {name}" for name in sorted(found - wanted)]
    problems += [f"missing: {name}" for name in sorted(wanted - found)]
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
