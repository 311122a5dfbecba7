"""Sensitivities by hand on linear networks, where outputs react by known amounts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.evo.safe_mutation import curvature_sensitivity, rescaled_direction, safe_direction, sensitivity

KEY = jax.random.key(0)
THETA, ONES = jnp.array([0.3, -2.0]), jnp.ones((7, 2))


def linear(theta: jax.Array, x: jax.Array) -> jax.Array:
    """y = (100 w0 x0, 0.1 w1 x1)."""
    return jnp.stack([100.0 * theta[0] * x[:, 0], 0.1 * theta[1] * x[:, 1]], -1)


def test_oracle() -> None:
    """SUM gives (100 n, 0.1 n), ABS (100, 0.1); what either scales differs by 1000."""
    np.testing.assert_allclose(sensitivity(linear, THETA, ONES), [700.0, 0.7], rtol=1e-6)
    np.testing.assert_allclose(sensitivity(linear, THETA, ONES, "abs"), [100.0, 0.1], rtol=1e-6)
    noise = 0.5 * np.asarray(jax.random.normal(KEY, (2,)))
    for kind, scale in (("sum", [700.0, 0.7]), ("abs", [100.0, 0.1])):
        delta = safe_direction(KEY, linear, THETA, ONES, 0.5, kind)
        np.testing.assert_allclose(delta, noise / scale, rtol=1e-5)
        np.testing.assert_allclose((noise[0] / delta[0]) / (noise[1] / delta[1]), 1000.0, rtol=1e-4)


def test_opposite_reactions_cancel_in_one_and_not_in_the_other() -> None:
    x = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(sensitivity(linear, THETA, x), [1.0, 0.2], rtol=1e-6)  # 0 counts as 1
    np.testing.assert_allclose(sensitivity(linear, THETA, x, "abs"), [100.0, 0.1], rtol=1e-6)


def test_floors() -> None:
    still = sensitivity(lambda theta, x: jnp.stack([1e-3 * theta[0] * x[:, 0]], -1), THETA, ONES[:1])
    np.testing.assert_allclose(still, [0.01, 1.0], rtol=1e-6)


def test_second_order() -> None:
    """H = diag(100^2, 0.1^2) for two outputs: their mean squared change has the Hessian 2 / 2 of it."""
    direction = jnp.array([3.0, 4.0])
    expected = np.sqrt(np.array([1e4, 1e-2]) * [0.6, 0.8])
    np.testing.assert_allclose(curvature_sensitivity(linear, THETA, ONES, direction), expected, rtol=1e-4)
    noise = 0.5 * jax.random.normal(KEY, (2,))
    delta = safe_direction(KEY, linear, THETA, ONES, 0.5, "second_order")
    np.testing.assert_allclose(delta, noise / curvature_sensitivity(linear, THETA, ONES, noise), rtol=1e-5)


def test_rescaled_directions_change_outputs_by_the_power() -> None:
    def network(theta: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ theta[:6].reshape(2, 3)) @ theta[6:].reshape(3, 2)

    theta, x = jax.random.normal(KEY, (12,)), jax.random.normal(jax.random.key(1), (20, 2))
    direction = jax.random.normal(jax.random.key(2), (12,))
    for power in (1e-3, 0.1):
        delta = rescaled_direction(network, theta, x, direction, power)
        changed = np.square(network(theta + delta, x) - network(theta, x)).mean()
        np.testing.assert_allclose(changed, power, rtol=1e-2)
        np.testing.assert_allclose(delta / jnp.linalg.norm(delta), direction / jnp.linalg.norm(direction), rtol=1e-4)
    np.testing.assert_array_equal(rescaled_direction(network, theta, x, jnp.zeros(12), 0.1), 0.0)


def test_changes_are_clipped_and_kinds_checked() -> None:
    assert float(jnp.abs(safe_direction(KEY, linear, THETA, ONES, 50.0, largest=0.2)).max()) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="kind = 'norm'"):
        safe_direction(KEY, linear, THETA, ONES, 0.5, "norm")
    with pytest.raises(ValueError, match="second_order needs a direction"):
        sensitivity(linear, THETA, ONES, "second_order")
