"""Parallelised Q-network: Q-learning on fresh rollouts, with layer normalisation in the place of a target network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agents.common import (
    check_normalizable,
    epsilon_at,
    epsilon_greedy,
    init_obs_moments,
    init_reward_scaler,
    scale_rewards,
)
from jaxrl.networks import Torso, encode, resolve_torso
from jaxrl.ops.minibatch import descend, init_optimizer, minibatches
from jaxrl.ops.returns import lambda_return
from jaxrl.ops.statistics import normalize, update_moments
from jaxrl.spaces import Discrete, Space
from jaxrl.types import Agent, Key, Metrics, Params, Progress, Rollout
from jaxrl.value_networks import ActionValues


@struct.dataclass
class PQNState:
    """State of `parallel_q_network`.

    Attributes:
      params: of the network.
      opt_state: of the optimiser, over the parameters as one vector.
      epsilon: scalar, with which the next rollout explores; set by `update`, since `act` knows no progress.
      obs_moments: running moments of observations; `()` unless normalised.
      reward_scaler: `()` unless rewards are scaled by their deviation.
    """

    params: Params
    opt_state: Any
    epsilon: jax.Array
    obs_moments: Any
    reward_scaler: Any


def parallel_q_network(obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """Q-learning with λ-returns of the network that collected.

    The target of Q(o_t, a_t) is Peng's: G_t = r_t + γ c_t [(1 - λ_t) max_a Q(final_obs_t, a) + λ_t G_{t+1}], where
    c_t is 0 at terminations, and λ_t is 0 where an episode ends, however, and at the last step.

    Args:
      obs_space, action_space: of the environment.
      config: has the fields of `PQNConfig` that shape network and update.
      hp: the numbers of `PQNHparams`; may be traced.
    Returns:
      An `Agent` whose `update` takes a Rollout [T, B]; `extras` are {"value": max_a Q(obs, a)}.
    Raises:
      ValueError: for actions that are not Discrete, or a torso that does not fit the observations.
    References:
      Gallici et al. 2024, arXiv:2407.04811, alg. 1 and 2. Differs: truncation bootstraps from the final observation,
      and the first weights are orthogonal.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(f"pqn takes a maximum over Discrete actions, got {action_space}; use ppo for this environment")
    check_normalizable(config, obs_space)
    torso = Torso(config.hidden_sizes, config.activation, resolve_torso(config.torso, obs_space), config.layer_norm)
    network = ActionValues(action_space.n, 1, torso)
    tx = optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), optax.scale_by_radam())

    def init(key: Key, obs_space: Space, action_space: Space) -> PQNState:
        params = network.init(key, encode(obs_space, jnp.zeros((1, *obs_space.shape), obs_space.dtype)))
        moments, scaler = init_obs_moments(config, obs_space), init_reward_scaler(config)
        return PQNState(params, init_optimizer(tx, params), epsilon_at(0.0, hp), moments, scaler)

    def q_values(params: Params, moments: Any, obs: jax.Array) -> jax.Array:
        q: Any = network.apply(params, encode(obs_space, normalize(moments, obs) if config.normalize_obs else obs))
        return q[..., 0]

    def act(
        key: Key, state: PQNState, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        q = q_values(state.params, state.obs_moments, obs)
        action = epsilon_greedy(key, q, state.epsilon) if explore else jnp.argmax(q, -1).astype(jnp.int32)
        return action, memory, {"value": q.max(-1)}

    def update(key: Key, state: PQNState, rollout: Rollout, progress: Progress) -> tuple[PQNState, Metrics]:
        rollout = rollout._replace(reward=hp.reward_scale * rollout.reward)
        scaler, rollout = scale_rewards(state.reward_scaler, rollout, hp.gamma)
        targets = lambda_return(
            rollout.reward, rollout.terminated, rollout.truncated, rollout.next_extras["value"], hp.gamma, hp.q_lambda
        )
        data = (rollout.obs, rollout.action, targets)
        samples = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), data)
        batches = minibatches(key, samples, config.num_epochs, config.num_minibatches)

        def loss(params: Params, batch: Any) -> tuple[jax.Array, Metrics]:
            obs, action, target = batch
            q = q_values(params, state.obs_moments, obs)
            chosen = jnp.sum(jnp.where(action[:, None] == jnp.arange(q.shape[-1]), q, 0.0), -1)
            value_loss = 0.5 * jnp.square(chosen - target).mean()
            return value_loss, {"loss/value": value_loss, "value/mean": chosen.mean()}

        remaining = 1.0 - progress.fraction if config.anneal_learning_rate else 1.0
        params, opt_state, metrics = descend(
            loss, tx, state.params, state.opt_state, batches, hp.learning_rate * remaining
        )
        moments = update_moments(state.obs_moments, rollout.obs) if config.normalize_obs else ()
        epsilon = epsilon_at((progress.update + 1) / progress.num_updates, hp)
        metrics = metrics | {"policy/epsilon": state.epsilon}
        return PQNState(params, opt_state, epsilon, moments, scaler), metrics

    return Agent(init, lambda num_envs: (), act, update)
