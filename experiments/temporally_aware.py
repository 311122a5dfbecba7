"""Learned policy gradients that know how much of a life is over (TA-LPG), evolved beside ones that do not (LPG).

    python -m experiments.temporally_aware [--scale smoke|cpu|gpu|paper] [--minutes 8]

Evolves both over whole lifetimes (`runs/ta_lpg/SCALE`, `runs/lpg_evolved/SCALE`, resumable: with `--minutes` the
command stops by itself, and the same command goes on), then lets every rule train new agents for lifetimes of several
lengths, those of evolution and longer ones, on the same held-out levels. Writes `<out>/SCALE.json` (returns with
intervals, settings, provenance), `.npz`, `_evolution.png`, and what such rules are looked at by:

- `_slopes.png`: how far, when, a TA-LPO rule lets the policy move. The rule is that of `experiments.drift` at the same
  scale: a run in the same `--runs` is taken as it is, else it is evolved here;
- `_schedules.png`: size of the policy's targets, and entropy of policies, over lives of several lengths;
- `_horizons.png`: return after the lifetime, against its length.

No published figure is claimed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import jaxrl
from experiments import meta_training
from experiments.drift import evolved_drift
from experiments.evolved_training import Evolved, EvolvedScale, evolved_rules, fitness_curve, settings_of
from experiments.meta_figures import draw_curves
from experiments.meta_training import estimates, in_pieces
from jaxrl.files import read_npz, write_json, write_npz
from jaxrl.lifetime_plots import LifetimeTraces, lifetime_traces, plot_horizons, plot_schedules
from jaxrl.meta_scores import crossed_bootstrap
from jaxrl.presets import MetaConfig, MetaHparams
from jaxrl.provenance import provenance
from jaxrl.rule_plots import plot_ratio_slopes, ratio_slopes
from jaxrl.runtime import use_compilation_cache

# folder in `runs`: label, time features
RULES = {"ta_lpg": ("TA-LPG", "paper"), "lpg_evolved": ("LPG", "none")}


@dataclasses.dataclass(frozen=True)
class LifetimeScale:
    """How large the experiment is.

    Attributes:
      training: of TA-LPG; LPG's is the same without time.
      lifetimes: in which rules are tested, in updates.
      num_levels: held-out ones.
    """

    training: EvolvedScale
    lifetimes: tuple[int, ...]
    num_levels: int


SCALES: dict[str, LifetimeScale] = {
    "smoke": LifetimeScale(
        EvolvedScale(
            "jaxrl/grid_debug",
            {"num_pairs": 2, "population_batch": 0, "noise_batch": 0, "num_envs": 4, "num_steps": 5, "lifetime": 4,
             "width": 8, "evaluation_episodes": 4, "initial": "random"},
            generations=4, meta_seeds=1, chunks=2, preset="ta_lpg",
        ),
        lifetimes=(2, 4), num_levels=4,
    ),
    # Levels of 3 x 3 and 4 x 4 cells and lives of 5 to 50 updates. Few generations, hence a small core, and rates that
    # the publication does not need.
    "cpu": LifetimeScale(
        EvolvedScale(
            "jaxrl/grid_debug_vrandlife",
            {"num_pairs": 16, "population_batch": 0, "noise_batch": 0, "num_envs": 8, "num_steps": 10, "lifetime": 50,
             "width": 16, "evaluation_episodes": 16, "meta_learning_rate": 0.03, "meta_learning_rate_decay": 0.99},
            generations=100, meta_seeds=1, chunks=10, preset="ta_lpg",
        ),
        lifetimes=(5, 10, 20, 50, 100), num_levels=64,
    ),
    # An eighth of the published population.
    "gpu": LifetimeScale(
        EvolvedScale(
            "jaxrl/grid_all_vrandlife", {"num_pairs": 64, "population_batch": 0, "noise_batch": 0, "width": 64},
            generations=500, meta_seeds=1, chunks=250, preset="ta_lpg",
        ),
        lifetimes=(10, 25, 50, 100, 250, 500), num_levels=128,
    ),
    # The release's: 2,500 generations of 512 pairs, lives of 10 to 250 updates.
    "paper": LifetimeScale(
        EvolvedScale("jaxrl/grid_all_vrandlife", {}, generations=2500, meta_seeds=1, chunks=2500, preset="ta_lpg"),
        lifetimes=(10, 25, 50, 100, 250, 500), num_levels=256,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(meta_training.Config):
    """What is run."""

    out: Path = Path("experiments/results/temporally_aware")


def main(config: Config) -> dict[str, np.ndarray]:
    """Evolves and tests; returns the arrays that are written, empty if time was out."""
    return in_pieces(config.minutes, lambda: _main(config))


def _main(config: Config) -> dict[str, np.ndarray]:
    scale = SCALES[config.scale]
    found, traces = {}, {}
    for name, (label, features) in RULES.items():
        training = scale.training.changed(time_features=features)
        found[label] = evolved_rules(training, config.seeds, config.runs / name / config.scale)
        traces[label] = _tested(found[label], scale)
    curves = {label: fitness_curve(evolved.run.results) for label, evolved in found.items()}
    arrays = {f"{label}/{n}": np.asarray(v) for label, trace in traces.items() for n, v in trace._asdict().items()}
    for label, (generations, estimate) in curves.items():
        arrays |= {f"{label}/generations": generations} | estimates(f"{label}/evolution", estimate)
    _draw(config, curves, traces)
    rows = table(traces)
    write_npz(config.out / f"{config.scale}.npz", arrays)
    write_json(config.out / f"{config.scale}.json", _report(config, found, rows))
    for lifetime, row in rows.items():
        gain = row["gain"]
        print(f"lifetime {lifetime:>4}: TA-LPG {row['TA-LPG']['mean']:.3f}, LPG {row['LPG']['mean']:.3f}, "
              f"gain {gain['mean']:.3f} {gain['interval_95']}", flush=True)  # fmt: skip
    return arrays


def _tested(evolved: Evolved, scale: LifetimeScale) -> LifetimeTraces:
    """Lives under all rules of a run, rule by rule: leaves [R, …] but for `lifetime`."""
    # Of agents only; what a meta-gradient would need has no say here.
    config = settings_of(MetaConfig, evolved.run.plan.settings, total_steps=MetaConfig().total_steps, num_inner=1)
    hp = MetaHparams(**{n: getattr(scale.training.hparams, n) for n in _SHARED_NUMBERS})
    parts = []
    for number, file in enumerate(evolved.rules):
        kept = evolved.run.path / f"lives_{number}.npz"
        if not kept.exists():
            rule = jaxrl.load_rule(file)
            lives = lifetime_traces(rule, evolved.run.env, config, hp, scale.lifetimes, scale.num_levels, key=_HELD_OUT)
            write_npz(kept, lives._asdict())
        parts.append(LifetimeTraces(**read_npz(kept)))
    return LifetimeTraces(parts[0].lifetime, *(np.stack(rows) for rows in list(zip(*parts, strict=True))[1:]))


_SHARED_NUMBERS = ("learning_rate", "max_grad_norm", "gamma", "prediction_coef")
_HELD_OUT = 0x7461  # a key that no run has: theirs are its seeds


def pooled(traces: LifetimeTraces) -> LifetimeTraces:
    """Of all rules together: means over rules, and returns [K, R * M]."""
    returns = np.moveaxis(traces.returns, 0, 1)
    sizes, entropies = traces.target_size.mean(0), traces.entropy.mean(0)
    return LifetimeTraces(traces.lifetime, sizes, entropies, returns.reshape(len(returns), -1))


def table(traces: dict[str, LifetimeTraces]) -> dict[str, Any]:
    """Returns after lifetimes of each length, and what time gains, paired by rule's seed and level."""
    rows: dict[str, Any] = {}
    aware, plain = traces["TA-LPG"], traces["LPG"]
    for k, lifetime in enumerate(aware.lifetime):
        values = {"TA-LPG": aware.returns[:, k], "LPG": plain.returns[:, k]}
        values["gain"] = values["TA-LPG"] - values["LPG"]
        rows[str(lifetime)] = {}
        for name, value in values.items():
            estimate = crossed_bootstrap(value)
            interval = [float(estimate.low), float(estimate.high)]
            rows[str(lifetime)][name] = {"mean": float(estimate.point), "interval_95": interval}
    return rows


def _draw(config: Config, curves: dict[str, Any], traces: dict[str, LifetimeTraces]) -> None:
    scale, base = SCALES[config.scale], config.out / config.scale
    where = f"{scale.training.env}, scale {config.scale}"
    plot_schedules(pooled(traces["TA-LPG"]), Path(f"{base}_schedules.png"), f"TA-LPG: lives of N updates, {where}")
    plot_horizons({label: pooled(found) for label, found in traces.items()}, Path(f"{base}_horizons.png"),
                  f"return after the lifetime, {where}")  # fmt: skip
    drift = jaxrl.load_rule(evolved_drift("ta_lpo", config.scale, None, config.runs).rules[0])
    plot_ratio_slopes(ratio_slopes(drift.drift()), Path(f"{base}_slopes.png"), f"TA-LPO, {drift.provenance['env']}")
    draw_curves(
        curves, Path(f"{base}_evolution.png"), f"evolution on {where}: {scale.training.generations:,} generations",
        "mean of the population, averaged over stretches; bands: 95 % bootstrap over meta-seeds",
        xlabel="generations", ylabel="return at the end of lifetimes",
    )  # fmt: skip


def _report(config: Config, found: dict[str, Evolved], rows: dict[str, Any]) -> dict[str, Any]:
    scale = SCALES[config.scale]
    return {
        "scale": config.scale,
        "env": scale.training.env,
        "statistic": "mean return after the lifetime on held-out levels, 95 % bootstrap over meta-seeds and levels; "
        "gains are paired",
        "num_levels": scale.num_levels,
        "evolution": {label: evolved.about() for label, evolved in found.items()},
        "lifetimes": rows,
        **provenance(),
    }


if __name__ == "__main__":
    use_compilation_cache()
    main(tyro.cli(Config))
