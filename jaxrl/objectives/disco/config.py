"""What Disco103 is made of: its sizes and numbers, and the data that it reads."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
from flax import struct

from jaxrl.ops.distributions import Categorical


@dataclasses.dataclass(frozen=True)
class DiscoConfig:
    """Sizes and numbers of the rule; the defaults are those that the published weights were found with.

    Attributes:
      prediction_size: P, width of the predictions y and z.
      num_bins: of the categorical action value.
      max_abs_value: of the outermost bins, in transformed units.
      core_size: width of the recurrent core over a trajectory.
      lifetime_size: width of the recurrent core over updates.
      embedding_size: hidden width of what turns a prediction into a number, and of what the lifetime's core reads.
      action_embedding: widths of the two layers over per-action features.
      policy_size: hidden width of the policy target.
      gamma, trace_lambda: discount and trace decay of the action value's targets.
      target_decay: per update, of the moving average of the agent's parameters.
      moment_decay, moment_eps: of the moving moments that normalise advantages.
      pi_coef, y_coef, z_coef, aux_pi_coef, q_coef: weights of the five losses.

    References:
      Oh et al. 2025, doi:10.1038/s41586-025-09761-x; github.com/google-deepmind/disco_rl, agent.py.
    """

    prediction_size: int = 600
    num_bins: int = 601
    max_abs_value: float = 300.0
    core_size: int = 256
    lifetime_size: int = 128
    embedding_size: int = 16
    action_embedding: tuple[int, int] = (16, 2)
    policy_size: int = 16
    gamma: float = 0.997
    trace_lambda: float = 0.95
    target_decay: float = 0.9
    moment_decay: float = 0.99
    moment_eps: float = 1e-6
    pi_coef: float = 1.0
    y_coef: float = 1.0
    z_coef: float = 1.0
    aux_pi_coef: float = 1.0
    q_coef: float = 0.2

    def __post_init__(self) -> None:
        for name in (
            "prediction_size", "core_size", "lifetime_size", "embedding_size", "action_embedding", "policy_size"
        ):  # fmt: skip
            widths = getattr(self, name)
            if min(widths if isinstance(widths, tuple) else (widths,)) < 1:
                raise ValueError(f"{name} = {widths}: expected widths >= 1")
        if self.num_bins < 2 or self.max_abs_value <= 0.0:
            raise ValueError(
                f"num_bins = {self.num_bins}, max_abs_value = {self.max_abs_value}: "
                "expected at least 2 bins between -max_abs_value and a positive max_abs_value"
            )
        for name in ("gamma", "trace_lambda", "target_decay"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected a number in [0, 1]")
        if not 0.0 <= self.moment_decay < 1.0:
            raise ValueError(f"moment_decay = {self.moment_decay}: expected a number in [0, 1), as 0.99")


class Predictions(NamedTuple):
    """What an agent under this rule puts out; logits all.

    Attributes:
      pi: [..., A], the policy.
      y: [..., P], a prediction without a meaning of its own.
      z: [..., A, P], the same after each action.
      aux_pi: [..., A, A], the next policy after each action.
      q: [..., A, num_bins], the value of each action.
    """

    pi: jax.Array
    y: jax.Array
    z: jax.Array
    aux_pi: jax.Array
    q: jax.Array

    @classmethod
    def of(cls, outputs: dict[str, Any]) -> Predictions:
        """From the outputs of an actor-critic."""
        policy: Categorical = outputs["policy"]
        return cls(policy.logits, outputs["y"], outputs["z"], outputs["aux_pi"], outputs["q"])


class Trajectory(NamedTuple):
    """What one update is computed from, leaves [T, B, …].

    Attributes:
      online, next_online: predictions at `obs` and at the true successor, where the episode ended too.
      target, next_target: the same of the moving average of the agent's parameters.
      behaviour: [T, B, A], logits of the policy that acted.
      action, reward, terminated, truncated: as in `Rollout`.
    """

    online: Predictions
    next_online: Predictions
    target: Predictions
    next_target: Predictions
    behaviour: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


@struct.dataclass
class MovingMoments:
    """Exponential moving averages of a number and of its square, from 0; `decay_product` tells how far they are."""

    mean: jax.Array
    square: jax.Array
    decay_product: jax.Array


@struct.dataclass
class DiscoState:
    """What the rule remembers from update to update.

    Attributes:
      hidden, cell: [lifetime_size], of the recurrent core over updates.
      advantage, td: moments of the advantage and of the action value's error.
    """

    hidden: jax.Array
    cell: jax.Array
    advantage: MovingMoments
    td: MovingMoments


class DiscoTargets(NamedTuple):
    """Targets of one sample or many, leaves [...].

    Attributes:
      action: as sampled.
      pi, y, z: [..., A], [..., P], [..., P], logits, the meta-network's.
      next_pi: [..., A], logits of the policy at the successor.
      continues: 0 where the episode terminated, else 1.
      q: the action value's target, reward units.
      normalized_td: its error, over the root of its moving square; for metrics.
    """

    action: jax.Array
    pi: jax.Array
    y: jax.Array
    z: jax.Array
    next_pi: jax.Array
    continues: jax.Array
    q: jax.Array
    normalized_td: jax.Array
