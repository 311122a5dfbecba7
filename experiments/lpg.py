"""LPG is learned over random grid-worlds, and is then better on new ones than it was at random.

    python -m experiments.lpg [--scale smoke|cpu|gpu|paper] [--minutes 8]

Meta-trains several seeds (`runs/lpg/SCALE`, resumable: with `--minutes` the command stops by itself, and the same
command goes on), then lets every rule train new agents on held-out levels, beside random rules of the same shape, A2C,
a random policy and the optimum. Writes `<out>/SCALE.json` (figures with intervals, settings, provenance), `.npz`
(curves, and all returns), `_curve.png` and `_levels.png`. No published figure is claimed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments import meta_training
from experiments.meta_figures import draw_curves, draw_survival
from experiments.meta_training import (
    SCALES,
    THRESHOLDS,
    estimates,
    in_pieces,
    learning_curve,
    report,
    survival,
    tested,
    trained,
)
from jaxrl.files import write_json, write_npz
from jaxrl.provenance import provenance
from jaxrl.runtime import use_compilation_cache


@dataclasses.dataclass(frozen=True)
class Config(meta_training.Config):
    """What is run."""

    out: Path = Path("experiments/results/lpg")


PRESETS = {"lpg": "LPG"}


def main(config: Config, presets: dict[str, str] = PRESETS) -> dict[str, np.ndarray]:
    """Trains and tests the presets, {name: label}; returns the arrays that are written, empty if time was out."""
    return in_pieces(config.minutes, lambda: _main(config, presets))


def _main(config: Config, presets: dict[str, str]) -> dict[str, np.ndarray]:
    scale = SCALES[config.scale]
    seeds = scale.meta_seeds if config.seeds is None else config.seeds
    rows: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {"thresholds": THRESHOLDS}
    curves, shares = {}, {}
    for preset, label in presets.items():
        run = trained(preset, scale, seeds, config.runs / preset / config.scale)
        info = run.results.info
        returns = tested(run, scale)
        curves[label] = learning_curve(run.results)
        above = survival(returns)
        shares |= {label: above["rule"], f"{label}, random parameters": above["random_rule"]}
        rows[preset] = {
            **report(returns),
            "meta_seeds": list(run.plan.seeds),
            **{name: info[name] for name in ("compile_seconds", "train_seconds", "steps_per_second", "device")},
        }
        arrays |= {f"{preset}/returns/{name}": np.asarray(v, np.float32) for name, v in returns._asdict().items()}
        arrays |= {f"{preset}/curve/updates": curves[label][0]} | estimates(f"{preset}/curve", curves[label][1])
        for name, estimate in above.items():
            arrays |= estimates(f"{preset}/above/{name}", estimate)
    write_npz(config.out / f"{config.scale}.npz", arrays)
    about = {"scale": config.scale, "env": scale.env, "settings": scale.all_settings}
    write_json(config.out / f"{config.scale}.json", {**about, "presets": rows, **provenance()})
    where = f"{scale.env}, scale {config.scale}: {seeds} meta-seeds, {scale.meta_updates:,} meta-updates"
    caption = "bands: 95 % bootstrap over meta-seeds"
    draw_curves(curves, config.out / f"{config.scale}_curve.png", f"meta-training on {where}", caption)
    caption = f"{scale.num_levels} levels; bands: 95 % bootstrap over meta-seeds and levels"
    draw_survival(shares, THRESHOLDS, config.out / f"{config.scale}_levels.png", f"held-out levels of {where}", caption)
    for preset, row in rows.items():
        gain = row["normalized_return_above_random_rules"]
        print(f"{preset:8} normalised return {row['normalized_return']['mean']:.3f}, above random rules "
              f"{gain['mean']:.3f} {gain['interval_95']}", flush=True)  # fmt: skip
    return arrays


if __name__ == "__main__":
    use_compilation_cache()
    main(tyro.cli(Config))
