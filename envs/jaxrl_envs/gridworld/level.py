"""`Level`: one grid-world as data, so that a compiled step serves every level of the same padded shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import struct

Object = tuple[float, float, float]  # reward, p_term, p_respawn

WALL, START, FREE = "#", "S", "."
_LIFETIME = 2500  # agent updates, where nothing else is said: GROOVE's at meta-test


@struct.dataclass
class Level:
    """Everything that tells one grid-world from another; all leaves are arrays and may be traced.

    A cell is the flat index `row * side + column` of the active square, so cells >= side**2 are unused.

    Attributes:
      side: int32, cells along one edge of the active square, at most the environment's `max_side`.
      walls: [max_side**2] bool.
      start: int32, the cell in which episodes begin.
      cell: [max_objects] int32, where each object is.
      reward: [max_objects] float32, what collecting it earns.
      p_term: [max_objects] float32, probability that collecting it ends the episode.
      p_respawn: [max_objects] float32, probability per step that it comes back.
      kind: [max_objects] int32, its type, below the environment's `num_kinds`.
      present: [max_objects] bool; where false, there is no such object.
      limit: int32, steps after which an episode ends.
      lifetime: int32, updates after which an agent is no longer trained.
    """

    side: jax.Array
    walls: jax.Array
    start: jax.Array
    cell: jax.Array
    reward: jax.Array
    p_term: jax.Array
    p_respawn: jax.Array
    kind: jax.Array
    present: jax.Array
    limit: jax.Array
    lifetime: jax.Array


def level_from_drawing(
    drawing: str, objects: Sequence[Object], limit: int, lifetime: int = _LIFETIME, max_objects: int | None = None
) -> Level:
    """A level drawn as text, one character per cell.

    Args:
      drawing: as many lines as columns; "#" wall, "." free, "S" start, digit i where object i is.
      objects: (reward, p_term, p_respawn) of each; equal ones are of one kind, kinds are numbered in their order.
      limit: steps of an episode.
      lifetime: agent updates.
      max_objects: to pad to; as many as there are if None.
    Returns:
      A `Level` of NumPy arrays, so that nothing is computed on a device.
    Raises:
      ValueError: if the drawing is no square, or does not show one start and each object once.
    """
    rows = drawing.split()
    side, cells = len(rows), "".join(rows)
    if any(len(row) != side for row in rows):
        raise ValueError(f"expected a square drawing, got rows of {[len(row) for row in rows]} cells; pad them")
    names = [START, *(str(i) for i in range(len(objects)))]
    for name in names:
        if cells.count(name) != 1:
            raise ValueError(f"expected one {name!r} in the drawing, got {cells.count(name)}; objects are 0, 1, …")
    unknown = set(cells) - {WALL, FREE, *names}
    if unknown:
        raise ValueError(f"expected #, ., S and the digits of {len(objects)} objects, got {sorted(unknown)}")
    size = len(objects) if max_objects is None else max_objects
    if size < len(objects):
        raise ValueError(f"max_objects = {size} is fewer than the {len(objects)} objects of the level; raise it")
    table = np.zeros((size, 3), np.float32)
    table[: len(objects)] = np.asarray(objects, np.float32).reshape(-1, 3)
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(objects))}
    absent = size - len(objects)
    build: Any = Level  # its leaves are typed as JAX's
    level: Level = build(
        side=np.asarray(side, np.int32),
        walls=np.array([cell == WALL for cell in cells]),
        start=np.asarray(cells.index(START), np.int32),
        cell=np.array([cells.index(name) for name in names[1:]] + [0] * absent, np.int32),
        reward=table[:, 0],
        p_term=table[:, 1],
        p_respawn=table[:, 2],
        kind=np.array([kinds[obj] for obj in objects] + [0] * absent, np.int32),
        present=np.arange(size) < len(objects),
        limit=np.asarray(limit, np.int32),
        lifetime=np.asarray(lifetime, np.int32),
    )
    return level


def padded(level: Level, max_side: int, max_objects: int) -> Level:
    """The same level in larger arrays: unused cells, and objects that are not present.

    Raises:
      ValueError: if it does not fit.
    """
    cells, objects = max_side**2 - len(level.walls), max_objects - len(level.cell)
    if cells < 0 or objects < 0:
        raise ValueError(
            f"a level padded to {len(level.walls)} cells and {len(level.cell)} objects does not fit into "
            f"{max_side**2} and {max_objects}; raise max_side or max_objects"
        )
    of_objects = {
        name: np.pad(getattr(level, name), (0, objects))
        for name in ("cell", "reward", "p_term", "p_respawn", "kind", "present")
    }
    return level.replace(walls=np.pad(level.walls, (0, cells)), **of_objects)  # type: ignore[attr-defined]
