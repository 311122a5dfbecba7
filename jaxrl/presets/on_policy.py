"""Ready-made on-policy algorithms."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from jaxrl.agents.actor_critic import actor_critic
from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.loops.on_policy import on_policy
from jaxrl.networks import ACTIVATIONS, TORSOS
from jaxrl.objectives import OBJECTIVES
from jaxrl.objectives.common import ADVANTAGE_NORMALIZATIONS
from jaxrl.presets.base import Preset
from jaxrl.settings import check_at_least, check_choice, setting
from jaxrl.types import Agent, Objective

_PUREJAXRL = "purejaxrl ppo.py"
_PPO = "Schulman et al. 2017, arXiv:1707.06347"
_OURS = "jaxrl"


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """What fixes shapes and branches of an on-policy actor-critic run."""

    total_steps: int = setting(500_000, "environment steps of one run; rounded down to whole updates", _PUREJAXRL)
    num_envs: int = setting(4, "parallel environments of one run", _PUREJAXRL)
    num_steps: int = setting(128, "steps per environment and update", _PUREJAXRL)
    num_epochs: int = setting(4, "passes over each rollout", _PUREJAXRL)
    num_minibatches: int = setting(4, "minibatches per pass; divides num_envs * num_steps", _PUREJAXRL)
    objective: str = setting("ppo", "what is optimised; see `jaxrl list objectives`", _PPO)
    normalize_advantage: str = setting("minibatch", "over a minibatch, over the batch, or none", _PUREJAXRL)
    clip_value: bool = setting(False, "hold the value within clip_eps of its old prediction, too", _OURS)
    anneal_learning_rate: bool = setting(True, "learning rate falls linearly to zero", _PUREJAXRL)
    optimizer: str = setting("adam", "adam or rmsprop", _PUREJAXRL)
    hidden_sizes: tuple[int, ...] = setting((64, 64), "widths of the hidden layers", _PUREJAXRL)
    activation: str = setting("tanh", "tanh, relu, swish, gelu or elu", _PUREJAXRL)
    torso: str = setting("auto", "mlp, cnn, or auto: a cnn for images", _OURS)
    shared_torso: bool = setting(False, "policy and value share their hidden layers", _PUREJAXRL)
    normalize_obs: bool = setting(False, "standardise observations with running moments", _PUREJAXRL)
    normalize_reward: bool = setting(False, "divide rewards by the deviation of the discounted return", _PUREJAXRL)
    reset_pool: int | None = setting(None, "draw resets from this many first states per rollout", _OURS)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "total_steps", "num_envs", "num_steps", "num_epochs", "num_minibatches")
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("normalize_advantage", self.normalize_advantage, ADVANTAGE_NORMALIZATIONS)
        check_choice("optimizer", self.optimizer, ("adam", "rmsprop"))
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("torso", self.torso, TORSOS)
        if self.num_updates >= 2**31:
            raise ValueError(f"total_steps = {self.total_steps}: expected fewer than 2^31 updates")
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"hidden_sizes = {self.hidden_sizes}: expected widths >= 1, as in (64, 64)")
        batch = self.num_envs * self.num_steps
        if batch % self.num_minibatches:
            fits = [m for m in range(1, batch + 1) if batch % m == 0]
            near = sorted(sorted(fits, key=lambda m: abs(m - self.num_minibatches))[:2])
            raise ValueError(
                f"num_envs * num_steps = {batch} is not divisible by num_minibatches = {self.num_minibatches}; "
                f"use {' or '.join(map(str, near))}"
            )
        if self.total_steps < batch:
            raise ValueError(
                f"total_steps = {self.total_steps} is less than one update of num_envs * num_steps = {batch} steps; "
                f"use at least {batch}, or fewer num_envs or num_steps"
            )

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one update."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Updates of the whole run."""
        return self.total_steps // self.steps_per_update


@struct.dataclass
class PPOHparams:
    """The numbers of an on-policy actor-critic run; each may be swept in one program."""

    learning_rate: Any = setting(2.5e-4, "of the optimiser, at the start", _PUREJAXRL, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _PPO, low=0.0, high=1.0)
    gae_lambda: Any = setting(0.95, "trace decay of the advantage estimate, in [0, 1]", _PPO, low=0.0, high=1.0)
    clip_eps: Any = setting(0.2, "half-width of the ratio's clip interval", _PPO, low=0.0)
    vf_coef: Any = setting(0.5, "weight of the value loss", _PUREJAXRL, low=0.0)
    ent_coef: Any = setting(0.01, "weight of the entropy bonus", _PUREJAXRL)
    max_grad_norm: Any = setting(0.5, "global norm to which gradients are clipped", _PUREJAXRL, low=0.0)


def on_policy_agent(
    env: Environment, config: PPOConfig, hp: PPOHparams, env_params: Any = None, objective: Objective | None = None
) -> Agent:
    """The actor-critic of `ppo` and `a2c`, without its loop: for evaluation, or another loop.

    Args and errors as in `ppo`.
    """
    params = env.default_params if env_params is None else env_params
    chosen = OBJECTIVES[config.objective](config, hp) if objective is None else objective
    return actor_critic(chosen, env.observation_space(params), env.action_space(params), config, hp)


def ppo(
    env: Environment,
    config: PPOConfig = PPOConfig(),
    hp: PPOHparams = PPOHparams(),
    env_params: Any = None,
    objective: Objective | None = None,
) -> Algorithm:
    """Proximal policy optimisation, or any other objective on the same agent and loop.

    Args:
      env: of one instance, from `jaxrl.make_env` or your own.
      config: static settings.
      hp: numbers; may be traced.
      env_params: the environment's; `None` for its defaults; may be traced.
      objective: in the place of the one that `config.objective` names.
    Returns:
      An `Algorithm` for `train` and `sweep`.
    Raises:
      ValueError: for an action space that no policy covers, or a torso that does not fit the observations.
    References:
      Schulman et al. 2017, arXiv:1707.06347. Differs: truncation bootstraps from the final observation.
    """
    params = env.default_params if env_params is None else env_params
    return on_policy(
        on_policy_agent(env, config, hp, params, objective),
        env,
        params,
        num_envs=config.num_envs,
        num_steps=config.num_steps,
        num_updates=config.num_updates,
        reset_pool=config.reset_pool,
    )


A2C_CONFIG = PPOConfig(
    objective="a2c",
    num_envs=16,
    num_steps=5,
    num_epochs=1,
    num_minibatches=1,
    normalize_advantage="none",
    optimizer="rmsprop",
)
A2C_HPARAMS = PPOHparams(learning_rate=7e-4, gae_lambda=1.0)


def a2c(
    env: Environment, config: PPOConfig = A2C_CONFIG, hp: PPOHparams = A2C_HPARAMS, env_params: Any = None
) -> Algorithm:
    """Advantage actor-critic: `ppo` with another objective and one step per rollout.

    References:
      Mnih et al. 2016, arXiv:1602.01783; synchronous.
    """
    return ppo(env, config, hp, env_params)


PRESETS: dict[str, Preset] = {
    "ppo": Preset(
        summary="proximal policy optimisation, clipped; discrete and continuous actions, MLP and CNN",
        reference="arXiv:1707.06347",
        config=PPOConfig(),
        hparams=PPOHparams(),
        agent=on_policy_agent,
        make=ppo,
        overrides={
            # purejaxrl's brax_minatar.ipynb, with its own frames per update.
            "minatar": {
                "num_envs": 64,
                "num_minibatches": 8,
                "activation": "relu",
                "hidden_sizes": (128,),
                "shared_torso": True,
                "total_steps": 10_000_000,
            },
            "brax": {
                "num_envs": 2048,
                "num_steps": 10,
                "num_minibatches": 32,
                "hidden_sizes": (256, 256),
                "learning_rate": 3e-4,
                "ent_coef": 0.0,
                "anneal_learning_rate": False,
                "normalize_obs": True,
                "normalize_reward": True,
                "total_steps": 50_000_000,
            },
        },
    ),
    "a2c": Preset(
        summary="advantage actor-critic, synchronous; discrete and continuous actions, MLP and CNN",
        reference="arXiv:1602.01783",
        config=A2C_CONFIG,
        hparams=A2C_HPARAMS,
        agent=on_policy_agent,
        make=a2c,
        overrides={"minatar": {"num_envs": 64, "activation": "relu", "hidden_sizes": (128,), "shared_torso": True}},
    ),
}
