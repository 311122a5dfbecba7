"""Mean-field control with known optima: PPO over decision rules, and gradients through the limit's dynamics.

    python -m experiments.mean_field_control [--scale smoke|cpu|gpu|paper] [--minutes 8] [--only lq two_room]

Trains `dec_pomfppo` (and `mfc_ppo` where agents see their state) on swarms of 200 agents, resumably, in
`runs/mean_field_control/SCALE/TASK`, then plays each seed's policy with few and many agents in the three modes of
execution and in the limit; and runs `mfc_pg` to the table of the linear-quadratic task and on the finite tasks. Writes
`<out>/SCALE.json` (per task and seed: returns in the limit beside the optimum, the sweep over sizes with intervals)
and `SCALE_sizes.png`. Settings are ours, in the style of Cui et al. 2024, arXiv:2307.06175: no figure of theirs
is reproduced.

Swarms without a known optimum (`SWARMS`) join as soon as an environment of their name exists.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxrl
from experiments.meta_training import ScaleName, in_pieces, trained
from jaxrl.files import read_json, to_json, write_json
from jaxrl.presets import MFCPGConfig, MFCPGHparams, mfc_pg
from jaxrl.provenance import provenance
from jaxrl.reporting import bootstrap
from jaxrl.swarm_evaluation import MODES, SwarmReturns, evaluate_swarms
from jaxrl_envs.mean_field.dynamics import exact
from jaxrl_envs.mean_field.lq import LQParams
from jaxrl_envs.mean_field.registry import make_mean_field


@dataclasses.dataclass(frozen=True)
class Task:
    """A swarm to train on; what `trained` takes.

    Attributes:
      env, preset: by name.
      settings: of the preset.
      total_steps: of the upper level.
      gamma: discount of returns, in training and in what is reported.
      limit: "exact", or "" for 10,000 agents in the place of the limit.
      optimum: of the return in the limit, or of what stands for it; `None` if nobody knows.
      goal: what every seed should reach in the limit; `None` if there is none.
      chunks: checkpoints.
    """

    env: str
    settings: dict[str, Any]
    total_steps: int
    preset: str = "dec_pomfppo"
    gamma: float = 1.0
    limit: str = ""
    optimum: float | None = None
    goal: float | None = None
    chunks: int = 5

    @property
    def all_settings(self) -> dict[str, Any]:
        """Settings of a run, with its length."""
        return {**self.settings, "total_steps": self.total_steps}


def _known(settings: dict[str, Any], steps: dict[str, int]) -> dict[str, Task]:
    """The tasks whose optimum is known; of `lq` the best affine rule's cost, and 10 % more as the goal."""
    lq = {**settings, "num_steps": 42}
    return {
        "two_room": Task(
            "jaxrl/mean_field_two_room", settings, steps["two_room"], limit="exact", optimum=-0.04, goal=-0.06
        ),
        "anti_crowding": Task(
            "jaxrl/mean_field_anti_crowding", settings, steps["anti_crowding"], limit="exact", optimum=-0.5, goal=-0.52
        ),
        "lq": Task("jaxrl/mean_field_lq", lq, steps["lq"], gamma=0.95, optimum=-7.27467823, goal=-8.0),
        "lq_full": Task(
            "jaxrl/mean_field_lq_full", lq, steps["lq"], preset="mfc_ppo", gamma=0.95, optimum=-6.1538743958
        ),
    }


def _swarms(settings: dict[str, Any], total_steps: int) -> dict[str, Task]:
    """Collective motion; each is trained where `jaxrl list envs` has its name."""
    names = ("vicsek", "kuramoto", "aggregation")
    return {name: Task(f"jaxrl/mean_field_{name}", settings, total_steps) for name in names}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the experiment is.

    Attributes:
      tasks: by name.
      seeds: of each.
      sizes, episodes: of the sweep over numbers of agents.
      gradient_updates: of `mfc_pg`.
    """

    tasks: dict[str, Task]
    seeds: int
    sizes: tuple[int, ...]
    episodes: int
    gradient_updates: int


_SMALL = {"num_envs": 64, "num_steps": 20, "hidden_sizes": (64, 64), "learning_rate": 1e-3}
_TINY = {"num_envs": 4, "num_steps": 4, "hidden_sizes": (8,)}
_SIZES = (2, 4, 6, 8, 10, 20, 30, 40, 50, 100, 200, 500, 1000, 10_000)
SCALES: dict[str, Scale] = {
    "smoke": Scale(
        _known({**_TINY, "learning_rate": 1e-3}, {"two_room": 64, "anti_crowding": 64, "lq": 336}), 2, (2, 5), 4, 20
    ),
    "cpu": Scale(
        _known(_SMALL, {"two_room": 100_000, "anti_crowding": 50_000, "lq": 600_000}) | _swarms(_SMALL, 1_000_000),
        5, (2, 5, 10, 50, 200, 1000), 100, 1500,
    ),
    # The preset's own sizes.
    "gpu": Scale(
        _known({}, {"two_room": 2_000_000, "anti_crowding": 1_000_000, "lq": 4_000_000}) | _swarms({}, 20_000_000),
        5, _SIZES, 500, 3000,
    ),
    # The published budget of the sibling paper's runs, 5,000 updates of 24,000 upper-level steps.
    "paper": Scale(
        _known({}, dict.fromkeys(("two_room", "anti_crowding", "lq"), 10_000_000)) | _swarms({}, 120_000_000),
        10, (*_SIZES, 1_000_000), 500, 3000,
    ),
}  # fmt: skip
TABLE = {0.0: 6.15387440, 0.25: 6.59421229, 0.5: 7.27467823, 1.0: 8.59586517, 2.0: 10.58235294, 5.0: 13.04108852}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run: a scale of `SCALES`, where training and results are kept, and after how long to stop."""

    scale: ScaleName = "cpu"
    only: tuple[str, ...] = ()
    runs: Path = Path("runs")
    out: Path = Path("experiments/results/mean_field_control")
    minutes: float | None = None


def main(config: Config) -> dict[str, np.ndarray]:
    """Trains, plays and writes; returns {"<task>/<mode>": [S, K, E], …}, empty if time was out."""
    return in_pieces(config.minutes, lambda: _main(config))


def _main(config: Config) -> dict[str, np.ndarray]:
    scale = SCALES[config.scale]
    known, file = jaxrl.list_envs(), config.out / f"{config.scale}.json"
    tasks = {name: task for name, task in scale.tasks.items() if task.env in known}
    if config.only:
        tasks = {name: task for name, task in tasks.items() if name in config.only}
    # A command for some of the tasks leaves the others' rows as they are, with their own provenance.
    rows: dict[str, Any] = {}
    gradients = gradient_results(scale.gradient_updates)
    arrays: dict[str, np.ndarray] = {}
    for name, task in tasks.items():
        folder = config.runs / "mean_field_control" / config.scale / name
        run = trained(task.preset, task, scale.seeds, folder)
        played = _played(run, task, scale)
        rows = read_json(file)["tasks"] if file.exists() else {}  # again: another command may have written its own
        rows[name] = _row(task, played) | {"provenance": provenance()}
        arrays |= {f"{name}/{mode}": np.stack([found.returns[mode] for found in played]) for mode in MODES}
        print(name, rows[name]["limit"], flush=True)
        about = {"scale": config.scale, "seeds": scale.seeds, "episodes": scale.episodes, "mfc_pg": gradients}
        write_json(file, about | {"tasks": rows} | provenance())
    draw(to_json(rows), config.out / f"{config.scale}_sizes.png")
    return arrays


def _played(run: jaxrl.Run, task: Task, scale: Scale) -> list[SwarmReturns]:
    policies = [run.policy(seed=seed) for seed in run.plan.seeds]
    agent, _, params = policies[0]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state, _ in policies))
    limit = run.env.with_dynamics(exact()) if task.limit == "exact" else None
    return evaluate_swarms(
        jax.random.key(1_000), agent, states, run.env, scale.sizes, MODES,
        num_episodes=scale.episodes, gamma=task.gamma, limit=limit, env_params=params,
    )  # fmt: skip


def _row(task: Task, played: list[SwarmReturns]) -> dict[str, Any]:
    """Of a task: returns in the limit by seed; for each mode and size the mean over seeds, with intervals over them."""
    limits = {mode: np.array([found.limit[mode].mean() for found in played]) for mode in MODES}
    sizes = {}
    for mode in MODES:
        values = np.array([[*found.returns[mode].mean(1), found.limit[mode].mean()] for found in played])
        estimate = bootstrap(values, lambda v, axis: v.mean(axis))
        sizes[mode] = {"mean": estimate.point, "low": estimate.low, "high": estimate.high}
    row = {
        "preset": task.preset,
        "settings": task.all_settings,
        "gamma": task.gamma,
        "optimum": task.optimum,
        "goal": task.goal,
        "limit": {mode: values.round(6) for mode, values in limits.items()},
        "sizes": {"num_agents": [*played[0].sizes, None], **sizes},
    }
    if task.goal is not None:
        row["reached"] = int((limits["central_greedy"] >= task.goal).sum())
    return row


def gradient_results(num_updates: int) -> dict[str, Any]:
    """What `mfc_pg` reaches: costs of the linear-quadratic task beside the best affine rules', and the finite tasks."""
    env, horizon = make_mean_field("lq", "gaussian"), 21
    config = MFCPGConfig(total_steps=horizon * num_updates, num_steps=horizon)

    def cost(noise: jax.Array) -> jax.Array:
        algorithm = mfc_pg(env, config, MFCPGHparams(gamma=0.95), LQParams(obs_noise=noise))
        return -jaxrl.train(jax.random.key(0), algorithm, config.num_updates)[1]["episode/discounted_return"][-1]

    costs = np.asarray(jax.jit(jax.vmap(cost))(jnp.array(list(TABLE))))
    table = [
        {"obs_noise": s, "cost": c, "best": best, "excess": float(c) - best}
        for (s, best), c in zip(TABLE.items(), costs, strict=True)
    ]
    found: dict[str, Any] = {"lq": table}
    for name, optimum in (("two_room", -0.04), ("anti_crowding", -0.5)):
        env = make_mean_field(name, "exact")
        config = MFCPGConfig(total_steps=10 * num_updates, num_steps=10)
        algorithm = mfc_pg(env, config, MFCPGHparams(learning_rate=0.1))
        _, metrics = jax.jit(lambda key: jaxrl.train(key, algorithm, config.num_updates))(jax.random.key(0))  # noqa: B023
        found[name] = {"return": float(metrics["episode/return"][-1]), "optimum": optimum}
    return found


def draw(rows: dict[str, Any], path: Path) -> None:
    """Return against the number of agents, by mode; the limit of each as a dotted line, the optimum in black."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, max(len(rows), 1), figsize=(4.2 * max(len(rows), 1), 3.8), layout="constrained")
    for axis, (name, row) in zip(np.atleast_1d(axes), rows.items(), strict=False):
        sizes = row["sizes"]["num_agents"][:-1]
        for i, mode in enumerate(MODES):
            mean, low, high = (np.asarray(row["sizes"][mode][part]) for part in ("mean", "low", "high"))
            axis.plot(sizes, mean[:-1], color=f"C{i}", label=mode.replace("_", " "))
            axis.fill_between(sizes, low[:-1], high[:-1], color=f"C{i}", alpha=0.2)
            axis.axhline(mean[-1], color=f"C{i}", linestyle=":", linewidth=1)
        if row["optimum"] is not None:
            axis.axhline(row["optimum"], color="black", linewidth=1, label="optimum in the limit")
        axis.set(xscale="log", xlabel="agents", title=name.replace("_", " "))
    np.atleast_1d(axes)[0].set_ylabel("return; bands: 95 % over seeds")
    np.atleast_1d(axes)[0].legend(fontsize=7)
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Config))
