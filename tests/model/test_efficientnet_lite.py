from __future__ import annotations

import pytest
import torch

from evacap_cli.model.efficientnet_lite import EfficientNetLite0


@pytest.mark.slow
def test_equals_timm() -> None:
    import timm  # takes long

    ours, theirs = EfficientNetLite0(), timm.create_model("efficientnet_lite0", pretrained=False)
    for name, value in ours.state_dict().items():  # statistics as after training
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.3)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    pixels = torch.randn(2, 3, 64, 96)
    for mode in (False, True):
        ours.train(mode)
        theirs.train(mode)
        torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=0, atol=0)


@pytest.mark.slow
def test_initial_weights_have_the_distribution_of_timm() -> None:
    import timm

    ours, theirs = EfficientNetLite0(), timm.create_model("efficientnet_lite0", pretrained=False)
    for (name, mine), value in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        if mine.numel() > 4000:
            torch.testing.assert_close(mine.std(), value.std(), rtol=0.1, atol=0, msg=name)
