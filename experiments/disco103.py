"""Disco103 on Catch: an agent that learns by the published rule, and one by random meta-parameters.

    python -m experiments.disco103 --weights disco_103.npz [--seeds 3] [--updates 600]
        [--json experiments/results/disco103.json]

The weights are those of github.com/google-deepmind/disco_rl (`disco_rl/update_rules/weights/disco_103.npz`), which are
not part of this repository. Catch has 5 x 5 cells: a random policy earns -0.6 per episode, the best one 1. Writes the
mean return of every 50 updates for each seed. Differs from the reference's agent: heads per action begin small (see
`ActionConditioned`); with its initial weights, learning at this rate depends on the seed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import jaxrl
from jaxrl.algorithm import train
from jaxrl.files import write_json
from jaxrl.objectives.disco import disco_objective, init_disco, load_disco103
from jaxrl.presets import PPOConfig, PPOHparams, ppo
from jaxrl.provenance import provenance
from jaxrl.types import Key, Metrics, Params

NUM_ENVS, NUM_STEPS, WINDOW = 32, 16, 50
SIZE = 5
SETTINGS: dict[str, Any] = {
    "num_envs": NUM_ENVS,
    "num_steps": NUM_STEPS,
    "num_epochs": 1,
    "num_minibatches": 1,
    "hidden_sizes": (64, 64),
    "action_size": 32,
    "activation": "relu",
    "torso": "mlp",
    "optimizer": "adam_bounded",
    "anneal_learning_rate": False,
}
HPARAMS = {"learning_rate": 1e-2, "max_grad_norm": 1e9}  # gradients as they are


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
      weights: the published disco_103.npz.
      seeds: how many, of each kind of meta-parameters.
      updates: of each agent.
      json: where to write.
    """

    weights: Path
    seeds: int = 3
    updates: int = 600
    json: Path = Path("experiments/results/disco103.json")


def make_trainer(updates: int) -> Callable[[Key, Params], Metrics]:
    """`(key, meta_params) -> metrics`, leaves [updates], compiled once for all meta-parameters."""
    env = jaxrl.make_env("Catch-bsuite", rows=SIZE, columns=SIZE)
    config = PPOConfig(total_steps=updates * NUM_ENVS * NUM_STEPS, **SETTINGS)

    def run(key: Key, meta_params: Params) -> Metrics:
        algorithm = ppo(env, config, PPOHparams(**HPARAMS), objective=disco_objective(meta_params))
        return train(key, algorithm, updates)[1]

    return jax.jit(run)


def mean_returns(metrics: Metrics) -> np.ndarray:
    """Of the episodes that ended in each window of updates, [updates / WINDOW]."""
    returns, counts = (np.asarray(metrics[f"episode/{name}"], np.float64) for name in ("return", "count"))
    starts = np.arange(0, len(counts), WINDOW)
    total = np.add.reduceat(np.where(counts > 0, returns, 0.0) * counts, starts)
    return total / np.add.reduceat(counts, starts)


def main(config: Config) -> dict[str, np.ndarray]:
    """Trains the agents; returns {"published": curves [S, K], "random": curves [S, K]}."""
    run, published = make_trainer(config.updates), load_disco103(config.weights)
    curves: dict[str, list[np.ndarray]] = {"published": [], "random": []}
    began = time.perf_counter()
    for kind in curves:
        for seed in range(config.seeds):
            meta_params = published if kind == "published" else init_disco(jax.random.key(1000 + seed))
            curves[kind].append(mean_returns(run(jax.random.key(seed), meta_params)))
            print(f"seed {seed} {kind:9} " + " ".join(f"{x:6.3f}" for x in curves[kind][-1]), flush=True)
    arrays = {kind: np.stack(rows) for kind, rows in curves.items()}
    ends = np.minimum(np.arange(0, config.updates, WINDOW) + WINDOW, config.updates)
    write_json(
        config.json,
        {
            "environment": f"Catch-bsuite, rows = columns = {SIZE}",
            "statistic": f"mean training return of the episodes that ended within the last {WINDOW} updates",
            "updates": ends,
            "environment_steps": ends * NUM_ENVS * NUM_STEPS,
            **{kind: {str(seed): row for seed, row in enumerate(rows)} for kind, rows in arrays.items()},
            "settings": SETTINGS | HPARAMS,
            "seconds": time.perf_counter() - began,
            **provenance(),
        },
    )
    return arrays


if __name__ == "__main__":
    main(tyro.cli(Config))
