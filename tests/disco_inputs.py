"""The trajectories on which our Disco103 is compared with the published implementation."""

from __future__ import annotations

from typing import Any

import numpy as np

NUM_STEPS, NUM_ENVS, NUM_ACTIONS, WIDTH, NUM_BINS = 4, 2, 3, 600, 601


def random_outputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What an agent says at T + 1 observations, leaves [T + 1, B, …]."""
    lead = (NUM_STEPS + 1, NUM_ENVS)
    shapes = {
        "logits": (NUM_ACTIONS,),
        "y": (WIDTH,),
        "z": (NUM_ACTIONS, WIDTH),
        "aux_pi": (NUM_ACTIONS, NUM_ACTIONS),
        "q": (NUM_ACTIONS, NUM_BINS),
    }
    outputs = {name: 2 * rng.standard_normal((*lead, *shape)) for name, shape in shapes.items()}
    outputs["q"] -= np.abs(np.linspace(-60.0, 60.0, NUM_BINS))  # values of a few units, as of an agent that has begun
    return {name: leaf.astype(np.float32) for name, leaf in outputs.items()}


def random_trajectories() -> list[dict[str, Any]]:
    """Two trajectories for consecutive updates: other policies act than learn, and one episode ends in each."""
    rng = np.random.default_rng(103)
    trajectories = []
    for update in range(2):
        online, target = random_outputs(rng), random_outputs(rng)
        terminated = np.zeros((NUM_STEPS, NUM_ENVS), bool)
        terminated[1 + update, update] = True
        trajectories.append(
            {
                "outputs": {name: leaf[:-1] for name, leaf in online.items()},
                "next_outputs": {name: leaf[1:] for name, leaf in online.items()},
                "target": {name: leaf[:-1] for name, leaf in target.items()},
                "next_target": {name: leaf[1:] for name, leaf in target.items()},
                "behaviour": rng.standard_normal((NUM_STEPS, NUM_ENVS, NUM_ACTIONS)).astype(np.float32),
                "action": rng.integers(0, NUM_ACTIONS, (NUM_STEPS, NUM_ENVS)).astype(np.int32),
                "reward": (3 * rng.standard_normal((NUM_STEPS, NUM_ENVS))).astype(np.float32),
                "terminated": terminated,
            }
        )
    return trajectories
