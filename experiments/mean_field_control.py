"""Mean-field control with known optima: PPO over decision rules, and gradients through the limit's dynamics.

    python -m experiments.mean_field_control [--scale smoke|cpu|gpu|paper] [--minutes 8] [--only vicsek vicsek_ippo]

Trains `dec_pomfppo` (and `mfc_ppo` where agents see their state) on swarms of 200 agents, resumably, in
`runs/mean_field_control/SCALE/TASK`, then plays each seed's policy with few and many agents in the three modes of
execution and in the limit; and runs `mfc_pg` to the table of the linear-quadratic task and on the finite tasks. Writes
`<out>/SCALE.json` (per task and seed: returns in the limit beside the optimum, the sweep over sizes with intervals)
and `SCALE_sizes.png`. Settings are ours, in the style of Cui et al. 2024, arXiv:2307.06175: no figure of theirs
is reproduced.

Swarms without a known optimum (vicsek, kuramoto, aggregation) are trained likewise, and the agents themselves at the
same number of steps (vicsek_ippo, vicsek_mappo, ...; at the scale of CPUs in swarms of 50, with networks of 32 x 32 and
two epochs, since each of their steps trains every agent). Beside the trained stand agents that rest, agents that act at
random and a rule by hand; `SCALE_swarms.png` has returns against sizes, `SCALE_<swarm>_film.png` an episode and
`SCALE_<swarm>_time.png` what is measured at each step.
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
from experiments.swarm_motion import MEASURES, compared, draw_over_time, draw_sizes, film, policies, size_rows
from jaxrl.files import read_json, to_json, write_json
from jaxrl.presets import MFCPGConfig, MFCPGHparams, mfc_pg
from jaxrl.provenance import provenance
from jaxrl.reporting import bootstrap
from jaxrl.swarm_evaluation import AGENT_MODES, MODES, SwarmReturns, evaluate_swarms
from jaxrl.swarm_plots import plot_sizes
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
      swarm: of `swarm_motion.MEASURES`; "" where the optimum is known.
      modes: of execution, for the sweep.
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
    swarm: str = ""
    modes: tuple[str, ...] = MODES
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


def _swarms(settings: dict[str, Any], total_steps: int, agents: dict[str, Any] | None = None) -> dict[str, Task]:
    """Collective motion; and its agents for themselves, with `agents` on top of the settings."""
    tasks = {}
    for name in MEASURES:
        # Few agents stand in a small disc: at scales below "gpu" it is wider.
        chosen = {k: v for k, v in settings.items() if k != "env.radius" or name != "aggregation"}
        tasks[name] = Task(f"jaxrl/mean_field_{name}", chosen, total_steps, swarm=name, modes=MODES[:3])
        for preset in ("ippo", "mappo"):
            own = {**chosen, **(agents or {})}
            env = f"jaxrl/swarm_{name}"
            tasks[f"{name}_{preset}"] = Task(env, own, total_steps, preset=preset, swarm=name, modes=AGENT_MODES)
    return tasks


def _some(tasks: dict[str, Task], names: tuple[str, ...]) -> dict[str, Task]:
    return {name: tasks[name] for name in names}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the experiment is.

    Attributes:
      tasks: by name.
      seeds: of each.
      sizes, episodes: of the sweep over numbers of agents.
      gradient_updates: of `mfc_pg`.
      swarm_sizes, swarm_episodes: as sizes and episodes, of swarms without a known optimum.
      many: agents that stand for the limit.
    """

    tasks: dict[str, Task]
    seeds: int
    sizes: tuple[int, ...]
    episodes: int
    gradient_updates: int
    swarm_sizes: tuple[int, ...] = (2, 5)
    swarm_episodes: int = 4
    many: int = 10_000


_SMALL = {"num_envs": 64, "num_steps": 20, "hidden_sizes": (64, 64), "learning_rate": 1e-3}
_TINY = {"num_envs": 4, "num_steps": 4, "hidden_sizes": (8,)}
# A single step hardly orders a swarm, and what a rule does later is soon another rule's: a short memory of rewards.
_MOTION = {**_SMALL, "learning_rate": 2e-3, "gamma": 0.9, "env.radius": 0.5, "env.max_steps": 100}
_AGENTS = {"num_envs": 16, "num_steps": 50, "hidden_sizes": (32, 32), "num_epochs": 2}
_SIZES = (2, 4, 6, 8, 10, 20, 30, 40, 50, 100, 200, 500, 1000, 10_000)
_KNOWN = ("two_room", "anti_crowding", "lq")
_SMOKE = {**_TINY, "env.max_steps": 4}
SCALES: dict[str, Scale] = {
    "smoke": Scale(
        _some(
            _known({**_TINY, "learning_rate": 1e-3}, {"two_room": 64, "anti_crowding": 64, "lq": 336})
            | _swarms(_SMOKE, 32),
            ("two_room", "vicsek", "vicsek_ippo"),
        ),
        2, (2, 5), 4, 20, many=5,
    ),
    "cpu": Scale(
        _known(_SMALL, {"two_room": 100_000, "anti_crowding": 50_000, "lq": 600_000})
        | _swarms(_MOTION, 200_000, _AGENTS),
        5, (2, 5, 10, 50, 200, 1000), 100, 1500, (2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000), 20,
    ),
    # The preset's own sizes.
    "gpu": Scale(
        _known({}, {"two_room": 2_000_000, "anti_crowding": 1_000_000, "lq": 4_000_000})
        | _swarms({"gamma": 0.9}, 20_000_000),
        5, _SIZES, 500, 3000, _SIZES, 200,
    ),
    # The published budget of the sibling paper's runs, 5,000 updates of 24,000 upper-level steps.
    "paper": Scale(
        _known({}, dict.fromkeys(_KNOWN, 10_000_000)) | _swarms({}, 120_000_000),
        10, (*_SIZES, 1_000_000), 500, 3000, (*_SIZES, 1_000_000), 100,
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
    file = config.out / f"{config.scale}.json"
    unknown = set(config.only) - set(scale.tasks)
    if unknown:
        raise ValueError(f"unknown tasks {sorted(unknown)}; scale {config.scale} has {', '.join(scale.tasks)}")
    tasks = {name: task for name, task in scale.tasks.items() if not config.only or name in config.only}
    # A command for some of the tasks leaves the others' rows as they are, with their own provenance.
    rows: dict[str, Any] = {}
    gradients: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, task in tasks.items():
        folder = config.runs / "mean_field_control" / config.scale / name
        run = trained(task.preset, task, scale.seeds, folder)
        num_agents = rows_at(file).get(task.swarm, {}).get("compared", {}).get("num_agents", 200)
        row, found = _judged(task, run, scale, config.out / f"{config.scale}_{name}", num_agents)
        gradients = gradients or _gradients(file, scale)  # not before the runs, which take all cores if they come first
        about = {"preset": task.preset, "settings": task.all_settings, "gamma": task.gamma}
        rows = rows_at(file)  # again: another command may have written its own
        rows[name] = about | row | {"provenance": provenance()}
        arrays |= {f"{name}/{mode}": values for mode, values in found.items()}
        print(name, row.get("limit"), row.get("compared"), flush=True)
        about = {"scale": config.scale, "seeds": scale.seeds, "episodes": scale.episodes, "mfc_pg": gradients}
        write_json(file, about | {"tasks": rows} | provenance())
    rows = to_json(rows)
    draw({name: row for name, row in rows.items() if "optimum" in row}, config.out / f"{config.scale}_sizes.png")
    draw_sizes(rows, config.out / f"{config.scale}_swarms.png")
    return arrays


def rows_at(file: Path) -> dict[str, Any]:
    """Of every task that was run before."""
    return read_json(file)["tasks"] if file.exists() else {}


def _gradients(file: Path, scale: Scale) -> dict[str, Any]:
    """`gradient_results`; they have no chance in them, so they are computed once."""
    known = read_json(file).get("mfc_pg") if file.exists() else None
    return known or gradient_results(scale.gradient_updates)


def _judged(
    task: Task, run: jaxrl.Run, scale: Scale, stem: Path, num_agents: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The sweep over sizes; of swarms also the comparison, by `num_agents` where agents learnt, and pictures."""
    played = _played(run, task, scale)
    row, found = _row(task, played), {m: np.stack([one.returns[m] for one in played]) for m in task.modes}
    if task.swarm and task.modes == AGENT_MODES:
        row["num_agents"] = run.env.num_agents
        row["compared"], _ = compared(task.swarm, run, scale.swarm_episodes, num_agents)
    elif task.swarm:
        row["compared"], curves = compared(task.swarm, run, scale.swarm_episodes)
        film(task.swarm, run, stem.with_name(f"{stem.name}_film.png"))
        draw_over_time(task.swarm, curves, stem.with_name(f"{stem.name}_time.png"))
    return row, found


def _played(run: jaxrl.Run, task: Task, scale: Scale) -> list[SwarmReturns]:
    agent, states, params = policies(run)
    limit = run.env.with_dynamics(exact()) if task.limit == "exact" else None
    sizes, episodes = (
        (scale.swarm_sizes, scale.swarm_episodes) if task.swarm else (scale.sizes, scale.episodes)
    )  # fmt: skip
    return evaluate_swarms(
        jax.random.key(1_000), agent, states, run.env, sizes, task.modes,
        num_episodes=episodes, gamma=task.gamma, limit=limit, env_params=params, many=scale.many,
    )  # fmt: skip


def _row(task: Task, played: list[SwarmReturns]) -> dict[str, Any]:
    """Of a task: returns in the limit by seed; for each mode and size the mean over seeds, with intervals over them."""
    limits = {mode: np.array([found.limit[mode].mean() for found in played]) for mode in task.modes}
    sizes = {}
    for mode in task.modes:
        values = np.array([[*found.returns[mode].mean(1), found.limit[mode].mean()] for found in played])
        estimate = bootstrap(values, lambda v, axis: v.mean(axis))
        sizes[mode] = {"mean": estimate.point, "low": estimate.low, "high": estimate.high}
    row: dict[str, Any] = {
        "limit": {mode: values.round(6) for mode, values in limits.items()},
        "sizes": {"num_agents": [*played[0].sizes, None], **sizes},
    }
    if not task.swarm:
        row |= {"optimum": task.optimum, "goal": task.goal}
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
    """Return against the number of agents, by mode; the limit of each as a band, the optimum in black."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, max(len(rows), 1), figsize=(4.2 * max(len(rows), 1), 3.8), layout="constrained")
    for axis, (name, row) in zip(np.atleast_1d(axes), rows.items(), strict=False):
        plot_sizes(size_rows(row), title=name.replace("_", " "), axes=axis)
        if row["optimum"] is not None:
            axis.axhline(row["optimum"], color="black", linewidth=1, label="optimum in the limit")
        axis.legend(fontsize=7)
    figure.supxlabel("bands: 95 % over seeds, which play the same episodes", fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Config))
