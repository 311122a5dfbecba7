"""The suite of `experiments.benchmark_agents`: which agent runs where, with which settings, and from where they come.

The source of an entry is "preset" where nothing but its length is set here, so that `jaxrl config AGENT ENV` tells the
source of every setting; the name of a published configuration; or "ours", found by small sweeps on a CPU.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Scale = Literal["smoke", "cpu", "gpu"]
Settings = dict[str, Any]
NUM_SEEDS = {"smoke": 2, "cpu": 5, "gpu": 10}

# What an agent of the suite is: a preset, and the settings that make it another agent.
AGENTS: dict[str, tuple[str, Settings]] = {
    "ppo": ("ppo", {}),
    "ppo_gru": ("ppo", {"memory": "gru"}),
    "a2c": ("a2c", {}),
    "mdpo": ("mdpo", {}),
    "pqn": ("pqn", {}),
    "dqn": ("dqn", {}),
    "dqn_c51": ("dqn", {"distribution": "c51"}),
    "dqn_qr": ("dqn", {"distribution": "qr"}),
    "sac": ("sac", {}),
    "td3": ("td3", {}),
    "dsac_t": ("dsac_t", {}),
    "mdpo_off": ("mdpo_off", {}),
    "pmoe": ("pmoe", {}),
}

MINATAR = ("Breakout-MinAtar", "Asterix-MinAtar", "SpaceInvaders-MinAtar", "Freeway-MinAtar")
BRAX_SMALL = ("brax/inverted_pendulum", "brax/reacher")
BRAX_LARGE = ("brax/halfcheetah", "brax/ant", "brax/humanoid", "brax/walker2d")
GROUPS: dict[str, tuple[str, ...]] = {
    "classic, discrete": ("CartPole-v1", "Acrobot-v1"),
    "classic, continuous": ("MountainCarContinuous-v0", "Pendulum-v1"),
    "MinAtar": MINATAR,
    "Brax": (*BRAX_SMALL, *BRAX_LARGE),
}


class Reference(NamedTuple):
    """Returns that are scored 0 and 1, and what they are."""

    low: float
    high: float
    source: str


_BLINES = "0: random actions, mean of 1000 episodes; 1: PPO of gymnax-blines, as gymnax's README has it"
_SOLVED = "0: random actions, mean of 1000 episodes; 1: what counts as solved"
_BRAX = "axes of the figures in brax notebooks/training.ipynb"
REFERENCES = {
    "CartPole-v1": Reference(22.0, 475.0, _SOLVED),
    "Acrobot-v1": Reference(-498.0, -100.0, _SOLVED),
    "MountainCarContinuous-v0": Reference(-33.0, 90.0, _SOLVED),
    "Pendulum-v1": Reference(-1230.0, -200.0, _SOLVED),
    "Breakout-MinAtar": Reference(0.5, 28.0, _BLINES),
    "Asterix-MinAtar": Reference(0.5, 15.0, _BLINES),
    "SpaceInvaders-MinAtar": Reference(2.9, 131.0, _BLINES),
    "Freeway-MinAtar": Reference(0.0, 58.0, _BLINES),
    "brax/inverted_pendulum": Reference(0.0, 1000.0, "no return; an episode that lasts all its 1000 steps"),
    "brax/reacher": Reference(-100.0, 5.0, _BRAX),
    "brax/halfcheetah": Reference(0.0, 8000.0, _BRAX),
    "brax/ant": Reference(0.0, 8000.0, _BRAX),
    "brax/humanoid": Reference(0.0, 13000.0, _BRAX),
    "brax/walker2d": Reference(0.0, 5000.0, _BRAX),
}


class Entry(NamedTuple):
    """One agent in one environment.

    Attributes:
      env: its name.
      agent: from `AGENTS`.
      preset: the algorithm behind it.
      settings: all that differ from the preset's own for that environment.
      source: of the settings.
    """

    env: str
    agent: str
    preset: str
    settings: Settings
    source: str

    @property
    def key(self) -> str:
        """What its row and arrays are called."""
        return f"{self.env}/{self.agent}"


def entry(env: str, agent: str, settings: Settings, source: str = "preset") -> Entry:
    """An `Entry` with the settings that make the agent what it is."""
    preset, own = AGENTS[agent]
    return Entry(env, agent, preset, {**own, **settings}, source)


_PPO_ACROBOT = {"num_envs": 8, "learning_rate": 1e-3, "normalize_obs": True}
_PPO_PENDULUM: Settings = {
    "num_envs": 8,
    "num_steps": 256,
    "num_epochs": 10,
    "num_minibatches": 32,
    "learning_rate": 1e-3,
    "gamma": 0.9,
    "ent_coef": 0.0,
    "anneal_learning_rate": False,
    "normalize_obs": True,
    "normalize_reward": True,
}
_A2C = {"learning_rate": 3e-3, "gae_lambda": 0.95}

CARTPOLE, ACROBOT, MOUNTAIN_CAR, PENDULUM = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
)
CLASSIC = (
    entry(CARTPOLE, "ppo", {"total_steps": 102_400, "learning_rate": 3e-3}, "ours"),
    entry(CARTPOLE, "ppo_gru", {"total_steps": 204_800, "learning_rate": 1e-3}, "ours"),
    entry(CARTPOLE, "a2c", {"total_steps": 500_000, **_A2C}, "ours"),
    entry(CARTPOLE, "mdpo", {"total_steps": 500_000}),
    entry(CARTPOLE, "pqn", {"total_steps": 500_000}),
    entry(CARTPOLE, "dqn", {"total_steps": 100_000}),
    entry(CARTPOLE, "dqn_c51", {"total_steps": 100_000}),
    entry(CARTPOLE, "dqn_qr", {"total_steps": 100_000}),
    entry(ACROBOT, "ppo", {"total_steps": 307_200, **_PPO_ACROBOT}, "ours"),
    entry(ACROBOT, "ppo_gru", {"total_steps": 307_200, **_PPO_ACROBOT}, "ours"),
    entry(ACROBOT, "a2c", {"total_steps": 500_000, **_A2C, "normalize_obs": True}, "ours"),
    entry(ACROBOT, "mdpo", {"total_steps": 500_000}),
    entry(ACROBOT, "pqn", {"total_steps": 500_000}),
    entry(ACROBOT, "dqn", {"total_steps": 100_000}),
    entry(ACROBOT, "dqn_c51", {"total_steps": 100_000}),
    entry(ACROBOT, "dqn_qr", {"total_steps": 100_000}),
)
