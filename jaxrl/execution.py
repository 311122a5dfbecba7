"""One program of a plan, carried out on the host: chunks of compiled updates, between them progress and files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import checkpoint, hosts
from jaxrl.algorithm import Algorithm, init, train, with_evaluation
from jaxrl.env import time_limit
from jaxrl.evaluation import evaluate
from jaxrl.files import read_json, write_json
from jaxrl.plan import ENV_PREFIX, Plan, Program
from jaxrl.presets import Preset, find_preset
from jaxrl.rules import rule_sha256
from jaxrl.runtime import (
    Layout,
    choose_layout,
    member_spread,
    memory_limit,
    memory_needed,
    over_runs,
    padded,
    place,
    place_empty,
    quick_compile_options,
    run_sharding,
    step_compile_options,
)
from jaxrl.settings import check_at_least

EVALUATION_EPISODES = 16
_PIECES = "pieces.json"
_ALONE = Layout(1, 1)  # for shapes and first states, which no layout changes


@dataclasses.dataclass(frozen=True)
class Options:
    """How a plan is carried out; none of it changes what is learnt.

    Attributes:
      num_chunks: pieces that each program's updates are cut into; between them come progress and checkpoints.
      evaluations: how often, evenly spread, every policy plays whole greedy episodes; 0 is never.
      num_devices, batch: the layout; `None` is chosen for the hardware.
      max_memory: GiB of each device that a program may use, above 0: runs that do not fit side by side are trained
        in as many pieces as it takes, one after the other. `None` is most of an accelerator's memory, on CPUs half of
        the machine's.
    """

    num_chunks: int = 20
    evaluations: int = 0
    num_devices: int | None = None
    batch: int | None = None
    max_memory: float | None = None

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_chunks")
        check_at_least(self, 0, "evaluations", *(["batch"] if self.batch is not None else []))
        if self.num_devices is not None:
            check_at_least(self, 1, "num_devices")
        if self.max_memory is not None and not self.max_memory > 0.0:
            raise ValueError(f"max_memory = {self.max_memory}: expected GiB above 0, as in max_memory=8")

    def layout(self, num_runs: int, splits: bool = False) -> Layout:
        """The layout of `num_runs` runs, whose populations devices without a run can help with or not."""
        chosen = choose_layout(num_runs, splits)
        available = jax.device_count()
        batch = chosen.batch if self.batch is None else self.batch
        if jax.process_count() > 1:  # every device of every process is part of the run
            if self.num_devices not in (None, available):
                raise ValueError(f"num_devices = {self.num_devices}: a run of several processes uses all {available}")
            helps = splits and available % chosen.num_devices == 0
            return Layout(chosen.num_devices, batch, chosen.split) if helps else Layout(available, batch)
        if self.num_devices is not None and self.num_devices > available:
            raise ValueError(f"num_devices = {self.num_devices}: expected a number in [1, {available}]")
        if self.num_devices is None:
            return chosen._replace(batch=batch)
        num_devices = min(self.num_devices, num_runs)
        return Layout(num_devices, batch, self.num_devices // num_devices if splits else 1)


@dataclasses.dataclass
class Outcome:
    """What one program gave, with its runs in the order cell, seed.

    Attributes:
      metrics: {name: [cells, S, updates]}.
      state: of all runs, leaves [R, …], on the devices; of several pieces on the host, or `None` where there are
        checkpoints.
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
    agent, horizon = preset.agent(env, config, hp, env_params), preset.horizon(config)
    played = env if horizon is None else time_limit(env, horizon)

    def measure(key: jax.Array, state: Any) -> dict[str, jax.Array]:
        episodes = evaluate(key, agent, state.agent, played, env_params, EVALUATION_EPISODES)
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
    """One program of a plan: compiled once, advanced chunk by chunk, resumable from its directory.

    Where its runs do not fit into the memory of the devices, they are cut into pieces of one size, which follow one
    after the other and keep their files apart.
    """

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
        self._seeds = plan.seeds
        self._directory = directory
        self._max_memory = options.max_memory
        self._size: int | None = None  # of a piece, once it is known
        self._read: tuple[Path | None, Any] | None = None  # the checkpoint that was read last
        self._initial: Any = None  # compiled programs
        self._step: Any = None
        self._evaluations, self._env = options.evaluations, env
        # Eagerly, for what only the algorithm's parts can check: before any compilation.
        jax.eval_shape(self._init_one, self._one())

    @property
    def _objective(self) -> str | None:
        return getattr(self.program.config, "objective", None)

    @property
    def done(self) -> int:
        """Updates that the newest checkpoints of all runs have behind them."""
        return min(self._done(piece) for piece in self._pieces())

    @property
    def run_updates_done(self) -> int:
        """The same, summed over runs."""
        return sum(self._done(piece) * piece.num for piece in self._pieces())

    def run(self, report: Report) -> Outcome:
        """Runs what is left to do, reports after every chunk, and leaves a checkpoint after each.

        Raises:
          ValueError: if there are fewer devices than the run was laid out over, or one run alone needs more memory
            than is allowed.
        """
        available = jax.device_count()
        wanted = self.layout.num_devices * self.layout.split
        if wanted > available:
            raise ValueError(
                f"the run was laid out over {wanted} devices, and here there are {available}: going on bit for bit "
                f"needs as many (on CPUs: XLA_FLAGS=--xla_force_host_platform_device_count={wanted})"
            )
        started = time.perf_counter()
        self._choose_size()
        sizing = time.perf_counter() - started
        outcomes: list[Outcome] = []
        for piece in self._pieces():
            outcome = self._run_piece(piece, report, sizing if not outcomes else 0.0)
            if len(self._pieces()) > 1:  # before the next piece needs the room; checkpoints have it, if there are any
                outcome.state = jax.device_get(hosts.fetch(outcome.state)) if self._directory is None else None
            outcomes.append(outcome)
        return self._joined(outcomes)

    def restore(self, row: int) -> Any:
        """The state of one of the runs at its newest checkpoint; on any number of devices.

        Raises:
          CheckpointError: if there is none, or it is damaged.
        """
        piece = next(piece for piece in self._pieces() if piece.start <= row < piece.start + piece.num)
        newest = self._newest(piece)
        if self._read is None or self._read[0] != newest:
            self._read = (newest, self._load(piece))
        return jax.tree.map(lambda leaf: leaf[row - piece.start], self._read[1])

    # ------------------------------------------------------------------------------------------------ pieces

    def _choose_size(self) -> None:
        """The largest pieces whose program fits, by the compiler's own account; remembered for later processes."""
        if not any(map(self._done, self._pieces())) and self._size is None:
            self._size = self._agreed(self._largest_size())
            hosts.wait_for_all("size")  # until nobody looks for checkpoints any more
            if self._directory is not None and self._size < self.num_runs and hosts.writes():
                write_json(self._directory / _PIECES, {"size": self._size})

    def _agreed(self, size: int) -> int:
        """The size that the first process found, for all of them: hosts may have different memories."""
        agreed = hosts.from_first(size)
        if agreed != size:
            self._initial = self._step = None
        return agreed

    def _largest_size(self) -> int:
        limit = memory_limit() if self._max_memory is None else self._max_memory * 2**30
        size, smallest = self.num_runs, min(self.layout.num_devices, self.num_runs)
        while True:
            needed = self._compile(size)
            if needed <= limit:
                return self._even(size)
            if size <= smallest and self._max_memory is None:
                return size  # an estimate of what there is, and no order
            if size <= smallest:
                raise ValueError(
                    f"max_memory = {limit / 2**30:g} GiB: one run alone needs {needed / 2**30:.3g} GiB of a device; "
                    f"allow more, or choose smaller settings"
                )
            # Some of it does not grow with the number of runs, so the first guess may be too small a cut.
            size = min(size - 1, int(size * limit / needed))
            size = max(smallest, size - size % self.layout.num_devices)

    def _even(self, size: int) -> int:
        """The smallest pieces of which there are no more than of this size: what fills up the last is computed, too."""
        per_device = -(-self.num_runs // (-(-self.num_runs // size) * self.layout.num_devices))
        even = min(size, per_device * self.layout.num_devices)
        if even < size:
            self._initial = self._step = None  # compiled for more runs
        return even

    def _pieces(self) -> list[_Piece]:
        if self._size is None and self._directory is not None and (self._directory / _PIECES).exists():
            self._size = int(read_json(self._directory / _PIECES)["size"])
        size = self._size or self.num_runs
        starts = range(0, self.num_runs, size)
        folders = [self._directory] if size >= self.num_runs else [
            self._directory and self._directory / f"runs_{start:06d}" for start in starts
        ]  # fmt: skip
        return [
            _Piece(start, min(size, self.num_runs - start), size, folder)
            for start, folder in zip(starts, folders, strict=True)
        ]

    def _joined(self, outcomes: list[Outcome]) -> Outcome:
        """All runs of all pieces."""
        state = outcomes[0].state
        if len(outcomes) > 1:
            pairs = zip(self._pieces(), outcomes, strict=True)
            cut = [jax.tree.map(lambda leaf, n=piece.num: leaf[:n], outcome.state) for piece, outcome in pairs]
            state = jax.tree.map(lambda *leaves: np.concatenate(leaves), *cut)
        names = outcomes[0].metrics
        metrics = {name: np.concatenate([outcome.metrics[name] for outcome in outcomes]) for name in names}
        return Outcome(
            {name: rows.reshape(*self._shape, self.num_updates) for name, rows in metrics.items()},
            state,
            compile_seconds=sum(outcome.compile_seconds for outcome in outcomes),
            train_seconds=sum(outcome.train_seconds for outcome in outcomes),
            earlier_seconds=sum(outcome.earlier_seconds for outcome in outcomes),
        )

    def _run_piece(self, piece: _Piece, report: Report, compiled_before: float) -> Outcome:
        started = time.perf_counter()
        fixed = self._fixed(piece)
        state, done, costs = self._restore(piece, fixed)
        earlier = sum(costs.values())
        if done < self.num_updates and self._step is None:
            self._step = self._compiled_step(piece.size)
        costs["compile_seconds"] += time.perf_counter() - started + compiled_before
        kept: list[dict[str, np.ndarray]] = []
        for start in range(done, self.num_updates, self.chunk):
            assert self._step is not None
            began = time.perf_counter()
            state, metrics = self._step(place_empty(state, self.layout), fixed, self._bounds(start))
            count = min(self.chunk, self.num_updates - start)
            rows = {name: np.asarray(value)[: piece.num, :count] for name, value in hosts.fetch(metrics).items()}
            seconds = time.perf_counter() - began
            costs["train_seconds"] += seconds
            kept.append(rows)
            self._save(piece, start, state, rows, costs)
            names = self.run_names[piece.start : piece.start + piece.num]
            report(count * piece.num * self.program.config.steps_per_update, seconds, rows, names)
        return Outcome(self._history(piece, kept), state, **costs, earlier_seconds=earlier)

    # ------------------------------------------------------------------------------------- programs and files

    def _done(self, piece: _Piece) -> int:
        newest = self._newest(piece)
        return 0 if newest is None else checkpoint.load_meta(newest)["updates"]

    def _newest(self, piece: _Piece) -> Path | None:
        return checkpoint.latest(piece.directory) if piece.directory else None

    def _load(self, piece: _Piece) -> Any:
        newest = self._newest(piece)
        if newest is None:
            raise checkpoint.CheckpointError(f"{piece.directory} holds no checkpoint yet; `jaxrl resume` the run first")
        return checkpoint.load(newest, jax.eval_shape(jax.vmap(self._init_one), self._runs(piece)))

    def _bounds(self, start: int) -> dict[str, jax.Array]:
        return {"start": jnp.int32(start), "stop": jnp.int32(self.num_updates)}

    def _make(self, numbers: dict[str, Any], layout: Layout) -> Algorithm:
        return make_algorithm(self._preset, self._env, self.program.config, numbers, layout, self._evaluations)

    def _one(self) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], self._runs(_Piece(0, 1, 1, None)))

    def _init_one(self, run: Any) -> Any:
        return init(jax.random.key(run["seed"]), self._make(run["numbers"], _ALONE))

    def _fixed(self, piece: _Piece) -> Any:
        return place(self._runs(piece), self.layout)

    def _runs(self, piece: _Piece) -> Any:
        # Runs that only fill up the last device or piece repeat the last one and are dropped from every result.
        num = padded(piece.size, self.layout)
        index = np.minimum(piece.start + np.arange(num), piece.start + piece.num - 1)
        all_seeds = np.tile(np.asarray(self._seeds, np.uint32), self._shape[0])[index]
        numbers = {n: np.repeat(v, self._shape[1])[index] for n, v in self.program.numbers.items()}
        return {"seed": all_seeds, "numbers": numbers}

    def _compile(self, size: int) -> int:
        """Makes both programs for pieces of so many runs; returns the bytes that they need of one device."""
        self._initial = self._compiled_initial(size)
        self._step = self._compiled_step(size)
        return max(memory_needed(self._initial), memory_needed(self._step))

    def _compiled_initial(self, size: int) -> Any:
        initialise = over_runs(lambda run, _: self._init_one(run), self.layout)
        lowered = jax.jit(initialise).lower(self._fixed(_Piece(0, size, size, None)), None)
        return lowered.compile(compiler_options=quick_compile_options())

    def _compiled_step(self, size: int) -> Any:
        # Programs are compiled one after the other, perhaps hours after the first checksum was written down.
        if rule_sha256(self._objective) != self.rule_sha256:
            raise ValueError(f"objective = {self._objective!r}: the rule file changed during the run; put it back")
        masked = self.num_updates % self.chunk != 0

        def advance(run: Any, bounds: Any) -> Any:
            stop = bounds["stop"] if masked else None
            algorithm = self._make(run["numbers"], self.layout)
            return train(jax.random.key(run["seed"]), algorithm, self.chunk, run["state"], bounds["start"], stop)

        def step(state: Any, fixed: Any, bounds: Any) -> Any:
            return over_runs(advance, self.layout)({**fixed, "state": state}, bounds)

        fixed = self._fixed(_Piece(0, size, size, None))
        where = run_sharding(self.layout)
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            jax.eval_shape(jax.vmap(self._init_one), fixed),
        )
        lowered = jax.jit(step, donate_argnums=0).lower(state, fixed, self._bounds(0))
        return lowered.compile(compiler_options=step_compile_options(self._env))

    def _restore(self, piece: _Piece, fixed: Any) -> tuple[Any, int, dict[str, float]]:
        newest = self._newest(piece)
        if newest is None:
            if self._initial is None:
                self._initial = self._compiled_initial(piece.size)
            # Waited for: what fills a buffer is no part of the first chunk's seconds.
            state = jax.block_until_ready(self._initial(fixed, None))
            return state, 0, {"compile_seconds": 0.0, "train_seconds": 0.0}
        meta = checkpoint.load_meta(newest)
        return place(self._load(piece), self.layout), meta["updates"], meta["costs"]

    def _save(
        self, piece: _Piece, start: int, state: Any, rows: dict[str, np.ndarray], costs: dict[str, float]
    ) -> None:
        if piece.directory is None:
            return
        state = hosts.fetch(state)
        if not hosts.writes():
            return
        count = len(next(iter(rows.values()))[0])
        # The metrics first: a kill between the two repeats a chunk, and never leaves a gap.
        checkpoint.save(piece.directory / f"metrics_{start:09d}.npz", rows, {"start": start, "count": count})
        checkpoint.save_step(piece.directory, start + count, state, {"updates": start + count, "costs": costs})

    def _history(self, piece: _Piece, kept: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """{metric: [runs of the piece, updates]}."""
        hosts.wait_for_all("metrics")  # until they are written
        pieces = kept if piece.directory is None else self._metrics_files(piece)
        return {name: np.concatenate([rows[name] for rows in pieces], axis=1) for name in pieces[0]}

    def _metrics_files(self, piece: _Piece) -> list[dict[str, np.ndarray]]:
        assert piece.directory is not None
        names = jax.eval_shape(
            lambda run: train(jax.random.key(run["seed"]), self._make(run["numbers"], _ALONE), 1)[1], self._one()
        )
        rows = []
        for start in range(0, self.num_updates, self.chunk):
            count = min(self.chunk, self.num_updates - start)
            like = {n: np.zeros((piece.num, count), leaf.dtype) for n, leaf in names.items()}
            rows.append(checkpoint.load(piece.directory / f"metrics_{start:09d}.npz", like))
        return rows


class _Piece(NamedTuple):
    """Runs `start` to `start + num - 1` of a program, filled up to `size`, and where their files are."""

    start: int
    num: int
    size: int
    directory: Path | None
