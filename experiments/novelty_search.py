"""Novelty finds the way through the hard maze, and fitness does not: the same genetic algorithm, two selections.

    python -m experiments.novelty_search [--scale cpu] [--out experiments/results/novelty_search]

The robot is paid minus its distance to the goal at the end of 400 steps, and the way that gets it nearest first is a
dead end, 38.95 from the goal. By fitness the population ends up there. By novelty, which knows nothing of the goal, it
spreads over the maze. A run counts as solved where some individual came within 10 of the goal at any step.

Writes `<out>.json` (per selection and seed: the generation of the first success, the smallest distance, seconds),
`<out>.npz` (distances by generation, where individuals ended up) and `<out>.png`. Scale `paper` is the maze seen as
images, with the population of Such et al. 2017, arXiv:1712.06567, who report no number for it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxrl.agents.policy import PolicyState, policy_agent
from jaxrl.algorithm import train
from jaxrl.evaluation import Gather, record
from jaxrl.evo.deep_ga import DeepGAHparams, deep_ga
from jaxrl.evo.episodes import episodes, final
from jaxrl.evo.evolve import Strategy, evolve, in_chunks
from jaxrl.evo.novelty import NoveltySearch
from jaxrl.files import write_json, write_npz
from jaxrl.presets.neuroevolution import DeepGAConfig, network_codec
from jaxrl.provenance import provenance
from jaxrl.types import Evaluation
from jaxrl_envs.hard_maze import REACHED, hard_maze

SELECTIONS = ("novelty", "fitness")


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
      population, num_parents, sigma, generations: of the genetic algorithm.
      hidden_sizes: of the policy.
      images: whether it sees the maze from above, instead of by sensors.
      population_batch: who plays at once; 0 is all.
      seeds: how many.
    """

    population: int = 500
    num_parents: int = 25
    sigma: float = 0.5
    generations: int = 40
    hidden_sizes: tuple[int, ...] = (16,)
    images: bool = False
    population_batch: int = 0
    seeds: int = 4


SCALES = {
    "smoke": Scale(population=24, num_parents=4, generations=3, seeds=2),
    "cpu": Scale(),
    "gpu": Scale(seeds=20),
    "paper": Scale(20_000, 61, 0.005, 1_000, (512,), True, 200, 5),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run: a scale of `SCALES`, and where results go, without suffix."""

    scale: str = "cpu"
    out: Path = Path("experiments/results/novelty_search")


def _remembering(strategy: Strategy) -> Strategy:
    """The same, whose metrics have every individual's behaviour and its smallest distance to the goal."""

    def tell(key: Any, state: Any, genomes: Any, evaluation: Evaluation) -> Any:
        return strategy.tell(key, state[0], genomes, evaluation), (evaluation.descriptor, evaluation.gathered)

    num = len(strategy.groups)
    return strategy._replace(
        init=lambda key: (strategy.init(key), (jnp.zeros((num, 2)), jnp.zeros(num))),
        ask=lambda key, state: (strategy.ask(key, state[0])[0], state),
        decode=lambda state, genome: strategy.decode(state[0], genome),
        tell=tell,
        describe=lambda state: strategy.describe(state[0]) | {"ends": state[1][0], "nearest": state[1][1]},
    )


def make_run(scale: Scale, selection: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`(key) -> (champion, metrics)` of a whole run, compiled, and `(champion) -> [T, 2]`, a policy's path."""
    env = hard_maze(scale.images)
    params = env.default_params
    spaces = env.observation_space(params), env.action_space(params)
    network = DeepGAConfig(hidden_sizes=scale.hidden_sizes, activation="relu" if scale.images else "tanh")
    agent, codec = policy_agent(*spaces, network), network_codec(env, network)
    search = None
    if selection == "novelty":
        # Twice what is kept on average.
        room = max(int(0.02 * scale.population * scale.generations), 16)
        search = NoveltySearch(2, room)
    sizes = (scale.population, scale.num_parents, scale.generations, 0)
    strategy = _remembering(deep_ga(codec, DeepGAHparams(scale.sigma), *sizes, search))
    play = episodes(
        agent,
        env,
        params,
        as_state=PolicyState,
        behaviour=final(lambda moment: env.behaviour(moment.env_state, params)),
        gather=Gather(lambda moment: jnp.float32(0.0), lambda _, moment: moment.env_state.nearest),
    )
    algorithm = evolve(strategy, play, in_chunks(scale.population_batch))

    def run(key: Any) -> Any:
        (state, _), metrics = train(key, algorithm, scale.generations)
        return codec.to_params(state.cache[0]), metrics

    def path(found: Any) -> Any:
        return record(jax.random.key(0), agent, PolicyState(found), env, params, 400)["states"].position

    return jax.jit(run), jax.jit(path)


def main(config: Config) -> dict[str, np.ndarray]:
    """All seeds of both selections; returns {"<selection>/nearest": [S, G], "<selection>/ends": [S, G, N, 2], …}."""
    scale, rows, arrays = SCALES[config.scale], {}, {}
    for selection in SELECTIONS:
        run, path = make_run(scale, selection)
        began = time.perf_counter()
        compiled = run.lower(jax.random.key(0)).compile()  # type: ignore[attr-defined]
        compile_seconds, outcomes = time.perf_counter() - began, []
        for seed in range(scale.seeds):
            began = time.perf_counter()
            champion, metrics = jax.tree.map(np.asarray, compiled(jax.random.key(seed)))
            nearest = np.minimum.accumulate(metrics["nearest"].min(1))
            solved = nearest < REACHED
            outcomes.append(
                {
                    "seed": seed,
                    "first_success": int(solved.argmax()) if solved.any() else None,
                    "nearest": float(nearest[-1]),
                    "champion_distance": -float(metrics["elite/fitness"][-1]),
                    "seconds": time.perf_counter() - began,
                }
            )
            kept = {"nearest": nearest, "ends": metrics["ends"], "path": path(champion)}
            for name, array in kept.items():
                arrays.setdefault(f"{selection}/{name}", []).append(np.asarray(array, np.float32))
            print(selection, outcomes[-1], flush=True)
        num_solved = sum(row["first_success"] is not None for row in outcomes)
        rows[selection] = {"solved": num_solved, "compile_seconds": compile_seconds, "runs": outcomes}
    stacked = {name: np.stack(parts) for name, parts in arrays.items()}
    about = {"scale": config.scale, **dataclasses.asdict(scale), "solved_within": REACHED, "selections": rows}
    write_json(config.out.with_suffix(".json"), about | provenance())
    write_npz(config.out.with_suffix(".npz"), {n: a for n, a in stacked.items() if not n.endswith("ends")})
    draw(stacked, config.out.with_suffix(".png"))
    return stacked


def draw(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Distances over generations, and for either selection where the first seed's individuals ended up."""
    import matplotlib.pyplot as plt

    from jaxrl_envs.hard_maze_drawing import maze_image

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
    for selection, colour in zip(SELECTIONS, ("tab:blue", "tab:orange"), strict=True):
        for i, curve in enumerate(arrays[f"{selection}/nearest"]):
            axes[0].plot(curve, color=colour, alpha=0.8, label=f"by {selection}" if i == 0 else None)
    axes[0].axhline(REACHED, color="grey", linestyle=":", label="solved")
    axes[0].set(xlabel="generation", ylabel="smallest distance to the goal so far", ylim=(0, None))
    axes[0].legend()
    for axis, selection in zip(axes[1:], SELECTIONS, strict=True):
        ends = arrays[f"{selection}/ends"][0].reshape(-1, 2)
        axis.imshow(maze_image(path=arrays[f"{selection}/path"][0], ends=ends, height=600))
        axis.set_title(f"by {selection}: everyone's end, the champion's path")
        axis.axis("off")
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Config))
