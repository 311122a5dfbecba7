"""MAP-Elites, PGA-, DCG- and DCRL-MAP-Elites fill archives of policies with the same number of episodes.

    python -m experiments.dcg_map_elites [--scale smoke|cpu|gpu|paper] [--tasks jaxrl/point_mass …] [--minutes 8]

All four count every episode, the first population and those that only the agent sees included. Trains every seed
(`runs/qd/SCALE/…`, resumable: with `--minutes` the command stops by itself, and the same command goes on), evaluates
the archives again, and writes for every task `<out>/SCALE_TASK.json` (all seeds, means with 95 % bootstrap intervals,
Mann-Whitney tests with Holm's correction, settings, provenance), `.npz` (curves), `_curves.png` and `_archives.png`.

On PointMass standing still pays most, so that whoever climbs one critic stands still, and a policy for each place needs
to be told where to go. The published budget is 1,000,000 episodes of Brax tasks (scale `paper`, Faldor et al. 2025);
their physics are gone from Brax, so no published figure can be met or missed here.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from experiments import meta_training, qd_figures
from experiments.meta_training import in_pieces, origin_of, trained
from jaxrl import Run, make_env
from jaxrl.checkpoint import CheckpointError
from jaxrl.evo.evolve import in_chunks
from jaxrl.files import read_npz, write_json, write_npz
from jaxrl.plan import make_plan, programs
from jaxrl.presets import find_preset
from jaxrl.presets.quality_diversity import archive_evaluation, bounded_behaviour, told_individuals
from jaxrl.provenance import provenance
from jaxrl.qd.archive import Archive
from jaxrl.qd.metrics import distillation, evaluate_again, reproducibility
from jaxrl.reporting import bootstrap
from jaxrl.runtime import use_compilation_cache

LABELS = {
    "map_elites": "ME", "pga_map_elites": "PGA-ME", "dcg_map_elites": "DCG-ME", "dcrl_map_elites": "DCRL-ME",
}  # fmt: skip
JUDGED = ("coverage", "qd_score", "max_fitness")
CHUNK = 4096  # individuals that are evaluated again at once


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is run of one task.

    Attributes:
      evaluations: episodes of each run, at most.
      offspring: that enter the archive per iteration, and the first population.
      seeds: of each algorithm.
      settings: of all algorithms that have them.
      again: episodes in which each individual is evaluated again.
      chunks: checkpoints.
    """

    evaluations: int
    offspring: int = 256
    seeds: int = 20
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    again: int = 512
    chunks: int = 100


# Networks, updates and gradient steps of the specification of PointMass-Omni; nothing is ever forgotten.
POINT_MASS: dict[str, Any] = {
    "critic_hidden_sizes": (64, 64), "num_agent_updates": 300, "num_pg_steps": 30, "buffer_size": 128_000,
}  # fmt: skip
# A tenth of the published learning, for a five-hundredth of the episodes.
SMALL: dict[str, Any] = {"num_agent_updates": 300, "num_pg_steps": 30, "num_cells": 256, "buffer_size": 400_000}
TASKS = (
    "brax/ant_omni", "brax/anttrap_omni", "brax/humanoid_omni", "brax/walker2d_uni", "brax/halfcheetah_uni",
    "brax/ant_uni", "brax/humanoid_uni",
)  # fmt: skip
TINY: dict[str, Any] = {**POINT_MASS, "num_agent_updates": 20, "num_pg_steps": 3, "episode_steps": 10}
SCALES: dict[str, dict[str, Scale]] = {
    "smoke": {"jaxrl/point_mass": Scale(96, 16, 2, TINY, again=2, chunks=2)},
    "cpu": {
        "jaxrl/point_mass": Scale(1_984, 64, 10, POINT_MASS, again=32, chunks=4),
        "brax/ant_omni": Scale(1_984, 64, 3, SMALL, again=4, chunks=4),
        "brax/walker2d_uni": Scale(1_984, 64, 3, SMALL | {"episode_steps": 250}, again=4, chunks=4),
    },
    "gpu": {task: Scale(100_000, seeds=3, again=32, chunks=20) for task in ("brax/ant_omni", "brax/walker2d_uni")},
    "paper": {task: Scale(1_000_000) for task in TASKS},
}


@dataclasses.dataclass(frozen=True)
class Config(meta_training.Config):
    """As of `experiments.lpg`.

    Attributes:
      tasks: those of the scale that are run; none is all.
      algorithms: of `LABELS`; fewer are compared with each other only.
      evaluations: episodes of each run; by default the scale's, and checkpoints as far apart as there.
      again: episodes in which each individual is evaluated again, by default the scale's; 0 leaves that out.
    """

    tasks: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = tuple(LABELS)
    evaluations: int | None = None
    again: int | None = None

    def of(self, scale: Scale) -> Scale:
        """The scale with what was asked for in its place."""
        evaluations = self.evaluations or scale.evaluations
        again = scale.again if self.again is None else self.again
        chunks = max(2, round(scale.chunks * evaluations / scale.evaluations))
        return dataclasses.replace(scale, evaluations=evaluations, again=again, chunks=chunks)

    out: Path = Path("experiments/results/dcg_map_elites")


@dataclasses.dataclass(frozen=True)
class Asked:
    """A run as `trained` takes it."""

    env: str
    all_settings: dict[str, Any]
    chunks: int


def operators(preset: str, offspring: int) -> dict[str, int]:
    """How many offspring come from which operator, as the papers have it for 256."""
    half, quarter = offspring // 2, offspring // 4
    return {
        "map_elites": {"num_ga": offspring},
        "pga_map_elites": {"num_ga": half, "num_pg": half - 1, "num_injected": 1},
        "dcg_map_elites": {"num_ga": half, "num_pg": half, "num_probes": quarter},
        "dcrl_map_elites": {"num_ga": half, "num_pg": quarter, "num_injected": quarter},
    }[preset]


def asked(preset: str, env: str, scale: Scale) -> Asked:
    """The settings of a run, its length included."""
    chosen = find_preset(preset)
    known = {field.name for field in dataclasses.fields(chosen.config)}
    given = {**chosen.overrides.get(env, {}), **scale.settings, **operators(preset, scale.offspring)}
    given |= {"num_initial": scale.offspring}
    given = {name: value for name, value in given.items() if name in known}
    config = dataclasses.replace(chosen.config, **given)
    iterations = (scale.evaluations - config.num_initial) // config.num_evaluations
    return Asked(env, {**given, "total_steps": iterations * config.steps_per_update}, scale.chunks)


def settings_of(preset: str, env: str, scale: Scale) -> tuple[Any, Any]:
    """Configuration and numbers of a run."""
    params = make_env(env).default_params
    plan = make_plan(preset, env, 1, asked(preset, env, scale).all_settings, {}, params)
    (program,) = programs(plan, find_preset(preset), params)
    return program.config, find_preset(preset).hparams


def again(run: Run, preset: str, env: str, scale: Scale) -> dict[str, np.ndarray]:
    """What is to be expected of the archives, and of conditioned actors in their place: [S]; kept with the run."""
    config, _ = settings_of(preset, env, scale)
    one, rows = jax.jit(functools.partial(_again, run.env, config, scale.again)), []
    for seed in run.plan.seeds:
        file = run.path / f"again_{seed:02d}.npz"
        if not file.exists():
            write_npz(file, jax.tree.map(np.asarray, one(jax.random.key(10_000 + seed), run.state(seed=seed))))
        rows.append(read_npz(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def _again(env: Any, config: Any, num: int, key: jax.Array, state: Any) -> dict[str, jax.Array]:
    keys = jax.random.split(key, 3)
    evaluate, spread, archive = archive_evaluation(env, config), in_chunks(CHUNK), state.archive
    found = reproducibility(archive, evaluate_again(keys[0], archive.genotypes, evaluate, num, spread))
    if not getattr(config, "conditioned", False):
        return found
    agent = state.emitter.agent
    by_cell = told_individuals(env, config, None, agent, archive.centroids)
    by_elite = told_individuals(env, config, None, agent, archive.descriptors)
    expected = reproducibility(archive, evaluate_again(keys[1], by_cell, evaluate, num, spread))
    once = evaluate_again(keys[2], by_elite, evaluate, 1, spread)
    told = distillation(archive, jax.tree.map(lambda leaf: leaf[:, 0], once))
    return found | {f"actor_{n}": v for n, v in expected.items()} | {f"distilled_{n}": v for n, v in told.items()}


def compared(values: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Two-sided Mann-Whitney tests of all pairs, p-values corrected by Holm's method over them.

    Args:
      values: {algorithm: [S]}.
    """
    from scipy.stats import mannwhitneyu

    names = list(values)
    pairs = [(one, other) for i, one in enumerate(names) for other in names[i + 1 :]]
    raw = np.array([mannwhitneyu(values[one], values[other]).pvalue for one, other in pairs])
    order = np.argsort(raw)
    steps = np.minimum(1.0, (len(raw) - np.arange(len(raw))) * raw[order])
    corrected = np.empty(len(raw))
    corrected[order] = np.maximum.accumulate(steps)
    rows = zip(pairs, raw, corrected, strict=True)
    return {f"{LABELS[a]} / {LABELS[b]}": {"p": float(p), "p_holm": float(q)} for (a, b), p, q in rows}


def main(config: Config) -> dict[str, np.ndarray]:
    """Trains, evaluates and draws; returns the arrays that are written, empty if time was out."""
    tasks = SCALES[config.scale]
    unknown = sorted(set(config.tasks) - set(tasks))
    if unknown:
        raise ValueError(f"tasks = {unknown}: scale {config.scale} has {', '.join(tasks)}")
    if unknown := sorted(set(config.algorithms) - set(LABELS)):
        raise ValueError(f"algorithms = {unknown}: expected {', '.join(LABELS)}")

    def work() -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for env in config.tasks or tasks:
            arrays |= task(config, env, tasks[env])
        return arrays

    return in_pieces(config.minutes, work)


def task(config: Config, env: str, scale: Scale) -> dict[str, np.ndarray]:
    """All algorithms on one task."""
    short, seeds = env.split("/")[-1], config.seeds or scale.seeds
    whole, scale = scale, config.of(scale)
    curves: dict[str, dict[str, np.ndarray]] = {}
    rows: dict[str, Any] = {}
    archives: dict[str, Archive] = {}
    labels = {preset: LABELS[preset] for preset in config.algorithms}
    for preset, label in labels.items():
        run = trained(preset, asked(preset, env, scale), seeds, config.runs / "qd" / config.scale / short / preset)
        metrics = {name: run.results.metric(f"archive/{name}")[0] for name in JUDGED}
        own, _ = settings_of(preset, env, scale)
        at = own.num_initial + own.num_evaluations * np.arange(1, own.num_updates + 1)
        curves[preset] = {"evaluations": at, **metrics}
        expected = again(run, preset, env, scale) if scale.again else {}
        last = {name: values[:, -1] for name, values in metrics.items()}
        rows[preset] = {
            "evaluations": int(at[-1]),
            "seeds": list(run.plan.seeds),
            **{name: _row(values) for name, values in {**last, **expected}.items()},
            **{name: run.results.info[name] for name in ("compile_seconds", "train_seconds")},
            "provenance": origin_of(run),
            "settings": asked(preset, env, scale).all_settings,
        }
        middle = int(np.argsort(last["qd_score"])[len(last["qd_score"]) // 2])
        try:
            archives[label] = run.state(seed=run.plan.seeds[middle]).archive
        except CheckpointError as error:  # buffers are large, so checkpoints may not have come along from elsewhere
            print(f"no picture of {label}'s archive: {error}", flush=True)
        print(f"{short:12} {label:8} " + ", ".join(f"{n} {rows[preset][n]['mean']:.4g} "
              f"{rows[preset][n]['interval_95']}" for n in JUDGED), flush=True)  # fmt: skip
    tests = {name: compared({p: curves[p][name][:, -1] for p in labels}) for name in ("coverage", "qd_score")}
    about = {
        "scale": config.scale, "env": env, "episodes": scale.evaluations, "episodes_of_the_scale": whole.evaluations,
        "episodes_again": scale.again, "intervals": "95 %, bootstrap of the mean over seeds",
    }  # fmt: skip
    result = {**about, "algorithms": rows, "mann_whitney": tests, "gate": gate(rows), **provenance()}
    fewer = "" if scale.evaluations == whole.evaluations else f"_{scale.evaluations}"
    stem = config.out / f"{config.scale}_{short}{fewer}"
    arrays = {f"{short}/{p}/{n}": np.asarray(v, np.float32) for p, c in curves.items() for n, v in c.items()}
    write_json(stem.with_suffix(".json"), result)
    write_npz(stem.with_suffix(".npz"), arrays)
    low, high = bounded_behaviour(make_env(env), make_env(env).default_params)[1:]
    where = f"{env}, {seeds} seeds, {scale.evaluations:,} episodes"
    qd_figures.draw_curves({LABELS[p]: curve for p, curve in curves.items()}, f"{stem}_curves.png", where)
    if archives:
        qd_figures.draw_archives(archives, low, high, f"{stem}_archives.png", f"{where}: each one's median run")
    return arrays


def gate(rows: dict[str, Any]) -> dict[str, bool]:
    """Is DCRL-ME above PGA-ME above ME, with intervals that do not meet? Nothing if one is missing."""
    if not {"dcrl_map_elites", "pga_map_elites", "map_elites"} <= set(rows):
        return {}
    order = [rows[name] for name in ("dcrl_map_elites", "pga_map_elites", "map_elites")]
    return {
        name: all(a[name]["interval_95"][0] > b[name]["interval_95"][1] for a, b in zip(order, order[1:], strict=False))
        for name in ("coverage", "qd_score")
    }


def _row(values: np.ndarray) -> dict[str, Any]:
    estimate = bootstrap(values, np.mean)
    interval = [float(f"{float(bound):.6g}") for bound in (estimate.low, estimate.high)]
    return {"mean": float(estimate.point), "interval_95": interval, "values": [float(f"{v:.6g}") for v in values]}


if __name__ == "__main__":
    use_compilation_cache()
    main(tyro.cli(Config))
