"""The configuration of a model: frozen dataclasses, read from presets and stored in checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from evacap_cli.errors import UsageError

FUSIONS = (
    "entropy-gate", "gate", "cross-attention", "concat", "audio-only", "evidence", "adaptive", "optimal-transport",
)  # fmt: skip
TOWERS = ("cav-mae", "tags")
DECODERS = ("git", "causal-lm")


@dataclass(frozen=True)
class EncoderConfig:
    """The two towers. The defaults are those of CAV-MAE (Gong et al. 2023): width 768, 11 blocks per tower, 1 shared
    block."""

    audio_frames: int = 1024
    mel_bins: int = 128
    audio_patch: tuple[int, int] = (16, 16)
    """Height of a patch in mel bins, width in fbank frames."""
    image_size: int = 224
    image_patch: int = 16
    frames: int = 18
    picture_tokens: str = "frame"
    """`frame`: every frame is encoded separately, with the same positions. `tubelet`: Conv3d over two frames, as in
    AVCap."""
    stem: str = "patch"
    """`patch`: one strided convolution (ViT). `conv`: several convolutions, with which small towers train faster."""
    width: int = 768
    depth: int = 11
    picture_depth: int | None = None
    """The number of blocks of the picture tower; None for `depth`."""
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
    def curve_grid(self) -> tuple[int, int]:
        """Rows and columns of the values that are plotted over time."""
        return self.audio_grid

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
        if self.stem == "conv":
            sides = (*self.audio_patch, self.image_patch)
            if any(side < 8 or side & (side - 1) for side in sides):
                found.append(f"encoder.stem: 'conv' needs patch sides of 8, 16, 32, ..., got {sides}")
        if self.stem == "conv" and self.picture_tokens == "tubelet":
            found.append("encoder.stem: 'conv' needs picture_tokens 'frame'")
        if self.picture_tokens == "tubelet" and self.frames > 1 and self.frames % 2:
            found.append(f"encoder.frames: tubelets take frames in pairs, got {self.frames}")
        return found + _too_small("encoder", self, ("frames",))


@dataclass(frozen=True)
class TagEncoderConfig:
    """Pre-trained networks as towers: YAMNet tags the sound, EfficientNet-lite tags the frames, and the best classes
    become tokens."""

    audio_frames: int = 1008
    mel_bins: int = 64
    image_size: int = 224
    frames: int = 4
    heard: int = 12
    """Classes of a clip's sound that become tokens, T_a."""
    seen: int = 8
    """Classes of a clip's picture that become tokens, T_v, and classes kept per frame."""
    windows: int = 5
    """Windows of a clip for which the confidence of a class is given."""
    network: str = "efficientnet_lite0"
    """Name of the picture network in timm. timm is only imported for others than the default."""
    width: int = 256
    depth: int = 2
    """Self-attention blocks over the tokens of the sound."""
    picture_depth: int = 1
    heads: int = 4
    mlp_ratio: float = 2.0

    audio_classes = 521
    """Those of YAMNet, from AudioSet."""
    picture_classes = 1000
    """Those of ImageNet."""
    picture_tokens = "frame"
    tag_classes = 0

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Rows and columns of audio tokens: every class is a row, and its token spans the clip."""
        return self.heard, 1

    @property
    def curve_grid(self) -> tuple[int, int]:
        """Rows and columns of the values that are plotted over time."""
        return 1, self.windows

    @property
    def audio_tokens(self) -> int:
        """T_a."""
        return self.heard

    @property
    def frame_tokens(self) -> int:
        """Classes kept of one frame."""
        return self.seen

    def tokens_for(self, frames: int) -> int:
        """Classes kept of a number of frames."""
        return frames * self.seen

    def problems(self) -> list[str]:
        found = _too_small(
            "encoder",
            self,
            ("frames", "heard", "seen", "windows", "width", "depth", "picture_depth", "heads"),
        )
        if not found and self.width % self.heads:
            found.append(f"encoder: width must divide evenly by heads, got {self.width} and {self.heads}")
        if self.network != TagEncoderConfig.network:
            import timm  # takes seconds

            if not timm.is_model(self.network):
                found.append(f"encoder.network: timm has no model called {self.network!r}")
        if self.mel_bins != 64:
            found.append(f"encoder.mel_bins: YAMNet takes 64, got {self.mel_bins}")
        if self.audio_frames < 96:
            found.append(f"encoder.audio_frames: YAMNet takes at least 96, got {self.audio_frames}")
        patches = (self.audio_frames - 96) // 48 + 1
        if not found and self.windows > patches:
            found.append(
                f"encoder.windows: at most {patches} in {self.audio_frames} frames, got {self.windows}"
            )
        if not found and (self.heard > self.audio_classes or self.seen > self.picture_classes):
            found.append("encoder: heard and seen cannot be more than there are classes")
        return found


AnyEncoderConfig = EncoderConfig | TagEncoderConfig


@dataclass(frozen=True)
class LexiconConfig:
    """Minimum confidence for a caption to name a sound; for models with tag towers."""

    confidence: float = 0.0
    """Minimum confidence of YAMNet in one of the classes that a word stands for; 0 allows every word."""
    confirmed: float = 0.0
    """Minimum confidence for classes that a matching picture shows."""
    speech: float = 0.0
    """Minimum confidence for classes of speech, which YAMNet often reports falsely, if above `confidence`."""

    def problems(self) -> list[str]:
        return [
            f"lexicon.{name}: {getattr(self, name)} must be at least 0 and below 1"
            for name in ("confidence", "confirmed", "speech")
            if not 0 <= getattr(self, name) < 1
        ]


@dataclass(frozen=True)
class DecoderConfig:
    """The text decoder. The defaults are those of GIT-base, with BERT's uncased vocabulary."""

    vocab_size: int = 30522
    width: int = 768
    layers: int = 6
    heads: int = 12
    feedforward: int = 3072
    positions: int = 1024
    dropout: float = 0.1
    norm_eps: float = 1e-12
    embedding_norm_eps: float = 1e-8
    length_penalty: float = 0.6
    """Exponent of the length in the scores of beam search: higher values favour longer captions."""
    kind: str = "git"
    """`git`: our decoder. `causal-lm`: a Hugging Face language model, which determines all sizes except `positions`."""
    language_model: str = ""
    """For `causal-lm`: a local folder, or hf:ORG/NAME."""
    lora_rank: int = 8
    lora_alpha: int = 32
    """For `causal-lm`: rank and scale of the adapters, which are trained."""

    def problems(self) -> list[str]:
        found = _too_small(
            "decoder", self, ("vocab_size", "width", "layers", "heads", "feedforward", "positions")
        )
        if not found and self.width % self.heads:
            found.append(f"decoder: width {self.width} is no multiple of heads {self.heads}")
        found += _too_small("decoder", self, ("lora_rank", "lora_alpha"))
        if self.kind not in DECODERS:
            found.append(f"decoder.kind: {self.kind!r} is none of {', '.join(DECODERS)}")
        if (self.kind == "causal-lm") != bool(self.language_model):
            found.append("decoder.language_model: for kind causal-lm, and only for it")
        return found


@dataclass(frozen=True)
class EvidenceConfig:
    """The switch of `fusion: evidence`; not used by other kinds."""

    width: int = 128
    """Dimension of the space in which the matcher compares audio and picture."""
    threshold: float = 0.5
    """The picture is used if it belongs to the audio with at least this probability."""
    windows: int = 1
    """Windows of a clip; the switch is decided for each window separately."""
    decoders: int = 2
    """2: clips without their picture have a separate decoder, which pictures do not affect. 1: one decoder for all
    clips."""
    confirmation: float = 0.0
    """Maximum increase, in logits, of a heard class whose source the picture shows; for tag towers. See
    `TagEvidence.confirm`."""
    confirmed_logit: float = 4.0
    """Logit above which `confirmation` does not raise a class."""

    def problems(self) -> list[str]:
        found = _too_small("evidence", self, ("width", "windows"))
        if self.confirmation < 0:
            found.append(f"evidence.confirmation: {self.confirmation} must not be negative")
        if self.decoders not in (1, 2):
            found.append(f"evidence.decoders: {self.decoders} is neither 1 nor 2")
        if not 0 <= self.threshold <= 1:
            found.append(f"evidence.threshold: {self.threshold} must be between 0 and 1")
        return found


@dataclass(frozen=True)
class AdaptiveConfig:
    """`fusion: adaptive`; not used by other kinds."""

    tags: int = 0
    """The number of best AudioSet tags of the sound, from the tagging head of the encoder, that the text attends to."""

    def problems(self) -> list[str]:
        return [f"adaptive.tags: {self.tags} must not be below 0"] if self.tags < 0 else []


@dataclass(frozen=True)
class TransportConfig:
    """`fusion: optimal-transport`; not used by other kinds."""

    epsilon: float = 0.1
    """Weight of the entropic regularisation: a smaller value makes the plan sharper."""
    iterations: int = 50
    """Iterations of Sinkhorn's algorithm."""

    def problems(self) -> list[str]:
        found = _too_small("transport", self, ("iterations",))
        return found if self.epsilon > 0 else [*found, f"transport.epsilon: {self.epsilon} must be above 0"]


@dataclass(frozen=True)
class ModelConfig:
    """The towers, the fusion and the decoder of a captioner."""

    fusion: str = "entropy-gate"
    encoder: AnyEncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    lexicon: LexiconConfig = field(default_factory=LexiconConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)

    @property
    def towers(self) -> str:
        """One of TOWERS."""
        return "tags" if isinstance(self.encoder, TagEncoderConfig) else "cav-mae"

    def to_dict(self) -> dict[str, Any]:
        values = _plain(asdict(self))
        for fusion, section in _SECTIONS.items():
            if self.fusion != fusion:
                del values[section]
        if self.decoder.kind == "git":
            for name in ("kind", "language_model", "lora_rank", "lora_alpha"):
                del values["decoder"][name]
        if self.towers == "tags":
            return {"towers": "tags", **values}
        del values["lexicon"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Builds and checks a configuration; every problem is reported at once (`UsageError`)."""
        problems: list[str] = []
        towers = values.get("towers", "cav-mae")
        if towers not in TOWERS:
            problems.append(f"model.towers: {towers!r} is none of {', '.join(TOWERS)}")
        kind = TagEncoderConfig if towers == "tags" else EncoderConfig
        encoder = _fill(kind, values.get("encoder") or {}, "encoder", problems)
        decoder = _fill(DecoderConfig, values.get("decoder") or {}, "decoder", problems)
        evidence = _fill(EvidenceConfig, values.get("evidence") or {}, "evidence", problems)
        lexicon = _fill(LexiconConfig, values.get("lexicon") or {}, "lexicon", problems)
        adaptive = _fill(AdaptiveConfig, values.get("adaptive") or {}, "adaptive", problems)
        transport = _fill(TransportConfig, values.get("transport") or {}, "transport", problems)
        unknown = sorted(set(values) - {f.name for f in fields(cls)} - {"towers"})
        problems += [f"model.{name}: no such setting" for name in unknown]
        fusion = values.get("fusion", "entropy-gate")
        if fusion not in FUSIONS:
            problems.append(f"model.fusion: {fusion!r} is none of {', '.join(FUSIONS)}")
        if towers != "tags" and evidence.confirmation:
            problems.append(f"evidence.confirmation: {evidence.confirmation} needs tag towers (0)")
        if towers == "tags" and evidence.windows != 1:
            problems.append(f"evidence.windows: tag towers compare whole clips (1), got {evidence.windows}")
        if towers != "tags" and values.get("lexicon"):
            problems.append("model.lexicon: only for towers: tags")
        if decoder.kind == "causal-lm" and (towers == "tags" or fusion in ("adaptive", "evidence")):
            problems.append(
                "decoder.kind: causal-lm does not go with towers: tags, fusion: adaptive or fusion: evidence, whose "
                "decoders are ours"
            )
        if adaptive.tags > encoder.tag_classes:
            problems.append(
                f"adaptive.tags: {adaptive.tags} is more than the encoder's {encoder.tag_classes} classes"
            )
        if problems:
            raise UsageError("the model configuration is wrong:\n  " + "\n  ".join(problems))
        return cls(fusion, encoder, decoder, evidence, lexicon, adaptive, transport)


_SECTIONS = {"evidence": "evidence", "adaptive": "adaptive", "optimal-transport": "transport"}
"""The sections that only one kind of fusion uses."""


def _fill(kind: Any, values: Any, where: str, problems: list[str]) -> Any:
    """The dataclass of a section. If the section is invalid, adds messages to `problems` and returns the defaults."""
    if not isinstance(values, dict):
        problems.append(f"{where}: {values!r} is not a section of settings")
        return kind()
    known = {f.name: f.default for f in fields(kind)}
    found = [
        f"{where}.{name}: no such setting (known: {', '.join(known)})" for name in values if name not in known
    ]
    kept = {}
    for name, value in values.items():
        if name in known:
            kept[name], wrong = _as(known[name], value)
            found += [f"{where}.{name}: {value!r} is {wrong}"] if wrong else []
    filled = kind() if found else kind(**kept)
    found += filled.problems()
    problems += found
    return filled


def _as(default: Any, value: Any) -> tuple[Any, str]:
    """`value` converted to the type of `default` (None: an optional integer), and what is wrong with it."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, tuple):
        fits = isinstance(value, list | tuple) and len(value) == len(default)
        fits = fits and all(isinstance(item, int) for item in value)
        return (tuple(value), "") if fits else (default, f"not {len(default)} whole numbers")
    if isinstance(default, float):
        try:  # YAML reads 1e-12 as text
            return float(value), ""
        except (TypeError, ValueError):
            return default, "not a number"
    if isinstance(default, str):
        return (value, "") if isinstance(value, str) else (default, "not a word")
    return (value, "") if whole or value is default is None else (default, "not a whole number")


def _too_small(where: str, sizes: Any, names: tuple[str, ...]) -> list[str]:
    return [f"{where}.{n}: {getattr(sizes, n)} is less than 1" for n in names if getattr(sizes, n) < 1]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
