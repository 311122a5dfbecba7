"""Evolution strategies as emitters: each follows what improves the archive, and begins anew where nothing does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.evo.evolve import Strategy
from jaxrl.qd.archive import NEITHER, Archive, Insertion, select
from jaxrl.qd.emitters import Emitter, Operator
from jaxrl.settings import check_choice
from jaxrl.types import Evaluation, Key, Metrics, Params

RANKINGS = ("two_stage", "improvement", "fitness")
# (how a strategy finds its first parameters) -> that strategy
Make = Callable[[Callable[[Key], Params]], Strategy]


@struct.dataclass
class StrategiesState:
    """State of `strategies`: theirs, leaves [E, …], and [E] int32, for how many iterations nothing came of each."""

    strategies: Any
    idle: jax.Array


class Asked(NamedTuple):
    """What E strategies have asked for: their genomes, leaves [E, N, …], and their states after asking, [E, …]."""

    genomes: Any
    states: Any


def strategies(
    make: Make,
    population: int,
    num_strategies: int = 1,
    ranking: str = "two_stage",
    patience: int = 1,
    name: str = "es",
) -> Emitter:
    """Offspring of evolution strategies that begin at individuals of the archive.

    A strategy is told ranks instead of fitness: the higher, the more its individual does for the archive. One none of
    whose individuals is new or better than what it had to beat, or whose numbers are no longer finite, begins anew: its
    first mean, or each of its first population, is drawn uniformly from the archive.

    Args:
      make: `(init_params) -> Strategy`, called under tracing: `lambda first: evosax_strategy("CMA_ES", first, 32)`.
        Its groups are only counted, since individuals of an archive are evaluated with keys of their own.
      population: N, of each strategy.
      num_strategies: E, side by side.
      ranking: "two_stage" (those that fill an empty cell, by fitness, before those that improve one, by how much,
        before the others; CMA-ME), "improvement" (by the margin over what was to be beaten; CMA-MAE), or "fitness".
      patience: iterations without anything new or better after which a strategy begins anew. Algorithms of
        populations need 2: their first population are individuals that the archive has.
      name: of the operator.
    Returns:
      An `Emitter` of E * N individuals. Its metric "emitter/NAME_restarts" is the share of strategies that begin anew.
    Raises:
      ValueError: for numbers below 1, another ranking, or strategies of another population.
    References:
      Fontaine et al. 2020, arXiv:1912.02400 (CMA-ME, its improvement emitter); Fontaine and Nikolaidis 2023,
      arXiv:2205.10752 (CMA-MAE). Differs: parents are as many as the strategy has them, where CMA-ME takes those that
      improve the archive.
    """
    sizes = {"population": population, "num_strategies": num_strategies, "patience": patience}
    if min(sizes.values()) < 1:
        raise ValueError(f"{', '.join(f'{n} = {v}' for n, v in sizes.items())}: expected at least 1 of each")
    check_choice("ranking", ranking, RANKINGS)

    def made(archive: Archive) -> Strategy:
        strategy = make(lambda key: jax.tree.map(lambda leaf: leaf[0], select(key, archive, 1)[0]))
        if len(strategy.groups) != population:
            raise ValueError(f"strategies have a population of {len(strategy.groups)}: expected {population}, as told")
        return strategy

    def begin(key: Key, archive: Archive) -> Any:
        return jax.vmap(made(archive).init)(split(key))

    def init(key: Key, archive: Archive, genotypes: Any, evaluation: Evaluation) -> StrategiesState:
        return StrategiesState(begin(key, archive), jnp.zeros(num_strategies, jnp.int32))

    def emit(key: Key, state: StrategiesState, archive: Archive) -> tuple[Any, Asked]:
        strategy = made(archive)

        def one(key: Key, state: Any) -> tuple[Any, Any, Any]:
            genomes, state = strategy.ask(key, state)
            return jax.vmap(strategy.decode, (None, 0))(state, genomes), genomes, state

        genotypes, genomes, states = jax.vmap(one)(split(key), state.strategies)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), genotypes), Asked(genomes, states)

    def update(
        key: Key, state: StrategiesState, archive: Archive, genotypes: Any, info: Asked, evaluation: Evaluation,
        insertion: Insertion,
    ) -> tuple[StrategiesState, Metrics]:  # fmt: skip
        key_tell, key_begin = jax.random.split(key)
        strategy = made(archive)
        ranks, nothing = _outcome(evaluation, insertion, ranking, num_strategies)

        def one(key: Key, asked: Asked, ranks: jax.Array) -> Any:
            return strategy.tell(key, asked.states, asked.genomes, Evaluation(ranks))

        told = jax.vmap(one)(split(key_tell), info, ranks)
        idle = jnp.where(nothing, state.idle + 1, 0)
        lost = (idle >= patience) | ~_finite(genotypes, num_strategies)
        anew = begin(key_begin, archive)

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(lost.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        after = StrategiesState(jax.tree.map(choose, anew, told), jnp.where(lost, 0, idle))
        return after, {f"emitter/{name}_restarts": lost.mean()}

    def split(key: Key) -> Key:
        return jax.random.split(key, num_strategies)

    operator = Operator(name, population * num_strategies)
    return Emitter((operator,), init, emit, update)


def ranks_of(valid: jax.Array, stage: jax.Array, worth: jax.Array) -> jax.Array:
    """Ranks 0 … N - 1, the best highest, by stage, then by worth.

    Of equals the earlier is higher, as it is the one that an archive keeps; those that are not valid are lowest.

    Args:
      valid: [N] bool.
      stage: [N] integers.
      worth: [N].
    Returns:
      [N] float32.
    """
    num = worth.shape[0]
    later = -jnp.arange(num)
    order = jnp.lexsort((later, jnp.where(valid, worth, -jnp.inf), jnp.where(valid, stage, -1)))
    return jnp.zeros(num).at[order].set(jnp.arange(num, dtype=jnp.float32), unique_indices=True)


def _outcome(evaluation: Evaluation, insertion: Insertion, ranking: str, num: int) -> tuple[jax.Array, jax.Array]:
    """Of each of `num` strategies the ranks of its individuals, [num, N], and whether none of them gained, [num]."""
    valid = jnp.isfinite(evaluation.fitness) & jnp.isfinite(evaluation.descriptor).all(-1)
    worth = evaluation.fitness if ranking == "fitness" else insertion.margin
    stage = insertion.status if ranking == "two_stage" else jnp.zeros_like(insertion.status)
    ranks = jax.vmap(ranks_of)(*(rows.reshape(num, -1) for rows in (valid, stage, worth)))
    return ranks, (insertion.status == NEITHER).reshape(num, -1).all(1)


def _finite(genotypes: Any, num: int) -> jax.Array:
    """[num] bool: are all numbers of each share of the individuals finite?"""
    leaves = [jnp.isfinite(leaf.reshape(num, -1)).all(1) for leaf in jax.tree.leaves(genotypes)]
    return jnp.stack(leaves).all(0)
