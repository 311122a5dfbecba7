"""A swarm as an environment of N agents, for learners of one agent's policy: baselines of mean-field control."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import Key, Timestep
from jaxrl_envs.mean_field.control import MeanFieldEnv
from jaxrl_envs.mean_field.dynamics import particles
from jaxrl_envs.mean_field.features import Features, kernel_basis
from jaxrl_envs.mean_field.model import Swarm, num_shared, picture_of


@struct.dataclass
class SwarmState:
    """The swarm, and what its agents see of it [N, …]."""

    swarm: Swarm
    seen: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class SwarmEnv:
    """N agents side by side: observations [N, dy + dphi], actions [N, du] (integers [N]), one reward for the team.

    Each row is what that agent sees (integers one-hot) and what all have in common (`shared_features` of the model),
    then the features of the whole population, which only a critic in training should read: `num_own` says where they
    begin.

    Attributes:
      model: a `SwarmModel`.
      num_agents: N.
      features: of the population.
    """

    model: Any
    num_agents: int
    features: Any

    @property
    def default_params(self) -> Any:
        """The model's."""
        return self.model.default_params

    @property
    def num_own(self) -> int:
        """Entries of a row that an agent may act on: its own observation, and what all agents have in common."""
        space = self.model.observation_space(self.default_params)
        return (space.n if isinstance(space, Discrete) else space.shape[0]) + num_shared(self.model)

    def reset(self, key: Key, params: Any) -> tuple[SwarmState, jax.Array]:
        """A first swarm, and what its agents see."""
        key_swarm, key_observe = jax.random.split(key)
        swarm = self.model.reset(key_swarm, self.num_agents, params)
        state = SwarmState(swarm, self.model.observe(key_observe, swarm, params))
        return state, self._observe(state, params)

    def step(self, key: Key, state: SwarmState, action: jax.Array, params: Any) -> tuple[SwarmState, Timestep]:
        """All act at once; the horizon truncates."""
        key_move, key_observe = jax.random.split(key)
        swarm, reward, info = self.model.step(key_move, state.swarm, action, params)
        state = SwarmState(swarm, self.model.observe(key_observe, swarm, params))
        obs, over = self._observe(state, params), swarm.time >= params.max_steps
        return state, Timestep(obs, jnp.asarray(reward, float), jnp.array(False), over, obs, info)

    def agent_observation_space(self, params: Any) -> Box:
        """Of one row."""
        space = self.model.observation_space(params)
        low, high = (np.zeros(space.n), np.ones(space.n)) if isinstance(space, Discrete) else space.bounds()
        shared = np.full(num_shared(self.model), np.inf)
        parts = [(low, high), (-shared, shared), self.features.space().bounds()]
        low, high = (np.concatenate([part[i] for part in parts]) for i in range(2))
        return Box(low, high, (len(low),))

    def agent_action_space(self, params: Any) -> Space:
        """Of one agent."""
        return self.model.action_space(params)

    def observation_space(self, params: Any) -> Space:
        """[N, dy + dphi]."""
        low, high = (np.tile(bound, (self.num_agents, 1)) for bound in self.agent_observation_space(params).bounds())
        return Box(low, high, low.shape)

    def action_space(self, params: Any) -> Space:
        """Of all agents."""
        space = self.agent_action_space(params)
        if isinstance(space, Discrete):
            return MultiDiscrete((space.n,) * self.num_agents)
        assert isinstance(space, Box)
        low, high = (np.tile(bound, (self.num_agents, 1)) for bound in space.bounds())
        return Box(low, high, low.shape)

    @property
    def image(self) -> Callable[[Any, Any], np.ndarray] | None:
        """`(state, params) -> [H, W, 3]`, the model's picture; `None` if it has none."""
        return picture_of(self.model, lambda state: state.swarm)

    def with_agents(self, num_agents: int) -> SwarmEnv:
        """The same task with so many agents."""
        return swarm_env(self.model, num_agents, self.features)

    def governed_by(self, act: Callable[[Key, jax.Array], jax.Array]) -> MeanFieldEnv:
        """The same task as mean-field control whose decision rule is `act`: the agents' own policy.

        Its noise is that of `mean_field` with as many agents: both have the same first swarm, and the same chance in
        what is seen and how agents move. An action is what the environment shows, handed back; rules without learning.

        Args:
          act: `(key, rows [N, dy + dphi]) -> actions`, without memory.
        """
        return MeanFieldEnv(self.model, self.features, OwnPolicy(self, act), particles(self.num_agents), False, "none")

    def rows(self, seen: jax.Array, common: jax.Array) -> jax.Array:
        """[N, dy + dphi], of what each agent sees and what is the same in every row."""
        space = self.model.observation_space(self.default_params)
        own = jax.nn.one_hot(seen, space.n) if isinstance(space, Discrete) else seen
        return jnp.concatenate([own, jnp.broadcast_to(common, (self.num_agents, *common.shape))], -1)

    def _observe(self, state: SwarmState, params: Any) -> jax.Array:
        common = self.features(state.swarm.x)
        if hasattr(self.model, "shared_features"):
            common = jnp.concatenate([self.model.shared_features(state.swarm, params), common])
        return self.rows(state.seen, common)


@dataclasses.dataclass(frozen=True, eq=False)
class OwnPolicy:
    """A decision rule that is a policy of single agents; xi is what a `MeanFieldEnv` shows of the population.

    Attributes:
      env: of the agents.
      act: `(key, rows) -> actions`.
    """

    env: SwarmEnv
    act: Callable[[Key, jax.Array], jax.Array]

    @property
    def num_params(self) -> int:
        """Features, and what all agents have in common."""
        return self.env.features.space().shape[0] + num_shared(self.env.model)

    def sample(self, key: Key, xi: jax.Array, seen: jax.Array) -> jax.Array:
        """Actions of agents that see `seen`."""
        # There features come first, here the agents' own: the common numbers, and then features.
        return self.act(key, self.env.rows(seen, jnp.roll(xi, num_shared(self.env.model))))

    def lipschitz_bound(self, xi: jax.Array) -> jax.Array:
        """None is known."""
        del xi
        return jnp.float32(jnp.inf)


def swarm_env(model: Any, num_agents: int, features: Any = None) -> SwarmEnv:
    """N agents of a swarm as one environment.

    Args:
      model: a `SwarmModel`.
      num_agents: N, at least 1.
      features: of the population; by default as in `mean_field`.
    Raises:
      ValueError: if there are no agents, or the default features do not fit.
    """
    if num_agents < 1:
        raise ValueError(f"swarm_env needs num_agents >= 1, got {num_agents}")
    if features is None:
        features = Features(kernel_basis(model.state_space(model.default_params), periodic=model.periodic))
    return SwarmEnv(model, num_agents, features)
