"""Gradient-free and gradient-based learning side by side: ES, the Deep GA, random search and PPO at matched steps.

On the hard maze also what seeks novelty, and an algorithm of evosax.

    python -m experiments.deep_neuroevolution [--scale smoke|cpu|gpu|paper] [--minutes 8]

On every task four methods learn, all seeds in one program (`runs/deep_neuroevolution/SCALE/…`, resumable: with
`--minutes` the command stops by itself, and the same command goes on). What each has found is played greedily, 16
episodes, evenly spread over its run; its score is the last of these before it had played the task's budget of
environment steps. Steps are those that were played, second evaluations of the GA's elite included. "Random search" is
the GA without parents, with the same network. The hard maze by novelty and by fitness is that of
`experiments.novelty_search`.

Writes `<out>/SCALE.json` (scores with intervals, settings, provenance), `.npz` (curves), `_returns.png` (scores against
steps) and `_fitness.png` (best, elite and median of the populations over generations), after each task, so that an
interrupted experiment keeps what it has. No published figure is claimed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import jaxrl
from experiments import meta_training, novelty_search
from experiments.deep_neuroevolution_figures import draw_all_fitness, draw_returns
from experiments.meta_training import in_pieces, origin_of, trained
from jaxrl.files import read_json, write_json, write_npz
from jaxrl.fitness_plots import fitness_bands, has_fitness
from jaxrl.plan import suited
from jaxrl.presets import find_preset
from jaxrl.provenance import provenance
from jaxrl.reporting import bootstrap
from jaxrl.runtime import use_compilation_cache

METHODS = {"ES": "open_es", "GA": "deep_ga", "random search": "deep_ga", "PPO": "ppo"}
SEEKING = {
    "ES": "open_es", "NS-ES": "ns_es", "NSR-ES": "nsr_es", "NSRA-ES": "nsra_es", "CMA-ES": "sep_cma_es",
    "GA": "deep_ga", "GA-NS": "novelty_search", "random search": "deep_ga",
}  # fmt: skip
SCORE = "evaluation/return"


@dataclasses.dataclass(frozen=True)
class Part:
    """One method on one task; what `trained` takes."""

    env: str
    all_settings: dict[str, Any]
    chunks: int


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment and what learns on it.

    Attributes:
      env: its name.
      budget: environment steps at which methods are compared.
      generations: {method: generations}, enough to play the budget.
      shared: settings of all methods that evolve.
      own: {method: settings}.
      methods: {method: preset}.
    """

    env: str
    budget: int
    generations: dict[str, int]
    shared: dict[str, Any]
    own: dict[str, dict[str, Any]]
    methods: dict[str, str] = dataclasses.field(default_factory=lambda: METHODS)

    def lasting(self, generations: int) -> Task:
        """The same with another number of generations for all that evolve."""
        if generations < 1:
            raise ValueError(f"generations = {generations}: expected at least 1")
        return dataclasses.replace(self, generations=dict.fromkeys(self.generations, generations))

    def part(self, method: str, chunks: int) -> Part:
        """All settings of a method, those that its preset has for the environment included, with its length."""
        preset = find_preset(self.methods[method])
        own = self.own.get("GA" if method == "random search" else method, {})
        shared = self.shared if method in self.generations else {}
        settings = {name: value for name, (value, _) in suited(preset, self.env).items()} | shared | own
        if method == "random search":
            settings["num_parents"] = 0
        length = self.budget
        if method in self.generations:
            known = {field.name for field in dataclasses.fields(preset.config)}
            config = dataclasses.replace(preset.config, **{n: v for n, v in settings.items() if n in known})
            length = self.generations[method] * config.steps_per_update
        return Part(self.env, {**settings, "total_steps": length}, chunks)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large the experiment is.

    Attributes:
      tasks: what is learned.
      maze: the scale of `experiments.novelty_search`.
      seeds: of each method on each task.
      chunks, evaluations: of each run.
    """

    tasks: tuple[Task, ...]
    maze: str
    seeds: int = 5
    chunks: int = 10
    evaluations: int = 10


def _evolving(max_episode_steps: int, population: int = 64, **changes: Any) -> dict[str, Any]:
    sizes = {"population": population, "eval_episodes": 1, "max_episode_steps": max_episode_steps}
    return {**sizes, "hidden_sizes": (32,), **changes}


def _brax(env: str, budget: int, steps: int, es: int, ga: int, random: int, **ppo: Any) -> Task:
    """A task of physics at the scale of CPUs; each method's settings are the same on all of them."""
    gradient = {
        "num_envs": 64, "num_steps": 32, "num_minibatches": 8, "num_epochs": 8, "hidden_sizes": (64, 64),
        "learning_rate": 1e-3,
    }  # fmt: skip
    own = {
        "ES": {"sigma": 0.1, "learning_rate": 0.05, "normalize_obs": True, "obs_probability": 1.0, "explores": False},
        "GA": {"num_parents": 8, "elite_pool": 4, "elite_episodes": 5, "sigma": 0.1, "population_batch": 0},
        "PPO": {**gradient, **ppo},
    }
    return Task(env, budget, {"ES": es, "GA": ga, "random search": random}, _evolving(steps), own)


def _minatar(env: str, budget: int, population: int, generations: dict[str, int], ppo: dict[str, Any]) -> Task:
    shared = _evolving(1_000, population, activation="relu", torso="mlp")
    own = {
        "ES": {"sigma": 0.1, "learning_rate": 0.05, "virtual_norm": False, "explores": False},
        "GA": {"num_parents": max(population // 20, 2), "elite_pool": 4, "elite_episodes": 5, "sigma": 0.05},
        "PPO": ppo,
    }
    return Task(env, budget, generations, shared, own)


def _maze_task(generations: int, **changes: Any) -> Task:
    """The presets' settings, with 500 individuals in each generation."""
    length = dict.fromkeys(SEEKING, generations)
    return Task("jaxrl/hard_maze", generations * 503 * 400, length, changes, {"CMA-ES": _CMA}, SEEKING)


def _walker(env: str) -> Task:
    ppo = {"num_envs": 2048, "num_steps": 10, "num_minibatches": 32, "hidden_sizes": (256, 256), "learning_rate": 3e-4}
    task = _brax(env, 50_000_000, 1_000, 512, 512, 512, **ppo)
    return dataclasses.replace(task, shared=_evolving(1_000, 256, hidden_sizes=(64, 64)))


def _large_game(env: str) -> Task:
    ppo = {"num_envs": 64, "num_steps": 128, "num_minibatches": 8}
    # Lives are short at first: 400 generations of ES were 4 to 13 M steps of Breakout.
    return _minatar(env, 50_000_000, 1_000, {"ES": 2_000, "GA": 2_000, "random search": 2_000}, ppo)


_CMA = {"population": 500, "hidden_sizes": (16,), "max_episode_steps": 400, "sigma": 0.5}
_GAME = {"num_steps": 32, "learning_rate": 1e-3}
_PAPER = {"ES": 1_000, "GA": 1_000, "random search": 1_000}
GAMES = ("Breakout-MinAtar", "Asterix-MinAtar", "SpaceInvaders-MinAtar")
WALKERS = ("brax/ant", "brax/humanoid", "brax/halfcheetah")
SPRINGS = tuple(f"brax/spring/{env.removeprefix('brax/')}" for env in WALKERS)  # the physics of evosax's notebooks
SCALES: dict[str, Scale] = {
    "smoke": Scale(
        (
            Task(
                "CartPole-v1", 8_192, {"ES": 4, "GA": 4, "random search": 4}, _evolving(100, 8, hidden_sizes=(4,)),
                {
                    "ES": {"sigma": 0.1, "learning_rate": 0.05},
                    "GA": {"num_parents": 2, "elite_pool": 2, "elite_episodes": 2, "sigma": 0.1},
                    "PPO": {"num_envs": 4, "num_steps": 32, "hidden_sizes": (8,)},
                },
            ),
        ),
        "smoke", seeds=2, chunks=2, evaluations=2,
    ),
    "cpu": Scale(
        (
            _maze_task(60),
            _brax("brax/inverted_pendulum", 262_144, 1_000, 60, 40, 40),
            _brax("brax/reacher", 262_144, 50, 82, 63, 63, num_steps=16),
            _brax("brax/inverted_double_pendulum", 262_144, 1_000, 60, 60, 80),
            _minatar("Breakout-MinAtar", 524_288, 64, {"ES": 300, "GA": 200, "random search": 200}, _GAME),
        ),
        "cpu",
    ),
    # Populations that an accelerator plays at once, on bodies that walk and on games.
    "gpu": Scale((*(_walker(env) for env in SPRINGS), *(_large_game(env) for env in GAMES)), "gpu", 5, 200, 40),
    # The presets' own settings, which are the papers': the GA's billion frames are 250 M steps.
    "paper": Scale(
        tuple(Task(env, 250_000_000, _PAPER, {}, {"PPO": {}}) for env in (*GAMES, *WALKERS)), "paper", 5, 500, 50
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(meta_training.Config):
    """What is run.

    Attributes:
      methods, tasks: trained now, all if empty; of the others those are shown whose runs are there.
      generations: of all that evolve, in the place of the scale's; for a run in a folder of its own (`runs`).
      maze: results of `experiments.novelty_search`, without suffix, which are used if they are of the scale's.
    """

    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    generations: int | None = None
    out: Path = Path("experiments/results/deep_neuroevolution")
    maze: Path = Path("experiments/results/novelty_search")


def main(config: Config) -> dict[str, np.ndarray]:
    """Learns and plays; returns the arrays that are written, empty if time was out."""
    return in_pieces(config.minutes, lambda: _main(config))


def _main(config: Config) -> dict[str, np.ndarray]:
    scale = SCALES[config.scale]
    known = {"methods": {m for task in scale.tasks for m in task.methods}, "tasks": {task.env for task in scale.tasks}}
    for name, names in known.items():
        if unknown := sorted(set(getattr(config, name)) - names):
            raise ValueError(f"{name} = {unknown}: scale {config.scale} has {', '.join(sorted(names))}")
    seeds = scale.seeds if config.seeds is None else config.seeds
    rows: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    bands: dict[str, Any] = {}
    for task in scale.tasks:
        if config.generations is not None:
            task = task.lasting(config.generations)
        table: dict[str, Any] = {}
        for method, preset in task.methods.items():
            part = task.part(method, scale.chunks)
            folder = config.runs / "deep_neuroevolution" / config.scale / _file(f"{task.env} {method}")
            chosen = method in (config.methods or task.methods) and task.env in (config.tasks or [task.env])
            if not chosen and not (folder / "summary.json").exists():
                continue
            run = trained(preset, part, seeds, folder, scale.evaluations)
            steps, returns = scores(run.results)
            table[method] = _row(run, part, steps, returns, task.budget)
            key = f"{task.env}/{method}"
            arrays |= {f"{key}/steps": steps, f"{key}/returns": returns}
            if has_fitness(run.results):
                bands.setdefault(task.env, {})[method] = fitness_bands(run.results)
            print(task.env, method, table[method]["score_iqm"], table[method]["interval_95"], flush=True)
        if table:
            rows[task.env] = {"budget": task.budget, "methods": table}
            _write(config, rows, arrays, bands, None)
    if rows:
        _write(config, rows, arrays, bands, _maze(config, scale.maze, search=not config.tasks))
    return arrays


def scores(results: jaxrl.Results) -> tuple[np.ndarray, np.ndarray]:
    """Steps played [S, E] and greedy returns [S, E] at the evaluations of a run of one setting."""
    returns = results.metric(SCORE)[0]
    due = np.flatnonzero(~np.isnan(returns).all(0))
    played = np.broadcast_to(np.asarray(results.steps, np.float64), returns.shape)
    if "evolution/steps" in results.metrics:
        played = np.cumsum(results.metric("evolution/steps")[0], axis=1)
    return played[:, due], returns[:, due]


def at_budget(steps: np.ndarray, returns: np.ndarray, budget: int) -> np.ndarray:
    """[S]: the last score of each seed before it had played the budget; its first where there is none before.

    Args:
      steps, returns: [S, E], as of `scores`.
      budget: environment steps.
    """
    last = np.maximum((steps <= budget).sum(1) - 1, 0)
    return returns[np.arange(len(returns)), last]


def _row(run: jaxrl.Run, part: Part, steps: np.ndarray, returns: np.ndarray, budget: int) -> dict[str, Any]:
    found = at_budget(steps, returns, budget)
    estimate = bootstrap(found[:, None])
    info = run.results.info
    best = {}
    if has_fitness(run.results):
        # Of any individual in any generation, within the run and not within the budget.
        best["best_individuals"] = np.nanmax(run.results.metric("fitness/best")[0], axis=1).tolist()
    return {
        **best,
        "score_iqm": float(estimate.point[0]),
        "interval_95": [float(estimate.low[0]), float(estimate.high[0])],
        "scores": found.tolist(),
        "steps_played": steps[:, -1].tolist(),
        "last_scores": returns[:, -1].tolist(),
        "budget_reached": bool((steps[:, -1] >= budget).all()),
        "settings": part.all_settings,
        **{name: info[name] for name in ("compile_seconds", "train_seconds")},
        "provenance": origin_of(run),
    }


def _maze(config: Config, scale: str, search: bool) -> dict[str, Any] | None:
    """The selections of `experiments.novelty_search` at a scale: those that are there, or (with `search`) new ones."""
    table = config.maze.with_suffix(".json")
    if not table.exists() or read_json(table)["scale"] != scale:
        base = config.out / f"{config.scale}_maze"
        table = base.with_suffix(".json")
        if not table.exists():
            if not search:
                return None
            novelty_search.main(novelty_search.Config(scale, base))
    return read_json(table)["selections"]


def _write(config: Config, rows: dict[str, Any], arrays: dict[str, np.ndarray], bands: Any, maze: Any) -> None:
    base = config.out / config.scale
    statistic = (
        "IQM over seeds of greedy returns (16 episodes) at the budget of played steps, or at the end where it was not "
        "reached; 95 % bootstrap over seeds"
    )
    about = {"scale": config.scale, "statistic": statistic, "tasks": rows, "hard_maze": maze}
    write_json(base.with_suffix(".json"), about | provenance())
    write_npz(base.with_suffix(".npz"), {name: np.asarray(a, np.float32) for name, a in arrays.items()})
    budgets = {env: row["budget"] for env, row in rows.items()}
    draw_returns(arrays, budgets, {**METHODS, **SEEKING}, base.with_name(f"{base.name}_returns.png"))
    draw_all_fitness(bands, base.with_name(f"{base.name}_fitness.png"))


def _file(text: str) -> str:
    return text.replace("/", "_").replace(" ", "_")


if __name__ == "__main__":
    use_compilation_cache()
    main(tyro.cli(Config))
