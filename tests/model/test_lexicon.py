"""No caption contains a word that none of the heard classes allows, whatever the weights."""

from __future__ import annotations

from collections import Counter
from importlib.machinery import ModuleSpec
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from evacap_cli.model import CaptionModel, Tokenizer
from evacap_cli.model import lexicon as lexicon_module
from evacap_cli.model.beam import BeamSearch, BeamSettings
from evacap_cli.model.config import LexiconConfig
from evacap_cli.model.lexicon import (
    MIN_SHOWN,
    Lexicon,
    Rules,
    audioset_classes,
    imagenet_classes,
    packaged_lexicon,
)
from evacap_cli.model.tag_evidence import TagEvidence

from .samples import DECODER, TableDecoding
from .tagged import ENCODER, random_heard, random_seen, tag_model

CLIPS = 6
TABLE: dict[str, Any] = {
    "words": {
        "b": [1, 2],
        "c": [3],
        "d": [1, 3, 5],
        "e": list(range(20, 40)),
        "f": [],
        "g": [50],
        "whole": [4],
    },
    "families": [["b", "c"], ["e", "f", "g"]],
}
"""Of `letters`; "a" and "h" to "s" are free, and "f" is earned by no class."""


def letters() -> Tokenizer:
    return Tokenizer.train(["a b c d e f g h i j k l m n o p q r s"], DECODER.vocab_size)


def number(word: str) -> int:
    return letters().encode(word)[1]


NAMED = [number(word) for word in "bcdefg"]
FAMILIES = [{number(word) for word in words} for words in TABLE["families"]]


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "packaged" not in request.node.name:
        monkeypatch.setattr(lexicon_module, "packaged_lexicon", lambda: TABLE)


def lexicon_of(confidence: float = 0.3, confirmed: float = 0.0) -> Lexicon:
    return Lexicon(letters(), LexiconConfig(confidence, confirmed))


def plainly_allowed(
    heard: Tensor, shown: Tensor | None, confidence: float, confirmed: float
) -> list[list[bool]]:
    """heard: (B, T_a, 2 + windows), shown: (B, T_a)."""
    table = {number(word): classes for word, classes in TABLE["words"].items() if len(word) == 1}
    found = []
    for b in range(len(heard)):
        earning = set()
        for t, row in enumerate(heard[b]):
            p = max(row[1:].sigmoid().tolist())
            if p >= confidence or (shown is not None and shown[b, t] >= MIN_SHOWN and p >= confirmed):
                earning.add(int(row[0]))
        found.append(
            [token not in table or bool(earning & set(table[token])) for token in range(len(letters()))]
        )
    return found


@pytest.mark.parametrize(("confidence", "confirmed"), [(0.3, 0.1), (0.5, 0.0), (0.9, 0.5), (0.01, 0.001)])
def test_words_are_allowed_by_audible_classes(confidence: float, confirmed: float) -> None:
    lexicon = lexicon_of(confidence, confirmed)
    heard = random_heard(60)
    shown = torch.rand(heard.shape[:2], generator=torch.Generator().manual_seed(0)) * 2 * MIN_SHOWN
    for seen in (None, shown):
        found = lexicon.allowed(heard, seen)
        assert found.shape == (60, len(letters()))
        assert found.tolist() == plainly_allowed(heard, seen, confidence, confirmed)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(lexicon.allowed(heard, seen), found)
    assert 0 < found[:, NAMED].float().mean() < 1
    assert (lexicon.allowed(heard, shown) >= lexicon.allowed(heard)).all()
    assert bool((lexicon.allowed(heard, shown) > lexicon.allowed(heard)).any()) == (confidence > 0.01)


def test_words_outside_the_lexicon_are_always_allowed() -> None:
    """Those that are not listed, the end of a caption, and words that the tokenizer has in pieces."""
    lexicon = lexicon_of(0.999)
    heard = random_heard(CLIPS)
    heard[..., 1:] -= 20
    allowed = lexicon.allowed(heard)
    free = [token for token in range(len(letters())) if token not in NAMED]
    assert letters().eos in free
    assert len(free) == 23 - 6
    assert allowed[:, free].all()
    assert not allowed[:, NAMED].any()


def test_one_confident_window_allows_a_word() -> None:
    heard = torch.tensor([[[1.0, -5.0, -5.0, 2.0]], [[1.0, -5.0, -5.0, -5.0]]])
    assert lexicon_of(0.5).allowed(heard)[:, number("b")].tolist() == [True, False]


def test_a_confidence_of_0_allows_every_word() -> None:
    """All words are allowed, also those of classes outside the tags; each family still occurs at most once."""
    lexicon = lexicon_of(0.0)
    allowed = lexicon.allowed(random_heard(CLIPS))
    assert allowed.shape == (CLIPS, len(letters()))
    assert allowed.all()
    tokens = torch.tensor([[[1, number("b")]]]).expand(CLIPS, 1, 2)
    forbidden = lexicon.rules(allowed).forbidden(tokens, torch.tensor([1]))
    assert set(forbidden[0, 0].nonzero().flatten().tolist()) == FAMILIES[0]  # the last word is of the family


def test_repeated_words_and_families_are_forbidden() -> None:
    """Against a loop over clips, beams and words."""
    g = torch.Generator().manual_seed(0)
    lexicon = lexicon_of()
    tokens = torch.randint(0, len(letters()), (CLIPS, 4, 5), generator=g)
    tokens[..., 0] = 1
    allowed = torch.rand(CLIPS, len(letters()), generator=g) < 0.7
    found = lexicon.rules(allowed).forbidden(tokens, torch.tensor([4]))
    assert found.shape == (CLIPS, 4, len(letters()))
    for b in range(CLIPS):
        for k in range(4):
            words_so_far = set(tokens[b, k].tolist())
            for word in range(len(letters())):
                again = any(word in family and words_so_far & family for family in FAMILIES)
                again = again or word == tokens[b, k, -1]
                assert found[b, k, word].item() == (again or not allowed[b, word].item())


# ---- the search


def exhaustive(
    table: Tensor, rules: Rules, clip: int, settings: BeamSettings
) -> tuple[float, float, list[int]]:
    """The best hypothesis that the rules permit, of all: its score, sum of log-probabilities, and words.

    table: (L, V, V), logits of the next word at each step after each word. At the last step, any word ends it.
    """
    best = (-torch.inf, -torch.inf, [0])
    words = [word for word in range(table.shape[1]) if word != settings.eos]
    most = settings.max_length - 2
    for n in range(most + 1):
        for words_so_far in product(words, repeat=n):
            tokens, total = [settings.bos], 0.0
            for t, word in enumerate([*words_so_far, settings.eos]):
                banned = rules.forbidden(torch.tensor(tokens).view(1, 1, -1), torch.tensor([t]))[clip, 0]
                chances = table[t, tokens[-1]].log_softmax(-1)
                if t == most:  # no further word
                    word = int(chances.masked_fill(banned, -torch.inf).argmax())
                if banned[word]:
                    total = -torch.inf
                    break
                total += float(chances[word])
                tokens.append(word)
            score = total / ((5 + n + 1) / 6) ** settings.length_penalty
            if score > best[0]:
                best = (score, total, [settings.bos, *words_so_far, settings.eos])
    return best


def test_the_search_finds_the_best_allowed_caption() -> None:
    """Among all hypotheses. Its numbers are those of the whole softmax, so avoiding words costs."""
    V, clips = 6, 3
    settings = BeamSettings(beams=70, max_length=5)
    g = torch.Generator().manual_seed(1)
    tables = torch.randn(clips, 4, V, V, generator=g) * 2
    tables[..., settings.eos] -= 1.5
    family = torch.tensor([0, 0, 0, 1, 1, 0])
    allowed = torch.ones(clips, V, dtype=torch.bool)
    allowed[0, 5] = allowed[1, 3] = False

    def search(rules: Rules | None) -> Any:
        return BeamSearch(TableDecoding(tables), clips, settings, torch.device("cpu"), rules).run()

    rules = Rules(allowed, family, 2)
    found, free = search(rules), search(None)
    for b in range(clips):
        score, total, words = exhaustive(tables[b], rules, b, settings)
        assert found.tokens[b, : found.length[b]].tolist() == words
        assert found.score[b].item() == pytest.approx(score, abs=1e-4)
        assert found.logprob[b].item() == pytest.approx(total, abs=1e-4)
    assert (found.score <= free.score + 1e-6).all()
    assert (found.score < free.score - 1e-3).any()


# ---- captioners


def model_of(fusion: str = "audio-only", seed: int = 0, confidence: float = 0.3, confirmed: float = 0.0,
             **towards: float) -> CaptionModel:  # fmt: skip
    """A random captioner whose decoders are drawn `towards` words by so much in their logits."""
    model = tag_model(fusion, seed)
    model.lexicon = lexicon_of(confidence, confirmed)
    for decoder in model.decoders:
        for word, bias in towards.items():
            decoder.output_bias.data[number(word)] += bias
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["audio-only", "evidence", "concat"])
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_words_of_inaudible_classes_never_appear(fusion: str, beam: int, seed: int) -> None:
    """Whatever the weights want to say."""
    towards = dict.fromkeys("bcdefg", 60.0)
    model = model_of(fusion, seed, confidence=0.6, confirmed=0.6, **towards)
    heard, seen = random_heard(30, seed), random_seen(30, seed) if model.has_picture else None
    allowed = plainly_allowed(heard, None, 0.6, 0.6)
    out = model.generate(heard, seen, beam=beam, max_words=8, towers=True)
    model.lexicon = None
    free = model.generate(heard, seen, beam=beam, max_words=8, towers=True)
    wrong = [
        [word for word in row if not allowed[b][word]]
        for b, row in enumerate(out.tokens.tolist())
    ]  # fmt: skip
    assert not any(wrong)
    assert out.score.isfinite().all()
    would = sum(not allowed[b][word] for b, row in enumerate(free.tokens.tolist()) for word in row)
    assert would > 30
    for row in out.tokens.tolist():
        assert all(len(family & set(row)) <= 1 for family in FAMILIES)
        assert all(Counter(row)[word] <= 1 for family in FAMILIES for word in family)
    earned = [word for row in out.tokens.tolist() for word in row if word in NAMED]
    assert earned  # and allowed words occur


def test_no_family_appears_twice() -> None:
    """Though each of its words has been earned."""
    model = model_of(confidence=0.5, b=40.0, c=40.0, d=30.0)
    heard = torch.tensor([[[1.0, 3, 3, 3, 3], [3.0, 3, 3, 3, 3], [9.0, 0, 0, 0, 0]]])
    words_so_far = model.generate(heard, max_words=6, min_words=6, towers=True).tokens[0].tolist()
    assert sum(word in FAMILIES[0] for word in words_so_far) == 1
    assert words_so_far.count(number("d")) > 1  # of no family
    model.lexicon = None
    words_so_far = model.generate(heard, max_words=6, min_words=6, towers=True).tokens[0].tolist()
    assert sum(word in FAMILIES[0] for word in words_so_far) > 1


@pytest.mark.parametrize("beam", [1, 4])
def test_scores_are_those_of_the_unmasked_softmax(beam: int) -> None:
    """As teacher forcing gives them to the same words."""
    towards: dict[str, Any] = dict.fromkeys("bcdefg", 5.0)
    model = model_of(confidence=0.6, **towards)
    heard = random_heard(8)
    out = model.generate(heard, beam=beam, max_words=30, towers=True)
    ends = (out.tokens == model.eos).any(dim=1) & (out.tokens[:, -1] == model.pad)
    assert ends.any()
    with torch.inference_mode():
        chances = model.logits(model.fuse(heard, None), out.tokens[:, :-1]).log_softmax(-1)
    for b in ends.nonzero().flatten().tolist():
        n = out.tokens[b].tolist().index(model.eos)
        own = chances[b, :n].gather(1, out.tokens[b, 1 : n + 1, None])[:, 0]
        assert out.score[b].item() == pytest.approx(own.mean().item(), abs=1e-3)
        assert out.beam_score[b].item() == pytest.approx(own.sum().item() / ((5 + n) / 6) ** 0.6, abs=1e-2)
    model.lexicon = None
    free = model.generate(heard, beam=beam, max_words=30, towers=True)
    changed = (free.tokens != out.tokens).any(dim=1)
    assert changed.any()
    assert (out.beam_score[changed] < free.beam_score[changed]).float().mean() > 0.7
    assert torch.equal(out.score[~changed], free.score[~changed])


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_a_matching_picture_lowers_the_threshold(cached: bool) -> None:
    """Only where it is open, and shows the class: not where it is masked, shut, or shows something else."""
    model: Any = model_of("evidence", confidence=0.5, confirmed=0.1, b=60.0)
    evidence = model.fusion.evidence
    assert isinstance(evidence, TagEvidence)
    ties = torch.zeros_like(evidence.ties)
    ties[1, 7] = 1.0
    evidence.start_from(ties)
    heard = torch.full((5, ENCODER.heard, 2 + ENCODER.windows), -8.0)
    heard[..., 0] = torch.arange(1, 1 + ENCODER.heard)
    heard[:, 0, 1:] = -1.0  # 0.27
    heard[4, 0, 1:] = -3.0  # 0.05, less than even a picture confirms
    frame = torch.tensor([[7.0, 5.0, 0.6], [90.0, 1.0, 0.1], [91.0, 0.0, 0.1], [92.0, 0.0, 0.1]])
    seen = frame.repeat(5, 3, 1)
    seen[1, ::4, 2] = MIN_SHOWN - 0.05  # too little of it
    seen[2, ::4, 0] = 8.0  # another class
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[3] = False
    for bias, expected in ((50.0, [True, False, False, False, False]), (-50.0, [False] * 5)):
        evidence.bias.fill_(bias)
        out = model.generate(heard, seen, mask, max_words=4, towers=True, cached=cached)
        assert out.gate.tolist() == [float(bias > 0 and row != 3) for row in range(5)]
        assert (out.tokens == number("b")).any(dim=1).tolist() == expected
    louder = heard.clone()
    louder[:, 0, 1:] = 1.0
    assert (
        (model.generate(louder, seen, mask, max_words=4, towers=True).tokens == number("b")).any(dim=1).all()
    )


@pytest.mark.slow
def test_each_of_two_decoders_follows_the_rules_of_its_clips() -> None:
    """In a batch that is half open, clip by clip the same as alone."""
    model: Any = model_of("evidence", 1, confidence=0.6, confirmed=0.6, **dict.fromkeys("bcdefg", 20.0))
    heard, seen = random_heard(CLIPS, 1), random_seen(CLIPS, 1)
    out = model.generate(heard, seen, max_words=6, towers=True)
    assert 0 < out.gate.sum() < CLIPS
    for i in range(CLIPS):
        alone = model.generate(heard[i : i + 1], seen[i : i + 1], max_words=6, towers=True)
        assert torch.equal(out.tokens[i], alone.tokens[0])
        assert out.score[i].item() == pytest.approx(alone.score[0].item(), abs=1e-4)


# ---- what is packaged


def test_packaged_words_belong_to_existing_classes() -> None:
    words = packaged_lexicon()["words"]
    assert len(words) > 1000
    assert all(word == word.lower().strip() and word for word in words)
    for word, classes in words.items():
        assert all(isinstance(c, int) and 0 <= c < len(audioset_classes()) for c in classes), word
        assert len(set(classes)) == len(classes), word
    earning = {c for classes in words.values() for c in classes}
    assert [name for c, name in enumerate(audioset_classes()) if c not in earning] == []


def test_packaged_families_share_no_word() -> None:
    table = packaged_lexicon()
    times = Counter(word for family in table["families"] for word in set(family))
    assert [word for word, count in times.items() if count > 1] == []
    assert [word for word in times if word not in table["words"]] == []
    assert all(len(set(family)) == len(family) for family in table["families"])


@pytest.mark.parametrize(
    ("word", "by", "not_by"),
    [
        ("dog", "Dog", "Cat"),
        ("barks", "Bark", "Meow"),
        ("rain", "Rain", "Speech"),
        ("speaks", "Speech", "Dog"),
        ("bell", "Bell", "Dog"),
        ("engine", "Engine", "Bird"),
    ],
)
def test_packaged_words_belong_to_plausible_classes(word: str, by: str, not_by: str) -> None:
    names = [audioset_classes()[c] for c in packaged_lexicon()["words"][word]]
    assert by in names
    assert not_by not in names


def test_packaged_articles_are_always_allowed() -> None:
    assert not {"a", "the", "and", "of", "while", "with", "in"} & set(packaged_lexicon()["words"])


def test_packaged_lexicon_of_a_tokenizer() -> None:
    """Only its whole words are to be earned."""
    tokenizer = Tokenizer.train(["a dog barks while a man speaks"] * 9, 60)
    lexicon = Lexicon(tokenizer, LexiconConfig(0.1))
    place = {word: tokenizer.encode(word)[1] for word in ("a", "dog", "barks", "man", "speaks", "while")}
    named = {word for word, token in place.items() if lexicon.named[token]}
    assert named == {"dog", "barks", "man", "speaks"}
    dog = audioset_classes().index("Dog")
    heard = torch.tensor([[[float(dog), 2.0, 2.0]]])
    allowed = lexicon.allowed(heard)[0]
    assert {word for word, token in place.items() if allowed[token]} >= {"a", "while", "dog"}
    assert not allowed[place["speaks"]]
    assert not allowed[place["man"]]
    assert not lexicon.state_dict()  # it is made of the package's file, and stands in no checkpoint


def test_packaged_names_of_classes() -> None:
    assert (len(audioset_classes()), len(set(audioset_classes()))) == (521, 521)
    assert (audioset_classes()[0], audioset_classes()[-1]) == ("Speech", "Field recording")
    assert len(imagenet_classes()) == 1000
    assert imagenet_classes()[0] == "tench"
    assert imagenet_classes()[207] == "golden retriever"


@pytest.mark.slow
def test_picture_classes_are_named_like_in_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    read = imagenet_classes()
    moved = ModuleSpec("timm", None, origin="/nowhere/timm/__init__.py")
    monkeypatch.setattr("evacap_cli.model.lexicon.find_spec", lambda name: moved)
    assert imagenet_classes.__wrapped__() == read


def test_speech_can_have_a_higher_threshold() -> None:
    """Class 0 is Speech: it earns its word only from its own confidence on, however it is with the others."""
    table = {"words": {"b": [0], "c": [100]}, "families": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexicon_module, "packaged_lexicon", lambda: table)
        strict = Lexicon(letters(), LexiconConfig(0.05, 0.0, 0.3))
        plain = Lexicon(letters(), LexiconConfig(0.05, 0.0))
    assert audioset_classes()[0] == "Speech"
    for p, earned in ((0.04, False), (0.1, False), (0.29, False), (0.31, True)):
        logit = torch.tensor(p).logit()
        heard = torch.tensor([[[0.0, logit, logit - 1], [100.0, logit, logit - 1]]])
        allowed = strict.allowed(heard)[0]
        assert bool(allowed[number("b")]) == earned
        assert bool(allowed[number("c")]) == bool(plain.allowed(heard)[0, number("b")]) == (p >= 0.05)
