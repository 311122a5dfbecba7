"""How descriptor space is cut into cells: grids, and centroidal Voronoi tessellations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Key

_BLOCK = 2**22  # distances that exist at once


class Tessellation(NamedTuple):
    """Cells of a box of descriptors.

    Attributes:
      low, high: [D], static bounds of the box, in units of the descriptor.
      centroids: [C, D], of the cells.
      cell_of: `(descriptors [N, D]) -> [N] int32`, in [0, C); what is outside of the box goes to the nearest cell.
    """

    low: np.ndarray
    high: np.ndarray
    centroids: Any
    cell_of: Callable[[jax.Array], jax.Array]

    @property
    def num_cells(self) -> int:
        """C."""
        return int(self.centroids.shape[0])

    @property
    def num_dimensions(self) -> int:
        """D."""
        return len(self.low)


def grid(low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray, shape: Sequence[int]) -> Tessellation:
    """Equal boxes, numbered with the last axis fastest; looked up directly, whatever their number.

    A descriptor on an edge belongs to the upper cell, one on `high` to the last.

    Args:
      low, high: [D], static.
      shape: cells along each axis.
    Raises:
      ValueError: for bounds that do not fit, or an axis without cells.
    """
    low, high = checked_bounds(low, high)
    sizes = tuple(int(size) for size in shape)
    if len(sizes) != len(low) or min(sizes) < 1:
        raise ValueError(f"shape = {tuple(shape)}: expected a number of cells >= 1 for each of {len(low)} dimensions")
    axes = [lo + (np.arange(size) + 0.5) * (hi - lo) / size for lo, hi, size in zip(low, high, sizes, strict=True)]
    centroids = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(sizes)).astype(np.float32)
    strides = np.asarray([int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))], np.int32)
    counts = np.asarray(sizes)

    def cell_of(descriptors: jax.Array) -> jax.Array:
        check_width(descriptors, len(low))
        position = counts * ((descriptors - low) / (high - low))
        # Clipped as floats: what lies far outside does not fit into an integer. NaN goes to 0, and nobody asks where.
        index = jnp.nan_to_num(jnp.clip(jnp.floor(position), 0, counts - 1), nan=0.0).astype(jnp.int32)
        return (index * strides).sum(-1)

    return Tessellation(low, high, centroids, cell_of)


def voronoi(
    centroids: Any, low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray, block: int = _BLOCK
) -> Tessellation:
    """The cells nearest to given centroids, exactly; ties go to the lowest index.

    Distances are Euclidean in the box scaled to [0, 1], so that every axis counts alike.

    Args:
      centroids: [C, D]; may be traced.
      low, high: [D], static.
      block: distances that exist at once, at most: bounds the memory of a lookup.
    Raises:
      ValueError: for bounds or centroids that do not fit.
    """
    low, high = checked_bounds(low, high)
    shape = np.shape(centroids)
    if len(shape) != 2 or shape[1] != len(low) or shape[0] < 1:
        raise ValueError(f"centroids have shape {shape}: expected [cells, {len(low)}], as many columns as bounds")
    scaled = (jnp.asarray(centroids, jnp.float32) - low) / (high - low)

    def cell_of(descriptors: jax.Array) -> jax.Array:
        check_width(descriptors, len(low))
        return nearest((descriptors - low) / (high - low), scaled, block)

    return Tessellation(low, high, centroids, cell_of)


def cvt_centroids(
    key: Key,
    num_cells: int,
    low: Sequence[float] | np.ndarray,
    high: Sequence[float] | np.ndarray,
    num_samples: int = 50_000,
    max_iterations: int = 100,
) -> jax.Array:
    """Centroids of a centroidal Voronoi tessellation: k-means of uniform samples of the box.

    Args:
      key: consumed; the same key gives the same centroids.
      num_cells: C.
      low, high: [D], static.
      num_samples: of the box; at least C.
      max_iterations: of Lloyd's algorithm, which ends when centroids no longer move.
    Returns:
      [C, D] float32, for `voronoi`.
    Raises:
      ValueError: for fewer samples than cells.
    References:
      Vassiliades et al. 2018, arXiv:1610.05729; k-means++: Arthur and Vassilvitskii 2007.
    """
    low, high = checked_bounds(low, high)
    if not 1 <= num_cells <= num_samples:
        raise ValueError(f"num_cells = {num_cells}: expected a number in [1, num_samples = {num_samples}]")
    with jax.ensure_compile_time_eval():  # numbers, also where an algorithm is being traced
        key_samples, key_first = jax.random.split(key)
        samples = jax.random.uniform(key_samples, (num_samples, len(low)))
        return low + (high - low) * _k_means(key_first, samples, num_cells, max_iterations)


def nearest(points: jax.Array, centroids: jax.Array, block: int = _BLOCK) -> jax.Array:
    """For each of [N, D] the index of the nearest of [C, D], int32; ties go to the lowest.

    Differences are squared as they are: the expansion |c|^2 - 2 d c would be quicker and confuse neighbours.
    """
    num_cells, width = centroids.shape
    index = jnp.arange(num_cells, dtype=jnp.int32)

    def distance(rows: jax.Array, others: jax.Array) -> jax.Array:
        return sum((jnp.square(rows[..., i] - others[..., i]) for i in range(width)), jnp.float32(0.0))

    def one_block(rows: jax.Array) -> jax.Array:
        # Three plain reductions run several times as fast as an argmin, which carries the index along. Each of them
        # may round the same distances in its own way, hence the margin, and the two who remain are compared again.
        apart = distance(rows[:, None], centroids[None])
        close = apart <= apart.min(1, keepdims=True) * (1.0 + (width + 2) * jnp.finfo(jnp.float32).eps)
        low = jnp.where(close, index, num_cells - 1).min(1)
        high = jnp.where(close, index, 0).max(1)
        return jnp.where(distance(rows, centroids[high]) < distance(rows, centroids[low]), high, low)

    num, size = points.shape[0], max(1, block // num_cells)
    if num <= size:
        return one_block(points)
    padded = -(-num // size) * size
    rows = jnp.concatenate([points, jnp.broadcast_to(points[:1], (padded - num, width))])
    return jax.lax.map(one_block, rows.reshape(-1, size, width)).reshape(-1)[:num]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _k_means(key: Key, samples: jax.Array, num: int, max_iterations: int) -> jax.Array:
    key_first, key_others = jax.random.split(key)
    first = samples[jax.random.randint(key_first, (), 0, len(samples))]

    def choose(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """k-means++: the next centroid is a sample, with probability in proportion to its squared distance."""
        chosen, distance = carry
        total = jnp.cumsum(distance)
        drawn = jax.random.uniform(jax.random.fold_in(key_others, i)) * total[-1]
        at = jnp.minimum(jnp.searchsorted(total, drawn, side="right"), len(samples) - 1)
        new = samples[at]
        return chosen.at[i].set(new), jnp.minimum(distance, jnp.square(samples - new).sum(-1))

    start = jnp.broadcast_to(first, (num, samples.shape[1]))
    centroids, _ = jax.lax.fori_loop(1, num, choose, (start, jnp.square(samples - first).sum(-1)))

    def moving(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        # As scikit-learn: the squared moves of all centroids together, against the variance of the samples.
        return (carry[2] < max_iterations) & (carry[1] > 1e-4 * samples.var(0).mean())

    def lloyd(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        centroids, _, count = carry
        cell = nearest(samples, centroids)
        size = jax.ops.segment_sum(jnp.ones(len(samples)), cell, num)
        mean = jax.ops.segment_sum(samples, cell, num) / jnp.maximum(size, 1.0)[:, None]
        moved = jnp.where(size[:, None] > 0, mean, centroids)
        return moved, jnp.square(moved - centroids).sum(), count + 1

    return jax.lax.while_loop(moving, lloyd, (centroids, jnp.float32(jnp.inf), jnp.int32(0)))[0]


def checked_bounds(low: Any, high: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as float32 [D].

    Raises:
      ValueError: unless they are finite, of one length, and in order.
    """
    lows, highs = (np.atleast_1d(np.asarray(bound, np.float32)) for bound in (low, high))
    if lows.ndim != 1 or lows.shape != highs.shape or not len(lows):
        raise ValueError(f"bounds have shapes {lows.shape} and {highs.shape}: expected two vectors of one length")
    if not (np.isfinite(lows) & np.isfinite(highs)).all():
        raise ValueError(f"low = {lows.tolist()}, high = {highs.tolist()}: expected finite bounds of the descriptor")
    if not (lows < highs).all():
        raise ValueError(
            f"low = {lows.tolist()}, high = {highs.tolist()}: expected low < high on every axis; swap them"
        )
    return lows, highs


def check_width(descriptors: Any, num_dimensions: int) -> None:
    """Raises ValueError unless descriptors have shape [N, num_dimensions]."""
    shape = jnp.shape(descriptors)
    if len(shape) != 2 or shape[1] != num_dimensions:
        raise ValueError(f"descriptors have shape {shape}: expected [N, {num_dimensions}], as many numbers as bounds")
