"""A critic beside an agent: values from a network of its own, with an optimiser of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.networks import TableHeads, Torso, encode, orthogonal, resolve_torso
from jaxrl.ops.minibatch import clip_by_norm, descend, direction, init_optimizer
from jaxrl.ops.returns import gae
from jaxrl.spaces import Indexed, Space
from jaxrl.types import Agent, Key, Metrics, Params, Progress, Rollout


@struct.dataclass
class CriticState:
    """State of an agent with a critic: the agent's own, the critic's parameters and its optimiser's state."""

    agent: Any
    params: Params
    opt_state: Any


class AgentWithCritic(NamedTuple):
    """What `with_critic` gives.

    Attributes:
      agent: acts as the one that it was made from; "value" in its extras is the critic's. Its `update` updates both.
      fit: `(CriticState, Rollout [T, B]) -> (CriticState, Metrics)`, the critic alone.
    """

    agent: Agent
    fit: Callable[[Any, Rollout], tuple[Any, Metrics]]


class _Values(nn.Module):
    torso: Torso

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        return {"value": nn.Dense(1, kernel_init=orthogonal(1.0), name="head_value")(self.torso(x))}


def with_critic(base: Agent, obs_space: Space, config: Any, hp: Any) -> AgentWithCritic:
    """Gives a feed-forward agent the values of a critic: for advantages, or for whoever looks on.

    The critic descends `0.5 mean (V - G)^2` to the λ-returns G that its own values at collection give: one step of
    its optimiser per rollout.

    Args:
      base: an on-policy agent whose extras are a dict of outputs.
      obs_space: of the environment.
      config: has `torso`, `hidden_sizes`, `activation`, `optimizer`.
      hp: has `critic_learning_rate`, `max_grad_norm`, `gamma`, `gae_lambda`; numbers, may be traced.
    """
    torso = resolve_torso(config.torso, obs_space)
    network: nn.Module = _Values(Torso(config.hidden_sizes, config.activation, torso))
    if isinstance(obs_space, Indexed) and torso == "table":
        network = TableHeads(obs_space.n, (("value", 1),))
    tx = optax.chain(clip_by_norm(hp.max_grad_norm), direction(config.optimizer))

    def value_at(params: Params, obs: jax.Array) -> jax.Array:
        outputs: Any = network.apply(params, obs if torso == "table" else encode(obs_space, obs))
        return outputs["value"][..., 0]

    def init(key: Key, obs_space: Space, action_space: Space) -> CriticState:
        key_agent, key_critic = jax.random.split(key)
        obs = jnp.zeros((1, *obs_space.shape), obs_space.dtype)
        params = network.init(key_critic, obs if torso == "table" else encode(obs_space, obs))
        return CriticState(base.init(key_agent, obs_space, action_space), params, init_optimizer(tx, params))

    def act(
        key: Key, state: CriticState, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, dict[str, Any]]:
        action, memory, extras = base.act(key, state.agent, memory, obs, is_first, explore)
        return action, memory, extras | {"value": value_at(state.params, obs)}

    def fit(state: CriticState, rollout: Rollout) -> tuple[CriticState, Metrics]:
        value, flags = rollout.extras["value"], (rollout.terminated, rollout.truncated)
        advantage = gae(rollout.reward, *flags, value, rollout.next_extras["value"], hp.gamma, hp.gae_lambda)
        batch = jax.tree.map(lambda leaf: leaf.reshape(1, -1, *leaf.shape[2:]), (rollout.obs, advantage + value))

        def loss(params: Params, batch: Any) -> tuple[jax.Array, Metrics]:
            obs, returns = batch
            error = 0.5 * jnp.mean(jnp.square(value_at(params, obs) - returns))
            return error, {"loss/critic": error}

        params, opt_state, metrics = descend(loss, tx, state.params, state.opt_state, batch, hp.critic_learning_rate)
        return CriticState(state.agent, params, opt_state), {"loss/critic": metrics["loss/critic"]}

    def update(key: Key, state: CriticState, rollout: Rollout, progress: Progress) -> tuple[CriticState, Metrics]:
        agent_state, metrics = base.update(key, state.agent, rollout, progress)
        state, more = fit(state, rollout)
        return CriticState(agent_state, state.params, state.opt_state), metrics | more

    return AgentWithCritic(Agent(init, base.memory, act, update), fit)
