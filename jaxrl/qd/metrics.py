"""What an archive is worth: as it stands, evaluated again, and imitated by one actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.evo.evolve import Spread, in_chunks
from jaxrl.qd.archive import Archive, Container
from jaxrl.types import Evaluation, Key, Metrics

Evaluate = Callable[[Key, Key, Any], Evaluation]


def archive_metrics(archive: Archive, offset: jax.Array | float = 0.0) -> Metrics:
    """The usual three numbers.

    Args:
      archive: of C cells.
      offset: added to every fitness in the QD score; at least minus the lowest fitness that there can be, else filling
        a cell may lower the score.
    Returns:
      "qd_score", the sum over occupied cells of fitness plus offset; "coverage", their share in [0, 1]; "max_fitness",
      -inf where nobody is.
    """
    occupied = archive.occupied
    return {
        "qd_score": jnp.where(occupied, archive.fitness + offset, 0.0).sum(),
        "coverage": occupied.mean(),
        "max_fitness": archive.fitness.max(),
    }


def archive_profile(archive: Archive, thresholds: jax.Array) -> jax.Array:
    """[K] int32: how many cells have a fitness of at least each of [K] thresholds."""
    return (archive.fitness[None] >= jnp.asarray(thresholds)[:, None]).sum(1)


def evaluate_again(
    key: Key, genotypes: Any, evaluate: Evaluate, num_evaluations: int = 1, spread: Spread = in_chunks()
) -> Evaluation:
    """Every individual [C] evaluated anew, with keys of its own: `Evaluation`, leaves [C, num_evaluations, …].

    Args:
      key: consumed.
      genotypes: leaves [C, …], those of empty cells included; they are masked later, by `archive.occupied`.
      evaluate: as `map_elites` takes it.
      num_evaluations: M.
      spread: how many are evaluated side by side.
    """
    num = jax.tree.leaves(genotypes)[0].shape[0]

    def one(individual: Any, shared: Any) -> Evaluation:
        cell, number = individual
        own = jax.random.split(jax.random.fold_in(shared[0], number))
        result = evaluate(own[0], own[1], jax.tree.map(lambda leaf: leaf[cell], shared[1]))
        return Evaluation(result.fitness, result.descriptor, jnp.asarray(result.steps, jnp.float32))

    cells = jnp.repeat(jnp.arange(num), num_evaluations)
    result = spread(one)((cells, jnp.arange(num * num_evaluations)), (key, genotypes))
    return jax.tree.map(lambda leaf: leaf.reshape(num, num_evaluations, *leaf.shape[1:]), result)


def reproducibility(archive: Archive, again: Evaluation, offset: jax.Array | float = 0.0) -> Metrics:
    """What to expect of the archive when its individuals are evaluated again.

    Args:
      archive: of C cells with centroids.
      again: from `evaluate_again`, leaves [C, M]; of the archive's genotypes, or of an actor told to do as they do.
      offset: added to every fitness in the score.
    Returns:
      "expected_qd_score", "expected_max_fitness", and "expected_distance": the mean over occupied cells and evaluations
      of the distance between the descriptor and the cell's centroid, in units of the descriptor.
    """
    occupied = archive.occupied
    mean = jnp.where(occupied, again.fitness.mean(1), 0.0)
    distance = jnp.linalg.norm(again.descriptor - archive.centroids[:, None], axis=-1).mean(1)
    return {
        "expected_qd_score": jnp.where(occupied, mean + offset, 0.0).sum(),
        "expected_distance": _mean_over(occupied, distance),
        "expected_max_fitness": jnp.where(occupied, mean, -jnp.inf).max(),
    }


def distillation(archive: Archive, of_actor: Evaluation, offset: jax.Array | float = 0.0) -> Metrics:
    """How well one conditioned actor does what the archive's individuals do.

    Args:
      archive: of C cells.
      of_actor: leaves [C, …]: the actor in each cell's place, told the descriptor of the cell's individual.
      offset: added to every fitness in the score.
    Returns:
      "qd_score" of the actor and "descriptor_error", the mean over occupied cells of the distance between what it did
      and what it was told.
    """
    occupied = archive.occupied
    error = jnp.linalg.norm(of_actor.descriptor - archive.descriptors, axis=-1)
    return {
        "qd_score": jnp.where(occupied, of_actor.fitness + offset, 0.0).sum(),
        "descriptor_error": _mean_over(occupied, error),
    }


def corrected_archive(archive: Archive, again: Evaluation, container: Container) -> Archive:
    """The archive as it would be, had its individuals their median fitness and descriptor.

    Args:
      archive: of C cells.
      again: from `evaluate_again`, leaves [C, M].
      container: that it was filled by.
    References:
      Flageat and Cully 2023, arXiv:2302.00463, the corrected archive.
    """
    fitness = jnp.where(archive.occupied, jnp.median(again.fitness, axis=1), jnp.nan)
    descriptors = jnp.median(again.descriptor, axis=1)
    empty = container.init(archive.genotypes, archive.descriptors.shape[1])
    return container.insert(empty, archive.genotypes, fitness, descriptors)[0]


def _mean_over(mask: jax.Array, values: jax.Array) -> jax.Array:
    """NaN where the mask holds nowhere."""
    return jnp.where(mask, values, 0.0).sum() / jnp.where(mask.any(), mask.sum(), jnp.nan)
