"""`evolve`: a strategy proposes individuals, they are evaluated, it is told how they fared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.algorithm import Algorithm
from jaxrl.types import Evaluation, Key, Metrics, Params, Step

# (one individual, what all share) -> its outcome
Individual = Callable[[Any, Any], Any]
# the same for all individuals, leaves [N, …]
Spread = Callable[[Individual], Callable[[Any, Any], Any]]


def _nothing(state: Any) -> Metrics:
    return {}


class Strategy(NamedTuple):
    """How a population is made and learnt from: pure functions over a state of their own.

    A genome may be anything that `decode` makes parameters of: a seed, for instance, so that the parameters of a whole
    population never exist at once.

    Attributes:
      init: `(key) -> state`.
      ask: `(key, state) -> (genomes [N, …], state)`.
      decode: `(state, genome) -> params` of one individual.
      tell: `(key, state, genomes [N, …], Evaluation [N]) -> state`.
      groups: [N] int, static; individuals of one group are evaluated with the same key, and so on the same task.
      describe: `(state) -> Metrics`, after each generation.
    """

    init: Callable[[Key], Any]
    ask: Callable[[Key, Any], tuple[Any, Any]]
    decode: Callable[[Any, Any], Params]
    tell: Callable[[Key, Any, Any, Evaluation], Any]
    groups: Sequence[int] | np.ndarray
    describe: Callable[[Any], Metrics] = _nothing


def in_chunks(batch_size: int = 0) -> Spread:
    """Evaluates `batch_size` individuals side by side, chunk after chunk; 0 is all at once, 1 without any `vmap`.

    Raises:
      ValueError: for a negative number.
    """
    if batch_size < 0:
        raise ValueError(f"batch_size = {batch_size}: expected a number of individuals, or 0 for all")

    def spread(one: Individual) -> Callable[[Any, Any], Any]:
        def everyone(individuals: Any, shared: Any) -> Any:
            num = jax.tree.leaves(individuals)[0].shape[0]
            if batch_size == 0 or batch_size >= num:
                return jax.vmap(one, (0, None))(individuals, shared)
            size = None if batch_size == 1 else batch_size
            return jax.lax.map(lambda individual: one(individual, shared), individuals, batch_size=size)

        return everyone

    return spread


def evolve(
    strategy: Strategy,
    evaluate: Callable[[Key, Key, Params], Evaluation],
    spread: Spread = in_chunks(),
) -> Algorithm:
    """Each step is a generation: ask, decode and evaluate in chunks, tell. Maximises.

    Args:
      strategy: its state is the algorithm's.
      evaluate: `(key, own_key, params) -> Evaluation` of one individual, called under tracing. `key` is the same, bit
        for bit, for all of a group, `own_key` for nobody else; a task that draws everything from `key` compares the
        members of a group on common random numbers.
      spread: turns a function `(individual, shared)` into one of all individuals, leaves [N, …]: `in_chunks(64)`, or
        one that lays them out over devices, `lambda one: jaxrl.runtime.over_runs(one, layout)`.
    Returns:
      An `Algorithm`. Metrics: "fitness/mean", "fitness/best", "fitness/std" over those that did not fail,
      "evolution/failed" (share of the population whose fitness was NaN, which then counts as -inf), "evolution/steps"
      (environment steps), and what the strategy says of itself.
    Raises:
      ValueError: if the strategy has no groups.
    """
    groups = np.asarray(strategy.groups, np.int32)
    if groups.ndim != 1 or not len(groups):
        raise ValueError(f"expected groups [N] of at least one individual, got shape {groups.shape}")

    def individual(one: Any, shared: Any) -> Evaluation:
        genome, group, number = one
        key_groups, key_own, state = shared
        params = strategy.decode(state, genome)
        result = evaluate(jax.random.fold_in(key_groups, group), jax.random.fold_in(key_own, number), params)
        return result._replace(steps=jnp.asarray(result.steps, jnp.float32))

    def step(key: Key, state: Any, t: Step) -> tuple[Any, Metrics]:
        key_ask, key_groups, key_own, key_tell = jax.random.split(key, 4)
        genomes, state = strategy.ask(key_ask, state)
        individuals = (genomes, jnp.asarray(groups), jnp.arange(len(groups)))
        evaluation = spread(individual)(individuals, (key_groups, key_own, state))
        metrics = _summary(evaluation)
        fitness = jnp.where(jnp.isnan(evaluation.fitness), -jnp.inf, evaluation.fitness)
        state = strategy.tell(key_tell, state, genomes, evaluation._replace(fitness=fitness))
        return state, metrics | strategy.describe(state)

    return Algorithm(strategy.init, step)


def _summary(evaluation: Evaluation) -> Metrics:
    fitness = evaluation.fitness
    return {
        "fitness/mean": jnp.nanmean(fitness),
        "fitness/best": jnp.nanmax(fitness),
        "fitness/std": jnp.nanstd(fitness),
        "evolution/failed": jnp.isnan(fitness).mean(),
        "evolution/steps": jnp.sum(jnp.asarray(evaluation.steps)),
    }
