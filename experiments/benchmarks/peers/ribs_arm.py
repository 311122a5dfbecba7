"""MAP-Elites on the arm by pyribs, run by the interpreter of its own environment: `python ribs_arm.py '{…}'`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from ribs.archives import GridArchive
from ribs.emitters import GeneticAlgorithmEmitter
from ribs.schedulers import Scheduler


def arm(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fitness [N] and the hand's place [N, 2] of arms [N, n]."""
    angles = np.cumsum(2.0 * np.pi * x - np.pi, axis=1)
    place = np.stack([np.cos(angles).sum(1), np.sin(angles).sum(1)], axis=1)
    return -x.std(axis=1), place / (2 * x.shape[1]) + 0.5


def main(batch: int, initial: int, iterations: int, pieces: int, side: int, joints: int) -> dict[str, Any]:
    """Evaluations per second of `pieces` stretches of iterations, and what the archive is worth at the end."""
    archive = GridArchive(solution_dim=joints, dims=[side, side], ranges=[(0.0, 1.0)] * 2, seed=0, dtype=np.float32)
    settings = {"iso_sigma": 0.05, "line_sigma": 0.1}
    first = np.random.default_rng(0).random((initial, joints), dtype=np.float32)
    emitter = GeneticAlgorithmEmitter(
        archive, operator="isoline", operator_kwargs=settings, initial_solutions=first, bounds=[(0.0, 1.0)] * joints,
        batch_size=batch, seed=1,
    )  # fmt: skip
    scheduler = Scheduler(archive, [emitter])

    def iterate() -> None:
        scheduler.tell(*arm(scheduler.ask()))

    iterate()  # the first population
    rates = []
    for _ in range(pieces):
        began = time.perf_counter()
        for _ in range(iterations):
            iterate()
        rates.append(batch * iterations / (time.perf_counter() - began))
    stats = archive.stats
    return {"rates": rates, "metrics": {"coverage": float(stats.coverage), "max_fitness": float(stats.obj_max)}}


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
