"""Ready-made on-policy algorithms."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from jaxrl.agents.actor_critic import actor_critic
from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment
from jaxrl.networks import MEMORIES, POLICY_INITIALIZERS
from jaxrl.objectives.common import ADVANTAGE_NORMALIZATIONS
from jaxrl.ops.minibatch import OPTIMIZERS
from jaxrl.presets.base import OnPolicyLengths, Preset, check_lengths, check_network, on_policy_algorithm
from jaxrl.rules import check_objective, find_objective
from jaxrl.settings import check_at_least, check_below, check_choice, setting
from jaxrl.types import Agent, Objective

_PUREJAXRL = "purejaxrl ppo.py"
_PPO = "Schulman et al. 2017, arXiv:1707.06347"
_OURS = "jaxrl"
_DAPO = "Yu et al. 2025, arXiv:2503.14476"
_DPO = "purejaxrl dpo_continuous_action.py"
_VTRACE = "Espeholt et al. 2018, arXiv:1802.01561"
_BAPO = "Xi et al. 2025, arXiv:2510.18927"
_DISCO = "disco_rl agent.py"
_RISK = "Ren et al. 2025, arXiv:2510.00911"
_GROOVE = "Jackson et al. 2023, arXiv:2310.02782"


@dataclasses.dataclass(frozen=True)
class PPOConfig(OnPolicyLengths):
    """What fixes shapes and branches of an on-policy actor-critic run."""

    total_steps: int = setting(500_000, "environment steps of one run; rounded down to whole updates", _PUREJAXRL)
    num_envs: int = setting(4, "parallel environments of one run", _PUREJAXRL)
    num_steps: int = setting(128, "steps per environment and update", _PUREJAXRL)
    num_epochs: int = setting(4, "passes over each rollout", _PUREJAXRL)
    num_minibatches: int = setting(4, "minibatches per pass; divides num_envs * num_steps", _PUREJAXRL)
    objective: str = setting(
        "ppo", "what is optimised: a name of `jaxrl list objectives`, or the path of a rule file", _PPO
    )
    normalize_advantage: str = setting(
        "minibatch", "over a minibatch, over the batch, or none; not for objectives of whole episodes", _PUREJAXRL
    )
    group_size: int = setting(
        0, "objectives grpo, rloo, lite_ppo, bnpo: neighbouring environments that are one group; 0 for all", _OURS
    )
    clip_value: bool = setting(False, "hold the value within clip_eps of its old prediction, too", _OURS)
    anneal_learning_rate: bool = setting(True, "learning rate falls linearly to zero", _PUREJAXRL)
    optimizer: str = setting(
        "adam", "adam, rmsprop, sgd, or adam_bounded: no parameter moves further than the learning rate", _PUREJAXRL
    )
    hidden_sizes: tuple[int, ...] = setting((64, 64), "widths of the hidden layers", _PUREJAXRL)
    activation: str = setting("tanh", "tanh, relu, swish, gelu or elu", _PUREJAXRL)
    torso: str = setting("auto", "mlp, cnn, or auto: a cnn for images", _OURS)
    shared_torso: bool = setting(False, "policy and value share their hidden layers", _PUREJAXRL)
    state_std: bool = setting(False, "for a Box: the policy's deviation depends on the observation, too", _OURS)
    policy_inputs: int = setting(
        0, "the policy sees only so many entries of each observation, the value all of them; 0 for all", _OURS
    )
    initializer: str = setting("orthogonal", "of layers: orthogonal, or normc (RLlib's)", _PUREJAXRL)
    num_primitives: int = setting(1, "Gaussians of a mixture policy, for a Box (PMOE)", "arXiv:2104.09122 (unverified)")
    memory: str = setting("none", "none, or gru: a recurrent layer behind the torso", _OURS)
    memory_size: int = setting(128, "width of the memory, and of a hidden layer behind it", "purejaxrl ppo_rnn.py")
    action_size: int = setting(
        128, "objectives with heads per action: width of the step into an action, and of the layers behind", _DISCO
    )
    normalize_obs: bool = setting(False, "standardise observations with running moments", _PUREJAXRL)
    normalize_reward: bool = setting(False, "divide rewards by the deviation of the discounted return", _PUREJAXRL)
    reset_pool: int | None = setting(None, "draw resets from this many first states per rollout", _OURS)
    unroll: int = setting(
        1,
        "steps of a rollout compiled side by side: 4 is a tenth quicker where steps are small, but compiles longer",
        _OURS,
    )

    def __post_init__(self) -> None:
        check_at_least(
            self,
            1,
            "total_steps",
            "num_envs",
            "num_steps",
            "num_epochs",
            "num_minibatches",
            "num_primitives",
            "memory_size",
            "unroll",
            "action_size",
        )
        check_at_least(self, 0, "group_size", "policy_inputs")
        if self.policy_inputs and self.shared_torso:
            raise ValueError("policy_inputs needs a torso of the policy's own; set shared_torso to False")
        check_objective(self.objective)
        check_choice("normalize_advantage", self.normalize_advantage, ADVANTAGE_NORMALIZATIONS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("memory", self.memory, MEMORIES)
        check_choice("initializer", self.initializer, POLICY_INITIALIZERS)
        if self.state_std and self.num_primitives > 1:
            raise ValueError(f"state_std = True is for one Gaussian, not num_primitives = {self.num_primitives}; set 1")
        check_network(self)
        check_lengths(self, whole_environments=self.memory != "none")
        if self.normalize_advantage == "minibatch" and self.steps_per_update == self.num_minibatches:
            raise ValueError(
                f"num_minibatches = {self.num_minibatches} leaves one step in each, whose standardised advantage is 0; "
                "use fewer, or normalize_advantage = 'batch' or 'none'"
            )
        if self.objective == "a2c" and self.num_epochs * self.num_minibatches > 1:
            raise ValueError(
                f"objective = 'a2c' knows no ratio: it takes one step per rollout, not num_epochs * num_minibatches = "
                f"{self.num_epochs * self.num_minibatches}; set both to 1, or use objective = 'ppo' or 'vtrace'"
            )
        if self.objective in ("bnpo", "lite_ppo") and self.num_envs // (self.group_size or self.num_envs) < 2:
            raise ValueError(
                f"objective = {self.objective!r} compares groups of environments, and num_envs = {self.num_envs} with "
                f"group_size = {self.group_size} is one; set group_size to a divisor, as in "
                f"{max(self.num_envs // 2, 1)}"
            )
        if self.group_size and self.num_envs % self.group_size:
            fits = [size for size in range(1, self.num_envs + 1) if self.num_envs % size == 0]
            raise ValueError(
                f"num_envs = {self.num_envs} is not divisible by group_size = {self.group_size}; "
                f"use 0 for all environments, or {min(fits, key=lambda size: abs(size - self.group_size))}"
            )


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
    clip_eps_high: Any = setting(0.28, "objective clip_higher: width of the clip interval above 1", _DAPO, low=0.0)
    kl_coef: Any = setting(3.0, "objective ppo_kl: weight of the KL penalty", "Stoix configs/system/ppo", low=0.0)
    kl_coef_init: Any = setting(
        1.0, "objectives ppo_adaptive_kl, ppo_clip_kl: weight of the KL penalty at the start", _OURS, low=0.0
    )
    kl_target: Any = setting(0.01, "the same: KL per update that the weight is led to", _PPO, low=0.0)
    value_error_max: Any = setting(10.0, "objective ppo_clip_kl: bound of the value's squared error", "RLlib", low=0.0)
    dpo_alpha: Any = setting(2.0, "objective dpo: how far good actions gain freely, above 0", _DPO, low=1e-6)
    dpo_beta: Any = setting(0.6, "objective dpo: how far bad actions lose freely, above 0", _DPO, low=1e-6)
    rho_max: Any = setting(1.0, "objective vtrace: cap of the importance ratio", _VTRACE, low=0.0)
    bapo_target: Any = setting(0.4, "objective bapo: share of good actions in the surrogate", _BAPO, low=0.0, high=1.0)
    bapo_low: Any = setting(0.6, "objective bapo: lower bound of the ratio, at first", _BAPO, low=0.0, high=1.0)
    bapo_low_max: Any = setting(0.9, "objective bapo: lower bound of the ratio, at most", _BAPO, low=0.0, high=1.0)
    bapo_high: Any = setting(1.2, "objective bapo: upper bound of the ratio, at first", _BAPO, low=1.0)
    bapo_high_max: Any = setting(3.0, "objective bapo: upper bound of the ratio, at most", _BAPO, low=1.0, high=100.0)
    empg_k: Any = setting(1.0, "objective empg: how much unsure steps learn less", _OURS, low=0.0)
    empg_bonus: Any = setting(0.05, "objective empg: weight of the bonus for leading to sure steps", _OURS)
    empg_bonus_k: Any = setting(1.0, "objective empg: how fast that bonus falls with entropy", _OURS, low=0.0)
    success_return: Any = setting(0.0, "objective bnpo: an episode with a higher return is a success", _OURS)
    risk_low: Any = setting(0.2, "objective risk_ppo: level below which lies the tail", _RISK, low=0.0, high=1.0)
    risk_high: Any = setting(0.8, "objective risk_ppo: level above which returns are one", _RISK, low=0.0, high=1.0)
    risk_tail: Any = setting(1.5, "objective risk_ppo: weight of the tail's mean; 0 ignores it", _RISK, low=0.0)
    prediction_coef: Any = setting(0.5, "rules of kind lpg: weight of the prediction's loss", _GROOVE, low=0.0)
    risk_rate: Any = setting(0.1, "objective risk_ppo: step of the quantile trackers", _RISK, low=0.0)


def on_policy_agent(
    env: Environment, config: PPOConfig, hp: PPOHparams, env_params: Any = None, objective: Objective | None = None
) -> Agent:
    """The actor-critic of `ppo` and `a2c`, without its loop: for evaluation, or another loop.

    Args and errors as in `ppo`.
    """
    params = env.default_params if env_params is None else env_params
    chosen = find_objective(config.objective)(config, hp) if objective is None else objective
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
    return on_policy_algorithm(on_policy_agent(env, config, hp, params, objective), env, config, params)


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


# The repository's settings, with 16 environments of 128 steps for one of 2048; values share the policy's full batches
# and its 10 epochs, where theirs have 5 epochs of minibatches of 128; the clip of values is not annealed.
MDPO_CONFIG = PPOConfig(
    objective="mdpo",
    total_steps=1_000_000,
    num_envs=16,
    num_steps=128,
    num_epochs=10,
    num_minibatches=1,
    normalize_advantage="batch",
    clip_value=True,
    normalize_obs=True,
    normalize_reward=True,
)
MDPO_HPARAMS = PPOHparams(learning_rate=3e-4, ent_coef=0.0)


def _check(config: PPOConfig, hp: PPOHparams) -> None:
    if config.objective == "risk_ppo":
        check_below(hp, "risk_low", "risk_high", equal=True)
    if config.objective == "bapo":
        check_below(hp, "bapo_low", "bapo_low_max", equal=True)
        check_below(hp, "bapo_high", "bapo_high_max", equal=True)


PRESETS: dict[str, Preset] = {
    "ppo": Preset(
        summary="proximal policy optimisation, clipped; discrete and continuous actions, MLP and CNN",
        reference="arXiv:1707.06347",
        config=PPOConfig(),
        hparams=PPOHparams(),
        agent=on_policy_agent,
        make=ppo,
        check=_check,
        overrides={
            # purejaxrl's brax_minatar.ipynb.
            "minatar": {
                "learning_rate": 5e-3,
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
        check=_check,
        overrides={"minatar": {"num_envs": 64, "activation": "relu", "hidden_sizes": (128,), "shared_torso": True}},
    ),
    "mdpo": Preset(
        summary="mirror descent policy optimisation, on-policy; discrete and continuous actions",
        reference="arXiv:2005.09814",
        config=MDPO_CONFIG,
        hparams=MDPO_HPARAMS,
        agent=on_policy_agent,
        make=ppo,
        check=_check,
        overrides={},
    ),
}
