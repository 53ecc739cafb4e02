"""Tags that are computed once: training and captions as without, kept in a folder, and made again if needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evacap_cli.data.store import Store
from evacap_cli.errors import EvacapError
from evacap_cli.features import FeatureSettings
from evacap_cli.model import CaptionModel, Checkpoint, Tokenizer, load_preset
from evacap_cli.model.evidence_switch import EvidenceSwitch
from evacap_cli.model.towers import load_towers
from evacap_cli.tasks import store_tags
from evacap_cli.tasks.batches import Augmentation, FeatureBatches
from evacap_cli.tasks.preparing import features_of, prepare
from evacap_cli.tasks.store_captioner import InferenceOptions, StoreCaptioner
from evacap_cli.tasks.store_tags import StoreTags, TagBatches, compute_tags, read_tags, write_tags
from evacap_cli.tasks.training import fit
from evacap_cli.tasks.training.log import read_log

from ..media.clips import write
from .training.colours import settings

FEATURES = features_of("evacap-tags")
CAPTIONS = ("a tone rises", "a bell", "a beep", "a low tone")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four clips, one of them without a picture."""
    folder = tmp_path_factory.mktemp("clips")
    lines = ["video,caption"]
    for i, text in enumerate(CAPTIONS):
        write(folder / f"{i}.mp4", 0.5 + 0.2 * i, video=None if i == 2 else "libx264")
        lines += [f"{i}.mp4,{text}", f"{i}.mp4,{text} twice"]
    (folder / "clips.csv").write_text("\n".join(lines))
    prepare(folder / "clips.csv", folder / "store", FEATURES, workers=0)
    return Store(folder / "store")


def build(preset: str, tokenizer: Tokenizer) -> CaptionModel:
    config = load_preset(preset).model
    decoder = replace(config.decoder, vocab_size=len(tokenizer), layers=1, dropout=0.0)
    torch.manual_seed(0)
    return load_towers(CaptionModel(replace(config, decoder=decoder))).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, 100)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The kind and first clip of every part that is computed."""
    parts: list[tuple[str, int]] = []
    compute: Callable[..., dict[str, torch.Tensor]] = store_tags._compute

    def count(model: CaptionModel, data: FeatureBatches, rows: range, kind: str) -> dict[str, torch.Tensor]:
        parts.append((kind, rows.start))
        return compute(model, data, rows, kind)

    monkeypatch.setattr(store_tags, "_compute", count)
    monkeypatch.setattr(store_tags, "PART", 3)
    return parts


@pytest.mark.slow
def test_parts_are_kept_and_belong_to_a_store_and_networks(
    store: Store, tokenizer: Tokenizer, tmp_path: Path, counted: list[tuple[str, int]]
) -> None:
    model, folder = build("evacap-tags", tokenizer), tmp_path / "tags"
    write_tags(model, store, FEATURES, folder, rank=1, world=2)  # the share of the second of two processes
    assert counted == [("audio", 3), ("picture", 3)]
    with pytest.raises(EvacapError, match="audio-000000"):
        read_tags(model, store, folder)
    tags = compute_tags(model, store, FEATURES, folder)
    assert counted[2:] == [("audio", 0), ("picture", 0)]
    assert tags.picture is not None
    batch = FeatureBatches(store, FEATURES).batch(range(4))
    audio, pixels, _ = batch.inputs(torch.device("cpu"), FEATURES)
    assert pixels is not None
    with torch.no_grad():
        torch.testing.assert_close(tags.audio, model.encode_audio(audio))
        torch.testing.assert_close(tags.picture[:2], model.encode_picture(pixels[:2]))
    assert tags.frames is not None
    assert tags.frames.any(dim=1).tolist() == [True, True, False, True]

    counted.clear()
    again = compute_tags(build("audio-tags", tokenizer), store, FEATURES, folder)
    assert counted == []
    assert torch.equal(again.audio, tags.audio)
    assert again.picture is None
    (folder / "picture-000003.safetensors").write_bytes(b"torn")
    assert_equal(compute_tags(model, store, FEATURES, folder), tags)
    assert counted == [("picture", 3)]
    counted.clear()
    with torch.no_grad():
        next(model.tag_encoder.network_a.parameters()).mul_(1.5)
    assert not torch.equal(compute_tags(model, store, FEATURES, folder).audio, tags.audio)
    assert counted == [("audio", 0), ("audio", 3)]


def assert_equal(first: StoreTags, second: StoreTags) -> None:
    assert torch.equal(first.audio, second.audio)
    assert first.picture is not None
    assert second.picture is not None
    assert torch.equal(first.picture, second.picture)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["evidence-tags", "audio-tags"])
def test_training_and_captions_are_those_without(
    store: Store, tokenizer: Tokenizer, tmp_path: Path, preset: str
) -> None:
    logs = []
    for name in ("features", "tags"):
        model = build(preset, tokenizer)
        data = FeatureBatches(store, FEATURES, model.has_picture)
        batches: FeatureBatches | TagBatches = data
        if name == "tags":
            batches = TagBatches(data, compute_tags(model, store, FEATURES, tmp_path / "clips"))
            chosen = [batches.batch([1, 3], Augmentation((0, epoch))).captions for epoch in range(9)]
            assert len({tuple(texts) for texts in chosen}) > 1
        run = settings(epochs=3, batch_size=4, sms=0.0, consistency=0.0, freq_mask=0, time_mask=0, noise=False,
                       log_every=1)  # fmt: skip
        fit(model, tokenizer, batches, run, tmp_path / name, batches)
        logs.append([line["caption"] for line in read_log(tmp_path / name / "metrics.jsonl")])
    assert len(logs[0]) == 3
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)

    model = build(preset, tokenizer)
    if isinstance(model.fusion, EvidenceSwitch):  # open for some
        with torch.no_grad():
            model.fusion.evidence.bias.fill_(5.0)
    checkpoint = Checkpoint("toy", tmp_path, model, tokenizer, FeatureSettings.to_dict(FEATURES))
    options = InferenceOptions(2, 6, 2)
    expected = StoreCaptioner(checkpoint, store, options).caption()
    found = StoreCaptioner(checkpoint, store, replace(options, tags=tmp_path / "clips")).caption()
    assert found.captions == expected.captions
    assert found.score == pytest.approx(expected.score, rel=1e-4)
    if expected.evidence is not None and found.evidence is not None:
        assert found.evidence == pytest.approx(expected.evidence, rel=1e-4, nan_ok=True)
