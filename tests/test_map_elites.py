"""Emitters by their moments, MAP-Elites against a NumPy loop, metrics by hand, and tasks whose optimum is known."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

from jaxrl.algorithm import Algorithm, init, train
from jaxrl.evo.evolve import in_chunks
from jaxrl.qd.archive import Archive, elites
from jaxrl.qd.emitters import Emitter, Operator, gaussian, iso_line, mixture, polynomial, sbx
from jaxrl.qd.map_elites import map_elites
from jaxrl.qd.metrics import (
    archive_metrics,
    archive_profile,
    corrected_archive,
    distillation,
    evaluate_again,
    reproducibility,
)
from jaxrl.qd.tessellation import grid
from jaxrl.types import Evaluation
from jaxrl_envs.functions import arm, rastrigin, sphere

KEY = jax.random.key(0)
INF, NAN = np.inf, np.nan


def archive_of(genotypes: Any, cells: Any = None) -> Archive:
    """An archive that holds these individuals [N, …], one per cell, fitness 0, 1, …"""
    num = len(jax.tree.leaves(genotypes)[0])
    cells = cells or grid([0], [1], [num])
    container = elites(cells)
    archive, _ = container.insert(
        container.init(genotypes, 1), genotypes, jnp.arange(num) * 1.0, jnp.asarray(cells.centroids)[:num]
    )
    return archive


# ------------------------------------------------------------------------------------------------------ emitters


def test_iso_line_has_its_moments() -> None:
    """Parents 0 and (4, 2; 0): per coordinate s1^2 + s2^2 d^2 along pairs, covariance s2^2 d_i d_j, mean of x1."""
    parents = {"a": jnp.array([[0.0, 0.0], [4.0, 2.0]]), "b": jnp.zeros((2, 1))}
    emitter = iso_line(200_000, 0.3, 0.5)
    genotypes, _ = jax.jit(lambda key: emitter.emit(key, (), archive_of(parents)))(KEY)
    x = np.concatenate([genotypes["a"], genotypes["b"]], 1)
    # Of four equally likely pairs two have x1 = x2 and so no line; the others have d = (4, 2, 0) and its negative.
    line = 0.25 * 0.5
    of_x1 = np.array([4.0, 2.0, 0.0]) / 2
    expected = 0.09 * np.eye(3) + np.outer(of_x1, of_x1) + line * np.outer([4, 2, 0], [4, 2, 0])
    np.testing.assert_allclose(x.mean(0), of_x1, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), expected, atol=0.05)


def test_iso_line_with_one_parent_is_noise_around_it() -> None:
    emitter = iso_line(50_000, 0.1, 5.0, low=0.85, high=1.05)
    genotypes, _ = emitter.emit(KEY, (), archive_of(jnp.array([[1.0]])))
    assert float(genotypes.min()) == pytest.approx(0.85)
    assert float(genotypes.max()) == pytest.approx(1.05)
    free, _ = iso_line(50_000, 0.1, 5.0).emit(KEY, (), archive_of(jnp.array([[1.0]])))
    assert float(free.std()) == pytest.approx(0.1, rel=0.02)
    assert float(free.mean()) == pytest.approx(1.0, abs=0.002)


def test_gaussian_and_polynomial_have_their_moments() -> None:
    """Of a polynomial step d, P(|d| > t) = (1 - t)^(eta + 1); beyond a half it is clipped here."""
    parent = archive_of({"a": jnp.full((1, 2), 5.0)})
    x = np.asarray(gaussian(100_000, 0.2).emit(KEY, (), parent)[0]["a"])
    np.testing.assert_allclose([x.mean(), x.std(), np.cov(x.T)[0, 1]], [5.0, 0.2, 0.0], atol=0.002)
    step = (np.asarray(polynomial(100_000, 0.0, 10.0, eta=3.0).emit(KEY, (), parent)[0]["a"]) - 5.0) / 10
    half = np.abs(step) < 0.5  # half of the range is left on either side; further steps are clipped
    assert 1 - half.mean() == pytest.approx(0.5**4, rel=0.05)
    assert step.mean() == pytest.approx(0.0, abs=0.002)
    assert np.abs(step).mean() == pytest.approx((1 - 0.5**5) / 5, rel=0.02)
    assert np.square(step).mean() == pytest.approx(2 * ((1 - 0.5**5) / 5 - (1 - 0.5**6) / 6), rel=0.02)
    still = np.asarray(polynomial(10_000, 0.0, 10.0, probability=0.25).emit(KEY, (), parent)[0]["a"])
    assert (still == 5.0).mean() == pytest.approx(0.75, abs=0.02)


def test_crossover_spreads_around_both_parents() -> None:
    """b of density (eta + 1) b^eta / 2 below 1: E b = (eta + 1) / 2 (1 / (eta + 2) + 1 / eta)."""
    parents = archive_of(jnp.array([[0.0], [1.0]]))
    x = np.asarray(sbx(200_000, -10.0, 10.0, eta=4.0).emit(KEY, (), parents)[0])
    equal = np.isclose(x, 0.0, atol=1e-6) | np.isclose(x, 1.0, atol=1e-6)
    assert equal.mean() == pytest.approx(0.5, abs=0.01)  # both parents the same
    spread = np.abs(2 * x[~equal] - 1)
    assert spread.mean() == pytest.approx(2.5 * (1 / 6 + 1 / 4), rel=0.01)
    assert x.mean() == pytest.approx(0.5, abs=0.01)


def told(name: str, num: int, value: float, width: int = 1) -> Emitter:
    """Emits a constant, and remembers what it is told."""

    def update(key: Any, state: Any, archive: Any, genotypes: Any, info: Any, evaluation: Any, insertion: Any) -> Any:
        return state + (genotypes * info).sum() + evaluation.fitness.sum(), {f"{name}/seen": insertion.status.sum()}

    def emit(key: Any, state: Any, archive: Any) -> Any:
        return jnp.full((num, width), value), jnp.full((num, width), value * 10)

    return Emitter((Operator(name, num),), lambda key, archive, genotypes, evaluation: jnp.float32(0), emit, update)


def test_a_mixture_tells_each_emitter_about_its_own() -> None:
    emitter = mixture([told("one", 2, 1.0), told("two", 3, 2.0)])
    assert emitter.num == 5
    archive = archive_of(jnp.zeros((4, 1)))
    state = emitter.init(KEY, archive, jnp.zeros((1, 1)), Evaluation(jnp.zeros(1)))
    genotypes, info = emitter.emit(KEY, state, archive)
    np.testing.assert_array_equal(genotypes[:, 0], [1, 1, 2, 2, 2])
    _, insertion = elites(grid([0], [1], [4])).insert(archive, genotypes, jnp.full(5, 9.0), jnp.zeros((5, 1)))
    evaluation = Evaluation(jnp.arange(5.0), jnp.zeros((5, 1)), jnp.zeros(5))
    state, metrics = emitter.update(KEY, state, archive, genotypes, info, evaluation, insertion)
    assert [float(s) for s in state] == [2 * 10 + 0 + 1, 3 * 40 + 2 + 3 + 4]
    assert {name: int(value) for name, value in metrics.items()} == {"one/seen": 2, "two/seen": 3}
    with pytest.raises(ValueError, match="name of its own"):
        mixture([told("one", 2, 1.0), told("one", 3, 2.0)])
    with pytest.raises(ValueError, match="at least 1"):
        iso_line(0, 0.1, 0.1)


# ------------------------------------------------------------------------------------------------------ the loop


def on_task(task: Any, num_dims: int, side: int, num: int = 64, **settings: Any) -> Algorithm:
    def evaluate(key: Any, own_key: Any, x: jax.Array) -> Evaluation:
        result = task(x)
        return Evaluation(result.fitness, result.descriptor, 1.0)

    emitter = settings.pop("emitter", None) or iso_line(num, 0.05, 0.1, 0.0, 1.0)
    return map_elites(
        evaluate,
        emitter,
        elites(grid([0, 0], [1, 1], [side, side])),
        lambda key: jax.random.uniform(key, (settings.get("first", num), num_dims)),
        2,
        settings.pop("spread", in_chunks()),
        settings.pop("offset", 0.0),
    )


def test_a_step_is_emit_evaluate_insert() -> None:
    """Against a loop: what the emitter gives with the step's keys, one by one into a dictionary."""
    algorithm = on_task(sphere, 3, 5, 16, offset=75.0)
    state = init(KEY, algorithm)
    key_step = jax.random.key(5)
    after, metrics = jax.jit(algorithm.step)(key_step, state, jnp.int32(0))
    key_emit = jax.random.split(key_step, 3)[0]
    offspring, _ = iso_line(16, 0.05, 0.1, 0.0, 1.0).emit(key_emit, (), state.archive)
    kept = {int(c): float(state.archive.fitness[c]) for c in np.flatnonzero(np.asarray(state.archive.occupied))}
    added = {}
    for x in np.asarray(offspring):
        cell = int(min(x[0] * 5, 4)) * 5 + int(min(x[1] * 5, 4))
        value = -float(np.square(10 * x - 5).sum())
        if value > kept.get(cell, -INF):
            added[cell] = value - kept.get(cell, 0.0) + added.get(cell, 0.0)
            kept[cell] = value
    assert int(after.archive.occupied.sum()) == len(kept)
    assert float(metrics["archive/qd_score"]) == pytest.approx(sum(kept.values()) + 75 * len(kept), rel=1e-5)
    assert float(metrics["archive/coverage"]) == pytest.approx(len(kept) / 25)
    assert float(metrics["archive/max_fitness"]) == pytest.approx(max(kept.values()), rel=1e-5)
    assert float(metrics["operator/ga_added"]) == len(added)
    assert float(metrics["operator/ga_improvement"]) == pytest.approx(sum(added.values()), rel=1e-4)
    assert float(metrics["evolution/steps"]) == 16
    assert float(metrics["evolution/evaluations"]) == 16
    assert int(after.num_evaluations) == 32


def test_a_run_never_loses_anything_and_resumes() -> None:
    algorithm = on_task(rastrigin, 4, 8, 32)
    whole, metrics = jax.jit(lambda key: train(key, algorithm, 30))(KEY)
    for name in ("archive/coverage", "archive/max_fitness"):
        assert (np.diff(metrics[name]) >= 0).all()
    assert metrics["archive/coverage"][-1] > metrics["archive/coverage"][0]
    chunk = jax.jit(lambda key, state, start: train(key, algorithm, 15, state, start))
    half, _ = chunk(KEY, jax.jit(lambda key: init(key, algorithm))(KEY), 0)
    rest, _ = chunk(KEY, half, 15)
    assert_trees_equal(rest, whole)


@pytest.mark.thorough
def test_chunks_and_seeds_side_by_side_change_nothing() -> None:
    keys = jax.random.split(KEY, 3)
    together, _ = jax.jit(jax.vmap(lambda key: train(key, on_task(arm, 5, 6, 12), 5)))(keys)
    for spread in (in_chunks(5), in_chunks(1)):
        algorithm = on_task(arm, 5, 6, 12, spread=spread)
        single = [jax.jit(lambda key: train(key, algorithm, 5))(key)[0] for key in keys[:2]]  # noqa: B023
        for i, state in enumerate(single):
            assert_trees_close(state, jax.tree.map(lambda leaf: leaf[i], together), atol=1e-6)  # noqa: B023


@pytest.mark.thorough
def test_only_offspring_that_enter_are_kept_but_all_are_counted() -> None:
    """Two operators: the second is evaluated and told, and never stored."""
    base = told("probe", 3, 0.5, 2)
    emitter = mixture([told("one", 2, 0.1, 2), base._replace(operators=(Operator("probe", 3, enters=False),))])
    algorithm = on_task(sphere, 2, 2, 1, emitter=emitter, first=1)
    state = init(KEY, algorithm)
    after, metrics = algorithm.step(KEY, state, jnp.int32(0))
    assert 0.5 not in np.asarray(after.archive.genotypes)
    assert float(after.emitter[1]) == pytest.approx(3 * 2 * 0.5 * 5, abs=1e-5)  # fitness 0: the optimum
    assert int(metrics["probe/seen"]) == 0
    assert float(metrics["evolution/evaluations"]) == 5
    assert "operator/probe_added" not in metrics
    assert int(after.num_evaluations) == 6


def test_keys_of_emitting_and_of_learning_are_not_the_same() -> None:
    """A key that were kept in the state, and used for both, would give a learner the batches that offspring had."""

    def update(key: Any, state: Any, archive: Any, genotypes: Any, info: Any, *outcome: Any) -> Any:
        return state, {"key/update": jax.random.bits(key), "key/emit": info}

    parts = (Operator("probe", 2),)
    emit = lambda key, state, archive: (jnp.full((2, 2), 0.5), jax.random.bits(key))  # noqa: E731
    algorithm = on_task(sphere, 2, 2, 1, emitter=Emitter(parts, lambda *given: (), emit, update), first=1)
    state, metrics = train(KEY, algorithm, 3)
    drawn = np.concatenate([metrics["key/emit"], metrics["key/update"]])
    assert len(set(drawn.tolist())) == 6
    assert not any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state))


def test_failures_are_counted_and_not_kept() -> None:
    def evaluate(key: Any, own_key: Any, x: jax.Array) -> Evaluation:
        return Evaluation(jnp.where(x[0] < 0.5, NAN, x[0]), x[:1], 2.0)

    algorithm = map_elites(
        evaluate, gaussian(200, 0.3, 0, 1), elites(grid([0], [1], [10])), lambda k: jnp.full((4, 1), 0.6), 1
    )
    after, metrics = algorithm.step(KEY, init(KEY, algorithm), jnp.int32(0))
    assert not np.asarray(after.archive.occupied)[:5].any()
    assert 0.2 < float(metrics["evolution/failed"]) < 0.5
    assert 0.5 <= float(metrics["fitness/mean"]) <= 1
    assert float(metrics["evolution/steps"]) == 400


def test_a_descriptor_of_the_wrong_length_is_refused() -> None:
    def evaluate(key: Any, own_key: Any, x: jax.Array) -> Evaluation:
        return Evaluation(x[0], x, 1.0)

    algorithm = map_elites(
        evaluate, gaussian(2, 0.1), elites(grid([0, 0], [1, 1], [2, 2])), lambda key: jnp.ones((2, 3)), 2
    )
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        algorithm.init(KEY)


# ------------------------------------------------------------------------------------------------------- metrics


def test_metrics_by_hand() -> None:
    """Fitness [3, empty, -1, empty] and offset 2: QD score 6, coverage a half, maximum 3."""
    archive = Archive(jnp.zeros(4), jnp.array([3.0, -INF, -1.0, -INF]), jnp.zeros((4, 1)), jnp.arange(4.0)[:, None])
    for offset, score in ((2.0, 6.0), (0.0, 2.0), (-1.0, 0.0)):
        found = {name: float(value) for name, value in archive_metrics(archive, offset).items()}
        assert found == {"qd_score": score, "coverage": 0.5, "max_fitness": 3.0}
    assert archive_profile(archive, jnp.array([-5.0, -1.0, 0.0, 3.0, 3.5])).tolist() == [2, 2, 1, 1, 0]
    # Twice again: cell 0 gives 1 and 2 at 0.5 and 0.1, cell 2 gives -3 and 1 at 2 and 2.6; the empty ones rubbish.
    again = Evaluation(
        jnp.array([[1.0, 2.0], [NAN, 9.0], [-3.0, 1.0], [99.0, 99.0]]),
        jnp.array([[[0.5], [0.1]], [[NAN], [0.0]], [[2.0], [2.6]], [[7.0], [7.0]]]),
    )
    found = {name: float(value) for name, value in reproducibility(archive, again, 2.0).items()}
    assert found == {
        "expected_qd_score": pytest.approx(1.5 - 1 + 4),
        "expected_distance": pytest.approx((0.3 + 0.3) / 2),
        "expected_max_fitness": 1.5,
    }
    actor = Evaluation(jnp.array([1.0, 50.0, -2.0, 50.0]), jnp.array([[0.25], [9.0], [-1.0], [9.0]]))
    found = {name: float(value) for name, value in distillation(archive, actor, 2.0).items()}
    assert found == {"qd_score": 3.0, "descriptor_error": pytest.approx((0.25 + 1.0) / 2)}


def test_the_corrected_archive_takes_medians() -> None:
    container = elites(grid([0], [1], [2]))
    archive, _ = container.insert(
        container.init(jnp.zeros(1), 1), jnp.array([7.0, 8.0]), jnp.array([5.0, 4.0]), jnp.array([[0.2], [0.7]])
    )
    again = Evaluation(
        jnp.array([[5.0, 1.0, 2.0], [3.0, 4.0, 30.0]]),
        jnp.array([[[0.2], [0.6], [0.9]], [[0.7], [0.8], [0.1]]]),
    )
    corrected = corrected_archive(archive, again, container)
    # Both fall into the second cell, with 2 and 4: the better one stays.
    np.testing.assert_array_equal(corrected.fitness, [-INF, 4.0])
    np.testing.assert_array_equal(corrected.genotypes, [0.0, 8.0])
    nobody = corrected_archive(container.init(jnp.zeros(1), 1), again, container)
    assert not nobody.occupied.any()


def test_evaluating_again_gives_every_evaluation_a_key_of_its_own() -> None:
    def evaluate(key: Any, own_key: Any, x: jax.Array) -> Evaluation:
        return Evaluation(x + jax.random.uniform(key), x[None] + jax.random.uniform(own_key), 2.0)

    genotypes = jnp.array([0.0, 10.0, 20.0])
    again = jax.jit(lambda key: evaluate_again(key, genotypes, evaluate, 4))(KEY)
    assert again.fitness.shape == (3, 4)
    assert again.descriptor.shape == (3, 4, 1)
    np.testing.assert_array_equal(np.floor(again.fitness), [[0] * 4, [10] * 4, [20] * 4])
    assert len(np.unique(np.round((again.fitness % 1).ravel(), 5))) == 12
    chunked = jax.jit(lambda key: evaluate_again(key, genotypes, evaluate, 4, in_chunks(5)))(KEY)
    assert_trees_equal(chunked, again)


# --------------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("x", "fitness", "descriptor"),
    [
        ([0.5] * 7, 0.0, (1, 0.5)),
        ([0.75, 0.5, 0.5, 0.5], -0.108253, (0.5, 1)),
        ([0.25, 0.5, 0.5], -0.117851, (0.5, 0)),
        ([1, 0.5, 0.5], -0.235702, (0, 0.5)),
        ([0.75, 0.25], -0.25, (0.75, 0.75)),
        ([0.0, 0.0], 0.0, (0.5, 0.5)),
        ([0.0], 0.0, (0, 0.5)),
        ([0.625] * 4, 0.0, (0.375, 0.801777)),
    ],
)
def test_the_arm_by_hand(x: list[float], fitness: float, descriptor: tuple[float, float]) -> None:
    result = arm(jnp.array(x))
    assert float(result.fitness) == pytest.approx(fitness, abs=1e-6)
    np.testing.assert_allclose(result.descriptor, descriptor, atol=1e-6)


@pytest.mark.parametrize(("side", "reachable"), [(10, 88), (16, 224), (32, 856), (50, 2040), (100, 8024)])
def test_no_cell_out_of_the_arms_reach_ever_fills(side: int, reachable: int) -> None:
    # In whole cells from the shoulder: the nearer edge of each interval, and cells that the rim only touches are out.
    half = side // 2
    nearest = np.concatenate([np.arange(half - 1, -1, -1), np.arange(half)])
    inside = np.square(nearest)[:, None] + np.square(nearest)[None] < half**2
    assert inside.sum() == reachable
    x = jax.random.uniform(jax.random.key(side), (20_000, 3))
    x = x.at[::2, 1:].set(0.5)  # stretched: the rim
    cell = grid([0, 0], [1, 1], [side, side]).cell_of(jax.vmap(arm)(x).descriptor)
    beyond = ~inside.ravel()[np.asarray(cell)]
    # On the rim itself rounding may cross an edge by an ulp.
    distance = np.linalg.norm(np.asarray(jax.vmap(arm)(x).descriptor) - 0.5, axis=1)
    assert not (beyond & (distance < 0.5 - 1e-6)).any()
    assert (np.asarray(jax.vmap(arm)(x).fitness) <= 0).all()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("task", "side", "best"),
    [(sphere, 10, -1200.0), (sphere, 16, -3500.0), (sphere, 32, -15500.0), (rastrigin, 10, -1200.0)],
)
def test_the_best_of_every_cell_is_known(task: Any, side: int, best: float) -> None:
    """n = 2: the optimum of a cell is its point nearest to the middle; of Rastrigin where edges are integers."""
    within = 1e-6
    edge = np.arange(side) / side
    spot = np.clip(0.5, edge + within, edge + 1 / side - within)
    x = np.stack(np.meshgrid(spot, spot, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    container = elites(grid([0, 0], [1, 1], [side, side]))
    result = jax.vmap(task)(jnp.array(x))
    archive, _ = container.insert(container.init(jnp.array(x), 2), jnp.array(x), result.fitness, result.descriptor)
    found = archive_metrics(archive)
    assert float(found["coverage"]) == 1
    assert float(found["qd_score"]) == pytest.approx(best, rel=2e-3)
    assert float(archive_metrics(archive, 50.0)["qd_score"]) == pytest.approx(best + 50 * side**2, rel=2e-3)
    # Random points never beat it.
    points = jax.random.uniform(KEY, (50_000, 2))
    result = jax.vmap(task)(points)
    after, _ = container.insert(archive, points, result.fitness, result.descriptor)
    assert float((after.fitness - archive.fitness).max()) < 0.05


@functools.cache
def long_arm_run() -> Any:
    algorithm = on_task(arm, 100, 100, 1024, first=100)
    return jax.jit(lambda key: train(key, algorithm, 50)[1])(KEY)


@pytest.mark.thorough
def test_map_elites_on_the_arm_does_as_others_do() -> None:
    """51,300 evaluations: QDax 0.5 covers 25.9 % with a maximum of -0.0834, pyribs 25.3 % with -0.0852."""
    metrics = long_arm_run()
    assert float(metrics["archive/coverage"][-1]) == pytest.approx(0.256, abs=0.015)
    assert float(metrics["archive/max_fitness"][-1]) == pytest.approx(-0.0843, abs=0.008)
