"""Results of the EVACap paper: Tables 1 to 4 (AudioCaps test set, 18 frames) and the times of Section 3.5."""

from __future__ import annotations

NAMES = ("BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE", "SPIDEr")
ROWS = {  # Tables 1 and 4, by the method of our presets
    "audio": ("Audio Only", (0.645, 0.476, 0.337, 0.231, 0.225, 0.474, 0.635, 0.162, 0.398)),
    "avcap": ("AVCap", (0.666, 0.491, 0.349, 0.240, 0.230, 0.479, 0.646, 0.170, 0.408)),
    "evacap": ("Proposed", (0.670, 0.500, 0.361, 0.258, 0.228, 0.474, 0.649, 0.170, 0.410)),
    "evacap-no-sms": ("Proposed w/o S", (0.662, 0.492, 0.355, 0.256, 0.226, 0.473, 0.650, 0.172, 0.411)),
    "evacap-no-entropy": ("w/o E", (0.660, None, None, 0.253, 0.227, 0.475, 0.640, 0.175, None)),
    "evacap-no-sms-no-entropy": ("w/o S&E", (0.664, None, None, 0.245, 0.224, 0.469, 0.644, 0.169, None)),
    "evacap-no-gate": ("w/o G", (0.654, None, None, 0.248, 0.226, 0.475, 0.643, 0.168, None)),
}
SHUFFLED = {  # Table 3, by method and the fraction of shuffled clips
    "avcap": {
        0.0: (0.666, 0.491, 0.349, 0.240, 0.230, 0.479, 0.646, 0.170),
        0.05: (0.663, 0.487, 0.342, 0.232, 0.223, 0.474, 0.651, 0.158),
        0.5: (0.664, 0.487, 0.341, 0.231, 0.223, 0.472, 0.642, 0.158),
        1.0: (0.657, 0.481, 0.338, 0.229, 0.223, 0.470, 0.636, 0.157),
    },
    "evacap": {
        0.0: (0.670, 0.500, 0.361, 0.258, 0.228, 0.474, 0.649, 0.170),
        0.05: (0.669, 0.498, 0.359, 0.255, 0.227, 0.473, 0.649, 0.169),
        0.5: (0.667, 0.498, 0.359, 0.255, 0.227, 0.471, 0.642, 0.168),
        1.0: (0.667, 0.493, 0.357, 0.258, 0.225, 0.467, 0.627, 0.168),
    },
}

TRAINED_SHUFFLED = {  # Table 2, by the probability of a shuffled picture in training
    0.0: (0.662, None, None, 0.256, 0.226, 0.473, 0.650, 0.172),
    0.05: (0.670, None, None, 0.258, 0.228, 0.474, 0.649, 0.170),
    0.5: (0.656, None, None, 0.242, 0.221, 0.469, 0.631, 0.170),
    1.0: (0.664, None, None, 0.236, 0.223, 0.470, 0.622, 0.166),
}
PARAMETERS = {"audio": 153, "avcap": 233, "evacap": 235, "evacap-no-sms": 235}
"""Millions, Table 1."""


def method_of(preset: str) -> str:
    """The method of a preset, its name without the size: `evacap` for `evacap-base` and `evacap-tiny`."""
    return preset.removesuffix("-base").removesuffix("-tiny")


def printed_row(preset: str) -> tuple[str, dict[str, float]] | None:
    """The paper's name of a preset's method and its metrics without shuffling; None if the paper lacks the method."""
    found = ROWS.get(method_of(preset))
    if found is None:
        return None
    name, values = found
    return name, {metric: value for metric, value in zip(NAMES, values, strict=True) if value is not None}


def printed_shuffled(preset: str, share: float) -> dict[str, float]:
    """The metrics of a preset's method at a `share` of shuffled clips in Table 3; empty if the table lacks them."""
    values = SHUFFLED.get(method_of(preset), {}).get(share)
    return {} if values is None else dict(zip(NAMES, values, strict=False))


def printed_trained(share: float) -> dict[str, float]:
    """The metrics in Table 2 of a model that was trained with a `share` of shuffled pictures."""
    values = TRAINED_SHUFFLED[share]
    return {name: value for name, value in zip(NAMES, values, strict=False) if value is not None}


SECONDS = {"audio": {0: 2.351}, "evacap": {1: 2.369, 18: 2.733}, "avcap": {1: 3.416, 18: 15.029}}
"""Seconds in Section 3.5, by method and number of frames: the ends of the ranges that the section gives."""


def printed_ratio(preset: str, frames: int) -> float | None:
    """The paper's time divided by that of its audio-only model; None if the paper gives no time."""

    found = SECONDS.get(method_of(preset), {}).get(frames)
    return None if found is None else found / SECONDS["audio"][0]
