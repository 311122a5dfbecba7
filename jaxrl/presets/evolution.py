"""What presets that evolve update rules have in common: lifetimes as fitness, and the strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrl.algorithm import Algorithm, init, train
from jaxrl.evaluation import Episodes
from jaxrl.evo.evolve import Spread, evolve, in_chunks
from jaxrl.evo.open_es import SHAPINGS, OpenESHparams, open_es
from jaxrl.settings import check_at_least, check_choice
from jaxrl.types import Evaluation, Key, Metrics, Params

INITS = ("zeros", "random")
SAMPLINGS = ("shared", "own")
_LAST = 0.1  # share of a lifetime whose training returns are its outcome


class PopulationLengths:
    """What follows from `total_steps`, `num_pairs` and the configuration `agent` of those that are raised."""

    total_steps: int
    num_pairs: int

    @property
    def steps_per_life(self: Any) -> int:
        """Environment steps in which one agent learns, at most."""
        return self.agent.num_updates * self.agent.steps_per_update

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one generation, at most; those of evaluations not counted."""
        return 2 * self.num_pairs * self.steps_per_life

    @property
    def num_updates(self) -> int:
        """Generations of the whole run."""
        return self.total_steps // self.steps_per_update


def live(key: Key, own_key: Key, algorithm: Algorithm, num_updates: jax.Array | int) -> tuple[Any, jax.Array]:
    """A whole life, as long as it is and no longer: `train`'s updates, in a loop whose length may be traced.

    Args:
      key: of the first state.
      own_key: of the updates; if it is `key`, the state is that of `train(key, algorithm, num_updates)`.
      algorithm: has the metrics "episode/return" and "episode/count".
      num_updates: at least 1.
    Returns:
      The last state, and the mean return of the episodes that ended in the last tenth of the updates (one update at
      least), NaN if none did.
    """
    counted_from = jnp.minimum(jnp.ceil((1.0 - _LAST) * num_updates), num_updates - 1)

    def unfinished(carry: Any) -> jax.Array:
        return carry[0] < num_updates

    def body(carry: Any) -> Any:
        t, state, total, count = carry
        state, rows = train(own_key, algorithm, 1, state, t)
        ended = jnp.where(t >= counted_from, rows["episode/count"][0], 0.0)
        total = total + jnp.where(ended > 0.0, ended * rows["episode/return"][0], 0.0)
        return t + 1, state, total, count + ended

    begun = (jnp.int32(0), init(key, algorithm), jnp.float32(0.0), jnp.float32(0.0))
    _, state, total, count = jax.lax.while_loop(unfinished, body, begun)
    return state, jnp.where(count > 0.0, total / jnp.maximum(count, 1.0), jnp.nan)


def own_keys(config: Any, own_key: Key, key_life: Key, key_final: Key) -> tuple[Key, Key]:
    """What an individual acts with, in its life and at its end: its group's keys, or with `config.sampling` its own."""
    if config.sampling == "shared":
        return key_life, key_final
    own_life, own_final = jax.random.split(own_key)
    return own_life, own_final


def num_played(episodes: Episodes) -> jax.Array:
    """Environment steps of an evaluation."""
    return episodes.lengths.sum().astype(jnp.float32)


def evolved(
    config: Any,
    hp: Any,
    fitness: Callable[[Key, Key, Params], Evaluation],
    init_rule: Callable[[Key], Params],
    spread: Spread | None,
) -> Algorithm:
    """Evolves a rule by OpenES.

    Args:
      config: has the static fields of a population (`check_population`).
      hp: has the numbers of `OpenESHparams`, its learning rate as `meta_learning_rate`, `meta_learning_rate_decay` …
      fitness: as `evolve` takes it.
      init_rule: `(key) -> params`.
      spread: in the place of chunks of `config.population_batch`.
    Returns:
      An `Algorithm` that adds the mean fitness as "episode/return".
    """

    def first(key: Key) -> Params:
        shapes = jax.eval_shape(init_rule, key)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return init_rule(key) if config.initial == "random" else zeros

    numbers = OpenESHparams(
        hp.meta_learning_rate,
        hp.meta_learning_rate_decay,
        hp.meta_learning_rate_floor,
        hp.sigma,
        hp.sigma_decay,
        hp.sigma_floor,
    )
    # Adam's b1 is that of the evosax release with which the published rules were evolved.
    adam, shaping = optax.scale_by_adam(0.99, 0.999), SHAPINGS[config.shaping]
    sizes = (config.num_groups or None, config.noise_batch)
    strategy = open_es(first, adam, numbers, config.num_pairs, shaping, *sizes)
    algorithm = evolve(strategy, fitness, spread or in_chunks(config.population_batch))

    def step(key: Key, state: Any, t: Any) -> tuple[Any, Metrics]:
        state, metrics = algorithm.step(key, state, t)
        num = 2 * config.num_pairs * (1.0 - metrics["evolution/failed"])
        return state, metrics | {"episode/return": metrics["fitness/mean"], "episode/count": num}

    return Algorithm(algorithm.init, step)


def check_population(config: Any) -> None:
    """Raises ValueError unless the settings of a population are possible, and there is time for one generation."""
    check_at_least(config, 1, "total_steps", "num_pairs", "evaluation_episodes")
    check_at_least(config, 0, "population_batch", "noise_batch", "num_groups")
    for name, choices in (("sampling", SAMPLINGS), ("shaping", SHAPINGS), ("initial", INITS)):
        check_choice(name, getattr(config, name), choices)
    for name in ("noise_batch", "num_groups"):
        value = getattr(config, name)
        if value and config.num_pairs % value:
            fits = [n for n in range(1, config.num_pairs + 1) if config.num_pairs % n == 0]
            near = min(fits, key=lambda n: abs(n - value))
            raise ValueError(f"num_pairs = {config.num_pairs} is not divisible by {name} = {value}; use {near}")
    if config.num_updates < 1:
        raise ValueError(
            f"total_steps = {config.total_steps} is less than one generation; use at least {config.steps_per_update}"
        )
