"""Triangles and the binary version of CIFAR-10: images whose answers and bytes are known."""

from __future__ import annotations

import numpy as np
import pytest

from engramma.data.cifar import read_cifar10, read_cifar10_names
from engramma.errors import ConfigError, DataError
from engramma.nn.patches import cut_patches
from engramma.worlds.triangles import make_triangles, third_corner


def test_equilateral_triangles_have_equal_sides():
    data = make_triangles(400, rng=np.random.default_rng(0))
    assert data.images.shape == (400, 64, 64, 1) and set(np.unique(data.images)) == {0, 255}
    assert abs(data.equilateral.mean() - 0.5) < 0.1
    sides = [np.linalg.norm(data.corners[:, i] - data.corners[:, i - 1], axis=1) for i in range(3)]
    spread = np.ptp(sides, axis=0)
    assert spread[data.equilateral].max() < 2**0.5 * 1.01  # corners are whole pixels
    assert np.median(spread[~data.equilateral]) > 10
    assert data.corners.min() >= 1 and data.corners.max() <= 63


def test_dots_lie_around_the_corners():
    data = make_triangles(100, rng=np.random.default_rng(1), size=96)
    inside = ((data.corners >= 5) & (data.corners <= 90)).all(axis=(1, 2))
    rows, columns = np.mgrid[:96, :96]
    for image, corners in zip(data.images[inside, ..., 0], data.corners[inside], strict=True):
        near = [np.hypot(columns - x, rows - y) < 5 for x, y in corners]
        assert not image[~np.any(near, axis=0)].any()
        x, y = corners[0]
        if min(np.hypot(*(corners[0] - c)) for c in corners[1:]) > 12:
            own = near[0] & (image > 0)
            np.testing.assert_allclose([columns[own].mean(), rows[own].mean()], [x, y], atol=0.01)


def test_third_corner_is_turned_by_sixty_degrees():
    assert third_corner(np.array([[10, 30]]), np.array([[30, 30]])).tolist() == [[20, 12]]
    assert third_corner(np.array([[10, 10]]), np.array([[10, 30]])).tolist() == [[27, 20]]


def test_triangles_follow_the_seed_and_refuse_what_does_not_fit():
    a, b = (make_triangles(5, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(a.images, b.images)
    assert a.patches().shape == (5, 4, 1024)
    with pytest.raises(ConfigError, match="pairs"):
        make_triangles(1, rng=np.random.default_rng(0), dots=3)
    with pytest.raises(ConfigError, match="do not fit"):
        make_triangles(1, rng=np.random.default_rng(0), size=8)


def test_patches_go_row_by_row():
    images = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6, 1)
    patches = cut_patches(images, 2)
    assert patches.shape == (2, 6, 4)
    assert patches[0, 1].tolist() == [2, 3, 8, 9] and patches[1, 3, 0] == 24 + 12
    with pytest.raises(ConfigError, match="tile"):
        cut_patches(images, 4)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (3, 3073), dtype=np.uint8)
        records[:, 0] = [0, 9, 4]
        records.tofile(tmp_path / name)
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    return tmp_path


def test_binary_batches_are_read(folder):
    images, labels = read_cifar10(folder)
    assert images.shape == (15, 32, 32, 3) and labels.tolist() == [0, 9, 4] * 5
    raw = (folder / "data_batch_2.bin").read_bytes()
    at = 3073 + 1 + 5 * 32 + 7  # second record, row 5, column 7
    assert images[4, 5, 7].tolist() == [raw[at], raw[at + 1024], raw[at + 2048]]
    assert len(read_cifar10(folder, "test")[0]) == 3
    assert read_cifar10_names(folder) == list("abcdefghij")


def test_damaged_batches_are_named(folder):
    with pytest.raises(ConfigError, match="split"):
        read_cifar10(folder, "valid")
    path = folder / "data_batch_3.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(DataError, match=r"no whole number.*data_batch_3"):
        read_cifar10(folder)
    path.write_bytes(good[:3073] + b"\x0b" + good[3074:])
    with pytest.raises(DataError, match="record 1 has the label 11"):
        read_cifar10(folder)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_cifar10(folder)
    (folder / "batches.meta.txt").write_text("one two")
    with pytest.raises(DataError, match="2 names"):
        read_cifar10_names(folder)
