"""The shipped miniatures reach what their cards promise, on scenes that no script has drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from engramma.errors import ConfigError, DataError
from engramma.features import contrastive, depth
from engramma.features.contrastive import MiniImageText, ObjectPool
from engramma.features.extraction import extract
from engramma.generative import autoencoder, captioner, diffusion
from engramma.generative.captioner import MiniCaptioner
from engramma.generative.diffusion import alpha_sigma, ddim
from engramma.nn.blocks import ResidualBlock, TransformerBlock, attend, image_batch, image_pixels
from engramma.nn.hooks import capture
from engramma.nn.seed import seeded
from engramma.nn.words import WordTokenizer
from engramma.worlds.captions import vocabulary
from engramma.worlds.miniatures import (
    autoencoder_quality,
    caption_scores,
    captioner_quality,
    depth_quality,
    diffusion_quality,
    image_text_quality,
    psnr,
    top1,
)
from engramma.worlds.scenes import make_scenes


@pytest.fixture(scope="module")
def new_scenes():
    """Scenes whose first objects are pairs of category and colour never seen in training."""
    return make_scenes(300, rng=np.random.default_rng(31), compositions="held out")


# -- the shipped weights -------------------------------------------------------------------


def test_images_and_captions_find_each_other(new_scenes):
    quality = image_text_quality(contrastive.Miniature(), new_scenes)
    assert quality["image_to_text"] >= 0.8
    assert quality["text_to_image"] >= 0.8
    # Two things that have exchanged their colours, or a relation turned round, are noticed, too.
    assert quality["right_caption"] >= 0.9
    assert quality["right_exchange"] >= 0.8 and quality["right_relation"] >= 0.9


def test_images_survive_the_autoencoder(new_scenes):
    model = autoencoder.Miniature()
    assert model.latent_shape == (4, 8, 8)
    assert autoencoder_quality(model, new_scenes)["psnr"] >= 24
    latents = model.encode(new_scenes.images)
    assert np.abs(latents.mean(axis=(0, 2, 3))).max() < 0.2
    assert np.allclose(latents.std(axis=(0, 2, 3)), 1, atol=0.2)


def test_drawn_images_re_embed_near_to_their_condition(new_scenes):
    vae, clip = autoencoder.Miniature(), contrastive.Miniature()
    quality = diffusion_quality(diffusion.Miniature(), vae, clip, new_scenes)
    assert quality["re_embedded"] >= 0.7 and quality["from_captions"] >= 0.6  # chance is 0.01


def test_images_are_read_through_the_blur_of_the_autoencoder(new_scenes):
    vae, clip = autoencoder.Miniature(), contrastive.Miniature()
    decoded = vae.decode(vae.encode(new_scenes.images))
    assert top1(clip.embed_images(decoded), clip.embed_images(new_scenes.images)) >= 0.95


def test_depth_is_estimated(new_scenes):
    quality = depth_quality(depth.Miniature(), new_scenes)
    assert quality["within_1.25"] >= 0.9 and quality["relative_error"] <= 0.1


def test_captions_of_embeddings_are_right(new_scenes):
    quality = captioner_quality(captioner.Miniature(), contrastive.Miniature(), new_scenes)
    card = captioner.Miniature().path.with_suffix(".md").read_text()
    said = dict(re.findall(r"\| (\w+) \| ([\d.]+) \|", card))
    for name, value in quality.items():
        assert value > float(said[name]) - 0.05, name
    assert quality["attributes"] >= 0.8 and quality["relation"] >= 0.8  # as wanted
    # The control: captions of the wrong embeddings are not.
    shifted = contrastive.Miniature().embed_images(np.roll(new_scenes.images, 1, axis=0))

    class Wrong:
        def embed_images(self, images):
            return shifted

    wrong = captioner_quality(captioner.Miniature(), Wrong(), new_scenes)
    assert wrong["category"] < 0.2 and wrong["colour"] < 0.4


def test_captions_of_image_tokens_are_right(new_scenes):
    model = captioner.TokenMiniature()
    quality = caption_scores(model.caption_images(new_scenes.images), new_scenes)
    card = model.path.with_suffix(".md").read_text()
    said = dict(re.findall(r"\| (\w+) \| ([\d.]+) \|", card))
    for name, value in quality.items():
        assert value > float(said[name]) - 0.06, name
    assert quality["attributes"] >= 0.8 and quality["relation"] >= 0.8  # as wanted
    # The control: tokens of other images.
    tokens = model.image_tokens(np.roll(new_scenes.images, 1, axis=0))
    wrong = caption_scores(model.caption(tokens.reshape(len(tokens), -1)), new_scenes)
    assert wrong["category"] < 0.2 and wrong["colour"] < 0.4
    with pytest.raises(DataError, match="image x 65 x 128"):
        model.caption(tokens[:, :5])


def test_form_is_read_off_brightness_alone(new_scenes):
    """What a thing is must not depend on its colour: turning hues leaves the form stream alone."""
    images = new_scenes.images[:4]
    turned = images[..., [1, 2, 0]]
    tower = contrastive.Miniature().network.image
    found = []
    for batch in (images, turned):
        with torch.inference_mode(), capture(tower, ["stage2", "colour"]) as outputs:
            tower(image_batch(batch))
        found.append(outputs)
    assert torch.allclose(found[0]["stage2"], found[1]["stage2"], atol=1e-4)
    assert not torch.allclose(found[0]["colour"], found[1]["colour"], atol=0.01)


def test_features_of_the_miniatures_can_be_extracted(new_scenes):
    some = new_scenes.stimuli.select(new_scenes.stimuli.ids[:6])
    features = extract(some, "mini-clip", cache=False)
    shapes = {name.split("/")[-1]: f.values.shape for name, f in features.items()}
    assert shapes == {
        "stem": (6, 32),
        "stage1": (6, 64),
        "stage2": (6, 128),
        "colour": (6, 32),
        "block1": (6, 128),
        "block2": (6, 128),
        "block3": (6, 128),
        "embedding": (6, 128),
    }
    assert extract(some, "mini-clip-text", cache=False)["mini-clip-text"].values.shape == (6, 128)
    assert extract(some, "mini-depth", cache=False)["mini-depth"].values.shape == (6, 64)


# -- what they are made of -----------------------------------------------------------------


def test_attention_is_that_of_torch():
    q, k, v = torch.randn(3, 2, 4, 7, 8).unbind(0)
    seen = torch.ones(7, 7, dtype=torch.bool).tril()
    for mask in (None, seen):
        expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        assert torch.allclose(attend(q, k, v, mask), expected, atol=1e-5)


def test_causal_blocks_do_not_look_ahead_and_padding_changes_nothing():
    torch.manual_seed(0)
    block = TransformerBlock(16, 2, causal=True).eval()
    x = torch.randn(1, 6, 16)
    later = x.clone()
    later[:, 4:] += 1
    assert torch.allclose(block(x)[:, :4], block(later)[:, :4], atol=1e-6)
    for mentions in (0, 3):
        model = MiniImageText(words=vocabulary(), width=32, heads=2, dim=16, mentions=mentions)
        model.eval()
        short = model.tokenizer.encode(["a red cat in a room"])
        both = model.tokenizer.encode(
            ["a red cat in a room", "there is a large green car left of a dog in a field"]
        )
        alone, padded = model.project_texts(short)[0], model.project_texts(both)[0]
        assert torch.allclose(alone, padded, atol=1e-5)


def test_a_context_that_is_not_there_changes_nothing():
    with seeded(0):
        block = TransformerBlock(16, 2, context=8).eval()
        x, context = torch.randn(2, 3, 16), torch.randn(2, 5, 8)
    there = torch.arange(5) < 4
    masked = block(x, context=context, context_mask=there.expand(2, -1))
    assert torch.allclose(masked, block(x, context=context[:, :4]), atol=1e-5)
    assert not torch.allclose(masked, block(x, context=context), atol=1e-3)


def test_objects_are_told_apart_by_their_places_and_not_by_the_order_of_tokens():
    """Cells that change places with their places' vectors leave the embedding as it is."""
    with seeded(0):
        pool = ObjectPool(16, 8, heads=2, depth=2, tokens=6, objects=3).eval()
        tokens, order = torch.randn(4, 7, 16), torch.randperm(6)
    moved = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], dim=1)
    found = pool(tokens)
    assert not torch.allclose(pool(moved), found, atol=1e-3)
    pool.place = torch.nn.Parameter(pool.place[order])
    assert torch.allclose(pool(moved), found, atol=1e-5)


def test_residual_blocks_begin_as_the_identity():
    x = torch.randn(2, 32, 8, 8)
    block = ResidualBlock(32)
    assert torch.allclose(block(x), x + block.conv2.bias[:, None, None], atol=1e-6)


def test_pixels_survive_the_way_to_the_network_and_back():
    images = np.random.default_rng(0).integers(256, size=(2, 8, 8, 3)).astype(np.uint8)
    assert np.array_equal(image_pixels(image_batch(images)).numpy(), images)
    assert psnr(images, images) > 90


def test_ddim_turns_noise_into_a_known_distribution():
    """For data N(mean, 0.25) the velocity is known in closed form, and so is where noise ends."""
    mean, spread = 2.0, 0.5

    def velocity(x, time):
        alpha, sigma = (part[:, None] for part in alpha_sigma(time))
        variance = alpha**2 * spread**2 + sigma**2
        picture = mean + alpha * spread**2 / variance * (x - alpha * mean)
        noise = (x - alpha * picture) / sigma.clamp(min=1e-6)
        return alpha * noise - sigma * picture

    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = torch.linspace(1, 0.001, 400, dtype=torch.float64)
    drawn = ddim(velocity, noise, times)
    assert abs(drawn.mean() - mean) < 0.02 and abs(drawn.std() - spread) < 0.02
    # The path is deterministic and keeps the order: it is the optimal transport of a Gaussian.
    assert torch.allclose((drawn - mean) / spread, noise, atol=0.06)
    alpha, sigma = alpha_sigma(torch.linspace(0, 1, 9))
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(9))


def test_guidance_and_strength_do_what_they_say(new_scenes):
    model, clip, vae = diffusion.Miniature(), contrastive.Miniature(), autoencoder.Miniature()
    wish, start = clip.embed_images(new_scenes.images[:4]), vae.encode(new_scenes.images[:4])

    def sample(condition, **options):
        return model.sample(condition, rng=np.random.default_rng(0), steps=4, **options)

    assert np.allclose(sample(wish, guidance=0.0), sample(wish[::-1], guidance=0.0), atol=1e-4)
    assert not np.allclose(sample(wish), sample(wish[::-1]), atol=0.1)
    assert np.allclose(sample(wish, start=start, strength=0.0), start, atol=1e-4)
    near = np.abs(sample(wish, start=start, strength=0.3) - start).mean()
    assert near < np.abs(sample(wish) - start).mean()
    with pytest.raises(ConfigError, match="128 numbers"):
        model.sample(np.zeros((2, 5)), rng=np.random.default_rng(0))
    with pytest.raises(ConfigError, match="strength"):
        sample(wish, start=start, strength=2.0)


def test_the_captioner_writes_the_likeliest_words():
    torch.manual_seed(0)
    model = MiniCaptioner(words=["a", "b", "c"], condition=8, dim=16, heads=2, depth=1, length=6)
    model.eval()
    wish = functional.normalize(torch.randn(3, 8), dim=1)
    written = model.write(wish)
    tokens = torch.full((3, 1), 1)
    for _ in range(5):
        logits = model(wish, tokens)[:, -1].detach()
        logits[:, [0, 1, 3]] = -torch.inf
        tokens = torch.cat([tokens, logits.argmax(dim=1, keepdim=True)], dim=1)
    assert written == model.tokenizer.decode(tokens)


def test_the_captioner_of_tokens_looks_at_all_of_them():
    with seeded(0):
        model = MiniCaptioner(
            words=["a", "b"], condition=8, context=8, dim=16, heads=2, depth=2, length=6
        ).eval()
        tokens, words = torch.randn(2, 5, 8), torch.tensor([[1, 4, 5], [1, 5, 4]])
    logits = model(tokens, words)
    assert torch.allclose(model(tokens.flip(0), words.flip(0)).flip(0), logits, atol=1e-5)
    # Without positions of their own, tokens of the grid may stand in any order; the first may not.
    mixed = tokens[:, [0, 3, 1, 4, 2]]
    assert torch.allclose(model(mixed, words), logits, atol=1e-5)
    assert not torch.allclose(model(tokens.roll(1, dims=1), words), logits, atol=1e-3)
    # With them, where a token stands counts.
    with seeded(0):
        placed = MiniCaptioner(
            words=["a", "b"], condition=8, context=8, grid=4, dim=16, heads=2, depth=2, length=6
        ).eval()
    assert not torch.allclose(placed(mixed, words), placed(tokens, words), atol=1e-3)
    # What is read may differ from what is to be said.
    assert torch.allclose(model.loss(tokens, words, words), model.loss(tokens, words))


def test_words_there_and_back():
    tokenizer = WordTokenizer(["a", "red", "cat", ","], 8)
    codes = tokenizer.encode(["A red cat, a zebra", "cat"])
    assert codes.shape == (2, 8) and codes[1].tolist() == [1, 6, 2, 0, 0, 0, 0, 0]
    assert tokenizer.decode(codes) == ["a red cat, a", "cat"]
    assert tokenizer.encode(["a " * 20]).shape == (1, 8)


def test_weights_of_another_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match="MiniDepth"):
        depth.MiniDepth.load(contrastive.Miniature().path)
    with pytest.raises(DataError, match="cannot be read"):
        depth.Miniature(tmp_path / "none.safetensors")
    network = depth.MiniDepth(channels=[16, 16, 16])
    network.save(tmp_path / "a.safetensors")
    again = depth.MiniDepth.load(tmp_path / "a.safetensors")
    batch = torch.randn(1, 3, 16, 16)
    assert torch.allclose(again(batch), network.eval()(batch), atol=1e-2)


def test_retrieval_is_counted_within_groups():
    vectors = np.eye(200, dtype=np.float32)
    assert top1(vectors, vectors) == 1.0
    assert top1(vectors, np.roll(vectors, 1, axis=0)) < 0.02
