"""A language model as decoder, with a tiny Llama of random weights that the tests make."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from evacap_cli.errors import EvacapError, UsageError
from evacap_cli.model import CaptionModel, ModelConfig, load_checkpoint, save_checkpoint
from evacap_cli.model.causal_lm import AFTER, BEFORE, CausalLMDecoder, load_tokenizer, positions_of
from evacap_cli.model.packing import pack
from evacap_cli.tasks.training.run import RunOptions, plan_run

from .samples import DECODER, ENCODER, random_clips

WORDS = ["a", "dog", "barks", "man", "speaks", "rain", "falls", "and", "wind", "USER", ":", "ASSISTANT"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has it: two layers, 15 words, safetensors."""
    import transformers  # takes long

    folder = tmp_path_factory.mktemp("llama")
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    engine = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    engine.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=engine, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, initializer_range=0.6,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    assert (folder / "model.safetensors").is_file()
    return folder


def config_of(llama: Path, fusion: str = "optimal-transport") -> ModelConfig:
    return ModelConfig(fusion, ENCODER, replace(DECODER, kind="causal-lm", language_model=str(llama)))


def model_of(llama: Path, fusion: str = "optimal-transport") -> CaptionModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CaptionModel(config_of(llama, fusion), 1, 2, 0).eval()
        for name, parameter in model.named_parameters():  # fresh adapters change nothing
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def decoder_of(model: CaptionModel) -> CausalLMDecoder:
    assert isinstance(model.decoder, CausalLMDecoder)
    return model.decoder


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["optimal-transport", "entropy-gate", "concat", "audio-only"])
def test_cached_beams_equal_recomputed_ones(llama: Path, fusion: str) -> None:
    model = model_of(llama, fusion)
    fbank, pixels = random_clips(4)
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[1], mask[2, 1:] = False, False
    shown = None if fusion == "audio-only" else pixels
    found = [
        model.generate(fbank, shown, mask, beam=3, max_words=8, cached=cached) for cached in (True, False)
    ]
    assert torch.equal(found[0].tokens, found[1].tokens)
    assert torch.allclose(found[0].score, found[1].score, atol=1e-5)
    assert len({tuple(row) for row in found[0].tokens.tolist()}) > 1
    alone = model.generate(fbank[1:2], None, beam=3, max_words=8)
    assert torch.equal(alone.tokens[0], found[0].tokens[1])  # a masked picture is none
    assert torch.allclose(alone.score[0], found[0].score[1], atol=1e-5)


@pytest.mark.slow
def test_scores_are_the_likelihood_of_the_words(llama: Path) -> None:
    model = model_of(llama)
    fbank, pixels = random_clips(12)
    out = model.generate(fbank, pixels, beam=3, max_words=10)
    memory = model.fuse(model.encode_audio(fbank), model.encode_picture(pixels))
    with torch.inference_mode():
        chances = model.logits(memory, out.tokens[:, :-1]).log_softmax(-1)
    ended = [(i, row) for i, row in enumerate(out.tokens.tolist()) if row.index(2, 1) < 11]
    assert len(ended) > 2  # at the greatest length, the last word is replaced by the end
    for i, row in ended:
        end = row.index(2, 1)
        words = chances[i, torch.arange(end), torch.tensor(row[1 : end + 1])]
        assert float(words.mean()) == pytest.approx(float(out.score[i]), abs=1e-5)


@pytest.mark.slow
def test_the_prompt_is_that_of_the_paper(llama: Path) -> None:
    """Against transformers' own forward pass on the whole sequence."""
    model = model_of(llama, "audio-only")
    decoder = decoder_of(model)
    words = load_tokenizer(config_of(llama).decoder)
    fbank, _ = random_clips(2)
    memory = model.fuse(model.encode_audio(fbank), None).tokens
    caption = torch.tensor([words.encode("a dog barks"), words.encode("rain falls loudly")])
    table = decoder.embed_words
    ids = [words.bos, *words.engine.encode(BEFORE, add_special_tokens=False).ids]
    after = words.engine.encode(AFTER, add_special_tokens=False).ids
    whole = torch.cat([
        table(torch.tensor([ids] * 2)), decoder.project_memory(memory), table(torch.tensor([after] * 2)),
        table(caption[:, 1:]),
    ], dim=1)  # fmt: skip
    logits = decoder.language_model(inputs_embeds=whole).logits[
        :, len(ids) + memory.shape[1] + len(after) - 1 :
    ]
    assert torch.allclose(decoder(memory, None, caption), logits, atol=1e-5)
    assert [words.engine.id_to_token(i) for i in (*ids, *after)] == ["<s>", "USER", ":", "ASSISTANT", ":"]


@pytest.mark.slow
def test_only_adapters_and_projection_are_trained_and_saved(llama: Path, tmp_path: Path) -> None:
    model = model_of(llama).train()
    lora = [name for name, p in model.decoder.named_parameters() if p.requires_grad and "lora_" in name]
    rest = [name for name, p in model.decoder.named_parameters() if p.requires_grad and "lora_" not in name]
    assert sorted(rest) == ["project_memory.0.bias", "project_memory.0.weight"]
    assert len(lora) == 2 * 2 * 2  # two matrices for two projections in two layers
    assert {p.shape[0] for name, p in model.named_parameters() if "lora_A" in name} == {8}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fbank, pixels = random_clips(4)
    tokens = torch.tensor([[1, 3, 4, 5, 2], [1, 3, 6, 7, 2], [1, 8, 9, 2, 0], [1, 3, 4, 2, 0]])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(12):
        parts = model(fbank, pixels, tokens, (tokens != 0) & (tokens != 1))
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["caption"].item())
    assert losses[-1] < 0.8 * losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(decoder_of(model).is_foreign(name) for name in changed)
    assert {name.removeprefix("decoder.") for name in changed} >= {*lora, *rest}

    model.eval()
    words = load_tokenizer(config_of(llama).decoder)
    save_checkpoint(tmp_path / "saved", model, words, {})
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        kept = [name for name in file.keys() if name.startswith("decoder.")]  # noqa: SIM118
    assert sorted(name.removeprefix("decoder.") for name in kept) == sorted([*lora, *rest])
    loaded = load_checkpoint(tmp_path / "saved")
    assert (loaded.tokenizer.bos, loaded.tokenizer.eos, loaded.tokenizer.pad) == (1, 2, 0)
    ours, theirs = (m.generate(fbank, pixels, beam=2, max_words=6) for m in (model, loaded.model))
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.allclose(ours.score, theirs.score, atol=1e-5)
    packed = pack(loaded.model, None).generate(fbank, pixels, beam=2, max_words=6)
    assert torch.equal(packed.tokens, ours.tokens)
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("a dog barks")) == "a dog barks"


@pytest.mark.slow
def test_sizes_are_known_without_weights(llama: Path) -> None:
    with torch.device("meta"):
        model = CaptionModel(config_of(llama), 1, 2, 0)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in model_of(llama).named_parameters()
    }


@pytest.mark.slow
def test_a_run_is_planned_without_weights(llama: Path) -> None:
    changes = ["model.decoder.kind=causal-lm", f"model.decoder.language_model={llama}"]
    planned = plan_run("lavcap-tiny", changes, RunOptions(device="cpu"))
    assert planned["parameters"]["trained"] < planned["parameters"]["total"]
    assert planned["memory"]["GB"] == "not estimated with a language model"


def test_padding_does_not_shift_positions() -> None:
    seen = torch.tensor([[True, True, False, True], [True, False, False, True]])
    assert positions_of(seen).tolist() == [[0, 1, 1, 2], [0, 0, 0, 1]]


@pytest.mark.slow
def test_recomputing_activations_gives_the_same_gradients(llama: Path) -> None:
    fbank, pixels = random_clips(2)
    tokens = torch.tensor([[1, 3, 4, 5, 2], [1, 3, 6, 7, 2]])
    gradients = []
    for wanted in (False, True):
        model = model_of(llama).train()
        model.set_checkpointing(wanted)
        assert model.decoder.checkpointing is wanted
        model(fbank, pixels, tokens, tokens > 1)["loss"].backward()
        gradients.append([p.grad for p in model.decoder.parameters() if p.requires_grad])
    assert all(a is not None and torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "rnn"}, "is none of git, causal-lm"),
        ({"kind": "causal-lm"}, "language_model"),
        ({"language_model": "here"}, "language_model"),
        ({"kind": "causal-lm", "language_model": "here", "lora_rank": 0}, "lora_rank"),
    ],
)
def test_wrong_settings(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_dict({"decoder": change})
    for fusion in ("adaptive", "evidence"):
        with pytest.raises(UsageError, match="causal-lm does not go with"):
            ModelConfig.from_dict(
                {"fusion": fusion, "decoder": {"kind": "causal-lm", "language_model": "here"}}
            )


def test_settings_of_other_decoders_are_not_written() -> None:
    assert "kind" not in ModelConfig().to_dict()["decoder"]
    config = ModelConfig("concat", decoder=replace(DECODER, kind="causal-lm", language_model="hf:a/b"))
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.slow
def test_loading_prints_nothing(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model_of(llama)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_pickles_code_and_missing_folders_are_refused(llama: Path, tmp_path: Path) -> None:
    import transformers

    with pytest.raises(EvacapError, match=r"no folder of a Hugging Face model"):
        CaptionModel(config_of(tmp_path / "nowhere"), 1, 2, 0)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for file in llama.iterdir():
        if file.suffix == ".json":
            (pickled / file.name).write_bytes(file.read_bytes())
    state = transformers.AutoModelForCausalLM.from_pretrained(llama).state_dict()
    torch.save(state, pickled / "pytorch_model.bin")
    with pytest.raises(EvacapError, match="cannot be read as a causal language model"):
        CaptionModel(config_of(pickled), 1, 2, 0)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for file in llama.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    settings = json.loads((foreign / "config.json").read_text())
    ran = tmp_path / "ran"
    (foreign / "modeling_x.py").write_text(f"open({str(ran)!r}, 'w')\n")
    settings |= {
        "model_type": "x",
        "auto_map": {"AutoConfig": "modeling_x.C", "AutoModelForCausalLM": "modeling_x.M"},
    }
    (foreign / "config.json").write_text(json.dumps(settings))
    with pytest.raises(EvacapError, match="cannot be read as a causal language model"):
        CaptionModel(config_of(foreign), 1, 2, 0)
    assert not ran.exists()


@pytest.mark.slow
def test_without_its_libraries_the_error_names_the_extra(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(EvacapError, match="needs transformers and peft") as caught:
        CaptionModel(config_of(llama), 1, 2, 0)
    assert "evacap[llm]" in caught.value.cure
