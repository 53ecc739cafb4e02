"""`evacap train` from a table of videos to a checkpoint that `evacap caption` takes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from evacap_cli.cli.app import app
from evacap_cli.data.files import locked
from evacap_cli.data.store import Store
from evacap_cli.model import load_checkpoint
from evacap_cli.model.evidence_switch import EvidenceSwitch
from evacap_cli.tasks.batches import FeatureBatches
from evacap_cli.tasks.importing import ImportReport, empty_model, save_part
from evacap_cli.tasks.training import loop

from ..conftest import Evacap
from ..media.clips import write

SMALL = ("training.epochs=2", "training.batch_size=2", "model.encoder.depth=1", "model.encoder.picture_depth=1",
         "model.decoder.layers=1", "--workers", "0")  # fmt: skip


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves are drawn in the tests of the training loop; they take as long as the training here."""
    monkeypatch.setattr(loop, "draw_curves", lambda log, path: path.touch())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, one of them damaged."""
    folder = tmp_path_factory.mktemp("world")
    write(folder / "a.mp4")
    write(folder / "b.mp4", 1.0)
    (folder / "bad.mp4").write_bytes(b"bad")
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["video", "caption"])
        table.writerows([["a.mp4", "a tone rises"], ["b.mp4", "a short tone"], ["bad.mp4", "nothing"]])
    return folder / "captions.csv"


@pytest.mark.slow
def test_trains_resumes_and_captions(evacap: Evacap, manifest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = ("train", "evacap-tiny", "--data", manifest, "--val", manifest, "-o", run, *SMALL)
    first = evacap(*args, "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["steps"] == 2
    assert "2 clips, 1 more could not be read" in first.stderr
    assert "bad.mp4" in first.stderr
    again = evacap(*args)
    assert again.exit_code == 0, again.output
    assert again.stdout == ""
    for kept in ("last", "best"):
        assert sorted(p.name for p in (run / kept).iterdir()) == [
            "README.md", "config.yaml", "model.safetensors", "tokenizer.json",
        ]  # fmt: skip
    captioned = evacap("caption", manifest.parent / "a.mp4", "--model", run / "best", "--workers", 0)
    assert captioned.exit_code == 0, captioned.output


@pytest.mark.parametrize(
    ("config", "changes", "named"),
    [
        ("evacap-huge", (), "evacap-huge"),
        ("evacap-tiny", ("lr=1",), "'lr=1'"),
        ("evacap-tiny", ("training.freeze=[fusion.nose]",), "fusion.nose"),
        ("evacap-tiny", ("training.patience=2",), "--val"),
        ("evacap-tiny", ("training.speed=9",), "training.speed"),
        ("evacap-tiny", ("model.encoder.width=100", "model.encoder.heads=3"), "width"),
    ],
)
def test_wrong_settings_are_named(
    evacap: Evacap, manifest: Path, tmp_path: Path, config: str, changes: tuple[str, ...], named: str
) -> None:
    result = evacap("train", config, *changes, "--data", manifest, "-o", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert named in result.stderr


def test_a_file_that_is_not_a_table(evacap: Evacap, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("one,two\n1,2\n")
    for table in (tmp_path / "a.csv", tmp_path / "nowhere.csv"):
        result = evacap("train", "evacap-tiny", "--data", table, "-o", tmp_path / "run")
        assert result.exit_code == 2, result.output
        assert table.name in result.stderr


@pytest.mark.slow
def test_trains_from_a_store_that_fits(evacap: Evacap, manifest: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    made = evacap("prepare", manifest, "-o", store, "--preset", "evacap-tiny", "--workers", 0)
    assert made.exit_code == 3, made.output
    shown = yaml.safe_load(evacap("train", "evacap-tiny", *SMALL, "--data", store, "--dry-run").stdout)
    assert shown["steps"]["clips"] == 2
    run = tmp_path / "run"
    result = evacap("train", "evacap-tiny", *SMALL, "--data", store, "-o", run)
    assert result.exit_code == 0, result.output
    assert "bad.mp4" in result.stderr
    assert not (run / "clips").exists()
    wrong = evacap(
        "train",
        "evacap-tiny",
        *SMALL,
        "features.frames=3",
        "model.encoder.frames=3",
        "--data",
        store,
        "-o",
        run,
    )
    assert wrong.exit_code == 2, wrong.output
    assert "frames = 4 in the store, 3 wanted" in " ".join(wrong.stderr.split())


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_writes_nothing(evacap: Evacap, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = evacap(
        "train", "evacap-base", "--dry-run", "--data", manifest, "-o", out, "training.batch_size=2"
    )
    assert result.exit_code == 0, result.output
    shown = yaml.safe_load(result.stdout)
    assert shown["training"]["batch_size"] == 2
    assert shown["features"]["frames"] == 18
    assert shown["parameters"]["total"] == pytest.approx(234.5e6, rel=1e-3)
    assert shown["steps"] == {"clips": 3, "steps an epoch": 1, "steps": 50, "processes": 1}
    assert 5 < shown["memory"]["GB"]["total"] < 15
    assert not out.exists()


@pytest.mark.slow
def test_settings_printed_by_a_dry_run_start_a_run(evacap: Evacap, manifest: Path, tmp_path: Path) -> None:
    shown = yaml.safe_load(evacap("train", "audio-tiny", *SMALL, "--dry-run").stdout)
    wanted = ("model", "features", "training")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({name: shown[name] for name in wanted}))
    result = evacap(
        "train", tmp_path / "run.yaml", "--data", manifest, "-o", tmp_path / "run", "--workers", 0
    )
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "clips", "curves.png", "last", "metrics.jsonl", "report.html", "run.lock", "training.pt",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["evacap-tiny", "evidence-tiny"])
def test_starts_from_published_weights(
    evacap: Evacap, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    """Frozen, they are afterwards what they were; where there are two decoders, both begin with the words."""
    monkeypatch.setenv("EVACAP_CACHE", str(tmp_path / "cache"))
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefgh",
        *(f"##{letter}" for letter in "abcdefgh"),
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    sizes = (*(name for name in SMALL[2:5]), f"model.decoder.vocab_size={len(words)}")
    for part in ("encoder", "decoder"):
        save_part(
            empty_model(preset, sizes),
            part,
            tmp_path / f"{part}.safetensors",
            ImportReport(tmp_path, "ours"),
        )
    decoders = ["decoder"] if preset == "evacap-tiny" else ["decoder", "picture_decoder"]
    args = ("train", preset, *SMALL, "--data", manifest, "-o", tmp_path / "run",
            f"training.freeze=[encoder,{','.join(decoders)}]",
            "--init-encoder", tmp_path / "encoder.safetensors",
            "--init-decoder", tmp_path / "decoder.safetensors")  # fmt: skip
    without = evacap(*args)
    assert without.exit_code == 2, without.output
    assert "fetch-vocab" in without.stderr
    result = evacap(*args, "--vocab", tmp_path / "vocab.txt")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("parameters taken") == 2
    trained = load_checkpoint(tmp_path / "run" / "last").model.state_dict()
    for part in ("encoder", "decoder"):
        for name, value in load_file(tmp_path / f"{part}.safetensors").items():
            for own in [part] if part == "encoder" else decoders:
                assert torch.equal(trained[own + name.removeprefix(part)], value), name


@pytest.mark.slow
def test_tag_towers_start_from_published_networks(evacap: Evacap, manifest: Path, tmp_path: Path) -> None:
    """Of two files, one for the ear and one for the eye; never trained, they are afterwards what they were."""
    given = empty_model("evidence-tags").encoder.state_dict()
    files = []
    for part in ("network_a", "network_v"):
        files.append(tmp_path / f"{part}.safetensors")
        state = {k.removeprefix(f"{part}."): v.contiguous() for k, v in given.items() if k.startswith(part)}
        save_file(state, files[-1])
    args = ("train", "evidence-tags", "--data", manifest, "-o", tmp_path / "run", *SMALL, "training.epochs=1",
            "model.decoder.vocab_size=100")  # fmt: skip
    result = evacap(*args, "--init-encoder", files[0], "--init-encoder", files[1])
    assert result.exit_code == 0, result.output
    assert "YAMNet, 3.73 M parameters taken: 56 loaded" in result.stderr
    assert "EfficientNet-lite0, 4.69 M parameters taken: 296 loaded" in result.stderr
    trained = load_checkpoint(tmp_path / "run" / "last").model.encoder.state_dict()
    assert all(torch.equal(trained[k], v) for k, v in given.items() if k.startswith("network_"))
    names = ("blocks_a.0.norm1.weight", "blocks_v.0.norm1.weight", "blocks_u.0.norm1.weight")
    torch.save({name: torch.ones(4) for name in names}, tmp_path / "cav-mae.pth")
    result = evacap(
        *args[:4], "-o", tmp_path / "other", *args[6:], "--init-encoder", tmp_path / "cav-mae.pth"
    )
    assert result.exit_code == 2
    assert "do not fit tag towers" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True])
def test_two_decoders_start_with_equal_weights(
    evacap: Evacap, manifest: Path, hears: Path, tmp_path: Path, begun: bool
) -> None:
    """With random weights, or both equal to the decoder of an audio-only checkpoint; if frozen, they stay equal."""
    init = ("--init", hears) if begun else ()
    result = evacap("train", "evidence-tiny", *init, "--data", manifest, "-o", tmp_path / "run", *SMALL,
                    "training.freeze=[decoder,picture_decoder]")  # fmt: skip
    assert result.exit_code == 0, result.output
    model = load_checkpoint(tmp_path / "run" / "last").model
    own, seeing = (decoder.state_dict() for decoder in model.decoders)
    assert all(torch.equal(own[name], seeing[name]) for name in own)
    before = load_checkpoint(hears).model.decoder.state_dict()
    assert all(torch.equal(own[name], before[name]) for name in own) == begun


HEARING = ("decoder", "encoder.patch_embed_a", "encoder.modality_a", "encoder.pos_embed_a", "encoder.blocks_a",
           "encoder.blocks_u", "encoder.norms")  # fmt: skip


@pytest.mark.slow
def test_training_only_the_switch_keeps_audio_only_captions(
    evacap: Evacap, manifest: Path, hears: Path, tmp_path: Path
) -> None:
    """The recipe in two stages: hearing, then, with all that frozen, seeing. To the bit."""
    run = tmp_path / "run"
    result = evacap("train", "evidence-tiny", "--init", hears, "--data", manifest, "-o", run, *SMALL,
                    f"training.freeze=[{','.join(HEARING)}]", "training.epochs=3")  # fmt: skip
    assert result.exit_code == 0, result.output
    before, now = load_checkpoint(hears).model, load_checkpoint(run / "last").model
    assert isinstance(now.fusion, EvidenceSwitch)
    was = before.state_dict()
    assert all(torch.equal(now.state_dict()[name], value) for name, value in was.items())
    assert not torch.equal(now.decoders[1].words.weight, before.decoder.words.weight)
    store = Store(run / "clips" / "train")
    fbank, pixels, mask = (
        FeatureBatches(store, store.settings).batch(range(2)).inputs(torch.device("cpu"), store.settings)
    )
    alone = before.generate(fbank, max_words=6)
    for bias, shut in ((-50.0, True), (50.0, False)):
        now.fusion.evidence.bias.fill_(bias)
        generated = now.generate(fbank, pixels, mask, max_words=6)
        assert generated.gate is not None
        assert generated.gate.tolist() == [1.0 - shut] * 2
        assert torch.equal(generated.score, alone.score) == shut
        if shut:
            assert torch.equal(generated.tokens, alone.tokens)
    assert torch.equal(now.generate(fbank, max_words=6).score, alone.score)


@pytest.mark.slow
def test_a_dry_run_counts_both_decoders(evacap: Evacap) -> None:
    shown = []
    for settings in (["model.evidence.decoders=1"], [], ["training.freeze=[decoder]"]):
        result = evacap("train", "evidence-tiny", *SMALL, *settings, "--dry-run")
        assert result.exit_code == 0, result.output
        shown.append(yaml.safe_load(result.stdout)["parameters"])
    one, two, frozen = shown
    assert two["decoder"] == frozen["decoder"] == 2 * one["decoder"]
    assert (
        two["trained"] == two["total"] == one["total"] + one["decoder"] == frozen["trained"] + one["decoder"]
    )


@pytest.fixture(scope="module")
def hears(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint that only hears."""
    run = tmp_path_factory.mktemp("hears")
    result = CliRunner().invoke(app, ["train", "audio-tiny", "--data", str(manifest), "-o", str(run), *SMALL])
    assert result.exit_code == 0, result.output
    return run / "last"


@pytest.mark.slow
def test_starts_from_a_checkpoint_of_another_fusion(
    evacap: Evacap, manifest: Path, hears: Path, tmp_path: Path
) -> None:
    """Frozen, the decoder stays what it was; so does the hearing, at a learning rate of 0."""
    result = evacap("train", "evidence-tiny", "--init", hears, "--data", manifest, "-o", tmp_path / "run", *SMALL,
                    "training.freeze=[decoder]", "training.lr_scale.encoder=0")  # fmt: skip
    assert result.exit_code == 0, result.output
    before, run = load_checkpoint(hears), load_checkpoint(tmp_path / "run" / "last")
    was, now = before.model.state_dict(), run.model.state_dict()
    assert was.keys() < now.keys()
    assert {name.split(".")[0] for name in was} == {"encoder", "decoder"}
    assert all(torch.equal(now[name], value) for name, value in was.items())
    assert run.tokenizer.to_text() == before.tokenizer.to_text()
    assert run.model.config.fusion == "evidence"
    summary = " ".join(result.stderr.split())
    both = len(was) + len(before.model.decoder.state_dict())
    assert f"its fusion is audio-only; {both} of {len(now)} tensors copied" in summary
    assert "fusion.evidence" in summary.split("copied, new:")[1]


@pytest.mark.slow
def test_loaded_weights_are_trained(evacap: Evacap, manifest: Path, hears: Path, tmp_path: Path) -> None:
    """Back from the switch to hearing alone."""
    args = ("--data", manifest, *SMALL)
    first = evacap("train", "evidence-tiny", "--init", hears, "-o", tmp_path / "a", *args)
    assert first.exit_code == 0, first.output
    second = evacap("train", "audio-tiny", "--init", tmp_path / "a" / "last", "-o", tmp_path / "b", *args)
    assert second.exit_code == 0, second.output
    assert "copied, new: none" in " ".join(second.stderr.split())
    states = [load_checkpoint(path).model.state_dict() for path in (hears, tmp_path / "b" / "last")]
    assert states[0].keys() == states[1].keys()
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_a_fusion_without_switch_loads_the_picture_decoder(
    evacap: Evacap, manifest: Path, hears: Path, tmp_path: Path
) -> None:
    args = ("--data", manifest, *SMALL)
    first = evacap(
        "train", "evidence-tiny", "--init", hears, "-o", tmp_path / "a", *args, "training.freeze=[decoder]"
    )
    assert first.exit_code == 0, first.output
    second = evacap("train", "evacap-no-gate-tiny", "--init", tmp_path / "a" / "last", "-o", tmp_path / "b", *args,
                    "training.freeze=[decoder]")  # fmt: skip
    assert second.exit_code == 0, second.output
    alone, saw = load_checkpoint(tmp_path / "a" / "last").model.decoders
    now = load_checkpoint(tmp_path / "b" / "last").model.decoder
    assert torch.equal(now.words.weight, saw.words.weight)
    assert not torch.equal(now.words.weight, alone.words.weight)


@pytest.mark.slow
def test_settings_ignored_by_a_checkpoint_are_reported(
    evacap: Evacap, manifest: Path, hears: Path, tmp_path: Path
) -> None:
    args = ("train", "audio-tiny", "--init", hears, "--data", manifest, *SMALL)
    same = evacap(*args, "-o", tmp_path / "same")
    assert same.exit_code == 0, same.output
    assert "keeps its own sizes" not in " ".join(same.stderr.split())
    other = evacap(*args, "-o", tmp_path / "other", "model.decoder.feedforward=48")
    assert other.exit_code == 0, other.output
    has = load_checkpoint(hears).model.config.decoder.feedforward
    summary = " ".join(other.stderr.split())
    assert f"keeps its own sizes, ignoring model.decoder.feedforward 48 (it has {has})" in summary
    assert load_checkpoint(tmp_path / "other" / "last").model.config.decoder.feedforward == has


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("model.decoder.feedforward=64", "decoder.layers.0"),
        ("model.encoder.mlp_ratio=1", "encoder.blocks_a.0"),
    ],
)
def test_a_checkpoint_of_another_fusion_and_size_is_refused(
    evacap: Evacap, manifest: Path, hears: Path, tmp_path: Path, change: str, part: str
) -> None:
    result = evacap("train", "evidence-tiny", "--init", hears, "--data", manifest, "-o", tmp_path / "run", *SMALL,
                    change)  # fmt: skip
    assert result.exit_code == 2, result.output
    summary = " ".join(result.stderr.split())
    assert f"--init {hears}" in summary.replace(" ", "").replace("--init", "--init ")
    assert "of its tensors have other sizes, the first is " + part in summary
    assert "its own is audio-tiny" in summary
    assert not (tmp_path / "run" / "last").exists()


@pytest.mark.parametrize("missing", ["--data", "--out"])
def test_missing_options_are_named(evacap: Evacap, manifest: Path, tmp_path: Path, missing: str) -> None:
    given = ("-o", tmp_path / "run") if missing == "--data" else ("--data", manifest)
    result = evacap("train", "evacap-tiny", *given)
    assert result.exit_code == 2, result.output
    assert missing in result.stderr


def test_a_second_run_in_the_same_folder_exits(evacap: Evacap, manifest: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "run", "run"):
        refused = evacap("train", "evacap-tiny", "--data", manifest, "-o", tmp_path / "run", *SMALL)
    assert refused.exit_code == 1
    assert f"{tmp_path / 'run'}: another process is writing this run" in refused.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]
