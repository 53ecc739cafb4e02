"""A web server of this machine, whose answers can be cut, refused and redirected."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import logging
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

    def do_PUT(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers))
        self.server.files[self.path] = self.rfile.read(int(headers["content-length"]))
        self.answer(200)

    def _send(self, data: bytes, path: str, ranged: str | None) -> None:
        first, _, last = (ranged or "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data)) + 1, len(data))
        if ranged and start >= len(data):
            return self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = data[start:end]
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
        self.storage_url = storage.url.replace("127.0.0.1", "localhost")  # another host, as that of the Hub
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
    """Reading and writing as huggingface_hub does it: see `HubServer`. Writing needs the token."""

    server: HubServer

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers))
        if self.path == "/api/validate-yaml":
            return self.say({"errors": [], "warnings": []})
        if headers.get("authorization") != f"Bearer {self.server.token}":
            return self.answer(403)
        if self.path == "/api/repos/create":
            asked = json.loads(data)
            name = f"{asked['organization']}/{asked['name']}"
            new = Repository({}, private=asked.get("visibility") == "private")
            self.server.repositories.setdefault(name, new)
            return self.say({"url": f"{self.server.url}/{name}", "id": name})
        if "/preupload/" in self.path:
            return self.say(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                            "shouldIgnore": False,
                        }
                        for file in json.loads(data)["files"]
                    ]
                }
            )
        if self.path.endswith("/objects/batch"):
            found = [
                {**file, "actions": {"upload": {"href": f"{self.server.storage_url}/{file['oid']}"}}}
                for file in json.loads(data)["objects"]
            ]
            return self.say({"transfer": "basic", "objects": found})
        self._commit(data)

    def _commit(self, data: bytes) -> None:
        name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        files = self.server.repositories[name].files
        for line in data.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.storage.files[f"/{value['oid']}"]
        commit = self.server.repositories[name].commit
        self.say({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def say(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

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
                    "Location": f"{self.server.storage_url}/{digest}",
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


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An empty S3-compatible store on this machine. Yields the environment of processes that use it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()
