"""The captioner: towers, fusion and decoder, put together for training and for generation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evacap_cli.model.adaptive import AdaptiveDecoder, AdaptiveFusion
from evacap_cli.model.beam import BeamSettings, CachedDecoding, Hypotheses, RecomputedDecoding, beam_search
from evacap_cli.model.causal_lm import CausalLMDecoder, CausalLMDecoding
from evacap_cli.model.config import ModelConfig, TagEncoderConfig
from evacap_cli.model.decoder import DecoderLayer, TextDecoder
from evacap_cli.model.encoder import Block, TwoTowerEncoder
from evacap_cli.model.evidence import shows_something
from evacap_cli.model.fused import Fused
from evacap_cli.model.fusion import EvidenceSwitch, Tags, build_fusion
from evacap_cli.model.lexicon import Lexicon
from evacap_cli.model.losses import gate_stability, semantic_consistency, smoothed_cross_entropy
from evacap_cli.model.optimal_transport import OptimalTransport
from evacap_cli.model.tag_encoder import TagEncoder, pooled_frames
from evacap_cli.model.tag_evidence import TagEvidence

BOS, EOS, PAD = 1, 2, 0
"""Special words of our own tokenizers; imported models bring their own."""
FRAMES_PER_PASS = 9
"""On a CPU, so that what becomes of them stays in its caches, and memory bounded: 8 % faster in fp32 than 18."""


@dataclass(frozen=True)
class Objective:
    """Weights of the loss. A weight of 0 switches a term off, at no cost."""

    smoothing: float = 0.1
    gate_stability: float = 0.01
    consistency: float = 0.1
    match: float = 1.0

    def total(self, parts: dict[str, Tensor], words: float = 1.0, clips: float = 1.0) -> Tensor:
        """The loss of what `CaptionModel` returns. `words` and `clips`: the batch's shares where it is a portion of a
        larger one; the losses of all portions then add up to the larger one's."""
        loss = parts["caption"] * words
        if "gate_stability" in parts:
            loss = loss + self.gate_stability * clips * parts["gate_stability"]
        if "consistency" in parts:
            loss = loss + self.consistency * clips * parts["consistency"]
        if "match" in parts:
            loss = loss + self.match * clips * parts["match"]
        return loss


@dataclass
class Generation:
    """tokens: int64 (B, L), bos to eos, then pad. score: (B,) mean log-probability per word (eos counted).

    gate and entropy: (B,) means over the sound's tokens, None for models without them; a clip without a picture has
    gate 0 and entropy NaN. beam_score: (B,) the length-penalised score that the search ranked by. gates and entropies:
    (B, rows * columns of `encoder.curve_grid`), what the means are of. evidence: (B,), how likely sound and picture
    belong together (the mean over windows that show something), and cues: (B, K), what it is made of, NaN for a clip
    without a picture; None for models that do not compare. heard and seen: of tag towers, the clip's tags; see `Fused`.
    confidences: of `adaptive`, (B, L - 1), how much of each token after the first comes from the picture, NaN after the
    last word; `gate` is then their mean.
    """

    tokens: Tensor
    score: Tensor
    beam_score: Tensor
    gate: Tensor | None = None
    entropy: Tensor | None = None
    gates: Tensor | None = None
    entropies: Tensor | None = None
    evidence: Tensor | None = None
    cues: Tensor | None = None
    heard: Tensor | None = None
    seen: Tensor | None = None
    confidences: Tensor | None = None


class CaptionModel(nn.Module):
    """A captioner of one `fusion` kind; see `ModelConfig`."""

    def __init__(self, config: ModelConfig, bos: int = BOS, eos: int = EOS, pad: int = PAD) -> None:
        super().__init__()
        self.config, self.bos, self.eos, self.pad = config, bos, eos, pad
        self.has_picture = config.fusion != "audio-only"
        self.unified = config.fusion == "concat"
        self.encoder = _build_encoder(config, self.has_picture, self.unified)
        self.fusion = build_fusion(config)
        self.decoder = _build_decoder(config)
        self.picture_decoder: TextDecoder | None = None
        """Of `evidence`: speaks where the picture is in, so that `decoder` speaks of sounds alone."""
        if self.has_evidence and config.evidence.decoders == 2:
            self.picture_decoder = TextDecoder(config.decoder, config.encoder.width)
            self.copy_audio_decoder()
        self.lexicon: Lexicon | None = None
        """Which words a clip has earned; of models with tag towers, once their words are known."""
        self.packed: torch.dtype | None = None
        """What the weights were packed as; see `packing.pack`."""

    @property
    def has_gate(self) -> bool:
        return bool(self.fusion.has_gate)

    @property
    def has_evidence(self) -> bool:
        """Whether it asks if sound and picture belong together."""
        return isinstance(self.fusion, EvidenceSwitch)

    @property
    def has_tag_towers(self) -> bool:
        """Whether its towers give tags, of which `fuse` makes tokens."""
        return isinstance(self.encoder, TagEncoder)

    @property
    def tag_encoder(self) -> TagEncoder:
        """The encoder of a model with tag towers; TypeError for other models."""
        if not isinstance(self.encoder, TagEncoder):
            raise TypeError("the model has no tag towers")
        return self.encoder

    @property
    def decoders(self) -> list[TextDecoder]:
        return [self.decoder] if self.picture_decoder is None else [self.decoder, self.picture_decoder]

    def copy_audio_decoder(self) -> None:
        """The decoder that sees begins with the words of the one that does not."""
        if self.picture_decoder is not None:
            self.picture_decoder.load_state_dict(self.decoder.state_dict())

    @property
    def trains_audio_decoder(self) -> bool:
        """Whether, in training, `decoder` learns to speak of every clip's sound alone, beside the one that sees."""
        learns = any(parameter.requires_grad for parameter in self.decoder.parameters())
        return self.training and self.picture_decoder is not None and learns

    def _split_by_decoder(self, memory: Fused) -> list[tuple[TextDecoder, Tensor | None]]:
        """Which decoder speaks of which clips, bool (B,), None for all."""
        seeing, open_ = self.picture_decoder, memory.open
        if seeing is None or open_ is None or not bool(open_.any()):
            return [(self.decoder, None)]
        return [(seeing, None)] if bool(open_.all()) else [(self.decoder, ~open_), (seeing, open_)]

    @property
    def cues(self) -> tuple[str, ...]:
        """The names of the numbers that compare sound and picture; none for kinds that do not compare."""
        if isinstance(self.fusion, OptimalTransport):
            return self.fusion.cues
        return self.fusion.evidence.cues if isinstance(self.fusion, EvidenceSwitch) else ()

    def frame_count(self, picture: Tensor) -> int:
        """N of encoded pictures or tower tokens (B, T_v, d)."""
        tokens = picture.shape[1] // self.config.encoder.frame_tokens
        return tokens * 2 if self.encoder.in_pairs else tokens

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.dtype

    def encode_audio(self, fbank: Tensor) -> Tensor:
        """fbank: (B, T, F) normalised -> what `fuse` takes of the sound, (B, T_a, d)."""
        return self.finish_audio(self.encoder.audio_tower(fbank))

    def encode_picture(self, pixels: Tensor, same: Tensor | None = None) -> Tensor:
        """pixels: (B, N, 3, S, S) normalised -> what `fuse` takes of the picture, (B, T_v, d).

        same: int64 (B, N) from `features.same_frames`, for every frame the one whose tokens serve it, too. Models that
        look at frames in pairs pay no heed to it.
        """
        if torch.is_grad_enabled() or self.encoder.in_pairs:
            return self.finish_picture(self.encoder.picture_tower(pixels))
        B, N = pixels.shape[:2]
        own = None if same is None else same == torch.arange(N, device=same.device)
        frames = pixels.flatten(0, 1) if own is None else pixels[own]
        at_once = FRAMES_PER_PASS if frames.device.type == "cpu" else len(frames)
        tokens = torch.cat(
            [self.finish_picture(self.encoder.picture_tower(part[:, None])) for part in frames.split(at_once)]
        )
        if own is not None and same is not None:
            place = own.flatten().cumsum(0).sub_(1).view(B, N).gather(1, same)
            tokens = tokens[place.flatten()]
        return tokens.reshape(B, N * tokens.shape[1], -1)

    def finish_audio(self, tower: Tensor) -> Tensor:
        """Tower tokens on to `fuse`: here, through the shared block, unless it joins both modalities later. Tags stay
        tags."""
        return tower if self.unified else self.encoder.align_audio(tower)

    def finish_picture(self, tower: Tensor) -> Tensor:
        return tower if self.unified else self.encoder.align_picture(tower)

    def _heard(self, audio: Tensor, towers: bool) -> Tensor:
        return self.finish_audio(audio) if towers else self.encode_audio(audio)

    def _seen(self, picture: Tensor | None, towers: bool, same: Tensor | None = None) -> Tensor | None:
        if picture is None or not self.has_picture:
            return None
        return self.finish_picture(picture) if towers else self.encode_picture(picture, same)

    def set_checkpointing(self, wanted: bool) -> None:
        """In training, blocks keep only what they were given and compute the rest again: less memory, more time."""
        self.encoder.checkpointing = wanted
        for decoder in self.decoders:
            decoder.checkpointing = wanted

    def compile_blocks(self) -> None:
        """`torch.compile` for the blocks of towers and decoder, one after another as they are first used, and for the
        decoder's step as a whole."""
        for module in self.modules():
            if isinstance(module, Block | DecoderLayer):
                module.compile()
        for decoder in self.decoders:
            decoder.step = torch.compile(decoder.step)  # type: ignore[method-assign]

    def visible(self, pixels: Tensor, frame_mask: Tensor | None) -> Tensor | None:
        """bool (B, N), the frames of normalised pixels (B, N, 3, S, S) that the model takes for a picture; None: all.

        `evidence` looks at none that is black, of one colour, or noise; other kinds look at what they are given.
        """
        if not self.has_evidence:
            return frame_mask
        shown = shows_something(pixels)
        return shown if frame_mask is None else shown & frame_mask.to(shown.device)

    def token_mask(self, frame_mask: Tensor | None, tokens: int) -> Tensor | None:
        """bool (B, N) of frames that exist -> (B, T_v) of picture tokens that do; a tubelet needs both its frames."""
        if frame_mask is None or bool(frame_mask.all()):
            return None
        if self.encoder.in_pairs:
            frame_mask = frame_mask.unflatten(1, (-1, 2)).all(dim=2)
        return frame_mask.repeat_interleave(tokens // frame_mask.shape[1], dim=1)

    def fuse(self, audio: Tensor, picture: Tensor | None, frame_mask: Tensor | None = None) -> Fused:
        """Encoded sound (B, T_a, d) and picture (B, T_v, d) or None, frame_mask: bool (B, N) -> the decoder's memory.

        A clip whose frames are all masked, or a batch without a picture, is heard only.
        """
        audio, picture, mask, tags = self._tokens(audio, picture if self.has_picture else None, frame_mask)
        confirmed = self._confirm(tags)
        if confirmed is not None:
            assert isinstance(self.encoder, TagEncoder)
            audio = self.encoder.embed_audio(confirmed)
        if not self.has_picture:
            fused = Fused(audio)
        elif self.has_evidence:
            fused = self.fusion(audio, picture, mask, tags)
        elif isinstance(self.fusion, AdaptiveFusion) and isinstance(self.encoder, TwoTowerEncoder):
            head = self.encoder.tag_head if self.fusion.tags else None
            fused = self.fusion(audio, picture, mask, None if head is None else head(audio))
        elif not self.unified:
            fused = self.fusion(audio, picture, mask)
        else:
            if mask is not None:
                mask = torch.cat((mask.new_ones(audio.shape[:2]), mask), dim=1)
            fused = Fused(self.encoder.join(audio, picture, mask), mask)
        if self.has_tag_towers and tags is not None:
            fused.heard, fused.seen = tags
            fused.confirmed = confirmed
        return fused

    def _confirm(self, tags: Tags | None) -> Tensor | None:
        """Tags of the sound with the classes raised that a matching picture shows. None if the model does not do this,
        and in training, whose pictures all match."""
        if self.training or tags is None or tags[1] is None or not isinstance(self.fusion, EvidenceSwitch):
            return None
        evidence, config = self.fusion.evidence, self.fusion.config
        return (
            evidence.confirm(tags, config)
            if isinstance(evidence, TagEvidence) and config.confirmation
            else None
        )

    def _tokens(
        self, audio: Tensor, picture: Tensor | None, frame_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tags | None]:
        """Encoded sound and picture as tokens, (B, T_a, d) and (B, T_v, d), bool (B, T_v) or None, and their tags."""
        encoder = self.encoder
        if not isinstance(encoder, TagEncoder):
            mask = None if picture is None else self.token_mask(frame_mask, picture.shape[1])
            head = encoder.tag_head
            tags = (
                None
                if head is None or picture is None or not self.has_evidence
                else (head(audio), head(picture))
            )
            return audio, picture, mask, tags
        tokens = encoder.embed_audio(audio)
        if picture is None:
            return tokens, None, None, (audio, None)  # type: ignore[return-value]
        config = encoder.config
        seen = pooled_frames(picture, config.seen, config.picture_classes, frame_mask)
        some = None if frame_mask is None else frame_mask.any(dim=1)
        mask = None
        if some is not None and not bool(some.all()):
            seen, mask = torch.where(some[:, None, None], seen, 0.0), some[:, None].expand(seen.shape[:2])
        return tokens, encoder.embed_picture(seen), mask, (audio, seen)

    def logits(self, memory: Fused, tokens: Tensor) -> Tensor:
        """Teacher-forced word logits (B, T, V) for tokens (B, T)."""
        parts, places = [], []
        for decoder, rows in self._split_by_decoder(memory):
            if rows is None:
                return decoder(memory.tokens, memory.mask, tokens)
            some = memory.some(rows)
            parts.append(decoder(some.tokens, some.mask, tokens[rows]))
            places.append(rows.nonzero()[:, 0])
        return torch.cat(parts)[torch.cat(places).argsort()]

    def forward(
        self,
        audio: Tensor,
        picture: Tensor | None,
        tokens: Tensor,
        need_predict: Tensor,
        frame_mask: Tensor | None = None,
        partners: Tensor | None = None,
        objective: Objective = Objective(),
        towers: bool = False,
        unseen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss of a batch and what it is made of.

        audio: (B, T, F), picture: (B, N, 3, S, S) or None (with `towers`, tower tokens of both instead, for training
        on frozen towers). tokens: int64 (B, L). need_predict: bool (B, L), True for words to be learned. partners:
        int64 (B,) from `shuffle_partners`. unseen: bool (B,), clips that are captioned without their picture. Returns
        `loss`, `caption`, and where they apply `match`, `gate_stability`, `consistency`, `shuffled` (count),
        `gate_matched`, `gate_shuffled`.
        """
        if picture is not None and not towers:
            frame_mask = self.visible(picture, frame_mask)
        heard, seen = self._heard(audio, towers), self._seen(picture, towers)
        touched = torch.zeros(len(tokens), dtype=torch.bool, device=heard.device)
        given, given_mask = seen, frame_mask
        if partners is not None and seen is not None:
            partners = partners.to(heard.device)
            touched = partners != torch.arange(len(partners), device=heard.device)
            given = seen[partners]
            given_mask = None if frame_mask is None else frame_mask[partners]
        if unseen is not None and given is not None:
            frames = given.new_ones(len(given), self.frame_count(given), dtype=torch.bool)
            given_mask = (frames if given_mask is None else given_mask) & ~unseen.to(heard.device)[:, None]
        memory = self.fuse(heard, given, given_mask)
        wanted = need_predict[:, 1:]
        logits = self.logits(memory, tokens[:, :-1])
        target = tokens[:, 1:][wanted]
        result = {"caption": smoothed_cross_entropy(logits[wanted], target, objective.smoothing)}
        if self.trains_audio_decoder:
            alone = self.logits(Fused(self._tokens(heard, None, None)[0]), tokens[:, :-1])[wanted]
            result["caption"] = (
                result["caption"] + smoothed_cross_entropy(alone, target, objective.smoothing)
            ) / 2
        unseeing = memory.open is not None and not bool(memory.open.any())
        if self.training and self.picture_decoder is not None and unseeing:
            # nothing was to be seen, but processes wait for one another's gradients, and a frozen rest has none
            result["caption"] = result["caption"] + 0 * sum(
                p.sum() for p in self.picture_decoder.parameters()
            )
        if (
            isinstance(self.fusion, EvidenceSwitch | OptimalTransport)
            and objective.match
            and seen is not None
        ):
            audio_tokens, picture_tokens, mask, tags = self._tokens(heard, seen, frame_mask)
            assert picture_tokens is not None
            result["match"] = self.fusion.match_loss(audio_tokens, picture_tokens, mask, tags)
        grid = self.config.encoder.audio_grid
        if memory.gate is not None and objective.gate_stability and grid[1] > 1:
            result["gate_stability"] = gate_stability(memory.gate.float(), grid)
        if objective.consistency and bool(touched.any()) and seen is not None:
            own_mask = None if frame_mask is None else frame_mask[touched]
            own = self.logits(self.fuse(heard[touched], seen[touched], own_mask), tokens[touched, :-1])
            result["consistency"] = semantic_consistency(
                own[wanted[touched]], logits[touched][wanted[touched]]
            )
        if seen is not None:
            result["shuffled"] = touched.sum()
        if memory.gate is not None:
            means = memory.gate.detach().float().mean(dim=1)
            for name, rows in (("gate_matched", ~touched), ("gate_shuffled", touched)):
                if bool(rows.any()):
                    result[name] = means[rows].mean()
        return {"loss": objective.total(result), **result}

    @torch.inference_mode()
    def generate(
        self,
        fbank: Tensor,
        pixels: Tensor | None = None,
        frame_mask: Tensor | None = None,
        beam: int = 4,
        max_words: int = 20,
        min_words: int = 0,
        length_penalty: float | None = None,
        cached: bool = True,
        towers: bool = False,
        same: Tensor | None = None,
    ) -> Generation:
        """Captions a batch: fbank (B, T, F), pixels (B, N, 3, S, S) or None, frame_mask bool (B, N) or None; `same` as
        `encode_picture` takes it. length_penalty: None for the one of the configuration.

        With `towers`, tower tokens of both instead of fbank and pixels.
        """
        if pixels is not None and not towers:
            frame_mask = self.visible(pixels, frame_mask)
            if frame_mask is not None and not bool(frame_mask.any()):
                pixels = None  # nothing to see in any clip: the picture tower rests
        if not self.has_tag_towers:  # whose networks and tags have a precision of their own
            fbank, pixels = fbank.to(self.dtype), None if pixels is None else pixels.to(self.dtype)
        heard = self._heard(fbank, towers)
        seen = self._seen(pixels, towers, same)
        return self.decode(
            self.fuse(heard, seen, frame_mask), beam, max_words, min_words, length_penalty, cached
        )

    @torch.inference_mode()
    def decode(
        self,
        memory: Fused,
        beam: int = 4,
        max_words: int = 20,
        min_words: int = 0,
        length_penalty: float | None = None,
        cached: bool = True,
    ) -> Generation:
        """Words for fused tokens. `cached=False` recomputes everything at every word (slow; the same tokens).

        ValueError when the decoder has too few positions for `max_words`.
        """
        if max_words >= (places := self.config.decoder.positions):
            raise ValueError(f"this model has places for {places - 1} words, got max_words={max_words}")
        settings = BeamSettings(
            beams=beam,
            max_length=max_words + 2,
            min_length=min_words + 1 if min_words else 0,
            length_penalty=self.config.decoder.length_penalty if length_penalty is None else length_penalty,
            bos=self.bos,
            eos=self.eos,
            pad=self.pad,
        )
        allowed = self._allowed(memory)

        def said(decoder: TextDecoder, memory: Fused, allowed: Tensor | None) -> Hypotheses:
            inputs = (memory.tokens, memory.mask, settings)
            decoding: CausalLMDecoding | CachedDecoding | RecomputedDecoding
            if not cached:
                decoding = RecomputedDecoding(decoder, *inputs)
            elif isinstance(decoder, CausalLMDecoder):
                decoding = CausalLMDecoding(decoder, *inputs)
            else:
                decoding = CachedDecoding(decoder, *inputs)
            batch, device = memory.tokens.shape[0], memory.tokens.device
            rules = None if self.lexicon is None or allowed is None else self.lexicon.rules(allowed)
            return beam_search(decoding.step, decoding.reorder, batch, settings, device, rules)

        speakers = self._split_by_decoder(memory)
        if len(speakers) == 1:
            found = said(speakers[0][0], memory, allowed)
        else:
            rows = [rows for _, rows in speakers if rows is not None]
            parts = [
                said(decoder, memory.some(some), None if allowed is None else allowed[some])
                for (decoder, _), some in zip(speakers, rows, strict=True)
            ]
            found = Hypotheses.joined(parts, rows)
        gates, entropies = (self._over_time(x, memory) for x in (memory.gate, memory.entropy))
        gate, entropy = (None if x is None else x.float().mean(dim=1) for x in (memory.gate, memory.entropy))
        confidences = None
        if isinstance(self.decoder, AdaptiveDecoder):
            confidences = self._confidences(self.decoder, memory, found)
            gate = confidences.nanmean(dim=1)
        score = found.logprob / (found.length - 1).clamp(min=1)
        evidence = None if memory.evidence is None else memory.evidence.nanmean(dim=1)
        return Generation(
            found.tokens, score, found.score, gate, entropy, gates, entropies, evidence, memory.cues,
            memory.heard, memory.seen, confidences,
        )  # fmt: skip

    @staticmethod
    def _confidences(decoder: AdaptiveDecoder, memory: Fused, found: Hypotheses) -> Tensor:
        """Of the tokens that were found, in one pass; of a caption without words, that of its end."""
        values = decoder.confidences(memory.tokens, memory.mask, found.tokens[:, :-1])
        place = torch.arange(values.shape[1], device=values.device)
        words = (found.length - 2).clamp(min=1)  # without bos and eos
        return values.masked_fill(place >= words[:, None], torch.nan)

    def _allowed(self, memory: Fused) -> Tensor | None:
        """bool (B, V): the words that each clip has earned."""
        if self.lexicon is None or memory.heard is None:
            return None
        shown = None
        evidence = self.fusion.evidence if isinstance(self.fusion, EvidenceSwitch) else None
        if isinstance(evidence, TagEvidence) and memory.seen is not None and memory.open is not None:
            shown = evidence.shown((memory.heard, memory.seen)) * memory.open[:, None]
        return self.lexicon.allowed(memory.heard if memory.confirmed is None else memory.confirmed, shown)

    def _over_time(self, values: Tensor | None, memory: Fused) -> Tensor | None:
        """Numbers of audio tokens (B, T_a) on `curve_grid`. A tag's token spans the clip: in a window, each counts by
        the tag's probability there."""
        if values is None or memory.heard is None:
            return None if values is None else values.float()
        there = memory.heard[..., 2:].sigmoid()  # (B, T_a, W)
        return (values.float()[..., None] * there).sum(dim=1) / there.sum(dim=1)


def _build_encoder(config: ModelConfig, picture: bool, unified: bool) -> TwoTowerEncoder | TagEncoder:
    if isinstance(config.encoder, TagEncoderConfig):
        return TagEncoder(config.encoder, picture, unified)
    return TwoTowerEncoder(config.encoder, picture, unified)


def _build_decoder(config: ModelConfig) -> TextDecoder:
    width = config.encoder.width
    if config.decoder.kind == "causal-lm":
        return CausalLMDecoder(config.decoder, width)
    if config.fusion == "adaptive":
        return AdaptiveDecoder(config.decoder, width, config.encoder.audio_tokens + config.adaptive.tags)
    return TextDecoder(config.decoder, width)


def build_model(config: ModelConfig) -> CaptionModel:
    """A captioner with fresh random weights (torch's global generator)."""
    return CaptionModel(config)


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Parameters by part and in total; tied weights count once."""
    encoder = model.encoder
    counts = {
        "audio tower": 0,
        "picture tower": 0,
        "shared block": 0,
        "tag head": 0,
        "fusion": 0,
        "decoder": 0,
    }
    assert isinstance(encoder, nn.Module)
    for name, parameter in encoder.named_parameters():
        root = name.split(".")[0]
        part = "tag head" if root == "tag_head" else "shared block" if root in ("blocks_u", "norms") else None
        counts[part or ("audio tower" if root.endswith("_a") else "picture tower")] += parameter.numel()
    for name, child in model.named_children():
        if name not in ("encoder", "lexicon"):
            counts[name.removeprefix("picture_")] += sum(p.numel() for p in child.parameters())
    return {**counts, "total": sum(counts.values())}
