"""`evacap doctor`: checks that evacap works on this machine."""

from __future__ import annotations

import typer

from evacap_cli.cli.common import Debug, Json, Quiet, say, summary


def doctor(quiet: Quiet = False, json: Json = False, debug: Debug = False) -> None:
    """Check that evacap works on this machine.

    Checks PyTorch, devices, decoders, Java and the packaged models, and prints a remedy for each problem. The exit
    code is 1 if something required is missing.

    Examples:
    evacap doctor
    evacap doctor --json
    """
    from rich.console import Console

    from evacap_cli.tasks.doctor import CHECKS, run_check

    console = Console(highlight=False)
    colors = {"ok": "green", "warn": "yellow", "fail": "red"}
    results = []
    for name, check in CHECKS.items():
        result = run_check(name, check)
        results.append(result)
        if not json and not quiet:
            console.print(f"[{colors[result.status]}]{result.status:>4}[/]  ", end="")
            console.print(f"{result.name}: {result.found}", markup=False)
            if result.cure:
                console.print(f"      cure: {result.cure}", markup=False)
    if json:
        summary({"checks": [vars(result) for result in results]})
    failed = [result.name for result in results if result.status == "fail"]
    if failed:
        say(f"not working: {', '.join(failed)}")
        raise typer.Exit(1)
