"""Mean-field control as an ordinary environment: it shows features of the population and takes decision rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Key, Timestep
from jaxrl_envs.mean_field.dynamics import Dynamics, MakeDynamics, particles
from jaxrl_envs.mean_field.features import Features, kernel_basis
from jaxrl_envs.mean_field.model import Swarm, num_shared, picture_of
from jaxrl_envs.mean_field.rules import decision_rule

TIMES = ("none", "scalar", "one_hot")


@struct.dataclass
class MeanFieldState:
    """State of `MeanFieldEnv`: the population as its dynamics keep it, and int32 steps since the reset."""

    field: Any
    time: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class FullyObserved:
    """A swarm whose agents see their own state; otherwise as `model`."""

    model: Any

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # not set yet: unpickling or copying
            raise AttributeError(name)
        found = getattr(self.model, name)
        if name in ("gaussian_step", "field_observe"):  # the limits' own ways of seeing
            return lambda *args: found(*args[:-1], args[-1].replace(obs_noise=0.0))
        return found

    def observe(self, key: Key, swarm: Swarm, params: Any) -> jax.Array:
        """`x`."""
        del key, params
        return swarm.x

    def observation_space(self, params: Any) -> Space:
        """Of states."""
        return self.model.state_space(params)


@dataclasses.dataclass(frozen=True, eq=False)
class MeanFieldEnv:
    """The upper level of mean-field control, an `Environment`; `mean_field` makes it.

    An action is xi, one decision rule for all agents (or [N, dim], one each, for evaluation); what the agents then see
    and do is drawn inside. `info` has the rule's Lipschitz bound and what the model reports.

    Attributes:
      model, features, rule: what they say.
      make_dynamics: how the population is carried along.
      terminal_on_horizon: whether `max_steps` terminates an episode, instead of truncating it.
      observe_time: "none", "scalar" or "one_hot".
      fully_observed: whether agents see their own state, rightly and only that.
    """

    model: Any
    features: Any
    rule: Any
    make_dynamics: MakeDynamics
    terminal_on_horizon: bool
    observe_time: str
    fully_observed: bool = False

    @property
    def dynamics(self) -> Dynamics:
        """The population's law."""
        return self.make_dynamics(self.model, self.rule)

    @property
    def default_params(self) -> Any:
        """The model's."""
        return self.model.default_params

    @property
    def horizon(self) -> int:
        """Steps of an episode by default."""
        return int(self.model.default_params.max_steps)

    def reset(self, key: Key, params: Any) -> tuple[MeanFieldState, jax.Array]:
        """A first population, and its features."""
        state = MeanFieldState(self.dynamics.reset(key, params), jnp.int32(0))
        return state, self.observe(state, params)

    def step(self, key: Key, state: MeanFieldState, action: jax.Array, params: Any) -> tuple[MeanFieldState, Timestep]:
        """All agents act by the rule `action`; the reward is the team's, of the population before the step."""
        field, reward, info = self.dynamics.step(key, state.field, action, params)
        state = MeanFieldState(field, state.time + 1)
        obs = self.observe(state, params)
        over, never = state.time >= params.max_steps, jnp.array(False)
        terminated, truncated = (over, never) if self.terminal_on_horizon else (never, over)
        info = {**info, "rule/lipschitz": self.rule.lipschitz_bound(action)}
        return state, Timestep(obs, jnp.asarray(reward, float), terminated, truncated, obs, info)

    def observe(self, state: MeanFieldState, params: Any) -> jax.Array:
        """Features, what all agents have in common, then time if asked for."""
        parts = [self.features(*self.dynamics.points(state.field))]
        if hasattr(self.model, "shared_features"):
            parts.append(self.model.shared_features(state.field, params))
        if self.observe_time == "scalar":
            parts.append(jnp.minimum(state.time / params.max_steps, 1.0)[None])
        elif self.observe_time == "one_hot":
            parts.append(jax.nn.one_hot(jnp.minimum(state.time, self.horizon), self.horizon + 1))
        return jnp.concatenate(parts).astype(float)

    def observation_space(self, params: Any) -> Space:
        """Features, shared numbers without bounds, and the time in [0, 1]."""
        del params
        low, high = self.features.space().bounds()
        shared = np.full(num_shared(self.model), np.inf)
        extra = {"none": 0, "scalar": 1, "one_hot": self.horizon + 1}[self.observe_time]
        low, high = np.concatenate([low, -shared, np.zeros(extra)]), np.concatenate([high, shared, np.ones(extra)])
        return Box(low, high, (len(low),))

    def action_space(self, params: Any) -> Space:
        """xi, unbounded: the rule squashes it."""
        del params
        return Box(-np.inf, np.inf, (self.rule.num_params,))

    @property
    def image(self) -> Callable[[Any, Any], np.ndarray] | None:
        """`(state, params) -> [H, W, 3]`, the model's picture of particles; `None` if it has none."""
        return picture_of(self.model, lambda state: state.field)

    def with_dynamics(self, dynamics: MakeDynamics) -> MeanFieldEnv:
        """The same task with the population carried along otherwise."""
        dynamics(self.model, self.rule)  # the errors, now
        return dataclasses.replace(self, make_dynamics=dynamics)

    def with_agents(self, num_agents: int) -> MeanFieldEnv:
        """The same task with so many agents."""
        return self.with_dynamics(particles(num_agents))


def mean_field(  # noqa: PLR0913 - keywords of one constructor
    model: Any,
    features: Any = None,
    rule: Any = None,
    dynamics: MakeDynamics | None = None,
    *,
    terminal_on_horizon: bool | None = None,
    observe_time: str = "none",
    fully_observed: bool = False,
) -> MeanFieldEnv:
    """Mean-field control of a swarm: an environment that any learner of continuous actions trains on.

    Args:
      model: a `SwarmModel`; its parameters are the environment's.
      features: of the population; by default normalised kernels, 5 per coordinate of the agents' states.
      rule: of decisions; by default kernels, 5 per coordinate of what agents see.
      dynamics: `particles(N)` (200 by default), `exact()`, `grid(...)` or `gaussian()`.
      terminal_on_horizon: whether the horizon ends an episode for good; by default only if the time is observed.
      observe_time: "none", "scalar" (share of the horizon) or "one_hot".
      fully_observed: agents see their own state instead of what the model shows them.
    Returns:
      An `Environment`: observations are features that are about 1 for a uniform population, actions xi.
    Raises:
      ValueError: for parts that do not fit one another, or an unknown `observe_time`.
    References:
      Cui et al. 2024, arXiv:2307.06175, the reduction to one agent; settings are ours.
    """
    if observe_time not in TIMES:
        raise ValueError(f"observe_time = {observe_time!r}: expected one of {', '.join(TIMES)}")
    if int(model.default_params.max_steps) < 1:
        raise ValueError(f"max_steps = {model.default_params.max_steps}: expected a horizon of at least one step")
    params = model.default_params
    if fully_observed:
        model = model.fully_observed() if hasattr(model, "fully_observed") else FullyObserved(model)
    if features is None:
        features = Features(kernel_basis(model.state_space(params), periodic=model.periodic))
    if rule is None:
        rings = model.periodic if fully_observed else ()
        basis = kernel_basis(model.observation_space(params), periodic=rings, placement="ends")
        rule = decision_rule(basis, model.action_space(params))
    terminal = observe_time != "none" if terminal_on_horizon is None else terminal_on_horizon
    env = MeanFieldEnv(model, features, rule, particles(200), terminal, observe_time, fully_observed)
    return env.with_dynamics(particles(200) if dynamics is None else dynamics)
