"""What a tabular level is worth: finite-horizon dynamic programming over (cell, subset of objects), undiscounted.

No transition matrix is built. Moves are shifts of an array of cells; and since objects come and go independently, the
expectation over what follows is one two-state transition after the other, along each object's own axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.gridworld.environment import ACTIONS, GridWorld
from jaxrl_envs.gridworld.level import Level

Horizon = int | jax.Array | None


def optimal_values(level: Level, env: GridWorld, horizon: Horizon = None) -> jax.Array:
    """Best expected return from every state.

    Args:
      level: may be traced and vmapped.
      env: tabular.
      horizon: steps to go; `level.limit` if None; may be traced, too.
    Returns:
      [env.num_states] float32, by the index that is observed. States in walls or off the square mean nothing.
    Raises:
      ValueError: if `env` is not tabular.
    References:
      Bellman 1957; the dynamics are those of `GridWorld.step`.
    """
    return _iterate(level, env, horizon, lambda q: q.max(0))


def optimal_return(level: Level, env: GridWorld, horizon: Horizon = None) -> jax.Array:
    """Best expected return of an episode, a scalar; arguments as of `optimal_values`."""
    return _at_start(optimal_values(level, env, horizon), level, env)


def policy_values(level: Level, env: GridWorld, policy: jax.Array | None = None, horizon: Horizon = None) -> jax.Array:
    """Expected return of a stationary policy from every state.

    Args:
      level, env, horizon: as of `optimal_values`.
      policy: [env.num_states, 5] probabilities of actions; uniform if None.
    Returns:
      [env.num_states] float32.
    """
    if policy is None:
        return _iterate(level, env, horizon, lambda q: q.mean(0))
    weights = jnp.stack([_to_table(policy[:, a], level, env) for a in range(len(ACTIONS))])
    return _iterate(level, env, horizon, lambda q: (weights * q).sum(0))


def policy_value(level: Level, env: GridWorld, policy: jax.Array | None = None, horizon: Horizon = None) -> jax.Array:
    """Expected return of an episode under a stationary policy, a scalar; arguments as of `policy_values`."""
    return _at_start(policy_values(level, env, policy, horizon), level, env)


def optimal_policy(level: Level, env: GridWorld, max_steps: int) -> jax.Array:
    """Best action in every state, for every number of steps to go.

    Args:
      level, env: as of `optimal_values`.
      max_steps: static; at least the level's limit, to act from its first step on.
    Returns:
      [max_steps, env.num_states] int8: row h - 1 is for h steps to go, that is time `limit - h`. Ties go to
      the lowest: without a discount there is no haste.
    """
    backup = _backup(level, env)

    def step(table: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
        q = backup(table)
        return q.max(0), _from_table(jnp.argmax(q, 0).astype(jnp.int8), level, env)

    return jax.lax.scan(step, jnp.zeros(_table_shape(env)), length=max_steps)[1]


def _iterate(level: Level, env: GridWorld, horizon: Horizon, improve: Callable[[jax.Array], jax.Array]) -> jax.Array:
    backup = _backup(level, env)
    steps = level.limit if horizon is None else horizon
    table = jax.lax.fori_loop(0, steps, lambda _, table: improve(backup(table)), jnp.zeros(_table_shape(env)))
    return _from_table(table, level, env)


def _backup(level: Level, env: GridWorld) -> Callable[[jax.Array], jax.Array]:
    """Values with one step less to go -> values of the five actions, [5, *table].

    A table has one axis per object, [2] * max_objects, and at last the cells of the padded square, row by row: so every
    operation runs along contiguous cells.
    """
    if not env.tabular:
        raise ValueError("values by dynamic programming need a tabular GridWorld, got one with tabular=False")
    num, side = env.max_objects, env.max_side
    place = np.arange(side**2)
    row, column = place // side, place % side
    flat = jnp.minimum(row * level.side + column, side**2 - 1)
    is_free = ~jnp.asarray(level.walls)[flat] & (row < level.side) & (column < level.side)
    here = (
        (jnp.asarray(level.cell)[:, None] == flat) & is_free & jnp.asarray(level.present)[:, None]
    )  # [objects, cells]
    p_respawn = jnp.where(level.present, level.p_respawn, 0.0)

    # What entering a cell with a set of objects earns, and the probability to go on.
    reward, end = jnp.zeros(_table_shape(env)), jnp.zeros(_table_shape(env))
    for i in range(num):
        exists = np.arange(2).reshape([2 if axis == i else 1 for axis in range(num)] + [1])
        reward += exists * here[i] * level.reward[i]
        end += exists * here[i] * level.p_term[i]
    go_on = jnp.maximum(1.0 - end, 0.0)

    def backup(table: jax.Array) -> jax.Array:
        for i in range(num):  # what is there stays unless collected, what is not may come back
            absent, exists = jnp.split(table, 2, i)
            back = absent + p_respawn[i] * (exists - absent)
            table = jnp.concatenate([back, jnp.where(here[i], absent, exists)], i)
        entered = reward + go_on * table
        moves = [_shifted(entered, is_free, offset, inside) for offset, inside in _offsets(side)]
        return jnp.stack([*moves, entered])

    return backup


def _offsets(side: int) -> list[tuple[int, Any]]:
    """For up, down, left, right: how far on the cell lies that a move leads to, and whether that is on the board."""
    place = np.arange(side**2)
    row, column = place // side, place % side
    return [(-side, row > 0), (side, row < side - 1), (-1, column > 0), (1, column < side - 1)]


def _shifted(entered: jax.Array, is_free: jax.Array, offset: int, inside: Any) -> jax.Array:
    """The value of each cell's neighbour, or its own where the way is blocked."""
    open_way = jnp.roll(is_free, -offset) & inside
    return jnp.where(open_way, jnp.roll(entered, -offset, -1), entered)


def _table_shape(env: GridWorld) -> tuple[int, ...]:
    return (2,) * env.max_objects + (env.num_cells,)


def _from_table(table: jax.Array, level: Level, env: GridWorld) -> jax.Array:
    """[*table] -> [num_states]; row-by-row cells of the padded square become cells of the active one."""
    cell = jnp.arange(env.num_cells)
    place = jnp.minimum(cell // level.side, env.max_side - 1) * env.max_side + cell % level.side
    return table.reshape(-1, env.num_cells)[:, place].T.ravel()


def _to_table(values: jax.Array, level: Level, env: GridWorld) -> jax.Array:
    """The inverse of `_from_table`."""
    place = np.arange(env.num_cells)
    cell = jnp.minimum(place // env.max_side * level.side + place % env.max_side, env.num_cells - 1)
    return values.reshape(env.num_cells, -1)[cell].T.reshape(_table_shape(env))


def _at_start(values: jax.Array, level: Level, env: GridWorld) -> jax.Array:
    """The value of the first state: at the start, with every object that the level has."""
    bits = 2 ** np.arange(env.max_objects, dtype=np.int32)[::-1]
    return values[level.start * 2**env.max_objects + jnp.sum(jnp.where(level.present, bits, 0))]
