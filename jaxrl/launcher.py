"""Sweeps over what one program cannot hold: algorithms, environments, shapes.

Each becomes a run of its own, in a process of its own, started by submitit on this machine or as a job of a cluster.

A run that fails costs no other; a second launch into the same folder does only what is missing.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl.adapters import full_name, make_env
from jaxrl.execution import Options
from jaxrl.files import read_json, to_json, write_json
from jaxrl.plan import make_plan
from jaxrl.presets import find_preset
from jaxrl.results import Results, format_value

_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Piece:
    """One run of a launch: what `jaxrl.run_sweep` is given.

    Attributes:
      name: of its folder.
      algorithm, env, settings, grid, seeds, options: as of `jaxrl.run_sweep`; options as a dict.
      directory: the run directory.
    """

    name: str
    algorithm: str
    env: str
    settings: dict[str, Any]
    grid: dict[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    options: dict[str, Any]
    directory: Path

    @property
    def finished(self) -> bool:
        """Are its results there?"""
        return (self.directory / "results.npz").exists()


@dataclasses.dataclass(frozen=True)
class Launched:
    """What became of a launch.

    Attributes:
      pieces: all of its runs.
      failures: {name: why, and where its output is}.
      skipped: names of those that had finished before.
    """

    pieces: tuple[Piece, ...]
    failures: dict[str, str]
    skipped: tuple[str, ...]

    def results(self) -> dict[str, Results]:
        """{name: results} of what has finished."""
        return {piece.name: Results.load(piece.directory) for piece in self.pieces if piece.finished}

    def table(self) -> Any:
        """A rich table: each run's state, and the IQM and interval of its best setting."""
        from rich.table import Table

        table = Table("run", "state", "best setting", "IQM", "95 % interval")
        for piece in self.pieces:
            state = "failed" if piece.name in self.failures else "kept" if piece.name in self.skipped else "finished"
            row = ("", "", "")
            if piece.finished:
                found = Results.load(piece.directory).summary()["best"]
                if found is not None:
                    chosen = ", ".join(f"{n}={format_value(v)}" for n, v in found["hyperparameters"].items())
                    row = (chosen, f"{found['iqm']:.4g}", f"{found['iqm_low']:.4g} to {found['iqm_high']:.4g}")
            table.add_row(piece.name, state, *row)
        return table


def launch(  # noqa: PLR0913 - keywords of the one call that users write
    algorithms: Sequence[str],
    envs: Sequence[str],
    *,
    out: str | Path,
    seeds: int | Sequence[int] = 8,
    grid: Mapping[str, Sequence[Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    cluster: str = "local",
    jobs: int = 1,
    cluster_options: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = print,
) -> Launched:
    """Runs every algorithm on every environment with every setting, in as many programs and processes as that takes.

    Settings that are numbers are swept inside a run; those that change shapes or branches get a run each. A name with
    an algorithm before it, "ppo.clip_eps", is for that algorithm only.

    Args:
      algorithms, envs: names.
      out: the folder of the run directories; a second call with the same goes on with what is missing.
      seeds, grid, settings: as of `jaxrl.run_sweep`.
      options: of `jaxrl.Options`, by name.
      cluster: "local", processes on this machine, or another that submitit knows, as "slurm".
      jobs: how many at once. Each local one uses all cores, so that 1 is best unless runs are small.
      cluster_options: of submitit, as {"slurm_partition": "gpu", "timeout_min": 240, "gpus_per_node": 1}; a job has a
        day unless `timeout_min` says otherwise.
      report: is told when a run begins and ends.
    Returns:
      `Launched`. Failures are reported there, not raised.
    Raises:
      ValueError: before anything is started, for what does not fit in any of the runs, or a folder that holds another
        launch.
    """
    import submitit

    if jobs < 1:
        raise ValueError(f"jobs = {jobs}: expected at least 1")
    pieces = plan_pieces(algorithms, envs, Path(out), seeds, grid or {}, settings or {}, options or {})
    _write_plan(Path(out), pieces)
    todo = [piece for piece in pieces if not piece.finished]
    skipped = tuple(piece.name for piece in pieces if piece.finished)
    executor = submitit.AutoExecutor(Path(out) / "jobs", cluster=cluster)
    executor.update_parameters(name="jaxrl", **({"timeout_min": 60 * 24} | dict(cluster_options or {})))
    running: list[tuple[Any, Piece]] = []
    failures: dict[str, str] = {}
    try:
        while todo or running:
            while todo and len(running) < jobs:
                piece = todo.pop(0)
                report(f"{piece.name}: started")
                running.append((executor.submit(work, piece), piece))
            ended = [pair for pair in running if pair[0].done()]
            running = [pair for pair in running if pair not in ended]
            for job, piece in ended:
                why = _failure(job, piece)
                if why:
                    failures[piece.name] = why
                report(f"{piece.name}: {'failed, ' + why if why else 'finished'}")
            if running:
                time.sleep(_POLL_SECONDS)
    finally:
        for job, _ in running:
            job.cancel()
    return Launched(pieces, failures, skipped)


def work(piece: Piece) -> None:
    """One run, begun or gone on with: what each process does."""
    import jaxrl

    jaxrl.use_compilation_cache()
    if (piece.directory / "run.json").exists():
        jaxrl.resume(piece.directory, progress=False)
        return
    options = jaxrl.Options(**piece.options)
    jaxrl.run_sweep(
        piece.algorithm, piece.env, seeds=piece.seeds, grid=piece.grid, settings=piece.settings, out=piece.directory,
        progress=False, options=options,
    )  # fmt: skip


def plan_pieces(
    algorithms: Sequence[str],
    envs: Sequence[str],
    out: Path,
    seeds: int | Sequence[int],
    grid: Mapping[str, Sequence[Any]],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[Piece, ...]:
    """The runs of a launch, each checked as `jaxrl.run_sweep` would check it.

    Raises:
      ValueError: for no algorithm or environment, one that stands twice, a setting for an algorithm that is not there,
        or what `make_plan` refuses.
    """
    for what, names in (("algorithms", algorithms), ("envs", envs)):
        if isinstance(names, str) or not names or len(set(names)) < len(names):
            raise ValueError(f"{what} = {names!r}: expected a list of different names, as in ['ppo', 'dqn']")
    try:
        Options(**options)
    except TypeError as error:
        known = ", ".join(field.name for field in dataclasses.fields(Options))
        raise ValueError(f"options = {dict(options)}: expected names among {known}") from error
    for name in (*grid, *settings):
        owner, dot, _ = name.partition(".")
        if dot and owner != "env" and owner not in algorithms:
            raise ValueError(f"{name} is for {owner}, which is not among the algorithms {', '.join(algorithms)}")
    found: list[Piece] = []
    for algorithm, env in itertools.product(algorithms, map(full_name, envs)):
        preset = find_preset(algorithm)
        static = {field.name for field in dataclasses.fields(preset.config)}
        chosen, axes = _own(settings, algorithm), _own(grid, algorithm)
        inside = {name: tuple(values) for name, values in axes.items() if name not in static}
        apart = {name: tuple(values) for name, values in axes.items() if name in static}
        params = make_env(env).default_params
        for values in itertools.product(*apart.values()):
            cell = dict(zip(apart, values, strict=True))
            plan = make_plan(algorithm, env, seeds, {**chosen, **cell}, inside, params)
            name = "-".join([algorithm, env.replace("/", "_"), *(f"{n}={_plain(v)}" for n, v in cell.items())])
            if any(piece.name == name for piece in found):
                raise ValueError(f"two of the runs would share the folder {name!r}: give them values that differ more")
            found.append(Piece(name, algorithm, env, {**chosen, **cell}, inside, plan.seeds, dict(options), out / name))
    return tuple(found)


def _own(given: Mapping[str, Any], algorithm: str) -> dict[str, Any]:
    """What of the settings is this algorithm's, by their own names; what is said for it alone wins."""
    general = {name: value for name, value in given.items() if "." not in name or name.startswith("env.")}
    special = {name.partition(".")[2]: value for name, value in given.items() if name.startswith(f"{algorithm}.")}
    return {**general, **special}


def _plain(value: Any) -> str:
    text = "x".join(map(str, value)) if isinstance(value, tuple | list) else format_value(value)
    return "".join(letter if letter.isalnum() or letter in ".+-_" else "_" for letter in text)


def _write_plan(out: Path, pieces: tuple[Piece, ...]) -> None:
    file = out / "launch.json"
    # Not the options: they change nothing of what is learnt.
    asked = to_json([{**dataclasses.asdict(piece), "directory": piece.name, "options": None} for piece in pieces])
    if file.exists() and read_json(file) != asked:
        raise ValueError(
            f"{out} holds another launch; ask for the same again to go on with it, or choose another folder"
        )
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, asked)


def _failure(job: Any, piece: Piece) -> str | None:
    """Why a job failed, if it did."""
    error = job.exception()
    if error is None and piece.finished:
        return None
    said = str(error).strip().splitlines()[-1] if error is not None and str(error).strip() else "it left no results"
    return f"{said} (its output: {job.paths.stderr})"
