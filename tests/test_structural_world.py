"""Structural MRI: tissue, deformations, lesions and scanner against what they must obey."""

from __future__ import annotations

import numpy as np
import pytest
from nilearn import datasets
from skimage.filters import threshold_otsu

from engramma.errors import ConfigError
from engramma.registry import worlds
from engramma.worlds.structural import CONTRASTS, ScanOptions, structural

PERFECT = ScanOptions(spread=0.0, gamma=0.0, bias=0.0, noise=0.0)


@pytest.fixture(scope="module")
def scans():
    return structural(1, n_subjects=3, lesions=3.0)


def test_shapes_shares_and_labels_fit_together(scans):
    assert scans.images.shape == (3, 3, 50, 59, 48) and scans.images.dtype == np.float32
    total = scans.tissues.sum(axis=1)
    assert scans.tissues.min() >= 0 and total.max() < 1 + 1e-5
    assert set(np.unique(scans.labels)) == {0, 1, 2, 3, 4}
    assert (scans.labels[scans.lesions] == 4).all()
    volume = scans.subjects[["grey_volume", "white_volume"]]
    assert volume.to_numpy().min() > 250 and volume.to_numpy().max() < 1500  # ml
    np.testing.assert_allclose(scans.affine[:3, 3], [-98, -134, -72])
    subject, k = scans.axial_slices()
    assert set(subject) == {0, 1, 2} and 0 < k.min() < k.max() < 48


def test_people_without_deformation_are_the_template():
    plain = structural(
        0, n_subjects=1, contrasts=["T1"], lesions=0, atrophy=0, warp=0, rotation=0, scaling=0,
        scan=PERFECT,
    )  # fmt: skip
    assert not plain.displacement.any() and not plain.lesions.any()
    white = datasets.load_mni152_wm_template(resolution=4).get_fdata()
    assert np.corrcoef(white.ravel(), plain.tissues[0, 2].ravel())[0, 1] > 0.97
    t1 = datasets.load_mni152_template(resolution=4).get_fdata()
    assert np.corrcoef(t1.ravel(), plain.images[0, 0].ravel())[0, 1] > 0.93  # a real mean T1
    clean = np.tensordot(CONTRASTS["T1"], plain.tissues[0], axes=1)
    np.testing.assert_allclose(plain.images[0, 0], clean, atol=1e-3)
    assert (plain.bias == 1).all()


def test_volumes_change_as_the_jacobian_of_the_deformation_says():
    """Integrals of a warped map times the Jacobian determinant are integrals of the map."""
    options = {"lesions": 0, "atrophy": 0, "contrasts": ["T1"]}
    plain = structural(0, n_subjects=1, warp=0, rotation=0, scaling=0, **options)
    warped = structural(0, n_subjects=2, **options)
    for displacement, tissue in zip(warped.displacement, warped.tissues, strict=True):
        gradient = np.stack([np.stack(np.gradient(d, 4.0)) for d in displacement.astype(float)])
        jacobian = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3))
        brain = tissue.sum(axis=0)
        assert jacobian[brain > 0.5].min() > 0.1  # space does not fold
        assert np.ptp(jacobian[brain > 0.5]) > 0.2
        kept = (brain * jacobian).sum() / plain.tissues[0].sum()
        assert kept == pytest.approx(1, abs=0.03)


def test_lesions_lie_in_white_matter_and_show_in_each_contrast(scans):
    healthy = structural(1, n_subjects=3, lesions=0.0)
    white = healthy.tissues[:, 2]
    assert (scans.tissues[:, 3] <= white + 1e-6).all()
    np.testing.assert_allclose(scans.tissues[:, 2] + scans.tissues[:, 3], white, atol=1e-6)
    assert scans.lesions.any(axis=(1, 2, 3)).sum() >= 2 and not healthy.lesions.any()
    deep = scans.tissues[:, 3] > 0.9
    around = (scans.tissues[:, 2] > 0.9) & ~scans.lesions
    ratio = {
        name: scans.images[:, c][deep].mean() / scans.images[:, c][around].mean()
        for c, name in enumerate(scans.contrasts)
    }
    assert ratio["T1"] < 0.75 < 1.5 < min(ratio["T2"], ratio["FLAIR"])
    # A threshold on FLAIR finds them, as it must in such a clear case.
    i = int(scans.lesions.sum(axis=(1, 2, 3)).argmax())
    flair, brain = scans.images[i, 2] / scans.bias[i, 2], scans.tissues[i].sum(axis=0) > 0.9
    found = brain & (flair > threshold_otsu(flair[scans.tissues[i, 2:].sum(axis=0) > 0.9]))
    assert (found & deep[i]).sum() / deep[i].sum() > 0.9


def test_older_people_have_lost_the_grey_matter_that_is_declared():
    options = {"n_subjects": 3, "lesions": 0.0, "contrasts": ["T1"]}
    aged, spared = (structural(2, atrophy=a, **options) for a in (0.004, 0.0))
    lost = 1 - aged.subjects["grey_volume"] / spared.subjects["grey_volume"]
    np.testing.assert_allclose(lost, 0.004 * (aged.subjects["age"] - 20), atol=1e-3)
    np.testing.assert_allclose(aged.subjects["atrophy"], lost, atol=1e-3)
    np.testing.assert_allclose(aged.tissues.sum(axis=1), spared.tissues.sum(axis=1), atol=1e-5)


def test_noise_is_rician_and_bias_a_factor():
    options = {"n_subjects": 1, "contrasts": ["T2"], "lesions": 0.0}
    clean = structural(3, scan=PERFECT, **options)
    noisy = structural(3, scan=ScanOptions(spread=0, gamma=0, bias=0, noise=6.0), **options)
    air = clean.images[0, 0] == 0
    values = noisy.images[0, 0][air]  # Rayleigh
    assert values.mean() == pytest.approx(6 * np.sqrt(np.pi / 2), rel=0.02)
    assert values.std() == pytest.approx(6 * np.sqrt(2 - np.pi / 2), rel=0.02)
    bright = clean.images[0, 0] > 100  # nearly Gaussian there
    excess = (noisy.images - clean.images)[0, 0][bright]
    assert excess.std() == pytest.approx(6, rel=0.03)
    shaded = structural(3, scan=ScanOptions(spread=0, gamma=0, bias=0.3, noise=0), **options)
    np.testing.assert_allclose(shaded.images, clean.images * shaded.bias, rtol=1e-4, atol=1e-3)
    assert np.log(shaded.bias).std() == pytest.approx(0.3, rel=0.01)


def test_thick_slices_blur_one_axis_only():
    options = {"n_subjects": 1, "contrasts": ["T1"], "lesions": 0.0}
    thin = structural(4, scan=PERFECT, **options).images[0, 0]
    thick = ScanOptions(spread=0, gamma=0, bias=0, noise=0, thickness=12.0)
    image = structural(4, scan=thick, **options).images[0, 0]
    steep = [np.abs(np.diff(image, axis=a)).mean() / np.abs(np.diff(thin, axis=a)).mean()
             for a in (0, 1, 2)]  # fmt: skip
    assert steep[2] < 0.8 and steep[2] < min(steep[:2]) - 0.05


def test_anatomy_follows_the_seed_whatever_the_scanner(scans):
    again = worlds.get("structural-mri")(1, n_subjects=1, lesions=3.0)
    np.testing.assert_array_equal(again.images, scans.images[:1])
    other = structural(1, n_subjects=1, lesions=3.0, contrasts=["random", "random"])
    np.testing.assert_array_equal(other.tissues, scans.tissues[:1])
    assert other.intensity.min() >= 25 and np.ptp(other.intensity, axis=1).min() > 0
    assert not np.array_equal(structural(2, n_subjects=1).tissues, scans.tissues[:1])


def test_errors_say_what_to_mend():
    with pytest.raises(ConfigError, match="T1, T2, FLAIR or random"):
        structural(contrasts=["PD"])
    with pytest.raises(ConfigError, match="1 <= voxel <= 10"):
        structural(voxel=0.5)
    with pytest.raises(ConfigError, match=r"0\.4 of grey matter"):
        structural(atrophy=0.1)
