"""The documents: every command in the README runs, those in docs/ parse, links resolve, and the README stays short."""

from __future__ import annotations

import ast
import csv
import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from evacap_cli.cli.app import app
from evacap_cli.tasks import sample

from .conftest import Evacap

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "evacap_cli"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
NOT_RUN = {
    "python3 -m venv .venv": "makes an environment; .ci/run does it",
    ".venv/bin/pip install -q .": "installs 6 GB; .ci/run does it",
    ".venv/bin/pip install -q '.[test]'": "installs 6 GB; .ci/run does it",
    ".venv/bin/pytest": "is this test run",
}
SHORTENED = {
    "evacap caption sample_data/videos -o captions.csv --flag-mismatch": "--workers 0",
    "evacap caption sample_data/videos/clip-00003.mp4 --segment 5 --merge -o captions.vtt": "--workers 0",
    "evacap synth -o world --clips 100 --seed 1": "--clips 5",
    "evacap prepare world/captions.csv -o world.store --preset evacap-tiny": "--workers 0",
    "evacap train evacap-tiny --data world.store -o runs/first training.epochs=5": (
        "training.epochs=1 training.batch_size=4 --workers 0"
    ),
    "evacap caption sample_data/videos --model runs/first/last -o first.csv": "--workers 0 --max-words 4",
    "evacap evaluate --model runs/first/last --data world.store -o table1": "--metrics BLEU --max-words 4",
    "evacap robustness --probs 0,0.05,0.5,1": "--model audio-demo --seeds 0 --metrics BLEU --workers 0",
    "evacap score captions.csv sample_data/captions.csv -o scores": "--metrics BLEU",
    "evacap speed --frames 0,1,4,8,18": "--model evacap-tiny --warmup 0 --runs 1 --words 2",
}
"""Commands that take long, and the arguments added to them here. Of an option given twice the last one counts. The
README's first command runs unchanged, in worker processes."""


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """The commands in the shell blocks of a document, without comments; lines are joined and `&&` splits them."""
    lines = "".join(blocks(path, "sh")).replace("\\\n", " ").splitlines()
    kept = (re.sub(r"\s+#.*", "", line).strip() for line in lines)
    return [part.strip() for line in kept if line for part in line.split("&&")]


@cache
def command_of_the_app() -> Any:
    return typer.main.get_command(app)


def parse(args: list[str]) -> None:
    """Parses the arguments of `evacap` without running anything; raises click's errors."""
    command = command_of_the_app()
    context = command.make_context("evacap", list(args))
    while hasattr(command, "resolve_command"):
        name, command, args = command.resolve_command(context, args)
        context = command.make_context(name, list(args), parent=context)


def arguments(command: str) -> list[str] | None:
    """What follows `evacap` in a command of a document; None for other programs."""
    words = shlex.split(command)
    if "evacap_cli" in words:  # python -m evacap_cli, torchrun -m evacap_cli
        return words[words.index("evacap_cli") + 1 :]
    return words[1:] if words[0] in ("evacap", ".venv/bin/evacap") else None


def anchors(path: Path) -> set[str]:
    """The names under which GitHub links to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def messages() -> list[str]:
    """All texts in the package's source; what is filled in is a NUL."""
    found = []
    for path in (ROOT / "evacap_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def captioned(table: str) -> list[list[str]]:
    """What a table of captions says, without the scores, whose last digits depend on the machine."""
    columns = ("video", "start", "end", "caption", "status", "error")
    return [[row[name] for name in columns] for row in csv.DictReader(io.StringIO(table))]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_parse(path: Path) -> None:
    for command in commands(path):
        args = arguments(command)
        if args is not None:
            parse(args)


def named_modules(path: Path) -> Iterator[tuple[str, list[Path]]]:
    """Each `path.py` of a document with the places where it may be: in the repository, in the package, in the folder of
    the heading (`real/`) or next to the path before it in the line."""
    section = path.parent
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("## "):
            folder = re.match(r"## `(\w+)/`", line)
            section = path.parent / folder[1] if folder else path.parent
        before = section
        for name in re.findall(r"`([\w/]+\.py)`", line):
            places = [folder / name for folder in (ROOT, PACKAGE, section, before)]
            before = next((place.parent for place in places if place.is_file()), before)
            yield name, places


@pytest.mark.parametrize("name", ["docs/architecture.md", "benchmarks/README.md"])
def test_named_modules_exist(name: str) -> None:
    found = list(named_modules(ROOT / name))
    assert found
    assert not [module for module, places in found if not any(place.is_file() for place in places)]


def test_every_module_is_listed() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE)
    made = {str(path.relative_to(PACKAGE).as_posix()) for path in PACKAGE.rglob("*.py")}
    assert sorted(listed) == sorted(name for name in made if not name.endswith("__init__.py"))


def test_every_benchmark_is_listed() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    scripts = [path for path in (ROOT / "benchmarks").rglob("*.py") if path.name != "__init__.py"]
    assert not [path for path in scripts if f"`{path.name}" not in text]


def test_troubleshooting_lists_messages_that_exist() -> None:
    text, known = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), messages()
    tables = text[: text.index("## Installation")]
    listed = re.findall(r"^\| `([^`]+)`", tables, re.MULTILINE)
    assert listed
    assert not [message for message in listed if not any(message in one for one in known)]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_commands_of_the_readme_run(evacap: Evacap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVACAP_CACHE", str(tmp_path / "cache"))
    pairs = sample.read_pairs()[:5]
    monkeypatch.setattr(sample, "read_pairs", lambda: pairs)
    found = commands(ROOT / "README.md")
    assert {*NOT_RUN, *SHORTENED} <= set(found)
    for command in found:
        if command in NOT_RUN:
            continue
        if command.startswith("cat "):
            assert Path(command.removeprefix("cat ")).is_file()
            continue
        args = arguments(command)
        assert args is not None, f"{command}: give the reason in NOT_RUN, or run it here"
        result = evacap(*args, *shlex.split(SHORTENED.get(command, "")))
        assert result.exit_code == 0, f"{command}\n{result.output}"
    table = re.search(
        r"^```\n(video,.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert table
    assert captioned(table[1]) == captioned(Path("out.csv").read_text("utf-8"))


@pytest.mark.parametrize("name", ["README.md", pytest.param("docs/python.md", marks=pytest.mark.slow)])
def test_python_examples_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "sample_data" / "videos"
    videos.mkdir(parents=True)
    shutil.copy(ROOT / "sample_data" / "videos" / "03_dog.mp4", videos)
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / name, "python"):
        exec(compile(block, name, "exec"), {"__name__": "example"})
    assert "a dog barks" in capsys.readouterr().out
    assert "example" not in sys.modules
