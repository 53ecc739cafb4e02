"""The steps of a reproduction, and what is refused, without carrying out any."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evacap_cli.data.files import locked
from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import preset_names
from evacap_cli.report.paper_results import ROWS as PRINTED
from evacap_cli.report.paper_results import TRAINED_SHUFFLED
from evacap_cli.tasks.reproducing import run as module
from evacap_cli.tasks.reproducing.plan import ROWS, SCALES, SHUFFLED, SYSTEMS, TABLES, plan
from evacap_cli.tasks.reproducing.run import ReproduceOptions, Reproduction
from evacap_cli.tasks.reproducing.steps import ReproductionPaths, torchrun, training_command
from evacap_cli.tasks.training.config import read_config

DEMO = SCALES["demo"]
CLIPS = (100, 10, 20)


def names(*only: str, scale: str = "demo", seeds: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    return [step.name for step in plan(SCALES[scale], only, CLIPS, seeds)]


def test_every_row_of_the_paper_has_a_system() -> None:
    assert {SYSTEMS[key].method for key in ROWS["table1"]} >= {"audio", "avcap", "evacap", "evacap-no-sms"}
    assert {SYSTEMS[key].method for key in ROWS["table4"]} >= {
        key for key in PRINTED if key.startswith("evacap")
    }
    assert set(SHUFFLED) == set(TRAINED_SHUFFLED) == {0, 0.05, 0.5, 1}
    for share, key in SHUFFLED.items():
        for scale in ("demo", "paper"):
            system = SYSTEMS[key]
            settings = SCALES[scale].settings(system, 0)
            assert read_config(SCALES[scale].preset(system), settings).training.sms == share


def test_all_systems_can_be_trained_at_all_scales() -> None:
    for scale in SCALES.values():
        features = set()
        for system in SYSTEMS.values():
            assert scale.preset(system) in preset_names()
            config = read_config(scale.preset(system), scale.settings(system, 7))
            assert config.training.seed == 7
            features.add(config.features.fingerprint())
        assert len(features) == 1, "one store must serve all"


def test_a_table_runs_only_its_steps() -> None:
    assert names("figure2") == ["speed"]
    wanted = names("table2", seeds=(0,))
    assert wanted[:2] == ["clips", "start"]
    assert wanted[2:] == [
        f"{kind}-{key}-0" for key in SYSTEMS if key in SHUFFLED.values() for kind in ("train", "evaluate")
    ]
    assert not any(name.startswith("evaluate") for name in names("table3"))
    everything = names()
    assert len(everything) == len(set(everything)) == 2 + 3 * (12 + 12 + 10) + 1
    assert set(everything) == {name for table in TABLES for name in names(table)}
    assert "start" not in names(scale="paper")
    with pytest.raises(UsageError, match="table5"):
        names("table5")


def test_arms_start_from_one_model_and_full_size_from_published_weights(tmp_path: Path) -> None:
    places = ReproductionPaths(
        tmp_path, (tmp_path / "a", tmp_path / "b", tmp_path / "c"), (Path("cav.pth"),), Path("git.pt")
    )
    steps = {step.name: step for step in plan(DEMO, ("table1",), CLIPS, (0, 1))}
    starts = {
        training_command(steps[name], DEMO, places)[2].init for name in steps if name.startswith("train")
    }
    assert starts == {str(tmp_path / "steps" / "start" / "last")}
    preset, overrides, options = training_command(steps["start"], DEMO, places)
    assert options.init == "audio-demo"
    assert read_config(preset, overrides).training.epochs == DEMO.start_epochs
    paper = SCALES["paper"]
    (step,) = (s for s in plan(paper, ("table1",), CLIPS, (0,)) if s.name == "train-avcap-0")
    preset, overrides, options = training_command(step, paper, places)
    assert (preset, options.init) == ("avcap-base", None)
    assert read_config(preset, overrides).model.encoder.frames == 18
    command = torchrun(preset, overrides, options, tmp_path / "run", 8)
    joined = " ".join(command)
    assert "torch.distributed.run --nproc-per-node 8 -m evacap_cli train avcap-base" in joined
    assert "--init-encoder cav.pth" in joined
    assert "--init-decoder git.pt" in joined


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ReproduceOptions("huge"), "--scale huge"),
        (ReproduceOptions("paper"), "needs stores"),
        (ReproduceOptions(data=(Path("a"),)), "1 stores given"),
        (ReproduceOptions(seeds=(1, 1)), "--seeds"),
        (ReproduceOptions(only=("table9",)), "table9"),
    ],
)
def test_wrong_options(options: ReproduceOptions, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        Reproduction(tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_of_one_scale_and_its_seeds(tmp_path: Path) -> None:
    (tmp_path / "reproduce.json").write_text(
        json.dumps({"scale": "demo", "seeds": [0, 1, 2], "data": [], "init": []})
    )
    assert Reproduction(tmp_path, ReproduceOptions(only=("table2",))).steps
    for other in (ReproduceOptions("smoke"), ReproduceOptions(seeds=(3,))):
        with pytest.raises(UsageError, match="holds a reproduction with"):
            Reproduction(tmp_path, other)


def test_finished_steps_correct_the_estimates(tmp_path: Path) -> None:
    made = Reproduction(tmp_path, ReproduceOptions(only=("table2",)))
    trainings = [step for step in made.steps if step.kind == "train"]
    before = [made.expected(step) for step in trainings]
    folder = tmp_path / "steps" / trainings[0].name
    folder.mkdir(parents=True)
    (folder / "done.json").write_text(json.dumps({"seconds": 2 * trainings[0].seconds}))
    assert made.done(trainings[0]) == 2 * trainings[0].seconds
    assert [made.expected(step) for step in trainings] == pytest.approx([2 * value for value in before])
    _, rows, notes = made.table()
    assert rows[1][1].startswith("done in")
    assert "seeds 0, 1, 2" in notes[0]


def test_full_disk_is_reported_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    made = Reproduction(tmp_path / "out", ReproduceOptions())
    with pytest.raises(EvacapError, match=r"GB are needed and 0\.0 GB free"):
        made.run(lambda what, done, total: None, lambda text: None)
    assert not (tmp_path / "out").exists()


def test_a_second_reproduction_in_the_same_folder_exits(tmp_path: Path) -> None:
    made = Reproduction(tmp_path, ReproduceOptions())
    with (
        locked(tmp_path, "reproduction"),
        pytest.raises(EvacapError, match="another process is writing this reproduction"),
    ):
        made.run(lambda what, done, total: None, lambda text: None)


def test_a_failed_step_is_not_marked_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[str] = []

    def carry_out(step: module.Step, *rest: object) -> None:
        if step.name == "start" and "start" not in carried:
            carried.append(step.name)
            raise KeyboardInterrupt
        carried.append(step.name)

    monkeypatch.setattr(module, "carry_out", carry_out)
    options = replace(ReproduceOptions(), only=("table2",), seeds=(0,))
    with pytest.raises(KeyboardInterrupt):
        Reproduction(tmp_path, options).run(lambda what, done, total: None, lambda text: None)
    Reproduction(tmp_path, options).run(lambda what, done, total: None, lambda text: None)
    expected = names("table2", seeds=(0,))
    assert carried == [*expected[:2], *expected[1:]]
    Reproduction(tmp_path, options).run(lambda what, done, total: None, lambda text: None)
    assert len(carried) == len(expected) + 1
