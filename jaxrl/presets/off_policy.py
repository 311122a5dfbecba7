"""What ready-made off-policy algorithms share: lengths and sizes, the buffer and the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxrl.algorithm import Algorithm
from jaxrl.buffers import num_rows, replay
from jaxrl.env import Environment
from jaxrl.loops.off_policy import off_policy
from jaxrl.presets.base import Preset, check_network
from jaxrl.settings import check_at_least, setting
from jaxrl.types import Agent

_OURS = "jaxrl"
_REJAX = "rejax configs/gymnax"
_CLEANRL = "cleanrl"

# What an Agent is built from: (obs_space, action_space, config, hp).
AgentConstructor = Callable[[Any, Any, Any, Any], Agent]


@dataclasses.dataclass(frozen=True)
class OffPolicyConfig:
    """What fixes shapes and branches of every off-policy run; each algorithm adds its own."""

    total_steps: int = setting(50_000, "environment steps of one run, the filling of the buffer included", _OURS)
    num_envs: int = setting(4, "parallel environments of one run", _OURS)
    num_steps: int = setting(1, "steps per environment and iteration", _OURS)
    num_gradient_steps: int = setting(4, "updates per iteration; over num_envs * num_steps: updates per step", _OURS)
    batch_size: int = setting(256, "transitions per update", _CLEANRL)
    buffer_size: int = setting(100_000, "transitions that are remembered", _OURS)
    fill_steps: int = setting(1_000, "steps of random actions before the first update", _OURS)
    num_step_returns: int = setting(
        1, "rewards summed before a target bootstraps; soft agents leave out the entropy of the steps between", _OURS
    )
    hidden_sizes: tuple[int, ...] = setting((64, 64), "widths of the hidden layers", _REJAX)
    activation: str = setting("relu", "tanh, relu, swish, gelu or elu", _CLEANRL)
    torso: str = setting("auto", "mlp, cnn, or auto: a cnn for images", _OURS)
    normalize_obs: bool = setting(False, "standardise observations with running moments", _OURS)
    normalize_reward: bool = setting(False, "divide rewards by the deviation of the discounted return", _OURS)
    reset_pool: int | None = setting(None, "draw resets from this many first states per iteration", _OURS)

    def __post_init__(self) -> None:
        check_at_least(
            self, 1, "total_steps", "num_envs", "num_steps", "num_gradient_steps", "batch_size", "buffer_size",
            "num_step_returns",
        )  # fmt: skip
        check_at_least(self, 0, "fill_steps")
        check_network(self)
        num_rows(self.buffer_size, self.num_envs, self.num_steps, self.batch_size, self.num_step_returns)
        if self.initial_steps > self.buffer_size:
            raise ValueError(
                f"fill_steps = {self.fill_steps} is more than buffer_size = {self.buffer_size} holds; use a "
                f"buffer_size of at least {self.initial_steps}, or fewer fill_steps"
            )
        if self.fill_steps < self.num_step_returns * self.num_envs:
            raise ValueError(
                f"fill_steps = {self.fill_steps}: the first update needs num_step_returns * num_envs = "
                f"{self.num_step_returns * self.num_envs} steps to draw from; use at least as many"
            )
        if self.num_updates < 1:
            raise ValueError(
                f"total_steps = {self.total_steps} ends before the first update: the buffer is filled with "
                f"{self.initial_steps} steps, and one iteration takes {self.steps_per_update}; use at least "
                f"{self.initial_steps + self.steps_per_update}"
            )
        if self.num_updates * self.num_gradient_steps >= 2**31:
            raise ValueError(f"total_steps = {self.total_steps}: expected fewer than 2^31 updates")

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.num_steps

    @property
    def initial_steps(self) -> int:
        """Environment steps before the first iteration: `fill_steps`, in whole iterations."""
        return -(-self.fill_steps // self.steps_per_update) * self.steps_per_update

    @property
    def num_updates(self) -> int:
        """Iterations of the whole run."""
        return (self.total_steps - self.initial_steps) // self.steps_per_update

    def priority_exponent(self, hp: Any) -> Any:
        """Of prioritised replay, from the run's numbers; `None` draws uniformly."""
        return None


def off_policy_algorithm(
    agent: Agent, env: Environment, config: OffPolicyConfig, hp: Any, env_params: Any
) -> Algorithm:
    """An agent with its buffer and the off-policy loop, as long and as wide as `config` says."""
    buffer = replay(
        config.buffer_size,
        config.num_envs,
        config.num_steps,
        config.batch_size,
        hp.gamma,
        config.num_step_returns,
        config.priority_exponent(hp),
    )
    return off_policy(
        agent,
        env,
        env_params,
        buffer,
        num_envs=config.num_envs,
        num_steps=config.num_steps,
        num_gradient_steps=config.num_gradient_steps,
        num_updates=config.num_updates,
        fill_steps=config.fill_steps,
        reset_pool=config.reset_pool,
    )


def off_policy_preset(
    constructor: AgentConstructor, config: Any, hparams: Any, summary: str, reference: str,
    overrides: dict[str, dict[str, Any]], action_spaces: str = "Box",
) -> Preset:  # fmt: skip
    """A preset of an agent on the off-policy loop."""

    def agent(env: Environment, config: Any, hp: Any, env_params: Any = None) -> Agent:
        params = env.default_params if env_params is None else env_params
        return constructor(env.observation_space(params), env.action_space(params), config, hp)

    def make(env: Environment, config: Any = config, hp: Any = hparams, env_params: Any = None) -> Algorithm:
        params = env.default_params if env_params is None else env_params
        return off_policy_algorithm(agent(env, config, hp, params), env, config, hp, params)

    make.__name__ = make.__qualname__ = constructor.__name__
    make.__doc__ = f"""{summary[0].upper()}{summary[1:]}, on the off-policy loop.

    Args:
      env: of one instance, from `jaxrl.make_env` or your own; actions: {action_spaces}.
      config: `{type(config).__name__}`, static settings.
      hp: `{type(hparams).__name__}`, numbers; may be traced.
      env_params: the environment's; `None` for its defaults; may be traced.
    Returns:
      An `Algorithm` for `train` and `sweep`.
    Raises:
      ValueError: for other actions, a torso that does not fit the observations, or a buffer that is too small.
    References:
      {reference}.
    """
    return Preset(summary, reference, config, hparams, agent, make, overrides, action_spaces)
