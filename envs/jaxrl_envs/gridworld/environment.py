"""The grid-world: an agent that walks a walled square and collects objects which come back."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Discrete, Indexed, Space
from jaxrl.types import Key, Timestep
from jaxrl_envs.gridworld.distributions import LevelDistribution, sample_level
from jaxrl_envs.gridworld.level import Level, level_from_drawing

ACTIONS = ("up", "down", "left", "right", "stay")
TIME_SCALE = 0.001  # of the feature that tells the time
_COINS_PER_WORD = 3
_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@struct.dataclass
class GridState:
    """State of a `GridWorld`.

    Attributes:
      row, column: int32 scalars, where the agent is.
      exists: [max_objects] bool, which objects there are now.
      time: int32 scalar, steps since the reset.
      cell: [max_objects] int32, where the objects are or last were; `()` in tabular worlds, where they never move.
    """

    row: jax.Array
    column: jax.Array
    exists: jax.Array
    time: jax.Array
    cell: Any


@dataclasses.dataclass(frozen=True, eq=False)
class GridWorld:
    """A family of grid-worlds with the same shapes; the level is the environment's `params`, traced.

    One step: the agent moves, unless a wall or the edge is in the way; it collects the object in its cell; absent
    objects come back, each with its `p_respawn`; what was collected is gone, for one step at least; the reward is the
    sum over collected objects; the episode ends with the sum of their `p_term`, or at the level's limit, which is
    a termination too, because the observation tells the time.

    Tabular worlds observe which of `max_side**2 * 2**max_objects` states they are in (the index of
    (cell, exists_0, exists_1, …) in C order) and 0.001 * time. The others observe a one-hot agent cell, one plane of
    cells per kind of object, and 0.001 * time; in them, objects stand in random free cells: on a reset off the start,
    and whenever they come back (it may be where the agent is). If no cell is free, they stay away.

    Args:
      max_side: cells along an edge, of the largest level.
      max_objects: objects of the fullest level.
      num_kinds: types of objects.
      tabular: which of the two it is.
      level: the default parameters; if None, an open square with one final reward in the last corner.
      distribution: what `sample_params` draws from; if None, it gives the default parameters.
      levels: the finite set, leaves [M, …], that it draws from instead.

    References:
      Oh et al. 2020, arXiv:2007.08794, appendix A; Jackson et al. 2023, arXiv:2310.02782, appendix C. Differs: objects
      are collected by walking onto them, as in the latter's; random ones never come back in a wall.
    """

    max_side: int
    max_objects: int
    num_kinds: int
    tabular: bool = True
    level: Level | None = dataclasses.field(default=None, repr=False)
    distribution: LevelDistribution | None = dataclasses.field(default=None, repr=False)
    levels: Level | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.max_side < 2 or self.max_objects < 1 or self.num_kinds < 1:
            raise ValueError(
                "GridWorld needs max_side >= 2, max_objects >= 1 and num_kinds >= 1, "
                f"got {self.max_side}, {self.max_objects} and {self.num_kinds}"
            )
        if self.tabular and self.num_states >= 2**24:
            raise ValueError(
                f"a tabular GridWorld needs max_side**2 * 2**max_objects < 2**24, got {self.num_states}; "
                "use fewer objects, or tabular=False"
            )
        if self.level is not None:
            shapes = (np.shape(self.level.walls), np.shape(self.level.cell))
            if shapes != ((self.num_cells,), (self.max_objects,)):
                raise ValueError(
                    f"expected a level padded to walls [{self.num_cells}] and cell [{self.max_objects}], got {shapes}"
                )

    @property
    def num_cells(self) -> int:
        """Cells of the largest level."""
        return self.max_side**2

    @property
    def num_states(self) -> int:
        """Tabular states: cells times subsets of objects."""
        return self.num_cells * 2**self.max_objects

    @property
    def default_params(self) -> Level:
        """The level that the environment was made with."""
        return _open_square(self.max_side, self.max_objects) if self.level is None else self.level

    def sample_params(self, key: Key) -> Level:
        """A level, its leaves arrays: for domain randomisation and meta-training."""
        if self.levels is not None:
            index = jax.random.randint(key, (), 0, len(self.levels.side))
            return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], self.levels)
        level = self.default_params if self.distribution is None else sample_level(key, self.distribution)
        return jax.tree.map(jnp.asarray, level)

    def optimal_return(self, params: Level) -> jax.Array:
        """Best expected return of an episode, undiscounted; of tabular worlds, by `gridworld.optimal_return`."""
        from jaxrl_envs.gridworld.solution import optimal_return

        return optimal_return(params, self)

    def reset(self, key: Key, params: Level) -> tuple[GridState, jax.Array]:
        """A first state and its observation: at the start, with all objects."""
        cell: Any = ()
        exists = jnp.asarray(params.present)
        if not self.tabular:
            is_open = _open_cells(params) & (jnp.arange(self.num_cells) != params.start)
            uniform = jax.random.uniform(key, (self.max_objects,), jnp.float32)
            cell, exists = _place(uniform, exists, jnp.zeros_like(exists), params.cell, is_open)
        row = params.start // params.side
        state = GridState(row, params.start - row * params.side, exists, jnp.int32(0), cell)
        return state, self._observe(state, params)

    def step(self, key: Key, state: GridState, action: jax.Array, params: Level) -> tuple[GridState, Timestep]:
        """The next state, and what the agent sees of it."""
        row, column = _move(state, action, params)
        cell = params.cell if self.tabular else state.cell
        collected = state.exists & (row * params.side + column == cell)
        p_end = jnp.sum(jnp.where(collected, params.p_term, 0.0))
        p_return = jnp.where(params.present & ~state.exists, params.p_respawn, 0.0)
        # One draw for all: it is most of what a step costs.
        num, num_words = self.max_objects, _num_words(self.max_objects + 1)
        uniform = jax.random.uniform(key, (num_words if self.tabular else num_words + num,), jnp.float32)
        flips = _flip(uniform[:num_words], jnp.concatenate([p_end[None], p_return]))
        returning = flips[1:]
        if not self.tabular:
            cell, returning = _place(uniform[num_words:], returning, state.exists, cell, _open_cells(params))
        exists = (state.exists & ~collected) | returning
        time = state.time + 1
        state = GridState(row, column, exists, time, () if self.tabular else cell)
        obs = self._observe(state, params)
        timestep = Timestep(
            obs=obs,
            reward=jnp.sum(jnp.where(collected, params.reward, 0.0)),
            terminated=flips[0] | (time >= params.limit),
            truncated=jnp.array(False),
            final_obs=obs,
            info={},
        )
        return state, timestep

    def observation_space(self, params: Level) -> Space:
        """`Indexed(num_states, 1)`, or a Box of one axis."""
        del params
        if self.tabular:
            return Indexed(self.num_states, 1)
        size = self.num_cells * (1 + self.num_kinds)
        return Box(0.0, (1.0,) * size + (np.inf,), (size + 1,))

    def action_space(self, params: Level) -> Space:
        """Up, down, left, right, stay."""
        del params
        return Discrete(len(ACTIONS))

    def image(self, state: GridState, params: Level) -> np.ndarray:
        """The picture of a concrete state, [height, width, 3] uint8; on the host."""
        from jaxrl_envs.gridworld.drawing import level_image

        return level_image(params, state)

    def path_image(self, states: GridState, params: Level) -> np.ndarray:
        """The same after concrete states [T, …], with the way that led there."""
        from jaxrl_envs.gridworld.drawing import level_image

        cells = np.asarray(states.row) * int(params.side) + np.asarray(states.column)
        return level_image(params, jax.tree.map(lambda leaf: leaf[-1], states), cells=cells.tolist())

    def _observe(self, state: GridState, params: Level) -> jax.Array:
        cell = state.row * params.side + state.column
        time = TIME_SCALE * state.time.astype(jnp.float32)
        if self.tabular:
            bits = 2 ** np.arange(self.max_objects, dtype=np.int32)[::-1]
            index = cell * 2**self.max_objects + jnp.sum(jnp.where(state.exists, bits, 0))
            return jnp.stack([index.astype(jnp.float32), time])
        is_there = (state.cell[:, None] == jnp.arange(self.num_cells)) & state.exists[:, None]
        is_kind = params.kind == jnp.arange(self.num_kinds)[:, None]
        planes = (is_kind[:, :, None] & is_there).any(1)
        agent = jnp.arange(self.num_cells) == cell
        return jnp.concatenate([agent.astype(jnp.float32), planes.ravel().astype(jnp.float32), time[None]])


def _move(state: GridState, action: jax.Array, level: Level) -> tuple[jax.Array, jax.Array]:
    """Row and column after an action."""
    last = level.side - 1
    row = jnp.clip(state.row + (action == 1) - (action == 0), 0, last)
    column = jnp.clip(state.column + (action == 3) - (action == 2), 0, last)
    blocked = jnp.asarray(level.walls)[row * level.side + column]
    return jnp.where(blocked, state.row, row), jnp.where(blocked, state.column, column)


def _open_cells(level: Level) -> jax.Array:
    """[num_cells] bool: in the active square, and no wall."""
    return ~jnp.asarray(level.walls) & (jnp.arange(len(level.walls)) < level.side**2)


def _num_words(num_coins: int) -> int:
    return -(-num_coins // _COINS_PER_WORD)


def _flip(uniform: jax.Array, p: jax.Array) -> jax.Array:
    """Independent coins from fewer uniform numbers: what a flip leaves of its number is uniform again.

    A coin with p = 0 or 1 takes nothing from its number; heads of probability p take log2(1 / p) of its 23 bits.

    Args:
      uniform: [num_words] in [0, 1).
      p: [num_coins] probabilities of heads, at most `_COINS_PER_WORD` for each number.
    Returns:
      [num_coins] bool.
    """
    heads = []
    for first in range(0, p.shape[0], uniform.shape[0]):
        chance = p[first : first + uniform.shape[0]]
        uniform = uniform[: chance.shape[0]]
        head = uniform < chance
        heads.append(head)
        rest = (uniform - jnp.where(head, 0.0, chance)) / jnp.where(head, chance, 1.0 - chance)
        uniform = jnp.minimum(rest, _BELOW_ONE)  # rounding could reach 1, at which a certain coin would fail
    return jnp.concatenate(heads)


def _place(
    uniform: jax.Array, wanted: jax.Array, occupying: jax.Array, cell: jax.Array, is_open: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Puts the wanted objects, one after the other, into uniformly drawn free cells.

    Args:
      uniform: [num] in [0, 1).
      wanted: [num] bool; the others keep their cell.
      occupying: [num] bool, objects whose cells are taken; not those that are wanted.
      cell: [num] int32.
      is_open: [num_cells] bool, cells in which there may be objects.
    Returns:
      New cells, and which objects were placed: fewer than wanted if no cell is left.
    """
    num = uniform.shape[0]
    number, skipped = jnp.arange(num), jnp.arange(num + 1)
    # Cells are counted by rank among the open ones; what depends on the level alone can be hoisted out of a loop.
    rank = jnp.sum(is_open & (jnp.arange(is_open.shape[0]) < cell[:, None]), 1)
    placed = jnp.zeros(num, bool)
    for i in range(num):
        num_free = jnp.sum(is_open) - jnp.sum(occupying)
        # The free rank number `target` is as many further on as there are taken ones up to it.
        target = (uniform[i] * num_free).astype(rank.dtype) + skipped
        is_at = occupying & (rank == target[:, None])
        num_before = jnp.sum(occupying & (rank <= target[:, None]), 1)
        chosen = jnp.sum(jnp.where((num_before == skipped) & ~is_at.any(1), target, 0))
        now = (number == i) & wanted[i] & (num_free > 0)
        rank, occupying, placed = jnp.where(now, chosen, rank), occupying | now, placed | now
    chosen_cell = jnp.sum(jnp.cumsum(is_open) <= rank[:, None], 1)
    return jnp.where(placed, chosen_cell, cell).astype(jnp.int32), placed


def _open_square(side: int, max_objects: int) -> Level:
    cells = f"S{'.' * (side**2 - 2)}0"
    drawing = "\n".join(cells[first : first + side] for first in range(0, side**2, side))
    return level_from_drawing(drawing, [(1.0, 1.0, 0.0)], limit=10 * side, max_objects=max_objects)
