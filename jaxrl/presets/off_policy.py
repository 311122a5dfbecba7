"""Ready-made off-policy algorithms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import struct

from jaxrl.agents.dsac_t import dsac_t as dsac_t_agent
from jaxrl.agents.mdpo import mdpo_off as mdpo_off_agent
from jaxrl.agents.pmoe import ROUTINGS, WEIGHTINGS
from jaxrl.agents.pmoe import pmoe as pmoe_agent
from jaxrl.agents.q_learning import LOSSES
from jaxrl.agents.q_learning import dqn as dqn_agent
from jaxrl.agents.sac import sac as sac_agent
from jaxrl.agents.td3 import td3 as td3_agent
from jaxrl.algorithm import Algorithm
from jaxrl.buffers import num_rows, replay
from jaxrl.env import Environment
from jaxrl.loops.off_policy import off_policy
from jaxrl.presets.base import Preset, check_network
from jaxrl.settings import check_at_least, check_choice, setting
from jaxrl.types import Agent

_OURS = "jaxrl"
_REJAX = "rejax configs/gymnax"
_CLEANRL = "cleanrl"
_DSAC = "DSAC-v2 dsacv2_mlp_mujoco_offserial.py"
_MDPO = "Mirror-Descent-Policy-Optimization README"
_PMOE = "Ren et al. 2021, arXiv:2104.09122 (unverified)"

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
    num_step_returns: int = setting(1, "rewards summed before a target bootstraps", _OURS)
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
                f"fill_steps = {self.fill_steps} is more than buffer_size = {self.buffer_size} holds; use a larger "
                f"buffer_size, or fewer fill_steps"
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


def off_policy_algorithm(
    agent: Agent, env: Environment, config: OffPolicyConfig, hp: Any, env_params: Any, priority: Any = None
) -> Algorithm:
    """An agent with its buffer and the off-policy loop; `priority` is the exponent of prioritised replay."""
    buffer = replay(
        config.buffer_size,
        config.num_envs,
        config.num_steps,
        config.batch_size,
        hp.gamma,
        config.num_step_returns,
        priority,
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


@dataclasses.dataclass(frozen=True)
class DQNConfig(OffPolicyConfig):
    """What fixes shapes and branches of a run of the DQN family."""

    total_steps: int = setting(100_000, "environment steps of one run, the filling of the buffer included", _REJAX)
    num_envs: int = setting(10, "parallel environments of one run", _REJAX)
    num_gradient_steps: int = setting(5, "updates per iteration", _REJAX)
    batch_size: int = setting(100, "transitions per update", _REJAX)
    buffer_size: int = setting(50_000, "transitions that are remembered", _REJAX)
    fill_steps: int = setting(5_000, "steps of random actions before the first update", _REJAX)
    activation: str = setting("swish", "tanh, relu, swish, gelu or elu", _REJAX)
    double: bool = setting(True, "the online network chooses the action that the target network values", _REJAX)
    dueling: bool = setting(True, "a value and advantages instead of action values", _REJAX)
    distribution: str = setting("none", "of returns: none, c51 (fixed atoms) or qr (fixed quantiles)", _OURS)
    loss: str = setting("mse", "of the error where there is no distribution: mse or huber", "purejaxrl dqn.py")
    num_atoms: int = setting(51, "atoms of c51, or quantiles of qr", "Bellemare et al. 2017, arXiv:1707.06887")
    prioritized: bool = setting(False, "draw transitions in proportion to their last error", _OURS)
    target_period: int = setting(5, "updates between moves of the target network; here one iteration", _REJAX)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("distribution", self.distribution, ("none", "c51", "qr"))
        check_choice("loss", self.loss, LOSSES)
        check_at_least(self, 1, "target_period")
        check_at_least(self, 2, "num_atoms")


@struct.dataclass
class DQNHparams:
    """The numbers of a run of the DQN family; each may be swept in one program."""

    learning_rate: Any = setting(1e-3, "of the optimiser", _REJAX, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _REJAX, low=0.0, high=1.0)
    tau: Any = setting(0.02, "share of the target network that a move replaces; 1 copies", _REJAX, low=0.0, high=1.0)
    epsilon_start: Any = setting(1.0, "share of random actions at first", _REJAX, low=0.0, high=1.0)
    epsilon_end: Any = setting(0.05, "share of random actions at last", _REJAX, low=0.0, high=1.0)
    exploration_fraction: Any = setting(0.5, "share of the run over which it falls", _REJAX, low=0.0, high=1.0)
    max_grad_norm: Any = setting(10.0, "global norm to which gradients are clipped", _REJAX, low=0.0)
    v_min: Any = setting(-100.0, "c51: lowest return", "cleanrl c51_jax.py")
    v_max: Any = setting(100.0, "c51: highest return, above v_min", "cleanrl c51_jax.py")
    priority_alpha: Any = setting(
        0.6, "prioritized: exponent of priorities", "Schaul et al. 2016, arXiv:1511.05952 (unverified)", low=0.0
    )
    priority_beta: Any = setting(
        0.4, "prioritized: first exponent of importance weights, at last 1", "arXiv:1511.05952 (unverified)",
        low=0.0, high=1.0,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ContinuousConfig(OffPolicyConfig):
    """What off-policy actor-critics have in common."""

    num_critics: int = setting(2, "critics, of which the smallest value counts", _CLEANRL)
    policy_delay: int = setting(1, "updates of the critics per update of the actor and the targets", _OURS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "num_critics", "policy_delay")


@dataclasses.dataclass(frozen=True)
class SACConfig(ContinuousConfig):
    """What fixes shapes and branches of a run of soft actor-critic."""


@struct.dataclass
class SACHparams:
    """The numbers of a run of soft actor-critic; each may be swept in one program."""

    actor_learning_rate: Any = setting(1e-3, "of the actor's optimiser", _OURS, low=0.0)
    critic_learning_rate: Any = setting(1e-3, "of the critics' optimiser", _CLEANRL, low=0.0)
    alpha_learning_rate: Any = setting(1e-3, "of the temperature's optimiser", _CLEANRL, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _CLEANRL, low=0.0, high=1.0)
    tau: Any = setting(0.005, "share of the targets that an update replaces", _CLEANRL, low=0.0, high=1.0)
    initial_alpha: Any = setting(1.0, "first temperature, > 0", "sbx sac.py", low=1e-12)
    target_entropy_scale: Any = setting(1.0, "continuous: target entropy is minus this times dim A", _CLEANRL)
    discrete_target_entropy: Any = setting(
        0.7, "discrete: target entropy as a share of log |A|", _REJAX, low=0.0, high=1.0
    )
    max_grad_norm: Any = setting(10.0, "global norm to which gradients are clipped", _OURS, low=0.0)


@dataclasses.dataclass(frozen=True)
class TD3Config(ContinuousConfig):
    """What fixes shapes and branches of a run of TD3."""

    policy_delay: int = setting(2, "updates of the critics per update of the actor and the targets", _CLEANRL)


@struct.dataclass
class TD3Hparams:
    """The numbers of a run of TD3; each may be swept in one program. Noises are shares of half the action's range."""

    actor_learning_rate: Any = setting(1e-3, "of the actor's optimiser", _OURS, low=0.0)
    critic_learning_rate: Any = setting(1e-3, "of the critics' optimiser", _OURS, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _CLEANRL, low=0.0, high=1.0)
    tau: Any = setting(0.005, "share of the targets that a move replaces", _CLEANRL, low=0.0, high=1.0)
    exploration_noise: Any = setting(0.1, "deviation of the noise on actions", _CLEANRL, low=0.0)
    policy_noise: Any = setting(0.2, "deviation of the noise on targets' actions", _CLEANRL, low=0.0)
    noise_clip: Any = setting(0.5, "bound of the noise on targets' actions", _CLEANRL, low=0.0)
    max_grad_norm: Any = setting(10.0, "global norm to which gradients are clipped", _OURS, low=0.0)


@dataclasses.dataclass(frozen=True)
class DSACTConfig(ContinuousConfig):
    """What fixes shapes and branches of a run of DSAC-T."""

    policy_delay: int = setting(2, "updates of the critics per update of the actor and the targets", _DSAC)
    activation: str = setting("gelu", "tanh, relu, swish, gelu or elu", _DSAC)
    std_half: bool = setting(True, "settle at the root of half the squared error, as the authors' code does", _DSAC)


@struct.dataclass
class DSACTHparams:
    """The numbers of a run of DSAC-T; each may be swept in one program."""

    actor_learning_rate: Any = setting(1e-3, "of the actor's optimiser", _OURS, low=0.0)
    critic_learning_rate: Any = setting(1e-3, "of the critics' optimiser", _OURS, low=0.0)
    alpha_learning_rate: Any = setting(3e-3, "of the temperature's optimiser", _OURS, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _DSAC, low=0.0, high=1.0)
    tau: Any = setting(0.005, "share of the targets that a move replaces", _DSAC, low=0.0, high=1.0)
    tau_b: Any = setting(0.005, "share of the running deviation that an update replaces", _DSAC, low=0.0, high=1.0)
    initial_alpha: Any = setting(2.718281828, "first temperature, > 0", _DSAC, low=1e-12)
    target_entropy_scale: Any = setting(1.0, "target entropy is minus this times dim A", _DSAC)
    max_grad_norm: Any = setting(10.0, "global norm to which gradients are clipped", _OURS, low=0.0)


@dataclasses.dataclass(frozen=True)
class MDPOOffConfig(ContinuousConfig):
    """What fixes shapes and branches of a run of off-policy MDPO."""

    old_policy_period: int = setting(1_000, "updates between renewals of the policy that it stays near", _MDPO)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "old_policy_period")
        if self.old_policy_period % self.policy_delay:
            raise ValueError(
                f"old_policy_period = {self.old_policy_period} is not a multiple of policy_delay = {self.policy_delay}"
            )


@struct.dataclass
class MDPOOffHparams:
    """The numbers of a run of off-policy MDPO; each may be swept in one program."""

    actor_learning_rate: Any = setting(1e-3, "of the actor's optimiser", _OURS, low=0.0)
    critic_learning_rate: Any = setting(1e-3, "of the critics' optimiser", _OURS, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _MDPO, low=0.0, high=1.0)
    tau: Any = setting(0.005, "share of the targets that an update replaces", _MDPO, low=0.0, high=1.0)
    kl_coef: Any = setting(1.0, "weight of the divergence from the old policy, 1/t", _MDPO, low=0.0)
    entropy_coef: Any = setting(0.2, "fixed temperature", _MDPO, low=0.0)
    max_grad_norm: Any = setting(10.0, "global norm to which gradients are clipped", _OURS, low=0.0)


@dataclasses.dataclass(frozen=True)
class PMOEConfig(ContinuousConfig):
    """What fixes shapes and branches of a run of PMOE."""

    num_primitives: int = setting(4, "Gaussians of the mixture", _PMOE)
    routing: str = setting("frequency", "how the gate learns: frequency, score or gumbel", _PMOE)
    weighting: str = setting("gate", "how primitives' losses count: gate, uniform or best", _OURS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "num_primitives")
        check_choice("routing", self.routing, ROUTINGS)
        check_choice("weighting", self.weighting, WEIGHTINGS)


@struct.dataclass
class PMOEHparams(SACHparams):
    """The numbers of a run of PMOE; each may be swept in one program."""

    gate_coef: Any = setting(1.0, "weight of the gate's loss", _OURS, low=0.0)
    gumbel_temperature: Any = setting(1.0, "gumbel: of the relaxation, > 0", _OURS, low=1e-6)


def _preset(
    constructor: AgentConstructor, config: Any, hparams: Any, summary: str, reference: str,
    overrides: dict[str, dict[str, Any]], action_spaces: str = "Box",
) -> Preset:  # fmt: skip
    """A preset of an agent on the off-policy loop."""

    def agent(env: Environment, config: Any, hp: Any, env_params: Any = None) -> Agent:
        params = env.default_params if env_params is None else env_params
        return constructor(env.observation_space(params), env.action_space(params), config, hp)

    def make(env: Environment, config: Any = config, hp: Any = hparams, env_params: Any = None) -> Algorithm:
        params = env.default_params if env_params is None else env_params
        priority = hp.priority_alpha if getattr(config, "prioritized", False) else None
        return off_policy_algorithm(agent(env, config, hp, params), env, config, hp, params, priority)

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


# The parallel environments and memory of rejax configs/brax; widths of cleanrl.
_BRAX_REJAX = {
    "num_envs": 128,
    "buffer_size": 1_000_000,
    "fill_steps": 10_000,
    "normalize_obs": True,
    "hidden_sizes": (256, 256),
}

PRESETS: dict[str, Preset] = {
    "dqn": _preset(
        dqn_agent,
        DQNConfig(),
        DQNHparams(),
        "deep Q-learning: double, dueling, n-step, prioritised, C51 or QR",
        "Mnih et al. 2015",
        {
            # rejax benchmark/breakout_1m.yaml, with four environments instead of one and a discount below 1.
            "minatar": {
                "total_steps": 1_000_000,
                "num_envs": 4,
                "num_gradient_steps": 4,
                "buffer_size": 100_000,
                "fill_steps": 20_000,
                "learning_rate": 5e-4,
                "target_period": 1_000,
                "tau": 1.0,
                "hidden_sizes": (128,),
                "activation": "relu",
            },
        },
        "Discrete",
    ),
    "sac": _preset(
        sac_agent,
        SACConfig(),
        SACHparams(),
        "soft actor-critic with a learned temperature",
        "arXiv:1812.05905",
        {
            # brax notebooks/training.ipynb, walker2d.
            "brax": {
                **_BRAX_REJAX,
                "total_steps": 7_864_320,
                "num_gradient_steps": 32,
                "batch_size": 128,
                "actor_learning_rate": 6e-4,
                "critic_learning_rate": 6e-4,
                "alpha_learning_rate": 6e-4,
                "gamma": 0.997,
            },
            "minatar": {"total_steps": 1_000_000, "fill_steps": 20_000, "hidden_sizes": (128,)},
        },
        "Discrete, Box",
    ),
    "td3": _preset(
        td3_agent,
        TD3Config(),
        TD3Hparams(),
        "twin delayed deep deterministic policy gradient",
        "arXiv:1802.09477",
        {
            # rejax brax/halfcheetah.yaml.
            "brax": {
                **_BRAX_REJAX,
                "total_steps": 5_242_880,
                "num_gradient_steps": 128,
                "batch_size": 512,
                "actor_learning_rate": 1.2e-4,
                "critic_learning_rate": 1.2e-4,
                "gamma": 0.98,
                "tau": 0.01,
                "exploration_noise": 0.3,
                "policy_noise": 0.8,
                "noise_clip": 0.6,
                "policy_delay": 1,
                "max_grad_norm": 5.0,
            }
        },
    ),
    "dsac_t": _preset(
        dsac_t_agent,
        DSACTConfig(),
        DSACTHparams(),
        "distributional soft actor-critic with three refinements",
        "arXiv:2310.05858",
        {
            # DSAC-v2 dsacv2_mlp_mujoco_offserial.py, with parallel environments.
            "brax": {
                **_BRAX_REJAX,
                "total_steps": 5_242_880,
                "num_gradient_steps": 32,
                "hidden_sizes": (256, 256, 256),
                "actor_learning_rate": 1e-4,
                "critic_learning_rate": 1e-4,
                "alpha_learning_rate": 3e-4,
            }
        },
    ),
    "mdpo_off": _preset(
        mdpo_off_agent,
        MDPOOffConfig(),
        MDPOOffHparams(),
        "mirror descent policy optimisation, off-policy",
        "arXiv:2005.09814",
        {
            "brax": {
                **_BRAX_REJAX,
                "total_steps": 5_242_880,
                "num_gradient_steps": 32,
                "actor_learning_rate": 3e-4,
                "critic_learning_rate": 3e-4,
            }
        },
    ),
    "pmoe": _preset(
        pmoe_agent,
        PMOEConfig(),
        PMOEHparams(),
        "soft actor-critic with a mixture policy (a reconstruction)",
        "arXiv:2104.09122",
        {"brax": {**_BRAX_REJAX, "total_steps": 5_242_880, "num_gradient_steps": 32}},
    ),
}

dqn, sac, td3 = PRESETS["dqn"].make, PRESETS["sac"].make, PRESETS["td3"].make
dsac_t, mdpo_off, pmoe = PRESETS["dsac_t"].make, PRESETS["mdpo_off"].make, PRESETS["pmoe"].make
