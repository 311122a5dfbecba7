"""Ready-made off-policy actor-critics: SAC (of discrete actions, too), TD3, DSAC-T, MDPO and PMOE."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from jaxrl.agents.dsac_t import dsac_t as dsac_t_agent
from jaxrl.agents.mdpo import mdpo_off as mdpo_off_agent
from jaxrl.agents.pmoe import ROUTINGS, WEIGHTINGS
from jaxrl.agents.pmoe import pmoe as pmoe_agent
from jaxrl.agents.sac import sac as sac_agent
from jaxrl.agents.td3 import td3 as td3_agent
from jaxrl.networks import INITIALIZERS
from jaxrl.presets.base import Preset
from jaxrl.presets.off_policy import OffPolicyConfig, off_policy_preset
from jaxrl.settings import check_at_least, check_choice, setting

_OURS = "jaxrl"
_REJAX = "rejax configs/gymnax"
_CLEANRL = "cleanrl"
_DSAC = "DSAC-v2 dsacv2_mlp_mujoco_offserial.py"
_MDPO = "Mirror-Descent-Policy-Optimization README"
_PMOE = "Ren et al. 2021, arXiv:2104.09122 (unverified)"


@dataclasses.dataclass(frozen=True)
class ContinuousConfig(OffPolicyConfig):
    """What off-policy actor-critics have in common."""

    num_critics: int = setting(2, "critics, of which the smallest value counts", _CLEANRL)
    policy_delay: int = setting(1, "updates of the critics per update of the actor and the targets", _OURS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "num_critics", "policy_delay")


@struct.dataclass
class ContinuousHparams:
    """The numbers that off-policy actor-critics have in common."""

    actor_learning_rate: Any = setting(1e-3, "of the actor's optimiser", _OURS, low=0.0)
    critic_learning_rate: Any = setting(1e-3, "of the critics' optimiser", _OURS, low=0.0)
    gamma: Any = setting(0.99, "discount factor, in [0, 1]", _CLEANRL, low=0.0, high=1.0)
    tau: Any = setting(0.005, "share of the targets that a move replaces", _CLEANRL, low=0.0, high=1.0)
    max_grad_norm: Any = setting(10.0, "global norm to which gradients are clipped", _OURS, low=0.0)


@struct.dataclass
class TemperatureHparams(ContinuousHparams):
    """The numbers of those that learn the weight of entropy."""

    alpha_learning_rate: Any = setting(1e-3, "of the temperature's optimiser", _CLEANRL, low=0.0)
    initial_alpha: Any = setting(1.0, "first temperature, > 0", "sbx sac.py", low=1e-12)
    target_entropy_scale: Any = setting(1.0, "of a Box: target entropy is minus this times dim A", _CLEANRL)


@dataclasses.dataclass(frozen=True)
class SACConfig(ContinuousConfig):
    """What fixes shapes and branches of a run of soft actor-critic."""


@struct.dataclass
class SACHparams(TemperatureHparams):
    """The numbers of a run of soft actor-critic; each may be swept in one program."""

    discrete_target_entropy: Any = setting(
        0.7, "discrete: target entropy as a share of log |A|", _REJAX, low=0.0, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class TD3Config(ContinuousConfig):
    """What fixes shapes and branches of a run of TD3."""

    policy_delay: int = setting(2, "updates of the critics per update of the actor and the targets", _CLEANRL)
    critic_targets: str = setting("delayed", "when the critics' targets move: delayed, with the actor; or every", _OURS)
    critic_hidden_sizes: tuple[int, ...] = setting((), "widths of the critics' hidden layers; () as the actor's", _OURS)
    initializer: str = setting("orthogonal", "of networks: orthogonal or lecun_uniform", _OURS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_td3(self)


def check_td3(config: Any) -> None:
    """Raises ValueError unless the choices of `TD3Config` are possible."""
    check_choice("critic_targets", config.critic_targets, ("delayed", "every"))
    check_choice("initializer", config.initializer, INITIALIZERS)
    if any(size < 1 for size in config.critic_hidden_sizes):
        raise ValueError(f"critic_hidden_sizes = {config.critic_hidden_sizes}: expected widths >= 1, as in (64, 64)")


@struct.dataclass
class TD3Hparams(ContinuousHparams):
    """The numbers of a run of TD3; each may be swept in one program. Noises are shares of half the action's range."""

    exploration_noise: Any = setting(0.1, "deviation of the noise on actions", _CLEANRL, low=0.0)
    exploration_correlation: Any = setting(
        0.0, "of that noise from step to step, below 1; 0 is white, and 0.85 that of DDPG", _OURS, low=0.0, high=0.9999
    )
    policy_noise: Any = setting(0.2, "deviation of the noise on targets' actions", _CLEANRL, low=0.0)
    noise_clip: Any = setting(0.5, "bound of the noise on targets' actions", _CLEANRL, low=0.0)


@dataclasses.dataclass(frozen=True)
class DSACTConfig(ContinuousConfig):
    """What fixes shapes and branches of a run of DSAC-T."""

    policy_delay: int = setting(2, "updates of the critics per update of the actor and the targets", _DSAC)
    activation: str = setting("gelu", "tanh, relu, swish, gelu or elu", _DSAC)
    std_half: bool = setting(True, "settle at the root of half the squared error, as the authors' code does", _DSAC)


@struct.dataclass
class DSACTHparams(TemperatureHparams):
    """The numbers of a run of DSAC-T; each may be swept in one program."""

    alpha_learning_rate: Any = setting(3e-3, "of the temperature's optimiser", _OURS, low=0.0)
    tau_b: Any = setting(0.005, "share of the running deviation that an update replaces", _DSAC, low=0.0, high=1.0)
    initial_alpha: Any = setting(2.718281828, "first temperature, > 0", _DSAC, low=1e-12)


@dataclasses.dataclass(frozen=True)
class MDPOOffConfig(ContinuousConfig):
    """What fixes shapes and branches of a run of off-policy MDPO."""

    old_policy_period: int = setting(1_000, "updates between renewals of the policy that it stays near", _MDPO)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "old_policy_period")
        if self.old_policy_period % self.policy_delay:
            below = max(self.old_policy_period // self.policy_delay, 1) * self.policy_delay
            raise ValueError(
                f"old_policy_period = {self.old_policy_period} is not a multiple of policy_delay = "
                f"{self.policy_delay}; use {below} or {below + self.policy_delay}"
            )


@struct.dataclass
class MDPOOffHparams(ContinuousHparams):
    """The numbers of a run of off-policy MDPO; each may be swept in one program."""

    kl_coef: Any = setting(1.0, "weight of the divergence from the old policy, 1/t", _MDPO, low=0.0)
    entropy_coef: Any = setting(0.2, "fixed temperature", _MDPO, low=0.0)


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
class PMOEHparams(TemperatureHparams):
    """The numbers of a run of PMOE; each may be swept in one program."""

    gate_coef: Any = setting(1.0, "weight of the gate's loss", _OURS, low=0.0)
    gumbel_temperature: Any = setting(1.0, "gumbel: of the relaxation, > 0", _OURS, low=1e-6)


# The parallel environments and memory of rejax configs/brax; widths of cleanrl.
_BRAX_REJAX = {
    "num_envs": 128,
    "buffer_size": 1_000_000,
    "fill_steps": 10_000,
    "normalize_obs": True,
    "hidden_sizes": (256, 256),
}

PRESETS: dict[str, Preset] = {
    "sac": off_policy_preset(
        sac_agent,
        SACConfig(),
        SACHparams(),
        "soft actor-critic with a learned temperature",
        "arXiv:1812.05905",
        {
            # brax notebooks/training.ipynb, walker2d; without its reward scale of 5, since rewards are not scaled here.
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
    "td3": off_policy_preset(
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
    "dsac_t": off_policy_preset(
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
    "mdpo_off": off_policy_preset(
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
    "pmoe": off_policy_preset(
        pmoe_agent,
        PMOEConfig(),
        PMOEHparams(),
        "soft actor-critic with a mixture policy (a reconstruction)",
        "arXiv:2104.09122",
        {"brax": {**_BRAX_REJAX, "total_steps": 5_242_880, "num_gradient_steps": 32}},
    ),
}

sac, td3, dsac_t = PRESETS["sac"].make, PRESETS["td3"].make, PRESETS["dsac_t"].make
mdpo_off, pmoe = PRESETS["mdpo_off"].make, PRESETS["pmoe"].make
