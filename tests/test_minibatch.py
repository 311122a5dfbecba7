"""Shuffling and descent: statistics of the permutations, and a hand-written loop over optax."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from helpers import assert_trees_close

from jaxrl.ops.minibatch import (
    OPTIMIZERS,
    clip_by_norm,
    descend,
    direction,
    global_norm,
    init_optimizer,
    minibatches,
    permutations,
)


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100, 127, 128, 129, 1000, 4096, 5000])
def test_every_row_is_a_permutation(size: int) -> None:
    rows = np.asarray(permutations(key(size), 3, size))
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(size), (3, 1)))


@pytest.mark.parametrize("size", [2**18, 2**18 + 1])
def test_large_sizes_on_both_sides_of_the_packed_sort(size: int) -> None:
    rows = np.asarray(permutations(key(), 2, size))
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(size), (2, 1)))
    for row in rows:
        assert abs(np.corrcoef(row, np.arange(size))[0, 1]) < 0.01
        # Neighbours meet in one of 8 minibatches as often as strangers do.
        minibatch = np.zeros(size, int)
        minibatch[row] = np.arange(size) * 8 // size
        assert abs((minibatch[1:] == minibatch[:-1]).mean() - 1 / 8) < 0.005
    assert np.mean(rows[0] == rows[1]) < 1e-3


@pytest.mark.parametrize("size", [3, 4, 5])
def test_all_orders_are_equally_likely(size: int) -> None:
    draws = 400 * math.factorial(size)
    rows = np.asarray(permutations(key(size), draws, size))
    codes = rows @ (size ** np.arange(size))
    orders = [np.array(order) @ (size ** np.arange(size)) for order in itertools.permutations(range(size))]
    counts = np.array([(codes == order).sum() for order in orders])
    assert counts.sum() == draws
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_positions_are_uniform_in_a_larger_permutation() -> None:
    rows = np.asarray(permutations(key(7), 20_000, 12))
    for position in (0, 5, 11):
        assert scipy.stats.chisquare(np.bincount(rows[:, position], minlength=12)).pvalue > 1e-3


def test_the_same_key_gives_the_same_and_another_another() -> None:
    np.testing.assert_array_equal(permutations(key(1), 2, 50), permutations(key(1), 2, 50))
    assert np.any(np.asarray(permutations(key(1), 2, 50)) != np.asarray(permutations(key(2), 2, 50)))


def test_epochs_visit_every_row_once_in_different_orders() -> None:
    data = {"index": jnp.arange(12), "double": 2.0 * jnp.arange(12.0)[:, None] * jnp.ones((12, 3))}
    batches = minibatches(key(3), data, num_epochs=3, num_minibatches=4)
    assert batches["index"].shape == (12, 3)
    assert batches["double"].shape == (12, 3, 3)
    epochs = np.asarray(batches["index"]).reshape(3, 12)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(12), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs} | {tuple(range(12))}) == 4
    # Leaves stay together.
    np.testing.assert_array_equal(batches["double"][..., 0], 2.0 * batches["index"])


def test_one_epoch_of_one_minibatch_is_the_data() -> None:
    data = jnp.arange(10.0).reshape(5, 2)
    np.testing.assert_array_equal(minibatches(key(), data, 1, 1), data[None])


PARAMS = {"a": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": {"c": jnp.float32(0.3), "d": jnp.ones(3)}}


def loss(params: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    x, y = batch
    prediction = jnp.tanh(x @ params["a"]).sum(-1) * params["b"]["c"] + params["b"]["d"].sum()
    value = jnp.square(prediction - y).mean()
    return value, {"loss": value, "largest": jnp.abs(prediction).max()}


@pytest.mark.parametrize("max_norm", [1e9, 0.1])  # never and always clipped
def test_descend_is_a_loop_over_optax(max_norm: float) -> None:
    rng = np.random.default_rng(0)
    batches = (jnp.asarray(rng.normal(size=(6, 5, 2)), jnp.float32), jnp.asarray(rng.normal(size=(6, 5)), jnp.float32))
    tx = optax.chain(optax.clip_by_global_norm(max_norm), optax.scale_by_adam(eps=1e-5))
    opt_state = init_optimizer(tx, PARAMS)
    params, opt_state, metrics = jax.jit(lambda p, s: descend(loss, tx, p, s, batches, 0.05))(PARAMS, opt_state)

    reference = optax.chain(optax.clip_by_global_norm(max_norm), optax.adam(0.05, eps=1e-5))
    expected, state, rows = PARAMS, reference.init(PARAMS), []
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for i in range(6):
        (_, row), grad = step(expected, jax.tree.map(lambda leaf: leaf[i], batches))  # noqa: B023
        rows.append({**row, "grad_norm": optax.tree.norm(grad)})
        updates, state = reference.update(grad, state, expected)
        expected = optax.apply_updates(expected, updates)
    assert_trees_close(params, expected)
    assert all(row["grad_norm"] > 0.1 for row in rows)  # else nothing was clipped
    for name in ("loss", "largest", "grad_norm"):  # of the gradients before the clip
        assert metrics[name] == pytest.approx(np.mean([row[name] for row in rows]), rel=1e-5)
    # The optimiser's state goes on where it stood.
    again = descend(loss, tx, params, opt_state, jax.tree.map(lambda leaf: leaf[:1], batches), 0.05)[0]
    (_, _), grad = step(expected, jax.tree.map(lambda leaf: leaf[0], batches))
    updates, state = reference.update(grad, state, expected)
    assert_trees_close(again, optax.apply_updates(expected, updates))


def test_a_step_size_of_zero_moves_nothing() -> None:
    tx = optax.scale_by_adam()
    batches = (jnp.ones((2, 4, 2)), jnp.ones((2, 4)))
    params = descend(loss, tx, PARAMS, init_optimizer(tx, PARAMS), batches, jnp.float32(0.0))[0]
    assert_trees_close(params, PARAMS, atol=0, rtol=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_directions_are_optax_s_and_have_derivatives_where_gradients_are_zero(name: str) -> None:
    """Three steps; a coordinate whose gradient has always been 0 does not make the derivative NaN."""
    reference = {
        "adam": optax.scale_by_adam(eps=1e-5),
        "adam_bounded": optax.chain(optax.scale_by_adam(), optax.clip(1.0)),
        "rmsprop": optax.scale_by_rms(decay=0.99, eps=1e-5, eps_in_sqrt=False),
        "sgd": optax.identity(),
    }[name]
    gradient = jnp.array([0.3, -2.0, 1e-6, 0.0])

    def third(tx: optax.GradientTransformation, scale: jax.Array) -> jax.Array:
        state = tx.init(gradient)
        for _ in range(3):
            step, state = tx.update(scale * gradient, state, gradient)
        return step

    ours = direction(name)
    np.testing.assert_allclose(third(ours, jnp.float32(1.0)), third(reference, jnp.float32(1.0)), rtol=1e-4)
    slope = jax.jacrev(lambda scale: third(ours, scale))(jnp.float32(1.0))
    assert np.isfinite(slope).all()
    numeric = (third(ours, jnp.float32(1.1)) - third(ours, jnp.float32(0.9))) / 0.2
    np.testing.assert_allclose(slope[:2], numeric[:2], rtol=0.05, atol=1e-3)


def test_clipping_by_norm_is_optax_s_and_has_a_derivative_at_zero() -> None:
    tree = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[12.0]])}  # norm 13
    for bound in (1.0, 13.5):
        expected = optax.clip_by_global_norm(bound).update(tree, optax.EmptyState())[0]
        assert_trees_close(clip_by_norm(bound).update(tree, None)[0], expected, atol=1e-6)

    def clipped(scale: jax.Array) -> jax.Array:
        grad = jax.tree.map(lambda leaf: scale * leaf, tree)
        return clip_by_norm(1.0).update(grad, None)[0]["b"].sum() + global_norm(grad)

    np.testing.assert_allclose(jax.grad(clipped)(0.0), 12.0)  # as the identity; the norm itself has a kink there
    np.testing.assert_allclose(jax.grad(clipped)(0.01), 12.0 + 13.0, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(clipped)(1.0), 13.0, atol=1e-4)  # clipped: its length no longer changes
