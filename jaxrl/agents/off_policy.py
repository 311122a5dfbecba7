"""The off-policy actor-critic: twin critics with targets, and an actor that climbs them; the method says how.

Every method (SAC, TD3, DSAC-T, MDPO, PMOE) is a `Method`: two losses and what surrounds them. The order of one update
is critics, then, every `policy_delay`-th time, the actor, what `finish` adapts, and the targets.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agents.common import Normalizers, init_normalizers, normalized, observe
from jaxrl.ops.minibatch import gradient_step, init_optimizer
from jaxrl.spaces import Space
from jaxrl.types import Agent, Key, Metrics, Params, Progress, Sample
from jaxrl.value_networks import apply_ensemble


@struct.dataclass
class OffPolicyActorCriticState:
    """State of `off_policy_actor_critic`.

    Attributes:
      params: {"actor": …, "critic": …}; leaves of the critic [C, …].
      targets: the same, averaged over time; "actor" only where the method has a target policy.
      actor_opt, critic_opt: optimiser states, over parameters as one vector.
      extra: the method's own: a temperature, running deviations, an older policy.
      normalizers: of observations and rewards.
    """

    params: Params
    targets: Params
    actor_opt: Any
    critic_opt: Any
    extra: Any
    normalizers: Normalizers


class Method(NamedTuple):
    """What makes an off-policy actor-critic the one that it is.

    Observations arrive encoded and normalised, rewards scaled.

    Attributes:
      init: `(key, obs [1, …]) -> {"actor": params, "critic": params [C, …]}`.
      init_extra: `(params) -> extra`.
      act: `(key, state, memory, obs [B, …], is_first [B], explore) -> (action [B, …], memory)`, the action as the
        environment takes it.
      critic_loss: `(critic_params, key, state, batch [N]) -> (scalar, (extra, Metrics))`; "priority" [N] among them
        where it can be had.
      actor_loss: `(actor_params, key, state, batch [N]) -> (scalar, (aux, Metrics))`.
      finish: `(state, aux, progress) -> state`, after the actor's step: temperature, older policy. `aux` is what the
        actor's loss returned.
      target_actor: whether `targets` has an actor.
      memory: `(num_envs) -> memory`, what exploration remembers of each environment; `()` for nothing.
      eager_targets: the critics' targets move with every update, not only with the actor.
    """

    init: Callable[..., Params]
    init_extra: Callable[..., Any]
    act: Callable[..., tuple[jax.Array, Any]]
    critic_loss: Callable[..., Any]
    actor_loss: Callable[..., Any]
    finish: Callable[..., Any]
    target_actor: bool = False
    memory: Callable[[int], Any] = lambda num_envs: ()
    eager_targets: bool = False


def off_policy_actor_critic(method: Method, obs_space: Space, config: Any, hp: Any) -> Agent:
    """An off-policy agent.

    Args:
      method: its losses.
      obs_space: of the environment.
      config: has `policy_delay`, `num_envs`, `normalize_obs`, `normalize_reward`.
      hp: has `actor_learning_rate`, `critic_learning_rate`, `gamma`, `tau`, `max_grad_norm`; may be traced.
    Returns:
      An `Agent` whose `update` takes a Sample [N].
    """
    tx = optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), optax.scale_by_adam())

    def init(key: Key, obs_space: Space, action_space: Space) -> OffPolicyActorCriticState:
        normalizers = init_normalizers(config, obs_space)
        blank = jnp.zeros((1, *obs_space.shape), obs_space.dtype)
        params = method.init(key, normalized(normalizers, obs_space, blank))
        return OffPolicyActorCriticState(
            params=params,
            # Copies: a donated state must not hold one buffer twice.
            targets=jax.tree.map(jnp.copy, params if method.target_actor else {"critic": params["critic"]}),
            actor_opt=init_optimizer(tx, params["actor"]),
            critic_opt=init_optimizer(tx, params["critic"]),
            extra=method.init_extra(params),
            normalizers=normalizers,
        )

    def act(
        key: Key, state: OffPolicyActorCriticState, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, tuple[()]]:
        x = normalized(state.normalizers, obs_space, obs)
        action, memory = method.act(key, state, memory, x, is_first, explore)
        return action, memory, ()

    def update(
        key: Key, state: OffPolicyActorCriticState, sample: Sample, progress: Progress
    ) -> tuple[OffPolicyActorCriticState, Metrics]:
        key_critic, key_actor = jax.random.split(key)
        batch = sample._replace(
            obs=normalized(state.normalizers, obs_space, sample.obs),
            final_obs=normalized(state.normalizers, obs_space, sample.final_obs),
            reward=state.normalizers.scale_reward(sample.reward),
        )

        def critic_loss(params: Params, batch: Sample) -> Any:
            return method.critic_loss(params, key_critic, state, batch)

        critic, critic_opt, (extra, metrics) = gradient_step(
            critic_loss, tx, state.params["critic"], state.critic_opt, batch, hp.critic_learning_rate
        )
        targets = state.targets
        if method.eager_targets:
            targets = {**targets, "critic": polyak(targets["critic"], critic, hp.tau)}
        params = {**state.params, "critic": critic}
        state = dataclasses.replace(state, params=params, targets=targets, critic_opt=critic_opt, extra=extra)
        # Which targets move with the actor.
        late = [name for name in targets if name != "critic" or not method.eager_targets]

        def actor_step(state: OffPolicyActorCriticState) -> tuple[OffPolicyActorCriticState, Metrics]:
            def actor_loss(params: Params, batch: Sample) -> Any:
                return method.actor_loss(params, key_actor, state, batch)

            actor, actor_opt, (aux, metrics) = gradient_step(
                actor_loss, tx, state.params["actor"], state.actor_opt, batch, hp.actor_learning_rate
            )
            params = {**state.params, "actor": actor}
            targets = {**state.targets, **{name: polyak(state.targets[name], params[name], hp.tau) for name in late}}
            moved = dataclasses.replace(state, params=params, targets=targets, actor_opt=actor_opt)
            return method.finish(moved, aux, progress), metrics

        state, actor_metrics = every(config.policy_delay, progress.update, actor_step, state)
        return state, metrics | actor_metrics

    def observed(state: OffPolicyActorCriticState, experience: Any) -> OffPolicyActorCriticState:
        return dataclasses.replace(state, normalizers=observe(state.normalizers, experience, hp.gamma))

    return Agent(init, method.memory, act, update, observed)


def every(
    period: int, index: jax.Array | int, step: Callable[[Any], tuple[Any, Metrics]], state: Any
) -> tuple[Any, Metrics]:
    """`step(state)` when `index` is a multiple of `period`, else the state as it is, and NaN for its metrics.

    A branch, and a real one: indices are never batched.
    """
    if period == 1:
        return step(state)
    shapes = jax.eval_shape(step, state)[1]
    blank = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)
    return jax.lax.cond(index % period == 0, step, lambda state: (state, blank), state)


def polyak(target: Params, params: Params, tau: jax.Array | float) -> Params:
    """`(1 - tau) target + tau params`: tau is the share that is replaced; 1 copies and 0 keeps, bit for bit."""
    return jax.tree.map(lambda old, new: (1.0 - tau) * old + tau * new, target, params)


def smallest(values: jax.Array) -> jax.Array:
    """The smallest over the first axis, [C, N] -> [N], by selects.

    The gradient of `min` divides by how many elements equal the minimum, which XLA may compute anew and round
    otherwise: then none does, and the gradient is NaN.
    """
    return functools.reduce(lambda low, other: jnp.where(other < low, other, low), list(values))


def twin_minimum(values: jax.Array) -> jax.Array:
    """The smallest of C critics' answers, [C, N, 1] -> [N], or [C, N, A, 1] -> [N, A]."""
    return smallest(values[..., 0])


def sample_or_mode(policy: Callable[[Params, jax.Array], Any]) -> Callable[..., tuple[jax.Array, Any]]:
    """The `act` of a stochastic actor, `policy(actor_params, obs)` a distribution over the environment's actions."""

    def act(
        key: Key, state: OffPolicyActorCriticState, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any]:
        distribution = policy(state.params["actor"], obs)
        return distribution.sample(key) if explore else distribution.mode(), memory

    return act


def soft_critic_loss(
    critic: Any, policy: Callable[[Params, jax.Array], Any], alpha: Callable[[Any], jax.Array | float]
) -> Callable[..., Any]:
    """The `critic_loss` of maximum-entropy methods: `y = r + discount (min_c Q'_c(o', a') - alpha log pi(a' | o'))`.

    Args:
      critic: network of state and action.
      policy: `(actor_params, obs) ->` a distribution with `sample_and_log_prob`; the online actor chooses a'.
      alpha: of the state's `extra`, the weight of entropy.
    """

    def critic_loss(params: Params, key: Key, state: OffPolicyActorCriticState, batch: Sample) -> Any:
        action, log_prob = policy(state.params["actor"], batch.final_obs).sample_and_log_prob(key)
        next_q = twin_minimum(apply_ensemble(critic, state.targets["critic"], batch.final_obs, action))
        target = batch.reward + batch.discount * (next_q - alpha(state.extra) * log_prob)
        values = apply_ensemble(critic, params, batch.obs, batch.action)
        loss, metrics = squared_error(values, target, batch.weight)
        return loss, (state.extra, metrics)

    return critic_loss


def squared_error(values: jax.Array, target: jax.Array, weight: Any = ()) -> tuple[jax.Array, Metrics]:
    """`0.5 * sum_c mean_n (w (Q_c - y))^2` of critics [C, N, 1] against [N], with what is worth logging.

    The weight [N] is that of a `Sample`; rows of weight 0 stay in the mean's denominator.
    """
    error = values[..., 0] - jax.lax.stop_gradient(target)
    error = error if isinstance(weight, tuple) else error * weight
    loss = 0.5 * jnp.square(error).mean(-1).sum()
    metrics = {"loss/critic": loss, "value/q": values.mean(), "priority": jnp.abs(error).mean(0)}
    return loss, metrics
