"""Replay in device memory: a ring of time steps of all environments, sampled by gathering rows.

Only the observations that a batch needs are read, n-step returns are summed when sampled, and no function here puts
the ring through a branch or a select, which would copy it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.ops.sum_tree import SumTree, init_tree, tree_find, tree_get, tree_set, tree_total
from jaxrl.types import Key, Sample, Transition


class Buffer(NamedTuple):
    """A replay buffer.

    Attributes:
      init: `(item) -> state`; `item` is a Transition of one step of one environment, for shapes and dtypes.
      add: `(state, items [T, B]) -> state`; the oldest T steps make room.
      sample: `(key, state) -> Sample [N]`.
      update: `(state, index, priority [N]) -> state`, for samples drawn earlier; does nothing if not prioritised.
    """

    init: Callable[[Transition], Any]
    add: Callable[[Any, Transition], Any]
    sample: Callable[[Key, Any], Sample]
    update: Callable[[Any, Any, jax.Array], Any]


@struct.dataclass
class ReplayState:
    """State of `replay`.

    Attributes:
      data: Transition, leaves [rows, B, …].
      head: int32, the row that is written next.
      size: int32, rows written, at most all.
      tree: of priorities, or `()`.
      max_priority: the largest so far, that of new transitions, or `()`.
    """

    data: Transition
    head: jax.Array
    size: jax.Array
    tree: Any
    max_priority: Any


def replay(  # noqa: PLR0913 - sizes and numbers of one thing
    capacity: int,
    num_envs: int,
    num_steps: int,
    batch_size: int,
    gamma: jax.Array | float,
    num_step_returns: int = 1,
    priority_exponent: jax.Array | float | None = None,
) -> Buffer:
    """Uniform or prioritised replay of n-step transitions.

    Args:
      capacity: transitions; rounded down to whole rows of `num_envs`, in whole blocks of `num_steps` rows.
      num_envs: B, environments that write side by side.
      num_steps: T, rows written at once; larger blocks must be multiples of it.
      batch_size: N.
      gamma: discount; may be traced.
      num_step_returns: n; sums end at the first end of an episode, and never cross the write head.
      priority_exponent: draw in proportion to `priority ** exponent`; may be traced; `None` draws uniformly.
    Returns:
      A `Buffer`. Sampling needs at least n rows written.
    Raises:
      ValueError: if the buffer cannot hold a batch, or n-step sums and one block of rows.
    References:
      Schaul et al. 2016, arXiv:1511.05952, proportional variant; new transitions get the largest priority so far.
    """
    rows, n = num_rows(capacity, num_envs, num_steps, batch_size, num_step_returns), num_step_returns
    prioritised = priority_exponent is not None

    def init(item: Transition) -> ReplayState:
        data = jax.tree.map(lambda leaf: jnp.zeros((rows, num_envs, *leaf.shape), leaf.dtype), item)
        tree: Any = init_tree(rows * num_envs) if prioritised else ()
        return ReplayState(data, jnp.int32(0), jnp.int32(0), tree, jnp.float32(1.0) if prioritised else ())

    def add(state: ReplayState, items: Transition) -> ReplayState:
        block = items.reward.shape[0]
        if block > rows or block % num_steps:
            raise ValueError(f"add takes a multiple of {num_steps} steps, at most {rows}, got {block}")

        # XLA turns the write of a single row into that of a slice, fuses it into the reads that follow, and then has to
        # copy the ring. So two rows are written at least, of which the second is out of range and dropped.
        place = jnp.arange(max(block, 2))
        place = jnp.where(place < block, (state.head + place) % rows, rows)

        def write(ring: jax.Array, new: jax.Array) -> jax.Array:
            new = jnp.concatenate([new, new]) if block == 1 else new
            return ring.at[place].set(new.astype(ring.dtype), mode="drop", unique_indices=True)

        tree = _opened(state, block, n) if prioritised else ()
        return dataclasses.replace(
            state,
            data=jax.tree.map(write, state.data, items),
            head=(state.head + block) % rows,
            size=jnp.minimum(state.size + block, rows),
            tree=tree,
        )

    def sample(key: Key, state: ReplayState) -> Sample:
        if prioritised:
            spread = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size
            total = tree_total(state.tree)
            index = tree_find(state.tree, spread * total)
            num_valid = (state.size - n + 1) * num_envs
            probability = tree_get(state.tree, index) / total * num_valid
        else:
            # Ages from the oldest row on; the newest n - 1 rows lack successors.
            num_valid = (state.size - n + 1) * num_envs
            age = jax.random.randint(key, (batch_size,), 0, num_valid)
            start = jnp.where(state.size == rows, state.head, 0)
            index = (start + age // num_envs) % rows * num_envs + age % num_envs
            probability = jnp.ones(batch_size)
        return _gather(state.data, index, probability, gamma, n)

    def update(state: ReplayState, index: jax.Array, priority: jax.Array) -> ReplayState:
        if priority_exponent is None:
            return state
        weight = (priority + 1e-6) ** priority_exponent
        return dataclasses.replace(
            state,
            tree=tree_set(state.tree, index, weight),
            max_priority=jnp.maximum(state.max_priority, weight.max()),
        )

    return Buffer(init, add, sample, update)


def _opened(state: ReplayState, block: int, n: int) -> SumTree:
    """The tree once `block` rows are written: those that now have n successors can be drawn, the newest cannot."""
    rows, num_envs = state.data.reward.shape
    offset = jnp.arange(1 - n, block)
    valid = (offset < block - n + 1) & (offset >= -state.size) & (offset >= block - rows)
    weight = jnp.where(valid, state.max_priority, 0.0)
    row = (state.head + offset) % rows
    index = row[:, None] * num_envs + jnp.arange(num_envs)
    return tree_set(state.tree, index.ravel(), jnp.repeat(weight, num_envs))


def _gather(data: Transition, index: jax.Array, probability: jax.Array, gamma: Any, n: int) -> Sample:
    """n-step samples that begin at `index`, row * B + environment."""
    rows, num_envs = data.reward.shape[:2]
    row, env = index // num_envs, index % num_envs
    reward, discount, last = data.reward[row, env], jnp.full(index.shape, gamma, jnp.float32), row
    running = ~(data.terminated[row, env] | data.truncated[row, env])
    for i in range(1, n):
        at = (row + i) % rows
        reward = reward + jnp.where(running, discount * data.reward[at, env], 0.0)
        discount = jnp.where(running, discount * gamma, discount)
        last = jnp.where(running, at, last)
        running &= ~(data.terminated[at, env] | data.truncated[at, env])
    return Sample(
        obs=jax.tree.map(lambda leaf: leaf[row, env], data.obs),
        action=data.action[row, env],
        reward=reward,
        discount=jnp.where(data.terminated[last, env], 0.0, discount),
        final_obs=jax.tree.map(lambda leaf: leaf[last, env], data.final_obs),
        probability=probability,
        index=index,
    )


def num_rows(capacity: int, num_envs: int, num_steps: int, batch_size: int, num_step_returns: int) -> int:
    """How many time steps of all environments a buffer of `capacity` transitions holds.

    Raises:
      ValueError: if they cannot hold a batch, or n-step sums and one block of rows.
    """
    rows, n = capacity // (num_envs * num_steps) * num_steps, num_step_returns
    if n < 1:
        raise ValueError(f"num_step_returns = {n}: expected an integer >= 1")
    if rows * num_envs < batch_size:
        raise ValueError(
            f"buffer_size = {capacity} holds {rows * num_envs} transitions of whole iterations (num_envs * num_steps = "
            f"{num_envs * num_steps}), fewer than batch_size = {batch_size}; use a buffer_size of at least "
            f"{-(-batch_size // (num_envs * num_steps)) * num_envs * num_steps}, or a smaller batch_size"
        )
    if rows < n + num_steps:
        raise ValueError(
            f"buffer_size = {capacity} holds {rows} steps of {num_envs} environments, fewer than num_step_returns + "
            f"num_steps = {n + num_steps}; use at least {(n + 2 * num_steps) * num_envs}"
        )
    return rows
