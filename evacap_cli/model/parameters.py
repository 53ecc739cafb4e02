"""The number of parameters of a model, by part."""

from __future__ import annotations

from evacap_cli.model.captioner import CaptionModel


def parameter_counts(model: CaptionModel) -> dict[str, int]:
    """The number of parameters by part, and as `total`. Tied weights count once."""
    counts = {
        "audio tower": 0,
        "picture tower": 0,
        "shared block": 0,
        "tag head": 0,
        "fusion": 0,
        "decoder": 0,
    }
    for name, parameter in model.encoder.named_parameters():
        root = name.split(".")[0]
        part = "tag head" if root == "tag_head" else "shared block" if root in ("blocks_u", "norms") else None
        counts[part or ("audio tower" if root.endswith("_a") else "picture tower")] += parameter.numel()
    for name, child in model.named_children():
        if name not in ("encoder", "lexicon"):
            counts[name.removeprefix("picture_")] += sum(p.numel() for p in child.parameters())
    return {**counts, "total": sum(counts.values())}
