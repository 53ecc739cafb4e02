"""`evacap prepare`: decodes the clips of a manifest into a feature store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evacap_cli.cli.cluster import Ray, cluster_options
from evacap_cli.cli.common import (
    MEDIA,
    SOME_FAILED,
    AudioTrack,
    Debug,
    DecodingMemory,
    DecodingTimeout,
    Json,
    Quiet,
    Verbose,
    decoding_workers,
    say,
    shown,
    summary,
)
from evacap_cli.cli.progress import ProgressBar

STORE = "Feature store"
MAX_CAUSES = 8  # causes of failure in a message
MAX_NOTES = 1000  # notes in the JSON summary


def prepare(
    manifest: Annotated[
        str,
        typer.Argument(
            help="Table of clips and captions: .csv, .json, .jsonl or .parquet; or WebDataset shards, such as "
            "'train-{000..099}.tar', or .parquet with bytes, also as URLs.",
            metavar="PATH",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder of the feature store. An existing store is continued.")
    ],
    media: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the media files, searched recursively.", show_default="folder of the manifest"
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Preset that defines the features.", show_default="evacap-base", rich_help_panel=MEDIA
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint or packaged model that defines the features, instead of --preset.",
            rich_help_panel=MEDIA,
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="Which 10 s of a longer file to use if the manifest does not say: loudest, start or middle.",
            rich_help_panel=MEDIA,
        ),
    ] = "loudest",
    audio_track: AudioTrack = None,
    frames_format: Annotated[
        str,
        typer.Option(help="Storage of frames: jpeg, or raw for exact pixels.", rich_help_panel=STORE),
    ] = "jpeg",
    jpeg_quality: Annotated[int, typer.Option(help="JPEG quality, 1 to 100.", rich_help_panel=STORE)] = 95,
    shard_clips: Annotated[int, typer.Option(help="Clips per shard.", rich_help_panel=STORE)] = 256,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Retry the clips that failed in an earlier run.", rich_help_panel=STORE
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Discard an existing store and decode all clips again.", rich_help_panel=STORE
        ),
    ] = False,
    workers: Annotated[int | None, decoding_workers("number of cores")] = None,
    timeout: DecodingTimeout = 300.0,
    memory: DecodingMemory = 4.0,
    ray: Ray = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Decode the clips of a table into a feature store for training.

    Run the same command again to resume an interrupted run. The exit code is 3 if some clips failed; the index of the
    store lists them with the cause.

    Examples:
    evacap prepare train.csv -o train.store --media ./videos
    evacap prepare train.csv -o train.store --preset evacap-tiny
    """
    from evacap_cli.tasks.preparing import features_of, group_failures
    from evacap_cli.tasks.preparing import prepare as prepare_store

    cluster = cluster_options(ray, decoders=workers)
    with ProgressBar("prepare", quiet=quiet) as bar:
        started = False

        def show(done: int, total: int) -> None:
            nonlocal started
            if not started:
                bar.begin("prepare", total, done=done)
                started = True
            bar.update(done)

        try:
            made = prepare_store(
                manifest,
                out,
                features_of(preset, model),
                media=media,
                progress=show,
                cluster=cluster,
                frames_format=frames_format,
                jpeg_quality=jpeg_quality,
                window=window,
                audio_track=audio_track,
                workers=workers,
                timeout=timeout,
                memory=memory,
                shard_clips=shard_clips,
                retry_failed=retry_failed,
                overwrite=overwrite,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"finished clips are in {out}; run the same command again to resume"
            ) from None
    total, good = sum(made.counts.values()), made.counts["ok"] + made.counts["audio-only"]
    rate, each = made.new / max(made.seconds, 1e-9), made.bytes / max(made.clips, 1)
    causes = group_failures(made.failed)
    if made.damaged:
        say(f"{out}: damaged or missing, and made again: {', '.join(made.damaged)}")
    if not quiet:
        parts = ", ".join(f"{count} {status}" for status, count in made.counts.items())
        new = f"{made.new} new in {made.seconds:.1f} s, {rate:.2f} clips/s" if made.new else "nothing new"
        say(f"{total} clips: {parts}; {new}")
        for cause in causes[:MAX_CAUSES]:
            names = ", ".join(map(shown, cause.first)) + ", ..." * (cause.count > len(cause.first))
            say(f"  {cause.count} {cause.status}: {shown(cause.error)}: {names}")
        if len(causes) > MAX_CAUSES:
            say(f"  and {len(causes) - MAX_CAUSES} other causes: see --verbose or {out / 'index.parquet'}")
        other = f" ({made.other} from other manifests)" if made.other else ""
        say(f"{out}: {made.clips} clips{other}, {made.bytes / 1e6:.1f} MB, {each / 1e3:.0f} kB per clip")
    if verbose:
        for row in made.failed:
            say(f"{row['status']}: {shown(row['source'])}: {shown(row['error'])}")
        for row in made.notes:
            say(f"{shown(row['source'])}: {shown(row['note'])}")
    if json:
        summary({"out": str(out), "clips": total, **made.counts, "new": made.new, "stored": made.clips,
                 "other": made.other, "bytes": made.bytes, "bytes_per_clip": round(each),
                 "seconds": round(made.seconds, 3), "clips_per_second": round(rate, 3),
                 "causes": [asdict(cause) for cause in causes], "notes": made.notes[:MAX_NOTES]})  # fmt: skip
    if total > good:
        raise typer.Exit(SOME_FAILED if good else 1)
