"""`evacap speed`: times each stage of captioning."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.common import (
    MACHINE,
    AudioTrack,
    Debug,
    Device,
    Json,
    Precision,
    Quiet,
    parse_numbers,
    say,
    say_precision,
    summary,
)
from evacap_cli.cli.evaluate import stages
from evacap_cli.cli.progress import ProgressBar
from evacap_cli.cli.report import ReportPage, add_folder_page, check_report
from evacap_cli.errors import UsageError

PROTOCOL = "Measurement"


def speed(
    frames: Annotated[
        str, typer.Option(help="Numbers of video frames, separated by commas. 0: audio only.")
    ] = "0,1,4,8,18",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Preset (random weights), checkpoint or packaged model. Repeat for several models.",
            show_default="evacap-base, avcap-base and audio-base",
        ),
    ] = None,
    decoding: Annotated[
        str,
        typer.Option(
            help="cached, or recompute: process the whole prefix again for every beam and word, as the public AVCap "
            "code does. Separate by commas for both."
        ),
    ] = "cached",
    end_to_end: Annotated[
        Path | None,
        typer.Option(
            help="Folder of media files to time one by one, decoding included.", show_default="random inputs"
        ),
    ] = None,
    audio_track: AudioTrack = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for speed.csv, .json, .md and .png.")
    ] = Path("speed"),
    report_page: ReportPage = None,
    batch_size: Annotated[int, typer.Option(help="Clips per batch.", rich_help_panel=PROTOCOL)] = 1,
    beam: Annotated[int, typer.Option(help="Beam width.", rich_help_panel=PROTOCOL)] = 4,
    words: Annotated[
        int, typer.Option(help="Length of every caption, in words.", rich_help_panel=PROTOCOL)
    ] = 20,
    warmup: Annotated[
        int | None,
        typer.Option(
            help="Warm-up runs, not counted.", show_default="5; 1 on a CPU", rich_help_panel=PROTOCOL
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(help="Timed runs.", show_default="10; 3 on a CPU", rich_help_panel=PROTOCOL),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile the model with torch.compile.", rich_help_panel=PROTOCOL),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads.", show_default="PyTorch's default", rich_help_panel=MACHINE),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Time each stage of captioning by number of frames (Figure 2).

    Without options, it times the full-size presets with random weights and prints the values of the paper next to them.

    Examples:
    evacap speed --frames 0,1,4,8,18 --decoding cached,recompute
    evacap speed --model demo --end-to-end ./videos
    """
    from evacap_cli.report.latency import draw_times, times_table
    from evacap_cli.report.tables import markdown, print_table
    from evacap_cli.tasks.evaluation import check_output
    from evacap_cli.tasks.speed import PRESETS, SpeedOptions, measure, measure_files, write_times

    counts = tuple(dict.fromkeys(parse_numbers("--frames", frames, "0,1,4,8,18", int)))
    decodings = tuple(dict.fromkeys(part.strip() for part in decoding.split(",") if part.strip()))
    options = SpeedOptions(
        counts,
        decodings,
        batch_size,
        beam,
        words,
        warmup,
        runs,
        device,
        precision,
        compile,
        threads,
        audio_track,
    )
    if audio_track is not None and end_to_end is None:
        raise UsageError("--audio-track needs --end-to-end")
    check_output(out)
    check_report(report_page)
    say_precision(precision, device, quiet)
    names = model or list(PRESETS)
    with ProgressBar("speed", quiet=quiet) as bar:
        show = stages(bar)
        timed = (
            measure(names, options, show)
            if end_to_end is None
            else measure_files(names, end_to_end, options, show)
        )
    header, rows, notes = times_table(timed)
    write_times(timed, out, markdown(header, rows, notes))
    if end_to_end is None:
        draw_times(timed, out / "speed.png")
    if json:
        summary(
            {"environment": timed.environment, "rows": [asdict(row) for row in timed.rows], "out": str(out)}
        )
    else:
        print_table(header, rows, notes)
    if not quiet:
        say(f"results: {out}")
    if report_page is not None:
        add_folder_page(out, report_page, quiet, debug)
