"""`evolve` and OpenES: shapings by table, one generation against NumPy, and layouts that must not change anything."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_trees_close, assert_trees_equal
from jax.flatten_util import ravel_pytree

from jaxrl.algorithm import Algorithm, init, train
from jaxrl.evo.evolve import Strategy, evolve, in_chunks
from jaxrl.evo.open_es import OpenESHparams, centered_ranks, open_es, pair_ranks, raw, z_scores
from jaxrl.runtime import Layout, over_runs
from jaxrl.types import Evaluation, Key, Params

KEY = jax.random.key(0)
TARGET = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5]])}
INF = np.inf


def start(key: Key) -> Params:
    return jax.tree.map(jnp.zeros_like, TARGET)


def minus_square(key: Key, own_key: Key, params: Params) -> Evaluation:
    errors = jax.tree.map(lambda x, c: jnp.sum(jnp.square(x - c)), params, TARGET)
    fitness = -sum(jax.tree.leaves(errors))
    return Evaluation(fitness, (), 3.0)


def noisy(key: Key, own_key: Key, params: Params) -> Evaluation:
    result = minus_square(key, own_key, params)
    return result._replace(fitness=result.fitness + jax.random.normal(key) + jax.random.normal(own_key))


def strategy(num_pairs: int = 6, **settings: Any) -> Strategy:
    hp = OpenESHparams(**{"learning_rate": 0.1, "sigma": 0.3, **settings.pop("hp", {})})
    return open_es(start, settings.pop("tx", optax.scale_by_adam()), hp, num_pairs, **settings)


# --------------------------------------------------------------------------------------------------------- shapings


def test_pair_ranks() -> None:
    """Oracle 14: 1 for the better, halves for ties (failures too), invariant under whatever increases."""
    fitness = jnp.array([[3.0, 1.0], [1.0, 2.0], [5.0, 5.0], [-INF, -1e30], [-INF, -INF], [1e9, 1e-9]])
    expected = [[1, 0], [0, 1], [0.5, 0.5], [0, 1], [0.5, 0.5], [1, 0]]
    np.testing.assert_array_equal(pair_ranks(fitness), expected)
    some = jax.random.normal(KEY, (50, 2)).at[::5, 1].set(0.5).at[::5, 0].set(0.5)
    shaped = pair_ranks(some)
    np.testing.assert_array_equal(shaped.sum(1), 1.0)
    assert set(np.unique(shaped)) == {0.0, 0.5, 1.0}
    for increasing in (jnp.exp, lambda x: 1e6 * x - 3, jnp.cbrt, lambda x: x**3):
        np.testing.assert_array_equal(pair_ranks(increasing(some)), shaped)


def test_centered_ranks() -> None:
    np.testing.assert_allclose(centered_ranks(jnp.array([3.0, 1.0, 2.0])), [0.5, -0.5, 0.0])
    table = jnp.array([[1.0, 1.0], [2.0, 3.0]])
    np.testing.assert_allclose(centered_ranks(table), [[-1 / 3, -1 / 3], [1 / 6, 0.5]], rtol=1e-6)
    np.testing.assert_array_equal(centered_ranks(jnp.array([7.0])), [0.0])
    some = jnp.round(jax.random.normal(KEY, (40,)), 1).at[3].set(-INF)
    ranks = centered_ranks(some)
    assert abs(float(ranks.sum())) < 1e-5
    order = jax.random.permutation(KEY, 40)
    np.testing.assert_array_equal(centered_ranks(some[order]), ranks[order])
    np.testing.assert_array_equal(centered_ranks(jnp.sinh(some)), ranks)


def test_z_scores() -> None:
    np.testing.assert_allclose(z_scores(jnp.array([1.0, 3.0])), [-1.0, 1.0])
    np.testing.assert_allclose(z_scores(jnp.array([1.0, 3.0, -INF, 3.0])), [-1.0, 1.0, -1.0, 1.0])
    np.testing.assert_array_equal(z_scores(jnp.full((2, 2), 4.0)), 0.0)
    np.testing.assert_array_equal(z_scores(jnp.full(3, -INF)), 0.0)


# ------------------------------------------------------------------------------------------------------- the update


def test_estimator_points_to_the_optimum() -> None:
    """Oracle 15. Of a pair around m the better lies along d = c - m, and E[sign(d·e) e] = sqrt(2 / pi) d / |d|."""
    plain = strategy(10_000, tx=optax.identity(), shaping=pair_ranks, hp={"learning_rate": 1.0}, noise_batch=1000)
    after, _ = jax.jit(evolve(plain, minus_square).step)(KEY, plain.init(KEY), 0)
    moved, aim = ravel_pytree(after.params)[0], ravel_pytree(TARGET)[0]
    assert jnp.vdot(moved, aim) > 0
    np.testing.assert_allclose(moved, np.sqrt(2 / np.pi) / 0.6 * aim / jnp.linalg.norm(aim), atol=0.03)


def test_raw() -> None:
    np.testing.assert_array_equal(raw(jnp.array([1.0, -INF, 3.0])), [1.0, 1.0, 3.0])
    np.testing.assert_array_equal(raw(jnp.full(3, -INF)), 0.0)


def test_estimator_of_linear_and_quadratic_functions() -> None:
    """Oracle 10: unshaped, the expectation is the slope of a linear function; at a quadratic's optimum nothing."""
    slope, num_pairs = jnp.array([1.0, -2.0, 0.5]), 4000

    def moved(fitness: Any) -> jax.Array:
        def evaluate(key: Key, own_key: Key, params: Params) -> Evaluation:
            return Evaluation(fitness(ravel_pytree(params)[0]))

        plain = strategy(num_pairs, tx=optax.identity(), shaping=raw, hp={"learning_rate": 1.0, "sigma": 0.5})
        before = plain.init(KEY)
        after, _ = jax.jit(evolve(plain, evaluate).step)(KEY, before, 0)
        return ravel_pytree(after.params)[0] - ravel_pytree(before.params)[0]

    error = jnp.linalg.norm(moved(lambda theta: slope @ theta) - slope) / jnp.linalg.norm(slope)
    assert error < 3.0 * np.sqrt((3 + 1) / num_pairs)  # three times what is expected of 3 parameters
    assert error > 0.0
    hessian = jnp.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 3.0]])
    np.testing.assert_array_equal(moved(lambda theta: -theta @ hessian @ theta), 0.0)


@pytest.mark.parametrize("shaping", [pair_ranks, centered_ranks, z_scores, raw])
def test_equal_fitness_moves_nothing(shaping: Any) -> None:
    flat = evolve(strategy(shaping=shaping), lambda key, own_key, params: Evaluation(jnp.float32(2.0)))
    state, metrics = train(KEY, flat, 3)
    assert_trees_equal(state.params, start(KEY))
    np.testing.assert_array_equal(metrics["fitness/std"], 0.0)


def test_generations_equal_numpy() -> None:
    """Two generations in float64: perturbations, ranks, Adam and both decays, written out."""
    with jax.enable_x64(True):
        numbers = {"learning_rate": 0.2, "learning_rate_decay": 0.5, "learning_rate_floor": 0.15,
                   "sigma": 0.3, "sigma_decay": 0.9, "sigma_floor": 0.1}  # fmt: skip
        numbers = {name: jnp.float64(value) for name, value in numbers.items()}
        ours = strategy(3, hp=numbers, tx=optax.scale_by_adam(0.99, 0.999), noise_batch=1)
        state = ours.init(KEY)
        state = state.replace(params=jax.tree.map(lambda x: x.astype(jnp.float64), state.params))
        state = state.replace(opt_state=jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, state.opt_state))  # fmt: skip
        mean, aim, m, v = np.zeros(3), np.array([1.0, -2.0, 0.5]), np.zeros(3), np.zeros(3)
        for g, (rate, sigma) in enumerate([(0.2, 0.3), (0.15, 0.27)]):
            genomes, state = ours.ask(jax.random.fold_in(KEY, g), state)
            pairs = jax.random.split(jax.random.fold_in(KEY, g), 3)
            noise = [np.asarray(jax.random.normal(k, (3,), jnp.float64)) for k in pairs]
            people = [mean + sign * sigma * e for e in noise for sign in (1.0, -1.0)]
            decoded = [ravel_pytree(ours.decode(state, jax.tree.map(lambda x: x[i], genomes)))[0] for i in range(6)]  # noqa: B023
            np.testing.assert_allclose(decoded, people, rtol=1e-12)
            fitness = np.array([-np.square(p - aim).sum() for p in people])
            state = ours.tell(KEY, state, genomes, Evaluation(jnp.asarray(fitness)))
            ranks = np.argsort(np.argsort(fitness)) / 5 - 0.5
            gradient = sum((ranks[2 * i] - ranks[2 * i + 1]) * noise[i] for i in range(3)) / (6 * sigma)
            m, v = 0.99 * m + 0.01 * gradient, 0.999 * v + 0.001 * gradient**2
            mean = mean + rate * (m / (1 - 0.99 ** (g + 1))) / (np.sqrt(v / (1 - 0.999 ** (g + 1))) + 1e-8)
            np.testing.assert_allclose(ravel_pytree(state.params)[0], mean, rtol=1e-10)


def test_failures_count_as_the_worst() -> None:
    """Individuals whose first parameter is positive fail: the mean goes away from there, and nothing becomes NaN."""

    def fragile(key: Key, own_key: Key, params: Params) -> Evaluation:
        return Evaluation(jnp.where(params["a"][0] > 0.0, jnp.nan, -params["a"][0]))

    for shaping in (pair_ranks, centered_ranks, z_scores, raw):
        state, metrics = train(KEY, evolve(strategy(shaping=shaping), fragile), 1)
        assert state.params["a"][0] < 0.0
        assert metrics["evolution/failed"][0] == 0.5
        assert all(np.isfinite(value).all() for value in metrics.values())


def test_learns_a_quadratic() -> None:
    algorithm = evolve(strategy(16, hp={"learning_rate_decay": 0.98}), noisy)
    states, _ = jax.jit(jax.vmap(lambda key: train(key, algorithm, 150)))(jax.random.split(KEY, 5))
    errors = jax.vmap(lambda params: -minus_square(KEY, KEY, params).fitness)(states.params)
    assert (errors < 0.1 * 5.25).all(), errors  # 5.25 where it began


# ----------------------------------------------------------------------------------------------- keys and layouts


def probe(num_groups: int | None) -> Any:
    """The bits of the keys that every individual was given."""
    seen: list[Any] = []

    def evaluate(key: Key, own_key: Key, params: Params) -> Evaluation:
        bits = jnp.stack([jax.random.key_data(key), jax.random.key_data(own_key)])
        return Evaluation(jnp.float32(0.0), bits)

    ours = strategy(4, num_groups=num_groups)
    spy = ours._replace(tell=lambda key, state, genomes, evaluation: seen.append(evaluation.descriptor) or state)
    evolve(spy, evaluate).step(KEY, ours.init(KEY), 0)
    shared, own = np.moveaxis(np.asarray(seen[0]), 1, 0)
    return [tuple(row) for row in shared], [tuple(row) for row in own]


def test_groups_share_a_key_and_nobody_shares_their_own() -> None:
    """Oracle 16, of which the key is the whole: level, first parameters and environments are drawn from it."""
    for num_groups, size in ((None, 2), (4, 2), (2, 4), (1, 8)):
        shared, own = probe(num_groups)
        blocks = [set(shared[i : i + size]) for i in range(0, 8, size)]
        assert all(len(block) == 1 for block in blocks)
        assert len(set.union(*blocks)) == 8 // size
        assert len({*own, *shared}) == 8 + 8 // size


def layouts() -> dict[str, Algorithm]:
    spreads = {
        "whole": in_chunks(),
        "one by one": in_chunks(1),
        "fives": in_chunks(5),
        "two devices": lambda one: over_runs(one, Layout(2, 2)),
    }
    return {name: evolve(strategy(noise_batch=2 * (name == "fives")), noisy, s) for name, s in spreads.items()}


def test_no_layout_changes_anything() -> None:
    """Chunks of any size, two devices, noise in parts: parameters after two generations."""
    assert jax.local_device_count() >= 2
    states = {name: jax.jit(lambda key, a=a: train(key, a, 2))(KEY) for name, a in layouts().items()}
    for name, (state, metrics) in states.items():
        assert_trees_close((state, metrics), states["whole"], atol=1e-5, rtol=1e-5), name
    assert jnp.abs(states["whole"][0].params["a"]).min() > 0.01


@pytest.mark.parametrize("noise_batch", [1, 2])
def test_noise_made_again_is_noise_that_was_kept(noise_batch: int) -> None:
    """Oracle 11: the estimate of one generation, with an optimiser that hides nothing."""

    def moved(noise_batch: int) -> jax.Array:
        plain = strategy(6, tx=optax.identity(), hp={"learning_rate": 1.0}, noise_batch=noise_batch)
        after, _ = jax.jit(evolve(plain, minus_square).step)(KEY, plain.init(KEY), 0)
        return ravel_pytree(after.params)[0]

    assert jnp.abs(moved(0)).min() > 0.0
    np.testing.assert_allclose(moved(noise_batch), moved(0), rtol=1e-6, atol=1e-7)


def test_resumed_equals_uninterrupted() -> None:
    algorithm = evolve(strategy(), noisy, in_chunks(4))
    run = jax.jit(lambda state, start: train(KEY, algorithm, 3, state, start))
    state = init(KEY, algorithm)
    half, first = run(state, 0)
    rest, second = run(half, 3)
    again = jax.jit(lambda state: train(KEY, algorithm, 6, state))(state)
    assert_trees_equal(rest, again[0])
    assert_trees_equal(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second), again[1])
    np.testing.assert_array_equal(again[1]["evolution/steps"], 36.0)


def test_the_population_is_never_all_there() -> None:
    """Memory of a compiled generation: 64 individuals of 100,000 numbers (26 MB) in chunks of 4 take a tenth."""

    def memory(batch_size: int, noise_batch: int) -> float:
        big = open_es(lambda key: jnp.zeros(100_000), optax.identity(), OpenESHparams(), 32, noise_batch=noise_batch)
        algorithm = evolve(big, lambda key, own, x: Evaluation(-jnp.vdot(x, x)), in_chunks(batch_size))
        state = jax.eval_shape(algorithm.init, KEY)
        return jax.jit(algorithm.step).lower(KEY, state, 0).compile().memory_analysis().temp_size_in_bytes / 1e6

    assert memory(0, 0) > 25
    assert memory(4, 2) < 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: strategy(0), "num_pairs = 0"),
        (lambda: strategy(6, num_groups=4), "not divisible by num_groups = 4; use 3"),
        (lambda: strategy(6, noise_batch=5), "not divisible by noise_batch = 5; use 6"),
        (lambda: in_chunks(-1), "batch_size = -1"),
        (lambda: evolve(strategy()._replace(groups=()), noisy), "at least one individual"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_a_cartpole_policy() -> None:
    """A linear policy from nothing: 8 pairs, 20 generations, 4 seeds, judged over 500 steps."""
    from jaxrl import make_env

    env = make_env("CartPole-v1")

    def play(key: Key, own_key: Key, weights: jax.Array) -> Evaluation:
        key_reset, key_steps = jax.random.split(key)
        params = env.default_params
        state, obs = env.reset(key_reset, params)

        def body(carry: Any, key: Key) -> Any:
            state, obs, alive, total = carry
            state, timestep = env.step(key, state, (obs @ weights > 0).astype(jnp.int32), params)
            total = total + alive
            return (state, timestep.obs, alive & ~timestep.terminated, total), None

        carry = (state, obs, jnp.bool_(True), jnp.float32(0.0))
        (_, _, _, total), _ = jax.lax.scan(body, carry, jax.random.split(key_steps, 500))
        return Evaluation(total, (), total)

    hp = OpenESHparams(learning_rate=0.2, sigma=0.5)
    algorithm = evolve(open_es(lambda key: jnp.zeros(4), optax.scale_by_adam(), hp, 8), play)
    keys = jax.random.split(KEY, 4)
    states, _ = jax.jit(jax.vmap(lambda key: train(key, algorithm, 20)))(keys)
    tests = jax.vmap(jax.vmap(play, (0, None, None)), (None, None, 0))(keys, KEY, states.params).fitness.mean(1)
    before = jax.vmap(play, (0, None, None))(keys, KEY, jnp.zeros(4)).fitness
    assert before.mean() < 20
    assert (tests > 400).all(), tests
