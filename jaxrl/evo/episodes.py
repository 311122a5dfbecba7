"""The evaluation that neuroevolution, evolution strategies and quality-diversity share: whole episodes of a policy.

`episodes(agent, env, env_params, 4)` is what `evolve` takes for one individual; its `spread` makes it a population's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.env import Environment
from jaxrl.evaluation import Gather, Moment, evaluate, evaluate_transitions
from jaxrl.types import Agent, Evaluation, Key, Params, Transition

# what is seen of one step: [D]
Feature = Callable[[Moment], jax.Array]


class Behaviour(NamedTuple):
    """What an episode is characterised by: `gather` follows its steps, `describe` makes the descriptor of them.

    Attributes:
      gather: over the steps of one episode.
      describe: `(gathered, length) -> [D]`; length int32, the episode's steps.
    """

    gather: Gather
    describe: Callable[[Any, jax.Array], jax.Array]


def final(feature: Feature) -> Behaviour:
    """The feature at the episode's last step: where a robot ended up, for instance."""
    return Behaviour(Gather(lambda m: jnp.zeros_like(_seen(feature, m)), lambda _, m: _seen(feature, m)), _as_is)


def average(feature: Feature) -> Behaviour:
    """The feature's mean over the episode's steps: how often each foot touches the ground, for instance."""

    def add(total: jax.Array, moment: Moment) -> jax.Array:
        return total + _seen(feature, moment)

    gather = Gather(lambda m: jnp.zeros_like(_seen(feature, m)), add)
    return Behaviour(gather, lambda total, length: total / jnp.maximum(length, 1))


def trace(feature: Feature, num: int, every: int = 1) -> Behaviour:
    """The feature after steps 1, 1 + every, …, `num` of them, one after the other: [num * D].

    An episode that ends earlier stays where it ended, so that traces of different lengths can be compared.

    Raises:
      ValueError: for numbers below 1.
    """
    if num < 1 or every < 1:
        raise ValueError(f"num = {num}, every = {every}: expected numbers of steps, at least 1")

    def init(moment: Moment) -> tuple[jax.Array, jax.Array]:
        empty = jnp.zeros_like(_seen(feature, moment))
        return jnp.zeros((num, *empty.shape)), empty

    def add(gathered: tuple[jax.Array, jax.Array], moment: Moment) -> tuple[jax.Array, jax.Array]:
        seen = _seen(feature, moment)
        row = jnp.where(moment.time % every == 0, moment.time // every, num)
        return gathered[0].at[row].set(seen, mode="drop"), seen

    def describe(gathered: tuple[jax.Array, jax.Array], length: jax.Array) -> jax.Array:
        rows, last = gathered
        reached = jnp.arange(num) * every < length
        return jnp.where(reached[:, None], rows, last).ravel()

    return Behaviour(Gather(init, add), describe)


def _as_is(gathered: jax.Array, length: jax.Array) -> jax.Array:
    return gathered


def _seen(feature: Feature, moment: Moment) -> jax.Array:
    return jnp.atleast_1d(jnp.asarray(feature(moment), jnp.float32))


class ObsSums(NamedTuple):
    """Sums over the observations acted on: their number, themselves and their squares, of the shape of one."""

    num: jax.Array
    total: jax.Array
    squares: jax.Array


def obs_sums() -> Gather:
    """`ObsSums` of an episode; what follows its end is not counted."""

    def init(moment: Moment) -> ObsSums:
        zeros = jnp.zeros(jnp.shape(moment.obs))
        return ObsSums(jnp.float32(0.0), zeros, zeros)

    def add(sums: ObsSums, moment: Moment) -> ObsSums:
        obs = jnp.asarray(moment.obs, jnp.float32)
        return ObsSums(sums.num + 1.0, sums.total + obs, sums.squares + jnp.square(obs))

    return Gather(init, add)


class Experience(NamedTuple):
    """All transitions of an evaluation, leaves [max_steps, num_episodes, …], and which of them were played, bool."""

    transitions: Transition
    played: jax.Array


def episodes(  # noqa: PLR0913 - who plays, where, how long, and what is wanted of it
    agent: Agent,
    env: Environment,
    env_params: Any,
    num_episodes: int = 1,
    max_steps: int = 100_000,
    *,
    as_state: Callable[[Params], Any] = lambda params: params,
    behaviour: Behaviour | None = None,
    gather: Gather | None = None,
    explore: bool = False,
    keep_transitions: bool = False,
) -> Callable[[Key, Key, Params], Evaluation]:
    """The evaluation of one individual, as `evolve` takes it; under `vmap` that of a population.

    Everything is drawn from the key that a group shares, so its members meet the same episodes. With exploration, what
    the policy draws is of that key, too.

    Args:
      agent: plays, with `as_state(params)` as its state; only its `act` and `memory` are used.
      env, env_params: of one instance, without automatic resets.
      num_episodes: per individual, side by side; static.
      max_steps: after which an episode is cut; may be traced unless transitions are kept.
      as_state: makes parameters the agent's state.
      behaviour: what the descriptor is, the mean over episodes; `None` leaves it `()`.
      gather: what else is made of the steps, summed over episodes, as `Evaluation.gathered`.
      explore: sample actions instead of taking the mode.
      keep_transitions: `Evaluation.gathered` is (what `gather` made, `Experience`): memory grows with `max_steps`.
    Returns:
      `(key, own_key, params) -> Evaluation`: the mean undiscounted return as fitness, and the steps that were played;
      those that ended episodes run on while others last do not count.
    Raises:
      ValueError: for numbers of episodes or steps below 1.
    """
    if num_episodes < 1 or (isinstance(max_steps, int) and max_steps < 1):
        raise ValueError(f"num_episodes = {num_episodes}, max_steps = {max_steps}: expected at least 1")
    both = _both(behaviour, gather)
    describe = None if behaviour is None else behaviour.describe

    def play(key: Key, own_key: Key, params: Params) -> Evaluation:
        asked = (key, agent, as_state(params), env, env_params, num_episodes, max_steps, explore, both)
        kept: Any = ()
        if keep_transitions:
            result, rows, played = evaluate_transitions(*asked)
            kept = Experience(rows, played)
        else:
            result = evaluate(*asked)
        followed, sums = result.gathered if both is not None else ((), ())
        descriptor: Any = ()
        if describe is not None:
            descriptor = jax.vmap(describe)(followed, result.lengths).mean(0)
        sums = jax.tree.map(lambda leaf: leaf.sum(0), sums)
        steps = result.lengths.sum().astype(jnp.float32)
        return Evaluation(result.returns.mean(), descriptor, steps, (sums, kept) if keep_transitions else sums)

    return play


def _both(behaviour: Behaviour | None, gather: Gather | None) -> Gather | None:
    if behaviour is None and gather is None:
        return None
    nothing = Gather(lambda moment: (), lambda gathered, moment: ())
    first, second = nothing if behaviour is None else behaviour.gather, gather or nothing

    def add(gathered: Any, moment: Moment) -> Any:
        return first.add(gathered[0], moment), second.add(gathered[1], moment)

    return Gather(lambda moment: (first.init(moment), second.init(moment)), add)
