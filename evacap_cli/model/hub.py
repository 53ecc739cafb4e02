"""Checkpoints on the Hugging Face Hub: `hf:ORG/NAME[@REVISION]`."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evacap_cli.errors import EvacapError, UsageError

HUB = "hf:"
_NAME = re.compile(r"([\w][\w.-]*/[\w][\w.-]*?)(?:@([^\s@]+))?")
_OFFLINE = "without a network, download it elsewhere with `hf download` and give the folder to --model"


@dataclass(frozen=True)
class HubModel:
    """A repository of the Hub, and a branch, tag or commit in it; None for its default branch."""

    repo: str
    revision: str | None = None

    @staticmethod
    def parse(name: str) -> HubModel:
        """Parses `hf:ORG/NAME[@REVISION]`. Raises UsageError."""
        match = _NAME.fullmatch(name.removeprefix(HUB))
        if not name.startswith(HUB) or not match or ".." in match[1] or "--" in match[1]:
            raise UsageError(
                f"{name}: is not the name of a model on the Hub", f"write {HUB}ORG/NAME[@REVISION]"
            )
        return HubModel(match[1], match[2])

    @property
    def name(self) -> str:
        return self.repo.partition("/")[2]


def download_checkpoint(name: str, files: tuple[str, ...], weights: str) -> Path:
    """Returns the folder with `files` and `weights` of a model on the Hub, all of the same commit.

    Only these files are downloaded, to the cache of huggingface_hub (HF_HOME). Without a network, the cached ones are
    used. The weights must have the SHA-256 that the Hub states. Raises EvacapError.
    """
    model = HubModel.parse(name)
    first, *rest = files
    folder = _download(name, model.repo, first, model.revision).parent
    for file in rest:
        _download(name, model.repo, file, folder.name)
    path = _download(name, model.repo, weights, folder.name)
    if not _is_intact(path):
        path = _download(name, model.repo, weights, folder.name, again=True)
        if not _is_intact(path):
            for damaged in {path, path.resolve()}:
                damaged.unlink()
            raise EvacapError(
                f"{name}: {weights} does not have the SHA-256 that the Hub states, and was deleted",
                "run it again; if this remains, a proxy changes the file, or the repository is damaged",
            )
    return folder


def _download(name: str, repo: str, file: str, revision: str | None, again: bool = False) -> Path:
    from huggingface_hub import hf_hub_download

    with hub_errors(name, file):
        place = hf_hub_download(repo, file, revision=revision, endpoint=endpoint(), force_download=again)
    return Path(place)


def endpoint() -> str | None:
    """Returns the address of the Hub from the environment, None for the default one."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def hub_errors(name: str, file: str = "") -> Iterator[None]:
    """Converts errors of huggingface_hub to EvacapErrors that name the model, the cause and the cure."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    try:
        yield
    except errors.GatedRepoError as error:
        raise EvacapError(
            f"{name}: its owner has to grant you access",
            "ask for it on the page of the model, then `hf auth login`",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"{name}: no such model on the Hub, or it is private",
            "check the name; for a private model, `hf auth login` or set HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{name}: has no such revision", "name a branch, tag or commit after @") from error
    except errors.RemoteEntryNotFoundError as error:
        raise EvacapError(
            f"{name}: has no {file}, so it is no checkpoint of evacap",
            "weights are read from safetensors only; other formats can contain code",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise EvacapError(
            f"{name}: the Hub cannot be reached ({_reason(error.__cause__ or error)})", _OFFLINE
        ) from error
    except errors.HfHubHTTPError as error:
        answer = f"{error.response.status_code} {error.response.reason_phrase}".strip()
        denied = error.response.status_code in (401, 403)
        raise EvacapError(
            f"{name}: the Hub answers {answer}",
            "use a token with access to it: `hf auth login`, or HF_TOKEN" if denied else "try again later",
        ) from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            getattr(errno, "EDQUOT", errno.ENOSPC),
        )
        raise EvacapError(
            f"{name}: {file or 'the Hub'}: {_reason(error)}",
            "free some space, or set HF_HOME to another folder" if full else f"try again; {_OFFLINE}",
        ) from error


def _is_intact(path: Path) -> bool:
    """Returns whether a file has the SHA-256 of its blob. The cache names blobs so, and links to them; where it cannot
    link (Windows), only sizes are compared, by huggingface_hub."""
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    if not re.fullmatch(r"[0-9a-f]{64}", blob):
        return True
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest() == blob


def _reason(error: BaseException) -> str:
    return str(error).split("\n")[0].strip() or type(error).__name__
