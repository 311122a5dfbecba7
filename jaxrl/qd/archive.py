"""The archive: the best individual of every cell, filled in batches as if one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.qd.tessellation import Tessellation
from jaxrl.types import Key

NEITHER, IMPROVES, NEW = 0, 1, 2  # what `Insertion.status` says


@struct.dataclass
class Archive:
    """What is kept, one individual per cell; C cells, D dimensions of the descriptor.

    Attributes:
      genotypes: pytree, leaves [C, …]; zeros where a cell is empty.
      fitness: [C], -inf where a cell is empty.
      descriptors: [C, D], of the individuals; zeros where a cell is empty.
      centroids: [C, D], of the cells; `()` where there are none.
      thresholds: [C], of the acceptance of `annealed`; else `()`.
    """

    genotypes: Any
    fitness: jax.Array
    descriptors: jax.Array
    centroids: Any = ()
    thresholds: Any = ()

    @property
    def occupied(self) -> jax.Array:
        """[C] bool."""
        return self.fitness > -jnp.inf


class Insertion(NamedTuple):
    """What became of a batch, leaves [N].

    Attributes:
      status: int32, against the archive as it was before: 2 for an empty cell, 1 for better than the cell's
        individual, 0 for neither.
      added: bool, is it in the archive now?
      margin: by how much its fitness exceeds what it had to beat, its cell's individual or threshold before the batch
        (0 for an empty cell); 0 for individuals that are not valid.
    """

    status: jax.Array
    added: jax.Array
    margin: jax.Array

    @property
    def improvement(self) -> jax.Array:
        """[N], `margin` of those that were added, 0 of the others."""
        return jnp.where(self.added, self.margin, 0.0)


class Container(NamedTuple):
    """A kind of archive.

    Attributes:
      init: `(genotypes [N, …], num_dimensions) -> Archive`, empty; the genotypes are for shapes and dtypes.
      insert: `(archive, genotypes [N, …], fitness [N], descriptors [N, D]) -> (archive, Insertion)`.
    """

    init: Callable[[Any, int], Archive]
    insert: Callable[[Archive, Any, jax.Array, jax.Array], tuple[Archive, Insertion]]


def elites(cells: Tessellation) -> Container:
    """The best individual of each cell: MAP-Elites.

    A batch is inserted as if its individuals came one after the other, so that it can be cut anywhere; who was there
    before wins ties. An individual whose fitness or descriptor is not finite is never kept, and stands in nobody's way.

    References:
      Mouret and Clune 2015, arXiv:1504.04909.
    """

    def init(genotypes: Any, num_dimensions: int) -> Archive:
        _check_dimensions(cells, num_dimensions)
        return empty_archive(genotypes, cells.num_cells, num_dimensions, cells.centroids)

    def insert(
        archive: Archive, genotypes: Any, fitness: jax.Array, descriptors: jax.Array
    ) -> tuple[Archive, Insertion]:
        check_batch(archive, genotypes, fitness, descriptors)
        cell = valid_cells(cells, fitness, descriptors)
        num_cells, num = archive.fitness.shape[0], fitness.shape[0]
        # Invalid individuals have a segment of their own, the last.
        best = jax.ops.segment_max(fitness, cell, num_cells + 1)
        index = jnp.where(fitness == best[cell], jnp.arange(num), num)
        first = jax.ops.segment_min(index, cell, num_cells + 1)
        status = statuses(archive, cell, fitness)
        added = (first[cell] == jnp.arange(num)) & (status > NEITHER)
        margin = _margin(archive.fitness, cell, fitness)
        return _written(archive, cell, added, genotypes, fitness, descriptors), Insertion(status, added, margin)

    return Container(init, insert)


def annealed(cells: Tessellation, learning_rate: jax.Array | float, minimum: jax.Array | float) -> Container:
    """Cells whose threshold rises slowly: an individual above it is kept, `t <- (1 - a) t + a f`.

    A batch is inserted one by one, in its order. With a = 1 this is `elites`, above `minimum`. The fitness of a cell
    may fall, since what passes the threshold replaces what is better: the archive guides the search, and is no record
    of the best that was found.

    Args:
      cells: of descriptor space.
      learning_rate: a, in [0, 1]; may be traced.
      minimum: the first threshold; may be traced. -inf only with a = 1, since what is averaged with it stays there.
    Raises:
      ValueError: for such a minimum.
    References:
      Fontaine and Nikolaidis 2023, arXiv:2205.10752. Differs: the reference implementation averages those of a batch
      that pass one cell's threshold; here the order decides, so that a batch can be cut anywhere.
    """
    if isinstance(learning_rate, float | int) and not 0.0 <= learning_rate <= 1.0:
        raise ValueError(f"learning_rate = {learning_rate:g}: expected a number in [0, 1]")
    at_once = isinstance(learning_rate, float | int) and learning_rate == 1.0
    if isinstance(minimum, float | int) and not np.isfinite(minimum) and not at_once:
        raise ValueError(f"minimum = {minimum:g}: expected a finite threshold unless learning_rate is 1")

    def init(genotypes: Any, num_dimensions: int) -> Archive:
        _check_dimensions(cells, num_dimensions)
        archive = empty_archive(genotypes, cells.num_cells, num_dimensions, cells.centroids)
        return dataclasses.replace(archive, thresholds=jnp.full(cells.num_cells, minimum, jnp.float32))

    def insert(
        archive: Archive, genotypes: Any, fitness: jax.Array, descriptors: jax.Array
    ) -> tuple[Archive, Insertion]:
        check_batch(archive, genotypes, fitness, descriptors)
        cell = valid_cells(cells, fitness, descriptors)
        num_cells, num = archive.fitness.shape[0], fitness.shape[0]
        status = jnp.where(
            (cell < num_cells) & (fitness > _at(archive.thresholds, cell)),
            jnp.where(_at(archive.fitness, cell) > -jnp.inf, IMPROVES, NEW),
            NEITHER,
        )

        def one(carry: tuple[jax.Array, jax.Array], row: Any) -> tuple[tuple[jax.Array, jax.Array], None]:
            thresholds, holder = carry
            cell, value, i = row
            old = _at(thresholds, cell)
            accepted = (cell < num_cells) & (value > old)
            new = jnp.where(learning_rate == 1.0, value, (1.0 - learning_rate) * old + learning_rate * value)
            place = jnp.where(accepted, cell, num_cells)
            return (
                thresholds.at[place].set(new, mode="drop"),
                holder.at[place].set(i, mode="drop"),
            ), None

        # Numbers one by one, individuals all at once.
        carry = (archive.thresholds, jnp.full(num_cells, num, jnp.int32))
        rows = (cell, fitness, jnp.arange(num, dtype=jnp.int32))
        (thresholds, holder), _ = jax.lax.scan(one, carry, rows)
        added = (cell < num_cells) & (_at(holder, cell) == jnp.arange(num))
        written = _written(archive, cell, added, genotypes, fitness, descriptors)
        margin = _margin(archive.thresholds, cell, fitness)
        return dataclasses.replace(written, thresholds=thresholds), Insertion(status, added, margin)

    return Container(init, insert)


def empty_archive(genotypes: Any, num_cells: int, num_dimensions: int, centroids: Any = ()) -> Archive:
    """An archive that holds nobody; `genotypes` [N, …] are for shapes and dtypes."""
    return Archive(
        genotypes=jax.tree.map(lambda leaf: jnp.zeros((num_cells, *leaf.shape[1:]), leaf.dtype), genotypes),
        fitness=jnp.full(num_cells, -jnp.inf, jnp.float32),
        descriptors=jnp.zeros((num_cells, num_dimensions), jnp.float32),
        centroids=centroids if isinstance(centroids, tuple) else jnp.array(centroids, jnp.float32),
    )


def select_cells(key: Key, archive: Archive, num: int) -> jax.Array:
    """Uniform draws of occupied cells, with replacement.

    Args:
      key: consumed.
      archive: may be traced.
      num: N.
    Returns:
      [N] int32; C, which is no cell, if all are empty.
    Raises:
      ValueError: if the archive is known to be empty, outside of any transformation.
    """
    check_not_empty(archive)
    rank = jnp.cumsum(archive.occupied)
    count = rank[-1]
    drawn = jax.random.randint(key, (num,), 0, jnp.maximum(count, 1))
    # The first cell with more than `drawn` occupied ones up to and including itself.
    return jnp.searchsorted(rank, drawn, side="right").astype(jnp.int32)


def select(key: Key, archive: Archive, num: int) -> tuple[Any, jax.Array, jax.Array]:
    """Genotypes [N, …], fitness [N] and descriptors [N, D] of uniform draws of occupied cells, with replacement.

    Under a transformation an empty archive cannot raise: its draws are NaN, which `map_elites` counts as failed.

    Raises:
      ValueError: if the archive is known to be empty.
    """
    return individuals_at(archive, select_cells(key, archive, num))


def individuals_at(archive: Archive, cell: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """Genotypes, fitness and descriptors of cells [N]; NaN (the lowest integer) for an index that is no cell."""

    def take(leaf: jax.Array) -> jax.Array:
        return leaf.at[cell].get(mode="fill")

    return jax.tree.map(take, archive.genotypes), take(archive.fitness), take(archive.descriptors)


def nearest_individual(archive: Archive, descriptor: Any, low: Any, high: Any) -> int:
    """The cell to go to for what one would like to see done; outside of any transformation.

    Args:
      archive: of C cells.
      descriptor: [D], what is to be done.
      low, high: [D], bounds; distances are of descriptors scaled by them.
    Returns:
      The occupied cell whose centroid is nearest, or where there are no centroids, the nearest individual's place.
    Raises:
      ValueError: for a descriptor of another length or that is not finite, or if the archive is empty.
    """
    wanted, low, high = (np.asarray(values, np.float64) for values in (descriptor, low, high))
    if wanted.shape != low.shape or not np.isfinite(wanted).all():
        raise ValueError(f"descriptor = {wanted.tolist()}: expected {len(low)} finite numbers")
    check_not_empty(archive)
    places = archive.descriptors if isinstance(archive.centroids, tuple) else archive.centroids
    apart = np.square((np.asarray(places) - wanted) / (high - low)).sum(-1)
    return int(np.where(np.asarray(archive.occupied), apart, np.inf).argmin())


def check_not_empty(archive: Archive) -> None:
    """Raises ValueError if no cell is occupied; says nothing of an archive that is being traced."""
    if not isinstance(archive.fitness, jax.core.Tracer) and not bool(np.isfinite(archive.fitness).any()):
        raise ValueError(
            "the archive is empty: nobody in it can be selected; insert individuals of finite fitness and descriptor"
        )


def check_batch(archive: Archive, genotypes: Any, fitness: Any, descriptors: Any) -> None:
    """Raises ValueError unless genotypes, fitness and descriptors belong together and into the archive."""
    num, num_dimensions = jnp.shape(fitness), archive.descriptors.shape[1]
    if len(num) != 1 or jnp.shape(descriptors) != (*num, num_dimensions):
        raise ValueError(
            f"fitness {num} and descriptors {jnp.shape(descriptors)}: expected [N] and [N, {num_dimensions}]"
        )
    given: Any = jax.tree.structure(genotypes)
    kept: Any = jax.tree.structure(archive.genotypes)
    if given != kept:
        raise ValueError(f"genotypes are {given}, and the archive keeps {kept}: expected the same structure")
    for leaf, own in zip(jax.tree.leaves(genotypes), jax.tree.leaves(archive.genotypes), strict=True):
        if jnp.shape(leaf) != (*num, *own.shape[1:]):
            raise ValueError(
                f"genotypes have a leaf {jnp.shape(leaf)}: expected {(*num, *own.shape[1:])}, as in the archive"
            )


def valid_cells(cells: Tessellation, fitness: jax.Array, descriptors: jax.Array) -> jax.Array:
    """[N] int32 cell of each individual; C where its fitness or descriptor is not finite."""
    valid = jnp.isfinite(fitness) & jnp.isfinite(descriptors).all(-1)
    return jnp.where(valid, cells.cell_of(descriptors), cells.num_cells)


def statuses(archive: Archive, cell: jax.Array, fitness: jax.Array) -> jax.Array:
    """[N] int32, `Insertion.status` of individuals in cells [N]; C is no cell."""
    incumbent = _at(archive.fitness, cell)
    better = jnp.where(incumbent == -jnp.inf, NEW, jnp.where(fitness > incumbent, IMPROVES, NEITHER))
    return jnp.where(cell < archive.fitness.shape[0], better, NEITHER)


def _at(values: jax.Array, cell: jax.Array) -> jax.Array:
    return values.at[cell].get(mode="clip")


def _margin(bar: jax.Array, cell: jax.Array, fitness: jax.Array) -> jax.Array:
    """[N], fitness above the bars [C] of cells [N]; a bar of -inf counts as 0, and C is no cell."""
    height = _at(bar, cell)
    return jnp.where(cell < bar.shape[0], fitness - jnp.where(height == -jnp.inf, 0.0, height), 0.0)


def _written(
    archive: Archive, cell: jax.Array, added: jax.Array, genotypes: Any, fitness: jax.Array, descriptors: jax.Array
) -> Archive:
    """One scatter per leaf with unique indices: those not added are sent to places of their own, out of range."""
    num_cells, num = archive.fitness.shape[0], fitness.shape[0]
    place = jnp.where(added, cell, num_cells + jnp.arange(num))

    def write(kept: jax.Array, new: jax.Array) -> jax.Array:
        return kept.at[place].set(new.astype(kept.dtype), mode="drop", unique_indices=True)

    return dataclasses.replace(
        archive,
        genotypes=jax.tree.map(write, archive.genotypes, genotypes),
        fitness=write(archive.fitness, fitness),
        descriptors=write(archive.descriptors, descriptors),
    )


def _check_dimensions(cells: Tessellation, num_dimensions: int) -> None:
    if num_dimensions != cells.num_dimensions:
        raise ValueError(
            f"descriptors have {num_dimensions} numbers, and the cells {cells.num_dimensions} dimensions: expected as "
            "many bounds as numbers"
        )
