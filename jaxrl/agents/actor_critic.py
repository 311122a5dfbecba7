"""The actor-critic: a network with a policy and a value, trained by whichever objective it is given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agents.common import check_normalizable, init_obs_moments, init_reward_scaler, scale_rewards
from jaxrl.networks import (
    ActionConditioned,
    ActorCritic,
    RecurrentActorCritic,
    TableHeads,
    Torso,
    encode,
    resolve_torso,
    truncated_lecun,
)
from jaxrl.ops.distributions import num_policy_outputs, policy
from jaxrl.ops.minibatch import clip_by_norm, descend, direction, init_optimizer, minibatches
from jaxrl.ops.statistics import normalize, update_moments
from jaxrl.spaces import Box, Indexed, Space
from jaxrl.types import Agent, Key, Metrics, Objective, Params, Progress, Rollout


@struct.dataclass
class ActorCriticState:
    """State of `actor_critic`.

    Attributes:
      params: of the network.
      opt_state: of the optimiser, over the parameters as one vector.
      objective: the objective's own.
      obs_moments: running moments of observations; `()` unless normalised.
      reward_scaler: `()` unless rewards are scaled.
      target_params: moving average of `params`; `()` unless the objective asks for it.
    """

    params: Params
    opt_state: Any
    objective: Any
    obs_moments: Any
    reward_scaler: Any
    target_params: Any = ()


def actor_critic(objective: Objective, obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """An on-policy agent, feed-forward or with a memory.

    Args:
      objective: what is optimised (`jaxrl.objectives`).
      obs_space, action_space: of the environment.
      config: has the static fields of `PPOConfig` that shape network and update.
      hp: has `learning_rate`, `max_grad_norm`, `gamma`; numbers, may be traced.
    Returns:
      An `Agent` whose `update` takes a Rollout [T, B]; `extras` are the network's outputs. Its memory is `()`, or
      with `config.memory = "gru"` an array [B, memory_size], reset before a first observation is taken in.
    Raises:
      ValueError: for an action space that no policy covers, a torso that does not fit the observations, or a memory
        where the objective asks for a target network.
    """
    check_normalizable(config, obs_space)
    recurrent, has_target = config.memory != "none", objective.target_decay is not None
    if recurrent and has_target:
        raise ValueError(f"memory = {config.memory!r}: this objective has a target network, which has none; use 'none'")
    network = _network(objective, obs_space, action_space, config)
    tx = optax.chain(clip_by_norm(hp.max_grad_norm), direction(config.optimizer))

    def as_input(obs: jax.Array) -> jax.Array:
        return obs if config.torso == "table" else encode(obs_space, obs)

    def memory(num_envs: int) -> Any:
        return jnp.zeros((num_envs, config.memory_size)) if recurrent else ()

    def init(key: Key, obs_space: Space, action_space: Space) -> ActorCriticState:
        x = as_input(jnp.zeros((1, *obs_space.shape), obs_space.dtype))
        params = network.init(key, memory(1), x, jnp.ones((1, 1), bool)) if recurrent else network.init(key, x)
        opt_state, moments = init_optimizer(tx, params), init_obs_moments(config, obs_space)
        target_params = params if has_target else ()
        return ActorCriticState(params, opt_state, objective.init(), moments, init_reward_scaler(config), target_params)

    def outputs_at(params: Params, moments: Any, obs: jax.Array, memory: Any, is_first: Any) -> tuple[Any, Any]:
        """Outputs [N] at observations [N, …], and the memory after them; with one, N = T * B, and flags are [T, B]."""
        x = as_input(normalize(moments, obs) if config.normalize_obs else obs)
        outputs: Any
        if recurrent:
            memory, outputs = network.apply(params, memory, x, is_first)
        else:
            outputs = network.apply(params, x)
        distribution = policy(action_space, outputs["policy"], outputs.pop("log_std", None), config.num_primitives)
        value = {"value": outputs["value"][..., 0]} if "value" in outputs else {}
        return outputs | {"policy": distribution} | value, memory

    def act(
        key: Key, state: ActorCriticState, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, dict[str, Any]]:
        outputs, memory = outputs_at(state.params, state.obs_moments, obs, memory, is_first[None] if recurrent else ())
        distribution = outputs["policy"]
        if has_target:
            outputs["target"], _ = outputs_at(state.target_params, state.obs_moments, obs, (), ())
        return distribution.sample(key) if explore else distribution.mode(), memory, outputs

    def update(
        key: Key, state: ActorCriticState, rollout: Rollout, progress: Progress
    ) -> tuple[ActorCriticState, Metrics]:
        scaler, rollout = scale_rewards(state.reward_scaler, rollout, hp.gamma)
        targets, objective_state = objective.prepare(
            state.objective, rollout.extras, rollout.next_extras, rollout, progress
        )
        batches = (_shuffle_environments if recurrent else _shuffle_samples)(key, rollout, targets, config)

        def loss(params: Params, batch: Any) -> tuple[jax.Array, Metrics]:
            obs, memory, is_first, batch_targets = batch
            outputs, _ = outputs_at(params, state.obs_moments, obs, memory, is_first)
            return objective.loss(objective_state, outputs, batch_targets)

        remaining = 1.0 - progress.fraction if config.anneal_learning_rate else 1.0
        params, opt_state, metrics = descend(
            loss, tx, state.params, state.opt_state, batches, hp.learning_rate * remaining
        )
        # After the epochs, so that collection, targets and minibatches of one update saw the same statistics.
        moments = update_moments(state.obs_moments, rollout.obs) if config.normalize_obs else ()
        obs, is_first, targets = jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (rollout.obs, rollout.is_first, targets)
        )
        is_first = is_first.reshape(rollout.is_first.shape)
        outputs, _ = outputs_at(params, state.obs_moments, obs, rollout.memory, is_first)
        objective_state = objective.finish(objective_state, outputs, targets)
        target_params = _moved(state.target_params, state.params, objective.target_decay)
        return ActorCriticState(params, opt_state, objective_state, moments, scaler, target_params), metrics

    return Agent(init, memory, act, update, reads_terminal=objective.action_heads is not None)


def _moved(average: Params, params: Params, decay: float | None) -> Params:
    if decay is None:
        return ()
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, average, params)


def _network(objective: Objective, obs_space: Space, action_space: Space, config: Any) -> Any:
    torso = resolve_torso(config.torso, obs_space)
    recurrent = config.memory != "none"
    if torso == "table":
        return _table(objective, obs_space, action_space, config)
    hidden_sizes, kind = ((config.memory_size,), "mlp") if recurrent else (config.hidden_sizes, torso)
    heads: Any
    if objective.action_heads is not None:
        if not hidden_sizes:
            raise ValueError("hidden_sizes = (): this objective's network needs a layer of features; use (64, 64)")
        heads = ActionConditioned(
            action_heads=tuple(objective.action_heads(action_space).items()),
            num_policy_outputs=num_policy_outputs(action_space, config.num_primitives),
            heads=tuple(objective.heads(action_space).items()),
            torso=Torso(hidden_sizes[:-1], config.activation, kind, kernel_init=truncated_lecun),
            feature_size=hidden_sizes[-1],
            action_size=config.action_size,
        )
    else:
        heads = ActorCritic(
            num_policy_outputs=num_policy_outputs(action_space, config.num_primitives),
            heads=(("value", 1), *objective.heads(action_space).items()),
            num_log_std=config.num_primitives * action_space.shape[0] if isinstance(action_space, Box) else 0,
            hidden_sizes=hidden_sizes,
            activation=config.activation,
            torso=kind,
            shared_torso=config.shared_torso,
            state_std=config.state_std and isinstance(action_space, Box),
            policy_inputs=config.policy_inputs,
            initializer=config.initializer,
        )
    if not recurrent:
        return heads
    return RecurrentActorCritic(Torso(config.hidden_sizes, config.activation, torso), config.memory_size, heads)


def _table(objective: Objective, obs_space: Space, action_space: Space, config: Any) -> TableHeads:
    assert isinstance(obs_space, Indexed)  # `resolve_torso` has checked it
    if isinstance(action_space, Box) or config.memory != "none":
        raise ValueError(
            f"torso = 'table' has discrete actions and no memory, got {action_space} and memory = {config.memory!r}; "
            "use torso = 'mlp'"
        )
    widths = {"policy": num_policy_outputs(action_space, config.num_primitives), "value": 1}
    return TableHeads(obs_space.n, tuple((widths | objective.heads(action_space)).items()))


def _shuffle_samples(key: Key, rollout: Rollout, targets: Any, config: Any) -> Any:
    """Minibatches (obs [n, …], (), (), targets [n]) of any samples, stacked on a first axis."""
    samples = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (rollout.obs, (), (), targets))
    return minibatches(key, samples, config.num_epochs, config.num_minibatches)


def _shuffle_environments(key: Key, rollout: Rollout, targets: Any, config: Any) -> Any:
    """Minibatches (obs [T * b, …], memory [b, M], is_first [T, b], targets [T * b]) of b whole environments."""
    sequences = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), (rollout.obs, rollout.is_first, targets))
    batches = minibatches(key, (rollout.memory, sequences), config.num_epochs, config.num_minibatches)
    memory, (obs, is_first, targets) = batches[0], jax.tree.map(lambda leaf: leaf.swapaxes(1, 2), batches[1])
    obs, targets = jax.tree.map(lambda leaf: leaf.reshape(len(leaf), -1, *leaf.shape[3:]), (obs, targets))
    return obs, memory, is_first, targets
