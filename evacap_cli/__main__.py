"""Entry point of `evacap` and of `python -m evacap_cli`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Runs the command. Ctrl-C and SIGTERM exit with status 130 and no traceback, even during imports. When the command
    is done, they end the process without a word: its outputs are complete."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        from evacap_cli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
