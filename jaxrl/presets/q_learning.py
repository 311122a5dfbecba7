"""Ready-made DQN and its family."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from jaxrl.agents.q_learning import LOSSES
from jaxrl.agents.q_learning import dqn as dqn_agent
from jaxrl.presets.base import Preset
from jaxrl.presets.off_policy import OffPolicyConfig, off_policy_preset
from jaxrl.settings import check_at_least, check_below, check_choice, setting

_OURS = "jaxrl"
_REJAX = "rejax configs/gymnax"


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

    def priority_exponent(self, hp: Any) -> Any:
        """`priority_alpha`, where transitions are prioritised."""
        return hp.priority_alpha if self.prioritized else None


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


def _check(config: DQNConfig, hp: DQNHparams) -> None:
    if config.distribution == "c51":
        check_below(hp, "v_min", "v_max")


PRESETS: dict[str, Preset] = {
    "dqn": off_policy_preset(
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
    )._replace(check=_check),
}

dqn = PRESETS["dqn"].make
