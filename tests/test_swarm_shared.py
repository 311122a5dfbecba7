"""Swarms that share a changing world: transport costs against exact ones, steps by hand, who leads and who follows."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxrl_envs.mean_field.beach import Beach, BeachShared
from jaxrl_envs.mean_field.foraging import Foraging, Patches
from jaxrl_envs.mean_field.led import Led
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.potential import Potential
from jaxrl_envs.mean_field.tracking import Formation, TwoGaussians
from jaxrl_envs.mean_field.transport import transport_1d, transport_sinkhorn

KEY, NOW = jax.random.key(0), jnp.int32(0)
RNG = np.random.default_rng(0)

step = jax.jit(lambda model, *given: model.step(*given), static_argnums=0)
observe = jax.jit(lambda model, *given: model.observe(*given), static_argnums=0)
reset = jax.jit(lambda model, *given: model.reset(*given), static_argnums=(0, 2))


def exact_transport(x: np.ndarray, y: np.ndarray) -> float:
    """Each point as many times as makes both clouds of one size, then the best assignment."""
    size = np.lcm(len(x), len(y))
    x, y = np.repeat(x, size // len(x), axis=0), np.repeat(y, size // len(y), axis=0)
    cost = ((x[:, None] - y) ** 2).sum(-1)
    return float(cost[linear_sum_assignment(cost)].mean())


@pytest.mark.parametrize(("num_x", "num_y"), [(12, 12), (10, 15), (1, 7), (9, 4)])
def test_transport_in_one_dimension_is_exact(num_x: int, num_y: int) -> None:
    x, y = RNG.normal(size=num_x), RNG.normal(1.0, 2.0, num_y)
    expected = exact_transport(x[:, None], y[:, None])
    np.testing.assert_allclose(transport_1d(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-5)


@pytest.mark.thorough
def test_sinkhorn_is_an_upper_bound_that_tightens() -> None:
    solve = jax.jit(transport_sinkhorn, static_argnums=3)
    for num_x, num_y in ((30, 30), (20, 30)):
        x, y = RNG.uniform(-2, 2, (num_x, 2)), RNG.normal(0.5, 0.3, (num_y, 2))
        expected = exact_transport(x, y)
        found = [float(solve(jnp.asarray(x), jnp.asarray(y), e, n)) for e, n in ((0.3, 30), (0.03, 400))]
        assert expected * (1 - 1e-4) <= found[1] <= expected * 1.02
        assert found[1] <= found[0] <= expected * 1.15
    # One point, or all points in one place: nothing to choose.
    far = jnp.array([[1.0, 2.0]])
    np.testing.assert_allclose(transport_sinkhorn(far, jnp.zeros((5, 2))), 5.0, rtol=1e-4)
    np.testing.assert_allclose(transport_sinkhorn(jnp.zeros((3, 2)), jnp.zeros((5, 2))), 0.0, atol=1e-6)
    gradient = jax.grad(lambda x: transport_sinkhorn(x, jnp.zeros((5, 2))))(far)
    np.testing.assert_allclose(gradient, 2 * far, rtol=1e-3)


def test_two_gaussians() -> None:
    """100, 53 and 0 users on the left at the start, after 12 steps and after half a cycle of 50."""
    model = TwoGaussians(1)
    params = model.default_params
    swarm = reset(model, KEY, 60, params)
    for time, left in ((0, 100), (12, 53), (25, 0), (50, 100)):
        users = model._users(KEY, jnp.int32(time), params)
        assert int((users < 0).sum()) == left  # 4.5 standard deviations keep the crowds apart
        np.testing.assert_allclose(np.abs(users).mean(), 1.0, atol=0.08)
    _, reward, info = step(model, KEY, swarm, jnp.zeros((60, 1)), params)
    expected = exact_transport(np.asarray(swarm.x), np.asarray(swarm.shared))
    np.testing.assert_allclose([-reward, info["transport"]], expected, rtol=1e-5)
    still = step(model, KEY, swarm, jnp.full((60, 1), 0.5), params.replace(noise=0.0))[0]
    np.testing.assert_allclose(still.x, np.clip(np.asarray(swarm.x) + 0.1, -2, 2), atol=1e-6)
    later = swarm.replace(time=jnp.int32(12))
    angle = 0.48 * np.pi
    np.testing.assert_allclose(model.shared_features(later, params), [np.cos(angle), np.sin(angle)], atol=1e-6)


def test_formation_follows_votes() -> None:
    """Moves are of at most 1, votes are averaged first: opposite votes leave the leader where it is."""
    model = Formation(1, num_users=4)
    params = model.default_params
    shared = Led(jnp.array([1.0]), jnp.array([-0.5]), jnp.array([[0.0], [0.0], [1.0], [1.0]]))
    swarm = Swarm(jnp.array([[0.5], [0.5]]), NOW, shared)
    after, reward, info = step(model, KEY, swarm, jnp.array([[1.0, 0.8], [-0.5, 0.2]]), params)
    np.testing.assert_allclose([info["transport"], info["distance"]], [0.25, 1.5], rtol=1e-5)
    np.testing.assert_allclose(reward, -1.75, rtol=1e-5)
    np.testing.assert_allclose(after.x[:, 0], [0.7, 0.4], atol=1e-6)
    np.testing.assert_allclose(after.shared.leader, [1.1], atol=1e-6)
    stays, *_ = step(model, KEY, swarm, jnp.array([[0.0, 1.0], [0.0, -1.0]]), params)
    np.testing.assert_allclose(stays.shared.leader, [1.0], atol=1e-6)
    np.testing.assert_allclose(model.shared_features(swarm, params), [0.5, -0.25])


@pytest.mark.parametrize(("model", "decay", "variance"), [(Formation(), 0.95, 0.02), (Potential(), 0.99, 0.005)])
def test_targets_are_autoregressive(model: Any, decay: float, variance: float) -> None:
    params = model.default_params
    swarm = reset(model, KEY, 1, params)
    place = jnp.full(model.dimension, 0.8)
    swarm = swarm.replace(shared=swarm.shared.replace(target=place))
    action = jnp.zeros((1, *model.action_space(params).shape))
    many = jax.jit(jax.vmap(lambda key: step(model, key, swarm, action, params)[0].shared.target))
    targets = np.asarray(many(jax.random.split(KEY, 4000)))
    np.testing.assert_allclose(targets.mean(0), 0.8 * decay, atol=4 * np.sqrt(variance / 4000))
    np.testing.assert_allclose(targets.var(0), variance, rtol=0.12)


def test_potential_by_hand() -> None:
    """Agents 0.5 left, 0.2 right across the seam and 1.5 away of a leader at 1.9 push by 0.1 (0.5 - 0.8 + 0) / 3."""
    model = Potential()
    params = model.default_params
    swarm = Swarm(jnp.array([[1.4], [-1.9], [0.4]]), NOW, Led(jnp.array([1.9]), jnp.array([0.9])))
    after, reward, _ = step(model, KEY, swarm, jnp.array([[0.0], [-1.0], [2.0]]), params)
    np.testing.assert_allclose(reward, -1.0, rtol=1e-5)
    np.testing.assert_allclose(after.shared.leader, [1.9 - 0.01], atol=1e-5)
    np.testing.assert_allclose(after.x[:, 0], [1.4, 1.9, 0.6], atol=1e-5)


def test_beach_by_hand() -> None:
    """A torus of 25 cells: bar at (0, 0), target at (2, 4), agents in cells (0, 0), (0, 0), (4, 1), (2, 2)."""
    model = Beach()
    params = model.default_params.replace(p_move=0.0)
    shared = BeachShared(jnp.array([0, 0]), jnp.array([2, 4]))
    swarm = Swarm(jnp.array([0, 0, 21, 12]), NOW, shared)
    action = jnp.array([0, 1, 2, 4]) * 5 + 3  # stay, back and forth along the first axis, forth along the second
    after, reward, info = step(model, KEY, swarm, action, params)
    distance, crowding = (0 + 0 + 2 + 4) / 4, 25 * (0.5**2 + 2 * 0.25**2)
    np.testing.assert_allclose([info["distance"], info["crowding"]], [distance, crowding], rtol=1e-6)
    np.testing.assert_allclose(reward, -distance - 0.3 * 3 - 0.06 * crowding, rtol=1e-6)
    assert after.x.tolist() == [0, 20, 1, 13]
    assert after.shared.bar.tolist() == [0, 4]  # all vote for back along the second axis
    assert after.shared.target.tolist() == [2, 4]
    features = model.shared_features(swarm, params)
    assert np.flatnonzero(features).tolist() == [0, 25 + 14]


def test_the_bar_takes_a_vote_in_proportion() -> None:
    """Three of four vote for forth along the first axis, one for staying; targets drift in a fifth of the steps."""
    model = Beach()
    params = model.default_params
    swarm = Swarm(jnp.zeros(4, jnp.int32), NOW, BeachShared(jnp.array([2, 2]), jnp.array([2, 2])))
    many = jax.jit(jax.vmap(lambda key: step(model, key, swarm, jnp.array([2, 2, 0, 2]), params)[0].shared))
    shared = many(jax.random.split(KEY, 4000))
    moved = (np.asarray(shared.bar) == [3, 2]).all(1)
    stayed = (np.asarray(shared.bar) == [2, 2]).all(1)
    assert (moved | stayed).all()
    np.testing.assert_allclose(moved.mean(), 0.75, atol=0.03)
    drifted = (np.asarray(shared.target) != [2, 2]).any(1)
    np.testing.assert_allclose(drifted.mean(), 0.2 * 4 / 5, atol=0.025)


def test_foraging_by_hand() -> None:
    """Two agents at a patch, one of them nearly full; a third, loaded, at the truck."""
    model = Foraging(2)
    params = model.default_params.replace(arrivals=0.0)
    x = jnp.array([[0.0, 0.0, 0.0], [0.25, 0.0, 0.95], [1.0, -1.5, 0.6]])
    shared = Patches(jnp.array([1.0, -1.5]), jnp.array([[0.0, 0.0], [1.9, 1.9]]), jnp.array([0.05, 0.0]))
    action = jnp.array([[1.0, 0.0, 0.0, 1.0]] * 3)
    after, reward, info = step(model, KEY, Swarm(x, NOW, shared), action, params)
    # Weights 1, 1/2, 0: the patch's 0.05 per agent are 0.1 and 0.05 of load; what the second cannot hold is none.
    np.testing.assert_allclose(info["collected"], (0.1 + 0.05) / 3, atol=1e-6)
    np.testing.assert_allclose(info["unloaded"], 0.6 / 3, atol=1e-6)
    np.testing.assert_allclose(reward, 100 * 0.25, rtol=1e-5)
    np.testing.assert_allclose(after.x, [[0.3, 0.0, 0.1], [0.55, 0.0, 1.0], [1.3, -1.5, 0.0]], atol=1e-6)
    np.testing.assert_allclose(after.shared.truck, [1.0, -1.4], atol=1e-6)
    np.testing.assert_allclose(after.shared.amount, [0.0, 0.0], atol=1e-7)
    # A rich patch gives a tenth per step, and the overflow is lost.
    rich = dataclasses.replace(shared, amount=jnp.array([1.2, 0.0]))
    after, _, info = step(model, KEY, Swarm(x, NOW, rich), action, params)
    np.testing.assert_allclose(after.x[:, 2], [0.2, 1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(info["collected"], (0.2 + 0.05) / 3, atol=1e-6)
    np.testing.assert_allclose(after.shared.amount, [1.1, 0.0], atol=1e-6)


def test_patches_arrive_and_the_truck_stays_below() -> None:
    model = Foraging()
    params = model.default_params.replace(arrivals=0.7)
    swarm = reset(model, KEY, 1, params)
    many = jax.jit(jax.vmap(lambda key: step(model, key, swarm, jnp.array([[0.0, 0.0, 0.0, 1.0]]), params)[0].shared))
    shared = many(jax.random.split(KEY, 6000))
    num = (np.asarray(shared.amount) > 0).sum(1)
    np.testing.assert_allclose(num.mean(), 0.7, atol=0.04)
    np.testing.assert_allclose((num == 0).mean(), np.exp(-0.7), atol=0.025)
    held = np.asarray(shared.amount)[np.asarray(shared.amount) > 0]
    assert held.min() >= 0.5
    assert held.max() <= 1.5
    assert float(shared.truck[:, 1].max()) <= -1.0
    full = dataclasses.replace(swarm.shared, amount=jnp.full(5, 0.7))
    rain = params.replace(arrivals=50.0)
    after = step(model, KEY, swarm.replace(shared=full), jnp.zeros((1, 4)), rain)[0]
    assert int((after.shared.amount > 0).sum()) == 5


def test_bad_input() -> None:
    for make in (TwoGaussians, Formation, Potential):
        with pytest.raises(ValueError, match="dimension 1 or 2, got 3"):
            make(3)
    with pytest.raises(ValueError, match="num_users > 0, got 0"):
        TwoGaussians(num_users=0)
    with pytest.raises(ValueError, match="side >= 2"):
        Beach(1)
    with pytest.raises(ValueError, match="num_patches > 0"):
        Foraging(0)
