"""PPO learns five environments: classic control, continuous control, pixels-like observations and physics.

    python -m experiments.ppo_learning [--envs CartPole-v1 …] [--seeds 5] [--out experiments/results/ppo_learning]

Writes `<out>.json` (final returns with intervals, settings, versions, seconds) and `<out>.npz` (learning curves), after
each environment, so that an interrupted experiment keeps what it has. No published figure is claimed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import jaxrl
from jaxrl.files import read_json, read_npz, write_json, write_npz
from jaxrl.provenance import provenance

SETTINGS: dict[str, dict[str, Any]] = {
    "CartPole-v1": {"total_steps": 102_400, "learning_rate": 3e-3},
    "Acrobot-v1": {"total_steps": 307_200, "num_envs": 8, "learning_rate": 1e-3, "normalize_obs": True},
    "Pendulum-v1": {
        "total_steps": 409_600,
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
    },
    "Breakout-MinAtar": {"total_steps": 1_024_000, "num_steps": 32, "learning_rate": 1e-3},
    "brax/inverted_pendulum": {
        "total_steps": 409_600,
        "num_envs": 64,
        "num_steps": 32,
        "num_minibatches": 8,
        "num_epochs": 8,
        "hidden_sizes": (64, 64),
        "learning_rate": 1e-3,
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
      envs: names from `SETTINGS`.
      seeds: how many.
      out: where to write, without suffix.
    """

    envs: tuple[str, ...] = tuple(SETTINGS)
    seeds: int = 5
    out: Path = Path("experiments/results/ppo_learning")


def main(config: Config) -> dict[str, np.ndarray]:
    """Runs the environments one after the other; returns the curves, {"<env>/returns": [S, K], "<env>/steps": [K]}."""
    table, curves = config.out.with_suffix(".json"), config.out.with_suffix(".npz")
    rows = read_json(table)["environments"] if table.exists() else {}
    arrays = dict(read_npz(curves)) if curves.exists() else {}
    for env in config.envs:
        results = jaxrl.run("ppo", env, seeds=config.seeds, settings=SETTINGS[env])
        summary = results.summary()
        best = summary["best"]
        rows[env] = {
            "final_return_iqm": best["iqm"],
            "interval_95": [best["iqm_low"], best["iqm_high"]],
            "final_returns": results.final()[0].tolist(),
            "seeds": results.seeds.tolist(),
            "settings": SETTINGS[env],
            **{name: summary[name] for name in ("compile_seconds", "train_seconds", "steps_per_second")},
            **provenance(),
        }
        arrays[f"{env}/steps"], arrays[f"{env}/returns"] = results.steps, results.metric("episode/return")[0]
        statistic = "IQM over seeds of the mean training return in the last 10 % of updates, 95 % bootstrap over seeds"
        write_json(table, {"statistic": statistic, "environments": rows})
        write_npz(curves, {name: np.asarray(array, np.float32) for name, array in arrays.items()})
        print(f"{env:24} IQM {best['iqm']:8.1f}  95 % [{best['iqm_low']:.1f}, {best['iqm_high']:.1f}]", flush=True)
    return arrays


if __name__ == "__main__":
    main(tyro.cli(Config))
