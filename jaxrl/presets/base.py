"""What every ready-made algorithm is described by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.loops.on_policy import on_policy
from jaxrl.networks import ACTIVATIONS, TORSOS
from jaxrl.rules import Rule
from jaxrl.settings import check_choice
from jaxrl.types import Agent


class Preset(NamedTuple):
    """An algorithm that is known by name.

    Attributes:
      summary, reference: one line each.
      config, hparams: the defaults, instances of its two dataclasses.
      agent: `(env, config, hparams, env_params) -> Agent`; raises ValueError where the environment does not fit.
      make: `(env, config, hparams, env_params) -> Algorithm`, whose state has the agent's as `agent`.
      overrides: `{environment or its family: {setting: value}}`, published settings that suit it better.
      action_spaces: which it takes, for people to read.
      check: `(config, hparams)`, hparams of numbers: raises ValueError where they do not fit one another.
      rule: `(config, state) -> Rule`, without provenance, for algorithms that learn one; else `None`.
      champion: `(env, config, state) -> {"genome", "codec", "fitness"}` and "settings", those of the network, for
        algorithms whose policies are lists of seeds; else `None`.
      metric: what runs are judged by.
      horizon: `(config) -> steps` after which the algorithm itself cuts episodes, or `None`: its policies are evaluated
        and shown in episodes of that length.
      individual: `(env, config, env_params, state, descriptor [D]) -> (agent_state, text)`, for algorithms that fill an
        archive: who in it does about that, and which one that is, for people to read; else `None`.
      splits: whether several devices can share one run: `config` has `population_batch`, and `make` takes `spread`.
    """

    summary: str
    reference: str
    config: Any
    hparams: Any
    agent: Callable[..., Agent]
    make: Callable[..., Algorithm]
    overrides: dict[str, dict[str, Any]]
    action_spaces: str = "Discrete, MultiDiscrete, Box"
    check: Callable[[Any, Any], None] = lambda config, hp: None
    rule: Callable[[Any, Any], Rule] | None = None
    champion: Callable[[Environment, Any, Any], dict[str, Any]] | None = None
    metric: str = "episode/return"
    horizon: Callable[[Any], int | None] = lambda config: None
    individual: Callable[..., tuple[Any, str]] | None = None
    splits: bool = False


class OnPolicyLengths:
    """What follows from `total_steps`, `num_envs` and `num_steps` of an on-policy configuration."""

    total_steps: int
    num_envs: int
    num_steps: int

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one update."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Updates of the whole run."""
        return self.total_steps // self.steps_per_update


def on_policy_algorithm(agent: Agent, env: Environment, config: Any, env_params: Any) -> Algorithm:
    """An agent on the on-policy loop, as long and as wide as `config` says."""
    return on_policy(
        agent,
        env,
        env_params,
        num_envs=config.num_envs,
        num_steps=config.num_steps,
        num_updates=config.num_updates,
        reset_pool=config.reset_pool,
        unroll=config.unroll,
    )


def check_network(config: Any) -> None:
    """Raises ValueError unless `activation`, `torso` and `hidden_sizes` of `config` describe a network."""
    check_choice("activation", config.activation, ACTIVATIONS)
    check_choice("torso", config.torso, TORSOS)
    if any(size < 1 for size in config.hidden_sizes):
        raise ValueError(f"hidden_sizes = {config.hidden_sizes}: expected widths >= 1, as in (64, 64)")


def check_lengths(config: Any, whole_environments: bool = False) -> None:
    """Raises ValueError unless minibatches are of one size, and `total_steps` has room for one update.

    Args:
      config: has `total_steps`, `num_envs`, `num_steps`, `num_minibatches`, `num_updates`.
      whole_environments: minibatches are of environments, not of steps.
    """
    if config.num_updates >= 2**31:
        raise ValueError(f"total_steps = {config.total_steps}: expected fewer than 2^31 updates")
    batch = config.num_envs * config.num_steps
    if whole_environments:
        _check_divides(config.num_minibatches, "num_envs", config.num_envs, " (minibatches are of whole environments)")
    _check_divides(config.num_minibatches, "num_envs * num_steps", batch)
    if config.total_steps < batch:
        raise ValueError(
            f"total_steps = {config.total_steps} is less than one update of num_envs * num_steps = {batch} steps; "
            f"use at least {batch}, or fewer num_envs or num_steps"
        )


def _check_divides(num_minibatches: int, name: str, total: int, why: str = "") -> None:
    if total % num_minibatches:
        fits = [m for m in range(1, total + 1) if total % m == 0]
        near = sorted(sorted(fits, key=lambda m: abs(m - num_minibatches))[:2])
        raise ValueError(
            f"{name} = {total} is not divisible by num_minibatches = {num_minibatches}{why}; "
            f"use {' or '.join(map(str, near))}"
        )
