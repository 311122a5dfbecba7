"""Emitters: where offspring come from. Those here have no state: operators on selected parents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.qd.archive import Archive, Insertion, select
from jaxrl.types import Evaluation, Key, Metrics


class Operator(NamedTuple):
    """One of the ways in which an emitter makes offspring.

    Attributes:
      name: for its metrics.
      num: individuals per iteration.
      enters: are they offered to the archive? Otherwise they are evaluated for what the emitter learns from them.
    """

    name: str
    num: int
    enters: bool = True


class Emitter(NamedTuple):
    """A source of offspring.

    Attributes:
      operators: static, in the order in which their individuals stand; N is the sum of their numbers.
      init: `(key, archive, genotypes [M, …], Evaluation [M]) -> state`, of the initial population.
      emit: `(key, state, archive) -> (genotypes [N, …], info)`.
      update: `(key, state, archive, genotypes [N, …], info, Evaluation [N], Insertion [N]) -> (state, Metrics)`; the
        archive is the one after the insertion.
    """

    operators: tuple[Operator, ...]
    init: Callable[..., Any]
    emit: Callable[[Key, Any, Archive], tuple[Any, Any]]
    update: Callable[..., tuple[Any, Metrics]]

    @property
    def num(self) -> int:
        """N."""
        return sum(operator.num for operator in self.operators)


def variation(name: str, num: int, num_parents: int, vary: Callable[..., Any]) -> Emitter:
    """Offspring of parents that are selected uniformly and independently.

    Args:
      name: of the operator.
      num: N.
      num_parents: of each individual.
      vary: `(key, *parents, leaves [N, …]) -> genotypes [N, …]`.
    Raises:
      ValueError: if `num` is below 1.
    """
    if num < 1:
        raise ValueError(f"{name}: num = {num}, expected at least 1 individual")

    def emit(key: Key, state: Any, archive: Archive) -> tuple[Any, Any]:
        key_vary, *keys = jax.random.split(key, 1 + num_parents)
        return vary(key_vary, *(select(k, archive, num)[0] for k in keys)), ()

    def update(key: Key, state: Any, *experience: Any) -> tuple[Any, Metrics]:
        return state, {}

    return Emitter((Operator(name, num),), lambda key, archive, genotypes, evaluation: (), emit, update)


def iso_line(num: int, iso_sigma: Any, line_sigma: Any, low: Any = None, high: Any = None) -> Emitter:
    """`x1 + iso_sigma e + line_sigma z (x2 - x1)`, e normal for each parameter, z normal once per pair.

    Args:
      num: N.
      iso_sigma: in units of parameters; may be traced.
      line_sigma: in distances of the parents; may be traced.
      low, high: clipped to, where given.
    References:
      Vassiliades and Mouret 2018, arXiv:1804.03906, "iso+line-DD".
    """

    def vary(key: Key, one: Any, other: Any) -> Any:
        key_line, key_iso = jax.random.split(key)
        line = jax.random.normal(key_line, (num,))

        def child(noise: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            along = line.reshape(-1, *[1] * (x.ndim - 1))
            return x + iso_sigma * noise + line_sigma * along * (y - x)

        return clipped(jax.tree.map(child, normal_like(key_iso, one), one, other), low, high)

    return variation("ga", num, 2, vary)


def gaussian(num: int, sigma: Any, low: Any = None, high: Any = None) -> Emitter:
    """`x + sigma e`, e normal for each parameter; clipped to low and high where given. `sigma` may be traced."""

    def vary(key: Key, parent: Any) -> Any:
        return clipped(jax.tree.map(lambda e, x: x + sigma * e, normal_like(key, parent), parent), low, high)

    return variation("gaussian", num, 1, vary)


def polynomial(num: int, low: Any, high: Any, eta: Any = 5.0, probability: Any = 1.0) -> Emitter:
    """Polynomial mutation: `x + d (high - low)`, d in (-1, 1) with density `(eta + 1) (1 - |d|)^eta / 2`, clipped.

    Args:
      num: N.
      low, high: bounds of parameters.
      eta: the larger, the smaller the steps; may be traced.
      probability: with which a parameter changes; may be traced.
    References:
      Deb and Goyal 1996; eta as in pymap_elites.
    """

    def vary(key: Key, parent: Any) -> Any:
        def child(key: Key, x: jax.Array) -> jax.Array:
            key_step, key_coin = jax.random.split(key)
            u = jax.random.uniform(key_step, x.shape, x.dtype)
            size = 1.0 - (2.0 * jnp.minimum(u, 1.0 - u)) ** (1.0 / (eta + 1.0))
            step = jnp.where(u < 0.5, -size, size) * (high - low)
            return x + jnp.where(jax.random.bernoulli(key_coin, probability, x.shape), step, 0.0)

        return clipped(jax.tree.map(child, keys_like(key, parent), parent), low, high)

    return variation("polynomial", num, 1, vary)


def sbx(num: int, low: Any, high: Any, eta: Any = 10.0) -> Emitter:
    """Simulated binary crossover: `((1 + b) x1 + (1 - b) x2) / 2` with b near 1 for each parameter, clipped.

    Args:
      num: N.
      low, high: bounds of parameters.
      eta: the larger, the nearer to a parent; may be traced.
    References:
      Deb and Agrawal 1995; eta as in pymap_elites.
    """

    def vary(key: Key, one: Any, other: Any) -> Any:
        def child(key: Key, x: jax.Array, y: jax.Array) -> jax.Array:
            u = jax.random.uniform(key, x.shape, x.dtype)
            spread = jnp.where(u <= 0.5, 2.0 * u, 0.5 / (1.0 - u)) ** (1.0 / (eta + 1.0))
            return 0.5 * ((1.0 + spread) * x + (1.0 - spread) * y)

        return clipped(jax.tree.map(child, keys_like(key, one), one, other), low, high)

    return variation("sbx", num, 2, vary)


def mixture(emitters: Sequence[Emitter]) -> Emitter:
    """Several emitters side by side, each told about its own offspring.

    Raises:
      ValueError: if there is none, or two operators have one name.
    """
    names = [operator.name for emitter in emitters for operator in emitter.operators]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"operators are {names}: expected at least one, each with a name of its own")
    ends = [sum(emitter.num for emitter in emitters[: i + 1]) for i in range(len(emitters))]

    def init(key: Key, archive: Archive, genotypes: Any, evaluation: Evaluation) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(emitters))
        return tuple(e.init(k, archive, genotypes, evaluation) for e, k in zip(emitters, keys, strict=True))

    def emit(key: Key, state: Any, archive: Archive) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(emitters))
        pairs = [e.emit(k, s, archive) for e, k, s in zip(emitters, keys, state, strict=True)]
        genotypes, infos = zip(*pairs, strict=True)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *genotypes), tuple(infos)

    def update(
        key: Key, state: Any, archive: Archive, genotypes: Any, info: Any, evaluation: Evaluation, insertion: Insertion
    ) -> tuple[Any, Metrics]:
        keys = jax.random.split(key, len(emitters))
        states, metrics = [], dict[str, jax.Array]()
        for emitter, key, own, about, end in zip(emitters, keys, state, info, ends, strict=True):
            part = slice(end - emitter.num, end)
            of_it = jax.tree.map(lambda leaf: leaf[part], (genotypes, evaluation, insertion))  # noqa: B023
            new, said = emitter.update(key, own, archive, of_it[0], about, *of_it[1:])
            states.append(new)
            metrics |= said
        return tuple(states), metrics

    return Emitter(tuple(operator for emitter in emitters for operator in emitter.operators), init, emit, update)


def keys_like(key: Key, tree: Any) -> Any:
    """A key for each leaf."""
    leaves, treedef = jax.tree.flatten(tree)
    return jax.tree.unflatten(treedef, list(jax.random.split(key, len(leaves))))


def normal_like(key: Key, tree: Any) -> Any:
    """Standard normal numbers of the shapes and dtypes of a tree."""
    return jax.tree.map(lambda k, leaf: jax.random.normal(k, leaf.shape, leaf.dtype), keys_like(key, tree), tree)


def clipped(tree: Any, low: Any, high: Any) -> Any:
    """All leaves between two numbers; `None` is no bound."""
    return tree if low is None and high is None else jax.tree.map(lambda leaf: jnp.clip(leaf, low, high), tree)
