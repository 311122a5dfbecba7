"""Advantage actor-critic."""

from __future__ import annotations

from typing import Any

from jaxrl.objectives.common import gae_advantage
from jaxrl.objectives.host import Slots, assemble, score
from jaxrl.types import Objective


def a2c_objective(hp: Any, normalize_advantage: str = "none") -> Objective:
    """Policy gradient with advantage estimates, a value loss and an entropy bonus.

    Args:
      hp: has `gamma`, `gae_lambda`, `vf_coef`, `ent_coef`; numbers, may be traced.
      normalize_advantage: "minibatch", "batch" or "none".
    References:
      Mnih et al. 2016, arXiv:1602.01783; sec. 4 with GAE in the place of n-step returns (gae_lambda = 1).
    """
    return assemble(hp, Slots(gae_advantage(hp), ratio=score), normalize_advantage)
