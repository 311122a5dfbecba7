"""What an agent that is told descriptors learns from: transitions with what was achieved and what was asked."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.evo.episodes import Experience
from jaxrl.settings import check_at_least, check_choice
from jaxrl.types import Evaluation, Sample, Transition

COMMANDS = ("parent", "own")
NEGATIVES = ("none", "reversed")


@dataclasses.dataclass(frozen=True)
class PolicyGradientSizes:
    """Static settings of `policy_gradient`.

    Attributes:
      num_pg: individuals of policy-gradient variation.
      num_injected: the actor as an individual, with descriptors of the archive as its commands.
      num_probes: the same, evaluated to learn from and not offered to the archive.
      num_agent_updates: per iteration.
      num_pg_steps: of each parent.
      batch_size: transitions per update and step.
      buffer_size: transitions that are remembered.
      conditioned: is the agent told descriptors? Otherwise commands have no numbers, and rewards are as they are.
      pg_command: of the experience of policy-gradient offspring: their "parent"'s descriptor, or their "own".
      negatives: "reversed" learns from each batch a second time, with others' achieved descriptors as commands.
      mask_truncated: leave truncated transitions out of the critics' loss instead of bootstrapping from them.
      drop_repeated: leave out those that fill up the buffer after an episode's end (see `policy_gradient`).
    """

    num_pg: int = 64
    num_injected: int = 64
    num_probes: int = 0
    num_agent_updates: int = 3000
    num_pg_steps: int = 150
    batch_size: int = 100
    buffer_size: int = 1_000_000
    conditioned: bool = True
    pg_command: str = "parent"
    negatives: str = "none"
    mask_truncated: bool = True
    drop_repeated: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 0, "num_pg", "num_injected", "num_probes", "num_pg_steps")
        check_at_least(self, 1, "num_agent_updates", "batch_size", "buffer_size")
        check_choice("pg_command", self.pg_command, COMMANDS)
        check_choice("negatives", self.negatives, NEGATIVES)


class PolicyGradientNumbers(NamedTuple):
    """The numbers of `policy_gradient`; each may be traced.

    Attributes:
      learning_rate: of the steps of policy-gradient variation, Adam's.
      length_scale: L of the similarity `exp(-|d - d'| / L)`, of descriptors scaled to [-1, 1].
      probe_sigma: deviation of what is added to probes' commands, of descriptors scaled to [-1, 1].
      gamma: discount factor.
    """

    learning_rate: Any = 5e-3
    length_scale: Any = 0.1
    probe_sigma: Any = 0.0
    gamma: Any = 0.99


def scaled(descriptors: jax.Array, low: Any, high: Any) -> jax.Array:
    """Descriptors [..., D] as networks see them: bounds at -1 and 1."""
    return 2.0 * (descriptors - low) / (high - low) - 1.0


def similarity(achieved: jax.Array, command: jax.Array, length_scale: jax.Array | float) -> jax.Array:
    """`exp(-|d - d'| / L)` in (0, 1] of [..., K] and [..., K]; 1 where they agree, or have no numbers.

    References:
      Faldor et al. 2023, arXiv:2303.03832, eq. 3.
    """
    return jnp.exp(-jnp.sqrt(jnp.square(achieved - command).sum(-1)) / length_scale)


def labelled(evaluation: Evaluation, achieved: jax.Array, command: jax.Array, sizes: PolicyGradientSizes) -> Transition:
    """All transitions of an evaluation as the buffer keeps them, leaves [M, 1, …].

    Args:
      evaluation: of N individuals, with their `Experience`, leaves [N, T, E, …].
      achieved, command: [N, K].
      sizes: which transitions have no weight.
    Returns:
      `obs` is a dict: "obs", "achieved", "command" and "weight".
    """
    experience = _experience(evaluation)
    rows, played = experience.transitions, experience.played
    length = jnp.maximum(played.sum(1, keepdims=True), 1)
    again = jnp.arange(played.shape[1])[None, :, None] % length

    def repeat(leaf: jax.Array) -> jax.Array:
        return jnp.take_along_axis(leaf, again.reshape(*again.shape, *[1] * (leaf.ndim - 3)), axis=1)

    rows = jax.tree.map(repeat, rows)
    # Rewards scaled by a similarity must not be negative: it would pay to miss.
    reward = jnp.maximum(rows.reward, 0.0) if sizes.conditioned else rows.reward
    weight = jnp.ones(played.shape)
    if sizes.mask_truncated:
        weight = jnp.where(rows.truncated & ~rows.terminated, 0.0, weight)
    if sizes.drop_repeated:
        weight = jnp.where(played, weight, 0.0)

    def along(values: jax.Array) -> jax.Array:
        return jnp.broadcast_to(values[:, None, None], (*played.shape, values.shape[-1]))

    obs = {"obs": rows.obs, "achieved": along(achieved), "command": along(command), "weight": weight}
    kept = rows._replace(obs=obs, reward=reward)
    return jax.tree.map(lambda leaf: leaf.reshape(played.size, 1, *leaf.shape[3:]), kept)


def told(sample: Sample, sizes: PolicyGradientSizes, hp: PolicyGradientNumbers) -> Sample:
    """What the agent learns from: observations that are told, rewards times similarity."""
    kept = sample.obs
    command = kept["command"]
    if sizes.negatives == "reversed":
        sample = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), sample)
        command = jnp.concatenate([command, kept["achieved"][::-1]])
        kept = sample.obs
    return sample._replace(
        obs=followed_by(kept["obs"], command),
        final_obs=followed_by(sample.final_obs, command),
        reward=sample.reward * similarity(kept["achieved"], command, hp.length_scale),
        weight=kept["weight"],
    )


def followed_by(obs: jax.Array, command: jax.Array) -> jax.Array:
    """[N, o] and [N, K] -> [N, o + K]."""
    return jnp.concatenate([obs.astype(jnp.float32), command], -1)


def _experience(evaluation: Evaluation) -> Experience:
    gathered = evaluation.gathered
    if not (isinstance(gathered, tuple) and len(gathered) == 2 and isinstance(gathered[1], Experience)):
        raise ValueError(
            "the policy-gradient emitter learns from transitions: evaluate with `episodes(…, keep_transitions=True)`"
        )
    return gathered[1]
