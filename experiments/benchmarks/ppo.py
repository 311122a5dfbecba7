"""Our PPO beside rejax 0.1.3 on CartPole-v1: `python -m experiments.benchmarks.ppo [--quick] [--json PATH]`.

Same environment, network, minibatches, epochs and losses (swish, 2 x 64, clipped value, constant learning rate); each
side in processes of its own, alternating, with its own default flags, no evaluation and no compilation cache. Ours
goes through the runner, as `run` and `run_sweep` do; every measured piece begins with untrained agents. Left as each
side has them: rejax neither limits the gradient by default, nor bootstraps at truncation, nor logs; ours clips the
gradient's norm, bootstraps, and returns ten metrics per update. Compilation of ours is that of the initial state and
of the update. A ratio is ours over theirs, of medians over repeats: speed above 1 and compilation below 1 are in our
favour.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.harness import measure, median, peer_python, spread, timed, write
from jaxrl.files import read_json

OURS = ["-m", "experiments.benchmarks.ours"]
REJAX = "experiments/benchmarks/peers/rejax_agents.py"
PPO = {"algorithm": "ppo", "env": "CartPole-v1"}
SAME = {"activation": "swish", "clip_value": True, "anneal_learning_rate": False, "learning_rate": 3e-4}
SHAPES = {
    "default": {"num_envs": 64, "num_steps": 64, "num_epochs": 8, "num_minibatches": 16},
    "4x128": {"num_envs": 4, "num_steps": 128, "num_epochs": 4, "num_minibatches": 4},
}
STEPS = {1: 65_536, 16: 16_384, 64: 8_192}  # per seed and measured piece: about a second or more each
GRID = ["learning_rate=3e-4,1e-3,3e-3", "clip_eps=0.1,0.2"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: 1 and 16 seeds, one repeat.
      shapes, seeds: cells of the comparison with rejax; anything but the defaults leaves out all other parts.
      repeats: processes per side and setting.
      pieces: measured pieces per process, of which the median counts.
      json: where to write flat figures.
    """

    quick: bool = False
    shapes: tuple[str, ...] = tuple(SHAPES)
    seeds: tuple[int, ...] = tuple(STEPS)
    repeats: int = 3
    pieces: int = 5
    json: str | None = None


def beside_rejax(config: Config) -> dict[str, float]:
    """Speed, compilation and memory for each number of seeds and each shape."""
    peer = peer_python("rejax")
    figures: dict[str, float] = {}
    table = Table("setting", "seeds", "ours steps/s", "rejax steps/s", "speed ratio", "compile ratio", "memory ratio")
    repeats = 1 if config.quick else config.repeats
    for shape in config.shapes:
        settings = SHAPES[shape]
        for seeds in [n for n in config.seeds if n < 64 or not config.quick]:
            ours, theirs = [], []
            for _ in range(repeats):
                work = {**PPO, "seeds": seeds, "total_steps": STEPS[seeds], "chunks": config.pieces}
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
    """48 agents of 102,400 steps by one command, beside one agent alone: process start, compilation, checkpoints,
    results and figure included.
    """
    commands = {
        "1": ["train", "ppo", "CartPole-v1", "--seeds", "1"],
        "48": ["sweep", "ppo", "CartPole-v1", "--grid", *GRID, "--seeds", "8"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    speed: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(1 if config.quick else config.repeats):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "run"
                seconds[name].append(
                    timed([sys.executable, "-m", "jaxrl", *command, "--steps", "102400", "--out", str(out)])
                )
                speed[name].append(read_json(out / "summary.json")["steps_per_second"])
    whole = {name: statistics.median(values) for name, values in seconds.items()}
    steady = {name: statistics.median(values) for name, values in speed.items()}
    figures = {
        "per_agent_end_to_end_48": whole["48"] / 48 / whole["1"],
        "steady_ratio_48": steady["48"] / steady["1"],
        **{f"seconds_{name}": value for name, value in whole.items()},
        **{f"steps_per_second_{name}": value for name, value in steady.items()},
    }
    Console().print(
        f"48 agents of 102,400 steps: {whole['48']:.1f} s, one alone {whole['1']:.1f} s, so "
        f"{figures['per_agent_end_to_end_48']:.3f} per agent; "
        f"steady {figures['steady_ratio_48']:.2f} times one agent's",
        highlight=False,
    )
    return figures


def layouts(config: Config) -> dict[str, float]:
    """16 seeds of 4x128 in each layout (devices x runs side by side, 0 all), which `choose_layout` rests on.

    Batches on several virtual CPU devices are left out: they were many times slower than any of these.
    """
    figures = {}
    for num_devices, batch in ((1, 1), (1, 4), (1, 0), (2, 1)):
        work = {**PPO, "seeds": 16, "total_steps": STEPS[16], "chunks": config.pieces, "layout": [num_devices, batch]}
        row = measure(sys.executable, OURS, settings={**SAME, **SHAPES["4x128"]}, **work)
        figures[f"steps_per_second_layout_{num_devices}x{batch}"] = row["steps_per_second"]
        Console().print(f"layout {num_devices} x {batch}: {row['steps_per_second']:,.0f} steps/s", highlight=False)
    return figures


def main(config: Config) -> dict[str, float]:
    """Prints the tables, and returns the flat figures."""
    unknown = [str(name) for name in (*config.shapes, *config.seeds) if name not in {*SHAPES, *STEPS}]
    if unknown:
        sys.exit(f"shapes: {', '.join(SHAPES)}; seeds: {', '.join(map(str, STEPS))}; got {', '.join(unknown)}")
    if (config.shapes, config.seeds) == (tuple(SHAPES), tuple(STEPS)):
        figures = one_and_many(config) | beside_rejax(config)
        figures |= {} if config.quick else layouts(config)
    else:
        figures = beside_rejax(config)
    write(config.json, figures)
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config))
