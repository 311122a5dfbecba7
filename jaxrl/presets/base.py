"""What every ready-made algorithm is described by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl.algorithm import Algorithm
from jaxrl.types import Agent


class Preset(NamedTuple):
    """An algorithm that is known by name.

    Attributes:
      summary, reference: one line each.
      config, hparams: the defaults, instances of its two dataclasses.
      agent: `(env, config, hparams, env_params) -> Agent`; raises ValueError where the environment does not fit.
      make: `(env, config, hparams, env_params) -> Algorithm`, whose state has the agent's as `agent`.
      overrides: `{environment family: {setting: value}}`, published settings that suit a family better.
    """

    summary: str
    reference: str
    config: Any
    hparams: Any
    agent: Callable[..., Agent]
    make: Callable[..., Algorithm]
    overrides: dict[str, dict[str, Any]]
