"""EfficientNet-Lite0, the Gabor bank, pixels and colours, against closed forms and real images."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr
from torch.nn import functional as F

from engramma.data.stimuli import StimulusSet
from engramma.errors import ConfigError
from engramma.features import extract
from engramma.features.gabor import GaborBank
from engramma.features.pixels import Colour, to_lab
from engramma.nn.efficientnet import EfficientNetLite0, SameConv2d, efficientnet_lite0, weights_path

#: Image of Kriegeskorte et al. 2008 -> index of its class in ImageNet 2012 (ILSVRC2012 synset
#: order, as in the class list of Keras' and TensorFlow's models).
CLASSES = {
    "25": 363,  # armadillo
    "32": 340,  # zebra
    "37": 345,  # ox
    "41": 235,  # German shepherd
    "44": 373,  # macaque
    "47": 291,  # lion
    "54": 936,  # head cabbage
    "68": 953,  # pineapple
    "70": 945,  # bell pepper
    "76": 481,  # cassette
    "81": 873,  # triumphal arch
    "87": 538,  # dome
    "88": 879,  # umbrella
    "91": 827,  # stove
    "92": 919,  # street sign
}


@pytest.fixture(scope="module")
def network():
    return efficientnet_lite0()


@pytest.fixture(scope="module")
def objects(real_data):
    folder = real_data / "objects92"
    table = pd.read_csv(folder / "stimuli.tsv", sep="\t")
    table.index = [name.removesuffix(".png") for name in table["image"]]
    return StimulusSet(table, root=folder / "images")


# -- EfficientNet-Lite0 --------------------------------------------------------------------


def test_every_published_weight_has_its_place(network):
    """Loading is strict; the network has the 4,652,008 parameters of the published model."""
    state = torch.load(weights_path(), weights_only=True)
    assert len(state) == len(network.state_dict()) == 296
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    stored = sorted(hashlib.sha1(v.numpy().tobytes()).hexdigest() for v in state.values())
    ours = network.state_dict().values()
    assert stored == sorted(hashlib.sha1(v.numpy().tobytes()).hexdigest() for v in ours)


def test_wrong_weights_are_refused(tmp_path):
    state = torch.load(weights_path(), weights_only=True)
    del state["_fc.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="not the weights"):
        efficientnet_lite0(tmp_path / "w.pth")


def test_logits_are_those_of_the_reference(network):
    """Compared once with the package efficientnet_lite_pytorch 0.1.0 on 32 of the object images.

    The largest difference of any logit was 0.0 (logits reach 11.56), that of any value of the
    head 0.0. The numbers below are that package's answer to a fixed input.
    """
    x = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224)
    with torch.inference_mode():
        logits = network(x)[0]
    expected = {0: 0.26600, 111: 1.40517, 409: 2.05429, 530: 0.92667, 701: 3.4702, 999: -0.44484}
    for index, value in expected.items():
        assert logits[index].item() == pytest.approx(value, abs=1e-4)


def test_objects_are_recognised(network, objects):
    chosen = objects.select(CLASSES)
    logits = extract(chosen, "efficientnet-lite0", "logits", cache=False)
    logits = logits["efficientnet-lite0/logits"].values
    assert logits.argmax(axis=1).tolist() == list(CLASSES.values())


def test_deeper_layers_resemble_inferior_temporal_cortex_more(objects, real_data):
    """As known since Khaligh-Razavi & Kriegeskorte 2014, PLoS Comput. Biol. 10, e1003915."""
    with np.load(real_data / "objects92" / "rdms.npz") as rdms:
        cortex = squareform(squareform(rdms["human_it"])[::2, ::2], checks=False)
    objects = objects.select(objects.ids[::2])
    found = extract(objects, "efficientnet-lite0", ["stage1", "stage6"], cache=False)
    found |= extract(objects, "pixels", cache=False)
    agreement = {n: spearmanr(pdist(f.values, "correlation"), cortex)[0] for n, f in found.items()}
    assert agreement["efficientnet-lite0/stage6"] > 0.3
    assert agreement["efficientnet-lite0/stage6"] > agreement["efficientnet-lite0/stage1"] + 0.1
    assert agreement["efficientnet-lite0/stage6"] > agreement["pixels/rgb"] + 0.1


def test_same_padding_is_tensorflows(rng):
    """For stride 2 on an even size, all of the padding of a 3 x 3 kernel lies at the end."""
    x = torch.from_numpy(rng.standard_normal((1, 1, 6, 7)).astype(np.float32))
    conv = SameConv2d(1, 1, 3, stride=2, bias=False)
    expected = F.conv2d(F.pad(x, (1, 1, 0, 1)), conv.weight, stride=2)
    np.testing.assert_allclose(conv(x).detach(), expected.detach())
    assert expected.shape[-2:] == (3, 4)


def test_preprocessing_takes_the_central_part():
    image = np.zeros((256, 320, 3), dtype=np.uint8)
    image[16:240, 48:272] = 255  # exactly the central 224 x 224 of 256 rows
    np.testing.assert_allclose(EfficientNetLite0.preprocess(image), 1.0)
    grey = np.full((175, 175, 3), 127, dtype=np.uint8)
    np.testing.assert_allclose(EfficientNetLite0.preprocess(grey), 0.0)


# -- Gabor bank ----------------------------------------------------------------------------


def grating(cycles, degrees, phase=0.0, size=128, contrast=0.5):
    """Luminance of a wave that runs towards ``degrees``, counter-clockwise from rightwards."""
    y, x = np.mgrid[:size, :size] / size
    angle = np.deg2rad(degrees)
    wave = np.cos(2 * np.pi * cycles * (x * np.cos(angle) - y * np.sin(angle)) + phase)
    return torch.from_numpy((0.5 + contrast * wave).astype(np.float32))


@pytest.fixture(scope="module")
def bank():
    return GaborBank()


def test_gratings_excite_the_filter_of_their_frequency_and_orientation(bank):
    for f, cycles in enumerate(bank.frequencies):
        for o in range(bank.orientations):
            image = grating(cycles, 180 * o / bank.orientations)
            middle = bank.energy(image[None])[0, :, :, 32:96, 32:96].mean(dim=(2, 3))
            assert np.unravel_index(int(middle.argmax()), middle.shape) == (f, o)


def test_energy_is_contrast_whatever_the_phase(bank):
    images = torch.stack([grating(8, 45, phase) for phase in np.linspace(0, 2 * np.pi, 9)])
    energy = bank.energy(images)[:, 2, 2, 40:88, 40:88]
    np.testing.assert_allclose(energy, 0.5, rtol=0.02)
    half = bank.energy(grating(8, 45, contrast=0.25)[None])[0, 2, 2, 40:88, 40:88]
    np.testing.assert_allclose(half, 0.25, rtol=0.02)


def test_bandwidth_is_one_octave(bank):
    """Half the maximum lies at f * 2/3 and f * 4/3, one octave apart."""
    energies = [
        bank.energy(grating(c, 0)[None])[0, 3, 0, 40:88, 40:88].mean().item()
        for c in (16, 16 * 2 / 3, 16 * 4 / 3)
    ]
    np.testing.assert_allclose(np.array(energies[1:]) / energies[0], 0.5, rtol=0.03)


def test_a_uniform_image_excites_nothing(bank):
    assert bank.energy(torch.full((1, 128, 128), 0.7)).abs().max() < 1e-6


def test_energy_stays_where_the_grating_is(bank):
    image = torch.full((128, 128), 0.5)
    image[:, 64:] = grating(16, 90)[:, 64:]
    energy = bank.energy(image[None])[0, 3, 4]
    assert energy[:, 80:].mean() > 20 * energy[:, :48].mean()


def test_any_image_size_and_normalised_to_a_common_range(rng):
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((50, 90), (300, 200))]
    maps = GaborBank().activations(images, ["energy"])["energy"]
    assert maps.shape == (2, 40, 128, 128)
    assert maps.min() >= 0 and maps.max() <= 8  # one orientation alone: r / (mean r) = 8
    with pytest.raises(ConfigError, match="do not fit"):
        GaborBank(frequencies=(64,))


# -- pixels and colour ---------------------------------------------------------------------


def test_lab_is_that_of_scikit_image(rng):
    color = pytest.importorskip("skimage.color")
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    np.testing.assert_allclose(to_lab(image), color.rgb2lab(image), atol=0.01)


def test_colour_forgets_place_and_pixels_do_not():
    left = np.zeros((64, 64, 3), dtype=np.uint8)
    left[:, :32] = (255, 0, 0)
    stimuli = StimulusSet(pd.DataFrame(index=["l", "r"]), images=np.stack([left, left[:, ::-1]]))
    colour = extract(stimuli, "colour", cache=False)["colour"].values
    np.testing.assert_allclose(colour[0], colour[1], atol=1e-6)
    np.testing.assert_allclose((colour**2).sum(axis=1), 1, rtol=1e-6)
    assert (colour[0] > 0).sum() == 2
    pixels = extract(stimuli, "pixels", ["rgb", "luminance"], cache=False)
    red = pixels["pixels/rgb"].values.reshape(2, 3, 32, 32)
    assert red[0, 0, 5, 5] == 1 and red[1, 0, 5, 5] == 0 and (red[:, 1:] == 0).all()
    assert pixels["pixels/luminance"].values.max() == pytest.approx(0.2126, abs=1e-3)


def test_colour_bins_can_be_chosen():
    image = np.asarray(Image.new("RGB", (8, 8), (128, 128, 128)))
    histogram = Colour((2, 2, 2)).activations([image], ["histogram"])["histogram"]
    assert histogram.shape == (1, 8) and histogram.max() == 1
