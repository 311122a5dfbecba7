"""Safe mutations: noise scaled down for the parameters to which a network's outputs react most."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl.types import Key

# (parameters [D], observations [N, …]) -> outputs [N, K]
Outputs = Callable[[jax.Array, jax.Array], jax.Array]
SENSITIVITIES = ("sum", "abs", "second_order")
_FLOOR = 0.01


def sensitivity(outputs: Outputs, theta: jax.Array, references: jax.Array, kind: str = "sum") -> jax.Array:
    """How strongly the outputs react to each parameter, [D]; 1 where they do not at all, at least 0.01 elsewhere.

    Args:
      outputs: of the network.
      theta: [D].
      references: [N, …], observations on which the reaction counts.
      kind: "sum": root of the squared gradients of each output summed over the references, in which opposite reactions
        cancel, by K backward passes; "abs": of each output's mean absolute gradient, by as many per reference.
    Raises:
      ValueError: for another kind; "second_order" depends on the direction, see `safe_direction`.
    References:
      Lehman et al. 2017, arXiv:1712.06563: SM-G-SUM and SM-G-ABS.
    """
    if kind == "sum":
        values, pullback = jax.vjp(lambda t: outputs(t, references).sum(0), theta)
        gradients = jax.vmap(lambda unit: pullback(unit)[0])(jnp.eye(len(values), dtype=values.dtype))
        return _floored(jnp.sqrt(jnp.square(gradients).sum(0)))
    if kind == "abs":

        def of_one(total: jax.Array, reference: jax.Array) -> tuple[jax.Array, None]:
            return total + jnp.abs(jax.jacrev(lambda t: outputs(t, reference[None])[0])(theta)), None

        size = jax.eval_shape(outputs, theta, references).shape[-1]
        total, _ = jax.lax.scan(of_one, jnp.zeros((size, theta.size), theta.dtype), references)
        return _floored(jnp.sqrt(jnp.square(total / len(references)).sum(0)))
    raise ValueError(f"kind = {kind!r}: expected sum or abs; second_order needs a direction, see safe_direction")


def curvature_sensitivity(outputs: Outputs, theta: jax.Array, references: jax.Array, direction: jax.Array) -> jax.Array:
    """The same from the second order of the outputs' divergence along a direction [D].

    Root of |H v|, v being the direction at length 1 and H the Hessian, at 0, of the mean squared difference of outputs
    that a perturbation makes: one Hessian-vector product.

    References:
      Lehman et al. 2017, arXiv:1712.06563: SM-G-SO.
    """
    before = outputs(theta, references)

    def divergence(perturbation: jax.Array) -> jax.Array:
        return jnp.square(outputs(theta + perturbation, references) - before).mean()

    unit = direction / jnp.maximum(jnp.linalg.norm(direction), 1e-12)
    _, product = jax.jvp(jax.grad(divergence), (jnp.zeros_like(theta),), (unit,))
    return _floored(jnp.sqrt(jnp.abs(product)))


def safe_direction(  # noqa: PLR0913 - whose, where, how
    key: Key,
    outputs: Outputs,
    theta: jax.Array,
    references: jax.Array,
    power: jax.Array | float,
    kind: str = "sum",
    largest: float = jnp.inf,
) -> jax.Array:
    """A mutation [D]: normal noise of deviation `power` over each parameter's sensitivity.

    Args:
      key: consumed.
      outputs, theta, references: as of `sensitivity`.
      power: may be traced.
      kind: one of `SENSITIVITIES`.
      largest: to which each change is clipped; 0.2 in the paper's maze.
    Raises:
      ValueError: for an unknown kind.
    """
    if kind not in SENSITIVITIES:
        raise ValueError(f"kind = {kind!r}: expected one of {', '.join(SENSITIVITIES)}")
    noise = power * jax.random.normal(key, theta.shape, theta.dtype)
    if kind == "second_order":
        scale = curvature_sensitivity(outputs, theta, references, noise)
    else:
        scale = sensitivity(outputs, theta, references, kind)
    return jnp.clip(noise / scale, -largest, largest)


def rescaled_direction(
    outputs: Outputs, theta: jax.Array, references: jax.Array, direction: jax.Array, power: jax.Array | float
) -> jax.Array:
    """A direction [D] at the length at which outputs change by `power` in the mean square: SM-R, and SM-G with it.

    The length is found by bisection, in 30 halvings below 1,000 times the length 1; it is 0 for a direction of zeros.

    References:
      Lehman et al. 2017, arXiv:1712.06563: SM-R. Differs: what the search finds is applied, also to gradients'
      directions, where the release computes it and forgets it.
    """
    before = outputs(theta, references)
    unit = direction / jnp.maximum(jnp.linalg.norm(direction), 1e-12)

    def halve(i: int, between: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = between
        middle = 0.5 * (low + high)
        too_far = jnp.square(outputs(theta + middle * unit, references) - before).mean() > power
        return jnp.where(too_far, low, middle), jnp.where(too_far, middle, high)

    low, _ = jax.lax.fori_loop(0, 30, halve, (jnp.zeros(()), jnp.full((), 1000.0)))
    return low * unit


def _floored(s: jax.Array) -> jax.Array:
    return jnp.where(s == 0.0, 1.0, jnp.maximum(s, _FLOOR))
