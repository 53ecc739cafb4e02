"""Media files that claim what cannot be: sizes, rates, times and numbers of streams beyond belief, and texts that name
other files. Written byte by byte: no muxer would.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .clips import write

RATE = 8000  # Hz, of the sound in all of them that have one
Tracks = Sequence[bytes]
Blocks = Sequence[tuple[int, int, bytes]]  # track, ticks, data


# Matroska ----------------------------------------------------------------------------------------------------------


def element(name: str, *content: bytes | int | float | str, size: int | None = None) -> bytes:
    """An EBML element by its id in hex; `size` instead of its own."""
    data = b"".join(map(_raw, content))
    return bytes.fromhex(name) + struct.pack(">Q", (len(data) if size is None else size) | 1 << 56) + data


def _raw(value: bytes | int | float | str) -> bytes:
    if isinstance(value, float):
        return struct.pack(">d", value)
    if isinstance(value, int):
        return value.to_bytes(8, "big")
    return value.encode() if isinstance(value, str) else value


def sound_track(
    number: int = 1,
    rate: float = RATE,
    channels: int = 1,
    bits: int = 16,
    codec: str = "A_PCM/INT/LIT",
    private: bytes = b"",
) -> bytes:
    """private: what the decoder must know."""
    audio = element("e1", element("b5", float(rate)), element("9f", channels), element("6264", bits))
    ids = element("d7", number), element("73c5", number), element("83", 2), element("86", codec)
    return element("ae", *ids, element("63a2", private) if private else b"", audio)


def picture_track(
    number: int = 2, width: int = 32, height: int = 24, codec: str = "V_MJPEG", duration: int | None = None
) -> bytes:
    """codec: Matroska's name, or four letters, those of AVI. duration: nanoseconds a frame."""
    video = element("e0", element("b0", width), element("ba", height))
    every = element("23e383", duration) if duration else b""
    if len(codec) == 4:
        every += element("63a2", struct.pack("<IIIHH4s20x", 40, width, height, 1, 64, codec.encode()))
        codec = "V_MS/VFW/FOURCC"
    ids = element("d7", number), element("73c5", number), element("83", 1), element("86", codec)
    return element("ae", *ids, every, video)


def matroska(
    tracks: Tracks,
    blocks: Blocks,
    scale: int = 1_000_000,
    duration: float | None = None,
    clock: int = 0,
    more: bytes = b"",
) -> bytes:
    """scale: nanoseconds a tick; duration: ticks, as the header claims; clock: ticks, of the first cluster; more:
    elements between the tracks and the clusters.
    """
    head = element("1a45dfa3", element("4282", "matroska"))
    length = element("4489", duration) if duration is not None else b""
    info = element("1549a966", element("2ad7b1", scale), length)
    clusters = [
        element(
            "1f43b675",
            element("e7", max(0, clock + ticks)),
            element("a3", bytes([0x80 | track, 0, 0, 0x80]), data),
        )
        for track, ticks, data in blocks
    ]
    return head + element("18538067", info, element("1654ae6b", *tracks), more, *clusters)


def sound(seconds: float = 0.1, rate: int = RATE) -> bytes:
    """Noise, 16 bits, one channel."""
    return np.random.default_rng(0).integers(-9999, 9999, round(seconds * rate), dtype=np.int16).tobytes()


def jpeg(width: int = 32, height: int = 24) -> bytes:
    """A picture of 32 x 24 that says it is larger."""
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (90, 40, 20)).save(file, "jpeg")
    data = file.getvalue()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def png(width: int, height: int) -> bytes:
    """The first lines of a picture of 16 bits a colour, with transparency: 8 bytes a pixel when it is decoded."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    lines = zlib.compress(bytes((1 + 8 * width) * 4), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def both(
    picture: bytes = b"", times: Sequence[int] = range(0, 1000, 100), channels: int = 1
) -> list[tuple[int, int, bytes]]:
    """A tenth of a second of sound and a picture at each of the times, in milliseconds."""
    heard = sound(0.1 * channels)
    return [block for time in times for block in ((1, time, heard), (2, time, picture or jpeg()))]


def in_matroska() -> Iterator[tuple[str, bytes]]:
    pair = [sound_track(), picture_track()]
    year = 365 * 86_400_000  # milliseconds
    yield "whole", matroska(pair, both(), duration=1000.0)
    for name, value in {"years": 9e12, "endless": math.inf, "nan": math.nan, "minus": -1e9}.items():
        yield f"duration-{name}", matroska(pair, both(), duration=value)
    for name, scale in {"zero": 0, "huge": 2**62, "one": 1, "minus": 2**64 - 1}.items():
        yield f"scale-{name}", matroska(pair, both(), scale=scale)
    yield "time-backwards", matroska(pair, both(times=range(1000, 0, -100)))
    yield "time-zigzag", matroska(pair, both(times=[0, 900, 100, 800, 5, 700, 50_000, 3]))
    yield "time-same", matroska(pair, both(times=[0] * 10))
    yield (
        "time-years",
        matroska(pair, both(times=[0, year, 2 * year, 90 * year, 100, 200]), duration=100.0 * year),
    )
    yield "time-late", matroska(pair, both(), clock=400 * year)
    yield "time-last", matroska(pair, both(), clock=2**63 - 1000)
    yield (
        "time-hours",
        matroska(pair, both(times=range(0, 2000 * 3_600_000, 3_600_000)), duration=2e3 * 3.6e6),
    )
    yield "time-minutes", matroska(pair, both(times=range(0, 400 * 50_000, 50_000)), duration=2e7)
    yield "apart", matroska(pair, [(1, 0, sound(1.0)), (2, 50 * year, jpeg()), (1, 1000, sound(1.0))])
    for rate in (0.0, -8000.0, 0.5, 1.0, 99.0, 767_999.0, 2.0**31 - 1, 1e300, math.nan, math.inf):
        yield f"rate-{rate:g}", matroska([sound_track(rate=rate), picture_track()], both())
    for channels in (0, 8, 9, 64, 65, 255, 65_536, 2**32):
        blocks = both(channels=min(channels, 255))
        yield f"channels-{channels}", matroska([sound_track(channels=channels), picture_track()], blocks)
    for bits in (0, 1, 8, 12, 24, 64, 255):
        for codec in ("A_PCM/INT/LIT", "A_PCM/FLOAT/IEEE"):
            yield f"bits-{codec[6:9]}-{bits}", matroska([sound_track(bits=bits, codec=codec)], both())
    floats = np.array([0, np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-45] * 300, np.float32).tobytes()
    yield "floats", matroska([sound_track(bits=32, codec="A_PCM/FLOAT/IEEE")], [(1, 0, floats)])
    for width, height in ((1, 1), (16_384, 16_384), (8192, 8193), (65_535, 65_535), (65_535, 1), (1, 65_535)):
        track = [sound_track(), picture_track(width=width, height=height)]
        yield f"jpeg-{width}x{height}", matroska(track, both(jpeg(width, height)))
        yield f"header-{width}x{height}", matroska(track, both())
        yield f"bitstream-{width}x{height}", matroska(pair, both(jpeg(width, height)))
    grows = list(both()) + [(2, 1000 + i, jpeg(16_000, 16_000)) for i in range(5)]
    yield "grows", matroska(pair, grows)
    for width, height in ((16_000, 16_000), (65_535, 3), (8000, 64)):
        track = picture_track(codec="MPNG")
        yield f"png-{width}x{height}", matroska([sound_track(), track], both(png(width, height)))
    yield "fps", matroska([sound_track(), picture_track(duration=1)], both())
    yield "fps-many", matroska(pair, [(1, 0, sound(1.0)), *[(2, 0, jpeg())] * 3000], scale=1000)
    yield "still", matroska(pair, [(2, 0, jpeg()), *[(1, 100 * i, sound()) for i in range(10)]])
    streams = [sound_track(n) if n % 2 else picture_track(n) for n in range(1, 4000)]
    yield "streams", matroska(streams, both())
    yield "same-numbers", matroska([sound_track(1), picture_track(1)] * 50, both())
    nested = element("1c53bb6b")
    for _ in range(3000):
        nested = element("1f43b675", nested)
    yield "nested", element("1a45dfa3", element("4282", "matroska")) + element("18538067", nested)
    yield (
        "sizes",
        matroska(pair, both()).replace(bytes.fromhex("1f43b67501"), bytes.fromhex("1f43b67501ffff")),
    )


# RIFF and other plain sound ----------------------------------------------------------------------------------------


def wav(
    data: bytes,
    rate: int = RATE,
    channels: int = 1,
    bits: int = 16,
    tag: int = 1,
    block: int | None = None,
    size: int = 0,
) -> bytes:
    """size: bytes of sound that the header claims, 0: as many as there are."""
    block = channels * bits // 8 if block is None else block
    head = struct.pack("<HHIIHH", tag, channels % 2**16, rate, rate * block % 2**32, block % 2**16, bits)
    body = (
        b"WAVEfmt "
        + struct.pack("<I", len(head))
        + head
        + b"data"
        + struct.pack("<I", size or len(data))
        + data
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def as_wav() -> Iterator[tuple[str, bytes]]:
    noise = sound(1.0)
    for rate in (0, 1, 2, 99, 100, 999_983, 2**31 - 1, 2**31, 2**32 - 1):
        yield f"rate-{rate}", wav(noise, rate)
    for channels in (0, 7, 8, 63, 64, 255, 65_535):
        yield f"channels-{channels}", wav(noise * min(channels or 1, 255), channels=channels)
    for bits in (0, 1, 7, 8, 24, 33, 64, 255, 65_535):
        yield f"bits-{bits}", wav(noise, bits=bits)
    for tag in (0, 2, 3, 6, 0x11, 0x31, 0x50, 0x55, 0x161, 0x2000, 0xFFFE, 0xFFFF):
        yield f"tag-{tag:x}", wav(noise, tag=tag)
        yield f"tag-{tag:x}-block", wav(noise, tag=tag, block=1, bits=4)
    yield "claims-hours", wav(noise, size=2**32 - 1)
    yield "claims-a-day", wav(noise, rate=100, bits=8, size=2**31 - 1)
    yield "slow", wav(noise * 10, rate=100, bits=8)
    nested = b"data" + struct.pack("<I", len(noise)) + noise
    for _ in range(5000):
        nested = b"LIST" + struct.pack("<I", len(nested) + 4) + b"INFO" + nested[:100_000]
    yield "nested", b"RIFF" + struct.pack("<I", len(nested)) + b"WAVE" + nested


# MP4, AVI, MPEG-TS ----------------------------------------------------------------------------------------------------


def as_mp4(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Fields of a real file's boxes, one at a time."""

    def patched(box: bytes, offset: int, value: bytes, all_of_them: bool = True) -> bytes:
        """offset: from the end of the box' name."""
        data, at = bytearray(whole), -1
        while (at := data.find(box, at + 1)) >= 0:
            data[at + 4 + offset : at + 4 + offset + len(value)] = value
            if not all_of_them:
                break
        return bytes(data)

    high, full = b"\x7f\xff\xff\xff", b"\xff" * 4
    for box in (b"mvhd", b"mdhd"):
        for name, value in {"zero": b"\0" * 4, "one": b"\0\0\0\1", "high": high, "full": full}.items():
            yield f"{box.decode()}-clock-{name}", patched(box, 12, value)
            yield f"{box.decode()}-duration-{name}", patched(box, 16, value)
    for box, places in {
        b"stts": (4, 8, 12),
        b"stsz": (4, 8, 12),
        b"stsc": (4, 8, 12, 16),
        b"stco": (4, 8),
    }.items():
        for place in places:
            for name, value in {"zero": b"\0" * 4, "high": high, "full": full}.items():
                yield f"{box.decode()}-{place}-{name}", patched(box, place, value)
    for name, value in {"minus": struct.pack(">i", -(2**31)), "high": high}.items():
        yield f"elst-start-{name}", patched(b"elst", 12, value)
        yield f"elst-length-{name}", patched(b"elst", 8, value)
    yield "matrix", patched(b"tkhd", 40, bytes(range(36)))
    for name, value in {"full": b"\xff\xff\xff\xff", "wide": b"\xff\xff\0\1", "zero": b"\0" * 4}.items():
        yield f"size-{name}", patched(b"avc1", 24, value, all_of_them=False)
    for name, value in {"zero": b"\0" * 4, "one": b"\0\0\0\1", "full": full, "seven": b"\0\0\0\7"}.items():
        for box in (b"moov", b"trak", b"stbl", b"mdat"):
            yield f"{box.decode()}-size-{name}", patched(box, -8, value, all_of_them=False)
    nested = b""
    for _ in range(20_000):
        nested = struct.pack(">I", len(nested) + 8) + b"moov" + nested
    yield "nested", whole[:32] + nested
    at = whole.index(b"trak") - 4
    (size,) = struct.unpack(">I", whole[at : at + 4])
    head = whole.index(b"moov") - 4
    inner = whole[head + 8 : at] + whole[at : at + size] * 3000
    yield "streams", whole[:head] + struct.pack(">I", len(inner) + 8) + b"moov" + inner
    yield "elsewhere", patched(b"url ", 3, b"\0" + b"secret.mp4\0", all_of_them=False)


def as_ts() -> bytes:
    """MPEG-TS with four thousand streams: twenty programmes of two hundred."""

    def section(pid: int, table: int, number: int, body: bytes) -> bytes:
        data = struct.pack(">BHHBBB", table, 0xB000 | len(body) + 9, number, 0xC1, 0, 0) + body
        data = b"\0" + data + struct.pack(">I", _crc(data))
        packets = []
        for i, first in enumerate(range(0, len(data), 184)):
            start = 0x4000 if first == 0 else 0
            packets.append(
                struct.pack(">BHB", 0x47, start | pid, 0x10 | i % 16)
                + data[first : first + 184].ljust(184, b"\xff")
            )
        return b"".join(packets)

    programs = range(1, 21)
    out = section(0, 0, 1, b"".join(struct.pack(">HH", n, 0xE000 | 0x1000 + n) for n in programs))
    for n in programs:
        streams = b"".join(
            struct.pack(">BHH", 0x1B if i % 2 else 3, 0xE000 | 200 * n + i, 0xF000) for i in range(200)
        )
        out += section(0x1000 + n, 2, n, struct.pack(">HH", 0xE000 | 200 * n, 0xF000) + streams)
    return out * 20


def _crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


# Texts that name other files ------------------------------------------------------------------------------------------


def naming(other: str, address: str) -> dict[str, bytes]:
    """Playlists and the like, by file name, that have a reader open a file or an address ("host:port")."""
    host, port = address.rsplit(":", 1)
    http = f"http://{address}/x.ts"
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    sdp = f"v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nt=0 0\nm=audio {port} RTP/AVP 0\n"
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    texts = {
        "file.m3u8": hls.format(other),
        "whole-name.m3u8": hls.format(f"file:{Path(other).absolute()}"),
        "web.m3u8": hls.format(http),
        "key.m3u8": hls.format(other).replace("#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{http}"\n#EXTINF'),
        "joined.m3u8": hls.format(f"concat:{other}|{other}"),
        "concat.mp4": f"ffconcat version 1.0\nfile {other}\n",
        "concat-web.wav": f"ffconcat version 1.0\nfile {http}\n",
        "session.sdp": sdp,
        "session.mp4": sdp,
        "dash.mpd": dash.format(other),
        "dash-web.mpd": dash.format(http),
        "sub.idx": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 000000000\n"
        f"# {other}\n",
        "list.asx": f'<asx version="3.0"><entry><ref href="{http}"/></entry></asx>',
        "list.wmv": f"[Reference]\nRef1={http}\n",
        "list.pls": f"[playlist]\nFile1={other}\nNumberOfEntries=1\n",
        "list.ram": f"{http}\n",
        "links.mov": "rtsptext" + http,
        "picture.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{http}"/></svg>',
        "entity.xml": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{other}">]><tt>&e;</tt>',
        "words.ass": f"[Script Info]\nScriptType: v4.00+\n[Fonts]\nfontname: {other}\n",
        "page.avs": f'AviSource("{other}")',
    }
    files = {name: text.encode() for name, text in texts.items()}
    files["numbered-%d.jpg"] = jpeg()
    files["padded.ts"] = hls.format(other).encode().ljust(188, b"\n") + b"G@\0\x10".ljust(188, b"\xff") * 40
    return files


# All of them ----------------------------------------------------------------------------------------------------------


def craft(folder: Path) -> Iterator[Path]:
    """Writes them all."""
    whole = write(folder / "seed.mp4", 0.6, rate=16_000, fps=10, size=(32, 24)).read_bytes()
    groups: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
        "mkv": in_matroska,
        "wav": as_wav,
        "mp4": lambda: as_mp4(whole),
        "ts": lambda: iter([("streams", as_ts())]),
        "mka": lambda: iter([("silence-bomb", silence(5000))]),
    }
    (folder / "seed.mp4").unlink()
    for suffix, files in groups.items():
        for name, data in files():
            path = folder / f"crafted-{name}.{suffix}"
            path.write_bytes(data)
            yield path
    for name, data in naming("secret.mp4", "127.0.0.1:9").items():
        path = folder / f"crafted-{name}"
        path.write_bytes(data)
        yield path


def silence(seconds: float) -> bytes:
    """FLAC in Matroska that says the same 8 seconds without a sound again and again, in 14 bytes each."""
    encoder = av.CodecContext.create("flac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.options = {"frame_size": "65535"}
    encoder.open()
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 65_535), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts = RATE, 0
    packets = encoder.encode(frame) + encoder.encode(None)
    info = encoder.extradata or b""
    track = sound_track(codec="A_FLAC", private=b"fLaC\x80" + len(info).to_bytes(3, "big") + info)
    step = 65_535 / RATE
    times = range(math.ceil(seconds / step))
    return matroska([track], [(1, round(1000 * step * i), bytes(packets[0])) for i in times])
