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
from jaxrl.rules import rule_sha256
from jaxrl.runtime import Layout, choose_layout, member_spread, over_runs, padded, place, quick_compile_options
from jaxrl.settings import check_at_least

EVALUATION_EPISODES = 16
_ALONE = Layout(1, 1)  # for shapes and first states, which no layout changes


@dataclasses.dataclass(frozen=True)
class Options:
    """How a plan is carried out; none of it changes what is learnt.

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

    def layout(self, num_runs: int, splits: bool = False) -> Layout:
        """The layout of `num_runs` runs, whose populations devices without a run can help with or not."""
        chosen = choose_layout(num_runs, splits)
        available = jax.local_device_count()
        if self.num_devices is not None and self.num_devices > available:
            raise ValueError(f"num_devices = {self.num_devices}: expected a number in [1, {available}]")
        batch = chosen.batch if self.batch is None else self.batch
        if self.num_devices is None:
            return chosen._replace(batch=batch)
        num_devices = min(self.num_devices, num_runs)
        return Layout(num_devices, batch, self.num_devices // num_devices if splits else 1)


@dataclasses.dataclass
class Outcome:
    """What one program gave, with its runs in the order cell, seed.

    Attributes:
      metrics: {name: [cells, S, updates]}.
      state: of all runs, leaves [R, …], on the devices.
      compile_seconds, train_seconds: host time, of all processes that worked on it.
      earlier_seconds: the share of both that processes before this one spent.
    """

    metrics: dict[str, np.ndarray]
    state: Any
    compile_seconds: float
    train_seconds: float
    earlier_seconds: float


# Told after each chunk: its environment steps, its seconds, its metrics [R, n], and the names of the R runs.
Report = Callable[[int, float, dict[str, np.ndarray], list[str]], None]


def make_algorithm(
    preset: Preset, env: Any, config: Any, numbers: dict[str, Any], layout: Layout, evaluations: int = 0
) -> Algorithm:
    """The algorithm for one run's numbers, which may be traced, inside `over_runs` of a layout."""
    hp, env_params = split_numbers(preset, env, numbers)
    if preset.splits:
        spread = member_spread(config.population_batch, layout)
        algorithm = preset.make(env, config, hp, env_params, spread=spread)
    else:
        algorithm = preset.make(env, config, hp, env_params)
    if not evaluations:
        return algorithm
    agent = preset.agent(env, config, hp, env_params)

    def measure(key: jax.Array, state: Any) -> dict[str, jax.Array]:
        episodes = evaluate(key, agent, state.agent, env, env_params, EVALUATION_EPISODES)
        return {"return": episodes.returns.mean(), "length": episodes.lengths.mean()}

    num_updates = config.num_updates

    def is_due(t: jax.Array) -> jax.Array:
        # Where the count of evaluations that should lie behind us rises: evenly spread, the last after the last update.
        share = evaluations / num_updates
        return jnp.floor((t + 1) * share + 1e-4) > jnp.floor(t * share + 1e-4)

    return with_evaluation(algorithm, measure, is_due)


def split_numbers(preset: Preset, env: Any, numbers: dict[str, Any]) -> tuple[Any, Any]:
    """A run's numbers as the algorithm's hyperparameters and the environment's parameters."""
    of_env = {name.removeprefix(ENV_PREFIX): v for name, v in numbers.items() if name.startswith(ENV_PREFIX)}
    of_agent = {name: v for name, v in numbers.items() if not name.startswith(ENV_PREFIX)}
    params = env.default_params
    return preset.hparams.replace(**of_agent), params.replace(**of_env) if of_env else params


class Execution:
    """One program of a plan: compiled once, advanced chunk by chunk, resumable from its directory."""

    def __init__(
        self,
        plan: Plan,
        program: Program,
        env: Any,
        options: Options,
        directory: Path | None,
        layout: Layout | None = None,
    ) -> None:
        self.program = program
        self.rule_sha256 = rule_sha256(self._objective)
        self.num_updates = program.config.num_updates
        self.chunk = -(-self.num_updates // options.num_chunks)
        self.num_runs = len(program.cells) * len(plan.seeds)
        self.run_names = [f"cell {cell} seed {seed}" for cell in program.cells for seed in plan.seeds]
        self._preset = find_preset(plan.algorithm)
        self.layout = options.layout(self.num_runs, self._preset.splits) if layout is None else layout
        self._shape = (len(program.cells), len(plan.seeds))
        self._directory = directory
        self._memory: list[dict[str, np.ndarray]] = []
        self._step: Callable[..., Any] | None = None
        self._evaluations, self._env = options.evaluations, env
        self._fixed = self._runs(plan.seeds)
        # Eagerly, for what only the algorithm's parts can check: before any compilation.
        jax.eval_shape(self._init_one, self._one())

    @property
    def _objective(self) -> str | None:
        return getattr(self.program.config, "objective", None)

    @property
    def done(self) -> int:
        """Updates that the newest checkpoint has behind it."""
        newest = self._newest()
        return 0 if newest is None else checkpoint.load_meta(newest)["updates"]

    def run(self, report: Report) -> Outcome:
        """Runs what is left to do, reports after every chunk, and leaves a checkpoint after each."""
        available = jax.local_device_count()
        wanted = self.layout.num_devices * self.layout.split
        if wanted > available:
            raise ValueError(
                f"the run was laid out over {wanted} devices, and here there are {available}: going on bit for bit "
                f"needs as many (on CPUs: XLA_FLAGS=--xla_force_host_platform_device_count={wanted})"
            )
        started = time.perf_counter()
        self._memory = []
        fixed = place(self._fixed, self.layout)
        state, done, costs = self._restore(fixed)
        earlier = sum(costs.values())
        if done < self.num_updates and self._step is None:
            self._step = self._compiled_step(state, fixed)
        costs["compile_seconds"] += time.perf_counter() - started
        for start in range(done, self.num_updates, self.chunk):
            assert self._step is not None
            began = time.perf_counter()
            state, metrics = self._step(state, fixed, self._bounds(start))
            count = min(self.chunk, self.num_updates - start)
            rows = {name: np.asarray(value)[: self.num_runs, :count] for name, value in metrics.items()}
            seconds = time.perf_counter() - began
            costs["train_seconds"] += seconds
            self._save(start, count, state, rows, costs)
            report(count * self.num_runs * self.program.config.steps_per_update, seconds, rows, self.run_names)
        return Outcome(self._history(), state, **costs, earlier_seconds=earlier)

    def restore(self) -> Any:
        """The state of all runs at the newest checkpoint, leaves [R padded, …]; on any number of devices.

        Raises:
          CheckpointError: if there is none, or it is damaged.
        """
        newest = self._newest()
        if newest is None:
            raise checkpoint.CheckpointError(f"{self._directory} holds no checkpoint yet; `jaxrl resume` the run first")
        return checkpoint.load(newest, jax.eval_shape(jax.vmap(self._init_one), self._fixed))

    def _newest(self) -> Path | None:
        return checkpoint.latest(self._directory) if self._directory else None

    def _bounds(self, start: int) -> dict[str, jax.Array]:
        return {"start": jnp.int32(start), "stop": jnp.int32(self.num_updates)}

    def _make(self, numbers: dict[str, Any], layout: Layout) -> Algorithm:
        return make_algorithm(self._preset, self._env, self.program.config, numbers, layout, self._evaluations)

    def _one(self) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], self._fixed)

    def _init_one(self, run: Any) -> Any:
        return init(run["key"], self._make(run["numbers"], _ALONE))

    def _runs(self, seeds: tuple[int, ...]) -> Any:
        num_cells = len(self.program.cells)
        pad = padded(self.num_runs, self.layout) - self.num_runs
        # Runs that only fill up the last device repeat the last one and are dropped from every result.
        index = np.concatenate([np.arange(self.num_runs), np.full(pad, self.num_runs - 1)])
        all_seeds = np.tile(np.asarray(seeds, np.uint32), num_cells)[index]
        numbers = {n: jnp.asarray(np.repeat(v, len(seeds))[index]) for n, v in self.program.numbers.items()}
        return {"key": jax.vmap(jax.random.key)(all_seeds), "numbers": numbers}

    def _compiled_step(self, state: Any, fixed: Any) -> Callable[..., Any]:
        # Programs are compiled one after the other, perhaps hours after the first checksum was written down.
        if rule_sha256(self._objective) != self.rule_sha256:
            raise ValueError(f"objective = {self._objective!r}: the rule file changed during the run; put it back")
        masked = self.num_updates % self.chunk != 0

        def advance(run: Any, bounds: Any) -> Any:
            stop = bounds["stop"] if masked else None
            algorithm = self._make(run["numbers"], self.layout)
            return train(run["key"], algorithm, self.chunk, run["state"], bounds["start"], stop)

        def step(state: Any, fixed: Any, bounds: Any) -> Any:
            return over_runs(advance, self.layout)({**fixed, "state": state}, bounds)

        return jax.jit(step, donate_argnums=0).lower(state, fixed, self._bounds(0)).compile()

    def _restore(self, fixed: Any) -> tuple[Any, int, dict[str, float]]:
        newest = self._newest()
        if newest is None:
            initialise = over_runs(lambda run, _: self._init_one(run), self.layout)
            lowered = jax.jit(initialise).lower(fixed, None)
            compiled = lowered.compile(compiler_options=quick_compile_options())
            # Waited for: what fills a buffer is no part of the first chunk's seconds.
            state = jax.block_until_ready(compiled(fixed, None))
            return state, 0, {"compile_seconds": 0.0, "train_seconds": 0.0}
        meta = checkpoint.load_meta(newest)
        return place(self.restore(), self.layout), meta["updates"], meta["costs"]

    def _save(self, start: int, count: int, state: Any, rows: dict[str, np.ndarray], costs: dict[str, float]) -> None:
        if self._directory is None:
            self._memory.append(rows)
            return
        # The metrics first: a kill between the two repeats a chunk, and never leaves a gap.
        checkpoint.save(self._directory / f"metrics_{start:09d}.npz", rows, {"start": start, "count": count})
        checkpoint.save_step(self._directory, start + count, state, {"updates": start + count, "costs": costs})

    def _history(self) -> dict[str, np.ndarray]:
        pieces = self._memory if self._directory is None else self._metrics_files()
        joined = {name: np.concatenate([piece[name] for piece in pieces], axis=1) for name in pieces[0]}
        return {name: array.reshape(*self._shape, self.num_updates) for name, array in joined.items()}

    def _metrics_files(self) -> list[dict[str, np.ndarray]]:
        assert self._directory is not None
        names = jax.eval_shape(lambda run: train(run["key"], self._make(run["numbers"], _ALONE), 1)[1], self._one())
        pieces = []
        for start in range(0, self.num_updates, self.chunk):
            count = min(self.chunk, self.num_updates - start)
            like = {n: np.zeros((self.num_runs, count), leaf.dtype) for n, leaf in names.items()}
            pieces.append(checkpoint.load(self._directory / f"metrics_{start:09d}.npz", like))
        return pieces


def executions(
    plan: Plan, env: Any, options: Options, directory: Path | None, layouts: list[Layout] | None = None
) -> list[Execution]:
    """One `Execution` per program; each keeps its files in a folder of its own below `directory`.

    Args:
      plan, env, options, directory: what to run, how, and where its files are.
      layouts: those of the run being reopened; `None` chooses.
    """
    found = programs(plan, find_preset(plan.algorithm), env.default_params)
    folders = [directory / f"program_{i:02d}" if directory else None for i in range(len(found))]
    chosen: list[Layout | None] = [None] * len(found) if layouts is None else list(layouts)
    pairs = zip(found, folders, chosen, strict=True)
    return [Execution(plan, program, env, options, folder, layout) for program, folder, layout in pairs]


def merge(plan: Plan, parts: list[tuple[Program, dict[str, np.ndarray]]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Metrics of all cells on one axis: every number of environment steps at which some cell ended an update.

    Returns:
      steps [K], and {name: [H, S, K]}; NaN where a cell has no row.
    """
    ends = [
        getattr(p.config, "initial_steps", 0) + (np.arange(p.config.num_updates) + 1) * p.config.steps_per_update
        for p, _ in parts
    ]
    steps = np.unique(np.concatenate(ends))
    names = sorted({name for _, metrics in parts for name in metrics})
    merged = {name: np.full((len(plan.cells), len(plan.seeds), len(steps)), np.nan, np.float32) for name in names}
    for (program, metrics), own in zip(parts, ends, strict=True):
        columns = np.searchsorted(steps, own)
        for name, values in metrics.items():
            for row, cell in enumerate(program.cells):
                merged[name][cell][:, columns] = values[row]
    return steps, merged


def missing(plan: Plan, parts: list[tuple[Program, dict[str, np.ndarray]]]) -> dict[str, list[int]]:
    """{metric: the cells whose algorithm has none of that name}."""
    names = {name for _, metrics in parts for name in metrics}
    absent = {name: [c for p, metrics in parts if name not in metrics for c in p.cells] for name in sorted(names)}
    return {name: sorted(cells) for name, cells in absent.items() if cells}
