"""A run that was made: its policies, rules and champions, what they do, and how it looks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.champions import Champion
from jaxrl.env import time_limit
from jaxrl.evaluation import Episodes, evaluate, record
from jaxrl.execution import Execution, split_numbers
from jaxrl.files import to_json
from jaxrl.plotting import curve
from jaxrl.presets import PRESETS, find_preset
from jaxrl.rendering import Trajectory, render
from jaxrl.results import RETURN, Results
from jaxrl.rules import Rule
from jaxrl.run_files import open_run
from jaxrl.runtime import use_all_cores


class Replay(NamedTuple):
    """One greedy episode of a trained policy, on the host.

    Attributes:
      trajectory: leaves [T, …], the steps of the episode.
      env_params: of its environment.
      caption: whose it is, for people to read.
    """

    trajectory: Trajectory
    env_params: Any
    caption: str


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
      preset: the algorithm.
    """

    def __init__(self, path: str | Path) -> None:
        use_all_cores()
        self.path, self.plan, self.env, self._parts, self._origin = open_run(Path(path))
        self.preset = find_preset(self.plan.algorithm)
        self._players: dict[tuple[int, int], Callable[[Any, Any, Any], dict[str, Any]]] = {}

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
        hp, env_params = split_numbers(self.preset, self.env, numbers)
        config = part.program.config
        agent = self.preset.agent(self.env, config, hp, env_params)
        state, about = self._state(part, column, seed), ""
        if descriptor is None:
            chosen = state.agent
        elif self.preset.individual is None:
            known = ", ".join(name for name, preset in PRESETS.items() if preset.individual)
            raise ValueError(f"{self.path} is a run of {self.plan.algorithm}, which fills no archive; {known} do")
        else:
            chosen, about = self.preset.individual(self.env, config, env_params, state, descriptor)
        return _Found(agent, chosen, env_params, self.preset.horizon(config), about)

    def rule(self, cell: int | None = None, seed: int | None = None) -> Rule:
        """One learned rule, for `jaxrl.save_rule`; its provenance says how it was learnt, with the curve.

        Args:
          cell, seed: as of `policy`.
        Raises:
          ValueError: if the run's algorithm learns none.
        """
        learned = self.preset.rule
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
        if self.preset.champion is None:
            known = ", ".join(name for name, preset in PRESETS.items() if preset.champion)
            raise ValueError(
                f"{self.path} is a run of {self.plan.algorithm}, whose policies are no seeds; {known} have"
            )
        found = self.preset.champion(self.env, part.program.config, self._state(part, column, seed))
        default = self.preset.config
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

    def record(
        self,
        cell: int | None = None,
        seed: int | None = None,
        key: int = 0,
        max_steps: int = 500,
        descriptor: Sequence[float] | None = None,
    ) -> Replay:
        """One greedy episode of one trained policy; compiled once for all policies of a program.

        Args:
          cell, seed, descriptor: as of `policy`.
          key: of the episode.
          max_steps: after which it is cut, where it is not over before.
        """
        part, column, seed = self._member(cell, seed)
        found = self._found(cell, seed, descriptor)
        whole = found.horizon is not None and found.horizon <= max_steps
        num_steps = min(max_steps, found.horizon or max_steps)
        numbers = {name: values[column] for name, values in part.program.numbers.items()}
        play = self._player(self._parts.index(part), num_steps)
        rows = jax.tree.map(np.asarray, play(_stream("render", key), found.state, numbers))
        ends = np.flatnonzero(rows["done"])
        length = int(ends[0]) + 1 if len(ends) else num_steps
        cut = jax.tree.map(lambda leaf: leaf[:length], rows)
        trajectory = Trajectory(cut["states"], cut["obs"], cut["action"], cut["reward"], length)
        caption = f"{self.plan.algorithm} on {self.plan.env}, seed {seed}, return {cut['reward'].sum():.1f}"
        caption += f", {found.about}" if found.about else ""
        caption += "" if len(ends) or whole else f" (cut after {max_steps} steps)"
        return Replay(trajectory, found.env_params, caption)

    def _player(self, index: int, num_steps: int) -> Callable[[Any, Any, Any], dict[str, Any]]:
        """`(key, agent_state, numbers) -> rows` of a program's policies."""
        if (index, num_steps) not in self._players:
            config = self._parts[index].program.config

            def play(key: Any, state: Any, numbers: Any) -> dict[str, Any]:
                hp, env_params = split_numbers(self.preset, self.env, numbers)
                agent = self.preset.agent(self.env, config, hp, env_params)
                return record(key, agent, state, self.env, env_params, num_steps)

            self._players[index, num_steps] = jax.jit(play)
        return self._players[index, num_steps]

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
          cell, seed, key, max_steps, descriptor: as of `record`.
        """
        replay = self.record(cell, seed, key, max_steps, descriptor)
        target = Path(path) if path is not None else self.path / "figures" / "replay.gif"
        target.parent.mkdir(parents=True, exist_ok=True)
        return render(self.plan.env, self.env, replay.env_params, replay.trajectory, target, caption=replay.caption)


def load_run(path: str | Path) -> Run:
    """Opens a run directory.

    Raises:
      ValueError: if it holds no run.
    """
    return Run(path)


def _curve(results: Results, cell: int, seed: int) -> dict[str, Any]:
    """How well agents did while their rule was learnt: at most 50 [steps, value], at the ends of lifetimes if known."""
    name = "lifetime/return" if np.isfinite(results.metrics.get("lifetime/return", np.nan)).any() else RETURN
    steps, values = curve(results, name, max_points=50)
    points = zip(steps, values[cell, seed], strict=True)
    return {"metric": name, "points": [[int(at), float(f"{value:.5g}")] for at, value in points if np.isfinite(value)]}


def _stream(name: str, key: int) -> jax.Array:
    """A key for `name`, apart from the runs' own: seed 0 trains with `key(0)`, and must not be evaluated with it."""
    return jax.random.fold_in(jax.random.key(key), zlib.crc32(name.encode()))
