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
# # Quality and diversity
#
# Other learners look for the best policy. Quality-diversity looks for the best one of each kind of behaviour, and keeps
# them in an archive with a cell for each kind. This notebook fills an archive of robot arms by variation alone, then one
# of policies with an agent that learns beside it (DCRL-MAP-Elites), and looks into its cells.
#
# `JAXRL_FAST=1` runs the same code on a small budget.

# %%
import dataclasses
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxrl
from jaxrl.archive_plots import fitness_map
from jaxrl.evaluation import record
from jaxrl.presets import PRESETS
from jaxrl.presets.quality_diversity import told_individuals
from jaxrl.qd.archive import elites, individuals_at, nearest_individual
from jaxrl.qd.emitters import iso_line
from jaxrl.qd.map_elites import map_elites
from jaxrl.qd.tessellation import grid
from jaxrl.types import Evaluation
from jaxrl_envs.functions import arm

# %matplotlib inline
# %config InlineBackend.print_figure_kwargs = {"dpi": 80}

fast = bool(os.environ.get("JAXRL_FAST"))

# %% [markdown]
# ## Arms
#
# A planar arm of 20 joints should bend evenly, wherever its hand is: fitness is minus the spread of its angles, and its
# descriptor is the hand's place. An individual is any pytree, here a vector, and an evaluation any function of one; the
# loop is `emit`, evaluate, `insert`, for as many iterations as `train` is asked for.

# %%
joints, side = 20, 32


def evaluate(key, own_key, x):
    task = arm(x)
    return Evaluation(task.fitness, task.descriptor)


algorithm = map_elites(
    evaluate,
    iso_line(256, iso_sigma=0.05, line_sigma=0.1, low=0.0, high=1.0),
    elites(grid([0, 0], [1, 1], [side, side])),
    lambda key: jax.random.uniform(key, (256, joints)),
    num_dimensions=2,
)
iterations = 40 if fast else 400
state, metrics = jax.jit(lambda key: jaxrl.train(key, algorithm, iterations))(jax.random.key(0))
archive = state.archive
print(
    f"{int(state.num_evaluations):,} arms, {int(archive.occupied.sum())} of {side**2} cells, of which 856 can be reached"
)

# %% [markdown]
# Every cell holds one arm. Here is the map, and what some of the cells hold.


# %%
def bodies(x):
    """[n + 1, 2], where the joints of an arm are."""
    angles = np.cumsum(2 * np.pi * np.asarray(x) - np.pi)
    steps = np.stack([np.cos(angles), np.sin(angles)], 1) / (2 * len(x))
    return np.concatenate([[[0.5, 0.5]], 0.5 + np.cumsum(steps, 0)])


places = [(0.9, 0.6), (0.5, 0.85), (0.25, 0.25), (0.7, 0.3)]
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
shown = axes[0].imshow(fitness_map(archive, [0, 0], [1, 1]), origin="lower", extent=(0, 1, 0, 1))
figure.colorbar(shown, ax=axes[0], label="fitness")
for place in places:
    cell = nearest_individual(archive, place, [0, 0], [1, 1])
    line = bodies(archive.genotypes[cell])
    axes[0].plot(*line.T, color="tab:red", linewidth=1)
    axes[0].plot(*line[-1], "o", color="tab:red", markersize=4)
axes[0].set(xlabel="hand, x", ylabel="hand, y", title="fitness, and four arms")
axes[1].plot(metrics["archive/coverage"], label="coverage")
axes[1].axhline(856 / side**2, color="grey", linestyle=":", label="what an arm can reach")
axes[1].set(xlabel="iteration", ylim=(0, 1))
axes[1].legend()
plt.show()

# %% [markdown]
# ## Policies
#
# PointMass-Omni: a point starts in the middle of a square, pushes itself about for 50 steps, and is paid for sparing its
# forces. The descriptor is where it ends up. Random changes of a network's weights hardly ever take the point anywhere,
# and a critic says that standing still pays best. DCRL-MAP-Elites trains one actor that is *told* where to go, lets it
# enter the archive as a policy for each of some places, and improves policies by gradients that know where they belong.

# %%
env = jaxrl.make_env("jaxrl/point_mass")
low, high = env.behaviour_bounds(env.default_params)
sizes = {"episode_steps": 50, "grid_shape": (16, 16), "hidden_sizes": (64, 64), "num_initial": 64, "total_steps": 10**6}
learning = {
    "critic_hidden_sizes": (64, 64), "num_agent_updates": 100 if fast else 300, "num_pg_steps": 30, "buffer_size": 128_000,
}  # fmt: skip
variants = {
    "MAP-Elites": ("map_elites", {"num_ga": 64}),
    "DCRL-MAP-Elites": ("dcrl_map_elites", {"num_ga": 32, "num_pg": 16, "num_injected": 16, **learning}),
}
iterations, found = 10 if fast else 30, {}
for label, (name, settings) in variants.items():
    preset = PRESETS[name]
    config = dataclasses.replace(preset.config, **sizes, **settings)
    learner = preset.make(env, config, preset.hparams, None)
    found[label] = jax.jit(lambda key, a=learner: jaxrl.train(key, a, iterations))(jax.random.key(0))
    last = {n: float(v[-1]) for n, v in found[label][1].items() if n.startswith("archive/")}
    print(f"{label}: {int(found[label][0].num_evaluations):,} episodes, coverage {last['archive/coverage']:.0%}, "
          f"QD score {last['archive/qd_score']:,.0f}")  # fmt: skip

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
for axis, (label, (state, _)) in zip(axes[:2], found.items(), strict=True):
    image = axis.imshow(fitness_map(state.archive, low, high), origin="lower", extent=(-1, 1, -1, 1), vmin=25, vmax=50)
    axis.set(title=label, xlabel="where it ends, x", ylabel="y", facecolor="#E8E8E8")
figure.colorbar(image, ax=axes[:2], label="return")
for label, (_, metrics) in found.items():
    axes[2].plot(metrics["archive/coverage"], label=label)
axes[2].set(xlabel="iteration", ylabel="coverage", ylim=(0, 1))
axes[2].legend()
plt.show()

# %% [markdown]
# Which of the operators fill the archive? Each says how many of its offspring were kept.

# %%
metrics = found["DCRL-MAP-Elites"][1]
for name, label in {"ga": "variation (32)", "pg": "policy gradients (16)", "ai": "the actor itself (16)"}.items():
    plt.plot(np.cumsum(metrics[f"operator/{name}_added"]), label=label)
plt.gca().set(xlabel="iteration", ylabel="kept so far")
plt.legend()
plt.show()

# %% [markdown]
# ## A look into cells
#
# `nearest_individual` finds the occupied cell nearest to what one would like to see done. Its policy is played once, and
# so is the actor that is told the same place: one network instead of a whole archive.

# %%
state = found["DCRL-MAP-Elites"][0]
agent = PRESETS["dcrl_map_elites"].agent(env, config, None)
play = jax.jit(lambda key, policy: record(key, agent, policy, env, env.default_params, 50)["obs"][:, :2])
wishes = [(0.7, 0.7), (-0.7, 0.5), (-0.4, -0.8), (0.8, -0.3), (0.0, 0.4), (0.1, -0.1)]
told = told_individuals(env, config, None, state.emitter.agent, jnp.array(wishes))
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), sharey=True)
for i, wish in enumerate(wishes):
    cell = nearest_individual(state.archive, wish, low, high)
    policies = individuals_at(state.archive, jnp.asarray(cell))[0], jax.tree.map(lambda leaf, i=i: leaf[i], told)
    for axis, policy in zip(axes, policies, strict=True):
        (line,) = axis.plot(*np.asarray(play(jax.random.key(i), policy)).T, linewidth=1.5)
        axis.plot(*wish, "x", color=line.get_color(), markersize=8)
for axis, title in zip(axes, ("policies of the archive", "one actor, told"), strict=True):
    axis.set(xlim=(-1, 1), ylim=(-1, 1), title=title, aspect="equal")
plt.show()

# %% [markdown]
# The crosses are the wishes. The archive fulfils them better than the actor that it came from: after so few episodes that
# one knows only roughly where it is going, and everybody who lands in a cell is kept. With a run directory the same is
# `jaxrl render RUN --descriptor 0.7,0.7`, which writes a replay; `jaxrl train dcrl_map_elites ant_omni` is the published
# task for legs.
