"""The direction of imports, read from the source: cli -> tasks -> the rooms that know one thing each."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import evacap_cli

PACKAGE = Path(evacap_cli.__file__).parent
Graph = dict[str, set[str]]

# Every room of the package, and the rooms that it may import. All may import `errors`, `atomic`, `cache` and
# `version`, and none the package itself, which imports `tasks`.
MAY_IMPORT = {
    "cli": {"tasks", "report", "metrics", "media"},
    "tasks": {"data", "features", "media", "metrics", "model", "report", "world"},
    "report": {"features", "metrics"},
    "data": {"features", "media"},
    "metrics": {"data", "media"},
    "features": set[str](),
    "media": set[str](),
    "model": set[str](),
    "world": set[str](),
    "presets": set[str](),
    "errors": set[str](),
    "atomic": set[str](),
    "cache": set[str](),
    "version": set[str](),
}


def imports_of(package: Path) -> Graph:
    """Each module under a package's folder, by dotted name, and those of its own package that it imports.

    Imports inside functions and those for type checking count too: they say the same of who knows whom.
    `from package import module` is an import of the module, `from package import name` one of the package.
    """
    files = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: Graph = {}
    for name, path in files.items():
        home = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = home.split(".")[: home.count(".") + 2 - node.level] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                names = {f"{base}.{alias.name}" for alias in node.names}
                found.update(full if full in files else base for full in names)
        graph[name] = (found & files.keys()) - {name}
    return graph


def cycles(graph: Graph) -> set[tuple[str, ...]]:
    """The groups of modules each of which, over others, imports all of its group; every group sorted."""
    reached: Graph = {}
    for start in graph:
        seen: set[str] = set()
        ahead = [*graph[start]]
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead.extend(graph[module])
        reached[start] = seen
    return {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in graph
        if name in reached[name]
    }


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return imports_of(PACKAGE)


def test_every_package_has_a_rule(graph: Graph) -> None:
    assert {room(name) for name in graph} == MAY_IMPORT.keys() | {"", "__main__"}


def test_imports_point_one_way(graph: Graph) -> None:
    upward = {
        (module, target)
        for module, targets in graph.items()
        for target in targets
        if room(module) in MAY_IMPORT
        and room(target)
        not in {room(module), "errors", "atomic", "cache", "version", *MAY_IMPORT[room(module)]}
    }
    assert upward == set()


def test_no_cycles(graph: Graph) -> None:
    assert cycles(graph) == set()


def test_rules_have_no_cycle() -> None:
    assert cycles(MAY_IMPORT) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "evacap_cli.cli.app",
            {"torch", "numpy", "pandas", "av"},
        ),  # `evacap --help` and completion answer at once
        ("evacap_cli.tasks.captioning.inputs.discovery", {"torch", "pyarrow"}),  # lists while workers start
        (
            "evacap_cli.tasks.captioning.run",
            {
                "timm",
                "torchaudio",
                "torchvision",
                "torch._dynamo",
                "pandas",
                "pyarrow",
                "jinja2",
                "matplotlib",
            },
        ),
    ],
)
def test_optional_libraries_are_imported_lazily(module: str, heavy: set[str]) -> None:
    program = f"import sys, {module}; print(*{heavy} & sys.modules.keys())"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "\n"), ran.stderr


def test_reads_all_forms_of_import(tmp_path: Path) -> None:
    package = tmp_path / "p"
    (package / "q").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("import os, p.b\nfrom p import q\n")
    (package / "b.py").write_text("def f():\n    from p.q.c import thing\n")
    (package / "q" / "__init__.py").write_text("from .c import thing\n")
    (package / "q" / "c.py").write_text("from .. import a\nfrom ..b import f\nfrom . import thing\n")
    graph = imports_of(package)
    assert graph == {
        "p": set(),
        "p.a": {"p.b", "p.q"},
        "p.b": {"p.q.c"},
        "p.q": {"p.q.c"},
        "p.q.c": {"p.a", "p.b", "p.q"},
    }
    assert cycles(graph) == {("p.a", "p.b", "p.q", "p.q.c")}
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()
