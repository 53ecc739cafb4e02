"""Captions of a store, plain and with sound or picture changed, against one clip at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evacap_cli.data.store import Store
from evacap_cli.errors import UsageError
from evacap_cli.features import normalize_frames
from evacap_cli.model import Checkpoint, Generation
from evacap_cli.tasks import perturbations
from evacap_cli.tasks.pairing import Pairing
from evacap_cli.tasks.store_captioner import InferenceOptions, StoreCaptioner

from .noise import CLIPS, FEATURES, WITHOUT_PICTURE, checkpoint, noise_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return noise_store(tmp_path_factory.mktemp("describing") / "store")


def one(at: Checkpoint, store: Store, sound: int, picture: int) -> Generation:
    """The caption of one sound with one picture, from a direct call of the model."""
    fbank = torch.from_numpy(store.fbank([sound])).float()
    seen = bool(store.has_picture([picture])[0])
    pixels = normalize_frames(torch.from_numpy(store.frames([picture])), FEATURES) if seen else None
    return at.model.generate(fbank, pixels if at.model.has_picture else None, beam=2, max_words=8)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["entropy-gate", "concat", "audio-only", "evidence"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 16])
def test_pairs_do_not_depend_on_the_batch(fusion: str, batch_size: int, store: Store) -> None:
    at, pairings = checkpoint(fusion), [Pairing.draw(CLIPS, seed) for seed in (2, 0, CLIPS - 2)]
    captioner = StoreCaptioner(at, store, InferenceOptions(beam=2, max_words=8, batch_size=batch_size))
    own, mixed = captioner.caption_paired(pairings)
    caption = captioner.caption()
    for clip in range(CLIPS):
        given = [(output, int(pairing.donor[clip])) for output, pairing in zip(mixed, pairings, strict=True)]
        for output, donor in ((own, clip), (caption, clip), *given):
            out = one(at, store, clip, donor)
            assert output.captions[clip] == at.tokenizer.decode(out.tokens[0].tolist())
            assert output.score[clip] == pytest.approx(float(out.score[0]), abs=1e-4)
            if out.evidence is not None and out.cues is not None:
                assert output.evidence[clip] == pytest.approx(float(out.evidence[0]), abs=1e-5, nan_ok=True)
                cues = [values[clip] for values in output.cues.values()]
                assert cues == pytest.approx(out.cues[0].tolist(), abs=1e-5, nan_ok=True)
    if fusion in ("entropy-gate", "evidence"):
        assert own.gate is not None
        assert own.gate[WITHOUT_PICTURE] == 0
        assert np.isfinite(own.gate).all()
    else:
        assert own.gate is None
    assert (own.entropy is not None) == (fusion == "entropy-gate")
    if fusion == "evidence":
        assert 0 < own.gate.sum() < CLIPS - 1
        assert np.isnan(own.evidence).nonzero()[0].tolist() == [WITHOUT_PICTURE]
        assert tuple(own.cues) == at.model.cues == ("cosine", "best", "matcher")
    else:
        assert own.evidence is None
        assert own.cues == {}
    if fusion != "audio-only":
        assert np.abs(own.score - mixed[0].score).max() > 1e-4


def test_each_half_is_encoded_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    at = checkpoint("entropy-gate")
    counts = {"audio": 0, "picture": 0}
    for name in counts:
        plain = getattr(at.model, f"encode_{name}")

        def counted(x: torch.Tensor, *further: torch.Tensor, name: str = name, plain=plain) -> torch.Tensor:
            counts[name] += len(x)
            return plain(x, *further)

        monkeypatch.setattr(at.model, f"encode_{name}", counted)
    StoreCaptioner(at, store, InferenceOptions(beam=1, max_words=4, batch_size=3)).caption_paired(
        [Pairing.draw(CLIPS, seed) for seed in range(3)]
    )
    assert counts == {"audio": CLIPS, "picture": CLIPS}


def test_changes_of_the_picture(store: Store) -> None:
    at = checkpoint("entropy-gate")
    captioner = StoreCaptioner(at, store, InferenceOptions(beam=2, max_words=8, batch_size=4))
    made = [
        perturbations.black(),
        perturbations.freeze(),
        perturbations.drop_video(),
        perturbations.noise(0),
        perturbations.noise(0),
        perturbations.noise(1),
    ]
    own, black, frozen, dropped, noise, same, other = captioner.caption_perturbed(made)
    assert own.score == pytest.approx(captioner.caption().score, abs=1e-5)
    assert dropped.gate is not None
    assert (dropped.gate == 0).all()
    assert np.isnan(dropped.entropy).all()
    for output in (black, frozen, noise):
        assert np.abs(own.score - output.score).max() > 1e-4
        assert output.score[WITHOUT_PICTURE] == pytest.approx(own.score[WITHOUT_PICTURE], abs=1e-5)
    assert (noise.score == same.score).all()
    assert (noise.score != other.score).any()


def test_uninformative_pictures_are_ignored(store: Store) -> None:
    at = checkpoint("evidence")
    at.model.fusion.evidence.bias.fill_(50.0)  # whatever it sees is let in
    captioner = StoreCaptioner(at, store, InferenceOptions(beam=2, max_words=8, batch_size=4))
    own, black, frozen, dropped, noise = captioner.caption_perturbed(
        [perturbations.black(), perturbations.freeze(), perturbations.drop_video(), perturbations.noise(0)]
    )
    seen = np.arange(CLIPS) != WITHOUT_PICTURE
    for output in (own, frozen):
        assert output.gate.tolist() == seen.tolist()
    for output in (black, dropped, noise):
        assert not output.gate.any()
        assert np.isnan(output.evidence).all()
        assert all(np.isnan(values).all() for values in output.cues.values())
        assert output.captions == dropped.captions
        assert output.score == pytest.approx(dropped.score, abs=1e-5)


def test_captions_and_scores_are_reordered_together(store: Store) -> None:
    rows = np.array([6, 0, 5, 1, WITHOUT_PICTURE, 2, 3])
    for fusion in ("evidence", "entropy-gate", "concat"):
        output = StoreCaptioner(checkpoint(fusion), store, InferenceOptions(beam=1, max_words=4)).caption()
        other = output.reordered(rows)
        assert other.captions == [output.captions[row] for row in rows]
        assert other.cues.keys() == output.cues.keys()
        numbers = [
            (getattr(output, name), getattr(other, name)) for name in ("score", "gate", "entropy", "evidence")
        ]
        numbers += [(output.cues[name], other.cues[name]) for name in output.cues]
        for before, after in numbers:
            assert (before is None) == (after is None)
            if before is not None:
                assert after.tolist() == pytest.approx([before[row] for row in rows], nan_ok=True)


def test_noise_has_the_stated_level() -> None:
    fbank = torch.randn(2, 64, 32)
    plain = (fbank * FEATURES.fbank_std + FEATURES.fbank_mean).exp().sum((1, 2))
    for decibels in (0.0, 20.0):
        sound = perturbations.noise_audio(decibels, 0).sound
        assert sound is not None
        mixed = sound(fbank, FEATURES, np.array([4, 5]))
        energy = (mixed * FEATURES.fbank_std + FEATURES.fbank_mean).exp().sum((1, 2))
        assert (energy / plain - 1).tolist() == pytest.approx([10 ** (-decibels / 10)] * 2, rel=1e-3)
        assert torch.equal(mixed[1:], sound(fbank[1:], FEATURES, np.array([5])))


def test_a_shift_has_a_resolution_of_10_ms() -> None:
    sound = perturbations.shift(0.25).sound
    assert sound is not None
    fbank = torch.arange(64.0)[None, :, None].expand(1, 64, 32)
    assert sound(fbank, FEATURES, np.array([0]))[0, :, 0].tolist() == [*range(39, 64), *range(39)]


def test_a_store_of_other_features_is_refused(store: Store) -> None:
    at = checkpoint("entropy-gate")
    at.features["image_size"] = 64
    with pytest.raises(UsageError, match="image_size = 32 in the store, 64 wanted"):
        StoreCaptioner(at, store, InferenceOptions())
