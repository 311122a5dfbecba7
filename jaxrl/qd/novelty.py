"""Dominated novelty search: an archive without cells, in which individuals compete with those fitter than they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.qd.archive import IMPROVES, NEITHER, NEW, Archive, Container, Insertion, check_batch, empty_archive


def dominated_novelty(num_individuals: int, num_neighbors: int = 3) -> Container:
    """Keeps those individuals that are farthest from the fitter ones among all that are known.

    Args:
      num_individuals: C, how many are kept.
      num_neighbors: k of the novelty.
    Returns:
      A `Container` whose archives have no centroids.
    Raises:
      ValueError: for numbers below 1.
    References:
      Bahlous-Boldi et al. 2025, arXiv:2502.00593. Differs: of two that are equally fit, the earlier counts as the
      fitter one, so that copies of the best do not push each other out.
    """
    if num_individuals < 1 or num_neighbors < 1:
        raise ValueError(
            f"num_individuals = {num_individuals}, num_neighbors = {num_neighbors}: expected integers >= 1"
        )

    def init(genotypes: Any, num_dimensions: int) -> Archive:
        return empty_archive(genotypes, num_individuals, num_dimensions)

    def insert(
        archive: Archive, genotypes: Any, fitness: jax.Array, descriptors: jax.Array
    ) -> tuple[Archive, Insertion]:
        check_batch(archive, genotypes, fitness, descriptors)
        valid = jnp.isfinite(fitness) & jnp.isfinite(descriptors).all(-1)
        everyone = (archive.genotypes, archive.fitness, archive.descriptors)
        batch = (genotypes, jnp.where(valid, fitness, -jnp.inf), descriptors)
        pool = jax.tree.map(lambda old, new: jnp.concatenate([old, new.astype(old.dtype)]), everyone, batch)
        score = novelty_of_dominated(pool[1], pool[2], num_neighbors)
        _, kept = jax.lax.top_k(score, num_individuals)
        # Those that are not valid come last, where they must be nobody.
        missing = score[kept] == -jnp.inf
        genotypes, fitness, descriptors = jax.tree.map(lambda leaf: leaf[kept], pool)
        archive = dataclasses.replace(
            archive,
            genotypes=genotypes,
            fitness=jnp.where(missing, -jnp.inf, fitness),
            descriptors=jnp.where(missing[:, None], 0.0, descriptors),
        )
        chosen = jnp.zeros(len(score), bool).at[kept].set(~missing)
        added = chosen[num_individuals:]
        full = everyone[1].min() > -jnp.inf
        status = jnp.where(added, jnp.where(full, IMPROVES, NEW), NEITHER)
        return archive, Insertion(status, added, jnp.where(valid, batch[1], 0.0))

    return Container(init, insert)


def novelty_of_dominated(fitness: jax.Array, descriptors: jax.Array, num_neighbors: int) -> jax.Array:
    """Mean distance to the nearest of those that are fitter.

    Args:
      fitness: [N]; -inf for nobody. Of equals the earlier counts as fitter.
      descriptors: [N, D]. All distances of N to N exist at once.
      num_neighbors: k; where fewer are fitter, their mean.
    Returns:
      [N], in units of the descriptor; inf for the fittest, -inf for nobody.
    """
    num = fitness.shape[0]
    order = jnp.arange(num)
    fitter = (fitness[None] > fitness[:, None]) | ((fitness[None] == fitness[:, None]) & (order[None] < order[:, None]))
    exists = fitness > -jnp.inf
    distance = jnp.sqrt(jnp.square(descriptors[:, None] - descriptors[None]).sum(-1))
    distance = jnp.where(fitter & exists[None], distance, jnp.inf)
    nearest = -jax.lax.top_k(-distance, min(num_neighbors, num))[0]
    known = nearest < jnp.inf
    mean = jnp.where(known, nearest, 0.0).sum(-1) / jnp.maximum(known.sum(-1), 1)
    return jnp.where(exists, jnp.where(known.any(-1), mean, jnp.inf), -jnp.inf)
