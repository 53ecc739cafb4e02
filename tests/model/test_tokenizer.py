"""Captions to token ids and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Engine
from tokenizers import models

from evacap_cli.errors import EvacapError
from evacap_cli.model import Tokenizer
from evacap_cli.model.captioner import BOS, EOS, PAD
from evacap_cli.model.tokenizer import SPECIAL

THINGS = ("dog", "bell", "car engine", "man", "woman", "bird", "clock", "motorbike", "sewing machine", "tap")
ACTS = (
    "barks",
    "rings twice",
    "idles",
    "speaks loudly",
    "laughs",
    "sings",
    "ticks",
    "revs",
    "whirs",
    "drips",
)
PLACES = ("in the distance", "nearby", "followed by silence", "while wind blows", "as people talk")
CAPTIONS = [f"A {thing} {act} {place}" for thing in THINGS for act in ACTS for place in PLACES]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, 300)


def test_special_tokens_have_the_ids_of_the_model(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (BOS, EOS, PAD)
    assert [tokenizer.engine.token_to_id(word) for word in SPECIAL] == [0, 1, 2, 3]
    assert len(tokenizer) <= 300


def test_captions_survive_encoding_and_decoding(tokenizer: Tokenizer) -> None:
    """Lower-cased, otherwise as they were."""
    for caption in CAPTIONS:
        tokens = tokenizer.encode(caption)
        assert (tokens[0], tokens[-1]) == (BOS, EOS)
        assert not {PAD, BOS, EOS, 3} & set(tokens[1:-1])
        assert tokenizer.decode(tokens) == caption.lower()


def test_long_captions_are_truncated(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a dog barks " * 30, max_words=12)
    assert len(tokens) == 14
    assert (tokens[0], tokens[-1]) == (BOS, EOS)
    assert tokenizer.encode("") == [BOS, EOS]
    assert tokenizer.decode([]) == tokenizer.decode([BOS, EOS, PAD]) == ""


def test_decoding_stops_at_the_first_eos(tokenizer: Tokenizer) -> None:
    dog = tokenizer.encode("a dog")
    assert tokenizer.decode([*dog, PAD, PAD, *tokenizer.encode("rings")]) == "a dog"
    assert tokenizer.decode(dog[1:-1]) == "a dog"  # bos and eos may be absent
    assert tokenizer.decode([BOS, PAD, dog[1], PAD, dog[2]]) == "a dog"


def test_hyphenated_words_are_joined() -> None:
    captions = ["a cock crows cock-a-doodle-doo", "a 6-string guitar", "a dog barks"]
    tokenizer = Tokenizer.train(captions, 300)
    assert tokenizer.decode(tokenizer.encode(captions[0])) == captions[0]
    assert tokenizer.decode(tokenizer.encode(captions[1])) == captions[1]
    assert tokenizer.decode(tokenizer.encode("- a dog -")) == "- a dog -"


def test_new_words_of_known_characters_are_split_into_pieces(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a dingbell barked")
    assert 3 not in tokens
    assert tokenizer.decode(tokens) == "a dingbell barked"


@pytest.mark.parametrize("caption", ["a dog 🐶 barks", "狗 barks", "a ☃ rings", "x" * 200])
def test_unknown_characters_become_the_unknown_token(tokenizer: Tokenizer, caption: str) -> None:
    tokens = tokenizer.encode(caption)
    assert 3 in tokens
    assert set(tokens) <= set(range(len(tokenizer)))
    assert "[" not in tokenizer.decode(tokens)


def test_emoji_and_accents_can_be_learned() -> None:
    """Accents fold as BERT's do; an emoji is a word like others."""
    own = Tokenizer.train(["a dog 🐶 barks", "un café 🔔"] * 3, 60)
    assert own.decode(own.encode("a 🐶 barks")) == "a 🐶 barks"
    assert own.decode(own.encode("Un Café 🔔")) == "un cafe 🔔"


def test_words_that_look_like_special_tokens_are_text(tokenizer: Tokenizer) -> None:
    """Whatever is in a caption, it has one beginning and one end for the model, and decoding does not fail."""
    tokens = tokenizer.encode("a [unk] dog [ eos ] barks")
    assert tokens.count(EOS) == 1
    assert tokenizer.decode(tokens).endswith("barks")


@pytest.mark.slow
def test_training_is_deterministic(tokenizer: Tokenizer) -> None:
    """In this process and in another, from a list or a stream."""
    vocabulary = tokenizer.engine.get_vocab()
    assert Tokenizer.train(iter(CAPTIONS), 300).engine.get_vocab() == vocabulary
    code = (
        "from evacap_cli.model import Tokenizer\nfrom tests.model.test_tokenizer import CAPTIONS\n"
        "print(sorted(Tokenizer.train(CAPTIONS, 300).engine.get_vocab().items()))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == str(sorted(vocabulary.items()))


def test_saving_and_loading_keeps_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    assert (loaded.bos, loaded.eos, loaded.pad, len(loaded)) == (BOS, EOS, PAD, len(tokenizer))
    for caption in (*CAPTIONS[:20], "a 🐶 barked"):
        assert loaded.encode(caption) == tokenizer.encode(caption)


def test_bert_special_tokens_are_recognised(tmp_path: Path) -> None:
    """GIT's and AVCap's tokenizer is BERT's: [CLS] begins and [SEP] ends."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog"]
    engine = Engine(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    engine.save(str(tmp_path / "bert.json"))
    loaded = Tokenizer.load(tmp_path / "bert.json")
    assert (loaded.bos, loaded.eos, loaded.pad) == (2, 3, 0)
    assert loaded.encode("dog") == [2, 4, 3]
    assert loaded.decode([2, 4, 3, 0]) == "dog"


def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for text in ("", "{}", '{"version": "1.0"'):
        path.write_text(text)
        with pytest.raises(EvacapError, match=r"tokenizer\.json: not a readable tokenizer"):
            Tokenizer.load(path)
    Engine(models.WordPiece({"dog": 0}, unk_token="dog")).save(str(path))
    with pytest.raises(EvacapError, match="lacks one of"):
        Tokenizer.load(path)


def bert_vocab(path: Path, words: int = 30522) -> Path:
    lines = [f"[unused{i}]" for i in range(words)]
    lines[:1], lines[100:104] = ["[PAD]"], ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    lines[1000:1006] = ["a", "dog", "bark", "##s", "cafe", "\u2028"]
    path.write_bytes("\n".join(lines).encode() + b"\n")
    return path


def test_ids_of_the_bert_vocabulary_are_line_numbers(tmp_path: Path) -> None:
    own = Tokenizer.from_vocab(bert_vocab(tmp_path / "vocab.txt"))
    assert (len(own), own.bos, own.eos, own.pad) == (30522, 101, 102, 0)
    assert own.encode("A Dog barks Café, zzz") == [101, 1000, 1001, 1002, 1003, 1004, 100, 100, 102]
    assert own.decode([101, 1000, 1001, 1002, 1003, 102, 0]) == "a dog barks"
    assert own.engine.token_to_id("\u2028") == 1005  # a line end of Unicode's, here a word
    own.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.engine.get_vocab() == own.engine.get_vocab()
    (tmp_path / "dos.txt").write_bytes((tmp_path / "vocab.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.from_vocab(tmp_path / "dos.txt").engine.get_vocab() == own.engine.get_vocab()


@pytest.mark.parametrize("text", ["", "<html>", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ndog\ndog\n"])
def test_another_vocabulary_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text(text)
    with pytest.raises(EvacapError, match=r"vocab\.txt"):
        Tokenizer.from_vocab(tmp_path / "vocab.txt")
