"""A Hugging Face causal language model as decoder (`decoder.kind: causal-lm`), as in LAVCap.

The language model reads "USER: {memory}\\nASSISTANT:{caption}". Its weights are frozen; low-rank adapters (LoRA) and
a projection of the memory are trained. A checkpoint contains only these, and names the language model.

Only safetensors are read. Code of a repository is never run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evacap_cli.errors import EvacapError
from evacap_cli.model.beam import BeamSettings
from evacap_cli.model.config import DecoderConfig
from evacap_cli.model.decoder import KeysValues, TextDecoder
from evacap_cli.model.hub import HUB
from evacap_cli.model.tokenizer import Tokenizer

BEFORE, AFTER = "USER: ", "\nASSISTANT:"


class CausalLMDecoder(TextDecoder):
    """A decoder with the interface of `TextDecoder`; words and layers are those of the language model."""

    def __init__(self, config: DecoderConfig, memory_width: int) -> None:
        """Reads the language model, or only its sizes if the default device is meta. Raises EvacapError."""
        nn.Module.__init__(self)
        self.config = config
        words = load_tokenizer(config)
        self.before = [words.bos, *words.engine.encode(BEFORE, add_special_tokens=False).ids]
        self.after = words.engine.encode(AFTER, add_special_tokens=False).ids
        self.vocabulary = None
        self.language_model: Any = _adapted(config, weights=torch.get_default_device().type != "meta")
        self.project_memory = nn.Sequential(nn.Linear(memory_width, self.language_model.config.hidden_size))

    def load_language_model(self) -> None:
        """Reads the weights of a decoder that was made on the meta device; its adapters are newly initialised."""
        self.language_model = _adapted(self.config, weights=True)

    @staticmethod
    def is_foreign(name: str) -> bool:
        """Whether a tensor of this decoder's state, by its name, belongs to the language model itself."""
        return "language_model." in name and ".lora_" not in name

    @property
    def device(self) -> torch.device:
        return next(self.project_memory.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.project_memory.parameters()).dtype

    @property
    def output_parameters(self) -> list[Tensor]:
        return []

    @property
    def checkpointing(self) -> bool:
        return bool(getattr(self.language_model, "is_activation_checkpointing", False))

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        if wanted:
            self.language_model.activation_checkpointing_enable()
        else:
            self.language_model.activation_checkpointing_disable()

    def embed_words(self, tokens: Tensor) -> Tensor:
        """int64 (B, T) to (B, T, d)."""
        return self.language_model.get_input_embeddings()(tokens)

    def encode_prefix(self, memory: Tensor, mask: Tensor | None) -> KeysValues:
        """The prompt. Not keys and values, but its embeddings (B, L, d), and bool (B, L), True for those that exist."""
        ends = []
        for ids in (self.before, self.after):
            ends.append(self.embed_words(torch.tensor(ids, device=memory.device).expand(len(memory), -1)))
        embeddings = torch.cat((ends[0], self.project_memory(memory).to(ends[0].dtype), ends[1]), dim=1)
        seen = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=memory.device)
        if mask is not None:
            seen[:, len(self.before) : len(self.before) + memory.shape[1]] = mask
        return [(embeddings, seen)]

    def hidden(self, prefix: KeysValues, mask: Tensor | None, tokens: Tensor) -> Tensor:
        """Logits (B, T, V) of the word after each of `tokens` (B, T). The first token represents the end of the
        prompt."""
        ((embeddings, seen),) = prefix
        inputs = torch.cat((embeddings, self.embed_words(tokens[:, 1:])), dim=1)
        seen = torch.cat((seen, seen.new_ones(len(tokens), tokens.shape[1] - 1)), dim=1)
        out = self.language_model(
            inputs_embeds=inputs, attention_mask=seen.long(), position_ids=positions_of(seen), use_cache=False,
            logits_to_keep=tokens.shape[1],
        )  # fmt: skip
        return out.logits

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns its argument: `hidden` already returns logits."""
        return hidden


class CausalLMDecoding:
    """Steps of `BeamSearch` on a language model with a cache: the prompt is computed once per clip, each word once."""

    def __init__(
        self, decoder: CausalLMDecoder, memory: Tensor, mask: Tensor | None, settings: BeamSettings
    ) -> None:
        self.model, self.decoder = decoder.language_model, decoder
        ((embeddings, seen),) = decoder.encode_prefix(memory, mask)
        out = self.model(
            inputs_embeds=embeddings, attention_mask=seen.long(), position_ids=positions_of(seen), use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        self.first, self.cache = out.logits, out.cache  # (B, 1, V)
        self.cache.batch_repeat_interleave(settings.beams)
        self.seen = seen.repeat_interleave(settings.beams, dim=0)

    def step(self, tokens: Tensor, position: Tensor) -> Tensor:
        B, K = tokens.shape[:2]
        if not position:
            return self.first.repeat(1, K, 1)
        self.seen = torch.cat((self.seen, self.seen.new_ones(B * K, 1)), dim=1)
        out = self.model(
            inputs_embeds=self.decoder.embed_words(tokens.index_select(2, position).reshape(-1, 1)),
            attention_mask=self.seen.long(), position_ids=positions_of(self.seen)[:, -1:],
            cache=self.cache, use_cache=True,
        )  # fmt: skip
        return out.logits.unflatten(0, (B, K))[:, :, -1]

    def reorder(self, parent: Tensor) -> None:
        B, K = parent.shape
        rows = parent + K * torch.arange(B, device=parent.device)[:, None]
        self.cache.reorder_cache(rows.flatten())


def positions_of(seen: Tensor) -> Tensor:
    """The positions of tokens, int64 (B, L), counting only those that exist. seen: bool (B, L)."""
    return (seen.long().cumsum(dim=1) - 1).clamp(min=0)


def load_tokenizer(config: DecoderConfig) -> Tokenizer:
    """The tokenizer of the language model. Raises EvacapError."""
    transformers, _ = _libraries()
    engine = getattr(_read(config, transformers.AutoTokenizer), "backend_tokenizer", None)
    if engine is None:
        raise EvacapError(
            f"{config.language_model}: has no tokenizer.json", "take a language model that has one"
        )
    return Tokenizer.from_text(engine.to_str(), Path(config.language_model))


def _adapted(config: DecoderConfig, weights: bool) -> Any:
    """The language model with new adapters. Raises EvacapError."""
    transformers, peft = _libraries()
    kind = transformers.AutoModelForCausalLM
    if weights:
        with torch.device("cpu"):
            model = _read(config, kind, use_safetensors=True, dtype=torch.float32)
    else:
        model = kind.from_config(_read(config, transformers.AutoConfig), trust_remote_code=False)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=config.lora_rank, lora_alpha=config.lora_alpha)
    with torch.device("cpu" if weights else "meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about the versions of peft and transformers
        return peft.get_peft_model(model, lora)


def _read(config: DecoderConfig, kind: Any, **options: Any) -> Any:
    """Reads `kind` from a local folder or from the Hub. Raises EvacapError."""
    name = config.language_model
    local = not name.startswith(HUB)
    if local and not (Path(name) / "config.json").is_file():
        raise EvacapError(
            f"model.decoder.language_model: {name!r} is no folder of a Hugging Face model (no config.json)",
            f"give the folder of a causal language model, or {HUB}ORG/NAME",
        )
    try:
        with _no_progress_bar():
            return kind.from_pretrained(
                name if local else name.removeprefix(HUB),
                trust_remote_code=False,
                local_files_only=local,
                **options,
            )
    except (OSError, ValueError) as error:
        raise EvacapError(
            f"{name}: cannot be read as a causal language model: {' '.join(str(error).split())}",
            "it must have safetensors and need no code of its own; without a network, copy its folder here",
        ) from error


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Disables the progress bar of transformers: only commands decide what is shown on stderr."""
    logging = _libraries()[0].utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _libraries() -> tuple[Any, Any]:
    """Imports transformers and peft, which only this kind of decoder needs. Raises EvacapError."""
    try:
        import peft
        import transformers
    except ImportError as error:
        raise EvacapError(
            f"model.decoder.kind: causal-lm needs transformers and peft ({error})",
            "pip install 'evacap[llm]'",
        ) from error
    return transformers, peft
