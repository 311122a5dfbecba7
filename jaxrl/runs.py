"""`run`, `run_sweep` and `resume`: what users call, and the run directory that it leaves.

A run directory holds `run.json` (what was asked), `program_NN/` (checkpoints and metrics, chunk by chunk), and when
the run is over `results.npz` and `results.json`, `summary.json` and `figures/`. `jaxrl.trained` opens it again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl import hosts
from jaxrl.adapters import full_name, make_env
from jaxrl.execution import Execution, Options
from jaxrl.files import write_json
from jaxrl.fitness_plots import has_fitness, plot_fitness
from jaxrl.plan import Plan, make_plan
from jaxrl.presets import find_preset
from jaxrl.progress import Progress
from jaxrl.provenance import provenance
from jaxrl.results import Results
from jaxrl.run_files import all_settings, description, open_run, refuse_other_run
from jaxrl.runner import executions, merge, missing
from jaxrl.runtime import use_all_cores


def run_sweep(  # noqa: PLR0913 - keywords of the one call that users write
    algorithm: str,
    env: str,
    *,
    seeds: int | Sequence[int] = 8,
    grid: Mapping[str, Sequence[Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    options: Options | None = None,
) -> Results:
    """Trains every setting of a grid with every seed.

    Settings that are numbers are swept inside one compiled program; settings that change shapes are grouped into as
    few programs as needed. The work is cut into chunks; after each, progress is shown and a checkpoint written.

    Args:
      algorithm: a name, see `jaxrl list algorithms`.
      env: a name, see `jaxrl list envs`.
      seeds: how many (0, 1, …), or which.
      grid: {setting: values}; the cells are their product. "env.<name>" sweeps a parameter of the environment.
      settings: {setting: value}, fixed; see `jaxrl config ALGORITHM ENV`.
      out: the run directory to make; `None` keeps everything in memory.
      progress: show a progress bar.
      options: chunks, evaluations and layout.
    Returns:
      `Results`, with dimensions hyperparameters, seed and step.
    Raises:
      ValueError: for names, types and numbers that do not fit, before anything is compiled.
    """
    hint = use_all_cores()
    options = options or Options()
    env = full_name(env)
    environment = make_env(env)
    plan = make_plan(algorithm, env, seeds, settings or {}, grid or {}, environment.default_params)
    directory = None
    if out is not None:
        directory = Path(out)
        refuse_other_run(directory)
    parts = executions(plan, environment, options, directory)
    origin = provenance()
    hosts.wait_for_all("directory")  # until all have seen that it is free
    if directory is not None and hosts.writes():
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{directory} cannot be made: {error.strerror}; choose another directory") from error
        write_json(directory / "run.json", description(plan, options, parts, origin))
    return _execute(plan, parts, directory, Progress(progress and hosts.writes(), hint), origin)


def run(
    algorithm: str,
    env: str,
    *,
    seeds: int | Sequence[int] = 1,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    options: Options | None = None,
) -> Results:
    """Trains one setting with one seed or several: `run_sweep` without a grid."""
    return run_sweep(algorithm, env, seeds=seeds, settings=settings, out=out, progress=progress, options=options)


def resume(path: str | Path, progress: bool = True) -> Results:
    """Finishes a run that was interrupted; metrics and parameters equal those of an uninterrupted one bit for bit.

    Args:
      path: its directory.
      progress: show a progress bar.
    Raises:
      ValueError: if the directory holds no run, one made with other defaults, or one laid out over more devices than
        there are here.
      CheckpointError: if its newest checkpoint is damaged.
    """
    hint = use_all_cores()
    opened = open_run(Path(path))
    if all(part.done == part.num_updates for part in opened.parts) and (opened.directory / "results.npz").exists():
        return Results.load(opened.directory)
    return _execute(
        opened.plan, opened.parts, opened.directory, Progress(progress and hosts.writes(), hint), opened.origin
    )


def _execute(
    plan: Plan, parts: list[Execution], directory: Path | None, progress: Progress, origin: dict[str, Any]
) -> Results:
    began = time.perf_counter()
    total = sum(part.num_updates * part.program.config.steps_per_update * part.num_runs for part in parts)
    with progress.start(f"{plan.algorithm} {plan.env}", total):
        outcomes = []
        for part in parts:
            progress.skip(part.run_updates_done * part.program.config.steps_per_update)
            outcomes.append(part.run(progress.report))
    measured = [(part.program, outcome.metrics) for part, outcome in zip(parts, outcomes, strict=True)]
    steps, metrics = merge(plan, measured)
    swept: dict[str, Any] = {name: [cell[name] for cell in plan.cells] for name in plan.grid}
    train_seconds = sum(outcome.train_seconds for outcome in outcomes)
    earlier = sum(outcome.earlier_seconds for outcome in outcomes)
    info = {
        "num_programs": len(parts),
        "layout": [list(part.layout) for part in parts],
        "compile_seconds": sum(outcome.compile_seconds for outcome in outcomes),
        "train_seconds": train_seconds,
        "wall_seconds": time.perf_counter() - began + earlier,
        "steps_per_second": total / train_seconds,
        **origin,
    }
    results = Results(
        hparams=swept,
        seeds=np.asarray(plan.seeds),
        steps=steps,
        metrics=metrics,
        config={
            **plan.to_json(),
            "programs": all_settings(parts),
            "missing_metrics": missing(plan, measured),
            "metric": find_preset(plan.algorithm).metric,
        },
        info=info,
    )
    if directory is not None and hosts.writes():
        write_json(directory / "summary.json", results.summary())
        results.plot(directory / "figures" / "learning_curves.png")
        if has_fitness(results):
            plot_fitness(results, directory / "figures" / "fitness.png")
        results.save(directory)  # last, since a run that has results is taken as finished
    return results
