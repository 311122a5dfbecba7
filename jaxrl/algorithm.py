"""The core: a learner is a pair of pure functions, and one scan runs them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.types import Key, Metrics, Step

State = Any
_EVALUATION = 0x65766131  # folded into a step's key for its evaluation; larger than any count of keys split from it


class Algorithm(NamedTuple):
    """A learner.

    Attributes:
      init: `(key) -> State`.
      step: `(key, State, t) -> (State, Metrics)`: one update, collection included. `t` is the update's index, a
        scalar that `vmap` never batches: whatever happens every k-th update branches on it.
    """

    init: Callable[[Key], State]
    step: Callable[[Key, State, Step], tuple[State, Metrics]]


def init(key: Key, algorithm: Algorithm) -> State:
    """The state that `train` starts from with the same key."""
    return algorithm.init(_keys(key)[0])


def train(
    key: Key,
    algorithm: Algorithm,
    num_steps: int,
    state: State = None,
    start: Step | int = 0,
    stop: Step | int | None = None,
) -> tuple[State, Metrics]:
    """Runs updates `start` … `start + num_steps - 1` in one scan.

    Update t draws its randomness from `fold_in(key, t)`, so n updates and then m more, from the state that the first
    call returned and with the same key, equal n + m updates bit for bit.

    Args:
      key: the run's, the same for every chunk of a run.
      algorithm: what to train.
      num_steps: static, the length of the scan.
      state: from an earlier call; `None` begins.
      start: index of the first update; may be traced.
      stop: updates from this index on are skipped, so that a shorter last chunk needs no second compilation.
    Returns:
      The state, and the metrics with leaves [num_steps]; rows of skipped updates are zero.
    """
    key_init, key_steps = _keys(key)
    if state is None:
        state = algorithm.init(key_init)

    def body(state: State, t: Step) -> tuple[State, Metrics]:
        key_step = jax.random.fold_in(key_steps, t)
        if stop is None:
            return algorithm.step(key_step, state, t)
        shapes = jax.eval_shape(algorithm.step, key_step, state, t)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(t < stop, lambda: algorithm.step(key_step, state, t), lambda: (state, zeros))

    return jax.lax.scan(body, state, jnp.arange(num_steps) + start)


def sweep(
    make: Callable[[Any], Algorithm],
    hparams: Any,
    keys: Key,
    num_steps: int,
    state: State = None,
    start: Step | int = 0,
) -> tuple[State, Metrics]:
    """Trains every setting with every seed, in one program.

    Args:
      make: `(hparams) -> Algorithm`, called under tracing.
      hparams: pytree, leaves [H].
      keys: [S]; every setting sees the same seeds.
      num_steps, state, start: as in `train`; leaves of `state` [H, S, …].
    Returns:
      State and metrics, leaves [H, S, …] and [H, S, num_steps].
    """

    def run(key: Key, hp: Any, state: State) -> tuple[State, Metrics]:
        return train(key, make(hp), num_steps, state, start)

    return jax.vmap(jax.vmap(run, (0, None, 0)), (None, 0, 0))(keys, hparams, state)


def with_evaluation(
    algorithm: Algorithm,
    evaluate: Callable[[Key, State], Metrics],
    every: int | Callable[[Step], jax.Array],
    prefix: str = "evaluation",
) -> Algorithm:
    """Evaluates after every k-th update; on the others the metrics are NaN. What is learnt stays the same.

    Args:
      algorithm: what trains.
      evaluate: `(key, state) -> {name: scalar}`, pure.
      every: updates between evaluations, >= 1, the first after update `every - 1`; or `t -> bool`, is one due?
      prefix: put before the names.
    Raises:
      ValueError: if `every` is below 1.
    """
    if isinstance(every, int) and every < 1:
        raise ValueError(f"with_evaluation needs every >= 1, got {every}")

    def step(key: Key, state: State, t: Step) -> tuple[State, Metrics]:
        # The step keeps its own key, so that asking for evaluations changes nothing of what is learnt.
        key_evaluate = jax.random.fold_in(key, _EVALUATION)
        state, metrics = algorithm.step(key, state, t)
        shapes = jax.eval_shape(evaluate, key_evaluate, state)
        blank = {name: jnp.full(leaf.shape, jnp.nan) for name, leaf in shapes.items()}

        def measured() -> Metrics:
            return {name: value.astype(jnp.float32) for name, value in evaluate(key_evaluate, state).items()}

        due = every(t) if callable(every) else (t + 1) % every == 0
        results = jax.lax.cond(due, measured, lambda: blank)
        return state, metrics | {f"{prefix}/{name}": value for name, value in results.items()}

    return Algorithm(algorithm.init, step)


def _keys(key: Key) -> tuple[Key, Key]:
    key_init, key_steps = jax.random.split(key)
    return key_init, key_steps
