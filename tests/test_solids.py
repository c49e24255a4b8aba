"""Solids: meshes and occupancy against closed forms, views, surfaces, distances, autoencoder."""

import re

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from engramma.errors import ConfigError, DataError
from engramma.generative.isosurface import isosurface
from engramma.generative.shape_scores import (
    chamfer_distance,
    earth_movers_distance,
    f_score,
    intersection_over_union,
    normalised,
)
from engramma.generative.shapes import WEIGHTS, Miniature
from engramma.registry import worlds
from engramma.worlds.meshes import SEGMENTS, Mesh, ball, box, cylinder, join, prism, turned
from engramma.worlds.solid_quality import shape_quality
from engramma.worlds.solids import SOLIDS, Solid, draw_solids, held_out_forms, make_solids
from engramma.worlds.turntable import DISTANCE, focal_length, turntable

GREY = (0.5, 0.5, 0.5)
#: Area of a regular polygon in a circle, as a share of the circle's; its side over the arc.
POLYGON = SEGMENTS / (2 * np.pi) * np.sin(2 * np.pi / SEGMENTS)
SIDE = SEGMENTS / np.pi * np.sin(np.pi / SEGMENTS)


@pytest.fixture(scope="module")
def one_each() -> list[Solid]:
    return [Solid(c, np.array([0.3, -0.4, 0.5, -0.2])) for c in SOLIDS]


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_cylinder_has_the_area_and_volume_of_its_polygon(axis: str) -> None:
    mesh = cylinder(0.5, 2.0, (1, 2, 3), axis=axis).mesh(GREY)
    assert mesh.volume == pytest.approx(POLYGON * np.pi * 0.25 * 2)
    assert mesh.areas.sum() == pytest.approx(2 * POLYGON * np.pi * 0.25 + SIDE * 2 * np.pi)
    assert mesh.watertight


def test_box_sphere_and_cone_have_their_closed_forms() -> None:
    mesh = box((1, 2, 3), (0.1, 0.2, 0.3), pitch=0.7).mesh(GREY)
    assert (mesh.volume, mesh.areas.sum()) == (pytest.approx(6), pytest.approx(22))
    assert cylinder(0.5, 1, (0, 0, 0), top=0).mesh(GREY).volume == pytest.approx(
        POLYGON * np.pi / 12
    )
    sphere = ball((1, 1, 1), (0, 0, 0)).mesh(GREY)
    assert sphere.watertight
    assert sphere.volume == pytest.approx(4 / 3 * np.pi, rel=0.03)
    assert sphere.areas.sum() == pytest.approx(4 * np.pi, rel=0.02)
    hole = Mesh(sphere.vertices, sphere.faces[1:], sphere.colours[1:])
    assert not hole.watertight


def test_what_parts_contain_is_what_their_meshes_enclose(one_each: list[Solid]) -> None:
    rng = np.random.default_rng(0)
    for solid in one_each:
        for part in solid.parts:
            mesh = part.mesh(GREY)
            assert mesh.watertight and mesh.volume > 0, solid.category
            points, faces = mesh.sample(400, rng)
            # Meshes are inscribed: up to .9 % of a radius inside of what is round.
            assert part.contains(points - 0.004 * mesh.normals[faces]).mean() > 0.9, solid.category
            assert part.contains(points + 0.01 * mesh.normals[faces]).mean() < 0.1, solid.category


def test_points_lie_evenly_on_the_outer_surface(one_each: list[Solid]) -> None:
    rng = np.random.default_rng(0)
    mesh = box((1, 2, 3), (0, 0, 0)).mesh(GREY)
    points, faces = mesh.sample(20000, rng)
    assert (np.abs(points / (0.5, 1, 1.5)).max(axis=1) - 1).max() < 1e-9
    ends = (np.abs(mesh.normals[faces, 2]) > 0.9).mean()
    assert ends == pytest.approx(4 / 22, abs=0.01)
    for solid in one_each:
        points, normals = solid.sample(500, rng)
        assert np.linalg.norm(points, axis=1).max() <= 1 + 1e-6
        assert solid.contains(points + 0.01 * normals).mean() < 0.1, solid.category


def test_occupancy_is_the_volume(one_each: list[Solid]) -> None:
    cup = one_each[SOLIDS.index("cup")]
    # The hollow of the cup is empty: the cup is much less than its hull.
    grid = cup.occupancy(32)
    assert 0.03 < grid.mean() < 0.1
    points = np.random.default_rng(0).uniform(-1, 1, (100_000, 3))
    for solid in one_each[:6]:
        share = solid.contains(points).mean()
        assert solid.occupancy(32).mean() == pytest.approx(share, abs=0.004), solid.category
    line = (np.arange(16) + 0.5) / 8 - 1
    centres = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    at = cup.contains(centres).reshape(16, 16, 16)
    np.testing.assert_array_equal(cup.occupancy(16, fine=1) > 0.5, at)


def test_depth_of_a_sphere_is_analytic() -> None:
    radius, size = 0.8, 64
    views = turntable(ball((radius,) * 3, (0, 0, 0)).mesh(GREY), np.array([0, 70]), size=size)
    line = (np.arange(size) + 0.5 - size / 2) / focal_length(size)
    slope = line**2 + line[:, None] ** 2
    # The ray z (x, y, 1) meets the sphere around (0, 0, D) where z^2 (1 + s) - 2 z D + D^2 = r^2.
    root = DISTANCE**2 - (1 + slope) * (DISTANCE**2 - radius**2)
    depth = (DISTANCE - np.sqrt(np.maximum(root, 0))) / (1 + slope)
    for mask, found in zip(views.masks, views.depth, strict=True):
        assert (mask == (root > 0)).mean() > 0.985
        sure = mask & (root > 0.3)
        np.testing.assert_allclose(found[sure], depth[sure], atol=0.02)
        assert np.isinf(found[~mask]).all()


def test_the_table_turns_counter_clockwise_and_what_is_near_hides_what_is_far() -> None:
    small = ball((0.1,) * 3, (0, 0.6, 0)).mesh(GREY)
    views = turntable(small, np.array([0, 90, 180]), elevation=0)
    centre = [np.nonzero(m)[1].mean() for m in views.masks]
    assert centre[0] > 40 and abs(centre[1] - 31.5) < 0.5 and centre[2] < 24
    assert views.depth[1].min() > DISTANCE + 0.4
    pair = join(
        [ball((0.2,) * 3, (x, 0, 0)).mesh(c) for x, c in ((0.5, (1, 0, 0)), (-0.5, (0, 0, 1)))]
    )
    images = turntable(pair, np.array([0, 180]), elevation=0).images[:, 32, 32].astype(int)
    assert images[0, 0] > images[0, 2] + 50 and images[1, 2] > images[1, 0] + 50


def test_isosurface_is_closed_and_has_the_area_of_a_sphere() -> None:
    line = (np.arange(24) + 0.5) / 12 - 1
    radius = np.sqrt(line[:, None, None] ** 2 + line[:, None] ** 2 + line**2)
    vertices, faces = isosurface(np.clip((0.7 - radius) * 6 + 0.5, 0, 1))
    mesh = Mesh(vertices, faces, np.zeros((len(faces), 3)))
    assert mesh.watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.02)
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.7).max() < 0.02
    noise = np.random.default_rng(0).random((8, 8, 8))
    vertices, faces = isosurface(noise)
    assert Mesh(vertices, faces, np.zeros((len(faces), 3))).watertight
    assert len(isosurface(np.zeros((8, 8, 8)))[1]) == 0
    with pytest.raises(DataError, match="no surface"):
        isosurface(np.zeros((8, 8)))


def test_distances_have_known_values() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((60, 3))
    b = rng.standard_normal((60, 3))
    assert chamfer_distance(a, rng.permutation(a)) == 0
    assert earth_movers_distance(a, rng.permutation(a)) == pytest.approx(0)
    square = cdist(a, b) ** 2
    expected = square.min(axis=0).mean() + square.min(axis=1).mean()
    assert chamfer_distance(a, b) == pytest.approx(expected)
    one, other = np.zeros((1, 3)), np.array([[0, 3.0, 4.0]])
    assert (chamfer_distance(one, other), earth_movers_distance(one, other)) == (50, 5)
    # A shift moves the mean by its length, and no assignment can do with less.
    assert earth_movers_distance(a, a + np.array([0.3, 0, 0.4])) == pytest.approx(0.5)
    far = np.concatenate([one, [[9.0, 0, 0]]])
    assert f_score(one, far) == pytest.approx(2 * 1 * 0.5 / 1.5)
    np.testing.assert_allclose(normalised(7 * a + 3), normalised(a))
    grid = np.zeros((2, 4, 4, 4))
    grid[0, :2], grid[1, 1:3] = 1, 1
    assert intersection_over_union(grid[0], grid[1]) == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="one-to-one"):
        earth_movers_distance(a, b[:-1])
    with pytest.raises(DataError, match="no cloud"):
        chamfer_distance(a, np.full((4, 3), np.nan))


def test_chamfer_grows_with_corruption(one_each: list[Solid]) -> None:
    rng = np.random.default_rng(0)
    points, _ = one_each[0].sample(500, rng)
    noise = rng.standard_normal(points.shape)
    found = [chamfer_distance(points, points + s * noise) for s in (0, 0.02, 0.05, 0.1, 0.2)]
    assert np.all(np.diff(found) > 0)


def test_world_is_determined_by_its_seed_and_holds_shapes_out() -> None:
    options = {"n": 4, "n_views": 2, "size": 32, "n_points": 100}
    one, again, other = (worlds.get("solids")(seed=s, **options) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.points, again.points)
    assert not np.array_equal(one.forms, other.forms)
    assert one.images.shape == (4, 2, 32, 32, 3) and one.points.shape == (4, 100, 3)
    assert one.stimuli.table["caption"].str.match(r"an? \w+ \w+").all()
    for shapes, held in (("common", False), ("held out", True)):
        found, _ = draw_solids(50, rng=np.random.default_rng(0), shapes=shapes)
        assert (held_out_forms(np.stack([s.form for s in found])) == held).all()


def test_errors_say_what_to_mend() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"no solid 'sofa'.*chair"):
        make_solids(2, rng=rng, categories=["sofa"])
    with pytest.raises(ConfigError, match="size >= 8"):
        make_solids(2, rng=rng, size=4)
    with pytest.raises(ConfigError, match="elevation"):
        turntable(
            prism([(0, 0), (1, 0), (0, 1)], 1, (0, 0, 0)).mesh(GREY), np.zeros(1), elevation=90
        )
    with pytest.raises(DataError, match="32 x 32 x 32"):
        Miniature().encode(np.zeros((1, 8, 8, 8)))
    assert turned([(0, 0), (1, 0), (0, 1)], (0, 0, 0)).mesh(GREY).watertight


def test_shipped_autoencoder_is_as_good_as_its_card_says() -> None:
    card = dict(
        re.findall(r"\| (\w[\w ]*) \| ([\d.]+) \|", (WEIGHTS / "mini-shape.md").read_text())
    )
    held_out, _ = draw_solids(32, rng=np.random.default_rng(5), shapes="held out")
    common, _ = draw_solids(100, rng=np.random.default_rng(6), shapes="common")
    mean_shape = np.mean([s.occupancy() for s in common], axis=0)
    quality = shape_quality(Miniature(), held_out, mean_shape)
    assert quality["iou"] > float(card["iou"]) - 0.05
    assert quality["iou"] > 2 * quality["mean_shape_iou"]
    assert quality["chamfer"] < 0.3 * quality["mean_shape_chamfer"]
