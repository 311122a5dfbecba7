"""A bandit over the numbers of agents: those under which lifetimes end well are given to more of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.meta.levels import LevelSampler
from jaxrl.types import Key


class ArmedLevel(NamedTuple):
    """A level, and the arm (int32) that the bandit gave to the lifetime on it."""

    level: Any
    arm: jax.Array


@struct.dataclass
class BanditState:
    """State of `bandit_levels`, for E tasks, C arms and L slots.

    Attributes:
      total: [E, C] float32, sum of the returns of ended lifetimes.
      count: [E, C] int32, how many these are.
      task, arm: [L] int32, of the lifetime in each slot.
    """

    total: jax.Array
    count: jax.Array
    task: jax.Array
    arm: jax.Array


def bandit_levels(
    sample_task: Callable[[Key], tuple[Any, Any]], num_tasks: int, num_arms: int, num_slots: int, hp: Any
) -> LevelSampler:
    """Every lifetime gets a new level, and the arm of a bandit that is kept for each task.

    An arm that has no return yet goes first. Then arms are drawn by a softmax, over `bandit_temperature`, of
    `mean return + bandit_bonus sqrt(log(1 + n) / n_arm)`, n being the lifetimes of the task that have ended.

    Args:
      sample_task: `(key) -> (level, task)`, a task being a number below E.
      num_tasks, num_arms, num_slots: E, C, L.
      hp: has `bandit_temperature` and `bandit_bonus`, in units of the return; numbers, may be traced.
    Returns:
      A `LevelSampler` whose levels are `ArmedLevel`s and whose scores are returns; NaN counts as no return.
    References:
      Oh et al. 2020, arXiv:2007.08794, appendix; temperature 0.1 and bonus 0.2 are of re-implementations, the form of
      the bonus is ours.
    """

    def init(key: Key) -> BanditState:
        none = jnp.zeros(num_slots, jnp.int32)
        return BanditState(jnp.zeros((num_tasks, num_arms)), jnp.zeros((num_tasks, num_arms), jnp.int32), none, none)

    def sample(key: Key, state: BanditState, slots: jax.Array) -> tuple[ArmedLevel, BanditState]:
        key_task, key_arm = jax.random.split(key)
        levels, task = jax.vmap(sample_task)(jax.random.split(key_task, len(slots)))
        task = jnp.asarray(task, jnp.int32)
        logits = arm_logits(state.total[task], state.count[task], hp.bandit_temperature, hp.bandit_bonus)
        arm = jax.random.categorical(key_arm, logits).astype(jnp.int32)
        state = state.replace(  # type: ignore[attr-defined]
            task=state.task.at[slots].set(task, mode="drop"), arm=state.arm.at[slots].set(arm, mode="drop")
        )
        return ArmedLevel(levels, arm), state

    def update(state: BanditState, slots: jax.Array, scores: jax.Array) -> BanditState:
        known = (slots < num_slots) & ~jnp.isnan(scores)
        task = jnp.where(known, state.task.at[slots].get(mode="clip"), num_tasks)
        arm = state.arm.at[slots].get(mode="clip")
        return state.replace(  # type: ignore[attr-defined]
            total=state.total.at[task, arm].add(scores, mode="drop"),
            count=state.count.at[task, arm].add(1, mode="drop"),
        )

    return LevelSampler(init, sample, update)


def arm_logits(total: jax.Array, count: jax.Array, temperature: Any, bonus: Any) -> jax.Array:
    """[..., C]: of the draw; arms without a return are alone in it while there are any."""
    tried = jnp.maximum(count, 1)
    explored = jnp.sqrt(jnp.log1p(count.sum(-1, keepdims=True)) / tried)
    untried = count == 0
    first = jnp.where(untried, 0.0, -jnp.inf)
    return jnp.where(untried.any(-1, keepdims=True), first, (total / tried + bonus * explored) / temperature)
