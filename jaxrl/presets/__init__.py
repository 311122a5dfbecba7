"""Ready-made algorithms: a configuration, its numbers, and fifteen lines that wire the parts together."""

from __future__ import annotations

from jaxrl.presets import on_policy
from jaxrl.presets.base import Preset
from jaxrl.presets.on_policy import PPOConfig, PPOHparams, a2c, on_policy_agent, ppo
from jaxrl.settings import suggest

PRESETS: dict[str, Preset] = {**on_policy.PRESETS}

__all__ = ["PRESETS", "PPOConfig", "PPOHparams", "Preset", "a2c", "find_preset", "on_policy_agent", "ppo"]


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
      ValueError: if there is none, with the nearest names.
    """
    if name not in PRESETS:
        raise ValueError(suggest("algorithm", name, PRESETS, "`jaxrl list algorithms` shows all"))
    return PRESETS[name]
