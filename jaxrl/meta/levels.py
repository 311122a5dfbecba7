"""Where lifetimes get their levels: level samplers, pure functions over a state of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.types import Key

PRIORITIES = ("rank", "topk")
_UNSCORED = -1e30  # lower than any score, and finite: whoever looks for NaN and infinity in a state shall find none


class LevelSampler(NamedTuple):
    """A source of levels for L slots, in each of which one lifetime runs.

    Slots are named by their numbers; a number of L or more is padding, whose row is drawn but never used.

    Attributes:
      init: `(key) -> state`.
      sample: `(key, state, slots [C]) -> (levels [C], state)`: a level for the next lifetime in each of these slots.
      update: `(state, slots [C], scores [C]) -> state`: their lifetimes have ended, with these scores.
    """

    init: Callable[[Key], Any]
    sample: Callable[[Key, Any, jax.Array], tuple[Any, Any]]
    update: Callable[[Any, jax.Array, jax.Array], Any]


def uniform_levels(sample_level: Callable[[Key], Any]) -> LevelSampler:
    """Domain randomisation: every lifetime gets a new level of the distribution, whatever the scores."""

    def sample(key: Key, state: Any, slots: jax.Array) -> tuple[Any, Any]:
        return jax.vmap(sample_level)(jax.random.split(key, len(slots))), state

    return LevelSampler(lambda key: (), sample, lambda state, slots, scores: state)


def fixed_levels(levels: Any) -> LevelSampler:
    """Every lifetime gets one of a finite set of levels, leaves [M, …], uniformly."""
    num = jax.tree.leaves(levels)[0].shape[0]

    def sample(key: Key, state: Any, slots: jax.Array) -> tuple[Any, Any]:
        index = jax.random.randint(key, slots.shape, 0, num)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], levels), state

    return LevelSampler(lambda key: (), sample, lambda state, slots, scores: state)


def frozen_levels(sample_level: Callable[[Key], Any], num_levels: int) -> LevelSampler:
    """As `fixed_levels`, of `num_levels` levels that are drawn once, at the beginning."""

    def init(key: Key) -> Any:
        return jax.vmap(sample_level)(jax.random.split(key, num_levels))

    def sample(key: Key, levels: Any, slots: jax.Array) -> tuple[Any, Any]:
        return fixed_levels(levels).sample(key, (), slots)[0], levels

    return LevelSampler(init, sample, lambda state, slots, scores: state)


@struct.dataclass
class LevelBuffer:
    """State of `replay_levels`, leaves [M, …].

    Attributes:
      levels: as the distribution gives them.
      score: float32, of the last lifetime there; -1e30 where there is none yet.
      active: bool, a lifetime runs on it.
      new: bool, it has no score yet.
      drawn: int32, the value of `clock` when it was last drawn.
      clock: int32 scalar, draws so far.
      place: [L] int32, the place of each slot's level.
    """

    levels: Any
    score: jax.Array
    active: jax.Array
    new: jax.Array
    drawn: jax.Array
    clock: jax.Array
    place: jax.Array


def replay_levels(
    sample_level: Callable[[Key], Any], num_slots: int, num_levels: int, hp: Any, priority: str = "rank"
) -> LevelSampler:
    """Prioritised level replay: lifetimes go back to levels with high scores, or on to new levels.

    With probability `hp.replay_probability` a lifetime gets a level that has a score and on which no other runs, as
    soon as there are L of these; else a new one, which takes the place of the lowest score where no lifetime runs.
    Levels are drawn without replacement,

    - "rank": with weights `(1 - s) rank^(-1/temperature) / sum + s age / sum`, where s is `hp.staleness_coef` and an
      age is the draws since the level was last drawn. Equal scores have equal ranks.
    - "topk": the highest scores, which is what the GROOVE release does under the name of rank.

    Args:
      sample_level: `(key) -> level`.
      num_slots: L.
      num_levels: M, places of the buffer; at least 2 L.
      hp: has `replay_probability`, `score_temperature`, `staleness_coef`; numbers, may be traced.
      priority: "rank" or "topk".
    Raises:
      ValueError: for too few places, or another priority.
    References:
      Jiang et al. 2021, arXiv:2010.03934; Jackson et al. 2023, arXiv:2310.02782, sec. 3.2. Differs: the release keeps L
      unplayed levels in its buffer and draws new ones from them; here they are made when they are needed.
    """
    if num_levels < 2 * num_slots:
        raise ValueError(
            f"num_levels = {num_levels}: a buffer for {num_slots} lifetimes needs at least {2 * num_slots} places"
        )
    if priority not in PRIORITIES:
        raise ValueError(f"priority = {priority!r}: expected one of {', '.join(PRIORITIES)}")

    def init(key: Key) -> LevelBuffer:
        level = jax.eval_shape(sample_level, key)
        none = jnp.zeros(num_levels, bool)
        return LevelBuffer(
            levels=jax.tree.map(lambda leaf: jnp.zeros((num_levels, *leaf.shape), leaf.dtype), level),
            score=jnp.full(num_levels, _UNSCORED),
            active=none,
            new=~none,
            drawn=jnp.zeros(num_levels, jnp.int32),
            clock=jnp.int32(0),
            place=jnp.full(num_slots, num_levels, jnp.int32),
        )

    def sample(key: Key, state: LevelBuffer, slots: jax.Array) -> tuple[Any, LevelBuffer]:
        key_coin, key_replay, key_new = jax.random.split(key, 3)
        size = len(slots)
        real = slots < num_slots
        free = ~state.active & ~state.new
        replayed = real & jax.random.bernoulli(key_coin, hp.replay_probability, (size,)) & (free.sum() >= num_slots)
        again = _highest(_priorities(key_replay, state, free, hp, priority), size)
        taken = _set(state.active, jnp.where(replayed, again, num_levels), True)
        # What has never been filled counts as the lowest score, and what is taken as the highest.
        fresh = _highest(jnp.where(taken, -jnp.inf, -jnp.maximum(state.score, _UNSCORED)), size)
        place = jnp.where(replayed, again, fresh).astype(jnp.int32)
        written = jnp.where(real & ~replayed, fresh, num_levels)
        made = jax.vmap(sample_level)(jax.random.split(key_new, size))
        levels = jax.tree.map(lambda leaf, rows: _set(leaf, written, rows), state.levels, made)
        used = jnp.where(real, place, num_levels)
        state = LevelBuffer(
            levels=levels,
            score=_set(state.score, written, _UNSCORED),
            active=_set(state.active, used, True),
            new=_set(state.new, written, True),
            drawn=_set(state.drawn, used, state.clock),
            clock=state.clock + 1,
            place=state.place.at[slots].set(place, mode="drop"),
        )
        return jax.tree.map(lambda leaf: leaf[place], levels), state

    def update(state: LevelBuffer, slots: jax.Array, scores: jax.Array) -> LevelBuffer:
        place = state.place.at[slots].get(mode="fill", fill_value=num_levels)
        return dataclasses.replace(
            state,
            score=_set(state.score, place, scores),
            active=_set(state.active, place, False),
            new=_set(state.new, place, False),
        )

    return LevelSampler(init, sample, update)


def _priorities(key: Key, state: LevelBuffer, free: jax.Array, hp: Any, priority: str) -> jax.Array:
    """[M]: the C highest are a draw of C levels among those that are `free`; -inf elsewhere."""
    score = jnp.where(free, state.score, -jnp.inf)
    if priority == "topk":
        return score
    ordered = jnp.sort(-score)
    rank = 1.0 + jnp.searchsorted(ordered, -score, side="left")  # as many as have a higher score, and one
    by_rank = jnp.where(free, -jnp.log(rank) / hp.score_temperature, -jnp.inf)
    by_age = jnp.where(free, jnp.log((state.clock - state.drawn).astype(jnp.float32)), -jnp.inf)

    def share(log_weight: jax.Array) -> jax.Array:
        total = jax.nn.logsumexp(log_weight)
        return jnp.where(jnp.isfinite(total), log_weight - total, -jnp.inf)

    log_weight = jnp.logaddexp(
        jnp.log(1.0 - hp.staleness_coef) + share(by_rank), jnp.log(hp.staleness_coef) + share(by_age)
    )
    # The highest of log weight + Gumbel noise are a draw without replacement, in proportion to the weights. In logs,
    # so that no free level's weight is rounded to nothing, and with it made equal to one that is not free.
    noise = jax.random.gumbel(key, log_weight.shape)
    return jnp.where(free, jnp.maximum(log_weight, -1e30) + noise, -jnp.inf)


def _highest(x: jax.Array, num: int) -> jax.Array:
    return jax.lax.top_k(x, num)[1]


def _set(x: jax.Array, index: jax.Array, rows: Any) -> jax.Array:
    """`x` with other rows at `index`; those out of range are left out."""
    return x.at[index].set(rows, mode="drop")
