"""OpenES: antithetic Gaussian perturbations of a mean, which moves along those that fared better."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from jaxrl.evo.evolve import Strategy
from jaxrl.types import Evaluation, Key, Metrics, Params

# fitness [P, 2], the two of each pair side by side -> weights [P, 2]
Shaping = Callable[[jax.Array], jax.Array]


def pair_ranks(fitness: jax.Array) -> jax.Array:
    """Within each pair the better one gets 1 and the other 0, both 1/2 where they tie: free of any scale.

    Args:
      fitness: [P, 2]; -inf for failures.
    References:
      Jackson et al. 2024, arXiv:2402.05828. Differs: their code gives a tie to one of the two.
    """
    one, other = fitness[:, 0], fitness[:, 1]
    first = jnp.where(one > other, 1.0, jnp.where(one < other, 0.0, 0.5))
    return jnp.stack([first, 1.0 - first], axis=1)


def centered_ranks(fitness: jax.Array) -> jax.Array:
    """Ranks among all, from -1/2 for the worst to 1/2 for the best; ties share their mean rank.

    Args:
      fitness: of any shape; -inf for failures. A single one gets 0.
    References:
      Salimans et al. 2017, arXiv:1703.03864, sec. 2. Differs: ties are not broken.
    """
    flat = fitness.ravel()
    ordered = jnp.sort(flat)
    below, up_to = (jnp.searchsorted(ordered, flat, side=side) for side in ("left", "right"))
    # In whole numbers, so that equal ones are exactly 0.
    twice = below + up_to - flat.size
    return (twice / (2.0 * max(flat.size - 1, 1))).astype(fitness.dtype).reshape(fitness.shape)


def raw(fitness: jax.Array) -> jax.Array:
    """Fitness itself, which sets the length of steps; failures (-inf) count as the worst of the others.

    Args:
      fitness: of any shape.
    """
    finite = jnp.isfinite(fitness)
    worst = jnp.min(jnp.where(finite, fitness, jnp.inf))
    return jnp.where(finite, fitness, jnp.where(jnp.isfinite(worst), worst, 0.0))


def z_scores(fitness: jax.Array) -> jax.Array:
    """Fitness minus its mean, over its deviation; all 0 where all are equal.

    Args:
      fitness: of any shape; failures (-inf) count as the worst of the others.
    """
    known = raw(fitness)
    centred = known - known.mean()
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred)))
    return jnp.where(deviation > 0.0, centred / jnp.where(deviation > 0.0, deviation, 1.0), 0.0)


SHAPINGS: dict[str, Shaping] = {
    "pair_ranks": pair_ranks, "centered_ranks": centered_ranks, "z_scores": z_scores, "raw": raw,
}  # fmt: skip


class OpenESHparams(NamedTuple):
    """The numbers of `open_es`; each may be traced. Generation g has `max(value * decay^g, floor)`.

    Attributes:
      learning_rate: multiplies the optimiser's direction.
      sigma: deviation of the perturbations, in units of the parameters.
    """

    learning_rate: Any = 1e-2
    learning_rate_decay: Any = 0.999
    learning_rate_floor: Any = 1e-5
    sigma: Any = 0.1
    sigma_decay: Any = 1.0
    sigma_floor: Any = 0.0


@struct.dataclass
class OpenESState:
    """State of `open_es`.

    Attributes:
      params: the mean.
      opt_state: of the optimiser, over the mean as one vector.
      generation: int32, generations so far.
      noise: of the pairs that are being evaluated: [P, D], or the keys [P] that it is made from; `()` between
        generations.
    """

    params: Params
    opt_state: Any
    generation: jax.Array
    noise: Any = ()


class Perturbation(NamedTuple):
    """Genomes [N]: the pair whose noise it is, int32, and its sign."""

    pair: jax.Array
    sign: jax.Array


def open_es(
    init_params: Callable[[Key], Params],
    tx: optax.GradientTransformation,
    hp: OpenESHparams,
    num_pairs: int,
    shaping: Shaping = centered_ranks,
    num_groups: int | None = None,
    noise_batch: int = 0,
) -> Strategy:
    """An evolution strategy with antithetic pairs `mean ± sigma noise`, neighbours in the population: 2i and 2i + 1.

    The mean ascends `1 / (2 P sigma) sum_i (w_i+ - w_i-) noise_i`, w being the shaped fitness. With a `noise_batch`,
    noise is not kept: it is made from its key to evaluate an individual, and again to update the mean.

    Args:
      init_params: `(key) -> params`, the first mean.
      tx: gives the direction of descent, as `optax.scale_by_adam()`; without a learning rate.
      hp: numbers; may be traced.
      num_pairs: P; the population is 2 P.
      shaping: of the fitness.
      num_groups: individuals are evaluated with as many keys, neighbours sharing one; `None` is one for each pair.
      noise_batch: pairs whose noise exists at once while the mean is updated; divides P, 0 is all: [P, D] are then
        made once a generation.
    Raises:
      ValueError: for numbers of pairs that do not divide so.
    References:
      Salimans et al. 2017, arXiv:1703.03864.
    """
    _check_sizes(num_pairs, num_groups, noise_batch)
    groups = np.arange(2 * num_pairs) * (num_groups or num_pairs) // (2 * num_pairs)

    def init(key: Key) -> OpenESState:
        params = init_params(key)
        return OpenESState(params, tx.init(ravel_pytree(params)[0]), jnp.int32(0))

    def ask(key: Key, state: OpenESState) -> tuple[Perturbation, OpenESState]:
        keys = jax.random.split(key, num_pairs)
        noise = keys if noise_batch else jax.vmap(_noise, (0, None))(keys, ravel_pytree(state.params)[0])
        sign = jnp.tile(jnp.array([1.0, -1.0]), num_pairs)
        pair = jnp.arange(2 * num_pairs, dtype=jnp.int32) // 2
        return Perturbation(pair, sign), dataclasses.replace(state, noise=noise)

    def decode(state: OpenESState, genome: Perturbation) -> Params:
        vector, unravel = ravel_pytree(state.params)
        noise = state.noise[genome.pair]
        if noise_batch:
            noise = _noise(noise, vector)
        sigma = _decayed(hp.sigma, hp.sigma_decay, hp.sigma_floor, state.generation)
        return unravel(vector + (genome.sign * sigma * noise).astype(vector.dtype))

    def tell(key: Key, state: OpenESState, genomes: Perturbation, evaluation: Evaluation) -> OpenESState:
        vector, unravel = ravel_pytree(state.params)
        weights = shaping(evaluation.fitness.reshape(num_pairs, 2))
        lead = (weights[:, 0] - weights[:, 1]).astype(vector.dtype)

        def add(total: jax.Array, part: Any) -> tuple[jax.Array, None]:
            keys, lead = part
            return total + lead @ jax.vmap(_noise, (0, None))(keys, vector), None

        if noise_batch:
            parts = jax.tree.map(lambda x: x.reshape(-1, noise_batch), (state.noise, lead))
            total, _ = jax.lax.scan(add, jnp.zeros_like(vector), parts)
        else:
            total = lead @ state.noise
        sigma = _decayed(hp.sigma, hp.sigma_decay, hp.sigma_floor, state.generation)
        gradient = total / (2 * num_pairs * sigma)
        direction, opt_state = tx.update(-gradient, state.opt_state, vector)
        vector = (vector - _learning_rate(hp, state.generation) * direction).astype(vector.dtype)
        return OpenESState(unravel(vector), opt_state, state.generation + 1)

    def describe(state: OpenESState) -> Metrics:
        return {
            "strategy/sigma": _decayed(hp.sigma, hp.sigma_decay, hp.sigma_floor, state.generation),
            "strategy/learning_rate": _learning_rate(hp, state.generation),
            "strategy/mean_norm": jnp.linalg.norm(ravel_pytree(state.params)[0]),
        }

    return Strategy(init, ask, decode, tell, groups, describe, solution=lambda state: state.params)


def _noise(key: Key, like: jax.Array) -> jax.Array:
    return jax.random.normal(key, like.shape, like.dtype)


def _decayed(value: Any, decay: Any, floor: Any, generation: jax.Array) -> jax.Array:
    return jnp.maximum(value * jnp.asarray(decay, jnp.result_type(float)) ** generation, floor)


def _learning_rate(hp: OpenESHparams, generation: jax.Array) -> jax.Array:
    return _decayed(hp.learning_rate, hp.learning_rate_decay, hp.learning_rate_floor, generation)


def _check_sizes(num_pairs: int, num_groups: int | None, noise_batch: int) -> None:
    if num_pairs < 1:
        raise ValueError(f"num_pairs = {num_pairs}: expected at least 1")
    for name, value in (("num_groups", num_groups), ("noise_batch", noise_batch)):
        if value and (value < 0 or num_pairs % value):
            fits = [n for n in range(1, num_pairs + 1) if num_pairs % n == 0]
            near = min(fits, key=lambda n: abs(n - value))
            raise ValueError(f"num_pairs = {num_pairs} is not divisible by {name} = {value}; use {near}")
