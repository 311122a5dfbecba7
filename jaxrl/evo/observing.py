"""Strategies whose policies know the observations: their statistics, which the population gathers, or a reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.env import Environment
from jaxrl.evaluation import evaluate_transitions
from jaxrl.evo.episodes import ObsSums
from jaxrl.evo.evolve import Strategy
from jaxrl.ops.statistics import RunningMoments, init_moments
from jaxrl.types import Agent, Evaluation, Key, Params

_LEAST_VARIANCE = 0.01


class Informed(NamedTuple):
    """Parameters, moments of observations and reference observations; what nobody asked for is `()`."""

    params: Params
    moments: Any
    reference: Any


@struct.dataclass
class ObservingState:
    """State of a strategy that is `observing`: the strategy's own, moments, reference observations."""

    inner: Any
    moments: Any
    reference: Any


def observing(
    strategy: Strategy,
    obs_shape: tuple[int, ...] | None = None,
    probability: Any = 1.0,
    reference: Callable[[Key], jax.Array] | None = None,
) -> Strategy:
    """A strategy whose individuals and solution are `Informed`.

    Args:
      strategy: as it is; its evaluation has `ObsSums` as `gathered` where moments are wanted.
      obs_shape: of one observation, for moments; `None` keeps none. They change between generations only, and a
        variance counts as 0.01 at least.
      probability: with which each individual's observations enter the moments; may be traced.
      reference: `(key) -> [N, …]`, drawn once at the beginning, for virtual batch normalisation.
    References:
      Salimans et al. 2017, arXiv:1703.03864, and their release.
    """

    def init(key: Key) -> ObservingState:
        # The strategy's own key is what it would be alone.
        drawn = reference(jax.random.fold_in(key, 1)) if reference else ()
        return ObservingState(strategy.init(key), init_moments(obs_shape) if obs_shape is not None else (), drawn)

    def inform(state: ObservingState, params: Params) -> Informed:
        moments = state.moments
        if obs_shape is not None:
            moments = dataclasses.replace(moments, var=jnp.maximum(moments.var, _LEAST_VARIANCE))
        return Informed(params, moments, state.reference)

    def ask(key: Key, state: ObservingState) -> tuple[Any, ObservingState]:
        genomes, inner = strategy.ask(key, state.inner)
        return genomes, dataclasses.replace(state, inner=inner)

    def decode(state: ObservingState, genome: Any) -> Informed:
        return inform(state, strategy.decode(state.inner, genome))

    def tell(key: Key, state: ObservingState, genomes: Any, evaluation: Evaluation, *more: Any) -> ObservingState:
        inner = strategy.tell(key, state.inner, genomes, evaluation, *more)
        moments = state.moments
        if obs_shape is not None:
            heard = jax.random.bernoulli(jax.random.fold_in(key, 1), probability, evaluation.fitness.shape)
            moments = _merged(moments, evaluation.gathered, heard)
        return ObservingState(inner, moments, state.reference)

    def again(key: Key, state: ObservingState, genomes: Any, evaluation: Evaluation) -> tuple[Any, ObservingState]:
        assert strategy.again is not None
        few, inner = strategy.again(key, state.inner, genomes, evaluation)
        return few, dataclasses.replace(state, inner=inner)

    def solution(state: ObservingState) -> Informed:
        assert strategy.solution is not None
        return inform(state, strategy.solution(state.inner))

    return Strategy(
        init,
        ask,
        decode,
        tell,
        strategy.groups,
        lambda state: strategy.describe(state.inner),
        again if strategy.again else None,
        solution if strategy.solution else None,
    )


def _merged(moments: RunningMoments, sums: ObsSums, heard: jax.Array) -> RunningMoments:
    """Moments that have seen the observations of those that are heard; leaves of `sums` [N, …]."""
    weights = heard & jnp.isfinite(sums.num)

    def total(leaf: jax.Array) -> jax.Array:
        return jnp.where(weights.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0.0).sum(0)

    num, first, second = (total(leaf) for leaf in sums)
    whole = moments.count + num
    mean = (moments.mean * moments.count + first) / whole
    squares = (moments.var + jnp.square(moments.mean)) * moments.count + second
    return RunningMoments(mean, jnp.maximum(squares / whole - jnp.square(mean), 0.0), whole)


def random_observations(key: Key, env: Environment, env_params: Any, num: int, num_episodes: int = 8) -> jax.Array:
    """[num, …] observations of a policy that acts at random, the same for the same key.

    Those after an episode's end are left out while there are others; each may be drawn several times.
    """
    space = env.action_space(env_params)

    def act(key: Key, state: Any, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool) -> Any:
        return jax.vmap(space.sample)(jax.random.split(key, num_episodes)), (), {}

    agent = Agent(lambda *_: (), lambda num: (), act, lambda key, state, data, progress: (state, {}))
    key_play, key_draw = jax.random.split(key)
    max_steps = -(-2 * num // num_episodes)
    _, rows, played = evaluate_transitions(key_play, agent, (), env, env_params, num_episodes, max_steps)
    chances = jnp.where(played.ravel(), 0.0, -jnp.inf)
    index = jax.random.categorical(key_draw, chances, shape=(num,))
    return rows.obs.reshape(-1, *rows.obs.shape[2:])[index]
