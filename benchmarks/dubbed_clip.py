"""Plots the gate of one clip with its own picture and with the picture of another clip.

    python benchmarks/dubbed_clip.py SOUND.mp4 PICTURE.mp4 -o FOLDER

Writes to FOLDER: dubbed.mp4 (both streams are copied without re-encoding), the files of `evacap caption --curves` for
the two clips, and both.png with their plots side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
from PIL import Image

from evacap_cli.tasks.captioning.engine import Captioner
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.options import CaptionOptions
from evacap_cli.tasks.captioning.outputs.gate_curves import GateCurves
from evacap_cli.tasks.mismatch import probability


def dub(sound: Path, picture: Path, out: Path) -> None:
    """Combines the audio of one file with the video of another. The output has the length of the shorter stream."""
    with av.open(str(sound)) as heard, av.open(str(picture)) as seen, av.open(str(out), "w") as made:
        streams = (heard.streams.audio[0], seen.streams.video[0])
        end = min(float(stream.duration * stream.time_base) for stream in streams if stream.duration)
        packets = []
        for stream in streams:
            copy = made.add_stream_from_template(stream)
            for packet in stream.container.demux(stream):
                if packet.dts is not None and packet.pts * packet.time_base < end:
                    packets.append((float(packet.dts * packet.time_base), packet, copy))
        for _, packet, copy in sorted(packets, key=lambda item: item[0]):
            packet.stream = copy
            made.mux(packet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sound", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    dubbed = args.out / "dubbed.mp4"
    dub(args.sound, args.picture, dubbed)

    captioner = Captioner.load(args.model)
    curves = GateCurves(args.out, captioner.checkpoint)
    pictures = []
    for source, (row,) in captioner.rows(
        find_sources([args.sound, dubbed]), CaptionOptions(workers=0), on_clip=curves.add
    ):
        model, numbers = captioner.checkpoint.model, {"gate": row.gate, "entropy": row.entropy}
        told = (
            row.mismatch if model.has_evidence else probability(captioner.checkpoint, row.gate, row.entropy)
        )
        said = [
            f"{name} {value:.3f}"
            for name, value in {**numbers, "mismatch": told}.items()
            if value is not None
        ]
        print(f"{row.video}: {row.caption} ({', '.join(said)})")
        pictures.append(Image.open(args.out / f"{source.relative}.png").convert("RGB"))
    both = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    for i, picture in enumerate(pictures):
        both.paste(picture, (i * pictures[0].width, 0))
    both.quantize(256, Image.Quantize.FASTOCTREE).save(args.out / "both.png")
    print(f"{args.out / 'both.png'}: {(args.out / 'both.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
