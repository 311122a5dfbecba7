"""Evolution strategies as emitters: who is told what, when they begin anew, by hand; and evosax's over an archive."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.adapters.evosax import evosax_names, evosax_strategy
from jaxrl.algorithm import train
from jaxrl.evo.evolve import Strategy
from jaxrl.qd.archive import IMPROVES, NEITHER, NEW, elites
from jaxrl.qd.emitters import iso_line
from jaxrl.qd.map_elites import map_elites
from jaxrl.qd.strategy_emitter import ranks_of, strategies
from jaxrl.qd.tessellation import grid
from jaxrl.types import Evaluation
from jaxrl_envs.functions import sphere

KEY = jax.random.key(0)
CELLS = grid([0.0], [1.0], [4])


# --------------------------------------------------------------------------------------------------- who is better


@pytest.mark.parametrize(
    ("stage", "worth", "expected"),
    [
        ((NEW, IMPROVES, NEITHER, NEW), (-5.0, 3.0, 9.0, -4.0), (2, 1, 0, 3)),  # stages first
        ((0, 0, 0, 0), (-5.0, 3.0, 9.0, -4.0), (0, 2, 3, 1)),  # by worth alone
        ((0, 0, 0, 0), (1.0, 1.0, np.nan, 1.0), (3, 2, 0, 1)),  # of equals the earlier; what is not valid last
    ],
)
def test_ranks_by_hand(stage: Any, worth: Any, expected: Any) -> None:
    ranks = ranks_of(jnp.isfinite(jnp.array(worth)), jnp.array(stage), jnp.array(worth))
    assert ranks.tolist() == list(expected)


# ------------------------------------------------------------------------------------------- a strategy without chance


def by_the_best(first: Any) -> Strategy:
    """Its three individuals are its mean, one lower and one higher; then its mean is the one of the highest rank."""

    def tell(key: Any, state: Any, genomes: Any, evaluation: Evaluation) -> Any:
        return {"x": genomes["x"][jnp.argmax(evaluation.fitness)], "told": evaluation.fitness}

    return Strategy(
        lambda key: {"x": first(key)["x"], "told": jnp.full(3, -1.0)},
        lambda key, state: ({"x": state["x"] + jnp.array([[0.0], [-0.1], [0.1]])}, state),
        lambda state, genome: genome,
        tell,
        np.zeros(3, np.int32),
    )


def evaluated(x: np.ndarray) -> Evaluation:
    """Fitness is minus the distance to 0.5, the descriptor x itself."""
    return Evaluation(-jnp.abs(jnp.asarray(x)[:, 0] - 0.5), jnp.asarray(x), jnp.ones(len(x)))


def archive_of(*points: float) -> Any:
    container = elites(CELLS)
    rows = {"x": jnp.array(points)[:, None]}
    evaluation = evaluated(rows["x"])
    return container.insert(container.init(rows, 1), rows, evaluation.fitness, evaluation.descriptor)[0]


def stepped(archive: Any, ranking: str = "two_stage") -> Any:
    """One step of two strategies: their offspring, their states and the metrics."""
    emitter = strategies(by_the_best, 3, 2, ranking)
    assert emitter.num == 6
    states = emitter.init(KEY, archive, None, None)
    genotypes, info = emitter.emit(KEY, states, archive)
    evaluation = evaluated(genotypes["x"])
    after, insertion = elites(CELLS).insert(archive, genotypes, evaluation.fitness, evaluation.descriptor)
    states, metrics = emitter.update(jax.random.key(1), states, after, genotypes, info, evaluation, insertion)
    return genotypes, states, metrics


@pytest.mark.parametrize(
    ("ranking", "told", "mean"),
    [
        # 0.2 is the archive's only one, worth -0.3: 0.2 again, 0.1 below it, 0.3 in an empty cell, worth -0.2.
        ("two_stage", (1.0, 0.0, 2.0), 0.3),
        # By margins: 0.0; -0.1; and -0.2 for the new one, whose cell counts as 0.
        ("improvement", (2.0, 1.0, 0.0), 0.2),
        ("fitness", (1.0, 0.0, 2.0), 0.3),
    ],
)
def test_a_strategy_is_told_what_its_offspring_do_for_the_archive(ranking: str, told: Any, mean: float) -> None:
    genotypes, state, metrics = stepped(archive_of(0.2), ranking)
    np.testing.assert_allclose(genotypes["x"][:, 0], [0.2, 0.1, 0.3] * 2, atol=1e-6)
    np.testing.assert_allclose(state.strategies["told"], [told] * 2)
    np.testing.assert_allclose(state.strategies["x"], [[mean]] * 2, atol=1e-6)
    assert float(metrics["emitter/es_restarts"]) == 0.0


def test_nothing_better_begins_anew_at_an_individual_of_the_archive() -> None:
    """0.2, 0.1 and 0.3 add nothing to an archive of 0.24 and 0.45: state and told are those of the beginning."""
    emitter = strategies(by_the_best, 3, 2)
    archive = archive_of(0.24, 0.45)
    states = emitter.init(KEY, archive_of(0.2), None, None)
    genotypes, info = emitter.emit(KEY, states, archive)
    evaluation = evaluated(genotypes["x"])
    after, insertion = elites(CELLS).insert(archive, genotypes, evaluation.fitness, evaluation.descriptor)
    assert not insertion.added.any()
    drawn = set()
    for seed in range(8):
        key = jax.random.key(seed)
        state, metrics = emitter.update(key, states, after, genotypes, info, evaluation, insertion)
        assert float(metrics["emitter/es_restarts"]) == 1.0
        np.testing.assert_array_equal(state.strategies["told"], -1.0)
        drawn |= {round(float(x), 2) for x in state.strategies["x"][:, 0]}
    assert drawn == {0.24, 0.45}
    patient = strategies(by_the_best, 3, 2, patience=2)
    for share in (0.0, 1.0, 0.0):
        states, metrics = patient.update(KEY, states, after, genotypes, info, evaluation, insertion)
        assert float(metrics["emitter/es_restarts"]) == share


def test_numbers_that_are_not_finite_begin_anew() -> None:
    emitter = strategies(by_the_best, 3, 2)
    archive = archive_of(0.2)
    states = emitter.init(KEY, archive, None, None)
    states.strategies["x"] = states.strategies["x"].at[0].set(jnp.nan)
    genotypes, info = emitter.emit(KEY, states, archive)
    evaluation = evaluated(genotypes["x"])
    after, insertion = elites(CELLS).insert(archive, genotypes, evaluation.fitness, evaluation.descriptor)
    states, metrics = emitter.update(KEY, states, after, genotypes, info, evaluation, insertion)
    assert float(metrics["emitter/es_restarts"]) == 0.5
    assert np.isfinite(states.strategies["x"]).all()
    np.testing.assert_allclose(states.strategies["x"][1], 0.3, atol=1e-6)  # the other goes on


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="num_strategies = 0"):
        strategies(by_the_best, 3, 0)
    with pytest.raises(ValueError, match="ranking = 'best'"):
        strategies(by_the_best, 3, 1, "best")
    with pytest.raises(ValueError, match="population of 3: expected 4"):
        strategies(by_the_best, 4).init(KEY, archive_of(0.2), None, None)


# --------------------------------------------------------------------------------------------------------- of evosax


def over_the_sphere(name: str, population: int = 16, num: int = 2, patience: int = 1) -> Any:
    """MAP-Elites by a strategy of evosax on the sphere of 4 numbers."""

    def make(first: Any) -> Strategy:
        return evosax_strategy(name, first, population, sigma=0.1)

    def evaluate(key: Any, own_key: Any, x: jax.Array) -> Evaluation:
        task = sphere(x)
        outside = jnp.where(((x < 0) | (x > 1)).any(), jnp.nan, task.fitness)
        return Evaluation(outside, task.descriptor)

    cells = elites(grid([0.0, 0.0], [1.0, 1.0], [10, 10]))
    emitter = strategies(make, population, num, patience=patience)
    return map_elites(evaluate, emitter, cells, lambda key: jax.random.uniform(key, (16, 4)), 2)


@pytest.mark.quick("SimpleGA", "PGPE", "DiffusionEvolution", "SV_CMA_ES")
@pytest.mark.parametrize("name", evosax_names())
def test_every_algorithm_of_evosax_is_an_emitter(name: str) -> None:
    """From shapes alone: a step returns the state that it was given."""
    algorithm = over_the_sphere(name)
    state = jax.eval_shape(algorithm.init, KEY)
    after, metrics = jax.eval_shape(algorithm.step, KEY, state, jnp.int32(0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert {"operator/es_added", "emitter/es_restarts"} <= set(metrics)


def qd_score(algorithm: Any) -> float:
    """With an offset of 100, after 40 iterations of 32."""
    state, _ = jax.jit(lambda key: train(key, algorithm, 40))(KEY)
    return float(jnp.where(state.archive.occupied, state.archive.fitness + 100.0, 0.0).sum())


def test_evolution_strategies_fill_the_archive_with_the_best() -> None:
    """The best of every cell is known, 8,800 in all; after 1,296 evaluations CMA-ME is near it, variation is not."""

    def evaluate(key: Any, own_key: Any, x: jax.Array) -> Evaluation:
        return Evaluation(*sphere(x))

    cells = elites(grid([0.0, 0.0], [1.0, 1.0], [10, 10]))
    plain = map_elites(evaluate, iso_line(32, 0.01, 0.2, 0, 1), cells, lambda k: jax.random.uniform(k, (16, 4)), 2)
    variation, adapted = qd_score(plain), qd_score(over_the_sphere("Sep_CMA_ES"))
    assert variation < 0.85 * 8800
    assert 0.9 * 8800 < adapted <= 8800


@pytest.mark.thorough
def test_populations_begin_with_individuals_of_the_archive() -> None:
    """So that a genetic algorithm needs patience: otherwise it would begin anew for ever."""
    few, many = (qd_score(over_the_sphere("SimpleGA", patience=patience)) for patience in (1, 2))
    assert many > 3 * few
