from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from evacap_cli.features import FeatureSettings, crop_frame, frame_times, normalize_frames, same_frames


def test_two_frames_per_second() -> None:
    times = frame_times(10.0, FeatureSettings())
    assert times == pytest.approx([0.25 + 0.5 * i for i in range(18)])
    assert frame_times(9.0, FeatureSettings()) == pytest.approx(times)


@pytest.mark.parametrize("seconds", [0.2, 1.0, 8.99])
def test_frames_of_a_short_clip_are_spread(seconds: float) -> None:
    times = frame_times(seconds, FeatureSettings())
    assert times == pytest.approx([(i + 0.5) * seconds / 18 for i in range(18)])


@pytest.mark.parametrize(("frames", "first", "step"), [(8, 0.5625, 1.125), (1, 4.5, 0.0), (36, 0.125, 0.25)])
def test_another_number_of_frames_covers_the_same_span(frames: int, first: float, step: float) -> None:
    times = frame_times(10.0, FeatureSettings(), frames=frames)
    assert times == pytest.approx([first + step * i for i in range(frames)])


def test_no_frames_and_no_time() -> None:
    assert frame_times(10.0, FeatureSettings(), frames=0) == []
    assert frame_times(10.0, FeatureSettings(frames=0)) == []
    assert frame_times(10.0, FeatureSettings(frames=0), frames=4) == pytest.approx([0.25, 0.75, 1.25, 1.75])
    assert frame_times(0.0, FeatureSettings(), frames=2) == [0.0, 0.0]


@pytest.mark.parametrize(
    "height_width", [(240, 320), (360, 202), (17, 31), (16, 16), (224, 224), (1, 5), (2160, 3840)]
)
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_crop_equals_torchvision(height_width: tuple[int, int], kind: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*height_width, 3), dtype=np.uint8)
    steps = v2.Compose(
        [
            v2.Resize(112, InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(112),
        ]
    )
    pixels = torch.from_numpy(frame).permute(2, 0, 1)
    plain, floating = steps(pixels), steps(pixels.float()).round().clamp(0, 255)
    out = crop_frame(frame if kind == "array" else torch.from_numpy(frame), 112)
    assert out.dtype == torch.uint8
    assert out.is_contiguous()
    assert torch.equal(out, plain)
    assert (out - floating).abs().mean() < 0.5


@pytest.mark.parametrize("height_width", [(1, 20_000), (20_000, 2)])
def test_a_narrow_frame_is_not_enlarged(
    height_width: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it would be gigabytes; only its middle can be seen."""
    sizes: list[tuple[int, int]] = []
    resize = torch.nn.functional.interpolate

    def remembered(pixels: torch.Tensor, size: tuple[int, int], **how: object) -> torch.Tensor:
        sizes.append(size)
        return resize(pixels, size, **how)

    monkeypatch.setattr(torch.nn.functional, "interpolate", remembered)
    frame = np.zeros((*height_width, 3), np.uint8)
    frame[tuple(slice(max(0, side // 2 - 20), side // 2 + 20) for side in height_width)] = 200
    pixels = crop_frame(frame, 224)
    assert pixels.shape == (3, 224, 224)
    assert (pixels == 200).all()
    assert len(sizes) == 1
    assert max(sizes[0]) <= 32 * 224


def test_crop_takes_views() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    turned = np.rot90(frame)
    assert torch.equal(crop_frame(turned, 32), crop_frame(np.ascontiguousarray(turned), 32))


def test_normalize_equals_torchvision() -> None:
    settings = FeatureSettings()
    frames = torch.randint(
        0, 256, (2, 3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    plain = v2.Normalize(settings.image_mean, settings.image_std)(frames.float() / 255)
    torch.testing.assert_close(normalize_frames(frames, settings), plain)


def test_similar_frames_are_found_within_the_tolerance() -> None:
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 250, (2, 5, 3, 8, 8), generator=g, dtype=torch.uint8)
    frames[0, 1] = frames[0, 2] = frames[0, 0]  # a run, then others
    frames[1, 4] = frames[1, 3] + 1  # near, not equal
    frames[1, 2] = frames[1, 0]  # equal, but not in one run
    assert same_frames(frames).tolist() == [[0, 0, 0, 3, 4], [0, 1, 2, 3, 4]]
    assert same_frames(frames, 1.0).tolist() == [[0, 0, 0, 3, 4], [0, 1, 2, 3, 3]]
    assert same_frames(frames, 0.99).tolist() == [[0, 0, 0, 3, 4], [0, 1, 2, 3, 4]]


def test_a_slow_change_is_detected() -> None:
    frames = torch.arange(6, dtype=torch.uint8).view(1, 6, 1, 1, 1).repeat(1, 1, 3, 4, 4)
    assert same_frames(frames, 2.0).tolist() == [[0, 0, 0, 3, 3, 3]]
    assert same_frames(255 - frames, 2.0).tolist() == [[0, 0, 0, 3, 3, 3]]
