"""evosax behind `Strategy`: the same numbers as evosax driven by hand, every algorithm, and clear refusals."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal
from jax.flatten_util import ravel_pytree

from jaxrl.adapters.evosax import evosax_names, evosax_strategy
from jaxrl.algorithm import train
from jaxrl.evo.evolve import evolve
from jaxrl.types import Evaluation, Key, Params

KEY = jax.random.key(0)
TARGET = {"a": jnp.linspace(-0.5, 0.5, 11), "b": jnp.array([[0.3]])}
SETTINGS: dict[str, Any] = {
    "SV_CMA_ES": {"num_populations": 2},
    "SV_Open_ES": {"num_populations": 2},
    "DiffusionEvolution": {"num_generations": 30},
}


def start(key: Key) -> Params:
    return {"a": 0.1 * jax.random.normal(key, (11,)), "b": jnp.zeros((1, 1))}


def sphere(key: Key, own_key: Key, params: Params) -> Evaluation:
    errors = jax.tree.map(lambda x, c: jnp.sum(jnp.square(x - c)), params, TARGET)
    return Evaluation(-sum(jax.tree.leaves(errors)), (), 1.0)


def make(name: str, population: int = 16) -> Any:
    return evosax_strategy(name, start, population, sigma=0.2, learning_rate=0.1, settings=SETTINGS.get(name))


def test_a_distribution_equals_evosax_by_hand() -> None:
    from evosax.algorithms import CMA_ES

    ours = evosax_strategy("cma_es", start, 8, sigma=0.2)
    es = CMA_ES(population_size=8, solution=start(KEY))
    params = es.default_params.replace(std_init=0.2)
    key_first, key_init = jax.random.split(KEY)
    state, theirs = ours.init(KEY), es.init(key_init, start(key_first), params)
    for t in range(4):
        key = jax.random.fold_in(KEY, t)
        genomes, state = ours.ask(key, state)
        expected, theirs = es.ask(key, theirs, params)
        assert_trees_equal(genomes, expected)
        fitness = jax.vmap(lambda x: sphere(key, key, x).fitness)(genomes)  # noqa: B023
        state = ours.tell(key, state, genomes, Evaluation(fitness))
        theirs, _ = es.tell(key, expected, -fitness, theirs, params)
        np.testing.assert_array_equal(state.inner.mean, theirs.mean)
    assert_trees_equal(ours.solution(state), es.get_mean(theirs))


def test_a_population_equals_evosax_by_hand() -> None:
    """Its first generation is the population that it begins with, and only then does it propose."""
    import optax
    from evosax.algorithms import SimpleGA

    ours = evosax_strategy("SimpleGA", start, 8, sigma=0.2)
    es = SimpleGA(population_size=8, solution=start(KEY), std_schedule=optax.constant_schedule(jnp.float32(0.2)))
    params = es.default_params
    state = ours.init(KEY)
    theirs: Any = None
    for t in range(4):
        key = jax.random.fold_in(KEY, t)
        genomes, state = ours.ask(key, state)
        fitness = jax.vmap(lambda x: sphere(key, key, x).fitness)(genomes)  # noqa: B023
        state = ours.tell(key, state, genomes, Evaluation(fitness))
        if t == 0:
            assert_trees_equal(genomes, jax.vmap(start)(jax.random.split(jax.random.split(KEY)[0], 8)))
            theirs = es.init(key, genomes, -fitness, params)
        else:
            expected, theirs = es.ask(key, theirs, params)
            assert_trees_equal(genomes, expected)
            theirs, _ = es.tell(key, expected, -fitness, theirs, params)
        np.testing.assert_array_equal(state.inner.population, theirs.population)
    best = ravel_pytree(ours.solution(state))[0]
    np.testing.assert_array_equal(best, theirs.best_solution)


@pytest.mark.parametrize("name", evosax_names())
@pytest.mark.quick("PGPE", "SV_Open_ES", "DifferentialEvolution", "ARS")
def test_every_algorithm_maximises(name: str) -> None:
    """What is found where the optimum is sought is nearer to it than what is found where it is fled."""
    strategy = make(name)

    def run(key: Key, sign: jax.Array) -> Any:
        def signed(key: Key, own_key: Key, params: Params) -> Evaluation:
            result = sphere(key, own_key, params)
            return result._replace(fitness=sign * result.fitness)

        state, metrics = train(key, evolve(strategy, signed), 20)
        return strategy.solution(state), metrics

    found, metrics = jax.jit(jax.vmap(run, (None, 0)))(KEY, jnp.array([1.0, -1.0]))
    assert {value.shape for value in metrics.values()} == {(2, 20)}
    sought, fled = jax.vmap(lambda params: sphere(KEY, KEY, params).fitness)(found)
    assert np.isfinite(sought)
    assert not float(fled) >= float(sought), name


def test_numbers_may_be_traced() -> None:
    def run(sigma: Any) -> jax.Array:
        strategy = evosax_strategy("Open_ES", start, 8, sigma=sigma, learning_rate=0.1)
        return strategy.ask(KEY, strategy.init(KEY))[0]["a"]

    both = jax.jit(jax.vmap(run))(jnp.array([0.1, 0.4]))
    for row, sigma in zip(both, (0.1, 0.4), strict=True):
        np.testing.assert_allclose(row, run(sigma), rtol=1e-5, atol=1e-7)


def test_failures_do_not_spread() -> None:
    def fragile(key: Key, own_key: Key, params: Params) -> Evaluation:
        result = sphere(key, own_key, params)
        return result._replace(fitness=jnp.where(params["a"][0] > 0.0, jnp.nan, result.fitness))

    for name in ("CMA_ES", "ARS", "SimpleGA"):
        strategy = make(name)
        state, _ = train(KEY, evolve(strategy, fragile), 5)
        assert np.isfinite(ravel_pytree(strategy.solution(state))[0]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("CMAES2"), "unknown evosax algorithm 'CMAES2'; did you mean"),
        (lambda: evosax_strategy("CMA_ES", start, 8, settings={"kappa": 1}), "CMA_ES has no 'kappa'"),
        (lambda: evosax_strategy("CMA_ES", start, 8, numbers={"kappa": 1}), "CMA_ES has no 'kappa'"),
        (lambda: make("Open_ES", 7), "refuses population = 7"),
        (lambda: make("SV_CMA_ES", 7), "not divisible by num_populations = 2"),
        (lambda: evosax_strategy("PGPE", start, 8, learning_rate=0.1, optimizer="lion"), "optimizer = 'lion'"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
