"""What a rule's pupils are judged by: differentiable meta-losses, and statistics of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.meta.gradient import META_LOSS
from jaxrl.ops.returns import gae
from jaxrl.ops.statistics import standardize
from jaxrl.types import Agent, Key, Metrics, Progress, Rollout

Fit = Callable[[Any, Rollout], tuple[Any, Metrics]]


def policy_gradient_outcome(agent: Agent, fit: Fit, hp: Any) -> Agent:
    """The agent under examination: on a loop, one step of it plays a rollout and says how well the agent fares.

    "loss/meta" is `-mean(log pi(a) A)`, whose gradient in the agent's parameters is that of its return: A is GAE from
    the values in the agent's extras, standardised over the rollout, and a constant.

    Args:
      agent: feed-forward; its extras hold "policy" and "value".
      fit: what its values learn from the rollout, `(state, rollout) -> (state, Metrics)`.
      hp: has `gamma`, `gae_lambda`.
    Returns:
      An `Agent` that acts alike, and whose `update` changes only what `fit` changes.
    References:
      Jackson et al. 2023, arXiv:2310.02782, sec. 2.2.
    """

    def update(key: Key, state: Any, rollout: Rollout, progress: Progress) -> tuple[Any, Metrics]:
        def policy_at(key: Key, obs: Any, is_first: jax.Array) -> Any:
            return agent.act(key, state, (), obs, is_first, True)[2]["policy"]

        keys = jax.random.split(key, rollout.reward.shape[0])
        log_prob = jax.vmap(policy_at)(keys, rollout.obs, rollout.is_first).log_prob(rollout.action)
        advantage = standardize(rollout_gae(rollout, hp))
        state, metrics = fit(state, rollout)
        return state, metrics | {META_LOSS: -jnp.mean(log_prob * advantage)}

    return agent._replace(update=update)


def value_errors(agent: Agent, hp: Any) -> Agent:
    """The agent as its values are judged: one step on a loop changes nothing and gives what levels are scored by.

    Metrics: "value" (mean V), "l1_value_loss" and "positive_value_loss", means over the rollout of |A| and max(A, 0),
    A being GAE from the values in the extras.

    References:
      Jiang et al. 2021, arXiv:2010.03934 (L1), and arXiv:2110.02439 (positive).
    """

    def update(key: Key, state: Any, rollout: Rollout, progress: Progress) -> tuple[Any, Metrics]:
        error = rollout_gae(rollout, hp)
        return state, {
            "value": rollout.extras["value"].mean(),
            "l1_value_loss": jnp.abs(error).mean(),
            "positive_value_loss": jnp.maximum(error, 0.0).mean(),
        }

    return agent._replace(update=update)


def rollout_gae(rollout: Rollout, hp: Any) -> jax.Array:
    """GAE [T, B] from the values in the extras, with `gamma` and `gae_lambda` of `hp`."""
    value, next_value = rollout.extras["value"], rollout.next_extras["value"]
    return gae(rollout.reward, rollout.terminated, rollout.truncated, value, next_value, hp.gamma, hp.gae_lambda)
