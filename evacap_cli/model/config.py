"""Sizes of a model, in one place: frozen dataclasses that a preset fills and a checkpoint carries."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from evacap_cli.errors import UsageError

FUSIONS = ("entropy-gate", "gate", "cross-attention", "concat", "audio-only")


@dataclass(frozen=True)
class EncoderConfig:
    """The two towers. Defaults are CAV-MAE's (Gong et al. 2023): width 768, 11 blocks a tower and 1 shared."""

    audio_frames: int = 1024
    mel_bins: int = 128
    audio_patch: tuple[int, int] = (16, 16)
    """Patch height in mel bins, patch width in time frames."""
    image_size: int = 224
    image_patch: int = 16
    frames: int = 18
    picture_tokens: str = "frame"
    """`frame`: every frame by itself, positions shared. `tubelet`: Conv3d over two frames, as AVCap does."""
    stem: str = "patch"
    """`patch`: one strided convolution (ViT). `conv`: stacked 3x3 convolutions, which small towers learn faster with."""
    width: int = 768
    depth: int = 11
    picture_depth: int | None = None
    """Blocks of the picture tower where they differ from `depth`."""
    shared_depth: int = 1
    heads: int = 12
    mlp_ratio: float = 4.0
    tag_classes: int = 527
    """Outputs of the tagging head on pooled tokens (AudioSet has 527); 0 for none."""

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Rows (frequency) and columns (time) of audio patches."""
        return self.mel_bins // self.audio_patch[0], self.audio_frames // self.audio_patch[1]

    @property
    def audio_tokens(self) -> int:
        """T_a."""
        rows, columns = self.audio_grid
        return rows * columns

    @property
    def frame_tokens(self) -> int:
        """Patches of one frame."""
        return (self.image_size // self.image_patch) ** 2

    @property
    def positions(self) -> int:
        """Learned picture positions: one set for all frames, or one per tubelet token."""
        clips = self.frames // 2 if self.picture_tokens == "tubelet" and self.frames > 1 else 1
        return clips * self.frame_tokens

    def tokens_for(self, frames: int) -> int:
        """T_v for a number of frames."""
        if self.picture_tokens == "tubelet" and frames > 1:
            return frames // 2 * self.frame_tokens
        return frames * self.frame_tokens

    def problems(self) -> list[str]:
        found = []
        for size, patch, name in (
            (self.mel_bins, self.audio_patch[0], "mel_bins by audio_patch[0]"),
            (self.audio_frames, self.audio_patch[1], "audio_frames by audio_patch[1]"),
            (self.image_size, self.image_patch, "image_size by image_patch"),
            (self.width, self.heads, "width by heads"),
        ):
            if patch < 1 or size < 1 or size % patch:
                found.append(f"encoder: {name} must divide evenly, got {size} and {patch}")
        if self.picture_tokens not in ("frame", "tubelet"):
            found.append(f"encoder.picture_tokens: {self.picture_tokens!r} is neither 'frame' nor 'tubelet'")
        if self.stem not in ("patch", "conv"):
            found.append(f"encoder.stem: {self.stem!r} is neither 'patch' nor 'conv'")
        if self.stem == "conv" and self.picture_tokens == "tubelet":
            found.append("encoder.stem: 'conv' works on single frames, not on tubelets")
        if self.picture_tokens == "tubelet" and self.frames > 1 and self.frames % 2:
            found.append(f"encoder.frames: tubelets take frames in pairs, got {self.frames}")
        return found


@dataclass(frozen=True)
class DecoderConfig:
    """The GIT-style text decoder. Defaults are GIT-base's, with BERT's uncased vocabulary."""

    vocab_size: int = 30522
    width: int = 768
    layers: int = 6
    heads: int = 12
    feedforward: int = 3072
    positions: int = 1024
    dropout: float = 0.1
    norm_eps: float = 1e-12
    embedding_norm_eps: float = 1e-8

    def problems(self) -> list[str]:
        return [f"decoder: width {self.width} is no multiple of heads {self.heads}"] if self.width % self.heads else []


@dataclass(frozen=True)
class ModelConfig:
    """A captioner: what the towers, the fusion and the decoder are."""

    fusion: str = "entropy-gate"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def to_dict(self) -> dict[str, Any]:
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Builds and checks a configuration; every problem is reported at once (`UsageError`)."""
        problems: list[str] = []
        encoder = _fill(EncoderConfig, values.get("encoder") or {}, "encoder", problems)
        decoder = _fill(DecoderConfig, values.get("decoder") or {}, "decoder", problems)
        unknown = sorted(set(values) - {"fusion", "encoder", "decoder"})
        problems += [f"model.{name}: no such setting" for name in unknown]
        fusion = values.get("fusion", "entropy-gate")
        if fusion not in FUSIONS:
            problems.append(f"model.fusion: {fusion!r} is none of {', '.join(FUSIONS)}")
        if not problems:
            problems += encoder.problems() + decoder.problems()
        if problems:
            raise UsageError("the model configuration is wrong:\n  " + "\n  ".join(problems))
        return cls(fusion=fusion, encoder=encoder, decoder=decoder)


def _fill(kind: Any, values: dict[str, Any], where: str, problems: list[str]) -> Any:
    known = {f.name: f for f in fields(kind)}
    problems += [
        f"{where}.{name}: no such setting (known: {', '.join(known)})" for name in values if name not in known
    ]
    kept = {}
    for name, value in values.items():
        if name not in known:
            continue
        default = known[name].default
        if isinstance(default, tuple):
            value = tuple(value) if isinstance(value, list | tuple) else value
        elif isinstance(default, float) and isinstance(value, int | str):
            try:
                value = float(value)
            except ValueError:
                problems.append(f"{where}.{name}: {value!r} is not a number")
        elif isinstance(default, int) and not isinstance(value, int):
            problems.append(f"{where}.{name}: {value!r} is not a whole number")
        kept[name] = value
    return kind(**kept) if not problems else kind()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
