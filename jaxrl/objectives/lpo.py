"""Learned policy optimisation: a drift that is a small network, which may know how much of the lifetime is over."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import gae_advantage, lifetime_fraction, scheduled
from jaxrl.objectives.host import Slots, assemble, log_importance_ratio
from jaxrl.objectives.ppo import clipped_surrogate, ppo_drift
from jaxrl.ops.statistics import weighted_mean
from jaxrl.settings import check_at_least, setting
from jaxrl.types import Key, Metrics, Objective, Params

NUM_FEATURES = 8
_LPO = "Lu et al. 2022, arXiv:2210.05639"
_TA = "Jackson et al. 2024, arXiv:2402.05828"


@dataclasses.dataclass(frozen=True)
class LPOConfig:
    """What fixes the shape and the form of a learned drift."""

    width: int = setting(128, "hidden units", _LPO)
    warm_start: bool = setting(True, "the network adds to PPO's drift: a network of zeros is PPO", _LPO)
    time_aware: bool = setting(False, "the network sees all features a second time, multiplied by n/N (TA-LPO)", _TA)
    xi: float = setting(1e-4, "taken off before the drift is cut at 0: flat around ratio 1", _LPO)
    clip_eps: float = setting(0.2, "half-width of the clip interval of PPO's drift, with warm_start", _LPO)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "width")
        for name in ("warm_start", "time_aware"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected true or false")
        for name in ("xi", "clip_eps"):
            value = getattr(self, name)
            if not (isinstance(value, float) and math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} = {value!r}: expected a finite number above 0, as in 1e-4")


def lpo_init(key: Key, config: LPOConfig = LPOConfig()) -> Params:
    """A network to evolve from: its hidden features are random, its output is 0 everywhere.

    Returns:
      `{"hidden": [F, width], "output": [width, 1]}`, float32; F is 8, time-aware 16, of which the first 8 rows are
      those without time. No biases: 1,152 and 2,176 parameters at width 128.
    """
    num_inputs = NUM_FEATURES * (2 if config.time_aware else 1)
    hidden = jax.nn.initializers.lecun_normal()(key, (num_inputs, config.width), jnp.float32)
    return {"hidden": hidden, "output": jnp.zeros((config.width, 1), jnp.float32)}


def lpo_features(log_ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    """`[1-r, (1-r)^2, log r, (log r)^2]` and the same four times A: [..., 8], all 0 at ratio 1."""
    lost = -jnp.expm1(log_ratio)
    of_ratio = jnp.stack([lost, jnp.square(lost), log_ratio, jnp.square(log_ratio)], axis=-1)
    return jnp.concatenate([of_ratio, of_ratio * jnp.asarray(advantage)[..., None]], axis=-1)


def lpo_drift(
    params: Params, config: LPOConfig, log_ratio: jax.Array, advantage: jax.Array, fraction: jax.Array | float
) -> jax.Array:
    """What a learned drift takes off `ratio * A`, per element: never negative, and flat at ratio 1.

    `relu(f(x) - xi)`, with `warm_start` `relu(ppo_drift + f(x) - xi)`; f is a tanh network without biases over
    `lpo_features`, time-aware over those and n/N times those. As every feature is 0 at ratio 1, so is f.

    Args:
      params: as from `lpo_init`; may be traced.
      config: of the rule.
      log_ratio: log r, of any shape, within ±20 as the host gives it.
      advantage: of the same shape, standardised.
      fraction: n/N in [0, 1), scalar or of the same shape; not looked at unless `time_aware`.
    References:
      Lu et al. 2022, arXiv:2210.05639; time features: Jackson et al. 2024, arXiv:2402.05828, eq. 10.
    """
    return jax.nn.relu(_excess(_learned(params, config, log_ratio, advantage, fraction), config, log_ratio, advantage))


def lpo_surrogate(
    params: Params, config: LPOConfig, log_ratio: jax.Array, advantage: jax.Array, fraction: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """`ratio A - lpo_drift`, per element, written so that nothing cancels where PPO would clip a large ratio.

    Args:
      params, config, log_ratio, advantage, fraction: as in `lpo_drift`.
    Returns:
      What is maximised, and where the drift is positive; both of the shape of `log_ratio`.
    """
    learned = _learned(params, config, log_ratio, advantage, fraction)
    held = _excess(learned, config, log_ratio, advantage) > 0.0
    ratio = jnp.exp(log_ratio)
    plain = ratio * advantage
    bounds = (1.0 - config.clip_eps, 1.0 + config.clip_eps)
    start = clipped_surrogate(ratio, advantage, bounds) if config.warm_start else plain
    return jnp.where(held, start - learned, plain), held


def lpo_objective(
    params: Params,
    config: LPOConfig,
    hp: Any,
    normalize_advantage: str = "minibatch",
    clip_value: bool = False,
) -> Objective:
    """`mean(ratio A - drift)` with a learned drift (LPO, TA-LPO), a value loss and an entropy bonus.

    The state is n/N. A rule that was learnt on standardised advantages expects them.

    Args:
      params: of the drift, as from `lpo_init` or a rule file; may be traced, to be evolved.
      config: of the rule.
      hp: has `gamma`, `gae_lambda`, `vf_coef`, `ent_coef`, and with `clip_value` also `clip_eps`, which is not the
        rule's; numbers, may be traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Lu et al. 2022, arXiv:2210.05639; Jackson et al. 2024, arXiv:2402.05828.
    """

    def clip(
        fraction: jax.Array, log_ratio: jax.Array, advantage: jax.Array, weight: jax.Array | None
    ) -> tuple[jax.Array, Metrics]:
        gain, held = lpo_surrogate(params, config, log_ratio, advantage, fraction)
        return gain, {"policy/drift_fraction": weighted_mean(held.astype(gain.dtype), weight)}

    slots = Slots(
        scheduled(gae_advantage(hp), lifetime_fraction),
        ratio=log_importance_ratio,
        clip=clip,
        init=lambda: jnp.float32(0.0),
    )
    return assemble(hp, slots, normalize_advantage, clip_value)


def _learned(params: Params, config: LPOConfig, log_ratio: jax.Array, advantage: jax.Array, fraction: Any) -> jax.Array:
    """f(x) - xi, [...]."""
    features = lpo_features(log_ratio, advantage)
    if config.time_aware:
        features = jnp.concatenate([features, jnp.asarray(fraction)[..., None] * features], axis=-1)
    return (jnp.tanh(features @ params["hidden"]) @ params["output"])[..., 0] - config.xi


def _excess(learned: jax.Array, config: LPOConfig, log_ratio: jax.Array, advantage: jax.Array) -> jax.Array:
    """The drift before it is cut at 0."""
    return learned + ppo_drift(log_ratio, advantage, config.clip_eps) if config.warm_start else learned
