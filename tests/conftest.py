"""Shared by all tests: a tiny checkpoint with random weights, small real clips, and the app run as a user runs it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # a test process a core; those that tests start inherit it
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import pytest
import torch
from typer.testing import CliRunner, Result

from evacap_cli.cli.app import app
from evacap_cli.media import start_ahead
from evacap_cli.model import ModelConfig, Tokenizer, build_model, load_preset, save_checkpoint

from .media.clips import write
from .servers import FileServer, HubServer, s3_server, serving

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = ("a dog barks twice", "rain falls on a roof", "a bell rings", "an engine idles while a man speaks")
Evacap = Callable[..., Result]


def save_tiny(folder: Path, preset: str, **encoder: object) -> Path:
    """A checkpoint of a preset's sizes, with changes to its `encoder`, and random weights, the same every time."""
    chosen = load_preset(preset)
    tokenizer = Tokenizer.train(WORDS, 200)
    config = chosen.model.to_dict()
    config["decoder"]["vocab_size"] = len(tokenizer)
    config["encoder"].update(encoder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(ModelConfig.from_dict(config))
    save_checkpoint(folder / preset, model, tokenizer, chosen.features)
    return folder / preset


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    """Imports torch once for all decoding workers of the tests."""
    start_ahead("evacap_cli.tasks.captioning.inputs.clip_reader")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny audio-visual checkpoint with a gate."""
    return save_tiny(tmp_path_factory.mktemp("models"), "evacap-tiny")


@pytest.fixture(scope="session")
def tiny_audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny checkpoint that only hears."""
    return save_tiny(tmp_path_factory.mktemp("models"), "audio-tiny")


@pytest.fixture(scope="session")
def tiny_tubelets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny checkpoint without a gate that looks at frames in pairs."""
    return save_tiny(tmp_path_factory.mktemp("models"), "avcap-tiny", picture_tokens="tubelet", stem="patch")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of H.264 and AAC."""
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def evacap() -> Evacap:
    """Runs `evacap` with arguments through the real app, in this process."""

    def run(*args: object) -> Result:
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return run


@pytest.fixture
def storage() -> Iterator[FileServer]:
    """Where `hub` keeps large files."""
    with serving(FileServer()) as server:
        yield server


@pytest.fixture
def hub(storage: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub of this test, with a cache folder of its own, short blocks, and no waiting between attempts."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    no_waiting = SimpleNamespace(sleep=lambda _: None, time=time.time)
    monkeypatch.setattr(file_download, "time", no_waiting)
    monkeypatch.setattr(_http, "time", no_waiting)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(HubServer(storage)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """The environment of processes that use an S3-compatible store on this machine."""
    with s3_server() as environment:
        yield environment


@pytest.fixture
def s3(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of an empty S3-compatible store, which `s3://` reaches in this test."""
    import s3fs
    from moto.backends import get_backend

    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # instances keep their endpoint
    yield s3fs.S3FileSystem()
    s3fs.S3FileSystem.clear_instance_cache()
    get_backend("s3").reset()
