from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.metrics import spice_files
from evacap_cli.metrics.java import MetricError, Runtime, find_java
from evacap_cli.metrics.spice import CATEGORIES, spice
from evacap_cli.metrics.spice_cache import TupleCache

from .java import needs_java

pytestmark = needs_java

CANDIDATES = [
    "a red car passes two dogs",
    "",
    "rain falls on a small tin roof",
    "a man ||| talks\nand 😀 laughs",
]
REFERENCES = [
    ["two dogs run after a red car", "a car drives by"],
    ["a bell rings"],
    ["heavy rain on the roof"],
    ["a man talks", "", "someone laughs"],
]


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What the packaged class finds."""
    return scored(Runtime(find_java(), tmp_path_factory.mktemp("packaged class"), patience=120))


def scored(runtime: Runtime, cache: TupleCache | None = None) -> dict[str, np.ndarray]:
    measured, found = spice(runtime, CANDIDATES, REFERENCES, cache or TupleCache(None), threads=1)
    assert np.array_equal(measured.per_clip["SPICE"], found.f["All"])
    assert measured.corpus["SPICE"] == found.f["All"].mean()
    return found.f


@pytest.mark.slow
def test_categories_and_odd_captions(packaged: dict[str, np.ndarray]) -> None:
    f = packaged
    assert tuple(f) == CATEGORIES
    assert np.isfinite(f["All"]).all()
    assert f["All"][1] == 0
    assert f["Color"][0] == 1
    assert f["Cardinality"][0] == 1
    assert np.isnan(f["Color"][1])  # nobody speaks of a colour
    assert 0 < f["All"][3] < 1


@pytest.mark.slow
def test_a_build_of_the_packaged_source_behaves_the_same(
    packaged: dict[str, np.ndarray], runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    javac = shutil.which("javac")
    if javac is None:
        pytest.skip("no javac")
    built = tmp_path / "built"
    shutil.copytree(spice_files.SPICE_PARTS, built, ignore=shutil.ignore_patterns("*.class"))
    libraries = [spice_files.pycocoevalcap_file("spice/spice-1.0.jar"), built / "stanford-corenlp-3.6.0.jar"]
    source = built / "edu/anu/spice/EvacapLauncher.java"
    path = os.pathsep.join(map(str, libraries))
    subprocess.run([javac, "--release", "8", "-Xlint:-options", "-cp", path, "-d", built, source], check=True)
    monkeypatch.setattr(spice_files, "SPICE_PARTS", built)
    again = scored(runtime)
    assert all(np.array_equal(again[name], packaged[name], equal_nan=True) for name in CATEGORIES)


def test_the_class_is_for_java_8_and_the_parts_are_as_packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spice_files.check_spice_parts()
    launcher = (spice_files.SPICE_PARTS / "edu/anu/spice/EvacapLauncher.class").read_bytes()
    assert int.from_bytes(launcher[6:8], "big") == 52
    assert {"COPYING-GPL-3.txt", "COPYING-AGPL-3.txt", "README.md"} <= {
        p.name for p in spice_files.SPICE_PARTS.iterdir()
    }
    damaged = tmp_path / "spice"
    shutil.copytree(spice_files.SPICE_PARTS, damaged)
    (damaged / "stanford-corenlp-3.6.0.jar").write_bytes(b"PK")
    monkeypatch.setattr(spice_files, "SPICE_PARTS", damaged)
    with pytest.raises(MetricError, match="stanford-corenlp"):
        spice_files.check_spice_parts()


@pytest.mark.slow
def test_parsed_captions_survive_an_interrupt(runtime: Runtime, tmp_path: Path) -> None:
    """Stopped after the first batch, which is kept."""
    captions = [f"a dog and {i} cats" for i in range(20)]
    cache = TupleCache(tmp_path / "captions.sqlite")

    def stop(what: str, done: int, total: int) -> None:
        if done:
            runtime.stop.set()

    with pytest.raises(KeyboardInterrupt):
        spice(runtime, captions, [["a dog"]] * 20, cache, threads=1, progress=stop)
    assert TupleCache(cache.path).get(["a dog"]) == {"a dog": [["dog"]]}
