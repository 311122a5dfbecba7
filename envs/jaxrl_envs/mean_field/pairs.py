"""Means over all pairs of agents without visiting the pairs, and the order parameter. Axis N: agents.

A pair of an agent with itself counts, as in the integral over mu x mu of the empirical distribution mu.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs.mean_field.checks import require_choice

_BINS_FROM = 2**15  # agents from which a histogram of headings costs less than sorting them
_FULL_TURN = 2 * np.pi


def mean_abs_difference(x: jax.Array) -> jax.Array:
    """Mean of |x_i - x_j| over all pairs, one coordinate at a time; exact, by sorting.

    Args:
      x: [N, ...].
    Returns:
      [...], units of x: `2 / N^2 sum_k (2k - N - 1) x_(k)` over order statistics.
    """
    num = x.shape[0]
    weight = (2 * jnp.arange(num, dtype=x.dtype) - (num - 1)) / num
    # Weights sum to zero, so the middle can be taken away first: less is lost to rounding far from the origin.
    ordered = jnp.sort(x - x.mean(0), axis=0)
    return 2 * jnp.mean(weight.reshape(-1, *[1] * (x.ndim - 1)) * ordered, axis=0)


def mean_square_distance(x: jax.Array) -> jax.Array:
    """Mean squared distance over all pairs of x [N, d]: twice the variance, summed over coordinates."""
    return 2 * jnp.sum(jnp.var(x.reshape(x.shape[0], -1), axis=0))


def mean_geodesic(theta: jax.Array, method: str = "auto") -> jax.Array:
    """Mean angle between two headings, in [0, pi], over all pairs.

    Args:
      theta: [N] radians.
      method: "sort" is exact, O(N log N). "bins" counts headings in 2^16 bins: pairs count exactly unless they are
        in one bin or in opposite ones, and those are wrong by less than 1e-4 (a bin is 9.6e-5 wide); O(N), and its
        derivative is that of the exact sum over the other pairs. "auto" sorts fewer than 32,768 agents.
    Returns:
      Scalar, radians.
    Raises:
      ValueError: for another method.
    """
    require_choice("method", method, ("auto", "sort", "bins"))
    if method == "auto":
        method = "sort" if theta.shape[0] < _BINS_FROM else "bins"
    return _geodesic_sorted(theta) if method == "sort" else _geodesic_binned(theta)


def mean_geodesic_fourier(theta: jax.Array, order: int = 21, weight: jax.Array | None = None) -> jax.Array:
    """Mean angle between two headings by its Fourier series, smooth in the distribution.

    `pi/2 - 4/pi sum over odd k <= order of |m_k|^2 / k^2`, m_k the mean of exp(i k theta). Never too small: what is
    left out is at most `4/pi sum over odd k > order of 1/k^2`, which aligned headings reach (0.029 for order 21),
    and for headings spread out far less.

    Args:
      theta: [N] radians.
      order: the highest harmonic.
      weight: [N] masses that sum to one; by default 1/N each.
    Raises:
      ValueError: for an order below 1.
    """
    if order < 1:
        raise ValueError(f"expected order >= 1, the highest harmonic, got {order}")
    mass = jnp.full(theta.shape, 1 / theta.shape[0], theta.dtype) if weight is None else weight
    total = jnp.zeros((), theta.dtype)
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    turn = (cos * cos - sin * sin, 2 * cos * sin)  # by two harmonics
    for k in range(1, order + 1, 2):
        total += (jnp.sum(mass * cos) ** 2 + jnp.sum(mass * sin) ** 2) / k**2
        cos, sin = cos * turn[0] - sin * turn[1], sin * turn[0] + cos * turn[1]
    return np.pi / 2 - 4 / np.pi * total


def order_parameter(theta: jax.Array) -> jax.Array:
    """|mean of exp(i theta)| of headings [N]: 1 if all agree."""
    return jnp.hypot(jnp.mean(jnp.cos(theta)), jnp.mean(jnp.sin(theta)))


def _geodesic_sorted(theta: jax.Array) -> jax.Array:
    """Each agent with those ahead of it: the half turn that is near, and the half that is nearer the other way."""
    num = theta.shape[0]
    ordered = jnp.sort(jnp.mod(theta, _FULL_TURN)) - np.pi
    rank = jnp.arange(num)
    until = jnp.searchsorted(ordered, ordered + np.pi, side="right")  # those from here on are over half a turn ahead
    partial = jnp.concatenate([jnp.zeros(1, theta.dtype), jnp.cumsum(ordered / num)])
    near_share, far_share = (count.astype(theta.dtype) / num for count in (until - rank - 1, num - until))
    near = partial[until] - partial[rank + 1] - near_share * ordered
    far = far_share * (_FULL_TURN + ordered) - (partial[num] - partial[until])
    return 2 * jnp.mean(near + far)


def _histogram(num_bins: int, copies: int, index: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many there are in each bin, and the sum of their values; both [num_bins] of the values' type.

    Neighbours in the arrays go to different `copies`: where agents agree, on a GPU they would wait for each other. Up
    to 2^24 in one bin of one copy are counted exactly, and any number with one copy.
    """
    if copies == 1:
        count = jnp.zeros(num_bins, jnp.int32).at[index].add(1)
        return count.astype(value.dtype), jnp.zeros_like(value, shape=num_bins).at[index].add(value)
    rows = jnp.stack([jnp.ones_like(value), value], axis=1)
    place = index + num_bins * (jnp.arange(index.shape[0], dtype=index.dtype) % copies)
    found = jnp.zeros((copies * num_bins, 2), value.dtype).at[place].add(rows).reshape(copies, num_bins, 2).sum(0)
    return found[:, 0], found[:, 1]


def _geodesic_binned(theta: jax.Array, num_bins: int = 2**16) -> jax.Array:
    """Angles between the middles of bins, and to first order where in its bin each heading lies."""
    width = _FULL_TURN / num_bins
    turn = jnp.mod(theta, _FULL_TURN) / width
    index = jax.lax.stop_gradient(jnp.minimum(turn.astype(jnp.int32), num_bins - 1))
    offset = (turn - index - 0.5) * width
    count, moment = jax.lax.platform_dependent(
        index, offset / theta.shape[0],
        cpu=functools.partial(_histogram, num_bins, 1), default=functools.partial(_histogram, num_bins, 8),
    )  # fmt: skip
    share = count / theta.shape[0]
    step = np.arange(num_bins)
    angle = width * np.minimum(step, num_bins - step)
    sign = np.where(step % (num_bins // 2) == 0, 0.0, np.where(step < num_bins // 2, 1.0, -1.0))
    # Correlations over the ring: of shares by the angle, of shares with moments by which of the two is ahead.
    spectrum = jnp.fft.rfft(share)
    constants = jnp.asarray(np.fft.rfft(angle).real, theta.dtype), jnp.asarray(np.fft.rfft(sign).imag, theta.dtype)
    by_angle = jnp.fft.irfft(spectrum * constants[0], num_bins)
    ahead = jnp.fft.irfft(spectrum * 1j * constants[1], num_bins)
    return jnp.sum(share * by_angle) + 2 * jnp.sum(moment * ahead)
