"""Decision rules: what all agents do with what each of them sees, described by one vector of real numbers.

The vector xi is the action of the upper level, unbounded. Axes: N agents, M centres of a basis, U actions, du their
size; `xi` is [dim], the same for all agents, or [N, dim], one for each.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Key

READINGS = ("interpolate", "mixture")
SQUASHES = ("tanh", "m3fc_reference")


class DecisionRule(Protocol):
    """Shared by all agents; pure."""

    @property
    def num_params(self) -> int:
        """Size of xi."""
        ...

    def sample(self, key: Key, xi: jax.Array, y: jax.Array) -> jax.Array:
        """Actions [N, du] (or integers [N]) of agents that see `y` [N, dy] (or integers [N])."""
        ...

    def branches(self, xi: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Actions [K, N, du] (integers [K, N]) and their probabilities [K, N]: the rule without chance."""
        ...

    def lipschitz_bound(self, xi: jax.Array) -> jax.Array:
        """Scalar: how far apart what two agents do may be, over how far apart what they see is."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianRule:
    """Each centre has a Gaussian over actions, clipped into their box; between centres they are mixed.

    xi holds for each centre du numbers for the mean and then du for the deviation. With `z = tanh(xi)`, the mean is
    `low + (z + 1) / 2 (high - low)` and the deviation `(z + 1 + 1e-10) / 4` half-widths of the box.

    Args:
      basis: over observations; `kernel_basis` or `histogram_basis`.
      low, high: [du], finite, the box of actions.
      reading: "interpolate", one Gaussian whose mean and deviation are the centres' weighted means, or "mixture", a
        centre drawn by its weight and then from its Gaussian. Of hard partitions both are the same.
      squash: "tanh", or "m3fc_reference": xi is clipped to [-1, 1] before the tanh, as that code with its shipped
        settings has it, so that means reach 0.76 of the box and deviations lie in [0.0596, 0.4404] half-widths.
      num_nodes: of the quadrature over each coordinate of a Gaussian, in `branches`.
    Raises:
      ValueError: for an unknown reading or squash, or infinite bounds.
    References:
      Cui et al. 2023, arXiv:2303.10665, the code's `discrete_gaussian.py`, for the decoding; kernels: Cui et al. 2024,
      arXiv:2307.06175. Both readings are ours.
    """

    basis: Any
    low: np.ndarray
    high: np.ndarray
    reading: str = "interpolate"
    squash: str = "tanh"
    num_nodes: int = 5

    def __post_init__(self) -> None:
        for name, value, choices in (("reading", self.reading, READINGS), ("squash", self.squash, SQUASHES)):
            if value not in choices:
                raise ValueError(f"{name} = {value!r}: expected one of {', '.join(choices)}")
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError(f"decision rules need a bounded box of actions, got {self.low} to {self.high}")

    @property
    def size(self) -> int:
        """du."""
        return len(self.low)

    @property
    def num_params(self) -> int:
        """2 M du."""
        return 2 * self.basis.num * self.size

    def decode(self, xi: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Means and deviations of all centres, [..., M, du] each."""
        squashed = jnp.tanh(jnp.clip(xi, -1.0, 1.0) if self.squash == "m3fc_reference" else xi)
        z = squashed.reshape(*xi.shape[:-1], self.basis.num, 2, self.size)
        low, high = jnp.asarray(self.low, xi.dtype), jnp.asarray(self.high, xi.dtype)
        mean = low + 0.5 * (z[..., 0, :] + 1.0) * (high - low)
        return mean, (z[..., 1, :] + 1.0 + 1e-10) / 4.0 * 0.5 * (high - low)

    def moments(self, xi: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The interpolated mean and deviation of each agent, [N, du] each."""
        weights = self.basis.weights(y)
        mean, std = (_mixed(weights, table) for table in self.decode(xi))
        return mean, std

    def sample(self, key: Key, xi: jax.Array, y: jax.Array) -> jax.Array:
        """[N, du]; two sizes of a population share the noise of the agents that both have."""
        if self.reading == "interpolate":
            mean, std = self.moments(xi, y)
            key_noise = key
        else:
            key_centre, key_noise = jax.random.split(key)
            chosen = jax.nn.one_hot(_draw(key_centre, self.basis.weights(y)), self.basis.num)
            mean, std = (_mixed(chosen, table) for table in self.decode(xi))
        return jnp.clip(mean + std * jax.random.normal(key_noise, mean.shape, mean.dtype), self.low, self.high)

    def branches(self, xi: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[K, N, du], [K, N]: Gauss-Hermite nodes of the interpolated Gaussian, or of that of each centre."""
        nodes, masses = _hermite(self.num_nodes, self.size)
        if self.reading == "interpolate":
            mean, std = (part[None] for part in self.moments(xi, y))
            over = jnp.ones((1, len(y)))
        else:
            mean, std = (
                jnp.broadcast_to(part[:, None], (self.basis.num, len(y), self.size)) for part in self.decode(xi)
            )
            over = self.basis.weights(y).T
        actions = mean[None] + std[None] * nodes[:, None, None]
        probabilities = masses[:, None, None] * over[None]
        actions = jnp.clip(actions, self.low, self.high).reshape(-1, len(y), self.size)
        return actions, probabilities.reshape(-1, len(y))

    def lipschitz_bound(self, xi: jax.Array) -> jax.Array:
        """Of the mean action, in the Euclidean norm: `diam(means) diam(centres) / 4 sigma^2`."""
        mean = self.decode(xi)[0]
        return _bound(self.basis.steepness, jnp.linalg.norm(mean[..., :, None, :] - mean[..., None, :, :], axis=-1))


@dataclasses.dataclass(frozen=True, eq=False)
class FiniteRule:
    """Each centre has probabilities over U actions, the softmax of its U numbers; between centres they are mixed.

    Args:
      basis: over observations.
      num_actions: U.
    """

    basis: Any
    num_actions: int

    @property
    def num_params(self) -> int:
        """M U."""
        return self.basis.num * self.num_actions

    def table(self, xi: jax.Array) -> jax.Array:
        """Probabilities of all centres, [..., M, U]."""
        return jax.nn.softmax(xi.reshape(*xi.shape[:-1], self.basis.num, self.num_actions), -1)

    def probabilities(self, xi: jax.Array, y: jax.Array) -> jax.Array:
        """[N, U]."""
        return _mixed(self.basis.weights(y), self.table(xi))

    def sample(self, key: Key, xi: jax.Array, y: jax.Array) -> jax.Array:
        """int32 [N]."""
        return _draw(key, self.probabilities(xi, y))

    def branches(self, xi: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Every action, [U, N], and its probability, [U, N]."""
        actions = jnp.broadcast_to(jnp.arange(self.num_actions)[:, None], (self.num_actions, len(y)))
        return actions, self.probabilities(xi, y).T

    def lipschitz_bound(self, xi: jax.Array) -> jax.Array:
        """Of the probabilities, in total variation."""
        table = self.table(xi)
        return _bound(self.basis.steepness, 0.5 * jnp.abs(table[..., :, None, :] - table[..., None, :, :]).sum(-1))


@dataclasses.dataclass(frozen=True)
class AffineRule:
    """`u = -K y + b` without noise or bounds: what is optimal where everything is linear, quadratic and Gaussian.

    xi is K, row by row, and then b.

    Args:
      observation_size, action_size: dy and du.
    """

    observation_size: int = 1
    action_size: int = 1

    @property
    def num_params(self) -> int:
        """du (dy + 1)."""
        return self.action_size * (self.observation_size + 1)

    def decode(self, xi: jax.Array) -> tuple[jax.Array, jax.Array]:
        """K [..., du, dy] and b [..., du]."""
        cut = self.action_size * self.observation_size
        return xi[..., :cut].reshape(*xi.shape[:-1], self.action_size, self.observation_size), xi[..., cut:]

    def sample(self, key: Key, xi: jax.Array, y: jax.Array) -> jax.Array:
        """[N, du]; nothing is random."""
        del key
        gain, offset = self.decode(xi)
        return offset - jnp.einsum("...uy,...y->...u", gain, y)

    def branches(self, xi: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One action, [1, N, du], with certainty."""
        gain, offset = self.decode(xi)
        return (offset - jnp.einsum("...uy,...y->...u", gain, y))[None], jnp.ones((1, len(y)))

    def lipschitz_bound(self, xi: jax.Array) -> jax.Array:
        """The Frobenius norm of K."""
        return jnp.sqrt(jnp.square(self.decode(xi)[0]).sum((-1, -2))).max()


def decision_rule(
    basis: Any, action_space: Space, reading: str = "interpolate", squash: str = "tanh"
) -> GaussianRule | FiniteRule:
    """The rule that fits a space of actions.

    Args:
      basis: over observations.
      action_space: Discrete, or a bounded Box of one axis.
      reading, squash: as in `GaussianRule`; finite actions are mixed in any case.
    Raises:
      ValueError: for other spaces.
    """
    if isinstance(action_space, Discrete):
        return FiniteRule(basis, action_space.n)
    if isinstance(action_space, Box) and len(action_space.shape) == 1:
        low, high = action_space.bounds()
        return GaussianRule(basis, low, high, reading, squash)
    raise ValueError(f"decision rules take a Discrete space of actions or a Box of one axis, got {action_space}")


def _mixed(weights: jax.Array, table: jax.Array) -> jax.Array:
    """Weights [N, M] over rows [M, k] (or each agent's own, [N, M, k]) -> [N, k]."""
    return weights @ table if table.ndim == 2 else jnp.einsum("nm,nmk->nk", weights, table)


def _draw(key: Key, probabilities: jax.Array) -> jax.Array:
    """int32 [N] from [N, U], by one uniform number per agent."""
    levels = jnp.cumsum(probabilities, -1)[:, :-1]
    uniform = jax.random.uniform(key, (len(probabilities), 1), levels.dtype)
    return jnp.sum(uniform >= levels, -1).astype(jnp.int32)


def _bound(steepness: Any, distances: jax.Array) -> jax.Array:
    largest = distances.max()
    return jnp.where(largest > 0.0, steepness * largest, 0.0)


def _hermite(num_nodes: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Nodes [K, size] and weights [K] of a standard normal."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(num_nodes)
    points = np.array(list(itertools.product(nodes, repeat=size)))
    weights = np.array([np.prod(w) for w in itertools.product(masses / masses.sum(), repeat=size)])
    return jnp.asarray(points), jnp.asarray(weights)
