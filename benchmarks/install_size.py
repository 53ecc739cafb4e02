"""Measures the size of an installation of evacap, and what each extra adds to it:

    python benchmarks/install_size.py [FOLDER] [-o results/install_size.md]

Installs evacap with pip in a new environment in FOLDER (7 GB), and the packages of each extra in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOT_FOR_USERS = ("dev", "test")
GROUPS = {
    "NVIDIA's libraries and Triton": ("nvidia-", "cuda-", "triton"),
    "PyTorch": ("torch", "torchvision", "torchaudio", "timm"),
}


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each distribution in a folder, without byte code, largest first."""
    found = {}
    for distribution in metadata.distributions(path=[str(folder)]):
        paths = (Path(str(file.locate())) for file in distribution.files or () if file.suffix != ".pyc")
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        found[name] = sum(path.stat().st_size for path in paths if path.is_file())
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def added_by(python: Path, extra: str, folder: Path) -> dict[str, int]:
    """Sizes of the distributions that an extra needs in addition to those of an environment."""
    report = folder / f"{extra}.json"
    run(python, "-m", "pip", "install", "-q", "--dry-run", "--report", report, f"{ROOT}[{extra}]")
    chosen = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    wanted = [f"{about['name']}=={about['version']}" for about in chosen if about["name"] != "evacap"]
    target = folder / extra
    run(python, "-m", "pip", "install", "-q", "--no-compile", "--no-deps", "--target", target, *wanted)
    found = sizes(target)
    shutil.rmtree(target)
    return found


def user_extras(packages: Path) -> list[str]:
    """The extras of the evacap that is installed in a folder."""
    (evacap,) = metadata.distributions(name="evacap", path=[str(packages)])
    extras = evacap.metadata.get_all("Provides-Extra") or ()
    return [extra for extra in extras if extra not in NOT_FOR_USERS]


def measure(folder: Path) -> dict[str, Any]:
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-compile", ROOT)
    (packages,) = environment.glob("lib/python*/site-packages")
    base = sizes(packages)
    return {
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "torch": next(metadata.distributions(name="torch", path=[str(packages)])).version,
        "date": date.today().isoformat(),
        "base": base,
        "extras": {extra: added_by(python, extra, folder) for extra in user_extras(packages)},
    }


def report(found: dict[str, Any]) -> str:
    """A page with two tables."""
    base: dict[str, int] = found["base"]
    total = sum(base.values())
    lines = [
        "# Size of an installation",
        "",
        f"`pip install .` with pip's default index: {_gb(total)} in {len(base)} packages; {found['machine']}, "
        f"torch {found['torch']}, {found['date']} (`benchmarks/install_size.py`). Byte code, which Python writes on "
        "the first import, is not counted. On Linux, this index has only PyTorch builds with CUDA.",
        "",
        "| part | size |",
        "|---|---|",
    ]
    rest = dict(base)
    for group, starts in GROUPS.items():
        names = [name for name in rest if name.startswith(starts)]
        lines.append(f"| {group} | {_gb(sum(rest.pop(name) for name in names))} |")
    lines += [f"| `{name}` | {_gb(size)} |" for name, size in list(rest.items())[:8]]
    lines += [f"| {len(rest) - 8} others | {_gb(sum(list(rest.values())[8:]))} |", ""]
    lines += ["| extra | adds | packages | the largest |", "|---|---|---|---|"]
    for extra, added in found["extras"].items():
        largest = ", ".join(f"`{name}` {_gb(size)}" for name, size in list(added.items())[:2])
        lines.append(f"| `{extra}` | {_gb(sum(added.values()))} | {len(added)} | {largest} |")
    return "\n".join(lines) + "\n"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="a temporary one by default")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "benchmarks" / "results" / "install_size.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder))
    options.out.write_text(report(found), "utf-8")
    print(report(found), end="")


if __name__ == "__main__":
    main()
