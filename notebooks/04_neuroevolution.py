# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]

# %% [markdown]
# # Policies that evolve
#
# No gradient, no value function: a population of networks plays, and those that fared best have children. The Deep GA
# (Such et al. 2017) does no more than that, and what it needs to know of an individual is the list of random seeds that
# made it. This notebook evolves a policy that balances a pole and keeps it in a file of a kilobyte, walks out of a dead
# end by looking for what is new instead of what is good, and ends with a strategy of evosax.
#
# `JAXRL_FAST=1` runs the same code on a small budget.

# %%
import os
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxrl
from jaxrl.evaluation import record
from jaxrl.fitness_plots import draw_fitness, fitness_bands
from jaxrl.presets.neuroevolution import DeepGAConfig, DeepGAHparams, deep_ga
from jaxrl.presets.policies import evolved_policy
from jaxrl_envs.hard_maze import REACHED
from jaxrl_envs.hard_maze_drawing import maze_image

# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 80}

fast = bool(os.environ.get("JAXRL_FAST"))
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The Deep GA on CartPole
#
# Each generation: everybody plays one episode, the same one; the best ten play thirty more, and the best of those is the
# elite; from the elite and the next best come the children, by adding noise. One call runs all seeds.
#
# A pole is no challenge: among a hundred random networks some balance it at once. What takes generations is that *most*
# children of good parents are good, so look at the median.

# %%
population, episode, generations = (16, 100, 4) if fast else (100, 500, 25)
pool = {"elite_pool": 4, "elite_episodes": 4} if fast else {"elite_pool": 10, "elite_episodes": 30}
steps = (population + pool["elite_pool"] * pool["elite_episodes"]) * episode
settings = {
    "population": population,
    "num_parents": max(population // 10, 2),
    "max_episode_steps": episode,
    "sigma": 0.02,
    "total_steps": generations * steps,
    **pool,
}
curves = {}
for name, parents in (("Deep GA", settings["num_parents"]), ("random search", 0)):
    out = folder / name
    curves[name] = jaxrl.run(
        "deep_ga",
        "CartPole-v1",
        seeds=1 if fast else 4,
        settings=settings | {"num_parents": parents},
        out=out,
        progress=False,
    )
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axis, (name, results) in zip(axes, curves.items(), strict=True):
    draw_fitness(axis, fitness_bands(results))
    axis.set_title(name)
axes[0].legend()

# %% [markdown]
# ## A policy as a list of seeds
#
# A child is its parent plus noise that one seed makes, so a policy is the seeds of its ancestors: it grows by four bytes
# a generation, however many parameters it has. A champion's file says for which network its seeds are meant, and is
# rebuilt to the last bit. Nobody has beaten a founder that always balances the pole: one seed is then all there is.

# %%
run = jaxrl.load_run(folder / "Deep GA")
jaxrl.save_champion(folder / "champion.npz", run.champion())
champion = jaxrl.load_champion(folder / "champion.npz")
agent, state, env, env_params = champion.policy()
same = [
    np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (run.policy()[1].params, state.params)), strict=True)
]
size = (folder / "champion.npz").stat().st_size
print(f"{len(champion.genome.seeds)} seeds, {champion.codec['size']} parameters, {size} bytes, the same: {all(same)}")
played = jaxrl.evaluate(jax.random.key(7), agent, state, env, env_params, 32, max_steps=episode)
print(f"32 new episodes: mean return {played.returns.mean():.1f} of {episode}")

# %% [markdown]
# ## Novelty instead of fitness
#
# A robot with six range finders is paid at the end of 400 steps, by how near it is to the goal. The straight way there
# is a dead end. Select by that fitness, and everybody presses against the same wall. Select those whose *end* is far
# from where others have ended, now and before, and some will have gone round, though nobody told them about the goal.
#
# Below the command line and `jaxrl.run`, an algorithm is a pair of functions that `jaxrl.train` scans over.

# %%
maze = jaxrl.make_env("jaxrl/hard_maze")
people, generations = (40, 3) if fast else (500, 40)
found = {}
for selection in ("fitness", "novelty"):
    config = DeepGAConfig(
        population=people,
        num_parents=people // 20,
        elite_pool=0,
        max_episode_steps=400,
        hidden_sizes=(16,),
        selection=selection,
        population_batch=0 if fast else 32,
        archive_size=5_000,
        total_steps=generations * (people + 1) * 400,
    )
    algorithm = deep_ga(maze, config, DeepGAHparams(sigma=0.5, archive_probability=0.1))
    state, metrics = jax.jit(lambda key, a=algorithm: jaxrl.train(key, a, generations))(jax.random.key(0))
    found[selection] = (config, state, metrics)
    print(f"by {selection}: the champion ends {-float(metrics['elite/fitness'][-1]):.1f} from the goal")
print(f"nearer than {REACHED:g} counts as solved")

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
for selection, (_, _, metrics) in found.items():
    axes[0].plot(-metrics["fitness/best"], label=f"by {selection}")
axes[0].axhline(REACHED, color="grey", ls=":")
axes[0].set(xlabel="generation", ylabel="smallest final distance to the goal", ylim=(0, None))
axes[0].legend()
for axis, (selection, (config, state, _)) in zip(axes[1:], found.items(), strict=True):
    walker = evolved_policy(maze, config, None)
    walk = jax.jit(lambda s, w=walker: record(jax.random.key(0), w, s, maze, maze.default_params, 400))
    path = np.asarray(walk(state.agent)["states"].position)
    archive = state.strategy.archive
    ends = None if archive == () else np.asarray(archive.entries[: int(archive.count)])
    axis.imshow(maze_image(path=path, ends=ends, height=400))
    axis.set_title(f"by {selection}: the champion's path" + (", the archive" if ends is not None else ""), fontsize=9)
    axis.axis("off")

# %% [markdown]
# ## Evolution strategies
#
# An evolution strategy keeps no individuals but a distribution that it moves towards those that fared better. OpenAI-ES
# and the strategies that seek novelty are `open_es`, `ns_es`, `nsr_es` and `nsra_es`; every algorithm of evosax is a
# name: `jaxrl train evosax Acrobot-v1 --set strategy=CMA_ES`. All are evaluated by the same code and maximise.

# %%
individuals, episode, generations = (8, 50, 3) if fast else (32, 500, 30)
results = jaxrl.run(
    "cma_es",
    "Acrobot-v1",
    seeds=1 if fast else 3,
    settings={
        "population": individuals,
        "hidden_sizes": (8,),
        "max_episode_steps": episode,
        "sigma": 0.5,
        "total_steps": individuals * episode * generations,
    },
    out=folder / "cma_es",
    progress=False,
)
figure, axis = plt.subplots(figsize=(5, 3))
draw_fitness(axis, fitness_bands(results))
axis.set_title("CMA-ES (evosax) on Acrobot-v1")
axis.legend()

# %% [markdown]
# How these compare with each other, with random search and with PPO at the same number of environment steps is measured
# by `experiments/deep_neuroevolution.py`, and the maze over several seeds by `experiments/novelty_search.py`.
