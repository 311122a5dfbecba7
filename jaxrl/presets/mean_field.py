"""Ready-made mean-field control: PPO on the upper level, and gradients through deterministic dynamics."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from jaxrl.agents.actor_critic import actor_critic
from jaxrl.agents.open_loop import open_loop
from jaxrl.agents.policy import policy_agent
from jaxrl.agents.swarm import shared_by_swarm
from jaxrl.algorithm import Algorithm
from jaxrl.analytic import analytic_gradient
from jaxrl.env import Environment
from jaxrl.ops.minibatch import OPTIMIZERS
from jaxrl.presets.base import OnPolicyLengths, Preset, check_network, on_policy_algorithm
from jaxrl.presets.on_policy import PPOConfig, PPOHparams, on_policy_agent, ppo
from jaxrl.rules import find_objective
from jaxrl.settings import check_at_least, check_choice, setting
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Agent

_OURS = "jaxrl"
_CUI = "Cui et al. 2024, arXiv:2307.06175; settings ours"
POLICIES = ("open_loop", "network")


DEC_POMFPPO_CONFIG = PPOConfig(
    total_steps=2_000_000,
    num_envs=256,
    num_steps=32,
    num_epochs=4,
    num_minibatches=4,
    normalize_advantage="batch",
    hidden_sizes=(256, 256),
)
DEC_POMFPPO_HPARAMS = PPOHparams(learning_rate=3e-4, gamma=0.99, gae_lambda=0.95, vf_coef=1.0, ent_coef=0.0)


# What the sibling paper's code (M3FC-MARL, commit fbef911) has, on RLlib 1.8; recalled and not read there are the
# activation and the deviation that depends on the state. RLlib's value loss has no half in front, hence 2 for its 1.
# Its one worker walks 24,000 steps in a row; here 240 environments walk 100 each. Adam's epsilon is ours.
M3FC_REFERENCE_CONFIG = PPOConfig(
    total_steps=120_000_000,
    num_envs=240,
    num_steps=100,
    num_epochs=8,
    num_minibatches=6,
    objective="ppo_clip_kl",
    normalize_advantage="batch",
    anneal_learning_rate=False,
    hidden_sizes=(256, 256),
    state_std=True,
    initializer="normc",
)
M3FC_REFERENCE_HPARAMS = PPOHparams(
    learning_rate=5e-5,
    gamma=0.99,
    gae_lambda=1.0,
    clip_eps=0.2,
    vf_coef=2.0,
    ent_coef=0.0,
    max_grad_norm=1e30,
    kl_coef_init=0.2,
    kl_target=0.03,
    value_error_max=10.0,
)


def mfc_ppo_agent(env: Environment, config: PPOConfig, hp: PPOHparams, env_params: Any = None) -> Agent:
    """The agent of `ppo`, for swarms whose agents see their own state.

    Raises:
      ValueError: for others.
    """
    agent = on_policy_agent(env, config, hp, env_params)
    if not getattr(env, "fully_observed", False):
        raise ValueError(
            "mfc_ppo is for mean-field environments whose agents see their own state, as jaxrl/mean_field_lq_full "
            "or mean_field(..., fully_observed=True); use dec_pomfppo for others"
        )
    return agent


def mfc_ppo(
    env: Environment,
    config: PPOConfig = DEC_POMFPPO_CONFIG,
    hp: PPOHparams = DEC_POMFPPO_HPARAMS,
    env_params: Any = None,
) -> Algorithm:
    """`ppo` on mean-field control with full observation: args and errors as `ppo` and `mfc_ppo_agent`."""
    mfc_ppo_agent(env, config, hp, env_params)
    return ppo(env, config, hp, env_params)


def ippo_agent(env: Environment, config: PPOConfig, hp: PPOHparams, env_params: Any = None) -> Agent:
    """The agents of a swarm, each seeing its own observation and nothing else, in training, too.

    What N agents learnt is played by any number: `jaxrl.swarm_evaluation.evaluate_swarm`.

    Args:
      env: of N agents (`jaxrl_envs.mean_field.agents.swarm_env`): has `num_own`, `agent_action_space` and
        `agent_observation_space`.
      config, hp, env_params: as of `ppo`; `num_envs` counts swarms.
    Raises:
      ValueError: for another environment, or a memory.
    """
    return _swarm_agent(env, config, hp, env_params, central=False)


def mappo_agent(env: Environment, config: PPOConfig, hp: PPOHparams, env_params: Any = None) -> Agent:
    """As `ippo_agent`, with a critic that sees the features of the population; agents still act without them."""
    return _swarm_agent(env, config, hp, env_params, central=True)


def _swarm_agent(env: Any, config: PPOConfig, hp: PPOHparams, env_params: Any, central: bool) -> Agent:
    if not hasattr(env, "agent_observation_space"):
        raise ValueError(
            "ippo and mappo need an environment of agents, as jaxrl/swarm_two_room or swarm_env(model, 20)"
        )
    if config.memory != "none":
        raise ValueError(f"memory = {config.memory!r}: agents of a swarm have none; set it to 'none'")
    params = env.default_params if env_params is None else env_params
    whole, action_space = env.agent_observation_space(params), env.agent_action_space(params)
    low, high = whole.bounds()
    own = Box(low[: env.num_own], high[: env.num_own], (env.num_own,))
    seen = whole if central else own
    config = dataclasses.replace(config, policy_inputs=env.num_own if central else 0)
    agent = actor_critic(find_objective(config.objective)(config, hp), seen, action_space, config, hp)
    return shared_by_swarm(agent, (seen, action_space), None if central else env.num_own)


IPPO_CONFIG = dataclasses.replace(DEC_POMFPPO_CONFIG, num_envs=16)


def ippo(
    env: Environment,
    config: PPOConfig = IPPO_CONFIG,
    hp: PPOHparams = DEC_POMFPPO_HPARAMS,
    env_params: Any = None,
    agent: Any = ippo_agent,
) -> Algorithm:
    """PPO of a swarm's agents with shared parameters and the team's reward; `agent=mappo_agent` for a central critic.

    References:
      de Witt et al. 2020, arXiv:2011.09533; Yu et al. 2022, arXiv:2103.01955.
    """
    params = env.default_params if env_params is None else env_params
    return on_policy_algorithm(agent(env, config, hp, params), env, config, params)


def mappo(
    env: Environment,
    config: PPOConfig = IPPO_CONFIG,
    hp: PPOHparams = DEC_POMFPPO_HPARAMS,
    env_params: Any = None,
) -> Algorithm:
    """`ippo` with a critic that sees the population."""
    return ippo(env, config, hp, env_params, mappo_agent)


@dataclasses.dataclass(frozen=True)
class MFCPGConfig(OnPolicyLengths):
    """What fixes shapes and branches of `mfc_pg`."""

    total_steps: int = setting(100_000, "environment steps of one run; rounded down to whole updates", _OURS)
    num_envs: int = setting(1, "episodes per update; one says all where nothing is random", _OURS)
    num_steps: int = setting(32, "steps at which episodes are cut; gradients flow through all of them", _OURS)
    policy: str = setting("open_loop", "open_loop, a plan of one action per step; or network, of observations", _OURS)
    anneal_learning_rate: bool = setting(True, "learning rate falls linearly to zero", _OURS)
    optimizer: str = setting("adam", f"{', '.join(OPTIMIZERS)}", _OURS)
    hidden_sizes: tuple[int, ...] = setting((64, 64), "network: widths of the hidden layers", _OURS)
    activation: str = setting("tanh", "network: tanh, relu, swish, gelu or elu", _OURS)
    torso: str = setting("auto", "network: mlp, cnn, or auto", _OURS)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "total_steps", "num_envs", "num_steps")
        check_choice("policy", self.policy, POLICIES)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_network(self)
        if self.num_updates < 1:
            raise ValueError(
                f"total_steps = {self.total_steps} is less than one update of num_envs * num_steps = "
                f"{self.steps_per_update} steps; use at least {self.steps_per_update}"
            )

    @property
    def memory(self) -> str:
        """Policies have none."""
        return "none"

    @property
    def memory_size(self) -> int:
        """None."""
        return 0

    @property
    def output(self) -> str:
        """Actions are what the network puts out."""
        return "clip"

    @property
    def normalize_obs(self) -> bool:
        """Observations are as they are."""
        return False

    @property
    def virtual_norm(self) -> bool:
        """Layers are as they are."""
        return False


@struct.dataclass
class MFCPGHparams:
    """The numbers of `mfc_pg`; each may be swept in one program."""

    learning_rate: Any = setting(0.05, "of the optimiser, at the start", _OURS, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _OURS, low=0.0, high=1.0)
    max_grad_norm: Any = setting(1e6, "global norm to which gradients are clipped", _OURS, low=0.0)


def mfc_pg_agent(env: Environment, config: MFCPGConfig, hp: MFCPGHparams, env_params: Any = None) -> Agent:
    """Who plays in `mfc_pg`."""
    params = env.default_params if env_params is None else env_params
    if config.policy == "open_loop":
        return open_loop(env.action_space(params), config.num_steps)
    return policy_agent(env.observation_space(params), env.action_space(params), config)


def mfc_pg(
    env: Environment,
    config: MFCPGConfig = MFCPGConfig(),
    hp: MFCPGHparams = MFCPGHparams(),
    env_params: Any = None,
) -> Algorithm:
    """Mean-field control by reverse-mode gradients through its deterministic, differentiable dynamics.

    Works on any environment whose rewards depend differentiably on actions; meant for `mean_field` with `exact`,
    `grid` or `gaussian` dynamics, where the best plan is as good as the best policy (no common noise).

    Args:
      env: of one instance; actions in a Box.
      config, hp: settings, and numbers that may be traced.
      env_params: the environment's; may be traced.
    Returns:
      An `Algorithm`; episodes are whole, from their start.
    Raises:
      ValueError: for other actions, or agents of a finite swarm that draw from finite ones, where gradients are zero.
    """
    params = env.default_params if env_params is None else env_params
    drawn = env.model.action_space(params) if hasattr(env, "model") else None
    if isinstance(drawn, Discrete) and getattr(getattr(env, "dynamics", None), "num_agents", None):
        raise ValueError(
            f"mfc_pg needs rewards that depend differentiably on actions, and here agents draw from {drawn}; use the "
            f"limit, env.with_dynamics(exact()) of jaxrl_envs.mean_field.dynamics, or dec_pomfppo"
        )
    return analytic_gradient(mfc_pg_agent(env, config, hp, params), env, params, config, hp)


_LQ = {"gamma": 0.95}  # with which its solution is known
_UPPER: dict[str, dict[str, Any]] = {f"jaxrl/mean_field_lq{kind}": dict(_LQ) for kind in ("", "_full")}
_PPO = Preset(
    summary="decentralised partially observed mean-field control: PPO over decision rules; N agents in training",
    reference="arXiv:2307.06175",
    config=DEC_POMFPPO_CONFIG,
    hparams=DEC_POMFPPO_HPARAMS,
    agent=on_policy_agent,
    make=ppo,
    overrides=_UPPER,
)
# As `dec_pomfppo`; an update learns from num_envs * num_steps * N samples.
_AGENTS = Preset(
    summary="agents of a swarm, parameters shared, each learning from what it sees and the team's reward",
    reference="arXiv:2011.09533",
    config=IPPO_CONFIG,
    hparams=DEC_POMFPPO_HPARAMS,
    agent=ippo_agent,
    make=ippo,
    overrides={"jaxrl/swarm_lq": dict(_LQ)},
    action_spaces="Discrete, Box",
)
PRESETS: dict[str, Preset] = {
    "dec_pomfppo": _PPO,
    "mfc_ppo": _PPO._replace(
        summary="mean-field control with full observation: PPO over decision rules",
        agent=mfc_ppo_agent,
        make=mfc_ppo,
        action_spaces="Box",
    ),
    "ippo": _AGENTS,
    "mappo": _AGENTS._replace(
        summary="agents of a swarm, parameters shared, with a critic that sees the population's features",
        reference="arXiv:2103.01955",
        agent=mappo_agent,
        make=mappo,
    ),
    "m3fc_reference": _PPO._replace(
        summary="mean-field control with the settings of M3FC's published code; for swarms of 300 agents",
        reference="arXiv:2303.10665",
        config=M3FC_REFERENCE_CONFIG,
        hparams=M3FC_REFERENCE_HPARAMS,
        overrides={},
    ),
    "mfc_pg": Preset(
        summary="mean-field control by gradients through deterministic dynamics",
        reference="jaxrl",
        config=MFCPGConfig(),
        hparams=MFCPGHparams(),
        agent=mfc_pg_agent,
        make=mfc_pg,
        overrides=_UPPER,
        action_spaces="Box",
    ),
}
