"""How a sweep grows, and how long a start takes: `python -m experiments.benchmarks.scale [--quick] [--json PATH]`.

- `per_agent_speedup_1000`: seconds of one PPO agent of 102,400 steps on CartPole-v1, run alone by one command, over
  those of 1,000 (10 learning rates x 100 seeds, or as `--agents` says) by one command, per agent: process start,
  compilation, checkpoints, results and figure included. `steady_ratio_1000` is that of environment steps per second, of
  all agents together.
- `help_seconds`: `jaxrl --help`; `import_over_jax_seconds`: `import jaxrl` above `import jax`, each in its own process.
- `warm_start_seconds`: a short training whose programs an earlier process has compiled; `cold_start_seconds`: that
  earlier one. All else is without a compilation cache.
- `speed_ratio_single_file_<S>`: environment steps per second of S seeds of PPO on CartPole-v1 through our runner, over
  those of S seeds of `single_file`, PPO in one file as many write it, under one `vmap`: the same network, numbers and
  work, which is counted on both sides. Medians over processes, the sides in turns; `compile_ratio_single_file_<S>` and
  `memory_ratio_single_file_<S>` (a process's largest resident size) likewise, `steps_per_second_…` each side's own.
  With `single_file_failed_at_seeds` nothing was measured from so many on: a side did not come to an end.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks.harness import measure, median, show_and_write, timed
from jaxrl.files import read_json

RATES = (1e-4, 1.5e-4, 2.2e-4, 3.2e-4, 4.6e-4, 6.8e-4, 1e-3, 1.5e-3, 2.2e-3, 3.2e-3)
JAXRL = (sys.executable, "-m", "jaxrl")
OURS, SINGLE = ["-m", "experiments.benchmarks.ours"], ["-m", "experiments.benchmarks.single_file"]
SETTINGS = {"num_envs": 4, "num_steps": 128, "num_epochs": 4, "num_minibatches": 4}
STEPS = {1: 65_536, 16: 16_384, 64: 8_192, 256: 2_048, 1024: 1_024, 4096: 512}  # {seeds: of each, in one piece}
PARTS = ("starts", "many", "single_file")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: a tenth of the agents and of the steps, and fewer repeats.
      agents: by one command; a multiple of 100.
      repeats: of the agent alone.
      max_memory: GiB of each device that the agents may use; `None` is what there is.
      parts: of `PARTS`; a file with some has those figures only.
      seeds: of the comparison with a single file.
      json: where to write flat figures.
    """

    quick: bool = False
    agents: int = 1000
    repeats: int = 3
    max_memory: float | None = 2.0
    parts: tuple[str, ...] = PARTS
    seeds: tuple[int, ...] = tuple(STEPS)
    json: str | None = None


def many(config: Config) -> dict[str, float]:
    """A thousand agents beside one."""
    seeds, steps = config.agents // len(RATES), 102_400
    if config.quick:
        seeds, steps = seeds // 10, steps // 10
    commands = {
        "one": ["train", "ppo", "CartPole-v1", "--seeds", "1"],
        "all": ["sweep", "ppo", "CartPole-v1", "--grid", f"learning_rate={','.join(map(str, RATES))}", "--seeds",
                str(seeds)],
    }  # fmt: skip
    if config.max_memory is not None:
        commands["all"] += ["--max-memory", str(config.max_memory)]
    repeats = {"one": 1 if config.quick else config.repeats, "all": 1}
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


def beside_single_file(config: Config) -> dict[str, float]:
    """Speed, compilation and memory beside PPO in one file, for each number of seeds."""
    names = {"speed": "steps_per_second", "compile": "compile_seconds", "memory": "peak_megabytes"}
    figures: dict[str, float] = {}
    for seeds in [n for n in config.seeds if n <= 16 or not config.quick]:
        work = {"seeds": seeds, "total_steps": STEPS[seeds], "chunks": 3}
        rows: dict[str, list[dict[str, Any]]] = {"ours": [], "single_file": []}
        try:
            for _ in range(1 if config.quick else 3):
                ours = {"algorithm": "ppo", "env": "CartPole-v1", "settings": {**SETTINGS, "clip_value": True}}
                rows["ours"].append(measure(sys.executable, OURS, **ours, **work))
                rows["single_file"].append(measure(sys.executable, SINGLE, settings=SETTINGS, **work))
        except RuntimeError as error:  # as a machine without the memory for it ends
            print(f"{seeds} seeds: {error}", file=sys.stderr)
            return {**figures, "single_file_failed_at_seeds": seeds}
        check_work(STEPS[seeds], rows)
        for ratio, name in names.items():
            both = {side: median(found, name) for side, found in rows.items()}
            figures[f"{ratio}_ratio_single_file_{seeds}"] = both["ours"] / both["single_file"]
            figures |= {f"{name}_single_file_{side}_{seeds}": value for side, value in both.items()}
        ratios = ", ".join(f"{ratio} {figures[f'{ratio}_ratio_single_file_{seeds}']:.2f}" for ratio in names)
        print(f"{seeds} seeds beside a single file: {ratios}", file=sys.stderr)
    return figures


def check_work(steps: int, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Each agent of either side has done what was asked, as its final state has counted it.

    Raises:
      RuntimeError: otherwise.
    """
    updates = steps // (SETTINGS["num_envs"] * SETTINGS["num_steps"])
    asked = {"env_steps": steps, "updates": updates * SETTINGS["num_epochs"] * SETTINGS["num_minibatches"]}
    for side, found in rows.items():
        for row in found:
            did = {name: row[name] for name in asked}
            if did != asked:
                raise RuntimeError(f"{side} did {did} instead of {asked}")


def main(config: Config) -> dict[str, float]:
    """Prints the flat figures, and writes and returns them."""
    if unknown := sorted({*map(str, config.seeds), *config.parts} - {*map(str, STEPS), *PARTS}):
        sys.exit(f"parts: {', '.join(PARTS)}; seeds: {', '.join(map(str, STEPS))}; got {', '.join(unknown)}")
    if config.agents % (10 * len(RATES)):
        sys.exit(f"agents: a multiple of {10 * len(RATES)}; got {config.agents}")
    measured = {"starts": starts, "many": many, "single_file": beside_single_file}
    figures: dict[str, float] = {}
    for part in config.parts:
        figures |= measured[part](config)
    show_and_write(config.json, figures)
    return figures


if __name__ == "__main__":
    main(tyro.cli(Config))
