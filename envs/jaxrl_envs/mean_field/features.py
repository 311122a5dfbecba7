"""Partitions of a space into soft or hard pieces, and the mean-field features that they give.

Axes: N agents (or points with masses), d coordinates, M centres. A basis gives each point its weights over M centres;
features are their mean over the population, and decision rules mix the parameters of the centres with them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space

PLACEMENTS = ("cells", "ends")


class Basis(Protocol):
    """Weights of points over M centres."""

    @property
    def num(self) -> int:
        """M."""
        ...

    @property
    def steepness(self) -> Any:
        """How fast the weights may turn: mixing values that differ by at most D is `steepness * D`-Lipschitz.

        Of integers the metric is the discrete one; a hard partition has no bound, and infinity here.
        """
        ...

    def weights(self, y: jax.Array) -> jax.Array:
        """Points [N, d] (integers [N]) -> [N, M]."""
        ...

    def mean(self, x: jax.Array, mass: jax.Array | None = None) -> jax.Array:
        """[M], the weights' mean over points [N, d] of equal or given masses [N] (which sum to one)."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class KernelBasis:
    """Gaussian kernels on a grid of centres; periodic coordinates enter as points of a circle.

    `exp(-|e(c) - e(x)|^2 / 2 sigma^2)`, a product over coordinates; e embeds a ring isometrically at small distances,
    `(cos, sin) * period / 2 pi`, and leaves other coordinates alone. Normalised, the weights sum to one.

    Args:
      axes: centres along each coordinate.
      bandwidth: sigma of each coordinate, in its units, > 0; may be traced.
      periods: of each coordinate, or `None`.
      normalise: divide by the sum over centres.
    Raises:
      ValueError: if sizes differ, a bandwidth is not above 0, or centres are not finite.
    """

    axes: tuple[np.ndarray, ...]
    bandwidth: tuple[Any, ...]
    periods: tuple[float | None, ...]
    normalise: bool = True

    def __post_init__(self) -> None:
        _check_axes(self.axes, self.periods)
        if len(self.bandwidth) != len(self.axes):
            raise ValueError(f"expected one bandwidth for each of {len(self.axes)} coordinates, got {self.bandwidth}")
        for sigma in self.bandwidth:
            if not isinstance(sigma, jax.core.Tracer) and not float(sigma) > 0.0:
                raise ValueError(f"bandwidth = {sigma}: expected a number > 0, as in half the spacing of the centres")

    @property
    def num(self) -> int:
        """M, the product over coordinates."""
        return math.prod(len(axis) for axis in self.axes)

    @functools.cached_property
    def centres(self) -> np.ndarray:
        """[M, d], the last coordinate varying fastest."""
        return _product(self.axes)

    @property
    def steepness(self) -> Any:
        """`diam / 4 sigma^2`, diam that of the centres (with unequal bandwidths, of the centres over sigma^2).

        The slope of a normalised mixture is the covariance of value and centre over sigma^2, which is at most a
        quarter of the product of their ranges (Cauchy-Schwarz and Popoviciu). Plain kernels do not mix: infinity.
        """
        if not self.normalise:
            return jnp.inf
        spans = [_diameter(axis, period) for axis, period in zip(self.axes, self.periods, strict=True)]
        total = sum((span / jnp.square(sigma)) ** 2 for span, sigma in zip(spans, self.bandwidth, strict=True))
        return jnp.sqrt(total) / 4.0

    def along(self, y: jax.Array) -> list[jax.Array]:
        """The factor of each coordinate, [N, centres along it]."""
        factors = []
        for i, (axis, sigma, period) in enumerate(zip(self.axes, self.bandwidth, self.periods, strict=True)):
            difference = y[:, i, None] - jnp.asarray(axis, y.dtype)
            if period is not None:  # the chord, as a function of the arc
                radius = period / (2.0 * np.pi)
                difference = 2.0 * radius * jnp.sin(difference / (2.0 * radius))
            exponent = -0.5 * jnp.square(difference / sigma)
            factors.append(jax.nn.softmax(exponent, -1) if self.normalise else jnp.exp(exponent))
        return factors

    def weights(self, y: jax.Array) -> jax.Array:
        """Points [N, d] -> [N, M]."""
        return functools.reduce(lambda a, b: (a[:, :, None] * b[:, None]).reshape(len(y), -1), self.along(y))

    def mean(self, x: jax.Array, mass: jax.Array | None = None) -> jax.Array:
        """[M]; no array of N x M is made for fewer than three coordinates."""
        *first, last = self.along(x)
        mass = jnp.full(len(x), 1.0 / len(x)) if mass is None else mass
        if not first:
            return mass @ last
        left = functools.reduce(lambda a, b: (a[:, :, None] * b[:, None]).reshape(len(x), -1), first)
        return ((mass[:, None] * left).T @ last).reshape(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class HistogramBasis:
    """Each point belongs to the nearest centre, coordinate by coordinate; beyond the ends, to the last bin.

    Args:
      axes, periods: as in `KernelBasis`.
    """

    axes: tuple[np.ndarray, ...]
    periods: tuple[float | None, ...]

    def __post_init__(self) -> None:
        _check_axes(self.axes, self.periods)

    @property
    def num(self) -> int:
        """M, the product over coordinates."""
        return math.prod(len(axis) for axis in self.axes)

    @functools.cached_property
    def centres(self) -> np.ndarray:
        """[M, d], the last coordinate varying fastest."""
        return _product(self.axes)

    @property
    def steepness(self) -> Any:
        """None: a rule of bins jumps."""
        return jnp.inf

    def index(self, y: jax.Array) -> jax.Array:
        """Points [N, d] -> int32 [N], the bin of each."""
        found = jnp.zeros(len(y), jnp.int32)
        for i, (axis, period) in enumerate(zip(self.axes, self.periods, strict=True)):
            difference = y[:, i, None] - jnp.asarray(axis, y.dtype)
            if period is not None:
                difference = difference - period * jnp.round(difference / period)
            found = found * len(axis) + jnp.argmin(jnp.abs(difference), -1).astype(jnp.int32)
        return found

    def weights(self, y: jax.Array) -> jax.Array:
        """Points [N, d] -> [N, M], one-hot."""
        return jax.nn.one_hot(self.index(y), self.num)

    def counts(self, x: jax.Array) -> jax.Array:
        """int32 [M]: float32 counts would stop at 2^24."""
        return jnp.zeros(self.num, jnp.int32).at[self.index(x)].add(1)

    def mean(self, x: jax.Array, mass: jax.Array | None = None) -> jax.Array:
        """[M], shares of the population."""
        if mass is None:
            return self.counts(x) / len(x)
        return jnp.zeros(self.num, mass.dtype).at[self.index(x)].add(mass)


@dataclasses.dataclass(frozen=True)
class OneHotBasis:
    """Integers 0 … num - 1, each its own centre."""

    num: int

    @property
    def steepness(self) -> float:
        """1, in the discrete metric."""
        return 1.0

    def weights(self, y: jax.Array) -> jax.Array:
        """Integers [N] -> [N, M], one-hot."""
        return jax.nn.one_hot(y, self.num)

    def counts(self, x: jax.Array) -> jax.Array:
        """int32 [M]."""
        return jnp.zeros(self.num, jnp.int32).at[x].add(1)

    def mean(self, x: jax.Array, mass: jax.Array | None = None) -> jax.Array:
        """[M], shares of the population."""
        if mass is None:
            return self.counts(x) / len(x)
        return jnp.zeros(self.num, mass.dtype).at[x].add(mass)


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What the upper level sees of a population: the mean weights of a basis, so scaled that uniform gives about 1.

    Shares of bins, of integers and of normalised kernels are multiplied by their number (of kernels in the middles of
    cells, a uniform population then gives 1 to one per cent per coordinate); plain kernels are divided by what a
    population that is uniform over their cells would give.

    Args:
      basis: over the agents' states.
    """

    basis: Any

    @property
    def num(self) -> int:
        """How many there are."""
        return self.basis.num

    @functools.cached_property
    def scale(self) -> Any:
        """[M] or a number, what `raw` features are multiplied by."""
        if isinstance(self.basis, KernelBasis) and not self.basis.normalise:
            return 1.0 / self.basis.mean(jnp.asarray(_uniform_points(self.basis), jnp.float32))
        return float(self.basis.num)

    def raw(self, x: jax.Array, mass: jax.Array | None = None) -> jax.Array:
        """[M], before scaling: shares of the population, which sum to one unless kernels are plain."""
        return self.basis.mean(x, mass)

    def __call__(self, x: jax.Array, mass: jax.Array | None = None) -> jax.Array:
        """Features [M] of agents [N, d] ([N] integers), or of points with masses [N]."""
        return self.raw(x, mass) * self.scale

    def space(self) -> Box:
        """Of features."""
        plain = isinstance(self.basis, KernelBasis) and not self.basis.normalise
        return Box(0.0, np.inf if plain else float(self.num), (self.num,))


@dataclasses.dataclass(frozen=True)
class MomentFeatures:
    """Mean and standard deviation of each coordinate: all there is to know of a Gaussian population in one dimension.

    Args:
      size: d.
    """

    size: int

    @property
    def num(self) -> int:
        """2 d."""
        return 2 * self.size

    def __call__(self, x: jax.Array, mass: jax.Array | None = None) -> jax.Array:
        """[2 d], means and then deviations."""
        mass = jnp.full(len(x), 1.0 / len(x)) if mass is None else mass
        mean = mass @ x
        variance = mass @ jnp.square(x - mean)
        # The root's slope at 0 is infinite; a population in one point has no deviation to push against.
        safe = jnp.where(variance > 0.0, variance, 1.0)
        return jnp.concatenate([mean, jnp.where(variance > 0.0, jnp.sqrt(safe), 0.0)])

    def space(self) -> Box:
        """Unbounded."""
        return Box(-np.inf, np.inf, (self.num,))


def kernel_basis(  # noqa: PLR0913 - keywords of one constructor
    space: Space,
    num: int | Sequence[int] = 5,
    *,
    periodic: Sequence[bool] = (),
    bandwidth: Any = 0.5,
    placement: str = "cells",
    normalise: bool = True,
    bounds: tuple[Any, Any] | None = None,
) -> KernelBasis | OneHotBasis:
    """Kernels on a regular grid of a space; of a finite space, its elements.

    Args:
      space: a Box of one axis with bounds, or Discrete.
      num: centres per coordinate.
      periodic: which coordinates close to a ring; `()` for none.
      bandwidth: over the spacing of the centres, > 0; a number for all coordinates or one for each; may be traced.
      placement: "cells", the middles of equal cells, so that a uniform population gives equal features; or "ends", from
        bound to bound. Centres of a ring are evenly spaced either way.
      normalise: as in `KernelBasis`.
      bounds: `(low, high)` of the centres, where the space has none or less is wanted; inside the space.
    Raises:
      ValueError: for bounds that are infinite or outside of the space, or numbers that do not fit.
    References:
      The relative bandwidth and five centres per dimension are ours; Cui et al. 2024, arXiv:2307.06175, has kernels.
    """
    if isinstance(space, Discrete):
        return OneHotBasis(space.n)
    axes, periods, spacings = _grid(space, num, periodic, placement, bounds)
    relative = tuple(bandwidth) if isinstance(bandwidth, tuple | list) else (bandwidth,) * len(axes)
    if len(relative) != len(axes):
        raise ValueError(f"bandwidth = {bandwidth}: expected a number, or one for each of {len(axes)} coordinates")
    sigmas = tuple(r * spacing for r, spacing in zip(relative, spacings, strict=True))
    return KernelBasis(axes, sigmas, periods, normalise)


def histogram_basis(
    space: Space,
    num: int | Sequence[int] = 7,
    *,
    periodic: Sequence[bool] = (),
    bounds: tuple[Any, Any] | None = None,
) -> HistogramBasis | OneHotBasis:
    """Equal bins of a space; of a finite space, its elements.

    Args:
      space, num, periodic, bounds: as in `kernel_basis`.
    References:
      Seven bins per coordinate, to the nearest centre: the code of Cui et al. 2023, arXiv:2303.10665.
    """
    if isinstance(space, Discrete):
        return OneHotBasis(space.n)
    axes, periods, _ = _grid(space, num, periodic, "cells", bounds)
    return HistogramBasis(axes, periods)


def _grid(
    space: Space, num: int | Sequence[int], periodic: Sequence[bool], placement: str, bounds: tuple[Any, Any] | None
) -> tuple[tuple[np.ndarray, ...], tuple[float | None, ...], list[float]]:
    """Centres along each coordinate, periods, and the distance between neighbouring centres."""
    if placement not in PLACEMENTS:
        raise ValueError(f"placement = {placement!r}: expected one of {', '.join(PLACEMENTS)}")
    if not isinstance(space, Box) or len(space.shape) != 1:
        if isinstance(space, MultiDiscrete):
            raise ValueError(f"centres need a Discrete space or a Box of one axis, got {space}; number its elements")
        raise ValueError(f"centres need a Discrete space or a Box of one axis, got {space}")
    (size,) = space.shape
    low, high = (np.broadcast_to(np.asarray(b, np.float64), (size,)) for b in bounds or space.bounds())
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"centres need finite bounds low < high, got {low} and {high}; say bounds=(low, high)")
    outer = space.bounds()
    if (low < outer[0] - 1e-6).any() or (high > outer[1] + 1e-6).any():
        raise ValueError(f"bounds = {low}, {high}: centres outside of the space, which ends at {outer[0]}, {outer[1]}")
    counts = (num,) * size if isinstance(num, int) else tuple(num)
    rings = tuple(periodic) or (False,) * size
    if len(counts) != size or len(rings) != size or min(counts) < 1:
        raise ValueError(f"num = {num}, periodic = {periodic}: expected a number >= 1 for each of {size} coordinates")
    axes, spacings = [], []
    for b, ring, lo, hi in zip(counts, rings, low, high, strict=True):
        from_ends = placement == "ends" and not ring and b > 1
        spacing = (hi - lo) / (b - 1 if from_ends else b)
        axes.append(lo + (np.arange(b) + (0.0 if from_ends else 0.5)) * spacing)
        spacings.append(float(spacing))
    periods = tuple(float(hi - lo) if ring else None for ring, lo, hi in zip(rings, low, high, strict=True))
    return tuple(axes), periods, spacings


def _check_axes(axes: tuple[np.ndarray, ...], periods: tuple[float | None, ...]) -> None:
    if not axes or len(axes) != len(periods):
        raise ValueError(f"expected centres and a period (or None) per coordinate, got {len(axes)} and {len(periods)}")
    for axis in axes:
        if np.ndim(axis) != 1 or not len(axis) or not np.isfinite(axis).all():
            raise ValueError(f"centres along a coordinate: expected finite numbers [b], got {axis}")


def _product(axes: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], -1)


def _diameter(axis: np.ndarray, period: float | None) -> float:
    if period is None:
        return float(axis[-1] - axis[0])
    return float(period / np.pi) if len(axis) > 1 else 0.0  # of the circle


def _uniform_points(basis: KernelBasis, per_axis: int = 32) -> np.ndarray:
    """Points spread evenly over the cells of a basis, [.., d]; few suffice, since kernels are smooth."""
    lines = []
    for axis, period in zip(basis.axes, basis.periods, strict=True):
        spacing = (axis[-1] - axis[0]) / max(len(axis) - 1, 1) or (period or 1.0)
        low, width = axis[0] - 0.5 * spacing, spacing * len(axis)
        num = per_axis * len(axis) if len(basis.axes) == 1 else 8 * len(axis)
        lines.append(low + (np.arange(num) + 0.5) * width / num)
    return _product(tuple(lines))
