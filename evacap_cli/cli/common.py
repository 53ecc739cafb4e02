"""Shared parts of the commands: options, exit codes, messages on stderr and JSON summaries."""

from __future__ import annotations

import errno
import functools
import inspect
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Annotated, Any, TypeVar

import typer

from evacap_cli.cache import check_compiler_cache
from evacap_cli.errors import EvacapError, UsageError

INTERRUPTED, SOME_FAILED = 130, 3
MEMORY_MESSAGES = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "failed to map segment",
    "can't start new thread", "std::bad_alloc",
)  # fmt: skip
MACHINE, MEDIA, OUTPUT = "Machine", "Audio and frames", "Messages"

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=OUTPUT)]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Print more about each step and each clip.", rich_help_panel=OUTPUT),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print a summary as one line of JSON on stdout.", rich_help_panel=OUTPUT),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Print the traceback of an error, and technical details such as the attention kernel.",
        rich_help_panel=OUTPUT,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, mps, cuda or cuda:N. auto: CUDA if available, then MPS, then the CPU.",
        rich_help_panel=MACHINE,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto, fp32, bf16 or fp16. auto: bf16 on a GPU that supports it, else fp32.",
        rich_help_panel=MACHINE,
    ),
]
AudioTrack = Annotated[
    str | None,
    typer.Option(
        metavar="N|LANG",
        help="Audio track to use: its number, counted from 1, or its language, such as eng.",
        show_default="the one a player would play, unless it is empty or silent",
        rich_help_panel=MEDIA,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Clips per batch.", show_default="16; 64 on a GPU", rich_help_panel=MACHINE),
]
DecodingTimeout = Annotated[
    float, typer.Option(help="Time limit for decoding one clip, in seconds.", rich_help_panel=MACHINE)
]
DecodingMemory = Annotated[
    float,
    typer.Option(help="Memory limit of one decoding process, in GiB. 0: no limit.", rich_help_panel=MACHINE),
]
F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", int, float)


def decoding_workers(show_default: str) -> Any:
    """Returns the option --workers of the commands that decode media."""
    return typer.Option(
        help="Decoding processes. 0 decodes in the main process, which a damaged file can crash or block.",
        show_default=show_default,
        rich_help_panel=MACHINE,
    )


def register(app: typer.Typer, name: str | None = None, needs_arguments: bool = True) -> Callable[[F], F]:
    """Decorator that adds a `guarded` function to `app` as a command.

    The text after `Examples:` in its docstring is shown after the options. `needs_arguments`: without arguments, the
    command prints its help.
    """

    def add(command: F) -> F:
        about, _, examples = (inspect.getdoc(command) or "").partition("\nExamples:\n")
        about = "\n\n".join(" ".join(paragraph.split()) for paragraph in about.split("\n\n"))
        epilog = f"Examples:\n{examples}" if examples else None
        app.command(name, no_args_is_help=needs_arguments, help=about, epilog=epilog)(guarded(command))
        return command

    return add


def guarded(command: F) -> F:
    """Converts exceptions of a command to a message on stderr and an exit code; tracebacks only with --debug."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        interrupts = _Interrupts()
        try:
            with interrupts, _log_shown(bool(kwargs.get("debug"))):
                if (note := check_compiler_cache()) and not kwargs.get("quiet"):
                    say(note)
                return command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            code = _interrupted(interrupt, kwargs.get("debug"))
        except (
            BrokenPipeError
        ):  # the reader of stdout has exited: suppress further writes, also those at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except Exception as error:
            if isinstance(error, typer.Exit) or type(error).__module__.startswith(("click", "typer")):
                raise
            # Some C extensions convert an interrupt to another error, such as numpy during its import.
            code = (_interrupted if interrupts.received else _failed)(error, kwargs.get("debug"))
        raise typer.Exit(code) from None

    return run  # type: ignore[return-value]


class _SayHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"debug: {record.getMessage()}")


@contextmanager
def _log_shown(wanted: bool) -> Iterator[None]:
    """Prints the messages that the package logs, as long as the context is open."""
    if not wanted:
        yield
        return
    logger, handler = logging.getLogger("evacap_cli"), _SayHandler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _interrupted(interrupt: BaseException, debug: bool | None) -> int:
    if debug:
        traceback.print_exc()
    notes = interrupt.args if isinstance(interrupt, KeyboardInterrupt) else ()
    say(f"interrupted{''.join(f'; {note}' for note in notes)}")
    return INTERRUPTED


def _failed(error: Exception, debug: bool | None) -> int:
    """Prints the message and returns the exit code."""
    if debug:
        traceback.print_exc()
    known = error if isinstance(error, EvacapError) else _out_of_memory(error)
    if known is None:
        known = EvacapError(
            f"{type(error).__name__}: {error}",
            "this should not happen; run it again with --debug and report what it shows",
        )
    say(f"error: {known.message}")
    if known.cure:
        say(f"  cure: {known.cure}")
    return known.exit_code


def _out_of_memory(error: Exception) -> EvacapError | None:
    """Returns the message for an out-of-memory error of Python, PyTorch or the linker; None for other errors."""
    text = " ".join(str(error).split())
    known = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    if not known and not any(message in text.lower() for message in MEMORY_MESSAGES):
        return None
    if limit := _address_space():
        return EvacapError(
            f"out of memory: the address space of a process is limited to {limit / 2**30:.1f} GiB (ulimit -v), but "
            "PyTorch reserves much more of it than it uses",
            "ulimit -v unlimited; in a batch system, request 16 GiB of virtual memory or more",
        )
    return EvacapError(
        f"out of memory ({type(error).__name__}: {text[:200]})",
        "close other programs, or use a smaller batch size or fewer --workers",
    )


def _address_space() -> int:
    """Returns the limit on the address space in bytes, 0 for none."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 0
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 0 if limit == resource.RLIM_INFINITY else limit


class _Interrupts:
    """Context in which Ctrl-C and SIGTERM raise KeyboardInterrupt, unless they are ignored, as Ctrl-C is in background
    jobs of a shell. `received`: whether one was received."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        with suppress(ValueError):  # not the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                if (before := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    signal.signal(number, self._interrupt)
                    self._before[number] = before

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _interrupt(self, *_: object) -> None:
        self.received = True
        raise KeyboardInterrupt


def say(text: str) -> None:
    """Prints a message on stderr, with control characters escaped."""
    print("\n".join(map(shown, text.split("\n"))), file=sys.stderr, flush=True)


def say_precision(precision: str, device: str, quiet: bool) -> None:
    """Prints a note if a precision is slow or not supported on this machine."""
    from evacap_cli.tasks.devices import pick_device, precision_note

    note = precision_note(precision, pick_device(device))
    if note and not quiet:
        say(note)


def parse_numbers(option: str, text: str, example: str, number: Callable[[str], N]) -> tuple[N, ...]:
    """Parses numbers separated by commas with `number`, such as `int`. Raises UsageError."""
    try:
        return tuple(number(part) for part in text.split(",") if part.strip())
    except ValueError:
        kind = "whole numbers" if number is int else "numbers"
        raise UsageError(
            f"{option} {text}: not a list of {kind}", f"separate numbers by commas, such as {example}"
        ) from None


def say_unavailable(unavailable: Mapping[str, str], cures: Iterable[str] = ()) -> None:
    """Prints the reason of each metric that could not be computed, and the cures."""
    for name, reason in unavailable.items():
        say(f"{name}: n/a: {reason.removeprefix(f'{name}: ')}")
    for cure in dict.fromkeys(cures) if unavailable else ():
        say(f"  cure: {cure}")


def shown(text: str) -> str:
    """Returns `text` for one line of a terminal, with unprintable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def summary(values: dict[str, Any]) -> None:
    """Prints a summary as one line of JSON on stdout."""
    print(json.dumps(values), flush=True)
