"""Novelty: how far a behaviour is from those nearest to it, among its contemporaries and an archive."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

METRICS = ("euclidean", "sqeuclidean")


class NoveltySearch(NamedTuple):
    """What novelty is.

    Attributes:
      size: D, of the descriptors.
      capacity: of the archive; what does not fit is dropped and counted ("archive/dropped").
      num_neighbours: k, over archive and population.
      metric: "euclidean" or "sqeuclidean".
      batch_size: individuals whose distances exist at once; 0 is all.
    """

    size: int
    capacity: int
    num_neighbours: int = 25
    metric: str = "euclidean"
    batch_size: int = 0


@struct.dataclass
class NoveltyArchive:
    """Behaviours that were kept.

    Attributes:
      entries: [capacity, D]; what lies behind `count` is zero.
      count: int32, entries.
      dropped: int32, how many did not fit.
    """

    entries: jax.Array
    count: jax.Array
    dropped: jax.Array


def init_archive(capacity: int, size: int) -> NoveltyArchive:
    """An empty archive of behaviours [size].

    Raises:
      ValueError: for numbers below 1.
    """
    if capacity < 1 or size < 1:
        raise ValueError(f"capacity = {capacity}, size = {size}: expected at least 1")
    return NoveltyArchive(jnp.zeros((capacity, size)), jnp.int32(0), jnp.int32(0))


def add_to_archive(archive: NoveltyArchive, behaviours: jax.Array, chosen: jax.Array) -> NoveltyArchive:
    """The chosen behaviours behind those that are there, in their order; those that do not fit are counted.

    Args:
      archive: of behaviours [D].
      behaviours: [N, D].
      chosen: [N] bool.
    """
    capacity = len(archive.entries)
    at = jnp.where(chosen, archive.count + jnp.cumsum(chosen) - 1, capacity)
    wanted = archive.count + chosen.sum()
    count = jnp.minimum(wanted, capacity).astype(jnp.int32)
    entries = archive.entries.at[at].set(behaviours.astype(archive.entries.dtype), mode="drop")
    return NoveltyArchive(entries, count, (archive.dropped + wanted - count).astype(jnp.int32))


def novelty(
    behaviours: jax.Array,
    archive: NoveltyArchive,
    k: int,
    metric: str = "euclidean",
    contemporaries: bool = True,
    batch_size: int = 0,
) -> jax.Array:
    """Mean distance to the k nearest: of the archive, and of the other behaviours.

    Args:
      behaviours: [N, D]; one that is not finite has novelty -inf and is nobody's neighbour.
      archive: of behaviours [D].
      k: neighbours, at least 1; where there are fewer, all of them count, and without any novelty is 0.
      metric: "euclidean", or "sqeuclidean", the mean of squared distances.
      contemporaries: whether the other behaviours count as neighbours, too; duplicates of a behaviour do.
      batch_size: rows of distances that exist at once; 0 is all. Memory is this times (N + capacity) times D.
    Returns:
      [N], in the behaviours' units or their squares.
    Raises:
      ValueError: for an unknown metric or k below 1.
    References:
      Lehman & Stanley 2011; Conti et al. 2018, arXiv:1712.06560, sec. 3.1.
    """
    check_novelty(k, metric)
    is_entry = jnp.arange(len(archive.entries)) < archive.count
    points, known = archive.entries, is_entry
    finite = jnp.isfinite(behaviours).all(-1)
    if contemporaries:
        points = jnp.concatenate([jnp.where(finite[:, None], behaviours, 0.0), points])
        known = jnp.concatenate([finite, known])
    num_neighbours = min(k, len(points))

    def one(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        behaviour, index = row
        squares = jnp.sum(jnp.square(points - behaviour), -1)
        is_self = (jnp.arange(len(points)) == index) if contemporaries else jnp.zeros_like(known)
        distances = jnp.where(known & ~is_self, squares if metric == "sqeuclidean" else jnp.sqrt(squares), jnp.inf)
        nearest = -jax.lax.top_k(-distances, num_neighbours)[0]
        found = jnp.isfinite(nearest)
        return jnp.where(found, nearest, 0.0).sum() / jnp.maximum(found.sum(), 1)

    rows = (behaviours, jnp.arange(len(behaviours)))
    means = jax.lax.map(one, rows, batch_size=batch_size) if batch_size else jax.vmap(one)(rows)
    return jnp.where(finite, means, -jnp.inf)


def sequence_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Distance of behaviours over time, [n, D] and [m, D]: the shorter one stays in its last state.

    `jaxrl.evo.episodes.trace` pads this way already, so that the euclidean distance of its traces is this one.

    References:
      Conti et al. 2018, their released code.
    """
    length = max(len(x), len(y))
    padded = [jnp.concatenate([z, jnp.broadcast_to(z[-1], (length - len(z), *z.shape[1:]))]) for z in (x, y)]
    return jnp.sqrt(jnp.sum(jnp.square(padded[0] - padded[1])))


def check_novelty(k: int, metric: str) -> None:
    """Raises ValueError for numbers of neighbours below 1 and unknown metrics."""
    if k < 1:
        raise ValueError(f"num_neighbours = {k}: expected at least 1")
    if metric not in METRICS:
        raise ValueError(f"metric = {metric!r}: expected one of {', '.join(METRICS)}")
