"""Every algorithm of evosax 0.3 as a `Strategy`: maximising, with one way to begin.

evosax minimises, begins its distributions from a mean and its populations from individuals that were evaluated, and
names its Stein variational ones by the size of each of several populations. None of that is seen from outside.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from jaxrl.evo.evolve import Strategy
from jaxrl.settings import suggest
from jaxrl.types import Evaluation, Key, Metrics, Params


@struct.dataclass
class EvosaxState:
    """State of an evosax algorithm.

    Attributes:
      inner: evosax's own state.
      first: the first population of an algorithm of populations, leaves [N, …]; `()` for those of distributions.
      generation: int32, generations so far.
    """

    inner: Any
    first: Any
    generation: jax.Array


def evosax_names() -> tuple[str, ...]:
    """Names that `evosax_strategy` knows."""
    return tuple(sorted(_algorithms()))


def evosax_strategy(  # noqa: PLR0913 - what a user may want to change
    name: str,
    init_params: Callable[[Key], Params],
    population: int,
    *,
    sigma: Any = None,
    learning_rate: Any = None,
    optimizer: str = "adam",
    settings: Mapping[str, Any] | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> Strategy:
    """An algorithm of evosax.

    Args:
      name: as in evosax, such as "CMA_ES", "PGPE" or "SimpleGA"; case and underscores do not matter.
      init_params: `(key) -> params`: the first mean, or each individual of the first population.
      population: N, of all populations together where there are several.
      sigma: deviation of perturbations or mutations at first, where the algorithm has one; `None` is evosax's own.
      learning_rate: where the algorithm has an optimiser; `None` is evosax's own optimiser.
      optimizer: "adam", "sgd" or "clipup" (of twice the learning rate as largest velocity), with a learning rate.
      settings: of its constructor, such as {"subspace_dims": 4} or {"num_populations": 3}.
      numbers: of its parameters, such as {"crossover_rate": 0.5}; may be traced.
    Returns:
      A `Strategy` whose genomes are parameters. Its `solution` is the mean, or the best individual so far.
    Raises:
      ValueError: for unknown names and settings, and sizes that the algorithm refuses.
    References:
      Lange 2022, arXiv:2212.04180.
    """
    cls = _find(name)
    known = inspect.signature(cls.__init__).parameters
    chosen = dict(settings or {})
    _check_names(cls.__name__, "settings", chosen, known)
    if sigma is not None and "std_schedule" in known:
        chosen.setdefault("std_schedule", lambda count: jnp.asarray(sigma, jnp.float32))
    if learning_rate is not None and "optimizer" in known:
        chosen.setdefault("optimizer", _optimizer(optimizer, learning_rate))
    if "sampling_fn" in known:
        chosen.setdefault("sampling_fn", init_params)
    several = chosen.get("num_populations", 1 if "num_populations" in known else 0)
    if several:
        chosen["num_populations"] = several
        if population % several:
            raise ValueError(f"population = {population} is not divisible by num_populations = {several}")
    shapes = jax.eval_shape(init_params, jax.random.key(0))
    solution = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    try:
        with jax.ensure_compile_time_eval():  # some decide on numbers that they compute, also where all is traced
            es = cls(population_size=population // max(several, 1), solution=solution, **chosen)
    except AssertionError as error:
        raise ValueError(f"{cls.__name__} refuses population = {population}: {error}") from error
    params = _default_params(es)
    named = dict(numbers or {})
    if sigma is not None and hasattr(params, "std_init"):
        named.setdefault("std_init", jnp.asarray(sigma, jnp.float32))
    _check_names(cls.__name__, "numbers", named, vars(params))
    params = params.replace(**named)
    return _strategy(es, params, init_params, population, several)


def _default_params(es: Any) -> Any:
    """Traced where all is, so that programs of any length compute alike; numbers where an algorithm decides on them."""
    try:
        return es.default_params
    except jax.errors.ConcretizationTypeError:
        with jax.ensure_compile_time_eval():
            return es.default_params


def _strategy(es: Any, params: Any, init_params: Any, population: int, several: int) -> Strategy:
    of_populations = not hasattr(es, "get_mean")

    def init(key: Key) -> EvosaxState:
        key_first, key_init = jax.random.split(key)
        first: Any = ()
        if of_populations:
            first = jax.vmap(init_params)(jax.random.split(key_first, population))
            inner = es.init(key_init, first, jnp.zeros(population), params)
        else:
            keys = jax.random.split(key_first, several) if several else key_first
            mean = jax.vmap(init_params)(keys) if several else init_params(key_first)
            inner = es.init(key_init, mean, params)
        return EvosaxState(_firm(inner), first, jnp.int32(0))

    def ask(key: Key, state: EvosaxState) -> tuple[Any, EvosaxState]:
        genomes, inner = es.ask(key, state.inner, params)
        if of_populations:
            is_first = state.generation == 0
            genomes = _where(is_first, state.first, genomes)
            inner = _where(is_first, state.inner, _firm(inner))
        return genomes, dataclasses.replace(state, inner=_firm(inner))

    def tell(key: Key, state: EvosaxState, genomes: Any, evaluation: Evaluation) -> EvosaxState:
        loss = -_without_failures(evaluation.fitness)
        if several:
            genomes = jax.tree.map(lambda leaf: leaf.reshape(several, -1, *leaf.shape[1:]), genomes)
        inner = _firm(es.tell(key, genomes, loss, state.inner, params)[0])
        if of_populations:
            begun = _firm(es.init(key, genomes, loss, params))
            inner = _where(state.generation == 0, begun, inner)
        return dataclasses.replace(state, inner=inner, generation=state.generation + 1)

    def solution(state: EvosaxState) -> Params:
        if of_populations or several:
            best, fitness = state.inner.best_solution, state.inner.best_fitness
            vector = best[jnp.argmin(fitness)] if several else best
            # Nobody is the best before the first generation.
            start = ravel_pytree(es.solution)[0]
            return es._unravel_solution(jnp.where(jnp.isfinite(vector).all(), vector, start))
        return es.get_mean(state.inner)

    def describe(state: EvosaxState) -> Metrics:
        vector = ravel_pytree(solution(state))[0]
        return {"strategy/solution_norm": jnp.linalg.norm(vector)}

    def decode(state: EvosaxState, genome: Params) -> Params:
        return genome

    groups = np.zeros(population, np.int32)
    return Strategy(init, ask, decode, tell, groups, describe, solution=solution)


def _without_failures(fitness: jax.Array) -> jax.Array:
    """Failures count as the worst of the others: many an algorithm multiplies by fitness."""
    finite = jnp.isfinite(fitness)
    worst = jnp.min(jnp.where(finite, fitness, jnp.inf))
    return jnp.where(finite, fitness, jnp.where(jnp.isfinite(worst), worst, 0.0))


def _firm(tree: Any) -> Any:
    """Arrays of their own type: evosax begins with Python's numbers, whose type would change later."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(jnp.asarray(leaf).dtype), tree)


def _where(condition: jax.Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _optimizer(name: str, learning_rate: Any) -> optax.GradientTransformation:
    from evosax.core.optimizer import clipup

    if name == "clipup":
        return clipup(learning_rate=learning_rate, max_velocity=2.0 * learning_rate)
    simple = {"adam": optax.scale_by_adam(), "sgd": optax.identity()}
    if name not in simple:
        raise ValueError(f"optimizer = {name!r}: expected one of adam, sgd, clipup")
    return optax.chain(simple[name], optax.scale_by_learning_rate(learning_rate))


def _algorithms() -> dict[str, Any]:
    from evosax.algorithms import algorithms

    return dict(algorithms)


def _find(name: str) -> Any:
    plain = {known.lower().replace("_", ""): cls for known, cls in _algorithms().items()}
    key = name.lower().replace("_", "")
    if key not in plain:
        raise ValueError(suggest("evosax algorithm", name, _algorithms()))
    return plain[key]


def _check_names(algorithm: str, kind: str, given: Mapping[str, Any], known: Any) -> None:
    for name in given:
        if name not in known:
            hidden = ("self", "population_size", "solution")
            options = ", ".join(n for n in known if n not in hidden and not n.startswith("_")) or "none"
            raise ValueError(f"{kind}: {algorithm} has no {name!r}; it has {options}")
