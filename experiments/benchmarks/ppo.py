"""Our PPO beside rejax 0.1.3 on CartPole-v1: `python -m experiments.benchmarks.ppo [--quick] [--json PATH]`.

Same environment, network, minibatches, epochs and losses (swish, 2 x 64, clipped value, constant learning rate); each
side in processes of its own, alternating, with its own default flags, no evaluation and no compilation cache. Ours goes
through the runner, as `run` and `run_sweep` do. rejax clips gradients per element where we clip their norm, has no
bootstrap at truncation, and logs nothing; its figures are not held back for that. A ratio is ours over theirs, of
medians over repeats: speed above 1 and compilation below 1 are in our favour.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time

import tyro
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.harness import measure, median, peer_python, spread, write

OURS = ["-m", "experiments.benchmarks.ours_ppo"]
REJAX = "experiments/benchmarks/peers/rejax_ppo.py"
SAME = {"activation": "swish", "clip_value": True, "anneal_learning_rate": False, "learning_rate": 3e-4}
SHAPES = {
    "default": {"num_envs": 64, "num_steps": 64, "num_epochs": 8, "num_minibatches": 16},
    "4x128": {"num_envs": 4, "num_steps": 128, "num_epochs": 4, "num_minibatches": 4},
}
STEPS = {1: 65_536, 16: 16_384, 64: 8_192}  # per seed and measured piece: about a second or more each
GRID = {"learning_rate": [3e-4, 1e-3, 3e-3], "clip_eps": [0.1, 0.2]}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: 1 and 16 seeds, one repeat.
      repeats: processes per side and setting.
      pieces: measured pieces per process, of which the median counts.
      json: where to write flat figures.
    """

    quick: bool = False
    repeats: int = 3
    pieces: int = 5
    json: str | None = None


def beside_rejax(config: Config) -> dict[str, float]:
    """Speed, compilation and memory for each number of seeds and each shape."""
    peer = peer_python("rejax")
    figures: dict[str, float] = {}
    table = Table("setting", "seeds", "ours steps/s", "rejax steps/s", "speed ratio", "compile ratio", "memory ratio")
    repeats = 1 if config.quick else config.repeats
    for shape, settings in SHAPES.items():
        for seeds in (1, 16) if config.quick else (1, 16, 64):
            ours, theirs = [], []
            for _ in range(repeats):
                work = {"seeds": seeds, "total_steps": STEPS[seeds], "chunks": config.pieces}
                ours.append(measure(sys.executable, OURS, settings={**SAME, **settings}, **work))
                theirs.append(measure(peer, REJAX, settings=settings, **work))
            names = {"speed": "steps_per_second", "compile": "compile_seconds", "memory": "peak_megabytes"}
            ratios = {}
            for ratio, name in names.items():
                ratios[ratio] = median(ours, name) / median(theirs, name)
                figures[f"{ratio}_ratio_rejax_{seeds}_{shape}"] = ratios[ratio]
                figures[f"{name}_ours_{seeds}_{shape}"] = median(ours, name)
                figures[f"{name}_rejax_{seeds}_{shape}"] = median(theirs, name)
            speeds = (
                f"{median(side, 'steps_per_second'):,.0f} ({spread(side, 'steps_per_second')})"
                for side in (ours, theirs)
            )
            table.add_row(shape, str(seeds), *speeds, *(f"{ratios[name]:.2f}" for name in names))
            print(f"{shape} {seeds}: speed {ratios['speed']:.2f}, compile {ratios['compile']:.2f}", file=sys.stderr)
    Console(width=140).print(table)
    return figures


def one_and_many(config: Config) -> dict[str, float]:
    """48 agents of 102,400 steps in one program, beside one agent alone; process start and compilation included."""
    rows: dict[str, list[dict[str, float]]] = {"1": [], "48": []}
    for _ in range(1 if config.quick else config.repeats):
        for name, grid, seeds in (("1", {}, 1), ("48", GRID, 8)):
            began = time.perf_counter()
            row = measure(sys.executable, OURS, seeds=seeds, grid=grid, total_steps=20_480, chunks=5, settings={})
            rows[name].append({**row, "seconds": time.perf_counter() - began})
    seconds = {name: statistics.median(row["seconds"] for row in side) for name, side in rows.items()}
    speed = {name: median(side, "steps_per_second") for name, side in rows.items()}
    figures = {
        "per_agent_end_to_end_48": seconds["48"] / 48 / seconds["1"],
        "steady_ratio_48": speed["48"] / speed["1"],
        "seconds_1": seconds["1"],
        "seconds_48": seconds["48"],
        "steps_per_second_1": speed["1"],
        "steps_per_second_48": speed["48"],
    }
    Console().print(
        f"48 agents of 102,400 steps: {seconds['48']:.1f} s, one alone {seconds['1']:.1f} s, so "
        f"{figures['per_agent_end_to_end_48']:.3f} per agent; "
        f"steady {figures['steady_ratio_48']:.2f} times one agent's",
        highlight=False,
    )
    return figures


def main(config: Config) -> dict[str, float]:
    """Prints the tables, and returns the flat figures."""
    figures = one_and_many(config) | beside_rejax(config)
    write(config.json, figures)
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config))
