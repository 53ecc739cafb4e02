"""Other people's files into our models: every published name, nothing run, nothing lost."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import CaptionModel, build_model, load_checkpoint, load_preset
from evacap_cli.tasks.importing import import_avcap, import_cav_mae, import_git

from ..conftest import Evacap

KEYS = Path(__file__).parent.parent / "fixtures" / "avcap_8frames_keys.json"
NARROW = {768: 24, 2304: 72, 3072: 96, 512: 16, 784: 16, 527: 5, 30522: 97, 1024: 64}
"""Published sizes and those of the small files: 2 x 8 patches of sound, 4 tubelets of 2 x 2 patches."""
SMALL = (
    "model.encoder.heads=4",
    "model.decoder.heads=4",
    "model.encoder.image_size=32",
    "features.image_size=32",
)


def published(small: bool = True) -> dict[str, Tensor]:
    """All 584 names of the 8-frame file. Not small: the published shapes, every tensor one zero, repeated."""
    g, state = torch.Generator().manual_seed(0), {}
    for name, shape in json.loads(KEYS.read_text()).items():
        if small:
            shape = [
                size if name.endswith("proj.weight") and size < 100 else NARROW.get(size, size)
                for size in shape
            ]
            state[name] = torch.randn(shape, generator=g) * 0.2
        else:
            state[name] = torch.zeros(()).expand(shape)
    state["textual.output.weight"] = state["textual.embedding.words.weight"]
    return state


def saved(path: Path, state: dict[str, Tensor], wrapped: bool = True) -> Path:
    torch.save(
        {"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 7} if wrapped else state, path
    )
    return path


def cav_mae(state: dict[str, Tensor], frames: bool = True) -> dict[str, Tensor]:
    """CAV-MAE's names: the towers without a tagging head, with a decoder that paints; one frame at a time."""
    found = {k.removeprefix("av_encoder."): v for k, v in state.items() if k.startswith("av_encoder.")}
    found = {k: v for k, v in found.items() if not k.startswith("mlp_head")}
    found["patch_embed_v.proj.weight"] = found["patch_embed_v.proj.weight"][:, :, 0]
    found["pos_embed_v"] = found["pos_embed_v"][:, : found["pos_embed_v"].shape[1] // 4]
    zero = torch.zeros(1)
    return {**found, "mask_token": zero, "decoder_embed.weight": zero, "decoder_blocks.0.attn.qkv.bias": zero,
            "decoder_pos_embed_a": zero, "decoder_pred_v.bias": zero}  # fmt: skip


def git(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {
        k.replace("av_projection", "visual_projection"): v
        for k, v in state.items()
        if k.startswith("textual.")
    }
    return {**found, "image_encoder.ln_pre.weight": torch.zeros(1)}


def empty(preset: str) -> CaptionModel:
    with torch.device("meta"):
        return build_model(load_preset(preset).model)


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(92))]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(words) + "\n", "utf-8")
    return path


class Thief:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, loot: Path) -> None:
        self.loot = loot

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.loot),)


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("command", [("import", "cav-mae"), ("import", "git"), ("info",)])
def test_code_in_a_file_is_not_run(
    command: tuple[str, ...], zipped: bool, evacap: Evacap, tmp_path: Path
) -> None:
    path, loot = tmp_path / "evil.pth", tmp_path / "loot"
    torch.save({"model": published(), "more": Thief(loot)}, path, _use_new_zipfile_serialization=zipped)
    small = (
        ("--preset", "evacap-tiny") if command[0] == "import" else ()
    )  # or the model takes seconds to build
    result = evacap("weights", *command, path, *small)
    assert result.exit_code == 1
    assert "evil.pth" in result.stderr
    assert "cure" in result.stderr
    assert "Traceback" not in result.stderr
    assert not loot.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cut", "page", "empty", "folder", "nonesuch", "list", "words", "lfs"])
def test_invalid_weight_file_is_refused(kind: str, evacap: Evacap, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    if kind == "cut":
        path.write_bytes(saved(path, published()).read_bytes()[:-2000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind != "nonesuch":
        path.write_text({"page": "<!DOCTYPE html>", "empty": "", "words": "hello\n" * 99,
                         "lfs": "version https://git-lfs.github.com/spec/v1\n"}[kind])  # fmt: skip
    result = evacap("weights", "import", "git", path, "--preset", "evacap-tiny")
    assert result.exit_code in (1, 2)
    assert "file.pth" in result.stderr
    assert "cure" in result.stderr
    assert "should not happen" not in result.stderr


@pytest.mark.slow
def test_all_published_names_become_a_checkpoint_that_captions(
    evacap: Evacap, vocab: Path, clip: Path, tmp_path: Path
) -> None:
    path, out = saved(tmp_path / "AVCap.pth", published()), tmp_path / "avcap"
    result = evacap("weights", "import", "avcap", path, *SMALL, "-o", out, "--vocab", vocab, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["renamed"] + summary.get("loaded", 0) + summary["left out"] == 584
    loaded = load_checkpoint(out)
    config = loaded.model.config
    assert (config.fusion, config.encoder.frames, config.encoder.depth, config.decoder.layers) == (
        "concat",
        8,
        11,
        6,
    )
    assert (loaded.features["frames"], loaded.features["window"]) == (8, "hanning")
    assert re.search(r"[0-9a-f]{64}", (out / "README.md").read_text("utf-8"))
    result = evacap(
        "caption", clip, "--model", out, "-o", tmp_path / "out.csv", "--workers", 0, "--max-words", 4
    )
    assert result.exit_code == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["evacap-base", "avcap-base", "audio-base"])
def test_full_size_files_of_each_kind(preset: str, tmp_path: Path) -> None:
    state, model = published(small=False), empty(preset)
    for names, load in ((cav_mae(state), import_cav_mae), (git(state), import_git)):
        imported = load(saved(tmp_path / "part.pth", names), model)
        rows = [row for row in imported.rows if row.published]
        assert len(rows) == len(names)  # each accounted for once
        fresh = {row.ours for row in imported.rows if not row.published}
        assert all(name.startswith(("encoder.tag_head.", "decoder.project_memory.")) for name in fresh)


@pytest.mark.slow
def test_tokens_of_one_frame_are_unchanged(vocab: Path, tmp_path: Path) -> None:
    """Spread over tubelets, a still picture gives what it gave as one frame."""
    import_avcap(saved(tmp_path / "a.pth", published()), tmp_path / "a", vocab, overrides=SMALL)
    model = load_checkpoint(tmp_path / "a").model
    names = cav_mae(published())
    import_cav_mae(saved(tmp_path / "c.pth", names), model)
    still = torch.rand(1, 1, 3, 32, 32).expand(1, 8, 3, 32, 32)
    seen = (
        model.encoder.patch_embed_v(still.transpose(1, 2)).flatten(2).transpose(1, 2)
        + model.encoder.pos_embed_v
    )
    once = torch.nn.functional.conv2d(
        still[:, 0], names["patch_embed_v.proj.weight"], names["patch_embed_v.proj.bias"], stride=16
    )
    once = once.flatten(2).transpose(1, 2) + names["pos_embed_v"]
    assert torch.allclose(seen, once.repeat(1, 4, 1), atol=1e-5)


@pytest.mark.slow
def test_all_mismatches_are_reported_at_once(vocab: Path, tmp_path: Path) -> None:
    state = published()
    del state["av_encoder.norm.weight"], state["textual.transformer.encoder.layer.1.attention.self.key.bias"]
    state |= {f"surprise.{i}": torch.zeros(1) for i in range(14)}
    path = saved(tmp_path / "a.pth", state)
    with pytest.raises(EvacapError) as caught:
        import_avcap(path, tmp_path / "a", vocab, overrides=SMALL)
    assert "surprise.0" in caught.value.message
    assert "14" in caught.value.message
    assert "4 more" in caught.value.message
    assert "norms.joint.weight" in caught.value.message
    assert "qkv.bias" in caught.value.message
    assert not (tmp_path / "a").exists()
    with pytest.raises(EvacapError) as caught:  # allowed to be over is not allowed to lack
        import_avcap(path, tmp_path / "a", vocab, overrides=SMALL, allow=["surprise.*"])
    assert "surprise" not in caught.value.message
    state = {**published(), "surprise.0": torch.zeros(1)}
    imported = import_avcap(saved(path, state), tmp_path / "a", vocab, overrides=SMALL, allow=["surprise.*"])
    assert ("surprise.0", "left out") in [(row.published, row.what) for row in imported.rows]


@pytest.mark.slow
def test_another_shape_names_both_and_the_setting(tmp_path: Path) -> None:
    state = git(published(small=False))
    state["textual.embedding.positions.weight"] = torch.zeros(()).expand(512, 768)
    with pytest.raises(EvacapError) as caught:
        import_git(saved(tmp_path / "git.pt", state), empty("evacap-base"))
    assert "512" in caught.value.message
    assert "1024" in caught.value.message
    assert "model.decoder.positions" in caught.value.message + caught.value.cure
    assert "lacks" not in caught.value.message  # it is there, in another shape


def test_another_vocabulary_size_is_refused(vocab: Path, tmp_path: Path) -> None:
    vocab.write_text(vocab.read_text() + "one more\n")
    with pytest.raises(UsageError, match=r"98.*97"):
        import_avcap(saved(tmp_path / "a.pth", published()), tmp_path / "a", vocab, overrides=SMALL)


def test_a_folder_of_something_else_is_never_replaced(evacap: Evacap, vocab: Path, tmp_path: Path) -> None:
    path, mine = saved(tmp_path / "a.pth", published()), tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for out in (mine, vocab):
        words = vocab.read_text() if out == vocab else ""
        result = evacap(
            "weights", "import", "avcap", path, *SMALL, "-o", out, "--vocab", vocab, "--overwrite"
        )
        assert result.exit_code == 2
        assert not words or vocab.read_text() == words
    assert (mine / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_a_written_part_contains_the_tensors_of_the_file(evacap: Evacap, tmp_path: Path) -> None:
    state = cav_mae(published(small=False))
    path, out = saved(tmp_path / "c.pth", state), tmp_path / "encoder.safetensors"
    sizes = ("model.encoder.depth=11",)
    assert (
        evacap("weights", "import", "cav-mae", path, *sizes, "-o", out, "--preset", "audio-base").exit_code
        == 0
    )
    written = load_file(out)
    assert not [name for name in written if "tag_head" in name]  # it was not in the file
    assert all(not value.any() for value in written.values())
    before = out.read_bytes()
    assert evacap("weights", "import", "cav-mae", path, "-o", out, "--preset", "audio-base").exit_code == 2
    assert out.read_bytes() == before


def test_file_without_picture_tower_gives_an_audio_only_model(vocab: Path, tmp_path: Path) -> None:
    state = {k: v for k, v in published().items() if not re.search(r"blocks_v|_embed_v|modality_v|_v\.", k)}
    import_avcap(saved(tmp_path / "a.pth", state), tmp_path / "a", vocab, overrides=SMALL)
    assert load_checkpoint(tmp_path / "a").model.config.fusion == "audio-only"


@pytest.mark.slow
def test_rows_come_in_one_order(tmp_path: Path) -> None:
    path = saved(tmp_path / "git.pt", git(published(small=False)))
    fresh = [row.ours for row in import_git(path, empty("evacap-base")).rows if not row.published]
    assert fresh == [name for name in empty("evacap-base").state_dict() if name in fresh]


def test_an_output_that_is_not_tied_and_broken_numbers_are_refused(vocab: Path, tmp_path: Path) -> None:
    state = published()
    state["textual.output.weight"] = state["textual.output.weight"] + 1
    state["av_encoder.norm.bias"] = torch.full((24,), torch.nan)
    with pytest.raises(EvacapError) as caught:
        import_avcap(saved(tmp_path / "a.pth", state), tmp_path / "a", vocab, overrides=SMALL)
    assert "textual.output.weight (should be tied to textual.embedding.words.weight)" in caught.value.message
    assert "NaN or infinite values: av_encoder.norm.bias" in caught.value.message
