"""Probe environments: small enough that every value is known exactly, each isolating one thing that can be wrong.

In order of what an agent must get right: a constant value, the observation, the discount, the action, both at once,
truncation against termination, continuous actions, memory. An agent that fails a probe and passes those before it has
its fault between the two. Rewards scale with the traced `params.reward`, here written r; gamma is the agent's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Key, Timestep


@struct.dataclass
class ProbeParams:
    """Numbers of a probe; traced.

    Attributes:
      reward: r, the unit of its rewards.
      num_steps: k, where the probe has a length.
      target: the best action of the continuous probe.
    """

    reward: float | jax.Array = 1.0
    num_steps: int | jax.Array = 5
    target: float | jax.Array = 0.5


@struct.dataclass
class ProbeState:
    """Steps since the reset (int32 scalar), and the sign (float32, -1 or 1) that some probes draw at the reset."""

    time: jax.Array
    sign: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """An environment made of three functions of its state; the constructors below say which.

    Args:
      name: for error messages.
      params: the default parameters.
      obs_space, single_action_space: its spaces.
      observe: (state, params) -> obs.
      answer: (state before the step, action, params) -> (reward, terminated, truncated).
      optimal_value: (obs, gamma, params) -> V(obs) under the best policy; any policy where actions do not matter.
    """

    name: str
    params: ProbeParams
    obs_space: Space
    single_action_space: Space
    observe: Callable[[ProbeState, ProbeParams], jax.Array]
    answer: Callable[[ProbeState, jax.Array, ProbeParams], tuple[Any, Any, Any]]
    optimal_value: Callable[[jax.Array, Any, ProbeParams], jax.Array]

    def __repr__(self) -> str:
        return f"Probe({self.name})"

    @property
    def default_params(self) -> ProbeParams:
        """Parameters under which the documented values hold with r = 1."""
        return self.params

    def reset(self, key: Key, params: ProbeParams) -> tuple[ProbeState, jax.Array]:
        """A first state and its observation."""
        state = ProbeState(jnp.int32(0), jax.random.rademacher(key, (), jnp.float32))
        return state, self.observe(state, params)

    def step(self, key: Key, state: ProbeState, action: jax.Array, params: ProbeParams) -> tuple[ProbeState, Timestep]:
        """The next state, and what the agent sees of it; nothing is random but the reset."""
        del key
        reward, terminated, truncated = self.answer(state, action, params)
        state = dataclasses.replace(state, time=state.time + 1)
        obs = self.observe(state, params)
        reward, ends = jnp.asarray(reward, jnp.float32), (jnp.asarray(terminated), jnp.asarray(truncated))
        return state, Timestep(obs, reward, *ends, final_obs=obs, info={})

    def observation_space(self, params: ProbeParams) -> Space:
        """Space of `obs`; static."""
        del params
        return self.obs_space

    def action_space(self, params: ProbeParams) -> Space:
        """Space of `action`; static."""
        del params
        return self.single_action_space

    def value(self, obs: jax.Array, gamma: float | jax.Array, params: ProbeParams) -> jax.Array:
        """The exact value of an observation.

        Args:
          obs: one observation, float32 of the observation space's shape.
          gamma: discount in [0, 1).
          params: the parameters that the probe ran with.
        Returns:
          Scalar, V(obs) under the best policy; where actions do not matter, under any.
        """
        return self.optimal_value(obs, gamma, params)


_UNIT = Box(0.0, 1.0, (1,))
_SIGN = Box(-1.0, 1.0, (1,))
_BINARY = Discrete(2)


def _nothing(state: ProbeState, params: ProbeParams) -> jax.Array:
    del state, params
    return jnp.zeros(1)


def _sign(state: ProbeState, params: ProbeParams) -> jax.Array:
    del params
    return state.sign[None]


def _time(state: ProbeState, params: ProbeParams) -> jax.Array:
    return (state.time / params.num_steps)[None]


def _match(action: jax.Array, sign: jax.Array) -> jax.Array:
    """+1 where action 1 meets a positive sign or action 0 a negative one, else -1."""
    return jnp.where((action == 1) == (sign > 0), 1.0, -1.0)


def constant_probe() -> Probe:
    """One step, reward r, termination. V = r. Wrong: the value head or its target."""
    return Probe(
        "probe_constant",
        ProbeParams(),
        _UNIT,
        _BINARY,
        _nothing,
        answer=lambda state, action, params: (params.reward, True, False),
        optimal_value=lambda obs, gamma, params: jnp.float32(params.reward),
    )


def observation_probe() -> Probe:
    """One step; obs is -1 or 1, the reward r·obs. V(obs) = r·obs. Wrong: the path from observation to value."""
    return Probe(
        "probe_observation",
        ProbeParams(),
        _SIGN,
        _BINARY,
        _sign,
        answer=lambda state, action, params: (params.reward * state.sign, True, False),
        optimal_value=lambda obs, gamma, params: params.reward * obs[0],
    )


def discount_probe() -> Probe:
    """Two steps, obs 0 then 1, reward r at the end. V(0) = gamma·r, V(1) = r. Wrong: discounting or bootstrapping."""
    return Probe(
        "probe_discount",
        ProbeParams(num_steps=2),
        _UNIT,
        _BINARY,
        observe=lambda state, params: jnp.minimum(state.time, 1).astype(jnp.float32)[None],
        answer=lambda state, action, params: (params.reward * state.time, state.time >= 1, False),
        optimal_value=lambda obs, gamma, params: params.reward * jnp.where(obs[0] > 0.5, 1.0, gamma),
    )


def action_probe() -> Probe:
    """One step; action 1 earns r, action 0 loses it. V = r, at the best policy. Wrong: the policy's gradient."""
    return Probe(
        "probe_action",
        ProbeParams(),
        _UNIT,
        _BINARY,
        _nothing,
        answer=lambda state, action, params: (params.reward * _match(action, jnp.float32(1)), True, False),
        optimal_value=lambda obs, gamma, params: jnp.float32(params.reward),
    )


def contextual_probe() -> Probe:
    """One step; obs is -1 or 1; action 1 is right at 1, action 0 at -1: r if right, -r if not.

    V = r at the best policy, 0 at a uniform one. Wrong: advantages paired with the wrong observation or action.
    """
    return Probe(
        "probe_contextual",
        ProbeParams(),
        _SIGN,
        _BINARY,
        _sign,
        answer=lambda state, action, params: (params.reward * _match(action, state.sign), True, False),
        optimal_value=lambda obs, gamma, params: jnp.float32(params.reward),
    )


def truncation_probe() -> Probe:
    """Reward r at every step, truncated after k = `num_steps`, never terminated; obs is always 0.

    V = r / (1 - gamma) everywhere. Wrong: truncation taken for termination, or a bootstrap from the next episode.
    """
    return Probe(
        "probe_truncation",
        ProbeParams(),
        _UNIT,
        _BINARY,
        _nothing,
        answer=lambda state, action, params: (params.reward, False, state.time + 1 >= params.num_steps),
        optimal_value=lambda obs, gamma, params: jnp.float32(params.reward / (1 - gamma)),
    )


def termination_probe() -> Probe:
    """Reward r at every step, terminated after k = `num_steps`; obs is t/k, t = 0 … k-1.

    V(t) = r·(1 - gamma^(k-t)) / (1 - gamma). Wrong: termination taken for truncation.
    """

    def value(obs: jax.Array, gamma: Any, params: ProbeParams) -> jax.Array:
        steps_left = params.num_steps - jnp.round(obs[0] * params.num_steps)
        return params.reward * (1 - gamma**steps_left) / (1 - gamma)

    return Probe(
        "probe_termination",
        ProbeParams(),
        _UNIT,
        _BINARY,
        _time,
        answer=lambda state, action, params: (params.reward, state.time + 1 >= params.num_steps, False),
        optimal_value=value,
    )


def continuous_probe() -> Probe:
    """One step, one action a in [-1, 1], reward -r·(a - target)²; target = 0.5. V = 0 at the best policy, a = target.

    Wrong: the continuous policy's gradient, its squashing or its log-probability.
    """
    return Probe(
        "probe_continuous",
        ProbeParams(),
        _UNIT,
        Box(-1.0, 1.0, (1,)),
        _nothing,
        answer=lambda state, action, params: (-params.reward * (action[0] - params.target) ** 2, True, False),
        optimal_value=lambda obs, gamma, params: jnp.float32(0),
    )


def memory_probe() -> Probe:
    """A cue, -1 or 1, is shown at the first step only; the action at step k = `num_steps` must repeat it (1 for 1).

    obs = (cue at t = 0, else 0; t/k). Reward 0, then r if right, -r if wrong, and termination. V at step t is
    gamma^(k-t)·r for the best policy with memory, 0 for every policy without. Wrong: recurrent state, or its resets.
    """

    def observe(state: ProbeState, params: ProbeParams) -> jax.Array:
        fraction = state.time / params.num_steps
        return jnp.stack([jnp.where(state.time == 0, state.sign, 0.0), jnp.minimum(fraction, 1.0)])

    def answer(state: ProbeState, action: jax.Array, params: ProbeParams) -> tuple[Any, Any, Any]:
        last = state.time >= params.num_steps
        return jnp.where(last, params.reward * _match(action, state.sign), 0.0), last, False

    return Probe(
        "probe_memory",
        ProbeParams(),
        Box((-1.0, 0.0), (1.0, 1.0), (2,)),
        _BINARY,
        observe,
        answer,
        optimal_value=lambda obs, gamma, params: (
            params.reward * gamma ** (params.num_steps - jnp.round(obs[1] * params.num_steps))
        ),
    )
