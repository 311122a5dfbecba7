"""The Deep GA: truncation selection by fitness or novelty, mutation only, an elite found by evaluating the best again.

Individuals are seeds: a child is the place of its parent in a small cache, a seed and a power. The parameters of the
population exist only while they are evaluated, and those of the parents in the cache; what is kept for ever of an
individual is its genome of seeds.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.evo.evolve import Strategy
from jaxrl.evo.novelty import NoveltyArchive, NoveltySearch, add_to_archive, check_novelty, init_archive, novelty
from jaxrl.evo.seeds import SeedCodec, SeedGenome, check_key, extend, founder, quantize
from jaxrl.types import Evaluation, Key, Metrics

_CACHE_NUMBERS = 2**20  # of parameters that are rebuilt side by side
_WORST = float(np.finfo(np.float32).min)


class DeepGAHparams(NamedTuple):
    """The numbers of `deep_ga`; may be traced. Generation g mutates with `max(sigma * sigma_decay^g, sigma_floor)`.

    Attributes:
      sigma: deviation of mutations, in units of the parameters.
      archive_probability: with which each individual's behaviour is kept, for novelty.
    """

    sigma: Any = 0.002
    sigma_decay: Any = 1.0
    sigma_floor: Any = 0.0
    archive_probability: Any = 0.01


@struct.dataclass
class DeepGAState:
    """State of `deep_ga`.

    Attributes:
      cache: float32 [S, D], parameters of those who have a place: the champion first, then parents.
      lineage: their genomes, leaves [S, L].
      champion_fitness: its mean fitness when it was last evaluated again; 0 before the first generation.
      champion_stayed: bool, the last generation found no better one.
      generation: int32, generations so far.
      archive: behaviours that were kept; `()` without novelty.
      novelty_mean, novelty_best: of the last population; 0 without novelty.
    """

    cache: jax.Array
    lineage: SeedGenome
    champion_fitness: jax.Array
    champion_stayed: jax.Array
    generation: jax.Array
    archive: Any
    novelty_mean: jax.Array
    novelty_best: jax.Array


class Child(NamedTuple):
    """An individual: its parent's place in the cache, -1 for none; its seed; the power, 0 for a copy of the parent."""

    parent: jax.Array
    seed: jax.Array
    power: jax.Array


def deep_ga(  # noqa: PLR0913 - sizes, one by one
    codec: SeedCodec,
    hp: DeepGAHparams,
    population: int,
    num_parents: int,
    max_generations: int,
    elite_pool: int = 10,
    novelty_search: NoveltySearch | None = None,
) -> Strategy:
    """A genetic algorithm without crossover whose genomes are lists of seeds.

    Each generation the best `elite_pool` (the champion among them, from the second generation on) are evaluated again;
    the best of them is the champion. It has a place among the parents, as have the best of the others, from which
    `population` children are drawn and mutated. With `elite_pool = 0` nobody is evaluated again: the champion is a
    member of the population, unmutated, and the best of each generation is the next one. With novelty, parents are the
    most novel, and the champion, still the one of highest fitness, is no parent by right.

    Args:
      codec: of the network whose parameters evolve.
      hp: numbers; may be traced.
      population: N, children per generation.
      num_parents: T; 0 is random search, every generation afresh.
      max_generations: that genomes have room for.
      elite_pool: who is evaluated again.
      novelty_search: select by novelty.
    Raises:
      ValueError: for sizes that do not fit one another; when called, for keys that are not threefry's.
    References:
      Such et al. 2017, arXiv:1712.06567, algorithm 1 and their release. Differs: with novelty the champion is kept
      beside the parents.
    """
    _check_sizes(population, num_parents, max_generations, elite_pool, novelty_search)
    design = _Design(codec, hp, population, num_parents, max_generations, elite_pool, novelty_search)

    def decode(state: DeepGAState, child: Child) -> Any:
        return codec.to_params(design.grown(state, child))

    return Strategy(
        init=functools.partial(_init, design),
        ask=functools.partial(_ask, design),
        decode=decode,
        tell=functools.partial(_tell, design),
        groups=np.zeros(design.num_members, np.int32),  # common random numbers for everyone
        describe=functools.partial(_describe, design),
        again=functools.partial(_again, design) if elite_pool else None,
        solution=lambda state: codec.to_params(state.cache[0]),
    )


class _Design(NamedTuple):
    codec: SeedCodec
    hp: DeepGAHparams
    population: int
    num_parents: int
    max_generations: int
    elite_pool: int
    search: NoveltySearch | None

    @property
    def first_parent(self) -> int:
        """By fitness the champion's place is a parent's, too."""
        return 0 if self.search is None else 1

    @property
    def num_places(self) -> int:
        return max(self.first_parent + self.num_parents, 1)

    @property
    def num_members(self) -> int:
        return self.population + (self.elite_pool == 0)

    def sigma(self, generation: jax.Array) -> jax.Array:
        decay = jnp.asarray(self.hp.sigma_decay, jnp.float32)
        return jnp.maximum(self.hp.sigma * decay**generation, self.hp.sigma_floor)

    def grown(self, state: DeepGAState, child: Child) -> jax.Array:
        """Parameters [D] of an individual, by one draw of noise."""
        z = self.codec.noise(child.seed)
        parent = jax.lax.dynamic_index_in_dim(state.cache, jnp.maximum(child.parent, 0), keepdims=False)
        return jnp.where(child.parent < 0, self.codec.first(z), self.codec.add(parent, z, child.power))


def _init(design: _Design, key: Key) -> DeepGAState:
    check_key(key)
    codec, search = design.codec, design.search
    seeds = jax.random.bits(key, (design.num_places,), jnp.uint32)
    cache = _rebuilt(lambda seed: codec.first(codec.noise(seed)), seeds, codec.size)
    lineage = jax.vmap(lambda seed: founder(seed, design.max_generations + 1))(seeds)
    archive = () if search is None else init_archive(search.capacity, search.size)
    zero = jnp.float32(0.0)
    return DeepGAState(cache, lineage, zero, jnp.bool_(False), jnp.int32(0), archive, zero, zero)


def _ask(design: _Design, key: Key, state: DeepGAState) -> tuple[Child, DeepGAState]:
    check_key(key)
    keys = jax.vmap(lambda slot: jax.random.fold_in(key, slot))(jnp.arange(design.num_members))
    seed, coin = jnp.moveaxis(jax.vmap(lambda k: jax.random.bits(k, (2,), jnp.uint32))(keys), 1, 0)
    parent = design.first_parent + (coin % max(design.num_parents, 1)).astype(jnp.int32)
    afresh = (state.generation == 0) | (design.num_parents == 0)
    power = jnp.where(afresh, 0.0, quantize(design.sigma(state.generation)))
    child = Child(jnp.where(afresh, -1, parent), seed, jnp.broadcast_to(power, seed.shape))
    return (child if design.elite_pool else _with_champion_first(child, state.generation)), state


def _again(
    design: _Design, key: Key, state: DeepGAState, children: Child, evaluation: Evaluation
) -> tuple[Child, DeepGAState]:
    _, best = jax.lax.top_k(evaluation.fitness, design.elite_pool)
    # The champion takes the place of the last of them, and comes first: it stays where others are only as good.
    order = jnp.roll(best, 1)
    return _with_champion_first(jax.tree.map(lambda leaf: leaf[order], children), state.generation), state


def _tell(  # noqa: PLR0913 - `Strategy.tell` of those who evaluate twice
    design: _Design,
    key: Key,
    state: DeepGAState,
    children: Child,
    evaluation: Evaluation,
    candidates: Child | None = None,
    second: Evaluation | None = None,
) -> DeepGAState:
    search, fitness = design.search, jnp.maximum(evaluation.fitness, _WORST)
    pool, scores = (children, fitness) if candidates is None or second is None else (candidates, second.fitness)
    winner = jnp.argmax(scores)
    champion = jax.tree.map(lambda leaf: leaf[winner], pool)
    merit, archive, novelties = fitness, state.archive, jnp.zeros(1)
    if search is not None:
        novelties = _novelty(search, evaluation.descriptor, archive)
        chosen = jax.random.bernoulli(key, design.hp.archive_probability, fitness.shape)
        archive = _archived(archive, evaluation.descriptor, chosen)
        merit = jnp.maximum(novelties, _WORST)
    else:
        is_champion = (children.parent == champion.parent) & (children.seed == champion.seed)
        merit = jnp.where(is_champion, -jnp.inf, merit)
    _, best = jax.lax.top_k(merit, design.num_places - 1)
    placed = jax.tree.map(lambda one, leaf: jnp.concatenate([one[None], leaf[best]]), champion, children)
    return DeepGAState(
        cache=_rebuilt(lambda child: design.grown(state, child), placed, design.codec.size),
        lineage=jax.vmap(lambda child: _descended(state.lineage, child))(placed),
        champion_fitness=jnp.maximum(scores[winner], _WORST),
        champion_stayed=(champion.parent == 0) & (champion.power == 0.0),
        generation=state.generation + 1,
        archive=archive,
        novelty_mean=jnp.maximum(novelties, 0.0).mean(),
        novelty_best=novelties.max(),
    )


def _describe(design: _Design, state: DeepGAState) -> Metrics:
    metrics = {
        "elite/fitness": state.champion_fitness,
        "elite/stayed": state.champion_stayed.astype(jnp.float32),
        "genome/length": state.lineage.length[0].astype(jnp.float32),
        "strategy/sigma": jnp.asarray(design.sigma(state.generation), jnp.float32),
    }
    if design.search is None:
        return metrics
    return metrics | {
        "novelty/mean": state.novelty_mean,
        "novelty/best": state.novelty_best,
        "archive/size": state.archive.count.astype(jnp.float32),
        "archive/dropped": state.archive.dropped.astype(jnp.float32),
    }


def champion_genome(state: DeepGAState) -> SeedGenome:
    """The champion's seeds: with the codec's header, all that is needed to rebuild it.

    Raises:
      ValueError: if it has more seeds than there was room for.
    """
    genome = jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.lineage)
    room = genome.seeds.shape[0]
    if genome.length > room:
        raise ValueError(
            f"the champion has {genome.length} seeds, and max_generations = {room - 1} left room for {room}; "
            "run with max_generations as large as the number of generations"
        )
    return SeedGenome(genome.seeds[: genome.length], genome.powers[: genome.length], genome.length)


def _with_champion_first(children: Child, generation: jax.Array) -> Child:
    """The first one replaced by a copy of the champion, if there is one already."""
    copy = Child(jnp.int32(0), jnp.uint32(0), jnp.float32(0.0))
    exists = generation > 0
    return jax.tree.map(lambda leaf, own: leaf.at[0].set(jnp.where(exists, own, leaf[0])), children, copy)


def _descended(lineage: SeedGenome, child: Child) -> SeedGenome:
    # Genomes have room for all generations: what costs is how often whole rows are written.
    afresh = child.parent < 0
    parent = jax.tree.map(lambda leaf: leaf[jnp.maximum(child.parent, 0)], lineage)
    base = jax.tree.map(lambda leaf: jnp.where(afresh, jnp.zeros_like(leaf), leaf), parent)
    is_copy = (child.power == 0.0) & ~afresh
    # What a copy would add lies behind the room, and is dropped.
    longer = extend(base._replace(length=jnp.where(is_copy, base.seeds.size, base.length)), child.seed, child.power)
    return longer._replace(length=base.length + ~is_copy)


def _rebuilt(grow: Any, individuals: Any, size: int) -> jax.Array:
    """[S, D], a few at a time."""
    num = jax.tree.leaves(individuals)[0].shape[0]
    batch = min(max(_CACHE_NUMBERS // size, 1), num)
    return jax.lax.map(grow, individuals, batch_size=None if batch == 1 else batch)


def _novelty(search: NoveltySearch, descriptors: jax.Array, archive: NoveltyArchive) -> jax.Array:
    return novelty(descriptors, archive, search.num_neighbours, search.metric, batch_size=search.batch_size)


def _archived(archive: NoveltyArchive, descriptors: jax.Array, chosen: jax.Array) -> NoveltyArchive:
    finite = jnp.isfinite(descriptors).all(-1)
    return add_to_archive(archive, jnp.where(finite[:, None], descriptors, 0.0), chosen & finite)


def _check_sizes(
    population: int, num_parents: int, max_generations: int, elite_pool: int, search: NoveltySearch | None
) -> None:
    for name, value, low in (("population", population, 1), ("max_generations", max_generations, 1)):
        if value < low:
            raise ValueError(f"{name} = {value}: expected at least {low}")
    for name, value in (("num_parents", num_parents), ("elite_pool", elite_pool)):
        if not 0 <= value <= population:
            raise ValueError(f"{name} = {value}: expected a number in [0, population = {population}]")
    if search is not None:
        check_novelty(search.num_neighbours, search.metric)
        if num_parents == 0:
            raise ValueError("num_parents = 0 is random search, which selects nobody; leave novelty out")
