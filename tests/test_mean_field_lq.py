"""The linear-quadratic swarm against its Riccati recursions (oracle O6), on all of its dynamics."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxrl_envs.mean_field.control import MeanFieldEnv, mean_field
from jaxrl_envs.mean_field.dynamics import gaussian, grid, particles
from jaxrl_envs.mean_field.features import MomentFeatures
from jaxrl_envs.mean_field.lq import LQModel, LQParams, lq_solution, riccati
from jaxrl_envs.mean_field.rules import AffineRule

GAMMA, T = 0.95, 20
# s -> (best cost of affine rules of a noisy observation, the first gain); the last row is no gain at all.
PARTIAL = {
    0.0: (6.15387440, 1.143386),
    0.25: (6.59421229, 1.018347),
    0.5: (7.27467823, 0.776710),
    1.0: (8.59586517, 0.405596),
    2.0: (10.58235294, 0.146778),
    5.0: (13.04108852, 0.027873),
}


def env_of(dynamics: Any, **changes: Any) -> MeanFieldEnv:
    return mean_field(LQModel(start=LQParams(**changes)), MomentFeatures(1), AffineRule(), dynamics)


def cost(env: MeanFieldEnv, gains: Any, offsets: Any, key: jax.Array, params: Any = None) -> jax.Array:
    """Discounted cost of T actions and the last state's, under `u = -gain y + offset`."""
    params = env.default_params if params is None else params
    xis = jnp.concatenate([jnp.stack([jnp.asarray(gains, float), jnp.asarray(offsets, float)], -1), jnp.zeros((1, 2))])

    def step(state: Any, inputs: Any) -> Any:
        xi, key, t = inputs
        state, timestep = env.step(key, state, xi, params)
        return state, -timestep.reward * GAMMA**t

    keys = jax.random.split(key, T + 2)
    return jax.lax.scan(step, env.reset(keys[0], params)[0], (xis, keys[1:], jnp.arange(T + 1)))[1].sum()


def best_open_loop(params: LQParams) -> tuple[jax.Array, jax.Array]:
    """Gains and offsets of `u = -K (x - m) - L m` along the mean that they make; for exact observations."""
    deviation, mean, _ = lq_solution(params, GAMMA, T)
    m, offsets = params.mean, []
    for k, gain in zip(deviation.gain, mean.gain, strict=True):
        offsets.append((k - gain) * m)
        m = (params.a + params.a_bar - (params.b + params.b_bar) * gain) * m
    return deviation.gain, jnp.stack(offsets)


def test_riccati_recursions() -> None:
    with jax.enable_x64(True):
        p = LQParams()
        deviation, mean, total = lq_solution(p, GAMMA, 400)
        found = [deviation.value[0], deviation.gain[0], mean.value[0], mean.gain[0]]
        np.testing.assert_allclose(found, [1.6860319007, 1.1433865011, 2.0756370668, 0.9593951113], atol=5e-11)
        np.testing.assert_allclose(total, 6.6259804051, atol=1e-8)
        np.testing.assert_allclose(lq_solution(p, GAMMA, T)[2], 6.1538743958, atol=5e-11)
        slope = (mean.value[0] - deviation.value[0]) * (0.4 + GAMMA * 0.04 / (1.0 - GAMMA))
        np.testing.assert_allclose(slope, 0.4519419927, atol=5e-11)
        last = riccati(1.0, 0.5, 1.0, 0.3, GAMMA, 1)
        np.testing.assert_allclose(last.gain, [GAMMA * 0.5 / (0.3 + GAMMA * 0.25)])


def test_gaussian_dynamics_are_exact() -> None:
    with jax.enable_x64(True):
        env = env_of(gaussian())
        gains, offsets = best_open_loop(env.default_params)
        run = jax.jit(lambda k, b: cost(env, k, b, jax.random.key(0)))
        np.testing.assert_allclose(run(gains, offsets), 6.1538743958, atol=1e-9)
        np.testing.assert_allclose(run(jnp.zeros(T), jnp.zeros(T)), 24.1599160550, atol=1e-9)
        # O10: the Riccati gains are a zero of the gradient, and the gradient is that of finite differences.
        np.testing.assert_allclose(jnp.stack(jax.grad(run, (0, 1))(gains, offsets)), 0.0, atol=1e-9)
        ones = jnp.linspace(0.2, 0.9, T)
        gradient = jax.grad(run)(ones, offsets)
        for t in (0, 7, T - 1):
            step = jnp.zeros(T).at[t].set(1e-6)
            numeric = (run(ones + step, offsets) - run(ones - step, offsets)) / 2e-6
            np.testing.assert_allclose(gradient[t], numeric, atol=1e-8)


def by_hand(gains: np.ndarray, s: float) -> float:
    """Cost with the mean's best control and these gains, from the recursion of the deviation's variance."""
    v, total = 0.4, 4.6701834003  # the mean's part
    for t, k in enumerate(gains):
        total += GAMMA**t * (v + 0.3 * k * k * (v + s * s))
        v = (1.0 - 0.5 * k) ** 2 * v + 0.25 * k * k * s * s + 0.04
    return total + GAMMA**T * v


@pytest.mark.parametrize("s", PARTIAL)
def test_the_partially_observed_table(s: float) -> None:
    """The best gains by another optimiser on a recursion of its own; they cost as much on the gaussian dynamics."""
    with jax.enable_x64(True):
        found = minimize(by_hand, np.full(T, 0.3), args=(s,), tol=1e-12)
        np.testing.assert_allclose(found.fun, PARTIAL[s][0], atol=1e-6)
        np.testing.assert_allclose(found.x[0], PARTIAL[s][1], atol=1e-4)
        env = env_of(gaussian(), obs_noise=s)
        p, mean = env.default_params, lq_solution(env.default_params, GAMMA, T)[1]
        m, offsets = p.mean, []
        for k, gain in zip(found.x, mean.gain, strict=True):
            offsets.append((k - gain) * m)
            m = (p.a + p.a_bar - (p.b + p.b_bar) * gain) * m
        np.testing.assert_allclose(cost(env, found.x, jnp.stack(offsets), jax.random.key(0)), found.fun, atol=1e-7)
    np.testing.assert_allclose(by_hand(np.zeros(T), s), 14.247718, atol=1e-6)


@pytest.mark.parametrize("num", [2, 50])
def test_few_agents_cost_c_over_n_more(num: int) -> None:
    """Agents that feed back the mean of themselves, as the exact finite-N law has it; c = 0.3491052181 for T = 20."""
    model, params = LQModel(), LQParams()
    deviation, mean, limit = lq_solution(params, GAMMA, T)

    def play(key: jax.Array) -> jax.Array:
        def step(swarm: Any, inputs: Any) -> Any:
            gain, mean_gain, key, t = inputs
            m = swarm.x.mean(0)
            action = -gain * (swarm.x - m) - mean_gain * m
            swarm, reward, _ = model.step(key, swarm, action, params)
            return swarm, -reward * GAMMA**t

        keys = jax.random.split(key, T + 2)
        none = jnp.zeros(1)
        gains = (jnp.concatenate([deviation.gain, none]), jnp.concatenate([mean.gain, none]))
        return jax.lax.scan(step, model.reset(keys[0], num, params), (*gains, keys[1:], jnp.arange(T + 1)))[1].sum()

    totals = np.asarray(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), 20_000)))
    expected = float(limit) + 0.3491052181 / num
    assert abs(totals.mean() - expected) < 4 * totals.std() / np.sqrt(2e4)
    assert num > 2 or abs(expected - 6.3284) < 1e-4


def test_agents_approach_the_gaussian() -> None:
    gains, offsets = jnp.full(T, 0.7), jnp.full(T, -0.1)
    limit = cost(env_of(gaussian(), obs_noise=0.5), gains, offsets, jax.random.key(0))
    swarm = env_of(particles(1000), obs_noise=0.5)
    totals = jax.jit(jax.vmap(lambda key: cost(swarm, gains, offsets, key)))(jax.random.split(jax.random.key(1), 200))
    assert abs(float(totals.mean() - limit)) < 4 * float(totals.std()) / np.sqrt(200) + 0.01


def test_the_grid_approaches_the_gaussian_at_second_order() -> None:
    with jax.enable_x64(True):
        gains, offsets = jnp.full(T, 0.7), jnp.full(T, -0.1)
        limit = cost(env_of(gaussian(), obs_noise=0.5), gains, offsets, jax.random.key(0))
        errors = []
        for num in (61, 121, 241):
            env = env_of(grid(-6.0, 6.0, num), obs_noise=0.5)
            errors.append(abs(float(jax.jit(lambda: cost(env, gains, offsets, jax.random.key(0)))() - limit)))  # noqa: B023
    assert errors[2] < 0.02
    assert 3.0 < errors[0] / errors[1] < 5.0
    assert 3.0 < errors[1] / errors[2] < 5.0


def test_the_grid_keeps_mass_and_is_differentiable() -> None:
    env = env_of(grid(-4.0, 4.0, 41))
    state, _ = env.reset(jax.random.key(0), env.default_params)

    def after(xi: jax.Array) -> Any:
        return env.step(jax.random.key(0), state, xi, env.default_params)

    moved, _ = after(jnp.array([0.9, 0.2]))
    np.testing.assert_allclose(moved.field.mass.sum(), 1.0, atol=1e-5)
    points = np.linspace(-4.0, 4.0, 41)
    m = float(state.field.mass @ points)
    u = -0.9 * m + 0.2
    np.testing.assert_allclose(moved.field.mass @ points, 0.9 * m + 0.6 * u, atol=1e-4)
    slope = jax.grad(lambda xi: after(xi)[0].field.mass @ points)(jnp.array([0.9, 0.2]))
    np.testing.assert_allclose(slope, [-0.6 * m, 0.6], rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: particles(0), "num_agents >= 1"),
        (lambda: grid(0.0, 0.0, 5), "low < high"),
        (lambda: grid(0.0, 1.0, 1), "num >= 2"),
        (lambda: grid((0, 0, 0), 1.0, 3), "one or two"),
        (lambda: mean_field(LQModel(), MomentFeatures(1), AffineRule(1, 2), gaussian()), "AffineRule"),
        (lambda: mean_field(LQModel()), "bounds="),
        (lambda: env_of(gaussian(), max_steps=0), "at least one step"),
        (lambda: mean_field(LQModel(), MomentFeatures(1), AffineRule(), observe_time="hours"), "one_hot"),
    ],
)
def test_mistakes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
