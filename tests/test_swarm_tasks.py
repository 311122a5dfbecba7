"""Vicsek, Kuramoto and Aggregation: steps by hand, oracles 1, 2, 4 and 12, and what is the same for every task."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxrl.spaces import Discrete
from jaxrl_envs.mean_field.aggregation import Aggregation
from jaxrl_envs.mean_field.beach import Beach
from jaxrl_envs.mean_field.foraging import Foraging
from jaxrl_envs.mean_field.kuramoto import Kuramoto
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.neighbours import Neighbourhood
from jaxrl_envs.mean_field.potential import Potential
from jaxrl_envs.mean_field.topology import Surface
from jaxrl_envs.mean_field.tracking import Formation, TwoGaussians
from jaxrl_envs.mean_field.vicsek import Vicsek

KEY = jax.random.key(0)
QUICK = pytest.mark.quick(
    "aggregation_1d", "vicsek_mf", "vicsek_klein", "kuramoto_normal", "kuramoto_sine", "formation", "beach", "foraging"
)
MODELS: dict[str, Any] = {
    "aggregation": Aggregation(),
    "aggregation_1d": Aggregation(1, reward="pairs"),
    "aggregation_3d": Aggregation(3),
    "vicsek": Vicsek(),
    "vicsek_mf": Vicsek(normalise="mf", hood=Neighbourhood("cells", 16, 32)),
    "vicsek_grid": Vicsek(hood=Neighbourhood("grid", 32), pairs="bins"),
    "vicsek_klein": Vicsek(Surface("klein"), informed=True),
    "vicsek_obstacle": Vicsek(Surface("box"), obstacle=True),
    "kuramoto": Kuramoto(),
    "two_gaussians": TwoGaussians(num_users=20, num_iterations=30),
    "formation": Formation(num_users=30, num_iterations=30),
    "formation_1d": Formation(1),
    "potential": Potential(),
    "potential_2d": Potential(2),
    "beach": Beach(),
    "foraging": Foraging(),
    "kuramoto_normal": Kuramoto(frequencies="normal"),
    "kuramoto_sine": Kuramoto(hood=Neighbourhood("all"), frequencies="lorentz", sine=True),
}

step = jax.jit(lambda model, *given: model.step(*given), static_argnums=0)
observe = jax.jit(lambda model, *given: model.observe(*given), static_argnums=0)
reset = jax.jit(lambda model, *given: model.reset(*given), static_argnums=(0, 2))


def uniform_action(model: Any, num: int) -> jax.Array:
    space = model.action_space(model.default_params)
    if isinstance(space, Discrete):
        return jax.random.randint(KEY, (num,), 0, space.n)
    return jax.random.uniform(KEY, (num, *space.shape), minval=-1.2, maxval=1.2)


def quiet(params: Any) -> Any:
    return params.replace(**{name: 0.0 for name in ("noise", "sensor_noise") if hasattr(params, name)})


@QUICK
@pytest.mark.parametrize("name", MODELS)
def test_every_task(name: str) -> None:
    """Shapes, spaces, bounds, the clock; a smaller swarm has the first agents of a larger one, and their noise."""
    model, num = MODELS[name], 40
    params = model.default_params

    @jax.jit
    def play(swarm: Swarm) -> Any:
        obs = observe(model, KEY, swarm, params)
        return obs, step(model, KEY, swarm, uniform_action(model, swarm.x.shape[0]), params)

    swarm = reset(model, KEY, num, params)
    seen, place = model.observation_space(params), model.state_space(params)
    for time in range(3):
        assert int(swarm.time) == time
        obs, (swarm, reward, info) = play(swarm)
        assert obs.shape == (num, *seen.shape)
        assert swarm.x.shape == (num, *place.shape)
        assert bool(jax.vmap(seen.contains)(obs).all())
        assert bool(jax.vmap(place.contains)(swarm.x).all())
        assert reward.shape == ()
        assert all(value.shape == () for value in info.values())
    assert len(model.periodic) == sum(place.shape)
    large, small = reset(model, KEY, 60, params), reset(model, KEY, 40, params)
    np.testing.assert_array_equal(large.x[:40], small.x)
    if name != "kuramoto_sine":  # there the others matter for the move, too
        # Compiled for another size, a sine may differ in its last bit.
        moved = [step(model, KEY, s, uniform_action(model, 60)[: s.x.shape[0]], params)[0].x
                 for s in (large, small)]  # fmt: skip
        np.testing.assert_allclose(moved[0][:40], moved[1], atol=1e-5)
    with pytest.raises(ValueError, match="num_agents >= 1"):
        model.reset(KEY, 0, params)


@QUICK
@pytest.mark.parametrize("name", MODELS)
def test_permutation(name: str) -> None:
    """Oracle 1: agents in another order, without noise, lead to the same in that order, and to the same reward."""
    model, num = MODELS[name], 50
    params = quiet(model.default_params)
    swarm, action = reset(model, KEY, num, params), uniform_action(model, num)
    order = np.random.default_rng(0).permutation(num)

    @jax.jit
    def play(swarm: Swarm, action: jax.Array) -> Any:
        return observe(model, KEY, swarm, params), *step(model, KEY, swarm, action, params)[:2]

    obs, after, reward = play(swarm, action)
    obs_too, after_too, reward_too = play(swarm.replace(x=swarm.x[order]), action[order])
    np.testing.assert_allclose(reward_too, reward, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(obs_too, obs[order], atol=3e-6)
    np.testing.assert_allclose(after_too.x, after.x[order], atol=3e-6)


@pytest.mark.quick("vicsek_grid", "kuramoto_normal")
@pytest.mark.parametrize("name", MODELS)
def test_agents_over_two_devices(name: str) -> None:
    """Oracle 12: agents sharded over an axis of a mesh, with noise, against one device."""
    model, num = MODELS[name], 64
    params = model.default_params
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("agents",), axis_types=(AxisType.Auto,))

    @jax.jit
    def play(swarm: Swarm, action: jax.Array) -> Any:
        obs = observe(model, jax.random.key(1), swarm, params)
        return obs, *step(model, jax.random.key(2), swarm, action, params)

    swarm, action = reset(model, KEY, num, params), uniform_action(model, num)
    over = NamedSharding(mesh, PartitionSpec("agents"))
    split = (swarm.replace(x=jax.device_put(swarm.x, over)), jax.device_put(action, over))
    assert len(split[0].x.sharding.device_set) == 2
    one, two = play(swarm, action), play(*split)
    assert len(two[1].x.sharding.device_set) == 2
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_large_swarms_stay_where_they_are() -> None:
    """On two devices no agent travels: what is exchanged are counts and sums, and each sees what it sees on one."""
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    model, num = Vicsek(hood=Neighbourhood("grid", 64)), 40_000
    params = model.default_params
    swarm = reset(model, KEY, num, params)
    mesh = jax.make_mesh((2,), ("agents",), axis_types=(AxisType.Auto,))
    split = swarm.replace(x=jax.device_put(swarm.x, NamedSharding(mesh, PartitionSpec("agents"))))

    def play(swarm: Swarm) -> Any:
        obs = model.observe(KEY, swarm, params)
        return obs, *model.step(KEY, swarm, obs[:, :1], params)

    compiled = jax.jit(play).lower(split).compile()
    text = compiled.as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text
    assert "all-to-all" not in text
    for a, b in zip(jax.tree.leaves(jax.jit(play)(swarm)), jax.tree.leaves(compiled(split)), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_vicsek_by_hand() -> None:
    """Three agents, two in sight of each other across the seam; no noise."""
    x = jnp.array([[1.95, 0.0, 0.0], [-1.95, 0.0, np.pi / 2], [0.0, 0.0, np.pi]])
    model, swarm = Vicsek(), Swarm(x, jnp.int32(0))
    params = quiet(model.default_params).replace(action_cost=0.3)
    obs = observe(model, KEY, swarm, params)
    np.testing.assert_allclose(obs, [[0.5, 0.5], [-0.5, 0.5], [0.0, 1.0]], atol=1e-6)
    after, reward, info = step(model, KEY, swarm, jnp.array([[0.5], [-2.0], [0.0]]), params)
    np.testing.assert_allclose(reward, -4 * np.pi / 9 - 0.3 * 0.5, atol=1e-5)
    np.testing.assert_allclose(info["polarisation"], 1 / 3, atol=1e-6)
    headings = np.array([0.1, np.pi / 2 - 0.2, np.pi])
    np.testing.assert_allclose(after.x[:, 2], headings, atol=1e-6)
    places = np.asarray(x[:, :2]) + 0.075 * np.stack([np.cos(headings), np.sin(headings)], 1)
    places[0, 0] -= 4.0
    np.testing.assert_allclose(after.x[:, :2], places, atol=1e-5)
    of_all = observe(dataclasses.replace(model, normalise="mf"), KEY, swarm, params)
    np.testing.assert_allclose(of_all, [[1 / 3, 1 / 3], [-1 / 3, 1 / 3], [0.0, 1 / 3]], atol=1e-6)


def test_reflected_headings_are_seen_and_raw_ones_are_paid() -> None:
    """On a Klein bottle the neighbour across the seam is seen mirrored; the reward compares what the state says."""
    x = jnp.array([[1.95, 0.5, 0.7], [-1.95, -0.5, -0.7]])
    model, params = Vicsek(Surface("klein")), Vicsek().default_params
    np.testing.assert_allclose(observe(model, KEY, Swarm(x, jnp.int32(0)), params), [[0.0, 1.0]] * 2, atol=1e-6)
    reward = step(model, KEY, Swarm(x, jnp.int32(0)), jnp.zeros((2, 1)), params)[1]
    np.testing.assert_allclose(reward, -1.4 / 2, atol=1e-5)


def test_aligned_and_opposite_swarms() -> None:
    """Oracle 2."""
    model = Vicsek()
    params = model.default_params
    for headings, polarisation, reward in ((jnp.full(8, 3.0), 1.0, 0.0), (jnp.arange(8) % 2 * np.pi, 0.0, -np.pi / 2)):
        x = jnp.concatenate([jnp.zeros((8, 2)), headings[:, None]], 1)
        _, paid, info = step(model, KEY, Swarm(x, jnp.int32(0)), jnp.zeros((8, 1)), params)
        np.testing.assert_allclose([paid, info["polarisation"]], [reward, polarisation], atol=1e-5)


def test_informed_agents() -> None:
    model = Vicsek(informed=True)
    params = model.default_params.replace(goal=1.0, goal_weight=0.25)
    x = jnp.array([[0.0, 0.0, 0.4, 1.0], [1.0, 1.0, 1.4, 0.0]])
    obs = observe(model, KEY, Swarm(x, jnp.int32(0)), params)
    np.testing.assert_allclose(obs, [[0, 1, np.sin(0.6), np.cos(0.6)], [0, 1, 0, 0]], atol=1e-6)
    after, reward, _ = step(model, KEY, Swarm(x, jnp.int32(0)), jnp.zeros((2, 1)), params)
    np.testing.assert_allclose(reward, -0.75 * 0.5 - 0.25 * 0.5, atol=1e-5)
    np.testing.assert_array_equal(after.x[:, 3], x[:, 3])
    share = reset(model, KEY, 20_000, params).x[:, 3].mean()
    np.testing.assert_allclose(share, 0.1, atol=0.01)


def test_nobody_enters_the_obstacle() -> None:
    model = Vicsek(Surface("torus"), obstacle=True)
    params = model.default_params.replace(obstacle_radius=0.8, noise=0.2)
    swarm = reset(model, KEY, 500, params)

    def body(swarm: Swarm, key: jax.Array) -> Any:
        swarm = step(model, key, swarm, jnp.zeros((500, 1)), params)[0]
        return swarm, jnp.linalg.norm(swarm.x[:, :2], axis=1).min()

    assert float(jnp.linalg.norm(swarm.x[:, :2], axis=1).min()) >= 0.8 - 1e-6
    assert float(jax.lax.scan(body, swarm, jax.random.split(KEY, 60))[1].min()) >= 0.8 - 1e-6
    # Straight at it: thrown back the way it came.
    x = jnp.array([[-0.85, 0.0, 0.0]])
    after = step(model, KEY, Swarm(x, jnp.int32(0)), jnp.zeros((1, 1)), params.replace(noise=0.0))[0]
    np.testing.assert_allclose(after.x[0], [-0.825, 0.0, np.pi], atol=1e-5)


def test_aggregation_by_hand() -> None:
    x = jnp.array([[0.0, 0.0], [2.0, 1.0], [1.0, 2.0]])
    u = jnp.array([[1.0, -1.0], [0.5, 0.0], [0.0, 3.0]])
    model, swarm = Aggregation(), Swarm(x, jnp.int32(0))
    params = quiet(model.default_params)
    after, reward, info = step(model, KEY, swarm, u, params)
    np.testing.assert_allclose(info["spread"], (2 + 1 + 1) / 3, atol=1e-6)
    np.testing.assert_allclose(reward, -4 / 3 - 0.1 * 3.5 / 6, atol=1e-6)
    np.testing.assert_allclose(after.x, [[0.2 / 2**0.5, -0.2 / 2**0.5], [2.0, 1.0], [1.0, 2.0]], atol=1e-6)
    np.testing.assert_array_equal(observe(model, KEY, swarm, params), x)
    pairs = step(dataclasses.replace(model, reward="pairs"), KEY, swarm, 0 * u, params)[1]
    np.testing.assert_allclose(pairs, -np.abs(np.asarray(x)[:, None] - np.asarray(x)).sum(-1).mean(), atol=1e-6)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_aggregation_starts_around_the_corners(dimension: int) -> None:
    model = Aggregation(dimension)
    x = np.asarray(reset(model, KEY, 20_000, model.default_params).x)
    corner = np.sign(x)
    shares = np.unique(corner, axis=0, return_counts=True)[1] / len(x)
    assert shares.shape == (2**dimension,)
    np.testing.assert_allclose(shares, 2.0**-dimension, atol=0.015)
    np.testing.assert_allclose((np.abs(x) - 1).std(0), 0.3, atol=0.01)


def test_bad_input() -> None:
    params = Vicsek().default_params
    for model in (Vicsek(), Kuramoto()):
        with pytest.raises(ValueError, match="radius > 0, got -1"):
            model.reset(KEY, 3, model.default_params.replace(radius=-1.0))
    with pytest.raises(ValueError, match="normalise = 'sum'"):
        Vicsek(normalise="sum")
    with pytest.raises(ValueError, match="pairs = 'fourier'"):
        Kuramoto(pairs="fourier")
    with pytest.raises(ValueError, match="frequencies = 'cauchy'; expected one of none, normal, lorentz"):
        Kuramoto(frequencies="cauchy")
    with pytest.raises(ValueError, match="dimension 1, 2 or 3, got 4"):
        Aggregation(4)
    with pytest.raises(ValueError, match="num_agents >= 1, an integer, got 2.5"):
        Vicsek().reset(KEY, 2.5, params)  # type: ignore[arg-type]
