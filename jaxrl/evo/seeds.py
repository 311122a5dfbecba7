"""Genomes of seeds: parameters as the list of random seeds that made them, rebuilt bit for bit wherever they are.

An individual is `scale * z(s_0) + p_1 * z(s_1) + … + p_L * z(s_L)`, z(s) being D unit-normal numbers that depend on
the seed alone. Its genome grows by one seed and one power per mutation and does not depend on D.

Sums must come out the same in every compiled program and on every kind of hardware. So noise is looked up by 16 random
bits among the quantiles of the normal distribution: `jax.random.normal` computes, and differs in its last bits from
program to program. And noise, powers and scales of initialisation have 12 significant bits: their products are exact in
float32, so that only the addition rounds, whether it is fused with the product or not.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

from jaxrl.types import Key, Params

IMPLEMENTATION = "threefry2x32"
INITS = ("xavier_normal", "fan_in")
_MANTISSA = 11  # stored bits; one more is implied
_STREAM = 0x5EED  # the other half of the key of all noise


class SeedGenome(NamedTuple):
    """Genomes, leaves [..., L]; what lies behind `length` is zero.

    Attributes:
      seeds: uint32; the first one is of the initialisation, each further one of a mutation.
      powers: float32, deviation of each mutation; that of the initialisation is 0.
      length: int32 [...], number of seeds, at least 1. More than L means that the last ones did not fit.
    """

    seeds: jax.Array
    powers: jax.Array
    length: jax.Array


class SeedCodec(NamedTuple):
    """What turns seeds into parameters.

    Attributes:
      size: D.
      noise: `(seed) -> [D]`, z(s).
      first: `(z) -> [D]`, the initial parameters that noise makes.
      add: `(theta, z, power) -> [D]`, a mutation.
      to_params: `([D]) -> Params`.
      header: what a genome's meaning depends on; JSON. Genomes of equal headers are interchangeable.
    """

    size: int
    noise: Callable[[jax.Array], jax.Array]
    first: Callable[[jax.Array], jax.Array]
    add: Callable[[jax.Array, jax.Array, Any], jax.Array]
    to_params: Callable[[jax.Array], Params]
    header: dict[str, Any]

    def mutate(self, theta: jax.Array, seed: jax.Array, power: Any) -> jax.Array:
        """Parameters [D] after one more mutation; everything that ever adds noise to parameters goes through `add`."""
        return self.add(theta, self.noise(seed), power)

    def rebuild(self, genome: SeedGenome) -> jax.Array:
        """Parameters [D] of one genome, from nothing: `length` draws of D numbers."""

        def body(i: jax.Array, theta: jax.Array) -> jax.Array:
            return self.mutate(theta, genome.seeds[i], genome.powers[i])

        return jax.lax.fori_loop(1, genome.length, body, self.first(self.noise(genome.seeds[0])))


def seed_codec(shapes: Params, init: str = "xavier_normal") -> SeedCodec:
    """The codec of a network.

    Args:
      shapes: its parameters, or their shapes; float32. Initial parameters are 0 for vectors (biases), normal for
        matrices and kernels [..., inputs, outputs].
      init: of those: "xavier_normal" has deviation sqrt(2 / (fan_in + fan_out)); "fan_in" has sqrt(1 / fan_in), and a
        tenth of that in layers named "head".
    Raises:
      ValueError: for parameters that are not float32, or an unknown `init`.
    References:
      Such et al. 2017, arXiv:1712.06567, sec. 3. Differs: a seed is a generator's key, not a place in a table of noise.
    """
    if init not in INITS:
        raise ValueError(f"init = {init!r}: expected one of {', '.join(INITS)}")
    paths, leaves = zip(*jax.tree_util.tree_flatten_with_path(shapes)[0], strict=True)
    names = [jax.tree_util.keystr(path) for path in paths]
    for name, leaf in zip(names, leaves, strict=True):
        if jnp.dtype(leaf.dtype) != jnp.float32:
            raise ValueError(f"parameter {name} is {leaf.dtype}; genomes of seeds make float32 parameters")
    sizes = [int(np.prod(leaf.shape)) for leaf in leaves]
    scales = [_scale(name, leaf.shape, init) for name, leaf in zip(names, leaves, strict=True)]
    cuts, size, structure = np.cumsum(sizes)[:-1].tolist(), sum(sizes), jax.tree.structure(shapes)

    def first(z: jax.Array) -> jax.Array:
        parts = jnp.split(z, cuts)
        return jnp.concatenate([scale * part for scale, part in zip(scales, parts, strict=True)])

    def to_params(theta: jax.Array) -> Params:
        parts = jnp.split(theta, cuts)
        return jax.tree.unflatten(structure, [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)])

    def draw(seed: jax.Array) -> jax.Array:
        return unit_normal(seed, size)

    layout = json.dumps([[name, list(leaf.shape)] for name, leaf in zip(names, leaves, strict=True)])
    header = {
        "size": size,
        "layout": hashlib.sha256(layout.encode()).hexdigest()[:16],
        "init": init,
        "noise": f"{IMPLEMENTATION}, quantiles {hashlib.sha256(_quantiles().tobytes()).hexdigest()[:16]}",
    }
    return SeedCodec(size, draw, first, _add, to_params, header)


def unit_normal(seed: jax.Array, size: int) -> jax.Array:
    """[size] normal numbers of mean 0 and deviation 1, a function of the seed in every program and on all hardware.

    One of the 65,536 quantiles each, from -4.3 to 4.3, of 12 significant bits.
    """
    words = -(-size // 4) * 2
    key = jnp.stack([jnp.uint32(_STREAM), jnp.asarray(seed, jnp.uint32)])
    bits = threefry_2x32(key, jax.lax.iota(jnp.uint32, words))
    index = jnp.concatenate([bits & 0xFFFF, bits >> 16])[:size].astype(jnp.int32)
    return jnp.asarray(_quantiles()).at[index].get(mode="promise_in_bounds")


@functools.cache
def _quantiles() -> np.ndarray:
    """The middles of 2^16 equally likely pieces of the normal distribution, float32 of 12 significant bits."""
    inverse = NormalDist().inv_cdf
    half = np.array([inverse((i + 0.5) / 2**16) for i in range(2**15)])
    table = np.concatenate([half, -half[::-1]])
    return _round(table / table.std())


def _round(x: Any) -> np.ndarray:
    """`quantize`, on the host."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.round(mantissa * 2.0 ** (_MANTISSA + 1)), exponent - _MANTISSA - 1).astype(np.float32)


def quantize(x: Any) -> jax.Array:
    """float32 numbers rounded to 12 significant bits: the product of two of them is exact."""
    return jax.lax.reduce_precision(jnp.asarray(x, jnp.float32), 8, _MANTISSA)


def check_key(key: Key) -> None:
    """Raises ValueError for keys whose numbers differ under `vmap`, so that genomes could not be rebuilt from them."""
    typed = jax.dtypes.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key)
    found = str(jax.random.key_impl(key)) if typed else "an untyped key"
    if IMPLEMENTATION not in found:
        raise ValueError(
            f"genomes of seeds need keys of {IMPLEMENTATION}, got {found}: of other kinds, numbers drawn for a "
            f"population under vmap differ from those drawn for one individual; use jax.random.key(seed)"
        )


def extend(genome: SeedGenome, seed: jax.Array, power: jax.Array) -> SeedGenome:
    """One genome with one more mutation; what does not fit is dropped, and `length` says so."""
    at = genome.length
    return SeedGenome(
        genome.seeds.at[at].set(seed, mode="drop"), genome.powers.at[at].set(quantize(power), mode="drop"), at + 1
    )


def founder(seed: jax.Array, max_length: int) -> SeedGenome:
    """The genome of one initialisation."""
    seeds = jnp.zeros(max_length, jnp.uint32).at[0].set(seed)
    return SeedGenome(seeds, jnp.zeros(max_length), jnp.int32(1))


def _add(theta: jax.Array, z: jax.Array, power: Any) -> jax.Array:
    return theta + quantize(power) * z


def _scale(name: str, shape: tuple[int, ...], init: str) -> np.float32:
    if len(shape) < 2:
        return np.float32(0.0)
    field = int(np.prod(shape[:-2]))
    fan_in, fan_out = field * shape[-2], field * shape[-1]
    scale = np.sqrt(2.0 / (fan_in + fan_out)) if init == "xavier_normal" else np.sqrt(1.0 / fan_in)
    if init == "fan_in" and "head" in name:
        scale *= 0.1
    return np.float32(_round(scale))
