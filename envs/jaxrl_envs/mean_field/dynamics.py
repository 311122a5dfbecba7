"""How a population is carried along: as N agents, as probabilities, as mass on a grid, or as mean and variance.

Each constructor returns a function `(model, rule) -> Dynamics`, for `mean_field(..., dynamics=...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.types import Key
from jaxrl_envs.mean_field.lq import GaussianField
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.rules import AffineRule, FiniteRule
from jaxrl_envs.mean_field.tabular import TabularField, TabularModel


class Dynamics(NamedTuple):
    """A population's law at the upper level; pure.

    Attributes:
      reset: `(key, params) -> field`, whose `time` counts steps.
      step: `(key, field, xi, params) -> (field, reward, info)`; the reward is of the field before the step.
      points: `(field) -> (x [P, d] or integers [P], mass [P] or None)`, for features; `None` is equal masses.
      num_agents: of a finite swarm; `None` for limits.
    """

    reset: Callable[[Key, Any], Any]
    step: Callable[[Key, Any, jax.Array, Any], tuple[Any, jax.Array, dict[str, jax.Array]]]
    points: Callable[[Any], tuple[jax.Array, jax.Array | None]]
    num_agents: int | None = None


MakeDynamics = Callable[[Any, Any], Dynamics]


def particles(num_agents: int) -> MakeDynamics:
    """A swarm of `num_agents` agents. What each does is drawn inside of the step: it is no action of the learner's.

    Raises:
      ValueError: if there are none.
    """
    if num_agents < 1:
        raise ValueError(f"particles needs num_agents >= 1, got {num_agents}")

    def make(model: Any, rule: Any) -> Dynamics:
        def step(key: Key, swarm: Swarm, xi: jax.Array, params: Any) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
            key_observe, key_act, key_move = jax.random.split(key, 3)
            seen = model.observe(key_observe, swarm, params)
            return model.step(key_move, swarm, rule.sample(key_act, xi, seen), params)

        return Dynamics(
            lambda key, params: model.reset(key, num_agents, params), step, lambda swarm: (swarm.x, None), num_agents
        )

    return make


def exact() -> MakeDynamics:
    """The limit of many agents over finitely many states, as probabilities; deterministic and differentiable.

    Raises:
      ValueError: (when made) for models that are not tables, or rules that are not finite.
    """

    def make(model: Any, rule: Any) -> Dynamics:
        if not isinstance(model, TabularModel) or not isinstance(rule, FiniteRule):
            raise ValueError(f"exact dynamics need a TabularModel and a FiniteRule, got {model!r} and {rule!r}")
        num_states, num_observations, _ = model.sizes
        states, seen = jnp.arange(num_states), jnp.arange(num_observations)

        def step(key: Key, field: TabularField, xi: jax.Array, params: Any) -> tuple[Any, jax.Array, dict[str, Any]]:
            del key
            field, reward, _ = model.push_forward(field, rule.probabilities(xi, seen), params)
            return field, reward, {}

        return Dynamics(lambda key, params: model.first_field(params), step, lambda field: (states, field.mu))

    return make


def gaussian() -> MakeDynamics:
    """The limit of a linear swarm under affine rules: mean and variance, in closed form.

    Its `points` are Gauss-Hermite nodes, so that any features fit.

    Raises:
      ValueError: (when made) for models without `gaussian_step`, or rules that are not affine in one dimension.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    weights = weights / weights.sum()

    def make(model: Any, rule: Any) -> Dynamics:
        if not hasattr(model, "gaussian_step") or rule != AffineRule(1, 1):
            raise ValueError(f"gaussian dynamics need a linear model and AffineRule(1, 1), got {model!r} and {rule!r}")

        def step(key: Key, field: GaussianField, xi: jax.Array, params: Any) -> tuple[Any, jax.Array, dict[str, Any]]:
            del key
            field, reward = model.gaussian_step(field, xi[0], xi[1], params)
            return field, reward, {"swarm/mean": field.mean}

        def points(field: GaussianField) -> tuple[jax.Array, jax.Array]:
            safe = jnp.where(field.variance > 0.0, field.variance, 1.0)
            deviation = jnp.where(field.variance > 0.0, jnp.sqrt(safe), 0.0)
            return (field.mean + deviation * jnp.asarray(nodes))[:, None], jnp.asarray(weights)

        return Dynamics(lambda key, params: model.first_field(params), step, points)

    return make


@struct.dataclass
class GridField:
    """Mass [P] on the points of a grid, and int32 steps since the start."""

    mass: jax.Array
    time: jax.Array


def grid(low: Any, high: Any, num: Any, periodic: tuple[bool, ...] = ()) -> MakeDynamics:
    """The limit of many agents in one or two dimensions, as mass on a regular grid; differentiable.

    Chance is replaced by quadrature, and mass that lands between points is shared among the nearest of them with
    linear weights, which keeps mass and mean, and adds variance of the second order in the spacing. Mass that leaves a
    box that is no ring stays at its edge.

    Args:
      low, high: corners, numbers or one per coordinate.
      num: points along each coordinate, at least 2; a number or one per coordinate. Ends are points, save in rings.
      periodic: which coordinates close to a ring; `()` for none.
    Raises:
      ValueError: for sizes that do not fit, more than two dimensions, or (when made) a model without `field_step`.
    """
    low, high, num = np.atleast_1d(np.asarray(low, float)), np.atleast_1d(np.asarray(high, float)), np.atleast_1d(num)
    size = max(len(low), len(high), len(num))
    low, high, num = (np.broadcast_to(part, (size,)) for part in (low, high, num))
    rings = np.asarray(periodic or (False,) * size)
    if size > 2 or len(rings) != size or (num < 2).any() or not (low < high).all():
        raise ValueError(
            f"grid needs low < high and num >= 2 in one or two coordinates, got {low}, {high}, {num}, {periodic}"
        )
    spacing = (high - low) / np.where(rings, num, num - 1)
    axes = [lo + h * np.arange(n) for lo, h, n in zip(low, spacing, num, strict=True)]
    points = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], -1)

    def scatter(x: jax.Array, mass: jax.Array) -> jax.Array:
        """Points [S, d] with masses [S] -> masses [P]."""
        position = (x - low) / spacing
        position = jnp.where(rings, position, jnp.clip(position, 0.0, num - 1.0))
        base = jnp.where(rings, jnp.floor(position), jnp.clip(jnp.floor(position), 0.0, num - 2.0))
        share = position - base
        total = jnp.zeros(len(points), mass.dtype)
        for corner in np.ndindex(*(2,) * size):
            index = jnp.mod(base.astype(jnp.int32) + np.array(corner), num)
            flat = index[:, 0] if size == 1 else index[:, 0] * int(num[1]) + index[:, 1]
            weight = jnp.prod(jnp.where(np.array(corner) == 1, share, 1.0 - share), -1)
            total = total.at[flat].add(mass * weight)
        return total

    def make(model: Any, rule: Any) -> Dynamics:
        if not hasattr(model, "field_step"):
            raise ValueError(
                f"grid dynamics need a model with field_reset, field_observe and field_step, got {model!r}"
            )

        def reset(key: Key, params: Any) -> GridField:
            density = model.field_reset(jnp.asarray(points), params)
            return GridField(density / density.sum(), jnp.int32(0))

        def step(key: Key, field: GridField, xi: jax.Array, params: Any) -> tuple[Any, jax.Array, dict[str, Any]]:
            del key
            x = jnp.asarray(points)
            seen, chances = model.field_observe(x, field.mass, params)
            actions, probabilities = jax.vmap(lambda y: rule.branches(xi, y))(seen)
            masses = (chances[:, None, None] * probabilities * field.mass).reshape(-1, len(x))
            actions = actions.reshape(len(masses), len(x), -1)
            images, weights, reward = model.field_step(field.time, x, actions, masses, params)
            spread = weights[:, None, None] * masses
            moved = scatter(images.reshape(-1, size), spread.reshape(-1))
            return GridField(moved, field.time + 1), reward, {}

        return Dynamics(reset, step, lambda field: (jnp.asarray(points), field.mass))

    return make
