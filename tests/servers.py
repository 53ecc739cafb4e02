"""A web server of this machine, whose answers can be cut, refused and redirected."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files`, by path. `requests`: what was asked. `cut`: by path, after how many bytes each of the next
    answers ends. `redirects`: by path, the new address. `ranges`: whether parts of files can be asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.cut: dict[str, list[int]] = {}
        self.redirects: dict[str, str] = {}
        self.ranges = True
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answers(http.server.BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers))
        path = self.path.split("?")[0]
        if path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path not in self.server.files:
            self.send_error(404)
        else:
            self._send(self.server.files[path], path, headers.get("range") if self.server.ranges else None)

    def _send(self, data: bytes, path: str, ranged: str | None) -> None:
        start = int(ranged.removeprefix("bytes=").partition("-")[0]) if ranged else 0
        if ranged and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        sent = data[start:]
        if cuts := self.server.cut.get(path):
            sent = sent[: cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
