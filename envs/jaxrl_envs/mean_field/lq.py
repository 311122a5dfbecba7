"""The linear-quadratic swarm: agents, the exact mean and variance of their limit, and the Riccati recursions.

`x' = A x + Abar m + B u + Bbar ubar + sigma e`, m and ubar the means of states and actions. A step costs
`Q x^2 + Qbar m^2 + R u^2 + Rbar ubar^2` in the mean over agents, the last one only its first two terms. Agents see
`y = x + s e`. Rewards are costs with the other sign; they are discounted by whoever adds them up, here by gamma.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Key
from jaxrl_envs.mean_field.model import Swarm


@struct.dataclass
class LQParams:
    """Numbers of the task; traced.

    Attributes:
      a, a_bar, b, b_bar: of the dynamics.
      q, q_bar, r, r_bar: of the cost.
      noise, obs_noise: sigma and s.
      mean, variance: of the first states.
      max_steps: of an episode, its last step, without actions' costs, included: horizon T + 1.
    """

    a: Any = 1.0
    a_bar: Any = -0.1
    b: Any = 0.5
    b_bar: Any = 0.1
    q: Any = 1.0
    q_bar: Any = 0.5
    r: Any = 0.3
    r_bar: Any = 0.1
    noise: Any = 0.2
    obs_noise: Any = 0.0
    mean: Any = 1.5
    variance: Any = 0.4
    max_steps: Any = 21


@struct.dataclass
class GaussianField:
    """Mean and variance of a Gaussian population in one dimension, and int32 steps since the start."""

    mean: jax.Array
    variance: jax.Array
    time: jax.Array


class Riccati(NamedTuple):
    """Solution of a scalar problem, backwards from the end: `value` [T + 1], value[T] = q, and `gain` [T]."""

    value: jax.Array
    gain: jax.Array


@dataclasses.dataclass(frozen=True)
class LQModel:
    """The swarm, as agents and as a Gaussian. Actions are bounded only where decision rules need it.

    Args:
      bound: of actions, in the space; the law itself takes any.
      start: the default parameters.
    """

    bound: float = 4.0
    start: LQParams = LQParams()

    @property
    def default_params(self) -> LQParams:
        """Numbers of the task."""
        return self.start

    @property
    def periodic(self) -> tuple[bool, ...]:
        """A line."""
        return (False,)

    def state_space(self, params: LQParams) -> Space:
        """The line."""
        return Box(-np.inf, np.inf, (1,))

    def observation_space(self, params: LQParams) -> Space:
        """The line."""
        return Box(-np.inf, np.inf, (1,))

    def action_space(self, params: LQParams) -> Space:
        """An interval."""
        return Box(-self.bound, self.bound, (1,))

    def reset(self, key: Key, num_agents: int, params: LQParams) -> Swarm:
        """Independent Gaussian states."""
        x = params.mean + jnp.sqrt(params.variance) * jax.random.normal(key, (num_agents, 1))
        return Swarm(x, jnp.int32(0))

    def observe(self, key: Key, swarm: Swarm, params: LQParams) -> jax.Array:
        """[N, 1]."""
        return swarm.x + params.obs_noise * jax.random.normal(key, swarm.x.shape)

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: LQParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """The next swarm, minus its mean cost, and the mean state."""
        m, u_bar = swarm.x.mean(0), action.mean(0)
        reward = -self._cost(
            swarm.time, (jnp.square(swarm.x).mean(), m[0], jnp.square(action).mean(), u_bar[0]), params
        )
        x = self._drift(swarm.x, action, m, u_bar, params) + params.noise * jax.random.normal(key, swarm.x.shape)
        return Swarm(x, swarm.time + 1, swarm.shared), reward, {"swarm/mean": m[0]}

    def first_field(self, params: LQParams) -> GaussianField:
        """The initial distribution."""
        return GaussianField(jnp.asarray(params.mean, float), jnp.asarray(params.variance, float), jnp.int32(0))

    def gaussian_step(
        self, field: GaussianField, gain: jax.Array, offset: jax.Array, params: LQParams
    ) -> tuple[GaussianField, jax.Array]:
        """One step of the limit under `u = -gain y + offset`: the next field and the reward; differentiable."""
        m, v = field.mean, field.variance
        u_bar = offset - gain * m
        u_square = jnp.square(gain) * (v + jnp.square(params.obs_noise)) + jnp.square(u_bar)
        reward = -self._cost(field.time, (v + jnp.square(m), m, u_square, u_bar), params)
        mean = self._drift(m, u_bar, m, u_bar, params)
        feedback = jnp.square(params.b * gain * params.obs_noise)
        variance = jnp.square(params.a - params.b * gain) * v + feedback + jnp.square(params.noise)
        return GaussianField(mean, variance, field.time + 1), reward

    # On points with masses, without chance: what `grid` dynamics need. Chance is replaced by quadrature, axis J.

    def field_reset(self, x: jax.Array, params: LQParams) -> jax.Array:
        """Density [P] of the first states at points [P, 1], up to a factor."""
        return jnp.exp(-0.5 * jnp.square(x[:, 0] - params.mean) / params.variance)

    def field_observe(self, x: jax.Array, mass: jax.Array, params: LQParams) -> tuple[jax.Array, jax.Array]:
        """Observations [J, P, 1] at points [P, 1], and their probabilities [J]."""
        nodes, weights = _NODES
        return x[None] + params.obs_noise * jnp.asarray(nodes)[:, None, None], jnp.asarray(weights)

    def field_step(
        self, time: jax.Array, x: jax.Array, action: jax.Array, mass: jax.Array, params: LQParams
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Images [J, K, P, 1] of points [P, 1] under actions [K, P, 1] with masses [K, P]; their shares [J]; reward."""
        nodes, weights = _NODES
        total = mass.sum(0)
        m = total @ x
        u_bar, u_square = jnp.einsum("kp,kpu->u", mass, action), jnp.sum(mass[..., None] * jnp.square(action))
        reward = -self._cost(time, (total @ jnp.square(x[:, 0]), m[0], u_square, u_bar[0]), params)
        image = self._drift(x[None], action, m, u_bar, params)
        noise = params.noise * jnp.asarray(nodes)[:, None, None, None]
        return image[None] + noise, jnp.asarray(weights), reward

    @staticmethod
    def _drift(x: jax.Array, u: jax.Array, m: jax.Array, u_bar: jax.Array, params: LQParams) -> jax.Array:
        return params.a * x + params.a_bar * m + params.b * u + params.b_bar * u_bar

    @staticmethod
    def _cost(time: jax.Array, moments: tuple[jax.Array, ...], params: LQParams) -> jax.Array:
        x_square, m, u_square, u_bar = moments
        acts = jnp.where(time + 1 < params.max_steps, 1.0, 0.0)
        action = params.r * u_square + params.r_bar * jnp.square(u_bar)
        return params.q * x_square + params.q_bar * jnp.square(m) + acts * action


def riccati(a: Any, b: Any, q: Any, r: Any, gamma: Any, num_steps: int) -> Riccati:
    """`p <- q + gamma a^2 p - (gamma a b p)^2 / (r + gamma b^2 p)` from p = q, and the gains of `u = -gain x`."""

    def back(p: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        gain = gamma * a * b * p / (r + gamma * b * b * p)
        before = q + gamma * a * a * p - gamma * a * b * p * gain
        return before, (before, gain)

    last = jnp.asarray(q, float)
    _, (values, gains) = jax.lax.scan(back, last, None, num_steps)
    return Riccati(jnp.concatenate([values[::-1], last[None]]), gains[::-1])


def lq_solution(params: LQParams, gamma: Any, num_steps: int) -> tuple[Riccati, Riccati, jax.Array]:
    """The optimum of agents that see everything: deviation from the mean, the mean itself, and the cost in the limit.

    The best action is `u = -K (x - m) - L m`, with the gains K of the first and L of the second.
    """
    deviation = riccati(params.a, params.b, params.q, params.r, gamma, num_steps)
    both = (params.a + params.a_bar, params.b + params.b_bar, params.q + params.q_bar, params.r + params.r_bar)
    mean = riccati(*both, gamma, num_steps)
    discounts = gamma ** jnp.arange(1, num_steps + 1)
    noise = jnp.sum(discounts * deviation.value[1:]) * jnp.square(params.noise)
    cost = deviation.value[0] * params.variance + mean.value[0] * jnp.square(params.mean) + noise
    return deviation, mean, cost


def _standard_normal(num: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(num)
    return nodes, weights / weights.sum()


_NODES = _standard_normal(5)
