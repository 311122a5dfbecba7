"""Neighbourhood sums: pairs against a loop over images in NumPy, and every faster mode against the pairs."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.mean_field.neighbours import Neighbourhood, neighbour_sums, num_missing
from jaxrl_envs.mean_field.topology import TOPOLOGIES, Surface

RADIUS = 0.25
QUICK = pytest.mark.quick("torus", "klein")


def swarm(num: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-2, 2, (num, 2)), jnp.float32), jnp.asarray(rng.uniform(0, 6.28, num), jnp.float32)


def sums(hood: Neighbourhood, surface: Surface, radius: float = RADIUS) -> Callable[..., np.ndarray]:
    """With a traced radius: nothing about it is known when the program is made."""
    run = jax.jit(lambda p, t, r: neighbour_sums(hood, surface, p, t, r))
    return lambda position, heading: np.asarray(run(position, heading, radius))


def brute(surface: Surface, position: jax.Array, heading: jax.Array, radius: float = RADIUS) -> np.ndarray:
    """All images of all pairs, in float64: the nearest counts, with the heading that it shows."""
    at, theta = np.asarray(position, np.float64), np.asarray(heading, np.float64)
    length = 2 * surface.half_width
    flip_x, flip_y = (edge == "flip" for edge in surface.edges)
    best, cos, sin = np.full((len(at), len(at)), np.inf), np.zeros((len(at),) * 2), np.zeros((len(at),) * 2)
    for a in (-1, 0, 1) if surface.edges[0] != "reflect" else (0,):
        for b in (-1, 0, 1) if surface.edges[1] != "reflect" else (0,):
            sx, sy = (-1.0) ** (flip_y and b), (-1.0) ** (flip_x and a)
            seen = np.stack([sx * at[:, 0] + a * length, sy * at[:, 1] + b * length], 1)
            distance = np.linalg.norm(at[:, None] - seen, axis=-1)
            nearer = distance < best
            best = np.where(nearer, distance, best)
            cos, sin = np.where(nearer, sx * np.cos(theta), cos), np.where(nearer, sy * np.sin(theta), sin)
    near = best <= radius
    return np.stack([near.sum(1), (near * cos).sum(1), (near * sin).sum(1)], 1)


def rms(found: np.ndarray, expected: np.ndarray) -> float:
    """Of the two components of the mean direction that an agent sees, as the specification's table has it."""
    return float(np.sqrt(np.mean((found[:, 1:] / found[:, :1] - expected[:, 1:] / expected[:, :1]) ** 2)))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_exact(name: str) -> None:
    """In blocks that do not divide N, at a radius at which seams matter."""
    surface, (position, heading) = Surface(name), swarm(400)
    for radius, block in ((0.25, 512), (1.1, 90)):
        found = sums(Neighbourhood("exact", block=block), surface, radius)(position, heading)
        expected = brute(surface, position, heading, radius)
        np.testing.assert_array_equal(found[:, 0], expected[:, 0])
        np.testing.assert_allclose(found, expected, atol=2e-4)


@QUICK
@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("hood", [Neighbourhood("cells", 16, 40), Neighbourhood("hybrid", 48, 16, reach=3, block=150)])
def test_cells_are_as_exact_as_pairs(hood: Neighbourhood, name: str) -> None:
    surface, (position, heading) = Surface(name), swarm(700)
    found, expected = sums(hood, surface)(position, heading), brute(surface, position, heading)
    assert int(num_missing(hood, surface, position, RADIUS)) == 0
    np.testing.assert_array_equal(found[:, 0], expected[:, 0])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_no_agent_is_dropped_silently() -> None:
    """Oracle 12: capacity 2, with 5 agents in one cell and 3 in another, counts 3 + 1; who is missing is not seen."""
    position = jnp.array([[0.1, 0.1]] * 5 + [[1.1, 1.1]] * 3 + [[-1.9, 0.0]])
    surface = Surface("torus")
    for mode in ("cells", "hybrid"):
        hood = Neighbourhood(mode, 16, 2)
        assert int(num_missing(hood, surface, position, RADIUS)) == 4
        found = sums(Neighbourhood("cells", 16, 2), surface)(position, jnp.zeros(9))
        assert found[:, 0].tolist() == [2.0] * 8 + [1.0]
        assert int(num_missing(Neighbourhood(mode, 16, 5), surface, position, RADIUS)) == 0
        # A radius that was traced, and is larger than the cells that are looked at.
        missing = jax.jit(lambda r, h=hood: num_missing(h, surface, position, r))
        assert int(missing(0.26)) == 9
    assert int(num_missing(Neighbourhood("grid", 16), surface, position, RADIUS)) == 0


@QUICK
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_grid_converges(name: str) -> None:
    """Of 4,096 agents with independent headings, the worst case: no worse than the table, .0205 at G = 256."""
    surface, (position, heading) = Surface(name), swarm(4096)
    expected = sums(Neighbourhood("exact"), surface)(position, heading)
    table = {32: 0.0608, 64: 0.0419, 128: 0.0306, 256: 0.0205, 512: 0.0146}
    errors = {G: rms(sums(Neighbourhood("grid", G), surface)(position, heading), expected) for G in table}
    for num_cells, error in errors.items():
        assert error <= table[num_cells], (num_cells, error)
        assert error < errors.get(num_cells // 2, np.inf)
    # About the square root of the cell.
    slope = np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)[0]
    assert -0.65 < slope < -0.4


@QUICK
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_smooth_weight_converges_at_second_order(name: str) -> None:
    surface, (position, heading) = Surface(name), swarm(700)
    expected = sums(Neighbourhood("exact", smooth=True), surface)(position, heading)
    errors = [
        rms(sums(Neighbourhood("grid", G, smooth=True), surface)(position, heading), expected) for G in (64, 128, 256)
    ]
    assert errors[-1] < 1e-3
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert 3.5 < coarse / fine < 4.5


def test_smooth_weights_by_hand() -> None:
    """Two agents half a radius apart across a seam that reverses: weight exp(-1/2), heading reflected."""
    position, heading = jnp.array([[1.95, 0.5], [-1.925, -0.5]]), jnp.array([0.3, 1.0])
    found = sums(Neighbourhood("exact", smooth=True), Surface("klein"))(position, heading)
    weight = np.exp(-0.5)
    expected = [1 + weight, np.cos(0.3) + weight * np.cos(1.0), np.sin(0.3) - weight * np.sin(1.0)]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("hood", [Neighbourhood("exact"), Neighbourhood("grid", 64), Neighbourhood("cells", 16, 64)])
def test_alone_or_in_a_crowd(hood: Neighbourhood) -> None:
    """Oracle 12: nobody else in sight leaves the agent itself; everybody in one place is everybody."""
    surface = Surface("torus")
    alone = sums(hood, surface)(jnp.array([[0.0, 0.0], [1.5, -1.5]]), jnp.array([0.3, 2.0]))
    np.testing.assert_allclose(alone, [[1, np.cos(0.3), np.sin(0.3)], [1, np.cos(2.0), np.sin(2.0)]], atol=1e-5)
    crowd = sums(hood, surface)(jnp.full((50, 2), 2.0), jnp.zeros(50))
    np.testing.assert_allclose(crowd, np.tile([50.0, 50.0, 0.0], (50, 1)), atol=1e-3)


def test_everybody() -> None:
    position, heading = swarm(30)
    found = neighbour_sums(Neighbourhood("all"), Surface("box"), position, heading, jnp.inf)
    expected = [30.0, np.cos(heading).sum(), np.sin(heading).sum()]
    np.testing.assert_allclose(found, np.tile(expected, (30, 1)), atol=1e-4)


@pytest.mark.parametrize(
    "hood", [Neighbourhood("exact", block=16), Neighbourhood("cells", 16, 64), Neighbourhood("grid")]
)
def test_permutation(hood: Neighbourhood) -> None:
    """Oracle 1."""
    position, heading = swarm(100)
    order = np.random.default_rng(1).permutation(100)
    run = sums(hood, Surface("projective"))
    np.testing.assert_allclose(run(position[order], heading[order]), run(position, heading)[order], atol=1e-4)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="'nearest'; expected one of auto, exact, cells"):
        Neighbourhood("nearest")
    with pytest.raises(ValueError, match="capacity > 0"):
        Neighbourhood("cells", capacity=0)
    with pytest.raises(ValueError, match="smooth weight needs mode"):
        Neighbourhood("cells", smooth=True)
    with pytest.raises(ValueError, match="reach = 9 cells"):
        Neighbourhood("cells", 8, reach=9)
    position, heading = swarm(5)
    with pytest.raises(ValueError, match="radius > 0, got 0.0"):
        neighbour_sums(Neighbourhood(), Surface(), position, heading, 0.0)
    with pytest.raises(ValueError, match=r"radius = 0.3 is more than mode 'cells' serves, 0.25; use fewer cells"):
        neighbour_sums(Neighbourhood("cells", 16), Surface(), position, heading, 0.3)
    with pytest.raises(ValueError, match="use mode 'all'"):
        neighbour_sums(Neighbourhood("grid"), Surface(), position, heading, jnp.inf)
