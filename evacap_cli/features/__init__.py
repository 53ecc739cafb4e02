"""Features of audio (fbank) and frames (pixels), and their augmentations, as pure functions on tensors."""

from evacap_cli.features.audio import fbank
from evacap_cli.features.augment import noise_and_roll, spec_augment
from evacap_cli.features.frames import crop_frame, frame_times, normalize_frames, same_frames
from evacap_cli.features.settings import FeatureSettings

__all__ = [
    "FeatureSettings",
    "crop_frame",
    "fbank",
    "frame_times",
    "noise_and_roll",
    "normalize_frames",
    "same_frames",
    "spec_augment",
]
