"""How a sweep grows, and how long a start takes: `python -m experiments.benchmarks.scale [--quick] [--json PATH]`.

- `per_agent_speedup_1000`: seconds of one PPO agent of 102,400 steps on CartPole-v1, run alone by one command, over
  those of 1,000 (10 learning rates x 100 seeds) by one command, per agent: process start, compilation, checkpoints,
  results and figure included. `steady_ratio_1000` is that of environment steps per second, of all agents together.
- `help_seconds`: `jaxrl --help`; `import_over_jax_seconds`: `import jaxrl` above `import jax`, each in its own process.
- `warm_start_seconds`: a short training whose programs an earlier process has compiled; `cold_start_seconds`: that
  earlier one. All else is without a compilation cache.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path

import tyro

from experiments.benchmarks.harness import show_and_write, timed
from jaxrl.files import read_json

RATES = (1e-4, 1.5e-4, 2.2e-4, 3.2e-4, 4.6e-4, 6.8e-4, 1e-3, 1.5e-3, 2.2e-3, 3.2e-3)
JAXRL = (sys.executable, "-m", "jaxrl")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: a tenth of the agents and of the steps, and fewer repeats.
      max_memory: GiB of each device that the agents may use.
      json: where to write flat figures.
    """

    quick: bool = False
    max_memory: float = 2.0
    json: str | None = None


def many(config: Config) -> dict[str, float]:
    """A thousand agents beside one."""
    seeds, steps = (10, 10_240) if config.quick else (100, 102_400)
    commands = {
        "one": ["train", "ppo", "CartPole-v1", "--seeds", "1"],
        "all": ["sweep", "ppo", "CartPole-v1", "--grid", f"learning_rate={','.join(map(str, RATES))}", "--seeds",
                str(seeds), "--max-memory", str(config.max_memory)],
    }  # fmt: skip
    repeats = {"one": 1 if config.quick else 3, "all": 1}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    speed: dict[str, list[float]] = {name: [] for name in commands}
    for name, command in commands.items():
        for _ in range(repeats[name]):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "run"
                seconds[name].append(timed([*JAXRL, *command, "--steps", str(steps), "--out", str(out)]))
                speed[name].append(read_json(out / "summary.json")["steps_per_second"])
    agents = seeds * len(RATES)
    one, every = statistics.median(seconds["one"]), seconds["all"][0]
    return {
        f"per_agent_speedup_{agents}": one / (every / agents),
        f"steady_ratio_{agents}": speed["all"][0] / statistics.median(speed["one"]),
        f"seconds_{agents}_agents": every,
        f"agents_per_minute_{agents}": 60 * agents / every,
        "seconds_1_agent": one,
        "steps_of_each_agent": steps,
    }


def starts(config: Config) -> dict[str, float]:
    """Help, imports, and a start with what an earlier process compiled."""
    repeats = 3 if config.quick else 9
    found = {
        name: statistics.median(timed(command) for _ in range(repeats))
        for name, command in {
            "help": [*JAXRL, "--help"],
            "jax": [sys.executable, "-c", "import jax"],
            "jaxrl": [sys.executable, "-c", "import jax, jaxrl; jaxrl.run_sweep"],
        }.items()
    }
    training = [*JAXRL, "train", "ppo", "CartPole-v1", "--seeds", "1", "--steps", "10240", "--out"]
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
        cold, *warm = (timed([*training, str(Path(folder) / str(i))], **cache) for i in range(1 + min(repeats, 3)))
    return {
        "help_seconds": found["help"],
        "import_jax_seconds": found["jax"],
        "import_over_jax_seconds": found["jaxrl"] - found["jax"],
        "cold_start_seconds": cold,
        "warm_start_seconds": statistics.median(warm),
    }


def main(config: Config) -> dict[str, float]:
    """Prints the flat figures, and writes and returns them."""
    figures = {**starts(config), **many(config)}
    show_and_write(config.json, figures)
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config))
