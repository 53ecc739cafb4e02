"""What all commands share: their options, errors to exit codes, words for people and summaries for programs."""

from __future__ import annotations

import errno
import functools
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import typer

from evacap_cli.errors import EvacapError
from evacap_cli.tasks.cache import check_compiler_cache

INTERRUPTED, SOME_FAILED = 130, 3
MEMORY_SIGNS = (
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
    bool, typer.Option("--debug", help="Print the traceback of an error.", rich_help_panel=OUTPUT)
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
F = TypeVar("F", bound=Callable[..., Any])


def register(app: typer.Typer, name: str | None = None, needs_arguments: bool = True) -> Callable[[F], F]:
    """Decorator that adds a function to `app` as a command, guarded.

    What stands below `Examples:` in its docstring is shown after the options. `needs_arguments`: the command prints
    its help if it gets none.
    """

    def add(command: F) -> F:
        about, _, examples = (inspect.getdoc(command) or "").partition("\nExamples:\n")
        about = "\n\n".join(" ".join(paragraph.split()) for paragraph in about.split("\n\n"))
        epilog = f"Examples:\n{examples}" if examples else None
        app.command(name, no_args_is_help=needs_arguments, help=about, epilog=epilog)(guarded(command))
        return command

    return add


def guarded(command: F) -> F:
    """Turns what a command raises into a message on stderr and an exit code; tracebacks only with --debug."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        interrupts = _Interrupts()
        try:
            with interrupts:
                if (note := check_compiler_cache()) and not kwargs.get("quiet"):
                    say(note)
                return command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            code = _interrupted(interrupt, kwargs.get("debug"))
        except BrokenPipeError:  # whoever read stdout has gone: nothing more to say to it, also not at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except Exception as error:
            if isinstance(error, typer.Exit) or type(error).__module__.startswith(("click", "typer")):
                raise
            # Some C extensions turn an interrupt into an error of their own, such as numpy's during its import.
            code = (_interrupted if interrupts.received else _failed)(error, kwargs.get("debug"))
        raise typer.Exit(code) from None

    return run  # type: ignore[return-value]


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
    """What to say of an error by which Python, PyTorch or the loader of libraries tell that memory has ended."""
    text = " ".join(str(error).split())
    told = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    if not told and not any(sign in text.lower() for sign in MEMORY_SIGNS):
        return None
    if limit := _address_space():
        return EvacapError(
            f"out of memory: the address space of a process is limited to {limit / 2**30:.1f} GiB here (ulimit -v), "
            "and PyTorch reserves much more of it than it uses",
            "ulimit -v unlimited; where a batch system sets the limit, ask it for 16 GiB of virtual memory or more",
        )
    return EvacapError(
        f"out of memory ({type(error).__name__}: {text[:200]})",
        "end other programs, or give a smaller batch size or fewer --workers",
    )


def _address_space() -> int:
    """The limit in bytes, 0 for none."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 0
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 0 if limit == resource.RLIM_INFINITY else limit


class _Interrupts:
    """Context in which Ctrl-C and SIGTERM raise KeyboardInterrupt, unless they are ignored, as Ctrl-C is in a shell's
    background jobs. `received`: whether one came."""

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
    """Words for people: stderr, control characters shown rather than obeyed."""
    print("\n".join(map(shown, text.split("\n"))), file=sys.stderr, flush=True)


def say_precision(precision: str, device: str, quiet: bool) -> None:
    """Says where a precision is not what this machine is fast in."""
    from evacap_cli.tasks.devices import pick_device, precision_note

    note = precision_note(precision, pick_device(device))
    if note and not quiet:
        say(note)


def shown(text: str) -> str:
    """`text` safe to show on one line of a terminal: what cannot be printed stands there as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def summary(values: dict[str, Any]) -> None:
    """A summary for programs: one line of JSON on stdout."""
    print(json.dumps(values), flush=True)
