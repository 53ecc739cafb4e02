"""What a run is made of, from presets, files and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evacap_cli.errors import UsageError
from evacap_cli.model import preset_names
from evacap_cli.tasks.training import TrainSettings
from evacap_cli.tasks.training.config import read_config


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_survives_writing_and_reading(name: str, tmp_path: Path) -> None:
    config = read_config(name)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.to_dict()))
    again = read_config(str(tmp_path / "run.yaml"))
    assert (again.model, again.features, again.training) == (config.model, config.features, config.training)


def test_the_base_preset_is_the_published_recipe() -> None:
    """AVCap's public code, as the paper's section 3.1 takes it over."""
    s = read_config("evacap-base").training
    assert (s.lr, s.start_lr, s.final_lr, s.warmup_epochs, s.epochs) == (1e-4, 2e-7, 1e-6, 1, 50)
    assert (s.betas, s.weight_decay, s.smoothing, s.sms) == ((0.95, 0.999), 5e-7, 0.1, 0.05)
    assert (s.freq_mask, s.time_mask, s.noise, s.gate_stability, s.consistency) == (48, 192, True, 0.01, 0.1)


def test_the_evidence_recipe() -> None:
    """Two decoders, of which one sees the clips' own pictures, and every batch teaches which belong together."""
    for size in ("tiny", "base"):
        config = read_config(f"evidence-{size}", ["model.evidence.windows=2", "training.match=0.5"])
        s = config.training
        assert (s.sms, s.modality_dropout, s.match, s.gate_stability, s.consistency) == (0, 0, 0.5, 0, 0)
        assert config.model.evidence.decoders == 2
        assert config.model.evidence.windows == 2
        assert config.to_dict()["model"]["evidence"]["windows"] == 2
    assert read_config("evacap-tiny").training.modality_dropout == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [("modality_dropout", (-0.01, 1.01, float("nan"))), ("match", (-0.01, float("nan")))],
)
def test_evidence_settings_have_ranges(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        with pytest.raises(UsageError, match=rf"training\.{name}: "):
            TrainSettings.from_dict({name: value})
    for value in (0.0, 1.0):
        assert getattr(TrainSettings.from_dict({name: value}), name) == value


def test_a_file_extends_a_preset_and_overrides_come_last(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: evacap-tiny\ntraining:\n  lr: 2e-4\n  freeze: [encoder]\n")
    config = read_config(
        str(tmp_path / "mine.yaml"),
        ["training.lr=3e-4", "training.lr_scale.fusion=10", "training.epochs=0.5"],
    )
    assert (config.training.lr, config.training.epochs) == (3e-4, 0.5)
    assert config.training.freeze == ("encoder",)
    assert config.training.lr_scale == {"fusion": 10.0}
    assert config.model == read_config("evacap-tiny").model


def test_all_errors_are_reported_at_once() -> None:
    wrong = {
        "model.encoder.width=100": "width",
        "model.fusion=magic": "magic",
        "features.window=round": "round",
        "training.lr=-1": "training.lr: -1.0 must be above 0",
        "training.speed=9": "training.speed",
        "training.betas=[1,2,3]": "training.betas",
        "training.ema=1": "training.ema",
        "training.match=-1": "training.match: -1.0 must not be below 0",
        "training.modality_dropout=1.5": "training.modality_dropout: 1.5 must be between 0 and 1",
        "model.evidence.threshold=2": "evidence.threshold: 2.0 must be between 0 and 1",
        "training.accumulate=7": "training.accumulate",
        "training.freeze=3": "training.freeze",
        "nonsense": "nonsense",
        "other.thing=1": "other",
    }
    with pytest.raises(UsageError) as caught:
        read_config("evacap-tiny", list(wrong))
    for word in wrong.values():
        assert word in caught.value.message


def test_features_must_fit_the_model() -> None:
    with pytest.raises(UsageError, match=r"features\.frames is 8, model\.encoder\.frames is 4"):
        read_config("evacap-tiny", ["features.frames=8"])
    read_config("audio-tiny", ["features.frames=8"])  # a model that only hears does not mind
