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
# (the group's key, one's own, parameters) -> outcome of one individual
Evaluate = Callable[[Key, Key, Params], Evaluation]
_AGAIN = 0x61676E  # folded into a generation's key for its second evaluation


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
      again: `(key, state, genomes [N, …], Evaluation [N]) -> (genomes [C, …], state)`, who is evaluated a second time,
        all of them with one key, before `tell`; which then takes those genomes and their `Evaluation` [C], too.
      solution: `(state) -> params`, what it has found: a mean, a champion.
    """

    init: Callable[[Key], Any]
    ask: Callable[[Key, Any], tuple[Any, Any]]
    decode: Callable[[Any, Any], Params]
    tell: Callable[..., Any]
    groups: Sequence[int] | np.ndarray
    describe: Callable[[Any], Metrics] = _nothing
    again: Callable[[Key, Any, Any, Evaluation], tuple[Any, Any]] | None = None
    solution: Callable[[Any], Params] | None = None


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


def evenly(spread: Spread, multiple: int) -> Spread:
    """A spread that needs numbers of individuals that `multiple` divides, such as one over devices, for any number.

    The last individual is evaluated several times to fill up, and counts once.

    Raises:
      ValueError: for a multiple below 1.
    """
    if multiple < 1:
        raise ValueError(f"multiple = {multiple}: expected at least 1")

    def padded(one: Individual) -> Callable[[Any, Any], Any]:
        whole = spread(one)

        def everyone(individuals: Any, shared: Any) -> Any:
            num = jax.tree.leaves(individuals)[0].shape[0]
            index = np.minimum(np.arange(-(-num // multiple) * multiple), num - 1)
            results = whole(jax.tree.map(lambda leaf: leaf[index], individuals), shared)
            return jax.tree.map(lambda leaf: leaf[:num], results)

        return everyone

    return padded


def evolve(
    strategy: Strategy,
    evaluate: Evaluate,
    spread: Spread = in_chunks(),
    evaluate_again: Evaluate | None = None,
) -> Algorithm:
    """Each step is a generation: ask, decode and evaluate in chunks, tell. Maximises.

    Args:
      strategy: its state is the algorithm's.
      evaluate: `(key, own_key, params) -> Evaluation` of one individual, called under tracing. `key` is the same, bit
        for bit, for all of a group, `own_key` for nobody else; a task that draws everything from `key` compares the
        members of a group on common random numbers.
      spread: turns a function `(individual, shared)` into one of all individuals, leaves [N, …]: `in_chunks(64)`, or
        one that lays them out over devices, `lambda one: jaxrl.runtime.over_runs(one, layout)` (see `evenly`).
      evaluate_again: for those whom the strategy wants to see a second time, with more episodes for instance; `None`
        is `evaluate`.
    Returns:
      An `Algorithm`. Metrics: "fitness/mean", "fitness/median", "fitness/best", "fitness/std" over those that did not
      fail, "evolution/failed" (share of the population whose fitness was NaN, which then counts as -inf),
      "evolution/steps" (environment steps of all evaluations), and what the strategy says of itself.
    Raises:
      ValueError: if the strategy has no groups.
    """
    groups = np.asarray(strategy.groups, np.int32)
    if groups.ndim != 1 or not len(groups):
        raise ValueError(f"expected groups [N] of at least one individual, got shape {groups.shape}")

    def assess(assessor: Evaluate, genomes: Any, state: Any, keys: tuple[Key, Key], groups: np.ndarray) -> Evaluation:
        def individual(one: Any, shared: Any) -> Evaluation:
            genome, group, number = one
            key_groups, key_own, state = shared
            params = strategy.decode(state, genome)
            result = assessor(jax.random.fold_in(key_groups, group), jax.random.fold_in(key_own, number), params)
            return result._replace(steps=jnp.asarray(result.steps, jnp.float32))

        individuals = (genomes, jnp.asarray(groups), jnp.arange(len(groups)))
        return spread(individual)(individuals, (*keys, state))

    def step(key: Key, state: Any, t: Step) -> tuple[Any, Metrics]:
        key_ask, key_groups, key_own, key_tell = jax.random.split(key, 4)
        genomes, state = strategy.ask(key_ask, state)
        evaluation = assess(evaluate, genomes, state, (key_groups, key_own), groups)
        metrics = _summary(evaluation)
        evaluation = _failures_last(evaluation)
        if strategy.again is None:
            state = strategy.tell(key_tell, state, genomes, evaluation)
            return state, metrics | strategy.describe(state)
        key_choose, key_second, key_own = jax.random.split(jax.random.fold_in(key, _AGAIN), 3)
        few, state = strategy.again(key_choose, state, genomes, evaluation)
        alike = np.zeros(jax.tree.leaves(few)[0].shape[0], np.int32)
        second = assess(evaluate_again or evaluate, few, state, (key_second, key_own), alike)
        metrics["evolution/steps"] += jnp.sum(second.steps)
        state = strategy.tell(key_tell, state, genomes, evaluation, few, _failures_last(second))
        return state, metrics | strategy.describe(state)

    return Algorithm(strategy.init, step)


def _failures_last(evaluation: Evaluation) -> Evaluation:
    return evaluation._replace(fitness=jnp.where(jnp.isnan(evaluation.fitness), -jnp.inf, evaluation.fitness))


def _summary(evaluation: Evaluation) -> Metrics:
    fitness = evaluation.fitness
    return {
        "fitness/mean": jnp.nanmean(fitness),
        "fitness/median": jnp.nanmedian(fitness),
        "fitness/best": jnp.nanmax(fitness),
        "fitness/std": jnp.nanstd(fitness),
        "evolution/failed": jnp.isnan(fitness).mean(),
        "evolution/steps": jnp.sum(jnp.asarray(evaluation.steps)),
    }
