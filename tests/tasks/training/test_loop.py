"""The training loop on a world of four colours and four tones."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import FUSIONS, Tokenizer, load_checkpoint
from evacap_cli.tasks.training import TrainSettings, fit, loop
from evacap_cli.tasks.training.caption_tokens import encode_captions
from evacap_cli.tasks.training.parameter_groups import freeze, parameter_groups

from .colours import FEATURES, SETTINGS, WORDS, Colours, make_tokenizer, settings, small_model

DRAW = loop._Run.draw


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_training_writes_a_checkpoint_that_captions(tokenizer: Tokenizer, tmp_path: Path) -> None:
    changed = settings(epochs=60, sms=0.0)
    data = Colours()
    summary = fit(small_model(tokenizer), tokenizer, data, changed, tmp_path, validation=Colours(8))
    log = log_of(tmp_path)
    assert log[-1]["caption"] < 0.25 * log[0]["caption"]
    lowest = min(line["validation"] for line in log if "validation" in line)
    assert summary["best"] == pytest.approx(lowest, abs=1e-6)
    kept = load_checkpoint(tmp_path / "best")
    fbank, pixels, _ = data.batch(range(4)).inputs(torch.device("cpu"), FEATURES)
    captions = [kept.tokenizer.decode(t.tolist()) for t in kept.model.generate(fbank, pixels).tokens]
    assert captions == list(WORDS)
    assert kept.features == FEATURES.to_dict()
    assert kept.metadata["training"]["lr"] == SETTINGS.lr


@pytest.mark.slow
def test_resuming_gives_the_same_curve_and_weights(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    model = small_model(tokenizer)
    fit(model, tokenizer, Colours(), SETTINGS, whole, validation=Colours(8))

    class Stop(Exception):
        pass

    def stop(progress) -> None:
        if progress.step == 12:
            raise Stop

    with pytest.raises(Stop):
        fit(small_model(tokenizer), tokenizer, Colours(), SETTINGS, parts, Colours(8), progress=stop)
    resumed = small_model(tokenizer, seed=99)  # its weights must come from the save
    fit(resumed, tokenizer, Colours(), SETTINGS, parts, validation=Colours(8))
    curve = {line["step"]: line["caption"] for line in log_of(parts)}
    assert curve == {line["step"]: line["caption"] for line in log_of(whole)}
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_other_settings_do_not_resume_a_run(tokenizer: Tokenizer, tmp_path: Path) -> None:
    fit(small_model(tokenizer), tokenizer, Colours(8), SETTINGS, tmp_path)
    other = settings(lr=1e-5)
    with pytest.raises(EvacapError, match=r"lr was 0.003, is 1e-05"):
        fit(small_model(tokenizer), tokenizer, Colours(8), other, tmp_path)


@pytest.mark.slow
def test_reports_the_effect_of_shuffling(tokenizer: Tokenizer, tmp_path: Path) -> None:
    fit(small_model(tokenizer), tokenizer, Colours(), SETTINGS, tmp_path)
    log = log_of(tmp_path)
    assert sum(line["shuffled"] for line in log) > 0
    assert all(("gate_shuffled" in line) == (line["shuffled"] > 0) for line in log)
    assert all("consistency" in line for line in log if line["shuffled"] > 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "precision"),
    [(fusion, "fp32") for fusion in ("concat", "audio-only", "gate", "cross-attention", "evidence")]
    + [("concat", "bf16"), ("evidence", "bf16")],
)
def test_every_fusion_trains(tokenizer: Tokenizer, tmp_path: Path, fusion: str, precision: str) -> None:
    changed = settings(epochs=4, precision=precision)
    fit(small_model(tokenizer, fusion), tokenizer, Colours(), changed, tmp_path)
    log = log_of(tmp_path)
    assert log[-1]["caption"] < log[0]["caption"]


@pytest.mark.slow
def test_frozen_parts_do_not_change(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = small_model(tokenizer)
    model.encoder.requires_grad_(False)
    before = [p.clone() for p in model.encoder.parameters()]
    fit(model, tokenizer, Colours(8), SETTINGS, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, model.encoder.parameters(), strict=True))


def test_the_schedule_warms_up_and_decays() -> None:
    s = TrainSettings(warmup_epochs=1, epochs=10)
    rates = [s.learning_rate(i, 1000, 100) for i in range(1000)]
    assert rates[0] == s.start_lr
    assert rates[100] == pytest.approx(s.lr)
    assert max(rates) == pytest.approx(s.lr)
    assert rates[-1] == pytest.approx(s.final_lr, rel=0.05)
    assert all(a > b for a, b in itertools.pairwise(rates[100:]))


def test_captions_become_tokens_and_targets(tokenizer: Tokenizer) -> None:
    tokens, wanted = encode_captions(tokenizer, ["a dog barks", "rain falls on a roof"], 40)
    assert tokens[:, 0].tolist() == [tokenizer.bos] * 2
    assert tokens[0, 4] == tokenizer.eos
    assert wanted.sum(dim=1).tolist() == [4, 6]
    assert not wanted[:, 0].any()


def test_all_wrong_settings_are_reported_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        TrainSettings.from_dict({"lr": "fast", "sms": 1.5, "epoch": 3, "precision": "int3", "batch_size": 0})
    for word in ("lr", "sms", "epoch", "precision", "batch_size"):
        assert f"training.{word}" in caught.value.message


@pytest.mark.slow
def test_accumulated_batches_equal_one_batch(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Accumulation over captions of unequal length gives the step's own gradient."""
    data = Colours(43, wordy=True)
    models = []
    for accumulate in (1, 4):
        model = small_model(tokenizer, dropout=0.0)
        fit(model, tokenizer, data, settings(accumulate=accumulate, sms=0.0), tmp_path / str(accumulate))
        models.append(model)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_checkpointing_does_not_change_results(tokenizer: Tokenizer, tmp_path: Path, fusion: str) -> None:
    models = []
    for checkpointing in (False, True):
        model = small_model(tokenizer, fusion)
        fit(
            model, tokenizer, Colours(8), settings(checkpointing=checkpointing), tmp_path / str(checkpointing)
        )
        models.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


@pytest.mark.slow
def test_compiled_blocks_give_the_same_training(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Of a model that only hears: it has the blocks of the others, and fewer of them to compile."""
    logs = []
    for compiled in (False, True):
        model = small_model(tokenizer, "audio-only", dropout=0.0)
        fit(model, tokenizer, Colours(8), settings(compile=compiled, sms=0.0), tmp_path / str(compiled))
        logs.append([line["caption"] for line in log_of(tmp_path / str(compiled))])
    assert logs[1] == pytest.approx(logs[0], rel=1e-3)


@pytest.mark.slow
def test_averaged_weights_are_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Against the mean written out: e = d e + (1 - d) w, beginning with the first step's weights."""
    decay, seen = 0.8, []
    model = small_model(tokenizer)
    fit(model, tokenizer, Colours(16), settings(ema=decay), tmp_path,
        progress=lambda now: seen.append(model.decoder.words.weight.detach().clone()))  # fmt: skip
    mean = seen[0]
    for weight in seen[1:]:
        mean = decay * mean + (1 - decay) * weight
    kept = load_checkpoint(tmp_path / "last").model.decoder.words.weight
    torch.testing.assert_close(kept, mean)
    assert not torch.equal(kept, seen[-1])


@pytest.mark.slow
def test_a_non_finite_step_is_skipped_and_logged(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = small_model(tokenizer)
    fit(model, tokenizer, Colours(40, broken=[7]), SETTINGS, tmp_path)
    log = log_of(tmp_path)
    skipped = [line for line in log if "skipped" in line]
    assert len(skipped) == SETTINGS.epochs
    assert all("nan" in line["skipped"] for line in skipped)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert log[-1]["caption"] < log[0]["caption"]


@pytest.mark.slow
def test_after_several_skipped_steps_the_run_stops_and_keeps_the_last_good_state(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    fit(small_model(tokenizer), tokenizer, Colours(40), settings(epochs=1), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "training.pt", weights_only=True)
    torch.save({**state, "settings": settings(epochs=3).to_dict()}, tmp_path / "run" / "training.pt")
    with pytest.raises(
        EvacapError, match="5 steps in a row were skipped; the last one, 10, because the loss is nan"
    ) as caught:
        fit(
            small_model(tokenizer),
            tokenizer,
            Colours(40, broken=range(40)),
            settings(epochs=3),
            tmp_path / "run",
        )
    assert str(tmp_path / "run" / "last") in caught.value.cure
    kept = load_checkpoint(tmp_path / "run" / "last").model
    assert all(torch.isfinite(p).all() for p in kept.parameters())


def test_a_jump_of_the_loss_is_skipped(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evacap_cli.tasks.training.loop import _Run

    run = _Run(small_model(tokenizer), tokenizer, Colours(), settings(spike=3.0), tmp_path, None,
               torch.device("cpu"), SimpleNamespace(rank=0, world=1, first=True), 0, {}, {})  # type: ignore[arg-type] # fmt: skip
    assert run.skip_reason(100.0, 1.0) == ""  # nothing to compare with yet
    run.recent.extend([2.0] * 30)
    assert run.skip_reason(5.9, 1.0) == ""
    assert "jumped to 6.100 from about 2.000" in run.skip_reason(6.1, 1.0)
    assert "norm is inf" in run.skip_reason(2.0, float("inf"))


def test_machines_that_do_not_share_the_folder_of_the_run(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ranks = SimpleNamespace(rank=0, world=1, first=True, gather=lambda step: [step, 7])
    with pytest.raises(EvacapError, match="different states of the run, steps 0, 7"):
        fit(small_model(tokenizer), tokenizer, Colours(), SETTINGS, tmp_path, ranks=ranks)  # type: ignore[arg-type]


def test_language_models_are_not_sharded() -> None:
    from evacap_cli.tasks.training.sharding import Sharding

    model = SimpleNamespace(config=SimpleNamespace(decoder=SimpleNamespace(kind="causal-lm")))
    with pytest.raises(UsageError, match="language models"):
        Sharding(model, torch.device("cpu"), SimpleNamespace(world=2))  # type: ignore[arg-type]


def test_sharded_models_are_not_compiled() -> None:
    with pytest.raises(UsageError, match=r"training\.shard: cannot be combined with training\.compile"):
        TrainSettings.from_dict({"shard": True, "compile": True})


@pytest.mark.slow
def test_stops_early_without_improvement(tokenizer: Tokenizer, tmp_path: Path) -> None:
    changed = settings(
        epochs=50, lr=1e-9, start_lr=0.0, final_lr=0.0, patience=2, stop_on="cider", warmup_epochs=0
    )
    summary = fit(small_model(tokenizer), tokenizer, Colours(8), changed, tmp_path, Colours(4))
    assert summary["ended_early"]
    assert summary["step"] == 3  # one epoch that is best, two that are not
    assert [line["step"] for line in log_of(tmp_path) if "validation_cider" in line] == [1, 2, 3]
    again = fit(small_model(tokenizer), tokenizer, Colours(8), changed, tmp_path, Colours(4))
    assert again["step"] == 3


@pytest.mark.slow
def test_best_can_be_chosen_by_cider(tokenizer: Tokenizer, tmp_path: Path) -> None:
    summary = fit(
        small_model(tokenizer),
        tokenizer,
        Colours(),
        settings(epochs=12, stop_on="cider"),
        tmp_path,
        Colours(8),
    )
    found = [line["validation_cider"] for line in log_of(tmp_path) if "validation_cider" in line]
    assert summary["best"] == pytest.approx(max(found), abs=1e-5)
    assert max(found) > found[0]


@pytest.mark.slow
def test_curves_are_drawn(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(loop._Run, "draw", DRAW)
    fit(small_model(tokenizer), tokenizer, Colours(8), settings(epochs=2), tmp_path, Colours(4))
    with Image.open(tmp_path / "curves.png") as picture:
        picture.load()
        assert picture.width > 1000
    assert (tmp_path / "report.html").stat().st_size > 1000


@pytest.mark.slow
def test_curves_are_drawn_at_intervals_and_at_the_end(
    tokenizer: Tokenizer, tmp_path: Path, drawings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(small_model(tokenizer), tokenizer, Colours(16), settings(epochs=3), tmp_path / "quick")
    assert drawings == [6]
    monkeypatch.setattr(loop, "DRAW_SECONDS", 0.0)
    fit(small_model(tokenizer), tokenizer, Colours(16), settings(epochs=3), tmp_path / "long")
    assert drawings == [6, 2, 4, 6]


@pytest.mark.slow
def test_parts_can_have_their_own_learning_rate(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = small_model(tokenizer)
    before = {name: p.clone() for name, p in model.named_parameters()}
    changed = settings(
        freeze=["encoder.blocks_a", "decoder.words"],
        lr_scale={"encoder": 0.0, "fusion.out": 0.5},
        weight_decay=0,
    )
    fit(model, tokenizer, Colours(8), changed, tmp_path)
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert {n for n in before if n.startswith("encoder")} <= still
    assert "decoder.words.weight" in still
    assert {"fusion.out.weight", "fusion.query.weight", "decoder.layers.0.qkv.weight"}.isdisjoint(still)


def test_the_longest_prefix_sets_the_learning_rate(tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer)
    freeze(model, [])
    groups = parameter_groups(model, {"encoder": 0.1, "encoder.blocks_u": 2.0})
    by_scale = {g["scale"]: {id(p) for p in g["params"]} for g in groups}
    assert by_scale.keys() == {0.1, 1.0, 2.0}
    assert by_scale[2.0] == {id(p) for p in model.encoder.blocks_u.parameters()}
    every = [p for n, p in model.named_parameters() if not n.startswith("encoder.tag_head")]
    assert sum(map(len, by_scale.values())) == len(every)


def test_unknown_parts_are_named(tokenizer: Tokenizer) -> None:
    for act in (
        lambda m: freeze(m, ["encoder.blocks_x"]),
        lambda m: parameter_groups(m, {"encoder.blocks_x": 1}),
    ):
        with pytest.raises(UsageError, match=r"encoder\.blocks_x"):
            act(small_model(tokenizer))
