"""A policy that only plays: the agent of evolution, whose parameters come from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agents.common import check_normalizable, init_obs_moments
from jaxrl.networks import MEMORIES, encode
from jaxrl.ops.distributions import num_policy_outputs, policy
from jaxrl.ops.statistics import normalize
from jaxrl.policy_networks import PolicyNetwork, resolve_policy_torso
from jaxrl.settings import check_choice
from jaxrl.spaces import Box, Space
from jaxrl.types import Agent, Key, Metrics, Params

OUTPUTS = ("clip", "tanh")


@struct.dataclass
class PolicyState:
    """State of `policy_agent`.

    Attributes:
      params: of the network.
      obs_moments: running moments of observations; `()` unless normalised.
      norms: statistics of a reference batch (`policy_state`); `()` without virtual batch normalisation.
    """

    params: Params
    obs_moments: Any = ()
    norms: Any = ()


def policy_agent(obs_space: Space, action_space: Space, config: Any, action_noise: Any = 0.0) -> Agent:
    """A deterministic policy: the action of the largest output, or the output itself where actions are real.

    Args:
      obs_space, action_space: of the environment.
      config: has `hidden_sizes`, `activation`, `torso` (`POLICY_TORSOS`), `memory` ("none" or "gru"), `memory_size`,
        `output` ("clip" into the box of actions, or "tanh" scaled to it), `normalize_obs` and `virtual_norm`.
      action_noise: deviation of what exploring adds to real actions, in their units; may be traced. Discrete actions
        are explored by sampling with the outputs as logits.
    Returns:
      An `Agent` with state `PolicyState`, which has nothing to learn from: `update` changes nothing.
    Raises:
      ValueError: for spaces that no policy covers, or "tanh" into a box without bounds.
    """
    check_normalizable(config, obs_space)
    check_choice("output", config.output, OUTPUTS)
    check_choice("memory", config.memory, MEMORIES)
    if config.output == "tanh" and isinstance(action_space, Box) and not action_space.is_bounded:
        raise ValueError(f"output = 'tanh' needs bounded actions, got {action_space}; use 'clip'")
    network = policy_network(obs_space, action_space, config)

    def memory(num_envs: int) -> Any:
        return jnp.zeros((num_envs, config.memory_size)) if network.memory_size else ()

    def init(key: Key, obs_space: Space, action_space: Space) -> PolicyState:
        x = encode(obs_space, jnp.zeros((1, *obs_space.shape), obs_space.dtype))
        variables = network.init(key, x, memory(1), jnp.ones(1, bool))
        return PolicyState(variables["params"], init_obs_moments(config, obs_space), variables.get("norms", ()))

    def act(
        key: Key, state: PolicyState, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, dict[str, Any]]:
        x = _as_input(state.obs_moments, obs_space, obs)
        outputs, memory = network.apply(_variables(state), x, memory, is_first)
        return _action(key if explore else None, action_space, outputs, config.output, action_noise), memory, {}

    def update(key: Key, state: PolicyState, data: Any, progress: Any) -> tuple[PolicyState, Metrics]:
        return state, {}

    return Agent(init, memory, act, update)


def player(policy: Callable[[Params, jax.Array], jax.Array], init: Callable[[Key], Params]) -> Agent:
    """An agent that plays a deterministic policy of vectors, with the parameters as its state; it learns nothing.

    Args:
      policy: `(params, obs [N, …]) -> action [N, …]`.
      init: `(key) -> params`.
    """

    def act(
        key: Key, state: Params, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, dict[str, Any]]:
        return policy(state, obs), memory, {}

    def update(key: Key, state: Params, data: Any, progress: Any) -> tuple[Params, Metrics]:
        return state, {}

    return Agent(lambda key, obs_space, action_space: init(key), lambda num_envs: (), act, update)


def policy_network(obs_space: Space, action_space: Space, config: Any) -> PolicyNetwork:
    """The network of `policy_agent`."""
    return PolicyNetwork(
        num_outputs=num_policy_outputs(action_space),
        hidden_sizes=config.hidden_sizes,
        activation=config.activation,
        torso=resolve_policy_torso(config.torso, obs_space),
        memory_size=config.memory_size if config.memory != "none" else 0,
        virtual_norm=config.virtual_norm,
    )


def policy_outputs(obs_space: Space, action_space: Space, config: Any, state: PolicyState, obs: jax.Array) -> jax.Array:
    """Outputs [N, P] of the network at observations [N, …], with empty memories: what safe mutations differentiate."""
    network = policy_network(obs_space, action_space, config)
    empty = jnp.zeros((len(obs), network.memory_size)) if network.memory_size else ()
    x = _as_input(state.obs_moments, obs_space, obs)
    return network.apply(_variables(state), x, empty, jnp.ones(len(obs), bool))[0]


def policy_state(
    obs_space: Space, action_space: Space, config: Any, params: Params, moments: Any = (), reference: Any = None
) -> PolicyState:
    """The state in which parameters play: with virtual batch normalisation, its statistics are of a reference batch.

    Args:
      obs_space, action_space, config: as of `policy_agent`.
      params: of the network.
      moments: of observations, where they are normalised.
      reference: observations [N, …] of virtual batch normalisation.
    """
    if not config.virtual_norm:
        return PolicyState(params, moments)
    network = policy_network(obs_space, action_space, config)
    empty = jnp.zeros((len(reference), network.memory_size)) if network.memory_size else ()
    x = _as_input(moments, obs_space, reference)
    _, found = network.apply({"params": params}, x, empty, jnp.ones(len(reference), bool), mutable=["norms"])
    return PolicyState(params, moments, found["norms"])


def _variables(state: PolicyState) -> dict[str, Any]:
    return {"params": state.params} | ({"norms": state.norms} if state.norms else {})


def _as_input(moments: Any, obs_space: Space, obs: jax.Array) -> jax.Array:
    # Five deviations, as evolution strategies have it.
    return encode(obs_space, normalize(moments, obs, 5.0) if moments != () else obs)


def _action(key: Key | None, space: Space, outputs: jax.Array, squash: str, noise: Any) -> jax.Array:
    if not isinstance(space, Box):
        distribution = policy(space, outputs)
        return distribution.mode() if key is None else distribution.sample(key)
    if squash == "tanh":
        low, high = space.bounds()
        outputs = low + 0.5 * (jnp.tanh(outputs) + 1.0) * (high - low)
    return outputs if key is None else outputs + noise * jax.random.normal(key, outputs.shape)
