"""The Deep GA: elitism, truncation, random search and novelty by known numbers; champions rebuilt from seeds alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal
from jax.flatten_util import ravel_pytree

from jaxrl.algorithm import Algorithm, init, sweep, train
from jaxrl.evo.deep_ga import Child, DeepGAHparams, champion_genome, deep_ga
from jaxrl.evo.evolve import Strategy, evenly, evolve, in_chunks
from jaxrl.evo.novelty import NoveltySearch
from jaxrl.evo.seeds import seed_codec
from jaxrl.runtime import Layout, over_runs
from jaxrl.types import Evaluation, Key, Params

KEY = jax.random.key(0)
SHAPES = {"w": jax.ShapeDtypeStruct((4, 5), jnp.float32), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
CODEC = seed_codec(SHAPES)
TARGET = 0.3


def sphere(key: Key, own_key: Key, params: Params) -> Evaluation:
    errors = jax.tree.map(lambda x: jnp.sum(jnp.square(x - TARGET)), params)
    return Evaluation(-sum(jax.tree.leaves(errors)), params["b"], 2.0)


def noisy(key: Key, own_key: Key, params: Params) -> Evaluation:
    result = sphere(key, own_key, params)
    return result._replace(fitness=result.fitness + jax.random.normal(own_key))


def strategy(population: int = 20, num_parents: int = 4, sigma: Any = 0.1, **settings: Any) -> Strategy:
    room = settings.pop("max_generations", 20)
    hp = DeepGAHparams(sigma, **settings.pop("hp", {}))
    return deep_ga(CODEC, hp, population, num_parents, room, **settings)


def algorithm(evaluate: Any = sphere, evaluate_again: Any = None, **settings: Any) -> Algorithm:
    spread = settings.pop("spread", in_chunks())
    return evolve(strategy(**settings), evaluate, spread, evaluate_again)


def vectors(ga: Strategy, state: Any, children: Child) -> jax.Array:
    """Parameters of all of them, [N, D]."""
    return jax.vmap(lambda child: ravel_pytree(ga.decode(state, child))[0])(children)


NOVEL = NoveltySearch(size=3, capacity=30, num_neighbours=5)


# ------------------------------------------------------------------------------------------------------ selection


@pytest.mark.parametrize("elite_pool", [0, 5])
def test_the_elite_stays_until_it_is_beaten(elite_pool: int) -> None:
    """Oracle 7, with deterministic evaluation: best-ever fitness never falls, and parameters persist bit for bit."""
    run = jax.jit(algorithm(elite_pool=elite_pool).step)
    state = init(KEY, algorithm(elite_pool=elite_pool))
    best, stayed = -np.inf, 0
    for t in range(15):
        before = state.cache[0]
        state, metrics = run(jax.random.fold_in(KEY, t), state, t)
        assert float(metrics["elite/fitness"]) >= max(best, float(metrics["fitness/best"])) - 1e-6
        if t and metrics["elite/stayed"]:
            stayed += 1
            np.testing.assert_array_equal(state.cache[0], before)
        elif t:
            assert float(metrics["elite/fitness"]) > best
        best = float(metrics["elite/fitness"])
        np.testing.assert_allclose(best, sphere(KEY, KEY, CODEC.to_params(state.cache[0])).fitness, rtol=1e-5)
    assert 0 < stayed < 14
    assert float(metrics["evolution/steps"]) == 2.0 * (20 + (elite_pool or 1))


def test_who_becomes_a_parent() -> None:
    """The champion and the best of the others, in order; also where the champion is none of the best."""
    ga = strategy(num_parents=3, elite_pool=2)
    state = ga.init(KEY).replace(generation=jnp.int32(1))
    children, state = ga.ask(KEY, state)
    fitness = jnp.arange(20.0)
    few, _ = ga.again(KEY, state, children, Evaluation(fitness))
    assert (int(few.parent[0]), float(few.power[0])) == (0, 0.0)  # the old champion, as it is
    assert int(few.seed[1]) == int(children.seed[19])
    people = vectors(ga, state, children)
    for scores, expected in (([1.0, 2.0], [19, 18, 17]), ([2.0, 1.0], [-1, 19, 18]), ([1.0, 1.0], [-1, 19, 18])):
        after = ga.tell(KEY, state, children, Evaluation(fitness), few, Evaluation(jnp.array(scores)))
        rows = [state.cache[0] if i < 0 else people[i] for i in expected]
        np.testing.assert_array_equal(after.cache, np.stack(rows))
        assert bool(after.champion_stayed) == (expected[0] < 0)
        assert float(after.champion_fitness) == max(scores)


def test_first_generation() -> None:
    """Everyone is fresh, and the second evaluation is of the best ten, without a champion among them."""
    ga = strategy(elite_pool=10)
    children, state = ga.ask(KEY, ga.init(KEY))
    assert (children.parent == -1).all()
    assert len(np.unique(children.seed)) == 20
    few, _ = ga.again(KEY, state, children, Evaluation(jnp.arange(20.0)))
    assert sorted(np.asarray(few.seed)) == sorted(np.asarray(children.seed)[10:])
    fresh = CODEC.to_params(CODEC.first(CODEC.noise(children.seed[7])))
    assert_trees_equal(ga.decode(state, jax.tree.map(lambda leaf: leaf[7], children)), fresh)
    np.testing.assert_array_equal(fresh["b"], 0.0)


def test_without_mutation_children_are_copies() -> None:
    """Oracle 8: parents are drawn evenly, N / T children each, as of a binomial distribution."""
    ga = strategy(population=4000, num_parents=8, sigma=0.0, elite_pool=1)
    state = ga.init(KEY).replace(generation=jnp.int32(1))
    children, _ = ga.ask(KEY, state)
    people = jax.vmap(lambda child: ga.decode(state, child)["w"].ravel())(children)
    np.testing.assert_array_equal(people, np.asarray(state.cache)[np.asarray(children.parent)][:, 3:])
    counts = np.bincount(children.parent, minlength=8)
    assert (np.abs(counts - 500) < 4 * np.sqrt(4000 / 8 * 7 / 8)).all()


def test_random_search_is_no_parents() -> None:
    """Oracle 9: children do not depend on earlier generations, and the champion still stays."""
    ga = algorithm(num_parents=0, elite_pool=3)
    state, metrics = jax.jit(lambda: train(KEY, ga, 12))()
    assert (np.diff(metrics["elite/fitness"]) >= -1e-6).all()
    np.testing.assert_array_equal(metrics["genome/length"], 1.0)
    plain = strategy(num_parents=0, elite_pool=3)
    for other in (state, plain.init(jax.random.key(9))):
        children, _ = plain.ask(KEY, other)
        assert (children.parent == -1).all()
        np.testing.assert_array_equal(children.seed, plain.ask(KEY, plain.init(KEY))[0].seed)


def test_reevaluation_finds_the_best_more_often() -> None:
    """Oracle 17: noise of deviation 1; the mean of 30 tells the truly best of the pool, one evaluation seldom does."""

    def thirty(key: Key, own_key: Key, params: Params) -> Evaluation:
        one = noisy(key, own_key, params)
        return one._replace(fitness=sphere(key, own_key, params).fitness + jax.random.normal(own_key) / 30**0.5)

    hits = {"one": 0, "thirty": 0}
    ga = strategy(population=30, elite_pool=10)
    state = ga.init(KEY)
    truth_of = jax.jit(jax.vmap(lambda child: sphere(KEY, KEY, ga.decode(state, child)).fitness))
    step = jax.jit(evolve(ga, noisy, evaluate_again=thirty).step)
    for i in range(60):
        key = jax.random.fold_in(KEY, i)
        after, _ = step(key, state, 0)
        children, _ = ga.ask(jax.random.split(key, 4)[0], state)
        truth = np.asarray(truth_of(children))
        own = jax.random.split(key, 4)[2]
        seen = truth + jax.vmap(lambda n: jax.random.normal(jax.random.fold_in(own, n)))(jnp.arange(30))  # noqa: B023
        pool = np.argsort(-seen, stable=True)[:10]
        best = truth[pool].max()
        hits["one"] += truth[pool[0]] == best
        champion = sphere(KEY, KEY, CODEC.to_params(after.cache[0])).fitness
        hits["thirty"] += bool(abs(champion - best) < 1e-4)
    assert hits["thirty"] > 1.5 * hits["one"], hits


def test_failures_are_never_chosen() -> None:
    def fragile(key: Key, own_key: Key, params: Params) -> Evaluation:
        result = sphere(key, own_key, params)
        return result._replace(fitness=jnp.where(params["w"][0, 0] > 0.0, jnp.nan, result.fitness))

    state, metrics = train(KEY, algorithm(fragile, elite_pool=3), 4)
    assert (state.cache[:, 3] <= 0.0).all()
    assert (metrics["evolution/failed"] > 0.0).any()
    broken = algorithm(lambda key, own, params: Evaluation(jnp.float32(jnp.nan)), elite_pool=3)
    state, _ = train(KEY, broken, 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


# -------------------------------------------------------------------------------------------------------- novelty


@pytest.mark.thorough
def test_novelty_selects_the_most_novel() -> None:
    """Parents are those whose behaviour is farthest from their neighbours, whatever they earn; NumPy knows which."""
    ga = strategy(novelty_search=NOVEL, elite_pool=2, hp={"archive_probability": 0.2})
    state = ga.init(KEY).replace(generation=jnp.int32(1))
    for i in range(4):
        key = jax.random.fold_in(KEY, i)
        children, _ = ga.ask(key, state)
        people = vectors(ga, state, children)
        behaviour = np.asarray(people[:, :3])
        around = np.concatenate([behaviour, state.archive.entries[: int(state.archive.count)]])
        distances = np.linalg.norm(behaviour[:, None] - around, axis=-1)
        distances[np.arange(20), np.arange(20)] = np.inf
        novel = np.sort(distances, 1)[:, :5].mean(1)
        evaluation = Evaluation(-novel, behaviour)  # the most novel earn least
        few, _ = ga.again(key, state, children, evaluation)
        after = ga.tell(key, state, children, evaluation, few, Evaluation(jnp.array([0.0, 1.0])))
        np.testing.assert_allclose(after.cache[1:], people[np.argsort(-novel)[:4]], rtol=1e-6)
        np.testing.assert_array_equal(after.cache[0], people[np.argmin(novel)])
        np.testing.assert_allclose(float(after.novelty_best), novel.max(), rtol=1e-5)
        assert (np.asarray(ga.ask(key, after)[0].parent) >= 1).all()  # the champion is no parent by right
        state = after
    assert 4 <= int(state.archive.count) <= 28
    assert int(state.archive.dropped) == 0


def test_a_full_archive_is_reported() -> None:
    small = NOVEL._replace(capacity=10)
    ga = algorithm(novelty_search=small, elite_pool=0, hp={"archive_probability": 1.0})
    _, metrics = train(KEY, ga, 3)
    np.testing.assert_array_equal(metrics["archive/size"], 10.0)
    np.testing.assert_array_equal(metrics["archive/dropped"], [11.0, 32.0, 53.0])


# ------------------------------------------------------------------------------------------------- reconstruction


@pytest.mark.parametrize("novel", [False, True])
def test_champions_and_parents_are_rebuilt_from_their_seeds(novel: bool) -> None:
    """Bit for bit, after every generation, with powers that decay; and the genome grows with the lineage."""
    ga = algorithm(elite_pool=4, novelty_search=NOVEL if novel else None, hp={"sigma_decay": 0.9, "sigma_floor": 0.05})
    state, step = init(KEY, ga), jax.jit(ga.step)
    rebuild = jax.jit(jax.vmap(CODEC.rebuild))
    for t in range(8):
        state, metrics = step(jax.random.fold_in(KEY, t), state, t)
        np.testing.assert_array_equal(rebuild(state.lineage), state.cache)
        genome = champion_genome(state)
        np.testing.assert_array_equal(jax.jit(CODEC.rebuild)(genome), state.cache[0])
        assert len(genome.seeds) == int(metrics["genome/length"]) <= t + 1
    assert int(state.lineage.length.max()) > 3
    assert len(np.unique(state.lineage.powers)) > 3


def test_genomes_without_room_are_refused() -> None:
    state, metrics = train(KEY, algorithm(max_generations=1, elite_pool=0), 12)
    assert metrics["genome/length"][-1] > 2
    with pytest.raises(ValueError, match="max_generations = 1"):
        champion_genome(state)


# ----------------------------------------------------------------------------------------------- keys and layouts


def test_no_layout_changes_a_bit() -> None:
    """Chunks of any size and two devices: seeds, parents and champions of five generations are the same."""

    def run(spread: Any) -> Any:
        return jax.jit(lambda: train(KEY, algorithm(elite_pool=3, population=21, spread=spread), 5))()

    whole, metrics = run(in_chunks())
    spreads = {
        "one by one": in_chunks(1),
        "fives": in_chunks(5),
        "two devices": evenly(lambda one: over_runs(one, Layout(2, 3)), 2),
    }
    for spread in spreads.values():
        state, rows = run(spread)
        np.testing.assert_array_equal(state.cache, whole.cache)
        assert_trees_equal(state.lineage, whole.lineage)
        assert_trees_close(rows, metrics, rtol=1e-5)


def test_vmap_over_keys_and_numbers_equals_separate_runs() -> None:
    """Oracles 12 and 14: bit for bit, and sigma is traced."""
    keys, sigmas = jax.random.split(KEY, 3), jnp.array([0.05, 0.2])

    def make(sigma: Any) -> Algorithm:
        return algorithm(sigma=sigma, elite_pool=3, novelty_search=NOVEL)

    states, _ = jax.jit(lambda: sweep(make, sigmas, keys, 4))()
    single = jax.jit(lambda key, sigma: train(key, make(sigma), 4)[0])
    for h, sigma in enumerate(sigmas):
        for s, key in enumerate(keys):
            state = single(key, sigma)
            np.testing.assert_array_equal(states.cache[h, s], state.cache)
            assert_trees_equal(jax.tree.map(lambda leaf: leaf[h, s], states.lineage), state.lineage)  # noqa: B023


def test_the_population_is_never_all_there() -> None:
    """Memory of a compiled generation: 128 individuals of 100,000 numbers are 51 MB, and a chunk of 4 is 2."""
    big = seed_codec({"w": jax.ShapeDtypeStruct((100_000,), jnp.float32)})
    ga = deep_ga(big, DeepGAHparams(0.1), 128, 4, 10)

    def memory(batch_size: int) -> float:
        one = evolve(
            ga, lambda key, own, params: Evaluation(-jnp.vdot(params["w"], params["w"])), in_chunks(batch_size)
        )
        state = jax.eval_shape(one.init, KEY)
        return jax.jit(one.step).lower(KEY, state, 0).compile().memory_analysis().temp_size_in_bytes / 1e6

    assert memory(0) > 50
    assert memory(4) < 15


def test_mutations_have_the_given_power() -> None:
    ga = strategy(population=400, sigma=0.25, elite_pool=1)
    state = ga.init(KEY).replace(generation=jnp.int32(3))
    children, _ = ga.ask(KEY, state)
    people = vectors(ga, state, children)
    steps = np.asarray(people) - np.asarray(state.cache)[np.asarray(children.parent)]
    np.testing.assert_allclose(steps.std(0), 0.25, rtol=0.15)  # biases and weights alike
    np.testing.assert_allclose(steps.std(), 0.25, rtol=0.03)
    one = Child(jnp.int32(2), jnp.uint32(7), jnp.float32(0.25))
    moved = ravel_pytree(ga.decode(state, one))[0] - state.cache[2]
    np.testing.assert_allclose(moved, 0.25 * CODEC.noise(jnp.uint32(7)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: strategy(population=3, num_parents=4), r"num_parents = 4: .* population = 3"),
        (lambda: strategy(elite_pool=21), r"elite_pool = 21"),
        (lambda: strategy(population=0), "population = 0"),
        (lambda: strategy(max_generations=0), "max_generations = 0"),
        (lambda: strategy(num_parents=0, novelty_search=NOVEL), "random search"),
        (lambda: strategy(novelty_search=NOVEL._replace(metric="l1")), "metric = 'l1'"),
        (lambda: strategy().init(jax.random.key(0, impl="rbg")), "threefry2x32"),
        (lambda: strategy().ask(jax.random.PRNGKey(0), strategy().init(KEY)), "threefry2x32"),
        (lambda: evenly(in_chunks(), 0), "multiple = 0"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
