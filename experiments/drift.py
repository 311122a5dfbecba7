"""Drifts that are learned (LPO, TA-LPO) or were discovered (DPO), beside PPO's clip.

    python -m experiments.drift [--scale smoke|cpu|gpu|paper] [--minutes 8]

Evolves drifts with knowledge of time and without (`runs/lpo/SCALE`, `runs/ta_lpo/SCALE`, resumable: with `--minutes`
the command stops by itself, and the same command goes on), then trains agents with every drift on environments by name,
those of evolution and others. Writes `<out>/SCALE.json` (returns with intervals, settings, provenance), `.npz`
(curves), `_evolution.png` (fitness of the populations), `_drifts.png` (how the objectives rise with the ratio) and
`_returns_ENV.png`. No published figure is claimed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

import jaxrl
from experiments import meta_training
from experiments.evolved_training import Evolved, EvolvedScale, evolved_rules, fitness_curve
from experiments.meta_figures import draw_curves, draw_drifts
from experiments.meta_training import ScaleName, estimates, in_pieces, trained
from experiments.ppo_learning import SETTINGS
from jaxrl.files import write_json, write_npz
from jaxrl.objectives.dpo import dpo_drift
from jaxrl.objectives.ppo import ppo_drift
from jaxrl.plotting import curve
from jaxrl.presets import PPOHparams
from jaxrl.provenance import provenance
from jaxrl.reporting import bootstrap, iqm
from jaxrl.rule_plots import ratio_slopes
from jaxrl.rules import Drift
from jaxrl.runtime import use_compilation_cache

LEARNED = {"lpo": "LPO", "ta_lpo": "TA-LPO"}
FIXED = {"ppo": "PPO", "dpo": "DPO"}


@dataclasses.dataclass(frozen=True)
class Test:
    """Agents of PPO with one drift; what `trained` takes.

    Attributes:
      env, all_settings: of the preset `ppo`.
      chunks: checkpoints.
    """

    env: str
    all_settings: dict[str, Any]
    chunks: int = 5


@dataclasses.dataclass(frozen=True)
class DriftScale:
    """How large the experiment is.

    Attributes:
      training: of LPO; TA-LPO's is the same.
      tests: {environment: settings of the preset `ppo`}.
      test_seeds: agents with each drift.
    """

    training: EvolvedScale
    tests: dict[str, dict[str, Any]]
    test_seeds: int = 5


# The 10 million steps, 64 environments and networks of Goldie et al.'s `lpo_bb.py`, and its rate for this game, on
# which TA-LPO was evolved; the population, its deviation and its rates are that file's, and the presets' defaults.
_GAME = {
    "num_envs": 64, "num_steps": 128, "num_minibatches": 8, "num_epochs": 4, "learning_rate": 7e-3, "gamma": 0.99,
    "gae_lambda": 0.95, "clip_eps": 0.2, "ent_coef": 0.01, "torso": "mlp", "hidden_sizes": (64, 64),
    "activation": "relu", "shared_torso": False,
}  # fmt: skip
_MINATAR = ("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar")
_RATES = dict(zip(_MINATAR, (3e-3, 1e-2, 1e-3, 7e-3), strict=True))


def _games(total_steps: int) -> dict[str, dict[str, Any]]:
    return {name: {**_GAME, "learning_rate": rate, "total_steps": total_steps} for name, rate in _RATES.items()}


SCALES: dict[str, DriftScale] = {
    "smoke": DriftScale(
        EvolvedScale(
            "jaxrl/probe_contextual",
            {"agent_steps": 128, "num_envs": 4, "num_steps": 8, "num_epochs": 1, "num_minibatches": 2, "width": 4,
             "hidden_sizes": (4,), "learning_rate": 1e-2, "num_pairs": 2, "population_batch": 0},
            generations=4, meta_seeds=1, chunks=2, preset="lpo",
        ),
        {"jaxrl/probe_contextual": {"total_steps": 512, "num_envs": 4, "num_steps": 8, "hidden_sizes": (4,)}},
        test_seeds=2,
    ),
    # Short lives with a high rate, so that where the drift holds matters: there, of the clips 0.1, 0.2, 0.4 and none,
    # PPO reaches 313, 266, 250 and 159. Few generations, hence a smaller network, larger deviations and lower rates.
    "cpu": DriftScale(
        EvolvedScale(
            "CartPole-v1",
            {"agent_steps": 16_384, "num_envs": 8, "num_steps": 64, "hidden_sizes": (32, 32), "learning_rate": 1e-2,
             "width": 32, "num_pairs": 8, "population_batch": 0, "sigma": 0.05, "sigma_decay": 1.0,
             "meta_learning_rate": 0.01},
            generations=60, meta_seeds=1, chunks=20, preset="lpo",
        ),
        {name: SETTINGS[name] for name in ("CartPole-v1", "Acrobot-v1")},
    ),
    # A tenth of the published steps of an agent, and fewer generations.
    "gpu": DriftScale(
        EvolvedScale(
            "SpaceInvaders-MinAtar", {**_GAME, "agent_steps": 1_000_000, "population_batch": 0},
            generations=200, meta_seeds=1, chunks=200, preset="lpo",
        ),
        _games(2_000_000),
    ),
    "paper": DriftScale(
        EvolvedScale(
            "SpaceInvaders-MinAtar", {**_GAME, "agent_steps": 10_000_000},
            generations=800, meta_seeds=1, chunks=800, preset="lpo",
        ),
        _games(10_000_000),
        test_seeds=10,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(meta_training.Config):
    """What is run."""

    out: Path = Path("experiments/results/drift")


def main(config: Config) -> dict[str, np.ndarray]:
    """Evolves and tests; returns the arrays that are written, empty if time was out."""
    return in_pieces(config.minutes, lambda: _main(config))


def evolved_drift(preset: str, scale: ScaleName, seeds: int | None, runs: Path) -> Evolved:
    """The rules of a preset of `LEARNED` at a scale: evolved, gone on with, or only opened."""
    training = SCALES[scale].training.changed(preset)
    return evolved_rules(training, seeds, runs / preset / scale)


def _main(config: Config) -> dict[str, np.ndarray]:
    scale = SCALES[config.scale]
    learned = {name: evolved_drift(name, config.scale, config.seeds, config.runs) for name in LEARNED}
    objectives = {label: [name] for name, label in FIXED.items()}
    objectives |= {label: [str(file) for file in learned[name].rules] for name, label in LEARNED.items()}
    curves = {LEARNED[name]: fitness_curve(found.run.results) for name, found in learned.items()}
    arrays: dict[str, np.ndarray] = {}
    for label, (generations, estimate) in curves.items():
        arrays |= {f"evolution/{label}/generations": generations} | estimates(f"evolution/{label}", estimate)
    rows = {}
    for env, settings in scale.tests.items():
        returns = {
            label: _returns(env, settings, names, scale, config.runs / "drift" / config.scale / env.replace("/", "_"))
            for label, names in objectives.items()
        }
        rows[env] = _table(returns)
        print(f"{env:24}" + "  ".join(f"{label} {row['iqm']:.1f}" for label, row in rows[env].items()), flush=True)
        arrays |= {f"{env}/{label}/{n}": v for label, found in returns.items() for n, v in found._asdict().items()}
        _draw_returns(env, returns, config, scale)
    slopes = {
        label: ratio_slopes(drift, fraction=fractions, advantage=np.linspace(-3.0, 3.0, 61))
        for label, drift, fractions in _drifts(learned)
    }
    arrays |= {f"slopes/{label}/{n}": v for label, found in slopes.items() for n, v in found._asdict().items()}
    draw_drifts(slopes, config.out / f"{config.scale}_drifts.png", f"learned on {scale.training.env}, {config.scale}")
    draw_curves(
        curves, config.out / f"{config.scale}_evolution.png",
        f"evolution on {scale.training.env}, scale {config.scale}: {scale.training.generations:,} generations",
        "mean of the population, averaged over stretches; bands: 95 % bootstrap over meta-seeds",
        xlabel="generations", ylabel="return at the end of lifetimes",
    )  # fmt: skip
    write_npz(config.out / f"{config.scale}.npz", arrays)
    write_json(config.out / f"{config.scale}.json", _report(config, learned, rows))
    return arrays


class Returns(NamedTuple):
    """Of agents with one kind of drift: R rules, S seeds.

    Attributes:
      final: [R, S], mean training return in the last tenth of updates.
      steps: [P].
      curve: [R * S, P], returns while learning.
    """

    final: np.ndarray
    steps: np.ndarray
    curve: np.ndarray


def _returns(env: str, settings: dict[str, Any], names: list[str], scale: DriftScale, folder: Path) -> Returns:
    runs = []
    for name in names:
        place = folder / (Path(name).parents[2].name + "_" + Path(name).stem if name.endswith(".npz") else name)
        runs.append(trained("ppo", Test(env, {**settings, "objective": name}), scale.test_seeds, place).results)
    curves = [curve(results, max_points=50) for results in runs]
    final = np.stack([results.final()[0] for results in runs])
    return Returns(final, curves[0][0], np.concatenate([values[0] for _, values in curves]))


def _table(returns: dict[str, Returns]) -> dict[str, Any]:
    """IQM of final returns of all agents, with an interval over agents, and how much more that is than PPO's."""
    rows = {}
    for label, found in returns.items():
        estimate = bootstrap(found.final.ravel(), iqm)
        gain = bootstrap((found.final - returns["PPO"].final).ravel(), iqm)  # the same seeds
        rows[label] = {
            "iqm": float(estimate.point),
            "interval_95": [float(estimate.low), float(estimate.high)],
            "above_ppo": float(gain.point),
            "above_ppo_interval_95": [float(gain.low), float(gain.high)],
            "returns": found.final.tolist(),
        }
    return rows


def _draw_returns(env: str, returns: dict[str, Returns], config: Config, scale: DriftScale) -> None:
    curves = {label: (found.steps, bootstrap(found.curve)) for label, found in returns.items()}
    draw_curves(
        curves, config.out / f"{config.scale}_returns_{env.replace('/', '_')}.png", f"{env}: PPO with other drifts",
        f"IQM of {scale.test_seeds} agents per rule; bands: 95 % bootstrap over agents",
        xlabel="environment steps", ylabel="training return",
    )  # fmt: skip


def _drifts(learned: dict[str, Evolved]) -> list[tuple[str, Drift, tuple[float, ...]]]:
    """What is drawn, the first rule of each kind: label, drift, times n/N."""
    hp = PPOHparams()
    found: list[tuple[str, Drift, tuple[float, ...]]] = [
        ("PPO", lambda x, a, fraction: ppo_drift(x, a, hp.clip_eps), (0.0,)),
        ("DPO", lambda x, a, fraction: dpo_drift(x, a, hp.dpo_alpha, hp.dpo_beta), (0.0,)),
    ]
    for name, label in LEARNED.items():
        rule = jaxrl.load_rule(learned[name].rules[0])
        found.append((label, rule.drift(), (0.0, 0.5, 1.0) if rule.config.time_aware else (0.0,)))
    return found


def _report(config: Config, learned: dict[str, Evolved], rows: dict[str, Any]) -> dict[str, Any]:
    scale = SCALES[config.scale]
    return {
        "scale": config.scale,
        "statistic": "IQM over agents of the mean training return in the last tenth of updates, 95 % bootstrap over "
        "agents; gains are paired by seed",
        "evolution": {label: learned[name].about() for name, label in LEARNED.items()},
        "test_settings": scale.tests,
        "test_seeds": scale.test_seeds,
        "envs": rows,
        **provenance(),
    }


if __name__ == "__main__":
    use_compilation_cache()
    main(tyro.cli(Config))
