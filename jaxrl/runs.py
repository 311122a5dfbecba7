"""`run`, `run_sweep`, `resume` and `load_run`: what users call, and the run directory that it leaves.

A run directory holds `run.json` (what was asked), `program_NN/` (checkpoints and metrics, chunk by chunk), and when
the run is over `results.npz` and `results.json`, `summary.json` and `figures/`.
"""

from __future__ import annotations

import dataclasses
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl import checkpoint, hosts
from jaxrl.adapters import full_name, make_env
from jaxrl.champions import Champion
from jaxrl.env import time_limit
from jaxrl.evaluation import Episodes, evaluate, record
from jaxrl.execution import Execution, Options, split_numbers
from jaxrl.files import read_json, to_json, write_json
from jaxrl.fitness_plots import has_fitness, plot_fitness
from jaxrl.plan import Plan, make_plan
from jaxrl.plotting import curve
from jaxrl.presets import PRESETS, find_preset
from jaxrl.progress import Progress
from jaxrl.provenance import provenance
from jaxrl.results import RETURN, Results
from jaxrl.rules import Rule
from jaxrl.runner import executions, merge, missing
from jaxrl.runtime import Layout, use_all_cores

_FORMAT = 1


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
        _refuse_other_run(directory)
    parts = executions(plan, environment, options, directory)
    origin = provenance()
    hosts.wait_for_all("directory")  # until all have seen that it is free
    if directory is not None and hosts.writes():
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{directory} cannot be made: {error.strerror}; choose another directory") from error
        write_json(directory / "run.json", _description(plan, options, parts, origin))
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
    opened = _open(Path(path))
    if all(part.done == part.num_updates for part in opened.parts) and (opened.directory / "results.npz").exists():
        return Results.load(opened.directory)
    return _execute(
        opened.plan, opened.parts, opened.directory, Progress(progress and hosts.writes(), hint), opened.origin
    )


class _Opened(NamedTuple):
    directory: Path
    plan: Plan
    env: Any
    parts: list[Execution]
    origin: dict[str, Any]


class _Found(NamedTuple):
    """Who plays, with which parameters of the environment, for how long at most, and who that is."""

    agent: Any
    state: Any
    env_params: Any
    horizon: int | None
    about: str


class Run:
    """A finished or interrupted run, opened from its directory.

    Attributes:
      path: the directory.
      plan: what was asked.
      env: the environment.
    """

    def __init__(self, path: str | Path) -> None:
        use_all_cores()
        self.path, self.plan, self.env, self._parts, self._origin = _open(Path(path))
        self._preset = find_preset(self.plan.algorithm)

    @property
    def results(self) -> Results:
        """Metrics of all cells and seeds.

        Raises:
          ValueError: if the run has not finished.
        """
        if not (self.path / "results.npz").exists():
            raise ValueError(f"{self.path} has not finished; `jaxrl resume {self.path}` first")
        return Results.load(self.path)

    def policy(
        self, cell: int | None = None, seed: int | None = None, descriptor: Sequence[float] | None = None
    ) -> tuple[Any, Any, Any]:
        """One trained policy.

        Args:
          cell: index of the grid's cell; by default the best one.
          seed: one of the plan's seeds; by default the first.
          descriptor: [D], what the policy is to do: of an archive the individual of the nearest cell that is occupied;
            by default the fittest.
        Returns:
          The agent, its state, and the parameters of the environment.
        Raises:
          ValueError: for a cell or seed that is not there, or a descriptor where there is no archive, or of another
            length.
        """
        found = self._found(cell, seed, descriptor)
        return found.agent, found.state, found.env_params

    def state(self, cell: int | None = None, seed: int | None = None) -> Any:
        """The state of one run of the algorithm, as of its newest checkpoint: its archive, for instance.

        Args:
          cell, seed: as of `policy`.
        """
        return self._state(*self._member(cell, seed))

    def _found(self, cell: int | None, seed: int | None, descriptor: Sequence[float] | None) -> _Found:
        part, column, seed = self._member(cell, seed)
        numbers = {name: values[column] for name, values in part.program.numbers.items()}
        hp, env_params = split_numbers(self._preset, self.env, numbers)
        config = part.program.config
        agent = self._preset.agent(self.env, config, hp, env_params)
        state, about = self._state(part, column, seed), ""
        if descriptor is None:
            chosen = state.agent
        elif self._preset.individual is None:
            known = ", ".join(name for name, preset in PRESETS.items() if preset.individual)
            raise ValueError(f"{self.path} is a run of {self.plan.algorithm}, which fills no archive; {known} do")
        else:
            chosen, about = self._preset.individual(self.env, config, env_params, state, descriptor)
        return _Found(agent, chosen, env_params, self._preset.horizon(config), about)

    def rule(self, cell: int | None = None, seed: int | None = None) -> Rule:
        """One learned rule, for `jaxrl.save_rule`; its provenance says how it was learnt, with the curve.

        Args:
          cell, seed: as of `policy`.
        Raises:
          ValueError: if the run's algorithm learns none.
        """
        learned = self._preset.rule
        if learned is None:
            known = ", ".join(name for name, preset in PRESETS.items() if preset.rule)
            raise ValueError(f"{self.path} is a run of {self.plan.algorithm}, which learns no rule; {known} do")
        part, column, seed = self._member(cell, seed)
        rule = learned(part.program.config, self._state(part, column, seed))
        steps = part.done * part.program.config.steps_per_update
        asked = {**self.plan.settings, **self.plan.cells[part.program.cells[column]]}
        about: dict[str, Any] = {
            "summary": f"{self.plan.algorithm} on {self.plan.env}, {steps:,} environment steps, seed {seed}",
            "algorithm": self.plan.algorithm,
            "env": self.plan.env,
            "seeds": [seed],
            "steps": steps,
            "meta_updates": part.done,
            "settings": asked,
            **self._origin,
        }
        if (self.path / "results.npz").exists():
            about["curve"] = _curve(self.results, part.program.cells[column], self.plan.seeds.index(seed))
        params = jax.tree.map(np.asarray, rule.params)
        return rule._replace(params=params, provenance=to_json(about))

    def champion(self, cell: int | None = None, seed: int | None = None) -> Champion:
        """One evolved policy as the list of its seeds, for `jaxrl.save_champion`.

        Args:
          cell, seed: as of `policy`.
        Raises:
          ValueError: if the run's algorithm has no genomes of seeds.
        """
        part, column, seed = self._member(cell, seed)
        if self._preset.champion is None:
            known = ", ".join(name for name, preset in PRESETS.items() if preset.champion)
            raise ValueError(
                f"{self.path} is a run of {self.plan.algorithm}, whose policies are no seeds; {known} have"
            )
        found = self._preset.champion(self.env, part.program.config, self._state(part, column, seed))
        default = self._preset.config
        found["settings"] = {n: v for n, v in found["settings"].items() if v != getattr(default, n)}
        return Champion(algorithm=self.plan.algorithm, env=self.plan.env, **found)

    def _member(self, cell: int | None, seed: int | None) -> tuple[Execution, int, int]:
        """The program of a cell, its column in it, and the seed."""
        cell = (int(self.results.best()["index"]) if len(self.plan.cells) > 1 else 0) if cell is None else cell
        seed = self.plan.seeds[0] if seed is None else seed
        if not 0 <= cell < len(self.plan.cells):
            raise ValueError(f"cell = {cell}: expected an index in [0, {len(self.plan.cells) - 1}]")
        if seed not in self.plan.seeds:
            raise ValueError(f"seed = {seed}: this run has seeds {list(self.plan.seeds)}")
        part = next(part for part in self._parts if cell in part.program.cells)
        return part, part.program.cells.index(cell), seed

    def _state(self, part: Execution, column: int, seed: int) -> Any:
        """The state of one run of a program, as of its newest checkpoint."""
        row = column * len(self.plan.seeds) + self.plan.seeds.index(seed)
        return part.restore(row)

    def evaluate(
        self,
        num_episodes: int = 32,
        cell: int | None = None,
        seed: int | None = None,
        key: int = 0,
        descriptor: Sequence[float] | None = None,
    ) -> Episodes:
        """Whole greedy episodes of one trained policy, as long as in training; leaves [num_episodes].

        Args:
          num_episodes: N.
          cell, seed, descriptor: as of `policy`.
          key: of the episodes.
        """
        found = self._found(cell, seed, descriptor)
        env = self.env if found.horizon is None else time_limit(self.env, found.horizon)
        play = jax.jit(lambda k, s: evaluate(k, found.agent, s, env, found.env_params, num_episodes))
        return jax.tree.map(np.asarray, play(_stream("evaluate", key), found.state))

    def render(
        self,
        path: str | Path | None = None,
        cell: int | None = None,
        seed: int | None = None,
        key: int = 0,
        max_steps: int = 500,
        descriptor: Sequence[float] | None = None,
    ) -> Path:
        """Writes a replay of one greedy episode of one trained policy: `.gif`, or `.html` with a player.

        Args:
          path: the file; by default `figures/replay.gif` in the run's directory.
          cell, seed, descriptor: as of `policy`.
          key: of the episode.
          max_steps: after which it is cut, where it is not over before.
        """
        from jaxrl.rendering import Trajectory, render

        found = self._found(cell, seed, descriptor)
        env_params = found.env_params
        whole = found.horizon is not None and found.horizon <= max_steps
        num_steps = min(max_steps, found.horizon or max_steps)
        play = jax.jit(lambda k, s: record(k, found.agent, s, self.env, env_params, num_steps))
        rows = jax.tree.map(np.asarray, play(_stream("render", key), found.state))
        ends = np.flatnonzero(rows["done"])
        length = int(ends[0]) + 1 if len(ends) else num_steps
        cut = jax.tree.map(lambda leaf: leaf[:length], rows)
        trajectory = Trajectory(cut["states"], cut["obs"], cut["action"], cut["reward"], length)
        target = Path(path) if path is not None else self.path / "figures" / "replay.gif"
        target.parent.mkdir(parents=True, exist_ok=True)
        seed = self.plan.seeds[0] if seed is None else seed
        caption = f"{self.plan.algorithm} on {self.plan.env}, seed {seed}, return {cut['reward'].sum():.1f}"
        caption += f", {found.about}" if found.about else ""
        caption += "" if len(ends) or whole else f" (cut after {max_steps} steps)"
        return render(self.plan.env, self.env, env_params, trajectory, target, caption=caption)


def load_run(path: str | Path) -> Run:
    """Opens a run directory.

    Raises:
      ValueError: if it holds no run.
    """
    return Run(path)


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
            "programs": _programs(parts),
            "missing_metrics": missing(plan, measured),
            "metric": find_preset(plan.algorithm).metric,
        },
        info=info,
    )
    if directory is not None and hosts.writes():
        results.save(directory)
        write_json(directory / "summary.json", results.summary())
        results.plot(directory / "figures" / "learning_curves.png")
        if has_fitness(results):
            plot_fitness(results, directory / "figures" / "fitness.png")
    return results


def _curve(results: Results, cell: int, seed: int) -> dict[str, Any]:
    """How well agents did while their rule was learnt: at most 50 [steps, value], at the ends of lifetimes if known."""
    name = "lifetime/return" if np.isfinite(results.metrics.get("lifetime/return", np.nan)).any() else RETURN
    steps, values = curve(results, name, max_points=50)
    points = zip(steps, values[cell, seed], strict=True)
    return {"metric": name, "points": [[int(at), float(f"{value:.5g}")] for at, value in points if np.isfinite(value)]}


def _stream(name: str, key: int) -> jax.Array:
    """A key for `name`, apart from the runs' own: seed 0 trains with `key(0)`, and must not be evaluated with it."""
    return jax.random.fold_in(jax.random.key(key), zlib.crc32(name.encode()))


def _programs(parts: list[Execution]) -> list[dict[str, Any]]:
    """Every setting of every program, defaults included, as plain data."""
    return [
        {
            "cells": part.program.cells,
            "config": dataclasses.asdict(part.program.config),
            "numbers": part.program.numbers,
            "layout": part.layout,
            **({"rule_sha256": part.rule_sha256} if part.rule_sha256 else {}),
        }
        for part in parts
    ]


def _description(plan: Plan, options: Options, parts: list[Execution], origin: dict[str, Any]) -> dict[str, Any]:
    asked = {"plan": plan.to_json(), "options": dataclasses.asdict(options), "programs": _programs(parts)}
    return {"format": _FORMAT, **asked, **origin}


def _open(directory: Path) -> _Opened:
    file = directory / "run.json"
    if not file.exists():
        raise ValueError(f"{directory} holds no run: {file.name} is missing; `jaxrl train` and `jaxrl sweep` make runs")
    try:
        data = read_json(file)
        if data["format"] != _FORMAT:
            raise ValueError(f"{file} has format {data['format']}, and this jaxrl reads {_FORMAT}; update jaxrl")
        plan, options = Plan.from_json(data["plan"]), Options(**data["options"])
        layouts = [Layout(*program["layout"]) for program in data["programs"]]
        origin = {name: data[name] for name in provenance() if name in data}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise checkpoint.CheckpointError(f"{file} is damaged: {error!r}") from error
    env = make_env(plan.env)
    parts = executions(plan, env, options, directory, layouts)
    for then, now in zip(data["programs"], to_json(_programs(parts)), strict=True):
        _refuse_other_rule(file, then, now)
        for kind in ("config", "numbers"):
            changed = [name for name in {**then[kind], **now[kind]} if then[kind].get(name) != now[kind].get(name)]
            if changed:
                differences = "; ".join(f"{n}: {then[kind].get(n)} then, {now[kind].get(n)} now" for n in changed)
                made = data["versions"].get("jaxrl", "another version")
                raise ValueError(
                    f"{file} was made by jaxrl {made} with other defaults ({differences}); open it with that"
                )
    return _Opened(directory, plan, env, parts, origin)


def _refuse_other_rule(file: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    before, after = (program.get("rule_sha256") for program in (then, now))
    if before != after:
        raise ValueError(
            f"{file} was made with another rule {now['config'].get('objective')!r}: its sha256 was {before} then, "
            f"and is {after} now; put that file back, or start a new run"
        )


def _refuse_other_run(directory: Path) -> None:
    if (directory / "run.json").exists():
        raise ValueError(
            f"{directory} holds another run; `jaxrl resume {directory}` continues it, or choose another directory"
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} exists and is no run; choose an empty or a new directory")
