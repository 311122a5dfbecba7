"""MAP-Elites: emit, evaluate, insert, tell the emitter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.algorithm import Algorithm
from jaxrl.evo.evolve import Spread, in_chunks
from jaxrl.qd.archive import Archive, Container, Insertion, individuals_at
from jaxrl.qd.emitters import Emitter
from jaxrl.qd.metrics import Evaluate, archive_metrics
from jaxrl.types import Evaluation, Key, Metrics, Step


@struct.dataclass
class MapElitesState:
    """State of `map_elites`.

    Attributes:
      archive: the individuals that are kept.
      emitter: the emitter's own.
      num_evaluations: int32, individuals evaluated so far, the first population and those that only the emitter
        learnt from included.
    """

    archive: Archive
    emitter: Any
    num_evaluations: jax.Array

    @property
    def params(self) -> Any:
        """What is learnt: the individuals, leaves [C, …]."""
        return self.archive.genotypes

    @property
    def agent(self) -> Any:
        """The fittest individual."""
        return individuals_at(self.archive, jnp.argmax(self.archive.fitness))[0]


def map_elites(
    evaluate: Evaluate,
    emitter: Emitter,
    container: Container,
    init_genotypes: Callable[[Key], Any],
    num_dimensions: int,
    spread: Spread = in_chunks(),
    offset: jax.Array | float = 0.0,
) -> Algorithm:
    """Quality-diversity: the best individual for each kind of behaviour.

    Args:
      evaluate: `(key, own_key, genotype) -> Evaluation` of one individual, descriptor included; both keys are nobody
        else's, so an evaluation that ignores them compares all on the same task.
      emitter: where offspring come from: `iso_line(…)`, `policy_gradient(…)`, a `mixture`.
      container: what is kept: `elites(cells)`, `annealed(…)`, `dominated_novelty(…)`.
      init_genotypes: `(key) -> genotypes [M, …]`, the first population.
      num_dimensions: D, of descriptors.
      spread: how many individuals are evaluated side by side, as in `evolve`.
      offset: added to every fitness in the QD score.
    Returns:
      An `Algorithm`. Metrics: "archive/qd_score", "archive/coverage", "archive/max_fitness"; for each operator
      "operator/NAME_added" (individuals that the archive keeps) and "operator/NAME_improvement" (their summed margin);
      "evolution/evaluations" and "evolution/steps" of the iteration, "evolution/failed" (share without finite
      parameters, fitness and descriptor); "fitness/mean"; and the emitter's.
    Raises:
      ValueError: if descriptors do not have as many numbers as the container has dimensions.
    References:
      Mouret and Clune 2015, arXiv:1504.04909.
    """
    enters = np.concatenate([np.full(operator.num, operator.enters) for operator in emitter.operators])

    def individual(one: Any, key: Key) -> Evaluation:
        genotype, number = one
        key_shared, key_own = jax.random.split(jax.random.fold_in(key, number))
        result = evaluate(key_shared, key_own, genotype)
        _check_descriptor(result.descriptor, num_dimensions)
        # Some environments pay a policy of NaN as they pay any other.
        sound = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(genotype)]).all()
        fitness = jnp.where(sound, jnp.asarray(result.fitness, jnp.float32), jnp.nan)
        return result._replace(fitness=fitness, steps=jnp.asarray(result.steps, jnp.float32))

    def everyone(key: Key, genotypes: Any) -> Evaluation:
        num = jax.tree.leaves(genotypes)[0].shape[0]
        return spread(individual)((genotypes, jnp.arange(num)), key)

    def init(key: Key) -> MapElitesState:
        key_genotypes, key_evaluate, key_emitter = jax.random.split(key, 3)
        genotypes = init_genotypes(key_genotypes)
        evaluation = everyone(key_evaluate, genotypes)
        archive = container.init(genotypes, num_dimensions)
        archive, _ = container.insert(archive, genotypes, evaluation.fitness, evaluation.descriptor)
        num = jnp.int32(evaluation.fitness.shape[0])
        return MapElitesState(archive, emitter.init(key_emitter, archive, genotypes, evaluation), num)

    def step(key: Key, state: MapElitesState, t: Step) -> tuple[MapElitesState, Metrics]:
        key_emit, key_evaluate, key_update = jax.random.split(key, 3)
        genotypes, info = emitter.emit(key_emit, state.emitter, state.archive)
        # Written once: the compiler would draw the variation's noise again for each reader.
        genotypes = jax.lax.optimization_barrier(genotypes)
        evaluation = everyone(key_evaluate, genotypes)
        # NaN enters no archive.
        fitness = jnp.where(enters, evaluation.fitness, jnp.nan)
        archive, insertion = container.insert(state.archive, genotypes, fitness, evaluation.descriptor)
        own, metrics = emitter.update(key_update, state.emitter, archive, genotypes, info, evaluation, insertion)
        state = MapElitesState(archive, own, state.num_evaluations + len(enters))
        return state, _metrics(archive, evaluation, insertion, emitter, offset) | metrics

    return Algorithm(init, step)


def _metrics(
    archive: Archive, evaluation: Evaluation, insertion: Insertion, emitter: Emitter, offset: jax.Array | float
) -> Metrics:
    valid = jnp.isfinite(evaluation.fitness) & jnp.isfinite(evaluation.descriptor).all(-1)
    metrics = {f"archive/{name}": value for name, value in archive_metrics(archive, offset).items()}
    start = 0
    for operator in emitter.operators:
        part = slice(start, start + operator.num)
        start += operator.num
        if operator.enters and operator.num:
            metrics[f"operator/{operator.name}_added"] = insertion.added[part].sum().astype(jnp.float32)
            metrics[f"operator/{operator.name}_improvement"] = insertion.improvement[part].sum()
    return metrics | {
        "fitness/mean": jnp.where(valid, evaluation.fitness, 0.0).sum() / jnp.maximum(valid.sum(), 1),
        "evolution/failed": 1.0 - valid.mean(),
        "evolution/evaluations": jnp.float32(emitter.num),
        "evolution/steps": jnp.sum(jnp.asarray(evaluation.steps)),
    }


def _check_descriptor(descriptor: Any, num_dimensions: int) -> None:
    shape = jnp.shape(descriptor) if not isinstance(descriptor, tuple) else ()
    if shape != (num_dimensions,):
        raise ValueError(f"evaluate gives a descriptor of shape {shape}: expected ({num_dimensions},), as the archive")
