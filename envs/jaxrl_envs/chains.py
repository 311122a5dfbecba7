"""Delayed chains: the first action decides what the last step pays, and nothing else matters.

How far apart the two are, and which first action is right, is part of the parameters: drawn once, kept for an agent's
whole lifetime (`sample_chain`). The optimal return is 1, that of uniform actions 0, noise or not.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Key, Timestep


@struct.dataclass
class ChainParams:
    """One chain; traced.

    Attributes:
      length: int32, steps of an episode, from 2 to the variant's longest.
      correct: int32, the first action, 0 or 1, that ends in +1; the other ends in -1.
    """

    length: jax.Array | int
    correct: jax.Array | int


@struct.dataclass
class ChainState:
    """Steps since the reset, the first action (0 until it is known), int32; the random bits observed, or `()`."""

    time: jax.Array
    first_action: jax.Array
    bits: jax.Array | tuple[()]


@dataclasses.dataclass(frozen=True)
class DelayedChain:
    """A family of chains. Two actions; the reward comes at the last step, which terminates.

    Observed is one of `1 + 2 * max_length` states: 0 at first, then `1 + first_action * max_length + time - 1`. With
    distracting bits it is, instead, a vector of 0 and 1: whether this is the first step, the first action, and bits
    that are random at every step; the time is not seen.

    Args:
      min_length, max_length: of an episode, in steps; lengths are drawn uniformly from these, ends included.
      noisy: every step but the last pays -1 or 1 at random.
      num_distractors: random bits in the observation; 0 for none and the index.

    References:
      Oh et al. 2020, arXiv:2007.08794, appendix A.3. Differs: published re-implementations disagree on what is
      observed; the convention here is ours.
    """

    min_length: int
    max_length: int
    noisy: bool = False
    num_distractors: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.min_length <= self.max_length or self.num_distractors < 0:
            raise ValueError(
                "DelayedChain needs 2 <= min_length <= max_length and num_distractors >= 0, "
                f"got {self.min_length}, {self.max_length} and {self.num_distractors}"
            )

    @property
    def default_params(self) -> ChainParams:
        """The longest chain, on which the second action is right."""
        return ChainParams(self.max_length, 1)

    def sample_params(self, key: Key) -> ChainParams:
        """Length and correct first action of one lifetime, both uniform: levels of meta-training."""
        return sample_chain(key, self)

    def reset(self, key: Key, params: ChainParams) -> tuple[ChainState, jax.Array]:
        """A first state and its observation."""
        del params
        bits = jax.random.bernoulli(key, shape=(self.num_distractors,)) if self.num_distractors else ()
        state = ChainState(jnp.int32(0), jnp.int32(0), bits)
        return state, self._observe(state)

    def step(self, key: Key, state: ChainState, action: jax.Array, params: ChainParams) -> tuple[ChainState, Timestep]:
        """The next state, and what the agent sees of it."""
        coins = jax.random.bernoulli(key, shape=(1 + self.num_distractors,))
        time = state.time + 1
        first_action = jnp.where(state.time == 0, jnp.asarray(action, jnp.int32), state.first_action)
        state = ChainState(time, first_action, coins[1:] if self.num_distractors else ())
        is_last = time >= params.length
        between = jnp.where(coins[0], 1.0, -1.0) if self.noisy else 0.0
        reward = jnp.where(is_last, jnp.where(first_action == params.correct, 1.0, -1.0), between)
        obs, reward = self._observe(state), reward.astype(jnp.float32)
        return state, Timestep(obs, reward, is_last, jnp.array(False), final_obs=obs, info={})

    def observation_space(self, params: ChainParams) -> Space:
        """Discrete, or with distractors a Box of zeros and ones."""
        del params
        if self.num_distractors:
            return Box(0.0, 1.0, (2 + self.num_distractors,))
        return Discrete(1 + 2 * self.max_length)

    def action_space(self, params: ChainParams) -> Space:
        """Two actions."""
        del params
        return Discrete(2)

    def _observe(self, state: ChainState) -> jax.Array:
        if self.num_distractors:
            informative = jnp.stack([state.time == 0, state.first_action == 1])
            return jnp.concatenate([informative, jnp.asarray(state.bits)]).astype(jnp.float32)
        time = jnp.minimum(state.time, self.max_length)  # raw environments go on past their end
        return jnp.where(time == 0, 0, state.first_action * self.max_length + time).astype(jnp.int32)


VARIANTS: dict[str, DelayedChain] = {
    "short": DelayedChain(5, 30),
    "short_noisy": DelayedChain(5, 30, noisy=True),
    "long": DelayedChain(5, 50),
    "long_noisy": DelayedChain(5, 50, noisy=True),
    "distractor": DelayedChain(5, 30, num_distractors=20),
}


def chain(variant: str) -> DelayedChain:
    """A variant by its name.

    Raises:
      ValueError: if it is not in `VARIANTS`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def sample_chain(key: Key, variant: str | DelayedChain) -> ChainParams:
    """Length and correct first action of one lifetime, both uniform.

    Args:
      key: consumed.
      variant: a name in `VARIANTS`, or your own; static.
    """
    family = chain(variant) if isinstance(variant, str) else variant
    key_length, key_correct = jax.random.split(key)
    length = jax.random.randint(key_length, (), family.min_length, family.max_length + 1, jnp.int32)
    return ChainParams(length, jax.random.randint(key_correct, (), 0, 2, jnp.int32))
