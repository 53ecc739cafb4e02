"""Entry point of `evacap` and of `python -m evacap_cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command. Ctrl-C exits with status 130 and no traceback, even during imports."""
    try:
        from evacap_cli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
