"""Analytic quality-diversity tasks: a point, its fitness and its descriptor; no environment, no episodes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Task(NamedTuple):
    """A point's worth and place.

    Attributes:
      fitness: scalar, the higher the better; at most 0.
      descriptor: [2], in [0, 1].
    """

    fitness: jax.Array
    descriptor: jax.Array


def arm(x: jax.Array) -> Task:
    """A planar arm of n joints: it should bend evenly, wherever its hand is.

    Args:
      x: [n] in [0, 1]; joint i turns by `2 pi x_i - pi` against the one before.
    Returns:
      Minus the deviation of x, and the hand's place, scaled so that the arm's reach is the disk of radius 0.5 around
      (0.5, 0.5).
    References:
      Cully et al. 2015, arXiv:1407.3501; as in pymap_elites.
    """
    angle = jnp.cumsum(2.0 * jnp.pi * x - jnp.pi)
    place = jnp.stack([jnp.cos(angle).sum(), jnp.sin(angle).sum()])
    # The deviation's own derivative is NaN where all are equal; nobody needs it there.
    variance = jnp.square(x - x.mean()).mean()
    deviation = jnp.where(variance > 0.0, jnp.sqrt(jnp.where(variance > 0.0, variance, 1.0)), 0.0)
    return Task(-deviation, place / (2 * x.shape[0]) + 0.5)


def sphere(x: jax.Array) -> Task:
    """`-|10 x - 5|^2` of x [n] in [0, 1], n >= 2, described by its first two coordinates."""
    return Task(-jnp.square(10.0 * x - 5.0).sum(), x[:2])


def rastrigin(x: jax.Array) -> Task:
    """Rastrigin's function of 10 x - 5, negated; x [n] in [0, 1], n >= 2, described by its first two coordinates."""
    y = 10.0 * x - 5.0
    return Task(-(10.0 * x.shape[0] + (jnp.square(y) - 10.0 * jnp.cos(2.0 * jnp.pi * y)).sum()), x[:2])


TASKS = {"arm": arm, "sphere": sphere, "rastrigin": rastrigin}
