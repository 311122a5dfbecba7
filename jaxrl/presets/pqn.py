"""Ready-made PQN."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from jaxrl.agents.pqn import parallel_q_network
from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.presets.base import OnPolicyLengths, Preset, check_lengths, check_network, on_policy_algorithm
from jaxrl.settings import check_at_least, setting
from jaxrl.types import Agent

_CARTPOLE = "purejaxql pqn_cartpole.yaml"
_PUREJAXQL = "purejaxql pqn_gymnax.py"
_PQN = "Gallici et al. 2024, arXiv:2407.04811"
_OURS = "jaxrl"


@dataclasses.dataclass(frozen=True)
class PQNConfig(OnPolicyLengths):
    """What fixes shapes and branches of a PQN run."""

    total_steps: int = setting(500_000, "environment steps of one run; rounded down to whole updates", _CARTPOLE)
    num_envs: int = setting(32, "parallel environments of one run", _CARTPOLE)
    num_steps: int = setting(64, "steps per environment and update", _CARTPOLE)
    num_epochs: int = setting(4, "passes over each rollout", _CARTPOLE)
    num_minibatches: int = setting(16, "minibatches per pass; divides num_envs * num_steps", _CARTPOLE)
    anneal_learning_rate: bool = setting(True, "learning rate falls linearly to zero", _CARTPOLE)
    hidden_sizes: tuple[int, ...] = setting((256, 256), "widths of the hidden layers", _CARTPOLE)
    activation: str = setting("relu", "tanh, relu, swish, gelu or elu", _PUREJAXQL)
    torso: str = setting("auto", "mlp, cnn, or auto: a cnn for images", _OURS)
    layer_norm: bool = setting(True, "standardise what comes into each activation", _PQN)
    normalize_obs: bool = setting(False, "standardise observations with running moments", _CARTPOLE)
    normalize_reward: bool = setting(False, "divide rewards by the deviation of the discounted return", _OURS)
    reset_pool: int | None = setting(None, "draw resets from this many first states per rollout", _OURS)
    unroll: int = setting(
        1,
        "steps of a rollout compiled side by side: 4 is a tenth quicker where steps are small, but compiles longer",
        _OURS,
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "total_steps", "num_envs", "num_steps", "num_epochs", "num_minibatches", "unroll")
        check_network(self)
        check_lengths(self)


@struct.dataclass
class PQNHparams:
    """The numbers of a PQN run; each may be swept in one program."""

    learning_rate: Any = setting(1e-4, "of the optimiser, at the start", _CARTPOLE, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _CARTPOLE, low=0.0, high=1.0)
    q_lambda: Any = setting(0.95, "trace decay of the return, in [0, 1]", _CARTPOLE, low=0.0, high=1.0)
    epsilon_start: Any = setting(1.0, "share of random actions at the start", _CARTPOLE, low=0.0, high=1.0)
    # purejaxql's CartPole ends at 0.2 and reports greedy episodes; ours are those of training.
    epsilon_end: Any = setting(
        0.05, "share of random actions at the end", "purejaxql pqn_minatar.yaml", low=0.0, high=1.0
    )
    exploration_fraction: Any = setting(
        0.2, "share of the run during which epsilon falls, linearly", _CARTPOLE, low=0.0, high=1.0
    )
    reward_scale: Any = setting(0.1, "what rewards are multiplied by before learning", _CARTPOLE)
    max_grad_norm: Any = setting(10.0, "global norm to which gradients are clipped", _CARTPOLE, low=0.0)


def pqn_agent(env: Environment, config: PQNConfig, hp: PQNHparams, env_params: Any = None) -> Agent:
    """The agent of `pqn`, without its loop: for evaluation, or another loop.

    Args and errors as in `pqn`.
    """
    params = env.default_params if env_params is None else env_params
    return parallel_q_network(env.observation_space(params), env.action_space(params), config, hp)


def pqn(
    env: Environment, config: PQNConfig = PQNConfig(), hp: PQNHparams = PQNHparams(), env_params: Any = None
) -> Algorithm:
    """Parallelised Q-network: Q-learning on fresh rollouts, without replay and without a target network.

    Args:
      env: of one instance, from `jaxrl.make_env` or your own; its actions are Discrete.
      config: static settings.
      hp: numbers; may be traced.
      env_params: the environment's; `None` for its defaults; may be traced.
    Returns:
      An `Algorithm` for `train` and `sweep`.
    Raises:
      ValueError: for actions that are not Discrete, or a torso that does not fit the observations.
    References:
      Gallici et al. 2024, arXiv:2407.04811. Differs: see `parallel_q_network`.
    """
    params = env.default_params if env_params is None else env_params
    return on_policy_algorithm(pqn_agent(env, config, hp, params), env, config, params)


PRESETS: dict[str, Preset] = {
    "pqn": Preset(
        summary="parallelised Q-network: Q(λ) without replay or target network; discrete actions, MLP and CNN",
        reference="arXiv:2407.04811",
        config=PQNConfig(),
        hparams=PQNHparams(),
        agent=pqn_agent,
        make=pqn,
        overrides={
            # purejaxql's pqn_minatar.yaml.
            "minatar": {
                "total_steps": 10_000_000,
                "num_envs": 128,
                "num_steps": 32,
                "num_epochs": 2,
                "num_minibatches": 32,
                "hidden_sizes": (128,),
                "learning_rate": 5e-4,
                "q_lambda": 0.65,
                "exploration_fraction": 0.1,
                "reward_scale": 1.0,
            },
        },
        action_spaces="Discrete",
    ),
}
