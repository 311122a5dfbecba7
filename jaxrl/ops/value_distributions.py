"""Losses of distributional value learning: categorical atoms and quantiles."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def huber(error: jax.Array, delta: float = 1.0) -> jax.Array:
    """`error^2 / 2` up to `delta`, then linear; elementwise.

    References:
      Huber 1964.
    """
    size = jnp.abs(error)
    return jnp.where(size <= delta, 0.5 * jnp.square(error), delta * (size - 0.5 * delta))


def project_categorical(atoms: jax.Array, probs: jax.Array, reward: jax.Array, discount: jax.Array) -> jax.Array:
    """The distribution of `reward + discount * Z`, put back on Z's atoms.

    Each atom's mass goes to the two nearest atoms in proportion to nearness: all of it to one where it falls on it.

    Args:
      atoms: [K], equidistant and increasing.
      probs: [N, K] of Z.
      reward, discount: [N].
    Returns:
      [N, K]; rows sum to 1.
    References:
      Bellemare et al. 2017, arXiv:1707.06887, algorithm 1.
    """
    moved = jnp.clip(reward[:, None] + discount[:, None] * atoms, atoms[0], atoms[-1])
    spacing = atoms[1] - atoms[0]
    nearness = jnp.clip(1.0 - jnp.abs(moved[:, None, :] - atoms[:, None]) / spacing, 0.0, 1.0)  # [N, to, from]
    return jnp.einsum("nij,nj->ni", nearness, probs)


def quantile_huber_loss(quantiles: jax.Array, targets: jax.Array, kappa: float = 1.0) -> jax.Array:
    """Quantile regression with Huber's loss.

    Args:
      quantiles: [N, K], predictions at the midpoints (i + 1/2) / K.
      targets: [N, L], samples of the target distribution.
      kappa: where the loss turns linear.
    Returns:
      [N], summed over quantiles and averaged over targets.
    References:
      Dabney et al. 2018, arXiv:1710.10044, eq. 10.
    """
    num = quantiles.shape[-1]
    midpoints = (jnp.arange(num) + 0.5) / num
    error = targets[:, None, :] - quantiles[:, :, None]
    weight = jnp.abs(midpoints[:, None] - (error < 0.0))
    return (weight * huber(error, kappa) / kappa).mean(-1).sum(-1)
