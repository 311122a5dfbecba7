"""What it costs to carry one cloud of points onto another, squared Euclidean distance times mass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def transport_1d(x: jax.Array, y: jax.Array) -> jax.Array:
    """Squared 2-Wasserstein distance of the points x [N] and y [M], equal masses each; exact, by sorting."""
    num_x, num_y = x.shape[0], y.shape[0]
    # Between two neighbouring levels at which either distribution steps, both quantiles are constant. In whole numbers:
    # level k / N is k M of N M.
    levels = np.unique(np.concatenate([np.arange(num_x + 1) * num_y, np.arange(num_y + 1) * num_x]))
    share, lower = np.diff(levels) / (num_x * num_y), levels[:-1]
    return jnp.sum(share.astype(np.float32) * jnp.square(jnp.sort(x)[lower // num_y] - jnp.sort(y)[lower // num_x]))


def transport_sinkhorn(
    x: jax.Array, y: jax.Array, epsilon: float | jax.Array = 0.03, num_iterations: int = 100
) -> jax.Array:
    """Transport cost of x [N, d] onto y [M, d], equal masses each, approximately, by Sinkhorn's iterations.

    The cost of a true plan, so never below the least: that with the least `cost + epsilon * relative entropy`, as far
    as the iterations found it, its masses corrected. Epsilon falls geometrically to its value over the first half of
    the iterations. Memory N x M.

    Args:
      x, y: points.
      epsilon: squared length.
      num_iterations: of both potentials.
    References:
      Cuturi 2013, arXiv:1306.0895; Schmitzer 2019, arXiv:1610.06519 (logarithmic domain, falling epsilon); Altschuler
      et al. 2017, arXiv:1705.09634 (the correction).
    """
    cost = jnp.sum(jnp.square(x[:, None] - y), axis=-1)
    log_x, log_y = -jnp.log(x.shape[0]), -jnp.log(y.shape[0])
    fall = jnp.minimum(jnp.arange(1, num_iterations + 1) / max(num_iterations // 2, 1), 1.0)
    largest = jnp.maximum(jnp.max(cost), epsilon)
    scales = largest * (epsilon / largest) ** fall

    def body(potential: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
        f = -scale * jax.nn.logsumexp((potential - cost) / scale + log_y, axis=1)
        return -scale * jax.nn.logsumexp((f[:, None] - cost) / scale + log_x, axis=0), None

    g, _ = jax.lax.scan(body, jnp.zeros(y.shape[0]), scales)
    f = -epsilon * jax.nn.logsumexp((g - cost) / epsilon + log_y, axis=1)
    plan = jnp.exp((f[:, None] + g - cost) / epsilon + log_x + log_y)
    # Its rows are right; too full columns are cut, and what is then missing anywhere is spread evenly.
    plan = plan * jnp.minimum(1.0 / (y.shape[0] * jnp.maximum(plan.sum(0), 1e-30)), 1.0)
    missing_x, missing_y = 1 / x.shape[0] - plan.sum(1), 1 / y.shape[0] - plan.sum(0)
    return jnp.sum(plan * cost) + missing_x @ cost @ missing_y / jnp.maximum(missing_x.sum(), 1e-12)
