"""A web server of this machine, whose answers can be cut, refused and redirected."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar


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

    def __init__(self, answers: type[Answers] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), answers or Answers)
        self.files: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.cut: dict[str, list[int]] = {}
        self.redirects: dict[str, str] = {}
        self.ranges = True
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers))
        path = self.path.split("?")[0]
        if path in self.server.redirects:
            self.answer(302, {"Location": self.server.redirects[path]})
        elif path not in self.server.files:
            self.send_error(404)
        else:
            self._send(self.server.files[path], path, headers.get("range") if self.server.ranges else None)

    def _send(self, data: bytes, path: str, ranged: str | None) -> None:
        start = int(ranged.removeprefix("bytes=").partition("-")[0]) if ranged else 0
        if ranged and start >= len(data):
            return self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = data[start:]
        if cuts := self.server.cut.get(path):
            sent = sent[: cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(sent)

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        """An answer without content."""
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Repository:
    """Files by revision. `revisions`: the commit of a branch or tag."""

    files: dict[str, bytes]
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    private: bool = False
    revisions: dict[str, str] = field(default_factory=dict)

    def has(self, revision: str) -> bool:
        return revision in ("main", self.commit) or self.revisions.get(revision) == self.commit


class HubServer(FileServer):
    """Serves `repositories`, by ORG/NAME, as the Hub does: HEAD and GET of /ORG/NAME/resolve/REVISION/FILE. Safetensors
    are redirected to `storage`, a server of its own, under their SHA-256. `token`: that of private repositories."""

    def __init__(self, storage: FileServer) -> None:
        super().__init__(HubAnswers)
        self.storage = storage
        self.repositories: dict[str, Repository] = {}
        self.token = "hf_right"

    def add(self, name: str, folder: Path) -> Repository:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.repositories[name] = repository = Repository(files)
        for file, data in files.items():
            if file.endswith(".safetensors"):
                self.storage.files[f"/{hashlib.sha256(data).hexdigest()}"] = data
        return repository


class HubAnswers(Answers):
    server: HubServer

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers))
        name, _, rest = self.path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        repository = self.server.repositories.get(name)
        if repository is None or (
            repository.private and headers.get("authorization") != f"Bearer {self.server.token}"
        ):
            return self.answer(401, {"X-Error-Code": "RepoNotFound"})
        if not repository.has(revision):
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        if file not in repository.files:
            return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
        data = repository.files[file]
        if file.endswith(".safetensors"):
            digest = hashlib.sha256(data).hexdigest()
            return self.answer(
                302,
                {
                    "Location": f"{self.server.storage.url}/{digest}",
                    "X-Repo-Commit": repository.commit,
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(data)),
                },
            )
        self.send_response(200)
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        for key, value in {"ETag": f'"{blob}"', "X-Repo-Commit": repository.commit}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def closed_address() -> str:
    """An address of this machine at which nobody answers."""
    server = FileServer()
    server.server_close()
    return server.url


Server = TypeVar("Server", bound=FileServer)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
