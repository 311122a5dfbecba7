"""Distributions of levels: what meta-training draws from."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Key
from jaxrl_envs.gridworld.level import WALL, Level
from jaxrl_envs.gridworld.mazes import MAZES


@dataclasses.dataclass(frozen=True)
class LevelDistribution:
    """Ranges that levels are drawn from, ends included; static.

    Args:
      side: cells along an edge, uniform.
      limit: steps of an episode, log-uniform.
      num_objects: uniform; object i is of kind i.
      num_walls: distinct wall cells of the padded square, uniform; those outside the active square do nothing.
      lifetime: agent updates, log-uniform.
      reward: of objects of kinds 1 and up, uniform; the first is drawn from [0, 1).
      p_term, p_respawn: log-uniform.
      drawings: squares of text with "#" for a wall, one of which is drawn, instead of `side` and `num_walls`.

    References:
      Jackson et al. 2023, arXiv:2310.02782, appendix C, and the ranges of their released code.
    """

    side: tuple[int, int] = (4, 10)
    limit: tuple[int, int] = (20, 750)
    num_objects: tuple[int, int] = (1, 5)
    num_walls: int = 15
    lifetime: tuple[int, int] = (1000, 1000)
    reward: tuple[float, float] = (-1.0, 1.0)
    p_term: tuple[float, float] = (0.01, 1.0)
    p_respawn: tuple[float, float] = (0.001, 0.1)
    drawings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.drawings:
            sides = {len(drawing.split()) for drawing in self.drawings}
            if len(sides) > 1 or any(len(d.split()) ** 2 != len("".join(d.split())) for d in self.drawings):
                raise ValueError(f"drawings: expected squares of one size, got sides {sorted(sides)}")
            object.__setattr__(self, "side", (*sides, *sides))
        for name in ("side", "limit", "num_objects", "lifetime", "reward", "p_term", "p_respawn"):
            low, high = getattr(self, name)
            lowest = {"side": 2, "limit": 1, "num_objects": 1, "lifetime": 1, "reward": -np.inf}.get(name, 1e-6)
            highest = 1.0 if name.startswith("p_") else np.inf
            if not lowest <= low <= high <= highest:
                raise ValueError(f"{name} = {(low, high)}: expected {lowest:g} <= low <= high <= {highest:g}")
        if not 0 <= self.num_walls < self.side[0] ** 2:
            raise ValueError(
                f"num_walls = {self.num_walls}: expected at least 0 and fewer than the {self.side[0] ** 2} cells of "
                "the smallest level, so that the start is always free"
            )

    @property
    def max_side(self) -> int:
        """Side to which every level is padded."""
        return self.side[1]

    @property
    def max_objects(self) -> int:
        """Objects to which every level is padded."""
        return self.num_objects[1]

    @property
    def num_kinds(self) -> int:
        """Types of objects."""
        return self.max_objects


_ALL = LevelDistribution()

DISTRIBUTIONS: dict[str, LevelDistribution] = {
    "all": _ALL,
    "all_shortlife": dataclasses.replace(_ALL, lifetime=(250, 250)),
    "all_randlife": dataclasses.replace(_ALL, lifetime=(50, 250)),
    "all_vrandlife": dataclasses.replace(_ALL, lifetime=(10, 250)),
    "small": LevelDistribution((4, 6), (20, 100), (1, 3), 7, (250, 250)),
    "medium": LevelDistribution((6, 8), (100, 250), (2, 4), 10, (1000, 1000)),
    "large": LevelDistribution((8, 10), (250, 750), (2, 5), 15, (2500, 2500)),
    "debug": LevelDistribution((3, 4), (5, 10), (1, 2), 2, (4, 4)),  # the number of walls is ours
    "debug_vrandlife": LevelDistribution((3, 4), (5, 10), (1, 2), 2, (5, 50)),  # ours, for time-aware rules on CPUs
    "mazes": LevelDistribution(limit=(25, 50), lifetime=(2500, 2500), reward=(0.0, 1.0), num_walls=0, drawings=MAZES),
}


def sample_level(key: Key, distribution: LevelDistribution) -> Level:
    """One level; pure, and may be compiled and vmapped over keys.

    Args:
      key: consumed.
      distribution: static.
    Returns:
      A `Level` padded to the distribution's largest. Start and objects are in distinct free cells, uniformly drawn;
      whether they can be reached is not looked at. Should fewer cells be free than there are objects, the last objects
      are not present.
    """
    keys = jax.random.split(key, 8)
    key_side, key_limit, key_number, key_lifetime, key_walls, key_cells, key_reward, key_probabilities = keys
    num, num_cells = distribution.max_objects, distribution.max_side**2
    side = jax.random.randint(key_side, (), distribution.side[0], distribution.side[1] + 1, jnp.int32)
    walls = _sample_walls(key_walls, distribution)

    free = ~walls & (jnp.arange(num_cells) < side**2)
    order = jnp.where(free, jax.random.uniform(key_cells, (num_cells,)), -1.0)
    score, cell = jax.lax.top_k(order, num + 1)
    kind = jnp.arange(num, dtype=jnp.int32)
    number = jax.random.randint(key_number, (), distribution.num_objects[0], distribution.num_objects[1] + 1)

    low, high = distribution.reward
    unit = jax.random.uniform(key_reward, (num,), jnp.float32)
    log_term, log_respawn = jax.random.uniform(key_probabilities, (2, num), jnp.float32)
    return Level(
        side=side,
        walls=walls,
        start=cell[0],
        cell=cell[1:],
        reward=jnp.where(kind == 0, unit, low + (high - low) * unit),
        p_term=_log_uniform(log_term, *distribution.p_term),
        p_respawn=_log_uniform(log_respawn, *distribution.p_respawn),
        kind=kind,
        present=(kind < number) & (score[1:] >= 0),
        limit=_log_uniform_integer(key_limit, *distribution.limit),
        lifetime=_log_uniform_integer(key_lifetime, *distribution.lifetime),
    )


def _sample_walls(key: Key, distribution: LevelDistribution) -> jax.Array:
    num_cells = distribution.max_side**2
    if distribution.drawings:
        drawn = np.array([[cell == WALL for cell in "".join(d.split())] for d in distribution.drawings])
        return jnp.asarray(drawn)[jax.random.randint(key, (), 0, len(drawn))]
    _, chosen = jax.lax.top_k(jax.random.uniform(key, (num_cells,)), distribution.num_walls)
    return jnp.zeros(num_cells, bool).at[chosen].set(True)


def _log_uniform(unit: jax.Array, low: float, high: float) -> jax.Array:
    """From numbers uniform in [0, 1); rounding does not leave the range."""
    return jnp.clip(jnp.exp(math.log(low) + unit * math.log(high / low)), low, high)


def _log_uniform_integer(key: Key, low: int, high: int) -> jax.Array:
    """low … high, i with probability proportional to log((i + 1) / i)."""
    number = jnp.floor(_log_uniform(jax.random.uniform(key), low, high + 1)).astype(jnp.int32)
    return jnp.clip(number, low, high)
