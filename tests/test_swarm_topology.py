"""Surfaces: joined edges against hand-made cases, there and back again, and continuity across every seam."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.mean_field.topology import TOPOLOGIES, Surface

SIDE = 4.0
RNG = np.random.default_rng(0)

# name: (start, displacement, heading) -> (end, heading), on [-2, 2]^2, headings in degrees.
EAST, NORTH = ((1.9, 0.5), (0.3, 0.0), 30.0), ((0.5, 1.9), (0.0, 0.3), 70.0)
BOTH = ((1.9, 1.8), (0.3, 0.4), 50.0)
CASES = {
    "torus": [(EAST, (-1.8, 0.5), 30.0), (NORTH, (0.5, -1.8), 70.0), (BOTH, (-1.8, -1.8), 50.0)],
    "box": [(EAST, (1.8, 0.5), 150.0), (NORTH, (0.5, 1.8), 290.0), (BOTH, (1.8, 1.8), 230.0)],
    "moebius": [(EAST, (-1.8, -0.5), 330.0), (NORTH, (0.5, 1.8), 290.0), (BOTH, (-1.8, -1.8), 50.0)],
    "klein": [(EAST, (-1.8, -0.5), 330.0), (NORTH, (0.5, -1.8), 70.0), (BOTH, (-1.8, 1.8), 310.0)],
    "projective": [(EAST, (-1.8, -0.5), 330.0), (NORTH, (-0.5, -1.8), 110.0), (BOTH, (1.8, 1.8), 230.0)],
}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_moves_by_hand(name: str) -> None:
    for (start, displacement, heading), end, turned in CASES[name]:
        position, angle = Surface(name).move(
            jnp.array([start]), jnp.deg2rad(jnp.array([heading])), jnp.array([displacement])
        )
        np.testing.assert_allclose(position[0], end, atol=1e-5, err_msg=str(start))
        np.testing.assert_allclose(np.rad2deg(angle[0]), turned, atol=1e-3, err_msg=str(start))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_there_and_back_again(name: str) -> None:
    """Turning round and taking the same way back leads to the start, whatever was crossed, with the heading turned."""
    surface, num = Surface(name), 2000
    start = jnp.asarray(RNG.uniform(-2, 2, (num, 2)), jnp.float32)
    heading = jnp.asarray(RNG.uniform(0, 2 * np.pi, num), jnp.float32)
    length = jnp.asarray(RNG.uniform(0, 7, num), jnp.float32)

    def go(position: jax.Array, heading: jax.Array) -> tuple[jax.Array, jax.Array]:
        way = length[:, None] * jnp.stack([jnp.cos(heading), jnp.sin(heading)], 1)
        return surface.move(position, heading, way)

    there, turned = go(start, heading)
    back, again = go(there, turned + np.pi)
    assert np.abs(np.asarray(there)).max() <= 2.0
    np.testing.assert_allclose(surface.distance(back, start), 0.0, atol=2e-5)
    inside = (np.abs(np.asarray(start)) < 1.999).all(1) & (np.abs(np.asarray(back - start)) < 1e-3).all(1)
    assert inside.mean() > 0.95
    np.testing.assert_allclose(np.cos(np.asarray(again - heading)[inside]), -1.0, atol=1e-6)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_once_round(name: str) -> None:
    """Across a joined edge and on over the whole square: a torus brings one home, a flip mirrored, and twice home."""
    surface = Surface(name)
    start, heading = jnp.array([[0.3, 0.7]]), jnp.array([0.4])
    for axis, edge in enumerate(surface.edges):
        once = surface.move(start, heading, SIDE * jnp.eye(2)[axis : axis + 1])
        twice = surface.move(start, heading, 2 * SIDE * jnp.eye(2)[axis : axis + 1])
        mirrored = start * jnp.where(jnp.arange(2) == axis, 1.0, -1.0)
        expected = {"wrap": start, "flip": mirrored, "reflect": start * jnp.where(jnp.arange(2) == axis, -1.0, 1.0)}
        np.testing.assert_allclose(once[0], expected[edge], atol=1e-5)
        np.testing.assert_allclose(twice[0], start, atol=1e-5)
        np.testing.assert_allclose(twice[1], heading, atol=1e-5)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_images_continue_the_square(name: str) -> None:
    """An agent that crosses an edge goes on in the image that its old place sees there: position and heading."""
    surface = Surface(name)
    for axis, edge in enumerate(surface.edges):
        if edge == "reflect":
            continue
        for side in (-1, 1):
            start = RNG.uniform(-1.5, 1.5, (50, 2))
            start[:, axis] = side * 1.9
            heading = RNG.uniform(0, 2 * np.pi, 50)
            step = 0.3 * side * np.eye(2)[axis][None].repeat(50, 0)
            position, turned = surface.move(jnp.asarray(start), jnp.asarray(heading), jnp.asarray(step))
            image = next(
                i for i in surface.images if (i.column, i.row)[axis] == side and (i.column, i.row)[1 - axis] == 0
            )
            np.testing.assert_allclose(surface.image(image, position), start + step, atol=1e-5)
            seen = np.stack([image.sign_x * np.cos(turned), image.sign_y * np.sin(turned)])
            np.testing.assert_allclose(seen, [np.cos(heading), np.sin(heading)], atol=1e-5)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_distance_is_continuous_across_seams(name: str) -> None:
    """Where an edge is crossed, distances to everybody change by no more than the way that was taken."""
    surface, small = Surface(name), 1e-3
    others = jnp.asarray(RNG.uniform(-2, 2, (200, 2)), jnp.float32)
    for axis in (0, 1):
        start = RNG.uniform(-2, 2, (60, 2))
        start[:, axis] = 2.0 - small / 2
        step = small * np.eye(2)[axis][None].repeat(60, 0)
        after, _ = surface.move(jnp.asarray(start, jnp.float32), jnp.zeros(60), jnp.asarray(step, jnp.float32))
        before = surface.distance(jnp.asarray(start, jnp.float32)[:, None], others)
        change = np.abs(np.asarray(surface.distance(after[:, None], others) - before))
        assert change.max() <= small + 1e-5


def test_number_of_images() -> None:
    assert [len(Surface(name).images) for name in TOPOLOGIES] == [9, 1, 3, 9, 9]


def test_distance_is_symmetric() -> None:
    a, b = (jnp.asarray(RNG.uniform(-2, 2, (500, 2)), jnp.float32) for _ in range(2))
    for name in TOPOLOGIES:
        surface = Surface(name)
        np.testing.assert_allclose(surface.distance(a, b), surface.distance(b, a), atol=1e-5)
    assert float(Surface("torus").distance(jnp.array([1.9, 0.0]), jnp.array([-1.9, 0.0]))) == pytest.approx(
        0.2, abs=1e-5
    )


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="'donut'; expected one of torus, box"):
        Surface("donut")
    with pytest.raises(ValueError, match="half_width > 0"):
        Surface("box", 0.0)
