"""The tree of sums against a plain array: `np.searchsorted` over cumulative sums, and NumPy assignments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.ops.sum_tree import WIDTH, init_tree, tree_find, tree_get, tree_set, tree_total

SIZES = (1, 5, WIDTH, WIDTH + 1, WIDTH**2, WIDTH**2 + 7)
SET = jax.jit(tree_set)
FIND = jax.jit(tree_find)


def filled(weights: np.ndarray) -> tuple[jax.Array, ...]:
    return SET(init_tree(len(weights)), jnp.arange(len(weights)), jnp.asarray(weights, jnp.float32))


@pytest.mark.parametrize("size", SIZES)
def test_a_new_tree_weighs_nothing(size: int) -> None:
    tree = init_tree(size)
    assert tree_total(tree) == 0
    assert tree[0].size >= size
    assert len(tree[-1]) == 1


@pytest.mark.parametrize("size", SIZES)
def test_random_programs_keep_every_level_the_sum_of_the_one_below(size: int) -> None:
    rng = np.random.default_rng(size)
    tree, weights = init_tree(size), np.zeros(size)
    for _ in range(12):
        index, new = rng.integers(0, size, 9), rng.exponential(size=9) * (rng.random(9) < 0.8)
        tree = SET(tree, jnp.asarray(index), jnp.asarray(new, jnp.float32))
        for i in np.unique(index):
            weights[i] = new[index == i].max()
    np.testing.assert_allclose(tree_get(tree, jnp.arange(size)), weights, rtol=1e-6)
    np.testing.assert_allclose(tree_total(tree), weights.sum(), rtol=1e-5)
    for below, above in zip(tree[:-1], tree[1:], strict=True):
        np.testing.assert_allclose(below.sum(-1), above.ravel()[: len(below)], rtol=1e-6)
        np.testing.assert_array_equal(above.ravel()[len(below) :], 0.0)


@pytest.mark.parametrize("size", SIZES)
def test_integers_are_found_exactly(size: int) -> None:
    """Sums of small integers are exact, so that the answer is: the first index whose cumulative sum is above."""
    weights = np.random.default_rng(1).integers(0, 4, size)
    weights[size // 2] = 3
    target = np.arange(weights.sum())
    expected = np.searchsorted(np.cumsum(weights), target, side="right")
    np.testing.assert_array_equal(FIND(filled(weights), jnp.asarray(target, jnp.float32)), expected)


@pytest.mark.thorough
@given(st.integers(0, 2**31), st.sampled_from((40, 1100)), st.sampled_from((1.0, 1e-6, 1e8)))
def test_what_weighs_nothing_is_never_found(seed: int, size: int, scale: float) -> None:
    """At targets where rounding decides: each cumulative sum, one float below it and one above, and the total."""
    rng = np.random.default_rng(seed)
    weights = (scale * rng.exponential(size=size) ** 4 * (rng.random(size) < 0.3)).astype(np.float32)
    weights[rng.integers(size)] = scale
    tree = filled(weights)
    sums = np.cumsum(weights, dtype=np.float32)
    total = np.float32(tree_total(tree))
    target = np.concatenate([sums, np.nextafter(sums, np.float32(0)), np.nextafter(sums, np.inf), [total, 0]])
    target = np.clip(target, 0, np.nextafter(total, np.inf)).astype(np.float32)
    found = np.asarray(FIND(tree, jnp.asarray(target)))
    assert found.min() >= 0
    assert found.max() < size
    assert weights[found].min() > 0
    # Near enough: the exact cumulative sums on both sides of what was found enclose the target.
    exact = np.cumsum(weights, dtype=np.float64)
    slack = 1e-5 * exact[-1]
    assert np.all(exact[found] >= target - slack)
    assert np.all(exact[found] - weights[found] <= target + slack)


def test_frequencies_follow_weights() -> None:
    weights = np.array([0.0, 1.0, 2.0, 0.0, 4.0, 0.5] + [0.0] * 40 + [2.5])
    target = (np.arange(10_000) + 0.5) / 10_000 * weights.sum()
    found = np.asarray(FIND(filled(weights), jnp.asarray(target, jnp.float32)))
    np.testing.assert_allclose(np.bincount(found, minlength=47) / 1000, weights, atol=2e-3)


def test_an_index_that_stands_twice_keeps_the_larger_weight() -> None:
    index = jnp.array([3, 3, 40, 3, 40])
    for order in (np.arange(5), np.arange(5)[::-1], np.array([1, 0, 4, 3, 2])):
        weight = jnp.array([1.0, 5.0, 2.0, 3.0, 0.5])
        tree = SET(filled(np.full(50, 9.0)), index[order], weight[order])
        assert tree_get(tree, jnp.array([3, 40, 4])).tolist() == [5.0, 2.0, 9.0]
        assert tree_total(tree) == 48 * 9 + 7


def test_sums_do_not_drift() -> None:
    """Ten thousand changes of one leaf from large to small, and the total is that of what is left."""
    tree = filled(np.ones(100))

    def body(i: jax.Array, tree: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tree_set(tree, jnp.array([7]), jnp.where(i % 2 == 0, 1e7, 0.1)[None])

    tree = jax.jit(lambda tree: jax.lax.fori_loop(0, 10_000, body, tree))(tree)
    assert tree_total(tree) == pytest.approx(99.1, abs=1e-4)
