"""Converts captions to token ids and back, with the `tokenizers` library. Stored as one JSON file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from evacap_cli.errors import EvacapError

SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
"""In the order of their ids: 0, 1 and 2, which are `PAD`, `BOS` and `EOS` of the model."""

KNOWN = (
    ("[CLS]", "[SEP]", "[PAD]"),  # BERT
    ("[BOS]", "[EOS]", "[PAD]"),  # ours
    ("<s>", "</s>", "<unk>"),  # Llama 2, Mistral
    ("<|begin_of_text|>", "<|end_of_text|>", "<|end_of_text|>"),  # Llama 3
    ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),  # GPT-2, Pythia, Qwen
)
"""Names of the begin, end and padding tokens in known vocabularies."""

BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

HYPHEN = re.compile(r"(?<=\w) - (?=\w)")


class Tokenizer:
    """A lower-case WordPiece tokenizer, as in BERT. A caption becomes bos, word pieces, eos."""

    def __init__(self, engine: Engine, bos: str = "[BOS]", eos: str = "[EOS]", pad: str = "[PAD]") -> None:
        self.engine = engine
        ids = [i for word in (bos, eos, pad) if (i := engine.token_to_id(word)) is not None]
        if len(ids) < 3:
            raise EvacapError(
                f"the tokenizer lacks one of {bos}, {eos}, {pad}", "use the checkpoint's own tokenizer"
            )
        self.bos, self.eos, self.pad = ids

    def __len__(self) -> int:
        return self.engine.get_vocab_size()

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int = 2000) -> Tokenizer:
        """Learns a vocabulary from captions; the same captions give the same vocabulary."""
        captions = list(captions)
        # The library assigns ids to letters inside words in the order of a hash table, which differs between runs, and
        # breaks ties by id. Adding the letters as special tokens first makes the result reproducible.
        engine = _engine(models.WordPiece(unk_token="[UNK]"))
        inside = sorted(
            {letter for caption in captions for word in _words(engine, caption) for letter in word[1:]}
        )
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=[*SPECIAL, *(f"##{letter}" for letter in inside)],
            show_progress=False,
        )
        engine.train_from_iterator(captions, trainer)
        trained = _engine(models.WordPiece(engine.get_vocab(), unk_token="[UNK]"))
        trained.add_special_tokens(list(SPECIAL))
        return cls(trained)

    @classmethod
    def from_vocab(cls, path: Path) -> Tokenizer:
        """Reads BERT's vocabulary from `vocab.txt`: the id of a token is the number of its line, from 0."""
        try:
            # not splitlines(): some tokens are Unicode line separators
            words = path.read_bytes().decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise EvacapError(
                f"{path}: cannot be read ({error})", "give bert-base-uncased's vocab.txt"
            ) from error
        vocabulary = {word: number for number, word in enumerate(words)}
        if lacking := [word for word in BERT if word not in vocabulary]:
            raise EvacapError(f"{path}: has no {', '.join(lacking)}", "give bert-base-uncased's vocab.txt")
        if len(vocabulary) < len(words):
            raise EvacapError(f"{path}: contains duplicate tokens", "give bert-base-uncased's vocab.txt")
        engine = _engine(models.WordPiece(vocabulary, unk_token="[UNK]"))
        engine.add_special_tokens(list(BERT))
        return cls(engine, "[CLS]", "[SEP]")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EvacapError(
                f"{path}: cannot be read ({error})", "take it from the checkpoint again"
            ) from error
        return cls.from_text(text, path)

    @classmethod
    def from_text(cls, text: str, path: Path) -> Tokenizer:
        """Parses the result of `to_text`. `path`: its file, for messages."""
        try:
            engine = Engine.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise EvacapError(
                f"{path}: not a readable tokenizer ({error})", "take it from the checkpoint again"
            ) from error
        there = (names for names in KNOWN if all(engine.token_to_id(name) is not None for name in names))
        return cls(engine, *next(there, KNOWN[1]))

    def to_text(self) -> str:
        return self.engine.to_str(pretty=True)

    def save(self, path: Path) -> None:
        path.write_text(self.to_text(), "utf-8")

    def encode(self, caption: str, max_words: int = 40) -> list[int]:
        """bos, at most `max_words` tokens, eos."""
        words = self.engine.encode(caption, add_special_tokens=False).ids[:max_words]
        return [self.bos, *words, self.eos]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text up to the first eos, without bos and pad. Spaces around hyphens are removed, as in
        `cock-a-doodle-doo`."""
        return HYPHEN.sub("-", self.engine.decode(self._caption_tokens(tokens)))

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The tokens that `decode` joins; those that continue a word begin with `##`."""
        return [self.engine.id_to_token(token) or "" for token in self._caption_tokens(tokens)]

    def _caption_tokens(self, tokens: Sequence[int]) -> list[int]:
        words = []
        for token in tokens:
            if token == self.eos:
                break
            if token not in (self.bos, self.pad):
                words.append(int(token))
        return words


def _engine(model: models.WordPiece) -> Engine:
    """Lower-cases and splits text as BERT does."""
    engine = Engine(model)
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    return engine


def _words(engine: Engine, caption: str) -> list[str]:
    return [
        word for word, _ in engine.pre_tokenizer.pre_tokenize_str(engine.normalizer.normalize_str(caption))
    ]
