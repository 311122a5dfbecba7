"""The actor-critic: a network with a policy and a value, trained by whichever objective it is given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.networks import ActorCritic, encode, resolve_torso
from jaxrl.ops.distributions import num_policy_outputs, policy
from jaxrl.ops.minibatch import descend, init_optimizer, minibatches
from jaxrl.ops.returns import discounted_return_so_far
from jaxrl.ops.statistics import RunningMoments, init_moments, normalize, scale, update_moments
from jaxrl.spaces import Box, Space
from jaxrl.types import Agent, Key, Metrics, Objective, Params, Progress, Rollout


@struct.dataclass
class RewardScaler:
    """What divides rewards: moments of the discounted return so far, and that return at the last step, [B]."""

    moments: RunningMoments
    returns: jax.Array


@struct.dataclass
class ActorCriticState:
    """State of `actor_critic`.

    Attributes:
      params: of the network.
      opt_state: of the optimiser, over the parameters as one vector.
      objective: the objective's own.
      obs_moments: running moments of observations; `()` unless normalised.
      reward_scaler: `()` unless rewards are scaled.
    """

    params: Params
    opt_state: Any
    objective: Any
    obs_moments: Any
    reward_scaler: Any


def actor_critic(objective: Objective, obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """An on-policy agent.

    Args:
      objective: what is optimised (`jaxrl.objectives`).
      obs_space, action_space: of the environment.
      config: has the static fields of `PPOConfig` that shape network and update.
      hp: has `learning_rate`, `max_grad_norm`, `gamma`; numbers, may be traced.
    Returns:
      An `Agent` whose `update` takes a Rollout [T, B]; `extras` are the network's outputs.
    Raises:
      ValueError: for an action space that no policy covers, or a torso that does not fit the observations.
    """
    if config.normalize_obs and not isinstance(obs_space, Box):
        raise ValueError(f"normalize_obs = True needs observations in a Box, got {obs_space}; set it to False")
    network = ActorCritic(
        num_policy_outputs=num_policy_outputs(action_space),
        heads=(("value", 1), *objective.heads(action_space).items()),
        log_std=isinstance(action_space, Box),
        hidden_sizes=config.hidden_sizes,
        activation=config.activation,
        torso=resolve_torso(config.torso, obs_space),
        shared_torso=config.shared_torso,
    )
    tx = optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), _direction(config.optimizer))

    def init(key: Key, obs_space: Space, action_space: Space) -> ActorCriticState:
        params = network.init(key, encode(obs_space, jnp.zeros((1, *obs_space.shape), obs_space.dtype)))
        moments = init_moments(obs_space.shape) if config.normalize_obs else ()
        scaler = RewardScaler(init_moments(()), jnp.zeros(config.num_envs)) if config.normalize_reward else ()
        return ActorCriticState(params, init_optimizer(tx, params), objective.init(), moments, scaler)

    def outputs_at(params: Params, moments: Any, obs: jax.Array) -> dict[str, Any]:
        x = normalize(moments, obs) if config.normalize_obs else obs
        outputs: Any = network.apply(params, encode(obs_space, x))
        distribution = policy(action_space, outputs["policy"], outputs.pop("log_std", None))
        return outputs | {"policy": distribution, "value": outputs["value"][..., 0]}

    def act(
        key: Key, state: ActorCriticState, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, dict[str, Any]]:
        outputs = outputs_at(state.params, state.obs_moments, obs)
        distribution = outputs["policy"]
        return distribution.sample(key) if explore else distribution.mode(), memory, outputs

    def update(
        key: Key, state: ActorCriticState, rollout: Rollout, progress: Progress
    ) -> tuple[ActorCriticState, Metrics]:
        scaler, rollout = _scale_rewards(state.reward_scaler, rollout, hp.gamma)
        targets, objective_state = objective.prepare(
            state.objective, rollout.extras, rollout.next_extras, rollout, progress
        )
        samples = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (rollout.obs, targets))
        batches = minibatches(key, samples, config.num_epochs, config.num_minibatches)

        def loss(params: Params, batch: Any) -> tuple[jax.Array, Metrics]:
            obs, batch_targets = batch
            return objective.loss(objective_state, outputs_at(params, state.obs_moments, obs), batch_targets)

        remaining = 1.0 - progress.fraction if config.anneal_learning_rate else 1.0
        params, opt_state, metrics = descend(
            loss, tx, state.params, state.opt_state, batches, hp.learning_rate * remaining
        )
        # After the epochs, so that collection, targets and minibatches of one update saw the same statistics.
        moments = update_moments(state.obs_moments, rollout.obs) if config.normalize_obs else ()
        objective_state = objective.finish(objective_state, metrics)
        return ActorCriticState(params, opt_state, objective_state, moments, scaler), metrics

    return Agent(init, lambda num_envs: (), act, update)


def _direction(optimizer: str) -> optax.GradientTransformation:
    if optimizer == "adam":
        return optax.scale_by_adam(eps=1e-5)
    return optax.scale_by_rms(decay=0.99, eps=1e-5, eps_in_sqrt=False)


def _scale_rewards(scaler: Any, rollout: Rollout, gamma: jax.Array | float) -> tuple[Any, Rollout]:
    """Divides rewards by the deviation of discounted returns, this rollout's included."""
    if not isinstance(scaler, RewardScaler):
        return scaler, rollout
    returns = discounted_return_so_far(rollout.reward, rollout.is_first, scaler.returns, gamma)
    moments = update_moments(scaler.moments, returns)
    return RewardScaler(moments, returns[-1]), rollout._replace(reward=scale(moments, rollout.reward))
