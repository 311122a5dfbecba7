"""Shuffled minibatches, and gradient descent over them: the inner loop of every on-policy agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxrl.types import Key, Metrics, Params

LossFn = Callable[[Params, Any], tuple[jax.Array, Metrics]]


def permutations(key: Key, num: int, size: int) -> jax.Array:
    """Independent random permutations.

    One sort of packed integers, random bits above and the index below, runs about nine times faster on a CPU than
    `jax.random.permutation`, which sorts pairs, twice. Ties in the random bits fall in index order; with b index bits
    there are 2^(32-b) values, so the share of tied pairs is 2^(b-32): below 1e-4 up to size 2^18, beyond which
    pairs are sorted instead.

    Args:
      key: consumed.
      num: how many permutations.
      size: elements each.
    Returns:
      [num, size] int32; every row holds 0 … size-1 once.
    """
    index_bits = max(size - 1, 1).bit_length()
    index = jnp.broadcast_to(jnp.arange(size, dtype=jnp.uint32), (num, size))
    bits = jax.random.bits(key, (num, size))
    if index_bits > 18:
        return jax.lax.sort((bits, index.astype(jnp.int32)), dimension=1, num_keys=1)[1]
    packed = jax.lax.sort((bits << index_bits) | index, dimension=1, is_stable=False)
    return (packed & jnp.uint32((1 << index_bits) - 1)).astype(jnp.int32)


def minibatches(key: Key, data: Any, num_epochs: int, num_minibatches: int) -> Any:
    """Every epoch visits every row once, in a new order.

    Args:
      key: consumed.
      data: pytree, leaves [N, …].
      num_epochs, num_minibatches: the latter divides N.
    Returns:
      The same pytree, leaves [num_epochs * num_minibatches, N / num_minibatches, …].
    """
    size = jax.tree.leaves(data)[0].shape[0]
    if num_epochs == num_minibatches == 1:
        return jax.tree.map(lambda leaf: leaf[None], data)
    order = permutations(key, num_epochs, size).reshape(num_epochs * num_minibatches, size // num_minibatches)
    return jax.tree.map(lambda leaf: leaf[order], data)


def descend(
    loss: LossFn,
    tx: optax.GradientTransformation,
    params: Params,
    opt_state: Any,
    batches: Any,
    step_size: jax.Array | float,
) -> tuple[Params, Any, Metrics]:
    """One optimiser step per minibatch.

    The parameters travel through the loop as one vector: the optimiser then runs a few operations over it instead of
    a few per leaf, a fifth of an update's time for small networks. `opt_state` is `tx.init` of that vector
    (`init_optimizer`).

    Args:
      loss: `(params, minibatch) -> (scalar, metrics)`.
      tx: gives the direction; its output is multiplied by `-step_size`.
      params: pytree.
      opt_state: from `init_optimizer`.
      batches: leaves [K, n, …], scanned over.
      step_size: scalar; may be traced.
    Returns:
      params, opt_state, and the metrics averaged over the K steps, with "grad_norm" added.
    """
    vector, unravel = ravel_pytree(params)
    grad_fn = jax.grad(lambda flat, batch: loss(unravel(flat), batch), has_aux=True)
    names: list[str] = []

    def body(carry: tuple[jax.Array, Any], batch: Any) -> tuple[tuple[jax.Array, Any], jax.Array]:
        flat, opt_state = carry
        grad, metrics = grad_fn(flat, batch)
        metrics = metrics | {"grad_norm": global_norm(grad)}
        names[:] = metrics
        direction, opt_state = tx.update(grad, opt_state, flat)
        # Metrics leave the loop as one row, which is one write per step instead of one per metric.
        row = jnp.stack([value.astype(flat.dtype) for value in metrics.values()])
        return (flat - step_size * direction, opt_state), row

    (vector, opt_state), rows = jax.lax.scan(body, (vector, opt_state), batches)
    return unravel(vector), opt_state, dict(zip(names, rows.mean(0), strict=True))


# Under the root of second moments: far too small to change a step, but a root has no derivative at 0.
_EPS_ROOT = 1e-20
OPTIMIZERS = ("adam", "adam_bounded", "rmsprop", "sgd")


def direction(optimizer: str) -> optax.GradientTransformation:
    """The direction of descent of a name in `OPTIMIZERS`, to be multiplied by a learning rate.

    Each can be differentiated where gradients have been 0 so far, as those of table rows that nobody has visited.
    """
    if optimizer == "adam":
        return optax.scale_by_adam(eps=1e-5, eps_root=_EPS_ROOT)
    if optimizer == "adam_bounded":
        return optax.chain(optax.scale_by_adam(eps_root=_EPS_ROOT), optax.clip(1.0))
    if optimizer == "rmsprop":
        return _scale_by_rms(decay=0.99, eps=1e-5)
    return optax.identity()


def _scale_by_rms(decay: float, eps: float) -> optax.GradientTransformation:
    """As optax's, with `eps` outside of the root."""

    def init(params: Params) -> optax.ScaleByRmsState:
        return optax.ScaleByRmsState(jax.tree.map(jnp.zeros_like, params))

    def update(grad: Params, state: Any, params: Params = None) -> tuple[Params, optax.ScaleByRmsState]:
        nu = jax.tree.map(lambda n, g: decay * n + (1.0 - decay) * jnp.square(g), state.nu, grad)
        return jax.tree.map(lambda n, g: g / (jnp.sqrt(n + _EPS_ROOT) + eps), nu, grad), optax.ScaleByRmsState(nu)

    return optax.GradientTransformation(init, update)


def global_norm(tree: Any) -> jax.Array:
    """Euclidean norm over all leaves; where it is 0, so is its derivative (that of a square root is infinite)."""
    square = sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), jnp.zeros(()))
    return jnp.where(square > 0.0, jnp.sqrt(jnp.where(square > 0.0, square, 1.0)), 0.0)


def clip_by_norm(max_norm: jax.Array | float) -> optax.GradientTransformation:
    """Shortens gradients whose global norm exceeds `max_norm`; as optax's, and differentiable where the norm is 0.

    For agents whose updates are differentiated in turn, by meta-gradients.
    """

    def update(grad: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = global_norm(grad)
        # A norm of 0 is replaced, not divided by: the derivative of what is not selected would be NaN.
        divisor = jnp.where(norm > 0.0, norm, 1.0)
        return jax.tree.map(lambda g: jnp.where(norm < max_norm, g, g / divisor * max_norm), grad), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def init_optimizer(tx: optax.GradientTransformation, params: Params) -> Any:
    """The optimiser's state for `descend`: of the parameters as one vector."""
    return tx.init(ravel_pytree(params)[0])


def gradient_step(  # noqa: PLR0913 - `descend`'s, of one batch
    loss: LossFn,
    tx: optax.GradientTransformation,
    params: Params,
    opt_state: Any,
    batch: Any,
    step_size: jax.Array | float,
) -> tuple[Params, Any, Any]:
    """One optimiser step: `descend` for a loop of its own, whose loss may return anything beside the scalar.

    Returns:
      params, opt_state, and what `loss` returned beside the scalar.
    """
    vector, unravel = ravel_pytree(params)
    grad, rest = jax.grad(lambda flat: loss(unravel(flat), batch), has_aux=True)(vector)
    direction, opt_state = tx.update(grad, opt_state, vector)
    return unravel(vector - step_size * direction), opt_state, rest
