"""Distributional losses against numbers worked out by hand, naive loops and finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.networks import Torso
from jaxrl.ops.value_distributions import huber, project_categorical, quantile_huber_loss
from jaxrl.value_networks import ActionValues, apply_network

ATOMS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
PROBS = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
PROJECT = jax.jit(project_categorical)


def naive_projection(atoms: np.ndarray, probs: np.ndarray, reward: float, discount: float) -> np.ndarray:
    """Algorithm 1 of the paper, atom by atom."""
    result = np.zeros(len(atoms))
    spacing = atoms[1] - atoms[0]
    for atom, prob in zip(atoms, probs, strict=True):
        b = (min(max(reward + discount * atom, atoms[0]), atoms[-1]) - atoms[0]) / spacing
        b = round(b, 9)
        low, high = int(np.floor(b)), int(np.ceil(b))
        if low == high:
            result[low] += prob
        else:
            result[low] += prob * (high - b)
            result[high] += prob * (b - low)
    return result


@pytest.mark.parametrize(
    ("reward", "discount", "expected"),
    [
        (0.25, 0.9, [0.03, 0.15, 0.32, 0.32, 0.18]),
        (0.25, 0.0, [0.0, 0.0, 0.5, 0.5, 0.0]),
        (0.5, 0.0, [0.0, 0.0, 0.0, 1.0, 0.0]),  # on an atom: all of it there
        (0.5, 1.0, [0.0, 0.1, 0.2, 0.4, 0.3]),  # every atom on an atom, the last beyond the end
        (7.0, 0.9, [0.0, 0.0, 0.0, 0.0, 1.0]),
        (-7.0, 0.9, [1.0, 0.0, 0.0, 0.0, 0.0]),
        (0.0, 1.0, [0.1, 0.2, 0.4, 0.2, 0.1]),
    ],
)
def test_projections_by_hand(reward: float, discount: float, expected: list[float]) -> None:
    projected = PROJECT(jnp.asarray(ATOMS), jnp.asarray(PROBS)[None], jnp.array([reward]), jnp.array([discount]))[0]
    np.testing.assert_allclose(projected, expected, atol=1e-6)
    np.testing.assert_allclose(naive_projection(ATOMS, PROBS, reward, discount), expected, atol=1e-9)


def test_what_the_ends_cut_off_is_missing_from_the_mean() -> None:
    projected = PROJECT(jnp.asarray(ATOMS), jnp.asarray(PROBS)[None], jnp.array([0.25]), jnp.array([0.9]))[0]
    assert float(projected @ ATOMS) == pytest.approx(0.235, abs=1e-6)  # 0.25 without the cut


@given(st.integers(0, 2**31), st.sampled_from((2, 11, 51)))
def test_projection_is_the_naive_loops(seed: int, num_atoms: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(-5, 5)
    atoms = np.linspace(low, low + rng.uniform(0.5, 10), num_atoms)
    probs = rng.dirichlet(np.full(num_atoms, 0.3), 4)
    reward, discount = rng.normal(low, 5, 4), rng.choice([0.0, 0.5, 0.97, 1.0], 4)
    arguments = [jnp.asarray(x, jnp.float32) for x in (atoms, probs, reward, discount)]
    projected = np.asarray(PROJECT(*arguments))
    np.testing.assert_allclose(projected.sum(-1), 1.0, atol=1e-5)
    expected = [naive_projection(atoms, probs[i], reward[i], discount[i]) for i in range(4)]
    np.testing.assert_allclose(projected, expected, atol=2e-5)


def test_quantile_loss_by_hand() -> None:
    loss = quantile_huber_loss(jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 2.0]]))
    assert loss.shape == (1,)
    assert loss[0] == pytest.approx(0.40625, abs=1e-7)


def test_quantile_loss_is_the_naive_loops() -> None:
    rng = np.random.default_rng(0)
    quantiles, targets = rng.normal(size=(3, 5)), rng.normal(size=(3, 7))
    kappa, expected = 0.6, np.zeros(3)
    for n in range(3):
        for i in range(5):
            for j in range(7):
                u = targets[n, j] - quantiles[n, i]
                size = 0.5 * u * u if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
                expected[n] += abs((i + 0.5) / 5 - (u < 0)) * size / kappa / 7
    loss = quantile_huber_loss(jnp.asarray(quantiles, jnp.float32), jnp.asarray(targets, jnp.float32), kappa)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_quantile_loss_is_least_at_the_quantiles() -> None:
    """With a narrow quadratic part, gradient descent on samples of a uniform variable finds (i + 1/2) / K."""
    targets = (jnp.arange(1000.0)[None] + 0.5) / 1000
    gradient = jax.grad(lambda quantiles: quantile_huber_loss(quantiles, targets, 1e-3).sum())

    def body(i: jax.Array, quantiles: jax.Array) -> jax.Array:
        return quantiles - 0.02 * gradient(quantiles)

    found = jax.jit(lambda q: jax.lax.fori_loop(0, 600, body, q))(jnp.full((1, 4), 0.5))
    np.testing.assert_allclose(found[0], [0.125, 0.375, 0.625, 0.875], atol=2e-3)


def test_huber_by_hand() -> None:
    error = jnp.array([0.0, 0.5, -1.0, 3.0, -3.0])
    np.testing.assert_allclose(huber(error), [0.0, 0.125, 0.5, 2.5, 2.5])
    np.testing.assert_allclose(huber(error, 2.0), [0.0, 0.125, 0.5, 4.0, 4.0])
    gradient = jax.vmap(jax.grad(huber))(error)
    np.testing.assert_allclose(gradient, [0.0, 0.5, -1.0, 1.0, -1.0])
    huge = jax.value_and_grad(lambda error: huber(error))(jnp.float32(1e30))
    assert np.isfinite(huge).all()


def test_dueling_by_hand() -> None:
    """V = 1 and A = [1, 2, 3] make Q = [0, 1, 2]; two outputs per action, the second ten times as large."""
    network = ActionValues(3, 2, Torso((), "relu"), dueling=True)
    params = {
        "params": {
            "head_q": {"kernel": jnp.zeros((1, 6)), "bias": jnp.array([1.0, 10.0, 2.0, 20.0, 3.0, 30.0])},
            "head_value": {"kernel": jnp.zeros((1, 2)), "bias": jnp.array([1.0, 10.0])},
        }
    }
    values = apply_network(network, params, jnp.zeros((4, 1)))
    np.testing.assert_allclose(values, np.tile([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0]], (4, 1, 1)))
    shapes = jax.tree.map(jnp.shape, network.init(jax.random.key(0), jnp.zeros((1, 1))))
    assert shapes == jax.tree.map(jnp.shape, params)
