"""The core with an algorithm of three lines, and the invariances of every registered one (`conformance.py`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import CASES, CHECKS, Case, count_primitives
from helpers import assert_trees_equal

from jaxrl.algorithm import Algorithm, init, sweep, train, with_evaluation
from jaxrl.presets import PRESETS


def walk(scale: Any = 1.0) -> Algorithm:
    """A random walk that knows where and when it has been."""

    def init(key: jax.Array) -> dict[str, jax.Array]:
        return {"x": jax.random.normal(key), "sum_t": jnp.int32(0)}

    def step(key: jax.Array, state: Any, t: jax.Array) -> Any:
        x = state["x"] + scale * jax.random.normal(key)
        return {"x": x, "sum_t": state["sum_t"] + t}, {"x": x, "t": t}

    return Algorithm(init, step)


KEY = jax.random.key(3)


def by_hand(num_steps: int, scale: float = 1.0, key: jax.Array = KEY) -> tuple[Any, list[float]]:
    """The loop that `train` promises: key split in two, update t from `fold_in(key, t)`."""
    key_init, key_steps = jax.random.split(key)
    algorithm = walk(scale)
    state, xs = algorithm.init(key_init), []
    for t in range(num_steps):
        state, metrics = algorithm.step(jax.random.fold_in(key_steps, t), state, t)
        xs.append(float(metrics["x"]))
    return state, xs


def test_train_is_the_loop_it_promises() -> None:
    state, metrics = train(KEY, walk(), 5)
    expected, xs = by_hand(5)
    np.testing.assert_allclose(metrics["x"], xs, rtol=1e-6)
    np.testing.assert_array_equal(metrics["t"], np.arange(5))
    assert state["sum_t"] == expected["sum_t"] == 10
    assert_trees_equal(init(KEY, walk()), walk().init(jax.random.split(KEY)[0]))


@pytest.mark.parametrize("cuts", [(3, 4), (1, 1, 5), (7,)])
def test_any_cut_into_chunks_gives_the_same(cuts: tuple[int, ...]) -> None:
    state, xs, start = init(KEY, walk()), [], 0
    for num in cuts:
        state, metrics = train(KEY, walk(), num, state, start)
        start += num
        xs.extend(metrics["x"].tolist())
    whole, metrics = train(KEY, walk(), 7)
    assert_trees_equal(state, whole)
    assert xs == metrics["x"].tolist()


def test_stop_masks_what_comes_after() -> None:
    """A chunk of 4 that must stop at 6: updates 4 and 5 happen, 6 and 7 leave state and metrics alone."""
    run = jax.jit(lambda state, start, stop: train(KEY, walk(), 4, state, start, stop))
    state, first = run(init(KEY, walk()), 0, 6)
    state, second = run(state, 4, 6)
    whole, metrics = train(KEY, walk(), 6)
    assert_trees_equal(state, whole)
    np.testing.assert_array_equal(np.concatenate([first["x"], second["x"][:2]]), metrics["x"])
    np.testing.assert_array_equal(second["x"][2:], 0.0)
    assert second["x"].dtype == metrics["x"].dtype
    assert second["t"].dtype == metrics["t"].dtype
    untouched, nothing = run(state, 8, 6)
    assert_trees_equal(untouched, state)
    assert not np.any(nothing["x"])


def test_stop_is_a_real_branch_under_vmap() -> None:
    def run(key: jax.Array, stop: jax.Array) -> Any:
        return train(key, walk(), 4, None, 0, stop)

    jaxpr = jax.make_jaxpr(jax.vmap(run, (0, None)))(jax.random.split(KEY, 3), jnp.int32(2)).jaxpr
    assert count_primitives(jaxpr, "cond") == 1


def test_sweep_is_every_setting_with_every_seed() -> None:
    keys, scales = jax.random.split(KEY, 3), jnp.array([1.0, 10.0])
    state, metrics = sweep(walk, scales, keys, 4)
    assert metrics["x"].shape == (2, 3, 4)
    assert state["x"].shape == (2, 3)
    for h, s in np.ndindex(2, 3):
        expected, xs = by_hand(4, float(scales[h]), keys[s])
        np.testing.assert_allclose(metrics["x"][h, s], xs, rtol=1e-5)
        np.testing.assert_allclose(state["x"][h, s], expected["x"], rtol=1e-5)
    # Every setting sees the same seeds: the first states agree.
    resumed, more = sweep(walk, scales, keys, 2, state, 4)
    whole, all_metrics = sweep(walk, scales, keys, 6)
    assert_trees_equal(resumed, whole)
    np.testing.assert_array_equal(more["x"], all_metrics["x"][..., 4:])


def measure(key: jax.Array, state: Any) -> dict[str, jax.Array]:
    return {"x": state["x"], "noise": jax.random.normal(key)}


@pytest.mark.parametrize("every", [1, 2, 3])
def test_evaluation_follows_every_kth_update(every: int) -> None:
    state, metrics = train(KEY, with_evaluation(walk(), measure, every), 7)
    due = np.arange(1, 8) % every == 0
    for name in ("evaluation/x", "evaluation/noise"):
        np.testing.assert_array_equal(np.isfinite(metrics[name]), due)
    np.testing.assert_array_equal(np.asarray(metrics["evaluation/x"])[due], np.asarray(metrics["x"])[due])  # after it
    assert len(set(np.asarray(metrics["evaluation/noise"])[due].tolist())) == due.sum()
    assert state["sum_t"] == 21


def test_asking_for_evaluations_changes_nothing_of_what_is_learnt() -> None:
    plain, metrics = train(KEY, walk(), 6)
    evaluated, more = train(KEY, with_evaluation(walk(), measure, 2), 6)
    assert_trees_equal(evaluated, plain)
    np.testing.assert_array_equal(more["x"], metrics["x"])
    assert not np.isin(np.asarray(more["evaluation/noise"]), np.asarray(metrics["x"])).any()


def test_evaluation_runs_only_when_due() -> None:
    """On the host's side of a callback: three calls in seven updates, also under `vmap`, where a select would pay."""
    calls: list[int] = []

    def costly(key: jax.Array, state: Any) -> dict[str, jax.Array]:
        jax.debug.callback(lambda: calls.append(1))
        return {"x": state["x"]}

    def run(key: jax.Array) -> Any:
        return train(key, with_evaluation(walk(), costly, 2), 7)

    for function, keys, num in ((run, KEY, 1), (jax.vmap(run), jax.random.split(KEY, 4), 4)):
        calls.clear()
        jax.block_until_ready(jax.jit(function)(keys))
        jax.effects_barrier()
        assert len(calls) in (3, 3 * num)  # a callback may be called for each lane, but only at 3 updates
        assert len(calls) < 7


def test_evaluation_of_integers_and_under_another_name() -> None:
    algorithm = with_evaluation(walk(), lambda key, state: {"t": state["sum_t"]}, 3, prefix="greedy")
    _, metrics = train(KEY, algorithm, 3)
    np.testing.assert_array_equal(metrics["greedy/t"], [np.nan, np.nan, 3.0])


def test_evaluation_when_a_function_of_t_says_so() -> None:
    algorithm = with_evaluation(walk(), measure, lambda t: (t == 0) | (t == 4))
    _, metrics = train(KEY, algorithm, 6)
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(metrics["evaluation/x"])), [0, 4])


@pytest.mark.parametrize("every", [0, -1])
def test_evaluation_needs_a_period(every: int) -> None:
    with pytest.raises(ValueError, match="every >= 1"):
        with_evaluation(walk(), measure, every)


def test_a_counter_in_the_state_would_lose_the_branch() -> None:
    """What the unbatched `t` is for, and that the check of it can fail: a batched predicate becomes a select."""

    def step(key: jax.Array, state: Any, t: jax.Array) -> Any:
        due = state["sum_t"] % 2 == 0
        x = jax.lax.cond(due, lambda: state["x"] + jnp.sin(state["x"]), lambda: state["x"])
        return {"x": x, "sum_t": state["sum_t"] + 1}, {"x": x}

    keys = jax.random.split(KEY, 2)
    states = jax.vmap(walk().init)(keys)
    run = jax.vmap(lambda key, state: train(key, Algorithm(walk().init, step), 3, state))
    jaxpr = jax.make_jaxpr(run)(keys, states).jaxpr
    assert count_primitives(jaxpr, "cond") == 0


def test_every_preset_is_registered_for_conformance() -> None:
    assert {case.preset for case in CASES.values()} == set(PRESETS)


@pytest.mark.quick(*(f"ppo-{check.__name__}" for check in CHECKS if check.__name__ != "jit_equals_no_jit"))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_conformance(case: Case, check: Callable[[Case], None]) -> None:
    """Each check of tests/conformance.py raises AssertionError for an algorithm that fails it."""
    check(case)


def test_seeds_vmapped_at_real_widths_do_not_wait_for_each_other() -> None:
    """Regression: LAPACK's QR inside a vmapped initialisation hung for ever on two cores, at widths of 64."""
    script = (
        "import jax, jaxrl\n"
        "env = jaxrl.make_env('jaxrl/probe_discount')\n"
        "algorithm = jaxrl.ppo(env, jaxrl.PPOConfig(total_steps=1024))\n"
        "keys = jax.random.split(jax.random.key(0), 4)\n"
        "_, metrics = jax.jit(jax.vmap(lambda k: jaxrl.train(k, algorithm, 2)))(keys)\n"
        "print(metrics['loss/value'].shape, bool((metrics['loss/value'] > 0).all()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=120, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "(4, 2) True"
