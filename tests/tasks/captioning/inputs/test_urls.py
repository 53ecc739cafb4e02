"""Inputs elsewhere: a web server and a store of this machine, and fsspec's memory."""

from __future__ import annotations

import http.server
import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from evacap_cli.errors import MediaError, UsageError
from evacap_cli.features import FeatureSettings
from evacap_cli.tasks.captioning.inputs import urls
from evacap_cli.tasks.captioning.inputs.discovery import find_sources
from evacap_cli.tasks.captioning.inputs.local_files import local_file
from evacap_cli.tasks.captioning.inputs.sources import Source
from evacap_cli.tasks.clips import ClipSettings, load_clip

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

BIG = bytes(range(256)) * 20_000  # 5 MB


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, by path; `asked` is what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        if path == "/moved.mp4":
            self.send_response(302)
            self.send_header("Location", "/clip.mp4")
            self.end_headers()
        elif path == "/secret.mp4":
            self.send_error(403)
        elif path not in self.server.files:
            self.send_error(404)
        else:
            self._send(self.server.files[path], path)

    def _send(self, data: bytes, path: str) -> None:
        ranged = self.headers.get("Range", "")
        start, end = 0, len(data)
        if ranged:
            first, _, last = ranged.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or end) + 1, end)
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        if path == "/endless.mp4":
            self.end_headers()
            while True:
                try:
                    self.wfile.write(bytes(1 << 16))
                except OSError:
                    return
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", '"tag"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[start : end // 2 if path == "/broken.mp4" else end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(clip: Path) -> Iterator[Server]:
    with Server() as server:
        server.files = {"/clip.mp4": clip.read_bytes(), "/big.mp4": BIG, "/broken.mp4": BIG, "/zero.mp4": b"",
                        "/endless.mp4": b"", "/a%20b.mp4": b"space", "/bucket/dir/clip.mp4": BIG}  # fmt: skip
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def memory() -> Iterator[None]:
    store = fsspec.filesystem("memory")
    for name in ("a.mp4", "b.wav", "notes.txt", ".c.mp4", "sub/d.mkv", ".e/f.mp4", "plain"):
        store.pipe(f"/dir/{name}", name.encode())
    yield
    store.store.clear()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def fetch(url: str) -> bytes:
    (source,) = find_sources([url])
    assert source.error == ""
    with local_file(source) as path:
        return path.read_bytes()


def refused(url: str) -> str:
    with pytest.raises(MediaError) as caught:
        fetch(url)
    return caught.value.message


def test_a_copy_exists_only_while_it_is_needed(server: Server, scratch: Path) -> None:
    (source,) = find_sources([f"{server.url}/big.mp4?signature=x/y.z"])
    assert (source.size, source.mtime_ns, source.error) == (None, None, "")
    assert server.asked == []  # nothing is fetched before its turn
    with local_file(source) as path:
        assert path.suffix == ".mp4"
        assert path.is_file()
        assert path.read_bytes() == BIG
        assert list(scratch.iterdir())
    assert not path.exists()
    assert list(scratch.iterdir()) == []
    assert server.asked == ["GET /big.mp4?signature=x/y.z"]


def test_a_clip_from_the_web_is_decoded_like_the_file(server: Server, clip: Path) -> None:
    settings = ClipSettings(FeatureSettings(frames=2, image_size=32))
    expected = load_clip(clip, settings)
    for readers in (("decord", "pyav"), ("pyav",)):
        with local_file(find_sources([f"{server.url}/moved.mp4"])[0]) as path:
            found = load_clip(path, settings, readers)
        assert found.picture_error == ""
        np.testing.assert_array_equal(found.fbank, expected.fbank)
        assert found.frames is not None
        assert found.frames.shape == (2, 3, 32, 32)


def test_url_errors_state_the_reason(server: Server, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(f"{server.url}/gone.mp4") == "cannot be fetched: no such file"
    assert (
        refused(f"{server.url}/secret.mp4?key=hidden")
        == "cannot be fetched: the server answered 403 Forbidden"
    )
    assert refused(f"{server.url}/broken.mp4").startswith("cannot be fetched: ")
    assert refused(f"{server.url}/zero.mp4") == "the file is empty"
    assert "connect" in refused("http://127.0.0.1:9/a.mp4").lower()
    assert refused("memory://gone.mp4") == "cannot be fetched: no such file"
    monkeypatch.setattr(urls, "MAX_DOWNLOAD_BYTES", 3_000_000)
    assert "larger than" in refused(f"{server.url}/endless.mp4")
    assert list(scratch.iterdir()) == []


def test_no_room_for_a_copy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(urls, "_copy", full)
    assert "no space for a copy" in refused(f"{server.url}/big.mp4")


def test_reader_errors_are_unchanged(server: Server, scratch: Path) -> None:
    for error in (MediaError("no audio track"), OSError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, local_file(find_sources([f"{server.url}/clip.mp4"])[0]):
            raise error
        assert caught.value is error
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
def test_a_copy_is_removed_if_the_process_is_killed(server: Server, scratch: Path) -> None:
    code = (
        "import os, sys\n"
        "from evacap_cli.tasks.captioning.inputs.local_files import local_file\n"
        "from evacap_cli.tasks.captioning.inputs.sources import Source\n"
        "with local_file(Source('a', sys.argv[1])) as path:\n"
        "    assert path.stat().st_size == 5120000\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, f"{server.url}/big.mp4"],
        env={**os.environ, "TMPDIR": str(scratch)},
        check=False,
    )
    assert run.returncode == -9
    # a link to one of its own files may be left, which says nothing to other processes
    assert [path for path in scratch.rglob("*") if path.is_file() and not path.is_symlink()] == []


@pytest.mark.slow
def test_an_object_store(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    import fsspec.config

    options = {"anon": True, "endpoint_url": server.url, "skip_instance_cache": True}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    assert fetch("s3://bucket/dir/clip.mp4") == BIG


def test_folders_and_wildcards_of_a_store(memory: None) -> None:
    media = [f"memory:///dir/{name}" for name in ("a.mp4", "b.wav", "sub/d.mkv")]
    for name in ("memory://dir/", "memory://dir"):
        found = find_sources([name])
        assert [source.path for source in found] == media
        assert found.left_out == {"no media": 2, "hidden": 2}
    assert [source.path for source in find_sources(["memory://dir/*"])] == media
    assert [source.relative for source in find_sources(["memory://dir/*.mp4", "memory://dir/*.txt"])] == [
        "dir/a.mp4", "dir/notes.txt",
    ]  # fmt: skip
    assert fetch("memory://dir/plain") == b"plain"
    with pytest.raises(UsageError, match=r"memory://dir/x\*"):
        find_sources(["memory://dir/x*"])
    (listed,) = find_sources(["-"], io.StringIO("memory://dir/x*"))
    assert listed.error == "no such file or folder"


def test_a_store_that_cannot_be_listed_is_a_failure(memory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: object, **__: object) -> None:
        raise PermissionError("Access denied")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "find", find)
    found = find_sources(["memory://dir/", "memory://dir/a.mp4"])
    assert [source.error for source in found] == ["cannot be listed: Access denied", ""]


def test_a_file_url_is_the_file(clip: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b%20ü.mp4"
    odd.write_bytes(b"content")
    for url in (f"file://{odd}", f"file://localhost{quote(str(odd))}"):
        (source,) = find_sources([url])
        assert (source.name, source.path, source.size, source.relative) == (url, str(odd), 7, odd.name)
    table = tmp_path / "list.csv"
    table.write_text(f"video,start\nfile://{clip},1\n")
    (source,) = find_sources([table])
    assert (source.path, source.start, source.size) == (str(clip), 1.0, clip.stat().st_size)
    assert [s.path for s in find_sources([f"file://{tmp_path}"])] == [str(odd)]


def test_urls_in_lists_and_manifests(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"b")
    table = tmp_path / "list.csv"
    table.write_text(
        "video,start,end\nhttps://h/a.mp4,1,2\nb.mp4,0,1\nhttps://h/a.mp4,3,1\nhttps://h/a.mp4,1,2\n"
    )
    first, second, third = find_sources([table])
    assert (first.path, first.start, first.end, first.relative) == ("https://h/a.mp4", 1, 2, "h/a.mp4.1-2")
    assert (second.path, second.start) == (str(tmp_path / "b.mp4"), 0)
    assert "end 1 is not after start 3" in third.error
    (listed,) = find_sources(["-"], io.BytesIO(b"https://h/a.mp4\n"))
    assert listed == Source("https://h/a.mp4", "https://h/a.mp4", relative="h/a.mp4")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://host/a/b.mp4", "host/a/b.mp4"),
        ("http://user:pass@host:8080/a%20b/../../%2e%2e/c.mp4?x=../..#y", "host_8080/a_b/c.mp4"),
        ("https://host/watch?v=1", "host/watch"),
        ("https://host", "host"),
        ("https://host/a%2Fb%00.mp4", "host/a_b_.mp4"),
        ("s3://bucket/a?b#c.mp4", "bucket/a_b_c.mp4"),
        ("zip://in/a.mp4::https://host/x.zip", "in/a.mp4"),
        ("simplecache::https://host/日本.mp4", "host/日本.mp4"),
        ("http://[/a.mp4", "_/a.mp4"),
    ],
)
def test_output_paths_of_urls(url: str, place: str) -> None:
    assert find_sources([url])[0].relative == place


def test_output_paths_of_urls_are_unique() -> None:
    found = find_sources(["https://h/a?1", "https://h/a?2", "https://h/b.mp4?1", "https://h/b.mp4?2"])
    assert [source.relative for source in found] == ["h/a", "h/a~2", "h/b.mp4", "h/b~2.mp4"]


def test_passwords_are_not_shown() -> None:
    (source,) = find_sources(["https://me:secret@host/a@b:c.mp4"])
    assert source.path == "https://me:secret@host/a@b:c.mp4"
    assert source.name == "https://me:***@host/a@b:c.mp4"
    assert "secret" not in source.relative


def test_urls_are_recognised() -> None:
    assert all(map(urls.is_url, ("http://a", "S3://b/c", "zip://a::memory://b", "simplecache::gs://a")))
    assert not any(
        map(urls.is_url, ("a.mp4", "C://a", "./http://a", "a::b.mp4", "a:b", "file:a", "/s3://a", ""))
    )


def run_without(module: str, *inputs: str) -> subprocess.CompletedProcess[str]:
    """`find_sources` in a process that cannot import a module."""
    code = (
        f"import sys\nif {module!r}: sys.modules[{module!r}] = None\n"
        "from evacap_cli.errors import EvacapError\n"
        "from evacap_cli.tasks.captioning.inputs.discovery import find_sources\n"
        "from evacap_cli.tasks.captioning.inputs.local_files import local_file\n"
        "try:\n    for source in find_sources(sys.argv[1:]):\n        with local_file(source):\n            pass\n"
        "except EvacapError as error:\n    print(error.exit_code, error.message, '|', error.cure)\n"
        "print([name for name in ('fsspec', 'aiohttp', 'pandas', 'pyarrow') if sys.modules.get(name)])\n"
    )
    return subprocess.run([sys.executable, "-c", code, *inputs], capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_a_missing_extra_is_named() -> None:
    for module, url in (
        ("fsspec", "https://h/a.mp4"),
        ("aiohttp", "https://h/a.mp4"),
        ("s3fs", "s3://b/a.mp4"),
    ):
        lines = run_without(module, url, url, "gone.mp4").stdout.splitlines()
        assert lines[0].startswith("2 no such file or folder:")
        assert lines[2].startswith(f"{url.split(':')[0]}:// cannot be read")
        assert lines[2].endswith("pip install 'evacap[urls]'")
        assert len(lines) == 4


def test_without_urls_nothing_of_the_extra_is_imported(clip: Path) -> None:
    assert run_without("", str(clip), str(clip.parent)).stdout == "[]\n"


def test_unknown_protocols_are_refused(clip: Path) -> None:
    with pytest.raises(UsageError, match=r"nonsense:// is not a known protocol") as caught:
        find_sources([clip, "nonsense://a.mp4"])
    assert "s3://" in caught.value.cure
