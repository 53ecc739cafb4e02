"""Which files and addresses are opened meanwhile, whoever does it: Python, or a library behind its back."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPENED = 0x20  # inotify's IN_OPEN


class Opened(set[str]):
    """Names of what was opened, as known after the watch has ended."""


@contextmanager
def watched(folder: Path) -> Iterator[Opened]:
    """The names of files of `folder` that are opened while the block runs. Linux only."""
    libc, opened = ctypes.CDLL(None, use_errno=True), Opened()
    watch = libc.inotify_init1(os.O_NONBLOCK)
    try:
        if watch < 0 or libc.inotify_add_watch(watch, os.fsencode(folder), OPENED) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        yield opened
        events = b""
        while True:
            try:
                events += os.read(watch, 65_536)
            except BlockingIOError:
                break
        while events:
            mask, size = struct.unpack("=4xI4xI", events[:16])
            name = os.fsdecode(events[16 : 16 + size].rstrip(b"\0"))
            if mask & OPENED and name:
                opened.add(name)
            events = events[16 + size :]
    finally:
        os.close(watch)


class Port:
    """A port of this machine for TCP and UDP that remembers whether anybody came."""

    def __enter__(self) -> Port:
        self.stream, self.datagrams = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        self.stream.bind(("127.0.0.1", 0))
        self.number = self.stream.getsockname()[1]
        self.datagrams.bind(("127.0.0.1", self.number))
        self.stream.listen()
        self.stream.setblocking(False)
        self.datagrams.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.datagrams.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.number}"

    def somebody_came(self) -> bool:
        for knock in (self.stream.accept, lambda: self.datagrams.recv(1)):
            try:
                answer = knock()
            except BlockingIOError:
                continue
            if isinstance(answer, tuple):
                answer[0].close()
            return True
        return False
