"""Running what a plan asks for, on the host: chunks of compiled updates, and between them progress and files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checkpoint
from jaxrl.algorithm import Algorithm, init, train, with_evaluation
from jaxrl.evaluation import evaluate
from jaxrl.plan import ENV_PREFIX, Plan, Program, programs
from jaxrl.presets import Preset, find_preset
from jaxrl.runtime import Layout, choose_layout, over_runs, padded, place
from jaxrl.settings import check_at_least

EVALUATION_EPISODES = 16


@dataclasses.dataclass(frozen=True)
class Options:
    """How a plan is carried out; none of it changes what is computed, save `evaluations`.

    Attributes:
      num_chunks: pieces that each program's updates are cut into; between them come progress and checkpoints.
      evaluations: how often, evenly spread, every policy plays whole greedy episodes; 0 is never.
      num_devices, batch: the layout; `None` is chosen for the hardware.
    """

    num_chunks: int = 20
    evaluations: int = 0
    num_devices: int | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_chunks")
        check_at_least(self, 0, "evaluations", *(["batch"] if self.batch is not None else []))
        if self.num_devices is not None:
            check_at_least(self, 1, "num_devices")

    def layout(self, num_runs: int) -> Layout:
        """The layout of `num_runs` runs."""
        chosen = choose_layout(num_runs)
        available = jax.local_device_count()
        if self.num_devices is not None and self.num_devices > available:
            raise ValueError(f"num_devices = {self.num_devices}: expected a number in [1, {available}]")
        num_devices = chosen.num_devices if self.num_devices is None else min(self.num_devices, num_runs)
        return Layout(num_devices, chosen.batch if self.batch is None else self.batch)


@dataclasses.dataclass
class Outcome:
    """What one program gave, with its runs in the order cell, seed.

    Attributes:
      metrics: {name: [cells, S, updates]}.
      state: of all runs, leaves [R, …], on the devices.
      compile_seconds, train_seconds: host time.
    """

    metrics: dict[str, np.ndarray]
    state: Any
    compile_seconds: float
    train_seconds: float


# Told after each chunk: (environment steps done in this process by this chunk, its seconds, its metrics [R, n]).
Report = Callable[[int, float, dict[str, np.ndarray]], None]


def make_algorithm(preset: Preset, env: Any, config: Any, numbers: dict[str, Any], evaluations: int = 0) -> Algorithm:
    """The algorithm for one run's numbers, which may be traced."""
    hp, env_params = split_numbers(preset, env, numbers)
    algorithm = preset.make(env, config, hp, env_params)
    if not evaluations:
        return algorithm
    agent = preset.agent(env, config, hp, env_params)

    def measure(key: jax.Array, state: Any) -> dict[str, jax.Array]:
        episodes = evaluate(key, agent, state.agent, env, env_params, EVALUATION_EPISODES)
        return {"return": episodes.returns.mean(), "length": episodes.lengths.mean()}

    return with_evaluation(algorithm, measure, every=max(config.num_updates // evaluations, 1))


def split_numbers(preset: Preset, env: Any, numbers: dict[str, Any]) -> tuple[Any, Any]:
    """A run's numbers as the algorithm's hyperparameters and the environment's parameters."""
    of_env = {name.removeprefix(ENV_PREFIX): v for name, v in numbers.items() if name.startswith(ENV_PREFIX)}
    of_agent = {name: v for name, v in numbers.items() if not name.startswith(ENV_PREFIX)}
    params = env.default_params
    return preset.hparams.replace(**of_agent), params.replace(**of_env) if of_env else params


class Execution:
    """One program of a plan: compiled once, advanced chunk by chunk, resumable from its directory."""

    def __init__(self, plan: Plan, program: Program, env: Any, options: Options, directory: Path | None) -> None:
        self.program = program
        self.num_updates = program.config.num_updates
        self.chunk = -(-self.num_updates // options.num_chunks)
        self.num_runs = len(program.cells) * len(plan.seeds)
        self._shape = (len(program.cells), len(plan.seeds))
        self._directory = directory
        self.layout = options.layout(self.num_runs)
        self._preset = find_preset(plan.algorithm)
        self._make = lambda numbers: make_algorithm(self._preset, env, program.config, numbers, options.evaluations)
        self._fixed = self._runs(plan.seeds)
        # Eagerly, for what only the algorithm's parts can check: before any compilation.
        jax.eval_shape(lambda run: init(run["key"], self._make(run["numbers"])), self._one())

    @property
    def done(self) -> int:
        """Updates that the newest checkpoint has behind it."""
        newest = checkpoint.latest(self._directory) if self._directory else None
        return 0 if newest is None else checkpoint.load_meta(newest)["updates"]

    def run(self, report: Report) -> Outcome:
        """Runs what is left to do, reports after every chunk, and leaves a checkpoint after each."""
        started = time.perf_counter()
        state, done, spent = self._restore()
        shared = {"start": jnp.int32(0), "stop": jnp.int32(self.num_updates)}
        step = self._compiled_step(state, shared) if done < self.num_updates else None
        compile_seconds = time.perf_counter() - started
        for start in range(done, self.num_updates, self.chunk):
            assert step is not None
            began = time.perf_counter()
            state, metrics = step(state, self._fixed, shared | {"start": jnp.int32(start)})
            count = min(self.chunk, self.num_updates - start)
            rows = {name: np.asarray(value)[: self.num_runs, :count] for name, value in metrics.items()}
            seconds = time.perf_counter() - began
            spent += seconds
            self._save(start, count, state, rows, spent)
            report(count * self.num_runs * self.program.config.steps_per_update, seconds, rows)
        return Outcome(self._history(), state, compile_seconds, spent)

    def state_like(self) -> Any:
        """Shapes and dtypes of the state of all runs, leaves [R padded, …]."""
        return jax.eval_shape(self._init, self._fixed)

    def restore(self) -> Any:
        """The state of all runs at the newest checkpoint.

        Raises:
          CheckpointError: if there is none, or it is damaged.
        """
        newest = checkpoint.latest(self._directory) if self._directory else None
        if newest is None:
            raise checkpoint.CheckpointError(f"{self._directory} holds no checkpoint yet; `jaxrl resume` the run first")
        return checkpoint.load(newest, self.state_like())

    def _one(self) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], self._fixed)

    def _runs(self, seeds: tuple[int, ...]) -> Any:
        num_cells = len(self.program.cells)
        pad = padded(self.num_runs, self.layout) - self.num_runs
        # Runs that only fill up the last device repeat the last one and are dropped from every result.
        index = np.concatenate([np.arange(self.num_runs), np.full(pad, self.num_runs - 1)])
        all_seeds = np.tile(np.asarray(seeds, np.uint32), num_cells)[index]
        numbers = {n: jnp.asarray(np.repeat(v, len(seeds))[index]) for n, v in self.program.numbers.items()}
        return place({"key": jax.vmap(jax.random.key)(all_seeds), "numbers": numbers}, self.layout)

    def _init(self, fixed: Any) -> Any:
        return over_runs(lambda run, _: init(run["key"], self._make(run["numbers"])), self.layout)(fixed, None)

    def _compiled_step(self, state: Any, shared: Any) -> Callable[..., Any]:
        masked = self.num_updates % self.chunk != 0

        def advance(run: Any, shared: Any) -> Any:
            stop = shared["stop"] if masked else None
            algorithm = self._make(run["numbers"])
            return train(run["key"], algorithm, self.chunk, run["state"], shared["start"], stop)

        def step(state: Any, fixed: Any, shared: Any) -> Any:
            return over_runs(advance, self.layout)({**fixed, "state": state}, shared)

        return jax.jit(step, donate_argnums=0).lower(state, self._fixed, shared).compile()

    def _restore(self) -> tuple[Any, int, float]:
        newest = checkpoint.latest(self._directory) if self._directory else None
        if newest is None:
            return jax.jit(self._init)(self._fixed), 0, 0.0
        meta = checkpoint.load_meta(newest)
        return place(checkpoint.load(newest, self.state_like()), self.layout), meta["updates"], meta["train_seconds"]

    def _save(self, start: int, count: int, state: Any, rows: dict[str, np.ndarray], spent: float) -> None:
        if self._directory is None:
            self._memory = [*getattr(self, "_memory", []), rows]
            return
        # The metrics first: a kill between the two repeats a chunk, and never leaves a gap.
        checkpoint.save(self._directory / f"metrics_{start:09d}.npz", rows, {"start": start, "count": count})
        done = start + count
        checkpoint.save_step(self._directory, done, state, {"updates": done, "train_seconds": spent})

    def _history(self) -> dict[str, np.ndarray]:
        pieces = getattr(self, "_memory", []) if self._directory is None else self._metrics_files()
        joined = {name: np.concatenate([piece[name] for piece in pieces], axis=1) for name in pieces[0]}
        return {name: array.reshape(*self._shape, self.num_updates) for name, array in joined.items()}

    def _metrics_files(self) -> list[dict[str, np.ndarray]]:
        assert self._directory is not None
        names = jax.eval_shape(lambda run: train(run["key"], self._make(run["numbers"]), 1)[1], self._one())
        pieces = []
        for start in range(0, self.num_updates, self.chunk):
            count = min(self.chunk, self.num_updates - start)
            like = {n: np.zeros((self.num_runs, count), leaf.dtype) for n, leaf in names.items()}
            pieces.append(checkpoint.load(self._directory / f"metrics_{start:09d}.npz", like))
        return pieces


def executions(plan: Plan, env: Any, options: Options, directory: Path | None) -> list[Execution]:
    """One `Execution` per program; each keeps its files in a folder of its own below `directory`."""
    found = programs(plan, find_preset(plan.algorithm), env.default_params)
    return [
        Execution(plan, program, env, options, directory / f"program_{i:02d}" if directory else None)
        for i, program in enumerate(found)
    ]


def merge(plan: Plan, parts: list[tuple[Program, dict[str, np.ndarray]]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Metrics of all cells on one axis of environment steps.

    Cells whose updates are larger have fewer rows; each row goes where its number of steps falls, NaN between.

    Returns:
      steps [K], and {name: [H, S, K]}.
    """
    finest = max(parts, key=lambda part: part[0].config.num_updates)[0].config
    num = finest.num_updates
    steps = (np.arange(num) + 1) * finest.steps_per_update
    names = sorted({name for _, metrics in parts for name in metrics})
    merged = {name: np.full((len(plan.cells), len(plan.seeds), num), np.nan, np.float32) for name in names}
    for program, metrics in parts:
        ends = (np.arange(program.config.num_updates) + 1) * program.config.steps_per_update
        columns = np.arange(num) if program.config.num_updates == num else np.searchsorted(steps, ends).clip(0, num - 1)
        for name, values in metrics.items():
            for row, cell in enumerate(program.cells):
                merged[name][cell][:, columns] = values[row]
    return steps, merged
