"""What swarms cost: `python -m experiments.benchmarks.mean_field [--quick] [--json PATH]`.

- `agent_steps_per_second_<task>_1e6`: one million agents on one device, each step one call of a compiled function:
  every agent sees its neighbours (a hard disc of radius 0.25 in a square of side 4, mode "grid", G = 256), turns
  towards their mean heading, moves with noise drawn anew, and the team's reward is summed over all pairs. The median
  over steps; `step_ms_<task>_1e6` is its time, `peak_mb_<task>_1e6` the process's resident memory at its highest above
  what it took after importing, `temporary_mb_<task>_1e6` the compiler's account of it.
- `train_peak_mb_1e3`, `train_peak_mb_1e5`: the process's resident memory at its highest, above what it took after
  importing, while `dec_pomfppo` compiles and trains on Vicsek with so many agents (one environment, updates of 64
  steps, mode "grid", G = 128); `train_program_mb_…` the compiler's account of that program with its results,
  and `train_program_mb_1e5_8_steps` that of updates of 8 steps. One swarm takes 12 bytes per agent.
- `grid_rms_4096_g<G>`: error of that neighbourhood against all pairs, of 4,096 agents with independent headings: root
  mean square of the two components of the mean direction that an agent sees. `rms_4096` is that of what they see.

Each measurement is a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.harness import measure, my_turn, show_and_write
from jaxrl.algorithm import train
from jaxrl.presets import find_preset
from jaxrl_envs.mean_field.collective import make_collective
from jaxrl_envs.mean_field.kuramoto import Kuramoto
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.neighbours import Neighbourhood, neighbour_sums
from jaxrl_envs.mean_field.topology import Surface
from jaxrl_envs.mean_field.vicsek import Vicsek

WORK = ["-m", "experiments.benchmarks.mean_field", "--work"]
MODELS: dict[str, Any] = {"vicsek": Vicsek, "kuramoto": Kuramoto}
NUM_CELLS = 256
_MB = 1e6


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes:
      quick: 5 steps of each task, instead of 40.
      json: where to write flat figures.
    """

    quick: bool = False
    json: str | None = None


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MB


def speed(task: str, num_agents: int, steps: int, per_call: int = 1) -> dict[str, float]:
    """Seconds per step, the median over calls of a compiled function that takes `per_call` steps, and memory."""
    model = MODELS[task](hood=Neighbourhood("grid", NUM_CELLS))
    params = model.default_params

    def step(key: Any, swarm: Swarm, numbers: Any) -> Any:
        key_see, key_move = jax.random.split(key)
        seen = model.observe(key_see, swarm, numbers)
        turn = jnp.arctan2(seen[:, :1], seen[:, 1:]) / numbers.turn_rate
        return model.step(key_move, swarm, turn, numbers)

    def call(key: Any, swarm: Swarm, numbers: Any) -> Any:
        if per_call == 1:
            return step(key, swarm, numbers)[:2]
        return jax.lax.scan(lambda swarm, key: step(key, swarm, numbers)[:2], swarm, jax.random.split(key, per_call))

    jax.block_until_ready(jnp.zeros(1))
    before = _resident()
    swarm = jax.jit(model.reset, static_argnums=1)(jax.random.key(0), num_agents, params)
    keys = jax.random.split(jax.random.key(1), steps + 2)
    compiled = jax.jit(call, donate_argnums=1).lower(keys[0], swarm, params).compile()
    my_turn()
    seconds = []
    for key in keys:
        began = time.perf_counter()
        swarm, rewards = jax.block_until_ready(compiled(key, swarm, params))
        seconds.append((time.perf_counter() - began) / per_call)
    if not np.isfinite(np.asarray(swarm.x)).all() or not np.isfinite(rewards).all():
        raise RuntimeError(f"{task}: numbers that are not finite after {steps} calls")
    return {
        "seconds": float(np.median(seconds[2:])),
        "peak_mb": _resident() - before,
        "temporary_mb": compiled.memory_analysis().temp_size_in_bytes / _MB,
    }


def training(num_agents: int, num_steps: int, run: bool) -> dict[str, float]:
    """Memory of training on swarms of so many agents, with updates of so many steps; what is not run has no peak."""
    env = make_collective("vicsek", num_agents, neighbourhood="grid")
    preset = find_preset("dec_pomfppo")
    config = dataclasses.replace(
        preset.config, total_steps=2 * num_steps, num_envs=1, num_steps=num_steps, hidden_sizes=(64, 64)
    )
    algorithm = preset.make(env, config, preset.hparams, env.default_params)
    jax.block_until_ready(jnp.zeros(1))
    before = _resident()
    compiled = jax.jit(lambda key: train(key, algorithm, config.num_updates)).lower(jax.random.key(0)).compile()
    account = compiled.memory_analysis()
    total = account.temp_size_in_bytes + account.output_size_in_bytes + account.argument_size_in_bytes
    figures = {"program_mb": total / _MB}
    if run:
        jax.block_until_ready(compiled(jax.random.key(0)))
        figures["peak_mb"] = _resident() - before
    return figures


def grid_error(num_agents: int) -> dict[str, float]:
    """The grid's error for several G, and the size of what is estimated."""
    key_place, key_heading = jax.random.split(jax.random.key(0))
    position = jax.random.uniform(key_place, (num_agents, 2), minval=-2.0, maxval=2.0)
    heading = jax.random.uniform(key_heading, (num_agents,), maxval=2 * np.pi)

    def seen(hood: Neighbourhood) -> np.ndarray:
        sums = np.asarray(neighbour_sums(hood, Surface("torus"), position, heading, 0.25), np.float64)
        return sums[:, 1:] / sums[:, :1]

    exact = seen(Neighbourhood("exact"))
    errors = {
        f"grid_rms_{num_agents}_g{num_cells}": float(
            np.sqrt(np.mean((seen(Neighbourhood("grid", num_cells)) - exact) ** 2))
        )
        for num_cells in (128, NUM_CELLS, 512)
    }
    return {f"rms_{num_agents}": float(np.sqrt(np.mean(exact**2))), **errors}


def main(config: Config) -> dict[str, float]:
    """Prints and returns the flat figures."""
    num_agents, steps = 1_000_000, 5 if config.quick else 40
    figures: dict[str, float] = {}
    for task in MODELS:
        found = measure(sys.executable, WORK, what="speed", task=task, num_agents=num_agents, steps=steps)
        figures[f"agent_steps_per_second_{task}_1e6"] = num_agents / found["seconds"]
        figures[f"step_ms_{task}_1e6"] = 1e3 * found["seconds"]
        figures[f"peak_mb_{task}_1e6"] = found["peak_mb"]
        figures[f"temporary_mb_{task}_1e6"] = found["temporary_mb"]
    figures |= measure(sys.executable, WORK, what="grid_error", num_agents=4096)
    for name, size in (("1e3", 1_000), ("1e5", 100_000)):
        found = measure(sys.executable, WORK, what="training", num_agents=size, num_steps=64, run=True)
        figures |= {f"train_peak_mb_{name}": found["peak_mb"], f"train_program_mb_{name}": found["program_mb"]}
    short = measure(sys.executable, WORK, what="training", num_agents=100_000, num_steps=8, run=False)
    figures["train_program_mb_1e5_8_steps"] = short["program_mb"]
    show_and_write(config.json, figures)
    return figures


if __name__ == "__main__":
    if "--work" in sys.argv:
        arguments = json.loads(sys.argv[-1])
        kinds = {
            "speed": speed,
            "grid_error": grid_error,
            "training": training,
        }  # each a process: what it measures, by name
        print(json.dumps(kinds[arguments.pop("what")](**arguments)))
    else:
        main(tyro.cli(Config))
