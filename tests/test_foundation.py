"""Wrappers of real foundation models, against the real classes called directly.

Each model is a tiny configuration with random weights, saved to a folder as the real ones are.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError, MissingPackageError
from engramma.features import extract
from engramma.features.foundation import (
    depth_estimator,
    image_text_model,
    speech_encoder,
    video_encoder,
    vision_model,
)
from engramma.features.joint_folder import GridRegions, JointFolder, Regions
from engramma.features.pretrained import Pretrained, library_class

transformers = pytest.importorskip("transformers")

TEXTS = ["a dog left of the tree", "a red house", "the cat sees a dog on the tree"]
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
PIXELS = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "size": {"height": 32, "width": 32},
}
CLIP_PIXELS = PIXELS | {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 32},
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
}
VISION = SIZE | {"image_size": 32, "patch_size": 8}
WORDS = SIZE | {"vocab_size": 40, "max_position_embeddings": 16}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)


def needed(name, library=transformers):
    """A class of the library; without it the test is skipped, saying so."""
    try:
        return library_class(library, name)
    except MissingPackageError as error:
        pytest.skip(str(error))


def build(name, config, folder, processor=None, words=False):
    """Save a model with random weights, and return it."""
    torch.manual_seed(0)
    model = needed(name)(config).eval()
    for parameter in model.parameters():  # so that what starts as zero or one counts as well
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder, safe_serialization=True)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    if words:
        save_tokenizer(folder)
    return model


def save_tokenizer(folder):
    """A tokenizer of whole words that starts and ends texts with tokens of their own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    known = sorted({w for t in TEXTS for w in t.split()})
    numbers = {w: i for i, w in enumerate([*special, *known])}
    words = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = dict(zip(["pad_token", "unk_token", "bos_token", "eos_token"], special, strict=True))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, cls_token="[CLS]", sep_token="[SEP]", **named
    ).save_pretrained(folder)


def prepared(folder, images):
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    return processor(images=list(images), return_tensors="pt")["pixel_values"]


def tokenized(folder, texts=TEXTS):
    found = transformers.AutoTokenizer.from_pretrained(folder)(
        texts, return_tensors="pt", padding=True
    )
    return {n: found[n] for n in ("input_ids", "attention_mask")}


def close(ours, theirs):
    np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-5, rtol=1e-5)


def save_clip(folder):
    config = transformers.CLIPConfig(
        text_config=WORDS | {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
        vision_config=VISION,
        projection_dim=12,
    )
    return build("CLIPModel", config, folder, CLIP_PIXELS, words=True)


# -- images and texts ----------------------------------------------------------------------


@torch.no_grad()
def test_clip(images, tmp_path):
    real = save_clip(tmp_path)
    ours = image_text_model(tmp_path)
    out = real(pixel_values=prepared(tmp_path, images), **tokenized(tmp_path))
    close(ours.embed_images(images), out.image_embeds)
    close(ours.embed_texts(TEXTS), out.text_embeds)
    assert ours.dim == 12
    tokens = ours.image_tokens(images)
    assert tokens.shape == (3, 17, 16)
    close(tokens[:, 0], real.vision_model(prepared(tmp_path, images)).pooler_output)
    words, mask = ours.text_tokens(TEXTS), tokenized(tmp_path)["attention_mask"].bool()
    assert words.shape == (3, 16, 16)
    close(words[:, : mask.shape[1]][mask], out.text_model_output.last_hidden_state[mask])
    assert not words[:, : mask.shape[1]][~mask].any() and not words[:, mask.shape[1] :].any()
    common = image_text_model(tmp_path, projected=True)
    close(common.image_tokens(images)[:, 0], out.image_embeds)
    assert common.identity() != ours.identity()
    with pytest.raises(DataError, match="image x height x width x 3"):
        ours.embed_images(images / 255)
    with pytest.raises(DataError, match="empty"):
        ours.embed_texts(["a dog", " "])


@torch.no_grad()
@pytest.mark.parametrize(("kind", "prefix"), [("ViT", 1), ("Deit", 2), ("Beit", 1)])
def test_vision_transformers(images, tmp_path, kind, prefix):
    name = {"Deit": "DeiT"}.get(kind, kind)
    config = getattr(transformers, f"{name}Config")(**VISION)
    settings = PIXELS | {"image_processor_type": "ViTImageProcessor"}
    real = build(f"{name}Model", config, tmp_path, settings)
    states = real(prepared(tmp_path, images), output_hidden_states=True).hidden_states
    stimuli = StimulusSet(pd.DataFrame(index=list("abc")), images=images)
    ours = vision_model(tmp_path)
    for i in (0, 2):
        layer = f"{tmp_path.name}/hidden.{i}"
        first = extract(stimuli, ours, f"hidden.{i}", pool="first", cache=False)[layer]
        close(first.values, states[i][:, 0])
        cells = extract(stimuli, ours, f"hidden.{i}", pool="grid4", cache=False)[layer]
        close(cells.values, states[i][:, prefix:].transpose(1, 2).flatten(1))


# -- joint models --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def regions():
    rng = np.random.default_rng(1)
    boxes = np.sort(rng.random((3, 5, 2, 2)), axis=2).reshape(3, 5, 4)
    return Regions(rng.standard_normal((3, 5, 16)).astype(np.float32), boxes.astype(np.float32))


@torch.no_grad()
def test_visual_bert(images, regions, tmp_path):
    config = transformers.VisualBertConfig(**WORDS, visual_embedding_dim=16)
    real = build("VisualBertModel", config, tmp_path, words=True)
    ours = JointFolder(tmp_path)
    found = ours.activations(regions, TEXTS, ours.layers)
    text = tokenized(tmp_path)
    out = real(**text, visual_embeds=torch.from_numpy(regions.features), output_hidden_states=True)
    close(found["pooled"], out.pooler_output)
    there = torch.cat([text["attention_mask"], torch.ones(3, 5)], dim=1).bool()
    for i, state in enumerate(out.hidden_states):
        close(found[f"hidden.{i}"][there], state[there])
        assert not found[f"hidden.{i}"][~there].any()
    with pytest.raises(DataError, match="3 x regions x 16"):
        ours.activations(Regions(regions.features[..., :9], regions.boxes), TEXTS)
    with pytest.raises(ConfigError, match="GridRegions"):
        ours.activations(images, TEXTS)
    with pytest.raises(ConfigError, match="choose from pooled"):
        ours.activations(regions, TEXTS, ["hidden.9"])


@torch.no_grad()
def test_lxmert_and_grids(images, regions, tmp_path):
    layers = {"l_layers": 2, "x_layers": 1, "r_layers": 1}
    config = transformers.LxmertConfig(**WORDS, **layers, visual_feat_dim=16)
    real = build("LxmertModel", config, tmp_path, words=True)
    ours = JointFolder(tmp_path)
    assert ours.layers == ["pooled", *(f"language.{i}" for i in (1, 2, 3)), "vision.1", "vision.2"]
    found = ours.activations(regions, TEXTS, ours.layers)
    seen, boxes = map(torch.from_numpy, regions)
    text = tokenized(tmp_path)
    out = real(**text, visual_feats=seen, visual_pos=boxes, output_hidden_states=True)
    close(found["pooled"], out.pooled_output)
    close(found["vision.1"], out.vision_hidden_states[0])
    close(found["vision.2"], out.vision_output)
    there = text["attention_mask"].bool()
    close(found["language.3"][there], out.language_output[there])

    folder = tmp_path / "vit"
    settings = PIXELS | {"image_processor_type": "ViTImageProcessor"}
    vit = build("ViTModel", transformers.ViTConfig(**VISION), folder, settings)
    grid = GridRegions(vision_model(folder), "hidden.2", cells=4)
    patches = vit(prepared(folder, images), output_hidden_states=True).hidden_states[2][:, 1:]
    close(grid(images).features, patches)
    close(grid(images).boxes[0, 4], [0, 0.25, 0.25, 0.5])  # second row, first column
    direct = ours.activations(grid(images), TEXTS)["pooled"]
    close(JointFolder(tmp_path, grid).activations(images, TEXTS)["pooled"], direct)


# -- depth, video, speech ------------------------------------------------------------------


@torch.no_grad()
def test_dpt(images, tmp_path):
    config = transformers.DPTConfig(
        **VISION | {"num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        reassemble_factors=[4, 2, 1, 0.5],
    )
    settings = PIXELS | {"image_processor_type": "DPTImageProcessor"}
    real = build("DPTForDepthEstimation", config, tmp_path, settings)
    ours = depth_estimator(tmp_path)
    out = real(prepared(tmp_path, images))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    said = processor.post_process_depth_estimation(out, target_sizes=[(40, 50)] * 3)
    inverse = ours.inverse_depth(images)
    close(inverse, np.stack([s["predicted_depth"] for s in said]))
    depth = ours.depth(images)
    assert depth.shape == (3, 40, 50)
    close(depth.min(axis=(1, 2)), np.ones(3))
    close(depth.max(axis=(1, 2)), 10 * np.ones(3))
    for far, near in zip(depth, inverse, strict=True):
        assert (np.diff(far.ravel()[np.argsort(near.ravel())]) <= 1e-5).all()
    close(ours.depth_of_states(ours.hidden_states(images), (40, 50)), depth)
    with pytest.raises(DataError, match="give the 4"):
        ours.depth_of_states(ours.hidden_states(images)[:2], (40, 50))


@torch.no_grad()
def test_videomae(tmp_path):
    config = transformers.VideoMAEConfig(**VISION, num_frames=4, tubelet_size=2)
    settings = PIXELS | {"image_processor_type": "VideoMAEImageProcessor", "do_center_crop": False}
    real = build("VideoMAEModel", config, tmp_path, settings)
    ours = video_encoder(tmp_path)
    videos = np.random.default_rng(0).integers(0, 256, (2, 7, 40, 40, 3), dtype=np.uint8)
    frames = videos[:, [0, 2, 4, 6]]
    batch = torch.stack([prepared(tmp_path, clip).reshape(4, 3, 32, 32) for clip in frames])
    out = real(batch, output_hidden_states=True)
    found = ours.activations(videos)
    assert tuple(found) == ours.layers == ("hidden.0", "hidden.1", "hidden.2")
    for state, layer in zip(out.hidden_states, ours.layers, strict=True):
        close(found[layer], state)
    mean = out.last_hidden_state.mean(dim=1)
    close(ours.embed_videos(videos), mean / mean.norm(dim=1, keepdim=True))
    # As features of stimuli, whose videos may differ in size.
    stimuli = StimulusSet(
        pd.DataFrame(index=["a", "b"]), videos=[videos[0], videos[1, :, :30, :36]]
    )
    features = extract(stimuli, tmp_path, "hidden.2", cache=False)
    (layer,) = features.values()
    close(layer.values[0], out.hidden_states[2][0].mean(dim=0))
    close(layer.values[1], ours.activations(videos[1:, :, :30, :36])["hidden.2"][0].mean(axis=0))
    with pytest.raises(DataError, match="at least 4 frames"):
        ours.embed_videos(videos[:, :3])
    with pytest.raises(ConfigError, match=r"choose from hidden\.0"):
        ours.activations(videos, ["tubes"])


def save_wav2vec2(folder):
    config = transformers.Wav2Vec2Config(
        **SIZE,
        conv_dim=(8, 8),
        conv_stride=(20, 16),
        conv_kernel=(40, 32),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        vocab_size=10,
    )
    settings = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": 16000,
        "feature_size": 1,
        "do_normalize": True,
    }
    return build("Wav2Vec2Model", config, folder, settings)


@torch.no_grad()
def test_wav2vec2(tmp_path, rng):
    from scipy.signal import resample_poly

    real = save_wav2vec2(tmp_path)
    ours = speech_encoder(tmp_path)
    assert (ours.rate, ours.frame) == (16000, 0.02)
    slow, fast = (rng.standard_normal(n).astype(np.float32) for n in (4000, 9000))
    tokens = ours.tokens([(slow, 8000), (fast, 16000)])
    for found, wave in zip(tokens, (resample_poly(slow, 2, 1), fast), strict=True):
        normal = torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)).float()
        close(found, real(normal[None]).last_hidden_state[0])
    mean = tokens[1].mean(axis=0)
    close(ours.embed([(fast, 16000)])[0], mean / np.linalg.norm(mean))
    stimuli = StimulusSet(pd.DataFrame(index=["a"]), audio=[fast], attrs={"sampling_rate": 16000})
    layer = extract(stimuli, ours, "hidden.2", cache=False)[f"{tmp_path.name}/hidden.2"]
    close(layer.values[0], mean)
    for sound, message in (
        (fast, "without its rate"),
        ((fast, 0), "no sampling rate"),
        ((fast[None], 16000), "finite row"),
        ((fast[:100], 16000), "shorter than one frame"),
    ):
        with pytest.raises(DataError, match=message):
            ours.tokens([sound])


@torch.no_grad()
def test_whisper(tmp_path, rng):
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        vocab_size=40,
        max_source_positions=50,
        num_mel_bins=80,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    settings = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "sampling_rate": 16000,
        "feature_size": 80,
        "chunk_length": 1,
    }
    real = build("WhisperForConditionalGeneration", config, tmp_path, settings)
    ours = speech_encoder(tmp_path)
    assert ours.frame == 0.02
    wave = rng.standard_normal(9000).astype(np.float32)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    heard = extractor(wave, sampling_rate=16000, return_tensors="pt").input_features
    out = real.model.encoder(heard, output_hidden_states=True)
    tokens = ours.tokens([(wave, 16000)])[0]
    assert tokens.shape == (29, 16)  # 0.5625 s
    close(tokens, out.last_hidden_state[0, :29])
    first = ours.activations([(wave, 16000)], ["hidden.1"])["hidden.1"].values
    close(first, out.hidden_states[1][:, :29])
    with pytest.raises(DataError, match="exceeds 1 s"):
        ours.tokens([(np.zeros(17000), 16000)])


# -- captions and language -----------------------------------------------------------------


@torch.no_grad()
def test_git(images, tmp_path):
    from engramma.generative.foundation import token_captioner

    size = WORDS | {"max_position_embeddings": 40, "vocab_size": 15}  # the tokenizer's words
    config = transformers.GitConfig(
        vision_config=VISION, **size, bos_token_id=2, eos_token_id=3, pad_token_id=0
    )
    real = build("GitForCausalLM", config, tmp_path, CLIP_PIXELS, words=True)
    real.output.bias[:4] = -5.0  # else random weights may end a caption before its first word
    real.save_pretrained(tmp_path, safe_serialization=True)
    ours = token_captioner(tmp_path)
    pixels = prepared(tmp_path, images)
    ids = real.generate(pixel_values=pixels, max_new_tokens=25, do_sample=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = [t.strip() for t in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    assert ours.caption_images(images) == expected
    assert any(expected)
    tokens = ours.image_tokens(images)
    close(tokens, real.git.image_encoder(pixels).last_hidden_state)
    assert ours.condition_dim == 17 * 16
    assert ours.caption(tokens.reshape(3, -1)) == expected
    assert ours.caption(tokens[::-1].copy()) == expected[::-1]
    with pytest.raises(DataError, match="image x 17 x 16"):
        ours.caption(tokens[:, :5])


@torch.no_grad()
def test_causal_language_model(tmp_path):
    from engramma.generative.foundation import language_model

    real = build("LlamaForCausalLM", transformers.LlamaConfig(**WORDS), tmp_path, words=True)
    ours = language_model(tmp_path)
    ids = tokenized(tmp_path, TEXTS[:1])["input_ids"][:, :-1]  # no token that ends the text
    loss = real(ids, labels=ids).loss.item()
    assert ours.perplexity(TEXTS[0]) == pytest.approx(np.exp(loss), rel=1e-4)


# -- diffusion -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline(diffusers, tmp_path_factory):
    """A tiny Stable Diffusion, saved, and its folder."""
    folder = tmp_path_factory.mktemp("stable")
    save_tokenizer(folder / "words")
    torch.manual_seed(0)
    unet = tiny_unet(diffusers)
    vae = diffusers.AutoencoderKL(
        block_out_channels=[8, 16],
        norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        sample_size=16,
        scaling_factor=0.7,
    )
    text = transformers.CLIPTextConfig(**WORDS, bos_token_id=2, eos_token_id=3, pad_token_id=0)
    pipe = diffusers.StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=transformers.CLIPTextModel(text).eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder / "words", model_max_length=16),
        scheduler=diffusers.DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder / "pipe", safe_serialization=True)
    return pipe, folder / "pipe"


def tiny_unet(diffusers, **options):
    return diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    ).eval()


@torch.no_grad()
def test_autoencoder(images, pipeline):
    from engramma.generative.foundation import image_autoencoder

    pipe, folder = pipeline
    ours = image_autoencoder(folder)
    assert (ours.image_size, ours.latent_shape) == (16, (4, 8, 8))
    small = images[:, :16, :16]
    latents = ours.encode(small)
    pixels = torch.from_numpy(small).float().movedim(-1, 1) / 127.5 - 1
    close(latents, 0.7 * pipe.vae.encode(pixels).latent_dist.mean)
    decoded = pipe.vae.decode(torch.from_numpy(latents) / 0.7).sample
    expected = pipe.image_processor.postprocess(decoded, "np") * 255
    assert np.abs(ours.decode(latents) - expected).max() <= 0.5001
    assert ours.decode(latents).dtype == np.uint8
    assert ours.encode(images).shape == (3, 4, 8, 8)  # resized
    assert image_autoencoder(folder / "vae", image_size=32).latent_shape == (4, 16, 16)
    with pytest.raises(ConfigError, match="UNet2DConditionModel, and AutoencoderKL is needed"):
        image_autoencoder(folder / "unet")
    with pytest.raises(DataError, match="4 x 8 x 8"):
        ours.decode(latents[:, :3])


def test_stable_diffusion(pipeline, diffusers):
    from engramma.generative.foundation import latent_diffusion

    pipe, folder = pipeline
    ours = latent_diffusion(folder)
    tokens = ours.text_condition(TEXTS[:2])
    assert tokens.shape == (2, 16, 16) and ours.condition_dim == 16
    noise = np.random.default_rng(3).standard_normal((2, 4, 8, 8), dtype=np.float32)
    for guidance in (1.0, 5.0):
        found = ours.sample(tokens, rng=np.random.default_rng(3), steps=5, guidance=guidance)
        expected = pipe(
            TEXTS[:2],
            num_inference_steps=5,
            guidance_scale=guidance,
            latents=torch.from_numpy(noise),
            output_type="latent",
        ).images
        close(found, expected)
    assert ours.identity().startswith("UNet2DConditionModel ")


def test_image_to_image(pipeline, diffusers):
    from engramma.generative.foundation import latent_diffusion

    pipe, folder = pipeline
    ours = latent_diffusion(folder)
    tokens = ours.text_condition(TEXTS[:1])
    start = np.random.default_rng(5).standard_normal((1, 4, 8, 8), dtype=np.float32)
    noise = torch.from_numpy(
        np.random.default_rng(3).standard_normal((1, 4, 8, 8), dtype=np.float32)
    )
    options = {"steps": 10, "guidance": 3.0, "start": start}
    found = ours.sample(tokens, rng=np.random.default_rng(3), strength=0.6, **options)
    other = diffusers.StableDiffusionImg2ImgPipeline(
        **pipe.components, requires_safety_checker=False
    )
    other.set_progress_bar_config(disable=True)
    # The pipeline would draw the noise itself; latents of its own are taken as they are.
    other.prepare_latents = lambda image, time, *_: other.scheduler.add_noise(image, noise, time)
    expected = other(
        TEXTS[0],
        image=torch.from_numpy(start),
        strength=0.6,
        num_inference_steps=10,
        guidance_scale=3.0,
        output_type="latent",
    ).images
    close(found, expected)
    close(ours.sample(tokens, rng=np.random.default_rng(3), strength=0.0, **options), start)


def test_wishes_that_cannot_be_met(pipeline):
    from engramma.generative.foundation import latent_diffusion

    ours = latent_diffusion(pipeline[1])
    tokens = ours.text_condition(TEXTS[:2])
    for wrong, message in (
        ({"condition": tokens[..., :3]}, "16 numbers a token"),
        ({"start": np.zeros((2, 4, 4, 4))}, r"not \(2, 4, 8, 8\)"),
        ({"steps": 0}, "steps >= 1"),
        ({"strength": 1.5}, "0 .. 1"),
        ({"prompt": TEXTS[:2]}, "takes no prompt"),
    ):
        with pytest.raises(ConfigError, match=message):
            ours.sample(**{"condition": tokens, "rng": np.random.default_rng(0), **wrong})


@torch.no_grad()
def test_image_variations(images, pipeline, diffusers, tmp_path):
    """One token, an image embedding; the condition is left out by zeros; another scheduler."""
    from engramma.generative.foundation import latent_diffusion

    torch.manual_seed(1)
    unet = tiny_unet(diffusers)
    unet.save_pretrained(tmp_path / "unet")
    scheduler = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear")
    scheduler.save_pretrained(tmp_path / "scheduler")
    vision = transformers.CLIPVisionConfig(**VISION, projection_dim=16)
    encoder = build("CLIPVisionModelWithProjection", vision, tmp_path / "image_encoder")
    (tmp_path / "feature_extractor").mkdir()
    path = tmp_path / "feature_extractor" / "preprocessor_config.json"
    path.write_text(json.dumps(CLIP_PIXELS))
    ours = latent_diffusion(tmp_path)
    wish = ours.image_condition(images[:2])
    close(wish, encoder(prepared(tmp_path / "feature_extractor", images[:2])).image_embeds)
    found = ours.sample(wish, rng=np.random.default_rng(3), steps=4, guidance=2.0)
    scheduler.set_timesteps(4)
    noise = np.random.default_rng(3).standard_normal((2, 4, 8, 8), dtype=np.float32)
    latents = torch.from_numpy(noise) * scheduler.init_noise_sigma
    both = torch.cat([torch.zeros(2, 1, 16), torch.from_numpy(wish)[:, None]])
    for time in scheduler.timesteps:
        entering = scheduler.scale_model_input(torch.cat([latents] * 2), time)
        plain, wished = unet(entering, time, both).sample.chunk(2)
        latents = scheduler.step(plain + 2 * (wished - plain), time, latents).prev_sample
    np.testing.assert_allclose(found, latents, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="neither a Hugging Face folder"):
        ours.text_condition(TEXTS)


def test_unclip(pipeline, diffusers, tmp_path):
    """Against the pipeline of Stable unCLIP, whose noise level 0 adds (almost) no noise."""
    from engramma.generative.foundation import latent_diffusion

    pipe, folder = pipeline
    torch.manual_seed(2)
    options = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 24}
    unet = tiny_unet(diffusers, **options)
    for name in ("text_encoder", "tokenizer", "scheduler"):
        (tmp_path / name).symlink_to(folder / name)
    unet.save_pretrained(tmp_path / "unet")
    ours = latent_diffusion(tmp_path)
    assert ours.condition_dim == 12
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
        StableUnCLIPImageNormalizer,
    )

    other = diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=None,
        image_encoder=unet,  # it is asked for its number type only
        image_normalizer=StableUnCLIPImageNormalizer(12),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_start=1e-12, beta_end=1e-12),
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        unet=unet,
        scheduler=pipe.scheduler,
        vae=pipe.vae,
    )
    other.set_progress_bar_config(disable=True)
    wish = np.random.default_rng(1).standard_normal((2, 12)).astype(np.float32)
    noise = np.random.default_rng(3).standard_normal((2, 4, 8, 8), dtype=np.float32)
    # One image a call: the pipeline interleaves the conditions of several.
    expected = [
        other(
            prompt=text,
            image_embeds=torch.from_numpy(one[None]),
            latents=torch.from_numpy(start[None]),
            num_inference_steps=4,
            guidance_scale=3.0,
            output_type="latent",
        ).images[0]
        for text, one, start in zip(TEXTS, wish, noise, strict=False)
    ]
    found = ours.sample(wish, rng=np.random.default_rng(3), steps=4, guidance=3.0, prompt=TEXTS[:2])
    np.testing.assert_allclose(found, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_ip_adapter(pipeline, diffusers, tmp_path):
    from safetensors.torch import save_file

    from engramma.generative.foundation import latent_diffusion

    pipe, folder = pipeline
    generator = torch.Generator().manual_seed(0)
    weights = {
        "image_proj.proj.weight": torch.randn(4 * 16, 12, generator=generator),
        "image_proj.proj.bias": torch.randn(4 * 16, generator=generator),
        "image_proj.norm.weight": torch.ones(16),
        "image_proj.norm.bias": torch.zeros(16),
    }
    for i, name in enumerate(pipe.unet.attn_processors):
        if "attn2" in name:
            width = dict(pipe.unet.named_modules())[name.removesuffix(".processor")].inner_dim
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{i}.{part}.weight"] = torch.randn(
                    width, 16, generator=generator
                )
    path = tmp_path / "ip-adapter.safetensors"
    save_file(weights, path)
    ours = latent_diffusion(folder, ip_adapter=path)
    assert ours.condition_dim == 12
    wish = np.random.default_rng(1).standard_normal((1, 12)).astype(np.float32)
    found = ours.sample(wish, rng=np.random.default_rng(3), steps=4, guidance=3.0, prompt=TEXTS[:1])
    other = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False
    )
    other.set_progress_bar_config(disable=True)
    other.load_ip_adapter(str(tmp_path), "", path.name, image_encoder_folder=None)
    noise = np.random.default_rng(3).standard_normal((1, 4, 8, 8), dtype=np.float32)
    embeds = torch.from_numpy(wish)[None]
    expected = other(
        TEXTS[0],
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(embeds), embeds])],
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=torch.from_numpy(noise),
        output_type="latent",
    ).images
    close(found, expected)
    plain = latent_diffusion(folder)
    without = plain.sample(plain.text_condition(TEXTS[:1]), rng=np.random.default_rng(3), steps=4)
    assert np.abs(found - without).max() > 1e-3
    with pytest.raises(ConfigError, match="no IP-Adapter"):
        latent_diffusion(folder, ip_adapter=tmp_path / "nothing.safetensors")


# -- what is refused -----------------------------------------------------------------------


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="neither a Hugging Face folder"):
        depth_estimator(tmp_path / "nowhere")
    settings = PIXELS | {"image_processor_type": "ViTImageProcessor"}
    build("ViTModel", transformers.ViTConfig(**VISION), tmp_path, settings)
    with pytest.raises(ConfigError, match="type 'vit', and an image-text model is of type 'clip'"):
        image_text_model(tmp_path)
    with pytest.raises(ConfigError, match=r"'vit'.*'visual_bert' or 'lxmert'"):
        JointFolder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pickled \(pytorch_model.bin\)"):
        vision_model(tmp_path)
    with pytest.raises(ConfigError, match=r"pickled \(pytorch_model.bin\)"):
        video_encoder(tmp_path)


def test_weights_without_a_part_are_refused(tmp_path):
    """Transformers would fill the missing neck and head of a DPT with random numbers."""
    build("DPTModel", transformers.DPTConfig(**VISION), tmp_path)
    with pytest.raises(ConfigError, match=r"lack \d+ parameters of DPTForDepthEstimation"):
        depth_estimator(tmp_path).inverse_depth(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_class_that_transformers_lacks(tmp_path):
    save_clip(tmp_path)
    model = Pretrained(tmp_path, {"clip": "ClipOfTheFuture"}, "an image-text model")
    with pytest.raises(MissingPackageError, match=r"transformers .* has no ClipOfTheFuture"):
        _ = model.network


def test_miniatures_have_the_same_interface():
    from engramma.generative import foundation

    for factory in (image_text_model, depth_estimator, foundation.image_autoencoder):
        assert factory().name.startswith("mini-")
