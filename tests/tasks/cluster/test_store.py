"""`prepare` and `evaluate` on a Ray cluster, against the same on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evacap_cli.data.store import Store
from evacap_cli.metrics.suite import Settings, choose_metrics
from evacap_cli.tasks.cluster.pipeline import LOCAL, ClusterOptions, connected
from evacap_cli.tasks.evaluation import EvaluateOptions, evaluate
from evacap_cli.tasks.preparing import features_of, prepare

from ...conftest import Evacap
from ...media.clips import write

pytest.importorskip("ray", reason="the extra [ray] is not installed")

CLIPS = 10
OPTIONS = ClusterOptions(LOCAL, decoders=1, memory=100 * 2**20)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterOptions]:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # by default 15: they would wait for other tests
    with connected(OPTIONS):
        yield OPTIONS


@pytest.mark.slow
@pytest.mark.timeout(1500)  # seconds; processes of the cluster start slowly on a machine with other work
def test_a_cluster_prepares_and_evaluates_like_one_machine(
    cluster: ClusterOptions, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # after the cluster's start: relative paths are not those of its processes
    rows = ["video,caption"]
    for i in range(CLIPS):
        write(tmp_path / f"{i}.mp4", 0.3 + 0.02 * i, video=None if i % 4 == 3 else "libx264")
        rows.append(f"{i}.mp4,a dog barks {'twice ' * (i % 3)}in the rain")
    Path("5.mp4").write_bytes(b"damaged")
    Path("clips.csv").write_text("\n".join([*rows, "lost.mp4,rain"]))
    features = features_of(model=tiny)
    reports = [
        prepare("clips.csv", "one.store", features, workers=0),
        prepare("clips.csv", "many.store", features, shard_clips=3, cluster=cluster),
    ]
    assert reports[0].counts == reports[1].counts == {"ok": 7, "audio-only": 2, "missing": 1, "failed": 1}
    assert reports[0].failed == reports[1].failed
    one, many = Store("one.store"), Store("many.store")
    assert one.keys == many.keys
    assert one.fingerprint() == many.fingerprint()  # of captions and settings
    every = list(range(len(one)))
    assert (one.fbank(every) == many.fbank(every)).all()
    assert (one.frames(every) == many.frames(every)).all()
    assert [one.source(i) for i in every] == [many.source(i) for i in every]
    assert len(list(Path("many.store").glob("shard-*.tar"))) == 4

    chosen = EvaluateOptions(batch_size=2, device="cpu", scoring=Settings(choose_metrics("BLEU,CIDEr")))
    local, distributed = (
        evaluate([str(tiny)], Path("many.store"), chosen, cluster=where)[0] for where in (None, cluster)
    )
    assert local.captions.captions == distributed.captions.captions
    np.testing.assert_allclose(local.captions.score, distributed.captions.score, rtol=1e-5)
    assert local.scores.values == distributed.scores.values
    assert local.scores.id_hash == distributed.scores.id_hash


@pytest.mark.slow
def test_commands_use_the_address(clip: Path, tiny: Path, tmp_path: Path, evacap: Evacap) -> None:
    (tmp_path / "clips.csv").write_text(f"video,caption\n{clip},rain\n")
    prepare_it = ("prepare", tmp_path / "clips.csv", "-o", tmp_path / "s", "--model", tiny, "--workers", 0)
    nowhere = ("--ray", "127.0.0.1:1")
    refused = evacap(*prepare_it, *nowhere)
    assert (refused.exit_code, "--ray 127.0.0.1:1: no connection" in refused.stderr) == (1, True)
    assert evacap(*prepare_it).exit_code == 0
    evaluate_it = ("evaluate", "--model", tiny, "--data", tmp_path / "s", "--device", "cpu", *nowhere)
    refused = evacap(*evaluate_it)
    assert (refused.exit_code, "--ray 127.0.0.1:1: no connection" in refused.stderr) == (1, True)
    refused = evacap(*evaluate_it, "--ray-workers", "4-2", "--gpus-per-worker", "-1")
    assert (refused.exit_code, "--ray-workers 4-2" in refused.stderr) == (2, True)
