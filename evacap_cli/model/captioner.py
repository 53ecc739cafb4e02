"""EVACap's captioner: towers, fusion and decoder, for training and for inference.

The forward pass of `generate`, in the paper's symbols:

    A   = encode_audio(fbank)        audio tokens (B, T_a, d), section 2.1          `encoder`
    F_v = encode_picture(pixels)     visual tokens (B, T_v, d), section 2.1         `encoder`
    F   = fuse(A, F_v)               cross-attention (1), entropy (2), gate (3)     `fusion.EntropyGate`
    decode(F)                        beam search over the text decoder              `decoder`, `beam`

Towers that recognise tags (`tag_encoder`) and other kinds of fusion (`fusion_kinds`) have the same interface.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evacap_cli.model.adaptive import AdaptiveDecoder, AdaptiveFusion
from evacap_cli.model.beam import (
    BeamSearch,
    BeamSettings,
    CachedDecoding,
    Decoding,
    Hypotheses,
    RecomputedDecoding,
)
from evacap_cli.model.causal_lm import CausalLMDecoder, CausalLMDecoding
from evacap_cli.model.config import ModelConfig, TagEncoderConfig
from evacap_cli.model.decoder import DecoderLayer, TextDecoder
from evacap_cli.model.encoder import Block, TwoTowerEncoder
from evacap_cli.model.evidence import shows_something
from evacap_cli.model.evidence_switch import EvidenceSwitch
from evacap_cli.model.fused import Fused, Tags
from evacap_cli.model.fusion_kinds import build_fusion
from evacap_cli.model.generation import Generation
from evacap_cli.model.graphs import Recordings
from evacap_cli.model.lexicon import Lexicon
from evacap_cli.model.losses import Objective, gate_stability
from evacap_cli.model.optimal_transport import OptimalTransport
from evacap_cli.model.tag_encoder import TagEncoder
from evacap_cli.model.tag_evidence import TagEvidence
from evacap_cli.model.word_losses import (
    DecoderStates,
    caption_loss,
    consistency_loss,
    decoder_states,
    word_logits,
)

BOS, EOS, PAD = 1, 2, 0
"""Special tokens of our own tokenizers; imported models have others."""
FRAMES_PER_PASS = 9
"""Frames that a CPU encodes at once. Their activations fit into its caches: 8 % faster in fp32 than 18 frames."""


class CaptionModel(nn.Module):
    """A captioner with random weights; `ModelConfig` selects the towers, the fusion and the sizes."""

    def __init__(self, config: ModelConfig, bos: int = BOS, eos: int = EOS, pad: int = PAD) -> None:
        super().__init__()
        self.config, self.bos, self.eos, self.pad = config, bos, eos, pad
        self.has_picture = config.fusion != "audio-only"
        self.unified = config.fusion == "concat"
        self.encoder = _build_encoder(config, self.has_picture, self.unified)
        self.fusion = build_fusion(config)
        self.decoder = _build_decoder(config)
        self.picture_decoder: TextDecoder | None = None
        """With `evidence`: the decoder of clips that use their picture. `decoder` then captions only from audio."""
        if self.has_evidence and config.evidence.decoders == 2:
            self.picture_decoder = TextDecoder(config.decoder, config.encoder.width)
            self.copy_audio_decoder()
        self.lexicon: Lexicon | None = None
        """The words that a caption may contain. `load_checkpoint` sets it for models with tag towers."""
        self.packed: torch.dtype | None = None
        """The type of the packed weights; see `packing.pack`."""
        self.recordings: Recordings | None = None
        """Recorded kernels of inference on CUDA; see `packing.pack`."""

    # -- the forward pass ------------------------------------------------------------------------------------------

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
        """Captions a batch.

        fbank: (B, T, F). pixels: (B, N, 3, S, S) or None. frame_mask: bool (B, N), True for frames that exist; None if
        all do. towers: fbank and pixels are the outputs of the towers instead. same: see `encode_picture`. The others
        are the options of `decode`.
        """
        if pixels is not None and not towers:
            frame_mask = self.visible(pixels, frame_mask)
            if frame_mask is not None and not bool(frame_mask.any()):
                pixels = None  # no clip shows anything: the picture tower is not needed
        if not self.has_tag_towers:  # these run in the precision of their own weights
            fbank, pixels = fbank.to(self.dtype), None if pixels is None else pixels.to(self.dtype)
        A = self._audio_tokens(fbank, towers)
        F_v = self._picture_tokens(pixels, towers, same)
        memory = self.fuse(A, F_v, frame_mask)
        return self.decode(memory, beam, max_words, min_words, length_penalty, cached)

    def encode_audio(self, fbank: Tensor) -> Tensor:
        """A: the audio tokens (B, T_a, d) of fbank (B, T, F), normalised. Tag towers: the tags, see `tag_encoder`."""

        def encode(x: Tensor) -> Tensor:
            return self.finish_audio(self.encoder.audio_tower(x))

        return self._record("audio", encode, fbank)

    def encode_picture(self, pixels: Tensor, same: Tensor | None = None) -> Tensor:
        """F_v: the visual tokens (B, T_v, d) of pixels (B, N, 3, S, S), normalised. Tag towers: the tags.

        same: int64 (B, N) from `features.same_frames`, for every frame the index of an equal one that is encoded
        instead. Models with tubelets ignore it, and so does training.
        """
        if torch.is_grad_enabled() or self.encoder.in_pairs:
            return self.finish_picture(self.encoder.picture_tower(pixels))
        B, N = pixels.shape[:2]
        distinct = None if same is None else same == torch.arange(N, device=same.device)
        frames = pixels.flatten(0, 1) if distinct is None else pixels[distinct]
        size = FRAMES_PER_PASS if frames.device.type == "cpu" else len(frames)

        def encode(x: Tensor) -> Tensor:
            return self.finish_picture(self.encoder.picture_tower(x[:, None]))

        tokens = torch.cat([self._record("picture", encode, part) for part in frames.split(size)])
        if distinct is not None and same is not None:
            index = distinct.flatten().cumsum(0).sub_(1).view(B, N).gather(1, same)
            tokens = tokens[index.flatten()]
        return tokens.reshape(B, N * tokens.shape[1], -1)

    def fuse(self, audio: Tensor, picture: Tensor | None, frame_mask: Tensor | None = None) -> Fused:
        """The memory of the decoder, from the results of `encode_audio` and `encode_picture`.

        picture: None for clips without one. frame_mask: bool (B, N), True for frames that exist; None if all do. A clip
        without a frame is captioned from its audio.
        """
        A, F_v, mask, tags = self._tokens(audio, picture if self.has_picture else None, frame_mask)
        confirmed = None
        if isinstance(self.fusion, EvidenceSwitch) and tags is not None:
            confirmed = self.fusion.confirm(tags)
            A = A if confirmed is None else self.tag_encoder.embed_audio(confirmed)
        if not self.has_picture:
            fused = Fused(A)
        elif self.unified:
            both = None if mask is None else torch.cat((mask.new_ones(A.shape[:2]), mask), dim=1)
            fused = Fused(self.encoder.join(A, F_v, both), both)
        else:
            fused = self.fusion(A, F_v, mask, tags)
        if self.has_tag_towers and tags is not None:
            fused.heard, fused.seen = tags
            fused.confirmed = confirmed
        return fused

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
        """Captions of fused clips by beam search.

        beam: the number of hypotheses. length_penalty: None for that of the configuration. cached: whether keys and
        values are kept from word to word; without, every word recomputes them, with equal results. Raises ValueError
        if the decoder has too few positions for `max_words`.
        """
        if max_words >= (positions := self.config.decoder.positions):
            raise ValueError(f"this model has positions for {positions - 1} words, got max_words={max_words}")
        settings = BeamSettings(
            beams=beam,
            max_length=max_words + 2,
            min_length=min_words + 1 if min_words else 0,
            length_penalty=self.config.decoder.length_penalty if length_penalty is None else length_penalty,
            bos=self.bos,
            eos=self.eos,
            pad=self.pad,
        )
        allowed = self._allowed_words(memory)
        split = self._split_by_decoder(memory)
        parts = [
            self._search(
                decoder,
                memory if rows is None else memory.select(rows),
                allowed if rows is None or allowed is None else allowed[rows],
                settings,
                cached,
            )
            for decoder, rows in split
        ]
        found = parts[0]
        if len(parts) > 1:
            found = Hypotheses.concatenate(parts, [rows for _, rows in split if rows is not None])
        confidences = None
        if isinstance(self.decoder, AdaptiveDecoder):
            confidences = self.decoder.confidences(memory.tokens, memory.mask, found.tokens[:, :-1])
        return Generation.from_hypotheses(found, memory, confidences)

    # -- parts of the forward pass ---------------------------------------------------------------------------------

    def visible(self, pixels: Tensor, frame_mask: Tensor | None) -> Tensor | None:
        """The frames of normalised pixels (B, N, 3, S, S) that count as a picture, bool (B, N); None for all.

        With `evidence`, frames of one colour and noise do not count. Other kinds use every frame that exists.
        """
        if not self.has_evidence:
            return frame_mask
        shown = shows_something(pixels)
        return shown if frame_mask is None else shown & frame_mask.to(shown.device)

    def _record(self, name: str, encode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`encode(x)`, from a recording where there is one.

        Only in inference mode: its tensors, which a recording keeps, must not be written outside it.
        """
        if self.recordings is None or not torch.is_inference_mode_enabled():
            return encode(x)
        return self.recordings.encode(name, encode, x)

    def finish_audio(self, tower: Tensor) -> Tensor:
        """Applies the shared block to the output of the audio tower, unless it runs on both modalities in `fuse`."""
        return tower if self.unified else self.encoder.align_audio(tower)

    def finish_picture(self, tower: Tensor) -> Tensor:
        """Applies the shared block to the output of the picture tower, unless it runs on both modalities in `fuse`."""
        return tower if self.unified else self.encoder.align_picture(tower)

    def _audio_tokens(self, audio: Tensor, towers: bool) -> Tensor:
        return self.finish_audio(audio) if towers else self.encode_audio(audio)

    def _picture_tokens(
        self, picture: Tensor | None, towers: bool, same: Tensor | None = None
    ) -> Tensor | None:
        if picture is None or not self.has_picture:
            return None
        return self.finish_picture(picture) if towers else self.encode_picture(picture, same)

    def _tokens(
        self, audio: Tensor, picture: Tensor | None, frame_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tags | None]:
        """A (B, T_a, d), F_v (B, T_v, d), the mask of F_v, bool (B, T_v) or None, and the tags that the fusion uses."""
        if isinstance(self.encoder, TagEncoder):
            return self.encoder.tokens(audio, picture, frame_mask)
        mask = None if picture is None else self.encoder.token_mask(frame_mask, picture.shape[1])
        head, tags = self.encoder.tag_head, None
        if head is not None and picture is not None and self.has_evidence:
            tags = head(audio), head(picture)
        elif head is not None and isinstance(self.fusion, AdaptiveFusion) and self.fusion.tags:
            tags = head(audio), None
        return audio, picture, mask, tags

    def _split_by_decoder(self, memory: Fused) -> list[tuple[TextDecoder, Tensor | None]]:
        """The decoders of a batch, and the clips of each, bool (B,); None for all."""
        used = memory.uses_picture
        if self.picture_decoder is None or used is None or not bool(used.any()):
            return [(self.decoder, None)]
        if bool(used.all()):
            return [(self.picture_decoder, None)]
        return [(self.decoder, ~used), (self.picture_decoder, used)]

    def _search(
        self,
        decoder: TextDecoder,
        memory: Fused,
        allowed: Tensor | None,
        settings: BeamSettings,
        cached: bool,
    ) -> Hypotheses:
        """The best hypothesis of each clip. allowed: bool (B, V) or None."""
        inputs = (memory.tokens, memory.mask, settings)
        if cached and self.recordings is not None and not isinstance(decoder, CausalLMDecoder):
            found = self.recordings.search(decoder, *inputs, self.lexicon, allowed)
            if found is not None:
                return found
        decoding: Decoding
        if not cached:
            decoding = RecomputedDecoding(decoder, *inputs)
        elif isinstance(decoder, CausalLMDecoder):
            decoding = CausalLMDecoding(decoder, *inputs)
        else:
            decoding = CachedDecoding(decoder, *inputs)
        rules = None if self.lexicon is None or allowed is None else self.lexicon.rules(allowed)
        batch, device = memory.tokens.shape[0], memory.tokens.device
        return BeamSearch(decoding, batch, settings, device, rules).run()

    def _allowed_words(self, memory: Fused) -> Tensor | None:
        """The words that the lexicon allows for each clip, bool (B, V)."""
        if self.lexicon is None or memory.heard is None:
            return None
        shown = None
        evidence = self.fusion.evidence if isinstance(self.fusion, EvidenceSwitch) else None
        used = memory.uses_picture
        if isinstance(evidence, TagEvidence) and memory.seen is not None and used is not None:
            shown = evidence.shown((memory.heard, memory.seen)) * used[:, None]
        return self.lexicon.allowed(memory.heard if memory.confirmed is None else memory.confirmed, shown)

    # -- training --------------------------------------------------------------------------------------------------

    def logits(self, memory: Fused, tokens: Tensor) -> Tensor:
        """Teacher-forced word logits (B, T, V) for tokens, int64 (B, T)."""
        return word_logits(self.decoders, self._hidden(memory, tokens))

    def _hidden(self, memory: Fused, tokens: Tensor) -> DecoderStates:
        return decoder_states(self.decoders, self._split_by_decoder(memory), memory, tokens)

    def forward(
        self,
        audio: Tensor,
        picture: Tensor | None,
        tokens: Tensor,
        need_predict: Tensor,
        frame_mask: Tensor | None = None,
        partners: Tensor | None = None,
        objective: Objective | None = None,
        towers: bool = False,
        unseen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The training loss of a batch and its terms (section 2.3).

        audio: fbank (B, T, F). picture: pixels (B, N, 3, S, S) or None. tokens: the captions, int64 (B, L).
        need_predict: bool (B, L), True for tokens that are predicted. frame_mask: bool (B, N), True for frames that
        exist. partners: int64 (B,) from `shuffle_partners`, the clip whose picture each clip gets. objective: the
        weights of the terms, `Objective()` by default. towers: audio and picture are the outputs of the towers instead,
        for training with frozen towers. unseen: bool (B,), clips that are captioned without their picture.

        Returns `loss` and `caption`, and if they apply, `match`, `gate_stability`, `consistency`, `shuffled` (the
        number of clips), `gate_matched` and `gate_shuffled`.
        """
        objective = objective or Objective()
        if picture is not None and not towers:
            frame_mask = self.visible(picture, frame_mask)
        A, F_v = self._audio_tokens(audio, towers), self._picture_tokens(picture, towers)
        shuffled = torch.zeros(len(tokens), dtype=torch.bool, device=A.device)
        shown, shown_mask = F_v, frame_mask
        if partners is not None and F_v is not None:  # algorithm 1
            partners = partners.to(A.device)
            shuffled = partners != torch.arange(len(partners), device=A.device)
            shown = F_v[partners]
            shown_mask = None if frame_mask is None else frame_mask[partners]
        if unseen is not None and shown is not None:
            every = shown.new_ones(len(shown), self.frame_count(shown), dtype=torch.bool)
            shown_mask = (every if shown_mask is None else shown_mask) & ~unseen.to(A.device)[:, None]
        memory = self.fuse(A, shown, shown_mask)
        predicted = need_predict[:, 1:]
        hidden = self._hidden(memory, tokens[:, :-1])
        target = tokens[:, 1:][predicted]
        result = {"caption": caption_loss(self.decoders, hidden[predicted], target, objective.smoothing)}
        if self.trains_audio_decoder:
            audio_only = Fused(self._tokens(A, None, None)[0])
            audio_hidden = self._hidden(audio_only, tokens[:, :-1])[predicted]
            audio_loss = caption_loss(self.decoders, audio_hidden, target, objective.smoothing)
            result["caption"] = (result["caption"] + audio_loss) / 2
        no_picture_used = memory.uses_picture is not None and not bool(memory.uses_picture.any())
        if self.training and self.picture_decoder is not None and no_picture_used:
            # Without a picture in the batch, this decoder has no gradient, but distributed training waits for one, and
            # if everything else is frozen, the loss needs one.
            zero = 0 * sum(p.sum() for p in self.picture_decoder.parameters())
            result["caption"] = result["caption"] + zero
        if isinstance(self.fusion, EvidenceSwitch | OptimalTransport) and objective.match and F_v is not None:
            audio_tokens, picture_tokens, mask, tags = self._tokens(A, F_v, frame_mask)
            assert picture_tokens is not None
            result["match"] = self.fusion.match_loss(audio_tokens, picture_tokens, mask, tags)
        grid = self.config.encoder.audio_grid
        if memory.gate is not None and objective.gate_stability and grid[1] > 1:
            result["gate_stability"] = gate_stability(memory.gate.float(), grid)
        if objective.consistency and bool(shuffled.any()) and F_v is not None:
            own_mask = None if frame_mask is None else frame_mask[shuffled]
            own = self.fuse(A[shuffled], F_v[shuffled], own_mask)
            own_hidden, rows = self._hidden(own, tokens[shuffled, :-1]), predicted[shuffled]
            result["consistency"] = consistency_loss(self.decoders, own_hidden[rows], hidden[shuffled][rows])
        if F_v is not None:
            result["shuffled"] = shuffled.sum()
        if memory.gate is not None:
            means = memory.gate.detach().float().mean(dim=1)
            for name, rows in (("gate_matched", ~shuffled), ("gate_shuffled", shuffled)):
                if bool(rows.any()):
                    result[name] = means[rows].mean()
        return {"loss": objective.total(result), **result}

    @property
    def trains_audio_decoder(self) -> bool:
        """Whether training also captions every clip without its picture, for the decoder of audio-only clips."""
        trainable = any(parameter.requires_grad for parameter in self.decoder.parameters())
        return self.training and self.picture_decoder is not None and trainable

    def copy_audio_decoder(self) -> None:
        """Initialises the decoder of clips with a picture, if there is one, with the other decoder's weights."""
        if self.picture_decoder is not None:
            self.picture_decoder.load_state_dict(self.decoder.state_dict())

    def set_checkpointing(self, wanted: bool, mlp: bool = False) -> None:
        """In training, recomputes the activations inside blocks instead of keeping them: less memory, more time.

        mlp: recomputes only norms and hidden values of MLPs, which are half of the activations and a ninth of the time.
        """
        self.encoder.checkpointing = wanted
        for decoder in self.decoders:
            decoder.checkpointing = wanted
        for module in self.modules():
            if isinstance(module, Block | DecoderLayer):
                module.mlp_checkpointing = mlp and not wanted

    def compile_blocks(self) -> None:
        """Applies `torch.compile` to the blocks of towers and decoders, and to the decoders' steps."""
        for module in self.modules():
            if isinstance(module, Block | DecoderLayer):
                module.compile()
        for decoder in self.decoders:
            decoder.step = torch.compile(decoder.step)  # type: ignore[method-assign]

    # -- properties ------------------------------------------------------------------------------------------------

    @property
    def has_gate(self) -> bool:
        return bool(self.fusion.has_gate)

    @property
    def has_evidence(self) -> bool:
        """Whether the fusion computes the probability that audio and picture match."""
        return isinstance(self.fusion, EvidenceSwitch)

    @property
    def has_tag_towers(self) -> bool:
        """Whether the towers output tags, which `fuse` embeds as tokens."""
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

    @property
    def cues(self) -> tuple[str, ...]:
        """The names of the numbers by which the fusion compares audio and picture; empty for most kinds."""
        if isinstance(self.fusion, OptimalTransport):
            return self.fusion.cues
        return self.fusion.evidence.cues if isinstance(self.fusion, EvidenceSwitch) else ()

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.dtype

    def frame_count(self, picture: Tensor) -> int:
        """N, of visual tokens or tower outputs (B, T_v, d)."""
        tokens = picture.shape[1] // self.config.encoder.frame_tokens
        return tokens * 2 if self.encoder.in_pairs else tokens


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
    """A captioner with random weights, drawn from torch's global generator."""
    return CaptionModel(config)
