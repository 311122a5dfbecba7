"""Spaces: static descriptions of observations and actions, hashable, so that they may steer shapes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Key


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Integers 0 … n-1, dtype int32, shape ()."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"Discrete needs n >= 1, got n = {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element."""
        return ()

    @property
    def dtype(self) -> Any:
        """Element type."""
        return jnp.dtype(jnp.int32)

    def sample(self, key: Key) -> jax.Array:
        """One uniform element."""
        return jax.random.randint(key, (), 0, self.n)

    def contains(self, x: jax.Array) -> jax.Array:
        """Bool scalar: is `x` in the space?"""
        return jnp.all((x >= 0) & (x < self.n))


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """A vector of integers, element i in 0 … nvec[i]-1; dtype int32, shape (len(nvec),)."""

    nvec: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "nvec", tuple(int(n) for n in self.nvec))
        if not self.nvec or min(self.nvec) < 1:
            raise ValueError(f"MultiDiscrete needs a non-empty tuple of sizes >= 1, got nvec = {self.nvec}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element."""
        return (len(self.nvec),)

    @property
    def dtype(self) -> Any:
        """Element type."""
        return jnp.dtype(jnp.int32)

    def sample(self, key: Key) -> jax.Array:
        """One uniform element."""
        return jax.random.randint(key, self.shape, 0, jnp.array(self.nvec))

    def contains(self, x: jax.Array) -> jax.Array:
        """Bool scalar: is `x` in the space?"""
        return jnp.all((x >= 0) & (x < jnp.array(self.nvec)))


@dataclasses.dataclass(frozen=True)
class Box:
    """Real or integer arrays between bounds.

    Args:
      low, high: scalars, or nested tuples / arrays of the full shape (kept as tuples, so a Box is hashable).
      shape: shape of one element.
      dtype: element type.
    """

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(s) for s in self.shape))
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype))
        for name in ("low", "high"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.ndim and value.shape != self.shape:
                raise ValueError(f"Box {name} has shape {value.shape}; expected a scalar or {self.shape}")
            flat = float(value) if value.ndim == 0 else tuple(float(v) for v in value.ravel())
            object.__setattr__(self, name, flat)
        if not np.all(np.asarray(self.low) <= np.asarray(self.high)):
            raise ValueError(f"Box needs low <= high, got low = {self.low}, high = {self.high}; swap them")

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """`(low, high)`, float32 arrays of the element's shape; infinite where unbounded."""
        big = np.finfo(np.float32).max

        def expand(value: Any) -> np.ndarray:
            array = np.asarray(value, np.float64)
            array = np.full(self.shape, array) if array.ndim == 0 else array.reshape(self.shape)
            return np.where(np.abs(array) >= big, np.copysign(np.inf, array), array).astype(np.float32)

        return expand(self.low), expand(self.high)

    @property
    def is_bounded(self) -> bool:
        """Whether every bound is finite."""
        return bool(all(np.all(np.isfinite(b)) for b in self.bounds()))

    def sample(self, key: Key) -> jax.Array:
        """One element: uniform where both bounds are finite, standard normal (clipped) elsewhere."""
        low, high = self.bounds()
        finite = np.isfinite(low) & np.isfinite(high)
        key_uniform, key_normal = jax.random.split(key)
        unit = jax.random.uniform(key_uniform, self.shape)
        uniform = np.where(finite, low, 0.0) + unit * np.where(finite, high - low, 1.0)
        normal = jnp.clip(jax.random.normal(key_normal, self.shape), low, high)
        x = jnp.where(finite, uniform, normal)
        return jnp.floor(x).astype(self.dtype) if jnp.issubdtype(self.dtype, jnp.integer) else x.astype(self.dtype)

    def contains(self, x: jax.Array) -> jax.Array:
        """Bool scalar: is `x` in the space? NaN is not."""
        low, high = self.bounds()
        return jnp.all((x >= low) & (x <= high))


@dataclasses.dataclass(frozen=True)
class Indexed:
    """One of n states and some features: a float32 vector [1 + num_features] that begins with an index 0 … n-1.

    For tabular observations: networks take them as a one-hot vector with the features behind it (`networks.encode`), or
    read one row per index, and what is stored and copied stays small.

    Args:
      n: states, below 2**24, so that every index is exact in float32.
      num_features: unbounded numbers after the index.
    """

    n: int
    num_features: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n < 2**24:
            raise ValueError(f"Indexed needs 1 <= n < 2**24, whose indices float32 holds exactly, got n = {self.n}")
        if self.num_features < 0:
            raise ValueError(f"Indexed needs num_features >= 0, got {self.num_features}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one element."""
        return (1 + self.num_features,)

    @property
    def dtype(self) -> Any:
        """Element type."""
        return jnp.dtype(jnp.float32)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """`(low, high)`, float32 arrays of the element's shape; features are unbounded."""
        high = np.full(self.shape, np.inf, np.float32)
        low = -high
        low[0], high[0] = 0.0, self.n - 1
        return low, high

    def index(self, x: jax.Array) -> jax.Array:
        """int32 indices [...] of elements [..., 1 + num_features]."""
        return x[..., 0].astype(jnp.int32)

    def features(self, x: jax.Array) -> jax.Array:
        """Features [..., num_features] of elements [..., 1 + num_features]."""
        return x[..., 1:]

    def sample(self, key: Key) -> jax.Array:
        """One element: a uniform index, standard normal features."""
        key_index, key_features = jax.random.split(key)
        index = jax.random.randint(key_index, (1,), 0, self.n).astype(jnp.float32)
        return jnp.concatenate([index, jax.random.normal(key_features, (self.num_features,))])

    def contains(self, x: jax.Array) -> jax.Array:
        """Bool scalar: is `x` in the space? NaN is not."""
        low, high = self.bounds()
        return jnp.all((x >= low) & (x <= high)) & (x[0] == jnp.floor(x[0]))


Space = Discrete | MultiDiscrete | Box | Indexed
