"""Running moments that belong to an agent's state, so that training, evaluation and checkpoints agree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class RunningMoments:
    """Mean and variance of a stream, float32. `count` starts at 1e-4, so that the first batch decides.

    Attributes:
      mean, var: of the shape of one sample.
      count: scalar, samples seen.
    """

    mean: jax.Array
    var: jax.Array
    count: jax.Array


def init_moments(shape: tuple[int, ...]) -> RunningMoments:
    """Mean 0, variance 1: normalising with these changes nothing."""
    return RunningMoments(jnp.zeros(shape), jnp.ones(shape), jnp.float32(1e-4))


def update_moments(moments: RunningMoments, batch: jax.Array) -> RunningMoments:
    """Merges a batch into the moments.

    Args:
      moments: of samples of shape `S`.
      batch: [..., *S]; every leading axis is a sample axis.
    References:
      Chan et al. 1979, parallel variance.
    """
    axes = tuple(range(batch.ndim - moments.mean.ndim))
    num = jnp.float32(batch.size / max(moments.mean.size, 1))
    batch = batch.astype(jnp.float32)
    batch_mean, batch_var = batch.mean(axes), batch.var(axes)
    total = moments.count + num
    delta = batch_mean - moments.mean
    mean = moments.mean + delta * (num / total)
    squares = moments.var * moments.count + batch_var * num + delta**2 * (moments.count * num / total)
    return RunningMoments(mean, squares / total, total)


def normalize(moments: RunningMoments, x: jax.Array, clip: float = 10.0) -> jax.Array:
    """`(x - mean) / std`, clipped to ±`clip` standard deviations."""
    return jnp.clip((x - moments.mean) * jax.lax.rsqrt(moments.var + 1e-8), -clip, clip)


def scale(moments: RunningMoments, x: jax.Array, clip: float = 10.0) -> jax.Array:
    """`x / std` without centring (rewards keep their sign), clipped to ±`clip`."""
    return jnp.clip(x * jax.lax.rsqrt(moments.var + 1e-8), -clip, clip)


def weighted_mean(x: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """`sum w x / sum w`; the plain mean without weights, and 0 where they are all 0."""
    if weight is None:
        return x.mean()
    return jnp.sum(weight * x) / jnp.maximum(jnp.sum(weight), 1e-8)


def standardize(x: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Mean 0 and standard deviation 1 over all elements, each counted with its weight."""
    if weight is None:
        return (x - x.mean()) / (x.std() + 1e-8)
    centred = x - weighted_mean(x, weight)
    return centred / (jnp.sqrt(weighted_mean(centred**2, weight)) + 1e-8)
