"""Our agents beside rejax 0.1.3's: `python -m experiments.benchmarks.agents [--quick] [--agents dqn …] [--json PATH]`.

PPO, DQN and PQN on CartPole-v1, SAC and TD3 on Pendulum-v1, with the settings that rejax publishes for these
(configs/gymnax): same network, environments, buffer, batch, learning rate, and updates per step. Each side in processes
of its own, alternating, with its own default flags, no evaluation and no compilation cache. Ours goes through the
runner, as `run` and `run_sweep` do; rejax's `train` is compiled, for several seeds under `jax.vmap`, as its
documentation does. What is timed is training alone: buffers are filled before, on both sides, so that every timed
iteration learns. Environment steps and updates are read from counters in the final states of both sides; a difference
ends the benchmark.

Left as each side has them. Both: rejax resets inside gymnax's step and treats truncation as termination; ours resets
in its own wrapper, keeps the observation before, and bootstraps at truncation. rejax logs nothing; ours returns five to
twelve metrics per iteration. rejax clips every element of the gradient, and keeps optimiser states per leaf; ours clips
the global norm, over one vector of parameters. PPO: rejax takes an optimiser step for the actor and one for the critic
on each minibatch, ours one for both. PQN: rejax has Adam, ours RAdam. DQN, SAC, TD3: rejax draws each batch without
replacement, which sorts the whole buffer, and fills its buffer inside the training loop; ours draws with replacement,
all batches of an iteration at once, and fills its buffer in `init`. SAC:
rejax updates the actor first, then critics and temperature, and both sides move the targets once per iteration. TD3:
rejax's actor climbs the mean of its critics, ours the first; both take one actor step per two of the critics.
Compilation of ours is that of the initial state and of the update, plus the seconds that making the initial states
takes (filled buffers among it); that of rejax is of the whole training, nothing run.

A ratio is ours over theirs, of medians over repeats: speed above 1 and compilation below 1 are in our favour.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.harness import measure, median, peer_python, spread, write

OURS = ["-m", "experiments.benchmarks.ours"]
REJAX = "experiments/benchmarks/peers/rejax_agents.py"


class Pair(NamedTuple):
    """The same training for both sides.

    Attributes:
      env: name.
      ours, rejax: settings.
      updates_per_step: optimiser steps of the critic or Q-network, per environment step.
      steps: {seeds: environment steps of each agent in one measured piece}; about a second or more.
    """

    env: str
    ours: dict[str, Any]
    rejax: dict[str, Any]
    updates_per_step: float
    steps: dict[int, int]


PAIRS = {
    "ppo": Pair(
        "CartPole-v1",
        {
            "num_envs": 5,
            "num_steps": 100,
            "num_epochs": 5,
            "num_minibatches": 5,
            "activation": "tanh",
            "learning_rate": 7.5e-4,
            "anneal_learning_rate": False,
            "clip_value": True,
        },
        {
            "num_envs": 5,
            "num_steps": 100,
            "num_epochs": 5,
            "num_minibatches": 5,
            "agent_kwargs": {"activation": "tanh"},
            "learning_rate": 7.5e-4,
            "max_grad_norm": 0.5,
        },
        0.05,
        {1: 60_000, 16: 15_000},
    ),
    "dqn": Pair(
        "CartPole-v1",
        {
            "num_envs": 10,
            "num_gradient_steps": 5,
            "batch_size": 100,
            "buffer_size": 50_000,
            "fill_steps": 5_000,
            "activation": "swish",
            "target_period": 5,
        },
        {
            "agent": "DuelingQNetwork",
            "agent_kwargs": {"activation": "swish"},
            "num_envs": 10,
            "num_epochs": 5,
            "batch_size": 100,
            "buffer_size": 50_000,
            "fill_buffer": 5_000,
            "learning_rate": 1e-3,
            "max_grad_norm": 10,
            "polyak": 0.98,
            "exploration_fraction": 0.5,
        },
        0.5,
        {1: 5_000, 16: 1_000},
    ),
    "sac": Pair(
        "Pendulum-v1",
        {
            "num_envs": 1,
            "num_gradient_steps": 1,
            "batch_size": 256,
            "buffer_size": 10_000,
            "fill_steps": 256,
            "activation": "swish",
            "actor_learning_rate": 1e-2,
            "critic_learning_rate": 1e-2,
            "alpha_learning_rate": 1e-2,
            "tau": 0.02,
            "normalize_obs": True,
        },
        {
            "agent_kwargs": {"activation": "swish"},
            "num_envs": 1,
            "num_epochs": 1,
            "batch_size": 256,
            "buffer_size": 10_000,
            "fill_buffer": 256,
            "learning_rate": 1e-2,
            "polyak": 0.98,
            "normalize_observations": True,
        },
        1.0,
        {1: 2_000, 16: 250},
    ),
    "td3": Pair(
        "Pendulum-v1",
        {
            "num_envs": 1,
            "num_gradient_steps": 1,
            "batch_size": 100,
            "buffer_size": 10_000,
            "fill_steps": 1_000,
            "activation": "swish",
            "tau": 0.05,
            "exploration_noise": 0.15,
            "policy_noise": 0.1,
            "noise_clip": 0.25,
            "max_grad_norm": 100.0,
            "normalize_obs": True,
        },
        {
            "actor_kwargs": {"activation": "swish"},
            "critic_kwargs": {"activation": "swish"},
            "num_envs": 1,
            "num_epochs": 1,
            "batch_size": 100,
            "buffer_size": 10_000,
            "fill_buffer": 1_000,
            "learning_rate": 1e-3,
            "polyak": 0.95,
            "max_grad_norm": 100,
            "normalize_observations": True,
        },
        1.0,
        {1: 4_000, 16: 500},
    ),
    "pqn": Pair(
        "CartPole-v1",
        {
            "num_envs": 16,
            "num_steps": 128,
            "num_epochs": 5,
            "num_minibatches": 16,
            "hidden_sizes": (64, 64),
            "learning_rate": 3e-4,
            "anneal_learning_rate": False,
            "q_lambda": 0.9,
            "exploration_fraction": 0.5,
            "reward_scale": 1.0,
        },
        {
            "num_envs": 16,
            "num_steps": 128,
            "num_epochs": 5,
            "num_minibatches": 16,
            "learning_rate": 3e-4,
            "max_grad_norm": 10,
            "exploration_fraction": 0.5,
            "td_lambda": 0.9,
        },
        0.0390625,
        {1: 65_536, 16: 16_384},
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: one repeat.
      agents: names from `PAIRS`.
      seeds: numbers of agents trained side by side, 1 or 16.
      repeats: processes per side, agent and number of seeds.
      pieces: measured pieces per process, of which the median counts.
      json: where to write flat figures.
    """

    quick: bool = False
    agents: tuple[str, ...] = tuple(PAIRS)
    seeds: tuple[int, ...] = (1, 16)
    repeats: int = 3
    pieces: int = 5
    json: str | None = None


Rows = list[dict[str, Any]]  # what both scripts print, of each repeat


def check(agent: str, steps: int, ours: Rows, theirs: Rows) -> None:
    """Both sides have done what was asked, no more and no less.

    Raises:
      RuntimeError: otherwise.
    """
    pair = PAIRS[agent]
    expected = {"env_steps": steps, "updates": round(steps * pair.updates_per_step)}
    for side, rows in (("ours", ours), ("rejax", theirs)):
        for row in rows:
            counted = {name: row[name] for name in expected}
            if counted != expected:
                raise RuntimeError(f"{agent}: {side} did {counted} instead of {expected}")


def figures_of(agent: str, seeds: int, ours: Rows, theirs: Rows) -> dict[str, float]:
    """Flat figures of one agent and number of seeds: medians over repeats, and their ratios."""
    figures = {}
    for ratio, name in {"speed": "steps_per_second", "compile": "compile_seconds"}.items():
        figures[f"{ratio}_ratio_rejax_{agent}_{seeds}"] = median(ours, name) / median(theirs, name)
        figures[f"{name}_ours_{agent}_{seeds}"] = median(ours, name)
        figures[f"{name}_rejax_{agent}_{seeds}"] = median(theirs, name)
    return figures


def cells(agent: str, seeds: int, ours: Rows, theirs: Rows) -> list[str]:
    """The row of the table."""
    figures = figures_of(agent, seeds, ours, theirs)
    speeds = (f"{median(s, 'steps_per_second'):,.0f} ({spread(s, 'steps_per_second')})" for s in (ours, theirs))
    compiles = "/".join(f"{median(side, 'compile_seconds'):.1f}" for side in (ours, theirs))
    ratios = (f"{figures[f'{ratio}_ratio_rejax_{agent}_{seeds}']:.2f}" for ratio in ("speed", "compile"))
    counted = ours[0]["updates"] / ours[0]["env_steps"]
    return [agent, PAIRS[agent].env, str(seeds), f"{counted:.3g}", *speeds, compiles, *ratios]


def main(config: Config) -> dict[str, float]:
    """Prints the table, and returns the flat figures."""
    unknown = sorted(set(config.agents) - set(PAIRS))
    if unknown or not set(config.seeds) <= {1, 16}:
        sys.exit(f"agents: {', '.join(PAIRS)}; seeds: 1, 16; got {', '.join(unknown) or config.seeds}")
    peer = peer_python("rejax")
    figures: dict[str, float] = {}
    table = Table(
        "agent", "env", "seeds", "updates/step", "ours steps/s", "rejax steps/s", "compile s", "speed ratio",
        "compile ratio",
    )  # fmt: skip
    for agent in config.agents:
        pair = PAIRS[agent]
        for seeds in config.seeds:
            work = {"env": pair.env, "seeds": seeds, "total_steps": pair.steps[seeds], "chunks": config.pieces}
            ours: Rows = []
            theirs: Rows = []
            for _ in range(1 if config.quick else config.repeats):
                ours.append(measure(sys.executable, OURS, algorithm=agent, settings=pair.ours, **work))
                theirs.append(measure(peer, REJAX, algorithm=agent, settings=pair.rejax, **work))
            check(agent, pair.steps[seeds], ours, theirs)
            figures |= figures_of(agent, seeds, ours, theirs)
            figures[f"updates_per_step_{agent}"] = pair.updates_per_step
            row = cells(agent, seeds, ours, theirs)
            table.add_row(*row)
            print(" | ".join(row), file=sys.stderr)
            write(config.json, figures)  # so far, lest an interruption loses all
    Console(width=160).print(table)
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config))
